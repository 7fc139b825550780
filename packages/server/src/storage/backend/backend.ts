/**
 * The applied state on disk: ordered tables of bytes. Derived state: the write-ahead log is the durability, and whatever a lost commit held
 * is applied again from there. That is why commits are asynchronous, large and never waited for by a request.
 *
 * Two implementations, driven by equal commands in tests: `lmdb.ts` and its in-memory twin `memory.ts`.
 */
export interface Backend {
  /** The value, or undefined. The bytes are valid until the caller returns to the event loop; whoever keeps them copies. */
  get(table: Table, key: Uint8Array): Uint8Array | undefined;
  /**
   * Rows with `start <= key < end` in key order (or in descending order), from the newest commit, at most `limit` of them.
   * Consume it without returning to the event loop. `end` undefined: to the end of the table.
   */
  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options?: ScanOptions): Iterable<Row>;
  /** Rows of the range, without reading them where the engine can. */
  count(table: Table): number;
  /**
   * Commits all changes in one transaction. Resolves once it is durable and visible to reads. One at a time; a rejection is fatal for the member.
   * A change with `value` undefined deletes the row. Rows are applied in the order given; the last one of a key wins.
   */
  commit(changes: Changes): Promise<void>;
  /** What is committed now, for as long as it is open: later commits do not show in it. */
  view(): BackendView;
  /** Bytes of the file on disk, and how many of them hold live data. Both are above zero. */
  size(): { readonly total: number; readonly inUse: number };
  close(): Promise<void>;
}

/** One commit's state, read over many turns of the loop. It keeps pages of later commits from being used again, so it is to be closed soon. */
export interface BackendView extends Pick<Backend, 'get' | 'scan'> {
  /** Idempotent. Nothing may be read from it afterwards. */
  close(): void;
}

export interface ScanOptions {
  readonly reverse?: boolean;
  readonly limit?: number;
  /** Only the keys are wanted: the value of a row may be empty, and is not checked. Counting costs a quarter of reading. Default: false. */
  readonly keysOnly?: boolean;
}

export interface Row {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

export interface Changes {
  readonly rows: Iterable<Change>;
  /** All tables but `local` are emptied first, in the same transaction. Default: false. */
  readonly isReplacement?: boolean;
}

export interface Change {
  readonly table: Table;
  readonly key: Uint8Array;
  /** undefined: delete. */
  readonly value: Uint8Array | undefined;
}

/**
 * - `log`: revision (main, sub: 8 bytes big endian each) → KeyValue bytes or tombstone. Watch catch-up, hashing, compaction, export.
 * - `head`: key → live KeyValue. Current reads never step over versions.
 * - `past`: key and inverted revision → position in `log`. Only reads at an older revision.
 * - `leases`: lease id → granted TTL. `leaseKeys`: lease id and key → empty.
 * - `meta`: applied index and term, compaction, cluster version, auth: small rows by name.
 * - `members`: member id → member, or what is left of a removed one.
 * - `local`: what this member remembers for itself (`local-memory.ts`). The only table that differs between members: no part of snapshots and hashes.
 */
export type Table = 'log' | 'head' | 'past' | 'leases' | 'leaseKeys' | 'meta' | 'members' | 'local';

/** In the order of their numbers in the formats that name them by number: new ones come last. */
export const tables: readonly Table[] = ['log', 'head', 'past', 'leases', 'leaseKeys', 'meta', 'members', 'local'];

/** Every engine refuses the empty key, as one of them must. */
export function checkKey(table: Table, key: Uint8Array): void {
  if (key.length === 0) throw new Error(`table ${table}: a row needs a key`);
}
