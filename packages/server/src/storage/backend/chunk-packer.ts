import { type Change, checkKey, type Table, tables } from './backend.ts';
import { checksumBytes, deleteFlag, longFlag, rowHeaderBytes } from './lmdb-writer.ts';
import { filedKeyBytes, isLong } from './long-keys.ts';

/**
 * Packs changes into chunks for the writer thread (its format: `lmdb-writer.ts`), one chunk a call: packing costs about 0.7 µs a row, so that a
 * whole commit at once would hold up the event loop.
 */
export class ChunkPacker {
  readonly #changes: Iterator<Change>;
  readonly #file: (key: Uint8Array) => Uint8Array;
  #next: IteratorResult<Change> | undefined;
  #bytes = new Uint8Array(chunkBytesMax);
  #view = new DataView(this.#bytes.buffer);

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
    let at = 0;
    this.#next ??= this.#changes.next();
    for (let rows = 0; !this.#next.done && rows < chunkRowsMax; rows++) {
      const change: Change = this.#next.value;
      checkKey(change.table, change.key);
      const size = packedSizeMax(change);
      if (at + size > this.#bytes.length) {
        if (at > 0) break;
        this.#bytes = new Uint8Array(size);
        this.#view = new DataView(this.#bytes.buffer);
      }
      at = this.#pack(change, at);
      this.#next = this.#changes.next();
    }
    return this.#bytes.buffer.slice(0, at);
  }

  #pack({ table, key, value }: Change, start: number): number {
    const bytes = this.#bytes;
    const long = isLong(key);
    const storedKey = long ? this.#file(key) : key;
    bytes[start] = tableNumbers[table];
    bytes[start + 1] = (value === undefined ? deleteFlag : 0) | (long ? longFlag : 0);
    this.#view.setUint16(start + 2, storedKey.length, true);
    const stored = copy(storedKey, bytes, start + rowHeaderBytes);
    let end = stored + checksumBytes;
    if (long) {
      this.#view.setUint32(end, key.length, true);
      end = copy(key, bytes, end + 4);
    }
    if (value !== undefined) end = copy(value, bytes, end);
    this.#view.setUint32(start + 4, end - stored, true);
    return end;
  }
}

/** Bounds of a chunk, chosen so that packing one takes well under a millisecond. A larger row makes a chunk of its own. */
const chunkRowsMax = 1000;
const chunkBytesMax = 256 << 10;

const tableNumbers = Object.fromEntries(tables.map((table, number) => [table, number])) as Readonly<Record<Table, number>>;

function packedSizeMax({ key, value }: Change): number {
  const fixed = rowHeaderBytes + checksumBytes + key.length + (value === undefined ? 0 : value.length);
  return isLong(key) ? fixed + filedKeyBytes + 4 : fixed;
}

/** Returns where the copy ends. For short ones a loop is faster than the way into native code. */
function copy(source: Uint8Array, target: Uint8Array, at: number): number {
  const length = source.length;
  if (length > loopCopyMax) target.set(source, at);
  else for (let i = 0; i < length; i++) target[at + i] = source[i]!;
  return at + length;
}

const loopCopyMax = 48;
