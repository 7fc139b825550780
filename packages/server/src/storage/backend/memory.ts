import { type Backend, type Changes, checkKey, type Row, type ScanOptions, type Table, tables } from './backend.ts';
import { OrderedRows } from './ordered-rows.ts';

/** The twin of the LMDB backend for members without a data dir and for simulation: the same answers, gone with the object. */
export class MemoryBackend implements Backend {
  readonly #tables = new Map<Table, OrderedRows>(tables.map((table) => [table, new OrderedRows()]));
  #bytes = 0;

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    return this.#rows(table).get(key)?.value;
  }

  *scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options: ScanOptions = {}): Generator<Row, undefined> {
    const rows = this.#rows(table);
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    if (left <= 0) return;
    for (const { key, value } of options.reverse ? rows.descending(start, end) : rows.ascending(start, end)) {
      yield { key, value: value! };
      if (--left === 0) return;
    }
  }

  count(table: Table): number {
    return this.#rows(table).size;
  }

  /** All changes at once, before it returns: a crash in simulation finds a commit whole or not at all. */
  async commit(changes: Changes): Promise<void> {
    for (const { table, key, value } of changes.rows) {
      checkKey(table, key);
      const rows = this.#rows(table);
      if (value === undefined) this.#bytes -= rows.delete(key);
      else this.#bytes += rows.set(owned(key), owned(value));
    }
  }

  size(): { readonly total: number; readonly inUse: number } {
    const bytes = emptyBytes + this.#bytes;
    return { total: bytes, inUse: bytes };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #rows(table: Table): OrderedRows {
    return this.#tables.get(table)!;
  }
}

/** An empty member's size is above zero, as that of a file is: clients divide by it. */
const emptyBytes = 4096;

/**
 * Rows stay for as long as the member lives, and what is put is often a view of a request many times its size: such a view is copied, or it would
 * keep the whole request.
 */
function owned(bytes: Uint8Array): Uint8Array {
  return bytes.buffer.byteLength > 2 * bytes.length + viewSlackBytes ? Uint8Array.from(bytes) : bytes;
}

const viewSlackBytes = 64;
