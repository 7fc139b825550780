import type { Runtime, Timer } from '@conclave/wire';
import { ConsecutiveBreaker } from 'cockatiel';
import { Backoff } from './backoff.ts';

/** So many failures in a row, and nothing else between. One may be chance, and a change of leaders fails a few. */
const failuresMax = 3;
const pauseInitialMs = 1_000;
const pauseMaxMs = 30_000;

/**
 * Whether an endpoint that can be reached also answers as it should. One that keeps failing is left alone, and after a pause asked by a call of
 * our own: with an answer it is used again, otherwise the next pause is longer.
 */
export class Breaker {
  readonly #runtime: Runtime;
  readonly #probe: (done: (isWell: boolean) => void) => void;
  readonly #onChange: () => void;
  readonly #failures = new ConsecutiveBreaker(failuresMax);
  readonly #backoff: Backoff;
  #reason: string | undefined;
  #timer: Timer | undefined;

  /** @param probe asks the endpoint something that only a sound one can answer */
  constructor(runtime: Runtime, probe: (done: (isWell: boolean) => void) => void, onChange: () => void) {
    this.#runtime = runtime;
    this.#probe = probe;
    this.#onChange = onChange;
    this.#backoff = new Backoff(runtime, pauseInitialMs, pauseMaxMs);
  }

  /** Why the endpoint is left alone; undefined: it is not. */
  get reason(): string | undefined {
    return this.#reason;
  }

  succeed(): void {
    this.#failures.success();
    if (this.#reason !== undefined) this.reset();
  }

  fail(why: string): void {
    if (!this.#failures.failure() || this.#reason !== undefined) return;
    this.#reason = `left alone, as calls fail: ${why}`;
    this.#pause();
    this.#onChange();
  }

  /** There is a new connection, or nothing to judge any more. */
  reset(): void {
    this.#failures.success();
    this.#backoff.reset();
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#reason === undefined) return;
    this.#reason = undefined;
    this.#onChange();
  }

  #pause(): void {
    const timer = this.#runtime.timer(
      this.#backoff.next(),
      () => {
        this.#probe((isWell) => {
          // What happened meanwhile counts for more.
          if (this.#timer !== timer) return;
          if (isWell) this.reset();
          else this.#pause();
        });
      },
      { background: true },
    );
    this.#timer = timer;
  }
}
