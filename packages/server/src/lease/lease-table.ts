import type { Store } from '../storage/backend/store.ts';

/** Told of every lease that comes or goes, from inside the apply that made it so. Must not write. */
export interface LeaseListener {
  granted(id: bigint, ttlSeconds: number): void;
  revoked(id: bigint): void;
}

/**
 * The leases that were granted and the keys attached to each: a replicated table, the same on every member. It knows time to live, not time;
 * deadlines are kept above, by the leader alone.
 *
 * Tables: `leases` (id → granted TTL) and `leaseKeys` (id and key → nothing). A key is attached to at most one lease, which its KeyValue names
 * too; `apply` keeps the two together.
 */
export class LeaseTable {
  readonly #store: Store;
  #listener: LeaseListener | undefined;

  /** Opens what the store holds; reads nothing yet. */
  constructor(store: Store) {
    this.#store = store;
  }

  /** At most one listener. */
  listen(listener: LeaseListener): void {
    if (this.#listener !== undefined) throw new Error('the lease table has a listener');
    this.#listener = listener;
  }

  has(id: bigint): boolean {
    return this.#store.get('leases', idBytes(id)) !== undefined;
  }

  /** Granted time to live in seconds; undefined for an unknown lease. */
  ttlSeconds(id: bigint): number | undefined {
    const row = this.#store.get('leases', idBytes(id));
    return row === undefined ? undefined : Number(view(row).getBigUint64(0));
  }

  /** Every lease, in the order of its id as an unsigned number. The visitor must not write. */
  forEach(visit: (id: bigint, ttlSeconds: number) => void): void {
    for (const row of this.#store.scan('leases', lowest, undefined))
      visit(view(row.key).getBigInt64(0), Number(view(row.value).getBigUint64(0)));
  }

  ids(): bigint[] {
    return Array.from(this.#store.scan('leases', lowest, undefined), (row) => view(row.key).getBigInt64(0));
  }

  /** The keys attached to a lease in bytewise order, in memory of their own. */
  keysOf(id: bigint): Uint8Array[] {
    const start = idBytes(id);
    return Array.from(this.#store.scan('leaseKeys', start, after(start)), (row) => new Uint8Array(row.key.subarray(idSize)));
  }

  // ---- writes: apply only -----------------------------------------------------------------------------------------------------------

  /** Adds a lease. It must not exist yet. */
  grant(id: bigint, ttlSeconds: number): void {
    if (this.has(id)) throw new Error(`lease ${id} exists`);
    const ttl = new Uint8Array(8);
    view(ttl).setBigUint64(0, BigInt(ttlSeconds));
    this.#store.put('leases', idBytes(id), ttl);
    this.#listener?.granted(id, ttlSeconds);
  }

  /** Takes a lease out, and what it still knows of attached keys. Their deletion is the caller's, in the same entry. */
  revoke(id: bigint): void {
    for (const key of this.keysOf(id)) this.#store.delete('leaseKeys', rowKey(id, key));
    this.#store.delete('leases', idBytes(id));
    this.#listener?.revoked(id);
  }

  /** Attaches a key that is attached to no other lease. The key is copied. */
  attach(id: bigint, key: Uint8Array): void {
    this.#store.put('leaseKeys', rowKey(id, key), nothing);
  }

  detach(id: bigint, key: Uint8Array): void {
    this.#store.delete('leaseKeys', rowKey(id, key));
  }
}

const idSize = 8;
const lowest = new Uint8Array(idSize);
const nothing = new Uint8Array(0);

function idBytes(id: bigint): Uint8Array {
  const bytes = new Uint8Array(idSize);
  view(bytes).setBigInt64(0, id);
  return bytes;
}

function rowKey(id: bigint, key: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(idSize + key.length);
  view(bytes).setBigInt64(0, id);
  bytes.set(key, idSize);
  return bytes;
}

/** The lowest bytes above every row of a lease; undefined for the last id there can be. */
function after(start: Uint8Array): Uint8Array | undefined {
  const id = view(start).getBigUint64(0);
  if (id === 0xffffffffffffffffn) return undefined;
  const bytes = new Uint8Array(idSize);
  view(bytes).setBigUint64(0, id + 1n);
  return bytes;
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
