import type { Runtime } from '@conclave/wire';

/** A moment on two clocks: one that is exact but may stand still while the machine sleeps, and one that does not. */
export interface Instant {
  readonly monotonic: number;
  readonly boot: number;
}

export function now(runtime: Runtime): Instant {
  return { monotonic: runtime.monotonic(), boot: runtime.boot() };
}

/** The time from `start` to `end` by whichever clock says more. */
export function elapsedMs(start: Instant, end: Instant): number {
  return Math.max(end.monotonic - start.monotonic, end.boot - start.boot);
}
