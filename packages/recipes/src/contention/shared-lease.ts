import type { Lease, Namespace } from '@conclave/sdk';

/**
 * The names under which a lease of a caller's has a place, as far as this process knows. The store knows too, but a request whose answer was lost
 * is asked again, and what the repeat then finds under the lease's id could be the place of another call on the same lease.
 */
const places = new WeakMap<Lease, WeakMap<Namespace, Set<string>>>();

/** False when the lease has the place already. */
export function claim(lease: Lease, client: Namespace, name: string): boolean {
  const names = namesOf(lease, client);
  if (names.has(name)) return false;
  names.add(name);
  return true;
}

export function disclaim(lease: Lease, client: Namespace, name: string): void {
  namesOf(lease, client).delete(name);
}

function namesOf(lease: Lease, client: Namespace): Set<string> {
  const clients = places.get(lease) ?? new WeakMap<Namespace, Set<string>>();
  places.set(lease, clients);
  const names = clients.get(client) ?? new Set<string>();
  clients.set(client, names);
  return names;
}
