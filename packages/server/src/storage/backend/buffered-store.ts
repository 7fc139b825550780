import { wireErrors } from '@conclave/protocol';
import { type Runtime, StatusError, type Timer } from '@conclave/wire';
import type { Fatal } from '../../replica/ports.ts';
import { type Backend, type BackendView, type Change, type Changes, type Row, type ScanOptions, type Table, tables } from './backend.ts';
import { mergeLayers } from './merge-layers.ts';
import { OrderedRows } from './ordered-rows.ts';
import { StateCorruptionError } from './state-corruption-error.ts';
import type { Store } from './store.ts';

/**
 * The row of table `meta` in which the store itself keeps the index of the last entry of a flush: 8 bytes, big endian. It is written by the very
 * transaction that holds the entry's data, so the two cannot part. Nobody else writes it.
 */
export const durableIndexKey: Uint8Array = new TextEncoder().encode('durableIndex');

export interface BufferedStoreOptions {
  readonly backend: Backend;
  readonly runtime: Runtime;
  readonly fatal: Fatal;
  readonly bounds?: Partial<StoreBounds>;
}

export interface StoreBounds {
  /** How long the first change waits for company before a flush begins. Milliseconds, default 50. */
  readonly flushDelayMs: number;
  /** A filling generation of this size is flushed without waiting. Bytes, default 4 MiB. */
  readonly flushBytes: number;
  /** Above this size of the filling generation, while the other is still being flushed, the store is full. Bytes, default 16 MiB. */
  readonly generationBytesMax: number;
}

export const defaultBounds: StoreBounds = { flushDelayMs: 50, flushBytes: 4 << 20, generationBytesMax: 16 << 20 };

/**
 * The applied state over a backend. Rows live in one of three layers, the newer wins: the filling generation (written by apply), the flushing one
 * (its commit is under way) and the backend.
 *
 * Invariants: at most one commit is under way; a generation holds whole entries when its flush begins; it is dropped only after its commit
 * resolved; `durableIndex` is what the backend says, never ahead of it. A failed commit ends the member: the layers are then left as they are.
 */
export class BufferedStore implements Store {
  readonly #backend: Backend;
  readonly #runtime: Runtime;
  readonly #fatal: Fatal;
  readonly #bounds: StoreBounds;
  #filling: Generation = new Generation();
  #flushing: Generation | undefined;
  #durableIndex: number;
  #appliedIndex: number;
  /** Rows were written that no `applied` has claimed yet: the entry is still being applied. */
  #isMidEntry = false;
  /** Something was applied that no flush has taken: rows, or the index alone. */
  #isDirty = false;
  #isFailed = false;
  #isClosed = false;
  /** `replacing`: a snapshot's rows are taking the place of all others. `replaced`: they have, and nobody has read them yet. */
  #rows: 'open' | 'replacing' | 'replaced' = 'open';
  /** Settles when the replacement under way has ended, in whatever way. */
  #replacement: Promise<unknown> = Promise.resolve();
  /** Somebody waits for durability: the next flush begins as soon as it may. */
  #isUrgent = false;
  #timer: Timer | undefined;
  #roomListeners: (() => void)[] = [];
  #fillingWaiters: Waiter[] = [];
  #flushingWaiters: Waiter[] = [];

  constructor(options: BufferedStoreOptions) {
    this.#backend = options.backend;
    this.#runtime = options.runtime;
    this.#fatal = options.fatal;
    this.#bounds = { ...defaultBounds, ...options.bounds };
    this.#durableIndex = durableIndexOf(this.#backend);
    this.#appliedIndex = this.#durableIndex;
  }

  get durableIndex(): number {
    return this.#durableIndex;
  }

  get isFull(): boolean {
    return this.#isFailed || !this.isReadable || (this.#flushing !== undefined && this.#filling.bytes >= this.#bounds.generationBytesMax);
  }

