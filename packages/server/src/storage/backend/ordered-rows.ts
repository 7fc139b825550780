/**
 * Rows in memory, in key order: one table of a generation or of the in-memory twin.
 *
 * Keys are held as latin1 strings, whose code units are the bytes: the engine compares and hashes them in place, where byte arrays cost
 * two more steps through memory per comparison. A hash map answers point reads; sorted chunks answer ranges.
 */
export class OrderedRows {
  readonly #slots = new Map<string, Slot>();
  /** Invariants: no chunk is empty; chunks and the texts in them ascend; `#firsts[i]` is the first text of `#chunks[i]`. */
  readonly #chunks: Chunk[] = [];
  readonly #firsts: string[] = [];
  /** Moves when rows come or go: a scan continued after that would skip or repeat rows, so it stops the member instead. */
  #shape = 0;

  get size(): number {
    return this.#slots.size;
  }

  get(key: Uint8Array): Slot | undefined {
    return this.#slots.get(textOf(key));
  }

  /**
   * Puts the row and returns by how many bytes the value grew (the whole row's for a new one). The arrays are kept, not copied: nobody may
   * write into them afterwards.
   */
  set(key: Uint8Array, value: Uint8Array | undefined): number {
    const text = textOf(key);
    const size = value === undefined ? 0 : value.length;
    const slot = this.#slots.get(text);
    if (slot !== undefined) {
      const before = slot.value === undefined ? 0 : slot.value.length;
      slot.value = value;
      return size - before;
    }
    const fresh = { key, value };
    this.#slots.set(text, fresh);
    this.#insert(text, fresh);
    return rowOverheadBytes + 2 * key.length + size;
  }

  /** Takes the row out and returns how many bytes that freed. */
  delete(key: Uint8Array): number {
    const text = textOf(key);
    const slot = this.#slots.get(text);
    if (slot === undefined) return 0;
    this.#slots.delete(text);
    this.#remove(text);
    return rowOverheadBytes + 2 * key.length + (slot.value?.length ?? 0);
  }

  /** Rows with `start <= key < end`, ascending. Not to be continued after a change. */
  *ascending(start: Uint8Array, end: Uint8Array | undefined): Generator<Slot, undefined> {
    const shape = this.#shape;
    const from = textOf(start);
    const to = end && textOf(end);
    let at = this.#chunkOf(from);
    let position = this.#chunks.length === 0 ? 0 : lowerBound(this.#chunks[at]!.texts, from);
    for (; at < this.#chunks.length; at++, position = 0) {
      const { texts, slots } = this.#chunks[at]!;
      for (; position < texts.length; position++) {
        if (to !== undefined && texts[position]! >= to) return;
        yield slots[position]!;
        if (this.#shape !== shape) throw new Error('a scan was continued after a write to its table');
      }
    }
  }

  /** The same rows, descending. */
  *descending(start: Uint8Array, end: Uint8Array | undefined): Generator<Slot, undefined> {
    const shape = this.#shape;
    const from = textOf(start);
    const to = end && textOf(end);
    let at = to === undefined ? this.#chunks.length - 1 : this.#chunkOf(to);
    if (at < 0 || this.#chunks.length === 0) return;
    let position = to === undefined ? this.#chunks[at]!.texts.length - 1 : lowerBound(this.#chunks[at]!.texts, to) - 1;
    for (;;) {
      const { texts, slots } = this.#chunks[at]!;
      for (; position >= 0; position--) {
        if (texts[position]! < from) return;
        yield slots[position]!;
        if (this.#shape !== shape) throw new Error('a scan was continued after a write to its table');
      }
      if (--at < 0) return;
      position = this.#chunks[at]!.texts.length - 1;
    }
  }

  #insert(text: string, slot: Slot): void {
    this.#shape++;
    if (this.#chunks.length === 0) {
      this.#chunks.push({ texts: [text], slots: [slot] });
      this.#firsts.push(text);
      return;
    }
    const at = this.#chunkOf(text);
    const chunk = this.#chunks[at]!;
    const { texts, slots } = chunk;
    const position = texts[texts.length - 1]! < text ? texts.length : lowerBound(texts, text);
    if (position === texts.length) {
      texts.push(text);
      slots.push(slot);
    } else {
      texts.splice(position, 0, text);
      slots.splice(position, 0, slot);
      if (position === 0) this.#firsts[at] = text;
    }
    if (texts.length > chunkRowsMax) this.#split(at, position);
  }

  #remove(text: string): void {
    this.#shape++;
    const at = this.#chunkOf(text);
    const chunk = this.#chunks[at]!;
    const position = lowerBound(chunk.texts, text);
    chunk.texts.splice(position, 1);
    chunk.slots.splice(position, 1);
    if (chunk.texts.length === 0) {
      this.#chunks.splice(at, 1);
      this.#firsts.splice(at, 1);
    } else if (position === 0) this.#firsts[at] = chunk.texts[0]!;
  }

  #split(at: number, position: number): void {
    const { texts, slots } = this.#chunks[at]!;
    // Rows that come in ascending order (the whole log) leave full chunks behind, not half empty ones.
    const isAppend = at === this.#chunks.length - 1 && position === texts.length - 1;
    const middle = isAppend ? position : texts.length >> 1;
    const tail = { texts: texts.splice(middle), slots: slots.splice(middle) };
    this.#chunks.splice(at + 1, 0, tail);
    this.#firsts.splice(at + 1, 0, tail.texts[0]!);
  }

  /** The chunk that holds `text` or would take it in. */
  #chunkOf(text: string): number {
    const last = this.#firsts.length - 1;
    if (last >= 0 && this.#firsts[last]! <= text) return last;
    let low = 0;
    let high = this.#firsts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#firsts[middle]! <= text) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
}

/** A row, or with `value` undefined the mark that it was deleted. Changes in place when its key is put again: take `value` out before that. */
export interface Slot {
  readonly key: Uint8Array;
  value: Uint8Array | undefined;
}

interface Chunk {
  readonly texts: string[];
  readonly slots: Slot[];
}

const chunkRowsMax = 128;

/** What a row costs beside its bytes: slot, map entry, text header, two array headers. Roughly; it keeps a bound in bytes honest for tiny rows. */
const rowOverheadBytes = 200;

function textOf(key: Uint8Array): string {
  return Buffer.prototype.latin1Slice.call(key, 0, key.length);
}

/** Position of the first text that is not below `text`. */
function lowerBound(texts: readonly string[], text: string): number {
  let low = 0;
  let high = texts.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (texts[middle]! < text) low = middle + 1;
    else high = middle;
  }
  return low;
}
