import { type Backend, type BackendView, type Changes, checkKey, type Row, type ScanOptions, type Table, tables } from './backend.ts';
import { mergeLayers } from './merge-layers.ts';
import { OrderedRows } from './ordered-rows.ts';

type Tables = ReadonlyMap<Table, OrderedRows>;

/** The twin of the LMDB backend for members without a data dir and for simulation: the same answers, gone with the object. */
export class MemoryBackend implements Backend {
  #tables: Tables = emptyTables();
  #bytes = 0;
  readonly #views = new Set<MemoryView>();

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
  async commit({ rows, isReplacement = false }: Changes): Promise<void> {
    const changes = [...rows];
    for (const { table, key } of changes) checkKey(table, key);
    if (isReplacement) this.#empty();
    for (const { table, key, value } of changes) {
      for (const view of this.#views) view.keep(table, key);
      const stored = this.#rows(table);
      if (value === undefined) this.#bytes -= stored.delete(key);
      else this.#bytes += stored.set(owned(key), owned(value));
    }
  }

  view(): BackendView {
    const view = new MemoryView(this.#tables, () => this.#views.delete(view));
    this.#views.add(view);
    return view;
  }

  size(): { readonly total: number; readonly inUse: number } {
    const bytes = emptyBytes + this.#bytes;
    return { total: bytes, inUse: bytes };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** The tables as they were stay with the views, which no further change concerns. */
  #empty(): void {
    const fresh = emptyTables();
    this.#bytes = 0;
    for (const { key, value } of this.#rows('local').ascending(lowestKey, undefined)) this.#bytes += fresh.get('local')!.set(key, value);
    this.#tables = fresh;
    this.#views.clear();
  }

  #rows(table: Table): OrderedRows {
    return this.#tables.get(table)!;
  }
}

/** The tables as they were, by way of what the rows that changed since held before. */
class MemoryView implements BackendView {
  readonly #tables: Tables;
  readonly #before: Tables = emptyTables();
  readonly #closed: () => void;
  #isClosed = false;

  constructor(rows: Tables, closed: () => void) {
    this.#tables = rows;
    this.#closed = closed;
  }

  /** The row is about to change. */
  keep(table: Table, key: Uint8Array): void {
    const before = this.#before.get(table)!;
    if (before.get(key) === undefined) before.set(key, this.#tables.get(table)!.get(key)?.value);
  }

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    this.#checkOpen();
    const kept = this.#before.get(table)!.get(key);
    return kept === undefined ? this.#tables.get(table)!.get(key)?.value : kept.value;
  }

  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options: ScanOptions = {}): Iterable<Row> {
    this.#checkOpen();
    const layers = [this.#before.get(table)!, this.#tables.get(table)!];
    return mergeLayers(
      layers.map((rows) => (options.reverse ? rows.descending(start, end) : rows.ascending(start, end))),
      options,
    );
  }

  close(): void {
    this.#isClosed = true;
    this.#closed();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new Error('the view is closed');
  }
}

function emptyTables(): Tables {
  return new Map(tables.map((table) => [table, new OrderedRows()]));
}

const lowestKey = new Uint8Array(0);

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
