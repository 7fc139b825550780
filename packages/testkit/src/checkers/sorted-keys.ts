/** How many keys a chunk may hold before it is split: an insert moves at most this many. */
const CHUNK_MAX = 512;

/** A set of strings in order. Inserting stays cheap with a million of them, where one sorted array would not. */
export class SortedKeys {
  readonly #chunks: string[][] = [];

  add(key: string): void {
    const chunks = this.#chunks;
    if (chunks.length === 0) {
      chunks.push([key]);
      return;
    }
    const at = this.#chunkOf(key);
    const chunk = chunks[at] as string[];
    const place = lowerBound(chunk, key);
    if (chunk[place] === key) return;
    chunk.splice(place, 0, key);
    if (chunk.length > CHUNK_MAX) chunks.splice(at + 1, 0, chunk.splice(CHUNK_MAX >> 1));
  }

  delete(key: string): void {
    if (this.#chunks.length === 0) return;
    const at = this.#chunkOf(key);
    const chunk = this.#chunks[at] as string[];
    const place = lowerBound(chunk, key);
    if (chunk[place] !== key) return;
    chunk.splice(place, 1);
    if (chunk.length === 0) this.#chunks.splice(at, 1);
  }

  /** Keys in [from, to), in order; `to` undefined: all from `from` on. The set must not change meanwhile. */
  *between(from: string, to: string | undefined): Generator<string> {
    if (this.#chunks.length === 0) return;
    let at = this.#chunkOf(from);
    let place = lowerBound(this.#chunks[at] as string[], from);
    for (; at < this.#chunks.length; at++, place = 0) {
      const chunk = this.#chunks[at] as string[];
      for (; place < chunk.length; place++) {
        const key = chunk[place] as string;
        if (to !== undefined && key >= to) return;
        yield key;
      }
    }
  }

  /** The last chunk whose first key is not after `key`. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (((this.#chunks[middle] as string[])[0] as string) <= key) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

function lowerBound(sorted: readonly string[], key: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
