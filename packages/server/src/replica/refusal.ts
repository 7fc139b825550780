import { type WireErrorKey, wireErrors } from '@conclave/protocol';
import { StatusError } from '@conclave/wire';

/** The trailer that says what the status alone cannot: our SDK reads it, others ignore it. */
export const outcomeTrailer = 'conclave-outcome';

/** A refusal in etcd's words. Its outcome is what the wire-error table says for the key. */
export function refusal(key: WireErrorKey): StatusError {
  return new StatusError(wireErrors[key].code, wireErrors[key].message);
}

/** The same where this member knows that the request never entered the log, which the words alone leave open. */
export function refusalBeforeLog(key: WireErrorKey): StatusError {
  const { code, message, outcome } = wireErrors[key];
  return new StatusError(code, message, outcome === 'unknown' ? { [outcomeTrailer]: 'not-applied' } : {});
}
