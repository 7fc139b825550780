import type { Change, Table } from './backend.ts';
import { checkKey, tables } from './backend.ts';
import { checksumBytes, deleteFlag, longFlag, rowHeaderBytes } from './lmdb-writer.ts';
import { isLong } from './long-keys.ts';

/**
 * Packs changes into chunks for the writer thread (its format: `lmdb-writer.ts`), one chunk a call: packing costs about 0.7 µs a row, so that a
 * whole commit at once would hold up the event loop.
 */
export class ChunkPacker {
  readonly #changes: Iterator<Change>;
  readonly #file: (key: Uint8Array) => Uint8Array;
  #next: IteratorResult<Change> | undefined;

  /** @param file the stored form of a long key. */
  constructor(changes: Iterable<Change>, file: (key: Uint8Array) => Uint8Array) {
    this.#changes = changes[Symbol.iterator]();
    this.#file = file;
  }

  get isDone(): boolean {
    return this.#next?.done === true;
  }

  /** The next rows, at least one if any is left. */
  next(): ArrayBuffer {
    this.#next ??= this.#changes.next();
    const rows: PackedRow[] = [];
    let length = 0;
    while (!this.#next.done && rows.length < chunkRowsMax && length < chunkBytesMax) {
      const row = this.#row(this.#next.value);
      rows.push(row);
      length += rowHeaderBytes + row.storedKey.length + row.storedBytes;
      this.#next = this.#changes.next();
    }
    const chunk = new ArrayBuffer(length);
    pack(rows, chunk);
    return chunk;
  }

  #row({ table, key, value }: Change): PackedRow {
    checkKey(table, key);
    const long = isLong(key);
    const wholeKey = long ? key : undefined;
    const valueBytes = value === undefined ? 0 : value.length;
    return {
      table: tableNumbers[table],
      flags: (value === undefined ? deleteFlag : 0) | (long ? longFlag : 0),
      storedKey: long ? this.#file(key) : key,
      wholeKey,
      value,
      storedBytes: checksumBytes + (wholeKey === undefined ? 0 : 4 + wholeKey.length) + valueBytes,
    };
  }
}

/** Bounds of a chunk, chosen so that packing one takes about a millisecond. */
const chunkRowsMax = 1000;
const chunkBytesMax = 512 << 10;

const tableNumbers = Object.fromEntries(tables.map((table, number) => [table, number])) as Readonly<Record<Table, number>>;

interface PackedRow {
  readonly table: number;
  readonly flags: number;
  readonly storedKey: Uint8Array;
  readonly wholeKey: Uint8Array | undefined;
  readonly value: Uint8Array | undefined;
  readonly storedBytes: number;
}

function pack(rows: readonly PackedRow[], chunk: ArrayBuffer): void {
  const bytes = new Uint8Array(chunk);
  const view = new DataView(chunk);
  let at = 0;
  for (const { table, flags, storedKey, wholeKey, value, storedBytes } of rows) {
    bytes[at] = table;
    bytes[at + 1] = flags;
    view.setUint16(at + 2, storedKey.length, true);
    view.setUint32(at + 4, storedBytes, true);
    copy(storedKey, bytes, at + rowHeaderBytes);
    at += rowHeaderBytes + storedKey.length + checksumBytes;
    if (wholeKey !== undefined) {
      view.setUint32(at, wholeKey.length, true);
      bytes.set(wholeKey, at + 4);
      at += 4 + wholeKey.length;
    }
    if (value === undefined) continue;
    copy(value, bytes, at);
    at += value.length;
  }
}

/** For short ones a loop is faster than the way into native code. */
function copy(source: Uint8Array, target: Uint8Array, at: number): void {
  if (source.length > loopCopyMax) target.set(source, at);
  else for (let i = 0; i < source.length; i++) target[at + i] = source[i]!;
}

const loopCopyMax = 48;
