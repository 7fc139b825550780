import type { Runtime, Timer, TimerOptions } from './runtime.ts';

const steps = 5;

/**
 * A timer for whoever waits for a peer: what of the time the event loop was blocked does not count, or what the peer sent meanwhile would be judged
 * before it is read, and what was to be sent to it before it has gone out.
 *
 * It is set in steps, and one that comes late by more than its own length is taken again.
 */
export function patientTimer(runtime: Runtime, delayMs: number, callback: () => void, options?: TimerOptions): Timer {
  const stepMs = delayMs / steps;
  let left = steps;
  let timer: Timer;
  const step = (): void => {
    const due = runtime.monotonic() + stepMs;
    timer = runtime.timer(
      stepMs,
      () => {
        if (runtime.monotonic() - due <= stepMs) left--;
        if (left === 0) callback();
        else step();
      },
      options,
    );
  };
  step();
  return { cancel: () => timer.cancel() };
}
