/** What an {@link EventQueue} draws from. */
export interface Source {
  cancel(): void;
  pause(): void;
  resume(): void;
}

/** How much may wait in an {@link EventQueue}, and what becomes of more. */
export interface QueueBounds<T> {
  readonly countMax: number;
  /** Default: 16 MiB. */
  readonly bytesMax?: number | undefined;
  /** What a value weighs, in bytes. Default: nothing. */
  sizeOf?(value: T): number;
  /** What can be done about a full queue before its source is held back. Default: nothing. */
  readonly overflow?: Overflow<T> | undefined;
}

export type Overflow<T> =
  | {
      readonly how: 'conflate';
      /** What remains of the values that wait, in their order. */
      conflate(values: readonly T[]): T[];
    }
  | {
      readonly how: 'fail';
      /** With what the queue ends for want of room for `value`; undefined: it belongs to `last`, and there is room for it. */
      errorFor(value: T, last: T): unknown;
    };

export const bytesMaxDefault: number = 16 * 1024 * 1024;

/**
 * Between a source that pushes and a loop that pulls. Holds the source back when so many values or bytes wait, and lets it go on when half of
 * them are gone. Values that waited when the source ended are still given out, then its error.
 */
export class EventQueue<T> implements AsyncIterator<T, undefined> {
  readonly #countMax: number;
  readonly #bytesMax: number;
  readonly #sizeOf: (value: T) => number;
  readonly #overflow: Overflow<T> | undefined;
  #source: Source | undefined;
  #values: T[] = [];
  #at = 0;
  #bytes = 0;
  #takers: Taker<T>[] = [];
  #isPaused = false;
  #ending: { readonly error?: unknown } | undefined;

  constructor(bounds: QueueBounds<T>) {
    this.#countMax = bounds.countMax;
    this.#bytesMax = bounds.bytesMax ?? bytesMaxDefault;
    this.#sizeOf = bounds.sizeOf ?? (() => 0);
    this.#overflow = bounds.overflow;
  }

  /** Sets what to hold back and cancel. The source may have pushed before. */
  attach(source: Source): void {
    this.#source = source;
    if (this.#ending !== undefined) source.cancel();
    else if (this.#isPaused) source.pause();
  }

  push(value: T): void {
    if (this.#ending !== undefined) return;
    const taker = this.#takers.shift();
    if (taker !== undefined) {
      taker.resolve({ done: false, value });
      return;
    }
    if (this.#isFull && this.#overflow?.how === 'fail') {
      const error = this.#overflow.errorFor(value, this.#values.at(-1) as T);
      if (error !== undefined) {
        this.end({ error });
        this.#source?.cancel();
        return;
      }
    }
    this.#values.push(value);
    this.#bytes += this.#sizeOf(value);
    if (this.#isPaused || !this.#isFull || this.#overflow?.how === 'fail') return;
    if (this.#overflow?.how === 'conflate') {
      this.#conflate(this.#overflow);
      // What would soon be full again is held back instead: looking through all of it must pay.
      if (this.#isHalfEmpty) return;
    }
    this.#isPaused = true;
    this.#source?.pause();
  }

  /** The source has ended, with an error if one is given. */
  end(ending: { readonly error?: unknown } = {}): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    const [first, ...others] = this.#takers;
    this.#takers = [];
    // Like a generator: whoever asks first learns of the error, the others that there is no more.
    if (first !== undefined) this.#finish(first);
    for (const taker of others) taker.resolve(noMore);
  }

  next(): Promise<IteratorResult<T, undefined>> {
    if (this.#waiting > 0) return Promise.resolve({ done: false, value: this.#take() });
    return new Promise((resolve, reject) => {
      const taker = { resolve, reject };
      if (this.#ending === undefined) this.#takers.push(taker);
      else this.#finish(taker);
    });
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#values = [];
    this.#at = 0;
    this.#bytes = 0;
    this.end();
    this.#source?.cancel();
    return Promise.resolve(noMore);
  }

  get #waiting(): number {
    return this.#values.length - this.#at;
  }

  get #isFull(): boolean {
    return this.#waiting >= this.#countMax || this.#bytes >= this.#bytesMax;
  }

  get #isHalfEmpty(): boolean {
    return this.#waiting * 2 <= this.#countMax && this.#bytes * 2 <= this.#bytesMax;
  }

  #conflate({ conflate }: Extract<Overflow<T>, { how: 'conflate' }>): void {
    this.#values = conflate(this.#values.slice(this.#at));
    this.#at = 0;
    this.#bytes = this.#values.reduce((sum, value) => sum + this.#sizeOf(value), 0);
  }

  #take(): T {
    const value = this.#values[this.#at++] as T;
    this.#bytes -= this.#sizeOf(value);
    // Moving the rest down now and then keeps both the memory and the cost per value bounded.
    if (this.#at >= 512 && this.#at * 2 >= this.#values.length) {
      this.#values = this.#values.slice(this.#at);
      this.#at = 0;
    }
    if (this.#isPaused && this.#isHalfEmpty) {
      this.#isPaused = false;
      this.#source?.resume();
    }
    return value;
  }

  #finish(taker: Taker<T>): void {
    const ending = this.#ending;
    this.#ending = {};
    if (ending !== undefined && 'error' in ending) taker.reject(ending.error);
    else taker.resolve(noMore);
  }
}

interface Taker<T> {
  readonly resolve: (result: IteratorResult<T, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

const noMore: IteratorReturnResult<undefined> = { done: true, value: undefined };
