import type { Runtime, Timer, TimerOptions } from './runtime.ts';

const steps = 5;
/** A loop that is late so often is slow, not blocked: there is nothing to wait for. */
const lateStepsMax = 10;

/**
 * A timer for whoever waits for a peer: what of the time the event loop was blocked does not count, or what the peer sent meanwhile would be judged
 * before it is read, and what was to be sent to it before it has gone out.
 *
 * It is set in steps, and one that comes late by more than its own length is taken again. Of a loop that is always late this bounds the time, too: three
 * times as many steps, each as long as it takes there.
 */
export function patientTimer(runtime: Runtime, delayMs: number, callback: () => void, options?: TimerOptions): Timer {
  const stepMs = delayMs / steps;
  let left = steps;
  let late = 0;
  let timer: Timer;
  const step = (): void => {
    const due = runtime.monotonic() + stepMs;
    timer = runtime.timer(
      stepMs,
      () => {
        if (runtime.monotonic() - due <= stepMs || late++ >= lateStepsMax) left--;
        if (left === 0) callback();
        else step();
      },
      options,
    );
  };
  step();
  return { cancel: () => timer.cancel() };
}
