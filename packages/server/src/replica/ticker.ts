import type { Runtime, Timer } from '@conclave/wire';

export interface TickerOptions {
  readonly runtime: Runtime;
  readonly intervalMs: number;
  /** A tick that is late by more than this is logged. */
  readonly toleratedMs: number;
  readonly onTick: () => void;
}

/**
 * Turns time into raft's ticks. A loop that was held up, or a process that was stopped, owes ticks afterwards; they count as one. Otherwise a
 * member that slept would find its election timeout over before it has read what its leader sent meanwhile. For the same reason a late tick
 * waits until the loop has taken in what has arrived.
 */
export class Ticker {
  readonly #options: TickerOptions;
  #timer: Timer | undefined;
  #due = 0;

  constructor(options: TickerOptions) {
    this.#options = options;
  }

  start(): void {
    const { runtime, intervalMs } = this.#options;
    this.#due = runtime.monotonic() + intervalMs;
    this.#arm();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    const { runtime } = this.#options;
    const delay = Math.max(0, this.#due - runtime.monotonic());
    this.#timer = runtime.timer(delay, () => this.#fire());
  }

  #fire(): void {
    const { runtime, intervalMs, toleratedMs, onTick } = this.#options;
    const now = runtime.monotonic();
    const lateMs = now - this.#due;
    const isLate = lateMs >= intervalMs;
    this.#due = isLate ? now + intervalMs : this.#due + intervalMs;
    this.#arm();
    if (lateMs > toleratedMs) {
      runtime.log.warn(
        { lateMs: Math.round(lateMs) },
        'the process was held up: its heartbeats were late, and others may have elected another leader',
      );
    }
    if (isLate) runtime.endOfTurn(() => this.#timer && onTick());
    else onTick();
  }
}