  get isReadable(): boolean {
    return this.#rows === 'open';
  }

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    this.#checkReadable(table);
    const slot = this.#filling.rows(table).get(key) ?? this.#flushing?.rows(table).get(key);
    return slot === undefined ? this.#storedValue(this.#backend, table, key) : slot.value;
  }

  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options: ScanOptions = {}): Iterable<Row> {
    this.#checkReadable(table);
    const newer = [this.#filling, this.#flushing].flatMap((generation) => (generation?.rows(table).size ? [generation.rows(table)] : []));
    if (newer.length === 0) return this.#storedRows(this.#backend, table, start, end, options);
    const layers = newer.map((rows) => (options.reverse ? rows.descending(start, end) : rows.ascending(start, end)));
    // The backend is not given the limit: any number of its rows may be deleted or replaced above it.
    return mergeLayers(
      [
        ...layers,
        this.#storedRows(this.#backend, table, start, end, { reverse: options.reverse ?? false, keysOnly: options.keysOnly ?? false }),
      ],
      options,
    );
  }

  put(table: Table, key: Uint8Array, value: Uint8Array): void {
    this.#write(table, key, value);
  }

  delete(table: Table, key: Uint8Array): void {
    this.#write(table, key, undefined);
  }

  applied(index: number): void {
    if (!this.isReadable) throw new Error(`entry ${index} was applied while the state is replaced`);
    if (index < this.#appliedIndex) throw new Error(`entry ${index} was applied after entry ${this.#appliedIndex}`);
    this.#appliedIndex = index;
    this.#isMidEntry = false;
    this.#isDirty = true;
    this.#flushSoon();
  }

  onRoom(listener: () => void): void {
    this.#roomListeners.push(listener);
  }

  flush(): Promise<void> {
    if (this.#isFailed) return Promise.reject(new Error('the store has failed'));
    if (!this.#isDirty && this.#flushing === undefined) return Promise.resolve();
    return new Promise((resolve, reject) => {
      (this.#isDirty ? this.#fillingWaiters : this.#flushingWaiters).push({ resolve, reject });
      if (!this.#isDirty) return;
      this.#isUrgent = true;
      this.#flushSoon();
    });
  }

  /**
   * Puts other rows in place of all there are (but those of `local`), which from then on are the state at `index`; `write` commits them, the index
   * among them. What was applied and not committed is dropped. Rejects when the store is closed meanwhile: what is committed then is `write`'s to
   * make sense of at the next start.
   */
  async replace(index: number, write: (commit: (changes: Changes) => Promise<void>) => Promise<void>): Promise<void> {
    if (this.#rows === 'replacing' || this.#isFailed || this.#isClosed) throw new Error('the state cannot be replaced now');
    if (index < this.#appliedIndex) throw new Error(`the state at index ${this.#appliedIndex} cannot be replaced by that at ${index}`);
    if (this.#isMidEntry) throw new Error('the state cannot be replaced in the middle of an entry');
    this.#rows = 'replacing';
    this.#timer?.cancel();
    this.#timer = undefined;
    const done = this.#replace(index, write);
    this.#replacement = done.catch(() => {
      // Told to whoever asked for the replacement; here only its end matters.
    });
    await done;
  }

  reopen(reload: () => void): void {
    if (this.#rows === 'replacing') throw new Error('the state is still being replaced');
    if (this.#rows === 'open') return;
    this.#rows = 'open';
    reload();
    this.#flushSoon();
    this.#tellRoom();
  }

  /** What is committed, as of now. */
  committed(): BackendView {
    if (!this.isReadable) throw new Error('the state is being replaced');
    const view = this.#backend.view();
    return {
      get: (table, key) => this.#storedValue(view, table, key),
      scan: (table, start, end, options) => this.#storedRows(view, table, start, end, options),
      close: () => view.close(),
    };
  }

  size(): { readonly total: number; readonly inUse: number } {
    return this.#backend.size();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      await this.#replacement;
      // An entry that was broken off in its middle is never committed: there is no waiting for its end.
      if (!this.#isFailed && this.isReadable) await (this.#isMidEntry ? this.#whenFlushed() : this.flush());
    } finally {
      this.#timer?.cancel();
      await this.#backend.close();
    }
  }

  *#storedRows(
    from: Pick<Backend, 'scan'>,
    table: Table,
    start: Uint8Array,
    end: Uint8Array | undefined,
    options: ScanOptions = {},
  ): Generator<Row, undefined> {
    try {
      yield* from.scan(table, start, end, options);
    } catch (error) {
      this.#readFailed(error);
    }
  }

  #storedValue(from: Pick<Backend, 'get'>, table: Table, key: Uint8Array): Uint8Array | undefined {
    try {
      return from.get(table, key);
    } catch (error) {
      return this.#readFailed(error);
    }
  }

  /** What is being committed is. */
  #whenFlushed(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#flushing === undefined) resolve();
      else this.#flushingWaiters.push({ resolve, reject });
    });
  }

  async #replace(index: number, write: (commit: (changes: Changes) => Promise<void>) => Promise<void>): Promise<void> {
    await this.#whenFlushed();
    this.#filling = this.#filling.localOnly();
    this.#isDirty = this.#filling.rows('local').size > 0;
    try {
      await write(async (changes) => {
        if (this.#isClosed) throw new Error('the store was closed while its state was replaced');
        await this.#backend.commit(changes);
      });
    } catch (cause) {
      if (!this.#isClosed) this.#failed(new Error('the state could not be replaced', { cause }));
      throw cause;
    }
    this.#durableIndex = index;
    this.#appliedIndex = index;
    this.#rows = 'replaced';
    // What they waited for is part of the snapshot.
    for (const waiter of this.#fillingWaiters.splice(0)) waiter.resolve();
  }

  /** What the member remembers for itself stays, whatever happens to the state. */
  #checkReadable(table: Table): void {
    if (this.isReadable || table === 'local') return;
    const { code, message } = wireErrors['request-timeout-applied-index'];
    throw new StatusError(code, message);
  }

  /** A member whose state is damaged answers nothing more. */
  #readFailed(error: unknown): never {
    if (!(error instanceof StateCorruptionError)) throw error;
    this.#isFailed = true;
    return this.#fatal(error);
  }

  #write(table: Table, key: Uint8Array, value: Uint8Array | undefined): void {
    if (table !== 'local') {
      if (!this.isReadable) throw new Error('a row was written while the state is replaced');
      this.#isMidEntry = true;
    }
    this.#filling.bytes += this.#filling.rows(table).set(key, value);
    if (table !== 'local') return;
    // What a member remembers for itself belongs to no entry, and waits for none.
    this.#isDirty = true;
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (!this.#isDirty || this.#isFailed || this.#flushing !== undefined || !this.isReadable) return;
    if (this.#isUrgent || this.#filling.bytes >= this.#bounds.flushBytes) this.#beginFlush();
    else
      this.#timer ??= this.#runtime.timer(this.#bounds.flushDelayMs, () => {
        this.#timer = undefined;
        if (this.#isDirty && !this.#isFailed && this.#flushing === undefined) this.#beginFlush();
      });
  }

  #beginFlush(): void {
    // The entry under way has rows in the filling generation already: `applied` comes back here once it is whole.
    if (this.#isMidEntry) {
      this.#isUrgent = true;
      return;
    }
    this.#timer?.cancel();
    this.#timer = undefined;
    const generation = this.#filling;
    const index = this.#appliedIndex;
    this.#flushing = generation;
    this.#flushingWaiters = this.#fillingWaiters;
    this.#filling = new Generation();
    this.#fillingWaiters = [];
    this.#isDirty = false;
    this.#isUrgent = false;
    this.#backend.commit({ rows: generation.changes(index) }).then(
      () => this.#committed(index),
      (cause: unknown) => this.#failed(new Error('the state could not be committed', { cause })),
    );
  }

  #committed(index: number): void {
    this.#durableIndex = index;
    this.#flushing = undefined;
    const waiters = this.#flushingWaiters;
    this.#flushingWaiters = [];
    this.#flushSoon();
    for (const waiter of waiters) waiter.resolve();
    this.#tellRoom();
  }

  #tellRoom(): void {
    if (!this.isFull) for (const listener of this.#roomListeners.splice(0)) listener();
  }

  #failed(error: Error): void {
    this.#isFailed = true;
    this.#timer?.cancel();
    for (const waiter of [...this.#flushingWaiters, ...this.#fillingWaiters]) waiter.reject(error);
    try {
      this.#fatal(error);
    } catch {
      // The port leaves by throwing. This runs on a promise's callback: nothing stands above it that would have to be stopped.
    }
  }
}

class Generation {
  bytes = 0;
  readonly #tables = new Map<Table, OrderedRows>(tables.map((table) => [table, new OrderedRows()]));

  rows(table: Table): OrderedRows {
    return this.#tables.get(table)!;
  }

  localOnly(): Generation {
    const kept = new Generation();
    for (const { key, value } of this.rows('local').ascending(emptyKey, undefined)) kept.bytes += kept.rows('local').set(key, value);
    return kept;
  }

  /** In table and key order, which the backend writes fastest. The index comes last. */
  *changes(index: number): Generator<Change, undefined> {
    for (const [table, rows] of this.#tables) {
      for (const { key, value } of rows.ascending(emptyKey, undefined)) yield { table, key, value };
    }
    yield { table: 'meta', key: durableIndexKey, value: encodeIndex(index) };
  }
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

const emptyKey = new Uint8Array(0);

export function encodeIndex(index: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(index));
  return bytes;
}

/** The index of the last entry whose changes the backend holds; 0 for a new one. */
export function durableIndexOf(backend: Pick<Backend, 'get'>): number {
  return decodeIndex(backend.get('meta', durableIndexKey));
}

function decodeIndex(bytes: Uint8Array | undefined): number {
  if (bytes === undefined) return 0;
  const index = Number(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).readBigUInt64BE());
  if (!Number.isSafeInteger(index)) throw new Error(`the durable index ${index} is beyond 2^53-1`);
  return index;
}
