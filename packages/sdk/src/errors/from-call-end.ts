import { findWireError, StatusCode, type WireError } from '@conclave/protocol';
import type { CallEnd } from '@conclave/wire';
import { ConclaveError, type ErrorCode, type ErrorDetails, type Outcome } from './conclave-error.ts';

/** The trailer by which a server that knows better than its status code says what became of a write. */
const outcomeTrailer = 'conclave-outcome';

/** Codes for texts that are not in the table. */
const codeByStatus: Readonly<Record<number, ErrorCode>> = {
  [StatusCode.CANCELLED]: 'request-canceled',
  [StatusCode.INVALID_ARGUMENT]: 'invalid-argument',
  [StatusCode.DEADLINE_EXCEEDED]: 'deadline-exceeded',
  [StatusCode.PERMISSION_DENIED]: 'permission-denied',
  [StatusCode.RESOURCE_EXHAUSTED]: 'resource-exhausted',
  [StatusCode.UNIMPLEMENTED]: 'unimplemented',
  [StatusCode.INTERNAL]: 'internal',
  [StatusCode.UNAVAILABLE]: 'unavailable',
  [StatusCode.DATA_LOSS]: 'corrupt-cluster',
  [StatusCode.UNAUTHENTICATED]: 'unauthenticated',
};

/** Status codes that only a refusal carries: the request was looked at and turned down before anything was done. */
const refusals: ReadonlySet<number> = new Set([
  StatusCode.INVALID_ARGUMENT,
  StatusCode.NOT_FOUND,
  StatusCode.ALREADY_EXISTS,
  StatusCode.PERMISSION_DENIED,
  StatusCode.FAILED_PRECONDITION,
  StatusCode.OUT_OF_RANGE,
  StatusCode.UNIMPLEMENTED,
  StatusCode.UNAUTHENTICATED,
]);

/** Status codes without a known text after which an idempotent request may be sent again. */
const repeatable: ReadonlySet<number> = new Set([StatusCode.CANCELLED, StatusCode.INTERNAL, StatusCode.UNAVAILABLE]);

/** Whether a request that may be repeated should be, after it ended so. */
export function isTransient(end: CallEnd): boolean {
  if (end.notProcessed) return true;
  const row = findWireError(end.code, end.message);
  if (row === undefined) return repeatable.has(end.code);
  return row.retry === 'unavailable' || row.retry === 'other-member';
}

/** Whether the end is the server's own word, and not a connection that was lost or a time that was up. */
export function isAnswer(end: CallEnd): boolean {
  return end.code === 0 || (!end.notProcessed && end.code !== StatusCode.DEADLINE_EXCEEDED);
}

/** Whether what ended so says something about the member that was asked, and not about what was asked of it. */
export function isMemberAtFault(end: CallEnd): boolean {
  if (end.notProcessed || end.code === StatusCode.CANCELLED) return false;
  return end.code === StatusCode.DEADLINE_EXCEEDED || isTransient(end);
}

/** Whether a stream that ended so would end so again: it was refused for what it asks, not lost on the way. */
export function isRefusedStream(end: CallEnd): boolean {
  if (end.notProcessed) return false;
  const row = findWireError(end.code, end.message);
  if (row !== undefined && row.retry !== 'never') return false;
  return refusals.has(end.code) || end.code === StatusCode.RESOURCE_EXHAUSTED;
}

/** Whether what ended so was refused for its token alone: with another it may be taken. Nothing was done. */
export function refusesToken(code: number | undefined, message: string): boolean {
  const row = findWireError(code, message);
  // The second is said to those who bring none, as a client does while it is told that none is needed.
  return row?.retry === 'reauthenticate' || row?.key === 'user-empty';
}

/** The error for a call that ended badly. `isMutation` says whether there was an effect to be in doubt about. */
export function fromCallEnd(end: CallEnd, isMutation: boolean): ConclaveError {
  const row = findWireError(end.code, end.message);
  return new ConclaveError({
    code: row?.key ?? codeByStatus[end.code] ?? 'unknown',
    message: end.message === '' ? `the call ended with gRPC status ${end.code}` : end.message,
    outcome: isMutation ? outcomeOf(end, row) : 'not-applied',
    grpcCode: end.code,
  });
}

/** What a failed end says about the mutation it ended. Anything that is not proof is `unknown`. */
export function outcomeOf(end: CallEnd, row: WireError | undefined = findWireError(end.code, end.message)): Outcome {
  if (end.notProcessed) return 'not-applied';
  const stated = end.trailer(outcomeTrailer);
  if (stated === 'not-applied' || stated === 'applied' || stated === 'unknown') return stated;
  if (row !== undefined) return row.outcome;
  return refusals.has(end.code) ? 'not-applied' : 'unknown';
}

/** The error for a text that came without a status, such as the reason of a cancelled watch. */
export function fromReason(message: string, details?: ErrorDetails<string>): ConclaveError {
  const row = findWireError(undefined, message);
  return new ConclaveError({ code: row?.key ?? 'unknown', message, outcome: 'not-applied', grpcCode: row?.code, details });
}
