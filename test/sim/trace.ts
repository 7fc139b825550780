import { crc32 } from 'node:zlib';

/** A running hash over everything that happens in a run: equal seeds leave equal hashes, or the run is not deterministic. */
export class Trace {
  #low = 0x811c9dc5;
  #high = 0x01000193;
  #count = 0;

  note(what: number, at: number, more = 0): void {
    this.#count += 1;
    this.#low = Math.imul(this.#low ^ what ^ (at * 1000), 0x01000193) ^ (this.#high >>> 7);
    this.#high = Math.imul(this.#high ^ more ^ this.#count, 0x85ebca6b) ^ (this.#low >>> 11);
  }

  bytes(what: number, at: number, bytes: Uint8Array): void {
    this.note(what, at, crc32(bytes));
  }

  get events(): number {
    return this.#count;
  }

  get hash(): string {
    return [this.#low, this.#high].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
  }
}
