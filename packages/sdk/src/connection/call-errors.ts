import type { CallEnd } from '@conclave/wire';
import { ConclaveError, type Outcome } from '../errors/conclave-error.ts';
import { describeEndpoints, type EndpointStatus } from './balancer.ts';

export function cancelled(signal: AbortSignal | undefined, outcome: Outcome): ConclaveError<'cancelled'> {
  return new ConclaveError({ code: 'cancelled', message: 'the call was cancelled', outcome, cause: signal?.reason });
}

/** The error of a call that its middleware did not let pass in time. */
export function heldBack(): ConclaveError<'deadline-exceeded'> {
  return new ConclaveError({
    code: 'deadline-exceeded',
    message: 'a middleware held the call back until its time was up',
    outcome: 'not-applied',
  });
}

export function stale(seen: number): ConclaveError<'stale'> {
  const message = `no member answered in time that is at revision ${seen}, which this client has seen`;
  return new ConclaveError({ code: 'stale', message, outcome: 'not-applied' });
}

/** `failure` is what became of the last attempt, if there was one. */
export function unreachable(status: readonly EndpointStatus[], failure: CallEnd | undefined): ConclaveError<'unavailable'> {
  const last = failure === undefined || failure.message === '' ? '' : `; last failure: ${failure.message}`;
  return new ConclaveError({
    code: 'unavailable',
    message: `no endpoint could be reached in time (${describeEndpoints(status)})${last}`,
    // Whatever was sent before was proved unseen, or the call is one that has no effect.
    outcome: 'not-applied',
  });
}
