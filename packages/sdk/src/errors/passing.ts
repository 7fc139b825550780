import { isConclaveError } from './conclave-error.ts';

/** The gRPC status of a server that cannot answer now: it has no leader, is too slow, or is going away. */
const statusUnavailable = 14;

/** Whether an error may pass: the server could not be asked, could not answer, or its answer was lost. */
export function isPassing(error: unknown): boolean {
  if (!isConclaveError(error)) return false;
  if (error.outcome === 'unknown' || error.grpcCode === statusUnavailable) return true;
  return (
    error.code === 'unavailable' || error.code === 'deadline-exceeded' || error.code === 'too-many-requests' || error.code === 'no-space'
  );
}
