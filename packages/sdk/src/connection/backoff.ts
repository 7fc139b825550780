import type { Runtime } from '@conclave/wire';
import { ExponentialBackoff, type IBackoff } from 'cockatiel';

/** Grows the pauses between attempts, with jitter drawn from the runtime so that a run in virtual time repeats itself. */
export class Backoff {
  readonly #factory: ExponentialBackoff<number>;
  #current: IBackoff<unknown> | undefined;

  /** The n-th pause lies between half of `initialMs · 2ⁿ` and all of it, and never exceeds `maxMs`. */
  constructor(runtime: Runtime, initialMs: number, maxMs: number) {
    this.#factory = new ExponentialBackoff<number>({
      initialDelay: initialMs,
      maxDelay: maxMs,
      generator: (attempts = 0, { initialDelay, maxDelay }) => [
        Math.min(maxDelay, initialDelay * 2 ** attempts) * (0.5 + runtime.random() / 2),
        Math.min(attempts + 1, 30),
      ],
    });
  }

  /** The next pause, in milliseconds. */
  next(): number {
    this.#current = this.#current === undefined ? this.#factory.next() : this.#current.next(undefined);
    return this.#current.duration;
  }

  /** Starts over, after a success. */
  reset(): void {
    this.#current = undefined;
  }
}
