import type { RangeRead } from './range-read.ts';
import type { Slicer } from './slicer.ts';

export interface RangePart {
  /** KeyValues in their wire form, the caller's to keep. */
  readonly kvs: readonly Uint8Array[];
  /** With the last part, and only there: what a RangeResponse says of the whole. */
  readonly end: { readonly count: number; readonly more: boolean } | undefined;
}

/** A range read that is answered in parts; its revision stays pinned until it ends or is closed. */
export class RangeParts {
  readonly revision: number;
  readonly #read: RangeRead;
  readonly #slicer: Slicer;
  readonly #unpin: () => void;

  constructor(read: RangeRead, slicer: Slicer, unpin: () => void) {
    this.revision = read.revision;
    this.#read = read;
    this.#slicer = slicer;
    this.#unpin = unpin;
  }

  /** The next part, of at most `maxKvs` KeyValues; not to be called after the last. */
  async next(maxKvs: number): Promise<RangePart> {
    let isDone = this.#read.step(this.#slicer, maxKvs);
    this.#read.keep();
    while (!isDone && !this.#read.holds(maxKvs)) {
      await this.#slicer.nextSlice();
      isDone = this.#read.step(this.#slicer, maxKvs);
      this.#read.keep();
    }
    const kvs = this.#read.part();
    if (!isDone) return { kvs, end: undefined };
    this.close();
    const { count, more } = this.#read.result();
    return { kvs, end: { count, more } };
  }

  /** Gives up the rest. Idempotent. */
  close(): void {
    this.#unpin();
  }
}
