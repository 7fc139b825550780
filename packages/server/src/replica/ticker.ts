import type { Runtime, Timer } from '@conclave/wire';

/**
 * Turns time into raft's ticks. A loop that was held up, or a process that was stopped, owes ticks afterwards; they count as one. Otherwise a
 * member that slept would find its election timeout over before it has read what its leader sent meanwhile. For the same reason a late tick
 * waits until the loop has taken in what has arrived.
 */
export class Ticker {
  readonly #runtime: Runtime;
  readonly #intervalMs: number;
  readonly #onTick: () => void;
  #timer: Timer | undefined;
  #due = 0;

  constructor(runtime: Runtime, intervalMs: number, onTick: () => void) {
    this.#runtime = runtime;
    this.#intervalMs = intervalMs;
    this.#onTick = onTick;
  }

  start(): void {
    this.#due = this.#runtime.monotonic() + this.#intervalMs;
    this.#arm();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    const delay = Math.max(0, this.#due - this.#runtime.monotonic());
    this.#timer = this.#runtime.timer(delay, () => this.#fire());
  }

  #fire(): void {
    const now = this.#runtime.monotonic();
    const isLate = now >= this.#due + this.#intervalMs;
    this.#due = isLate ? now + this.#intervalMs : this.#due + this.#intervalMs;
    this.#arm();
    if (isLate) this.#runtime.endOfTurn(() => this.#timer && this.#onTick());
    else this.#onTick();
  }
}
