/**
 * The ports through which all of Conclave reaches time, chance and the log. One object is passed to every constructor, so that a
 * whole stack, clients included, can run on one thread in virtual time. Nothing outside an adapter of this interface may touch
 * `Date.now`, `performance.now`, `setTimeout`, `setImmediate` or `Math.random` (lint enforces it).
 */
export interface Runtime {
  /** Milliseconds on a clock that never goes back and ignores clock steps. It may stand still while the machine is suspended. */
  monotonic(): number;
  /**
   * Milliseconds since the machine booted, counting suspend and ignoring clock steps. Where the platform has no such clock this is
   * {@link wall}. Dearer than {@link monotonic}: for judging leases, not for every call.
   */
  boot(): number;
  /** Milliseconds since 1970-01-01. For people only: no decision may rest on it. */
  wall(): number;
  /** Calls back once after at least `delayMs` milliseconds. Timers of equal due time fire in the order they were set. */
  timer(delayMs: number, callback: () => void, options?: TimerOptions): Timer;
  /** Calls back after the events of this turn of the loop were handled, before the loop waits again. Batches are made here. */
  endOfTurn(callback: () => void): void;
  /** Uniform in [0, 1). Not for secrets. */
  random(): number;
  readonly log: Logger;
}

export interface TimerOptions {
  /** Whether a process may exit while only this timer is left. Default: false, the timer keeps the process alive. */
  readonly background?: boolean;
}

export interface Timer {
  /** Idempotent; a cancelled timer never fires. */
  cancel(): void;
}

/** The shape of pino's methods: fields first, sentence second. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export const silentLog: Logger = { debug() {}, info() {}, warn() {}, error() {} };
