import { type WireErrorKey, wireErrors } from '@conclave/protocol';
import { StatusError } from '@conclave/wire';

/** The refusal of a request, in etcd's words, as it goes on the wire. */
export function failure(key: WireErrorKey): StatusError {
  const row = wireErrors[key];
  return new StatusError(row.code, row.message);
}
