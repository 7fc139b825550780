import type { ConclaveError } from '../errors/conclave-error.ts';
import type { KeyValue } from '../kv/key-value.ts';

/**
 * How a session is.
 *
 * - `connecting`: it has no lease yet. Seen of a session that is `lazy`.
 * - `live`: it has a lease, and renewals get through.
 * - `at-risk`: it still has its lease, but a renewal is overdue. `slackMs` is what was left then.
 * - `lost`: the lease is gone, or may be. Another is being asked for.
 * - `recovered`: it has another lease, and every key that it holds is back in place, as far as it may be. `live` follows at once.
 * - `handed-over`: a {@link SessionToken} for it was made. Only {@link Session.takeBack} goes on from here.
 * - `closed`: it has ended; `error` says why, if it was not closed here.
 *
 * `at` is the wall clock's time of the change, in milliseconds since 1970; `incarnation` counts the leases of the session, from 1.
 */
export type SessionState =
  | { readonly state: 'connecting'; readonly at: number }
  | { readonly state: 'live'; readonly at: number; readonly incarnation: number }
  | { readonly state: 'at-risk'; readonly at: number; readonly slackMs: number }
  | { readonly state: 'lost'; readonly at: number; readonly error: ConclaveError }
  | { readonly state: 'recovered'; readonly at: number; readonly incarnation: number; readonly lostMs: number }
  | { readonly state: 'handed-over'; readonly at: number }
  | { readonly state: 'closed'; readonly at: number; readonly error?: unknown };

/**
 * How something that a session holds is.
 *
 * - `pending`: it is not in place: the session has no lease, or the server has not answered yet.
 * - `held`: it is in place.
 * - `taken`: somebody else has the key, and `kv` is what they wrote. It is put again when it is gone.
 * - `failed`: the server, or the function that establishes it, refuses. It is tried again with the session's next lease, and by `update`.
 * - `released`: it was released, or its session has ended.
 */
export type HoldState =
  | { readonly state: 'pending' }
  | { readonly state: 'held' }
  | { readonly state: 'taken'; readonly kv: KeyValue }
  | { readonly state: 'failed'; readonly error: unknown }
  | { readonly state: 'released' };
