import type { Lease, Namespace } from '@conclave/sdk';
import type { Place } from './place.ts';

/**
 * The names under which a lease of a caller's has a place, as far as this process knows. The store knows too, but a request whose answer was lost
 * is asked again, and what the repeat then finds under the lease's id could be the place of another call on the same lease.
 */
const places = new WeakMap<Lease, WeakMap<Namespace, Set<string>>>();
/** And once the store has answered, the places themselves: two namespaces may be one. */
const tokens = new WeakMap<Lease, Set<bigint>>();

/** False when the lease has the place already. */
export function claim(lease: Lease, client: Namespace, name: string): boolean {
  const names = namesOf(lease, client);
  if (names.has(name)) return false;
  names.add(name);
  return true;
}

export function disclaim({ lease, client, name, token }: Pick<Place, 'lease' | 'client' | 'name' | 'token'>): void {
  namesOf(lease, client).delete(name);
  tokens.get(lease)?.delete(token);
}

/** False when the place is another call's: it came here by another namespace object. */
export function claimToken(lease: Lease, token: bigint): boolean {
  const known = tokens.get(lease) ?? new Set<bigint>();
  tokens.set(lease, known);
  if (known.has(token)) return false;
  known.add(token);
  return true;
}

/** The place is some call's. */
export function isClaimed(lease: Lease, token: bigint): boolean {
  return tokens.get(lease)?.has(token) === true;
}

function namesOf(lease: Lease, client: Namespace): Set<string> {
  const clients = places.get(lease) ?? new WeakMap<Namespace, Set<string>>();
  places.set(lease, clients);
  const names = clients.get(client) ?? new Set<string>();
  clients.set(client, names);
  return names;
}
