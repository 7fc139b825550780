import {
  type Comparison,
  ConclaveError,
  type DeleteOperation,
  del,
  key,
  type Lease,
  type Namespace,
  type PutOperation,
} from '@conclave/sdk';
import type { Kind } from './kind.ts';
import { isTransient, pauseMs, Scope } from './scope.ts';

/** A place in a queue: a key of its own, attached to a lease. */
export interface Place {
  readonly client: Namespace;
  readonly kind: Kind;
  readonly name: string;
  readonly key: string;
  readonly lease: Lease;
  /** The lease was granted for this place alone, and goes with it. */
  readonly ownsLease: boolean;
  /** The revision that created the key. */
  readonly token: bigint;
}

/** Holds while the key is there that makes the place, and the lease is this process's: a successor goes on with the same key. */
export function guardOf({ key: own, lease, token }: Place): Comparison {
  const isThere = key(own).createRevision.equals(token);
  return lease.guards.length === 0 ? isThere : { ...isThere, and: lease.guards };
}

/**
 * Writes to the place's key. False: the place is gone, or was handed over with its lease.
 *
 * @throws ConclaveError `guard-failed`
 */
export async function writeTo(place: Place, operation: PutOperation | DeleteOperation): Promise<boolean> {
  const { client, key: own, lease, token } = place;
  const { succeeded } = await client.txn().if(guardOf(place)).then(operation).commit();
  if (succeeded || lease.guards.length === 0) return succeeded;
  if (lease.state !== 'held' || (await client.get(own))?.createRevision !== token) return false;
  throw guardFailed(lease);
}

/** Why a guard of the lease does not hold: the lease is not held any more; or the session's own key was deleted by hand, and is put again soon. */
export function guardFailed(lease: Lease): ConclaveError {
  if (lease.state !== 'held') return lease.signal.reason;
  const message = `the key of the session with the lease ${lease.id.toString(16)} is missing`;
  return new ConclaveError({ code: 'guard-failed', message, outcome: 'not-applied' });
}

/**
 * Leaves the queue. With a lease of its own the lease is revoked, which takes the key with it in one step and leaves nothing to renew. On a
 * shared lease the key is deleted if it is still the one of this place; that is repeated while its outcome is in doubt, as it may be.
 */
export async function leave(place: Place): Promise<void> {
  if (place.ownsLease) return await place.lease.revoke();
  const { client, kind, lease } = place;
  const scope = new Scope(client, kind, undefined, undefined);
  for (let attempt = 0; ; attempt += 1) {
    // The place went with it, and is another process's.
    if (lease.state === 'handed-over') return;
    try {
      await writeTo(place, del(place.key));
      return;
    } catch (error) {
      // Once the lease is over the key is too.
      if (lease.state !== 'held') return;
      if (!isTransient(error)) throw error;
      await scope.wait((resolve) => {
        const timer = client.runtime.timer(pauseMs(client, attempt), resolve);
        return () => timer.cancel();
      });
    }
  }
}
