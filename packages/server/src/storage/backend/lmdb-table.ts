import { crc32 } from 'node:zlib';
import type { Database, GetOptions, RangeOptions, Transaction } from 'lmdb';
import type { Row, ScanOptions } from './backend.ts';
import { compareBytes, endOfPrefix } from './bytes.ts';
import { checksumBytes } from './lmdb-writer.ts';
import { type Digest, filedKey, filedKeyBytes, isFiled, isLong, isSameBucket, plainKeyBytesMax, unfile } from './long-keys.ts';
import { StateCorruptionError } from './state-corruption-error.ts';

/** Reads one table of the LMDB backend. Whatever cannot have been written throws StateCorruptionError ('state-corrupt'). */
export class LmdbTable {
  readonly #name: string;
  readonly #store: TransactionalReads;
  readonly #digest: Digest;
  /** Names the transaction to read in; empty for the newest one. */
  readonly #within: { readonly transaction?: Transaction };
  #openScans = 0;

  /** @param name - for messages: which table of which file */
  constructor(name: string, store: Database<Buffer, Uint8Array>, digest: Digest, transaction?: Transaction) {
    this.#name = name;
    this.#store = store as TransactionalReads;
    this.#digest = digest;
    this.#within = transaction === undefined ? {} : { transaction };
  }

  /** The table as one read transaction sees it. */
  in(transaction: Transaction): LmdbTable {
    return new LmdbTable(this.#name, this.#store, this.#digest, transaction);
  }

  /** Scans that were begun and neither consumed nor returned. Each holds a read transaction, which pins pages. */
  get openScans(): number {
    return this.#openScans;
  }

  get(key: Uint8Array): Uint8Array | undefined {
    if (key.length === 0) return undefined;
    return isLong(key) ? this.#getLong(key) : this.#getPlain(key);
  }

  *scan(start: Uint8Array, end: Uint8Array | undefined, options: ScanOptions): Generator<Row, undefined> {
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    if (left <= 0 || end?.length === 0) return;
    // Only a long bound falls into a bucket, where the stored bounds are too wide.
    const from = isLong(start) ? start : undefined;
    const to = end !== undefined && isLong(end) ? end : undefined;
    for (const row of this.#inOrder(start, end, options)) {
      if (from !== undefined && compareBytes(row.key, from) < 0) continue;
      if (to !== undefined && compareBytes(row.key, to) >= 0) continue;
      yield row;
      if (--left === 0) return;
    }
  }

  stats(): TableStats {
    const { pageSize, entryCount, treeBranchPageCount, treeLeafPageCount, overflowPages } = this.#store.getStats() as TreeStats;
    return { rows: entryCount, bytes: (treeBranchPageCount + treeLeafPageCount + overflowPages) * pageSize };
  }

  #getPlain(key: Uint8Array): Uint8Array | undefined {
    const stored = readingLmdb(() => this.#store.getBinaryFast(key, this.#within));
    if (stored === undefined) return undefined;
    // The engine uses this buffer again for the next read, and its `length` is not that of the memory behind it.
    const value = Buffer.allocUnsafe(stored.length - checksumBytes);
    value.set(new Uint8Array(stored.buffer, stored.byteOffset + checksumBytes, value.length));
    this.#check(key, stored, value);
    return value;
  }

  #getLong(key: Uint8Array): Uint8Array | undefined {
    const slot = filedKey(key, this.#digest);
    const end = slot.slice();
    end[filedKeyBytes - 1] = 0xff;
    for (const { stored } of this.#stored({ start: slot, end, inclusiveEnd: true })) {
      const row = unfile(stored);
      if (compareBytes(row.key, key) === 0) return row.value;
    }
    return undefined;
  }

  /** Rows of the stored range in the order of their whole keys. */
  *#inOrder(start: Uint8Array, end: Uint8Array | undefined, options: ScanOptions): Generator<Row, undefined> {
    const { reverse = false, keysOnly = false } = options;
    const range = storedRange(start, end, reverse);
    let bucket: StoredRow[] = [];
    for (const row of keysOnly ? this.#storedKeys(range) : this.#stored(range)) {
      if (bucket.length > 0 && !(isFiled(row.key) && isSameBucket(row.key, bucket[0]!.key))) {
        yield* sorted(bucket, reverse);
        bucket = [];
      }
      if (isFiled(row.key)) bucket.push(row);
      else yield { key: row.key, value: row.stored };
    }
    yield* sorted(bucket, reverse);
  }

  *#stored(range: RangeOptions): Generator<StoredRow, undefined> {
    const rows = this.#store.getRange({ ...range, ...this.#within })[Symbol.iterator]();
    this.#openScans++;
    try {
      for (;;) {
        const next = readingLmdb(() => rows.next());
        if (next.done) return;
        const { key, value } = next.value;
        const stored = value.subarray(checksumBytes);
        this.#check(key, value, stored);
        yield { key, stored };
      }
    } finally {
      this.#openScans--;
      // Gives the read transaction back; without effect after the last row.
      rows.return?.();
    }
  }

  /** As {@link #stored} without the values, except where a long key stands in its value. */
  *#storedKeys(range: RangeOptions): Generator<StoredRow, undefined> {
    const keys = this.#store.getKeys({ ...range, ...this.#within })[Symbol.iterator]();
    this.#openScans++;
    try {
      for (;;) {
        const next = readingLmdb(() => keys.next());
        if (next.done) return;
        const key = next.value;
        if (!isFiled(key)) yield { key, stored: noBytes };
        else yield { key, stored: this.#getPlain(key) ?? this.#gone(key) };
      }
    } finally {
      this.#openScans--;
      keys.return?.();
    }
  }

  #gone(key: Uint8Array): never {
    throw new StateCorruptionError(`${this.#name}: a key of ${key.length} bytes is listed and has no value`);
  }

  #check(key: Uint8Array, stored: Uint8Array, checked: Uint8Array): void {
    const expected = (stored[0]! | (stored[1]! << 8) | (stored[2]! << 16) | (stored[3]! << 24)) >>> 0;
    if (crc32(checked) === expected) return;
    const shown = Buffer.from(key.subarray(0, 64)).toString('hex');
    throw new StateCorruptionError(`${this.#name}: the value of key ${shown} (${key.length} bytes, hex) does not match its checksum`);
  }
}

/** The engine takes the transaction in every read; its types leave that out of some. */
type TransactionalReads = Database<Buffer, Uint8Array> & {
  getBinaryFast(key: Uint8Array, options: GetOptions): Buffer | undefined;
};

export interface TableStats {
  readonly rows: number;
  /** Pages in use. */
  readonly bytes: number;
}

interface TreeStats {
  readonly pageSize: number;
  readonly entryCount: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

interface StoredRow {
  readonly key: Uint8Array;
  /** Without its checksum. */
  readonly stored: Uint8Array;
}

/** The range of stored keys that holds all rows with `start <= key < end`; for long bounds it takes in their whole buckets. */
function storedRange(start: Uint8Array, end: Uint8Array | undefined, reverse: boolean): RangeOptions {
  const low = start.length === 0 ? lowestKey : start.subarray(0, plainKeyBytesMax);
  const high = end !== undefined && isLong(end) ? endOfPrefix(end.subarray(0, plainKeyBytesMax)) : end;
  if (!reverse) return high === undefined ? { start: low } : { start: low, end: high };
  // The engine walks down from its `start`. `end` is always named: the default would leave a row out.
  const downTo = { reverse, end: low, inclusiveEnd: true };
  return high === undefined ? downTo : { ...downTo, start: high, exclusiveStart: true };
}

const lowestKey = Uint8Array.of(0);
const noBytes = new Uint8Array(0);

function sorted(bucket: readonly StoredRow[], reverse: boolean): Row[] {
  const rows = bucket.map(({ stored }) => unfile(stored));
  const direction = reverse ? -1 : 1;
  return rows.sort((a, b) => direction * compareBytes(a.key, b.key));
}

/** What the engine's `code` says of a damaged file: page not found, page of a wrong type, no LMDB file, another version of it. */
const corruptCodes: readonly unknown[] = [-30797, -30796, -30793, -30794];

/** Runs a call into the engine and gives its complaints about damaged pages our name. */
export function readingLmdb<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && corruptCodes.includes(cause.code)) {
      throw new StateCorruptionError(`the database is damaged: ${cause.message}`, { cause });
    }
    throw cause;
  }
}
