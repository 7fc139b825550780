import { expect, test } from 'vitest';
import { patientTimer } from './patient-timer.ts';
import { type Runtime, silentLog } from './runtime.ts';

/** A process in which each timer fires so much later than it should. */
class LateRuntime implements Runtime {
  readonly log = silentLog;
  readonly #lateMs: () => number;
  #now = 0;
  #next: { readonly at: number; readonly callback: () => void } | undefined;

  constructor(lateMs: () => number) {
    this.#lateMs = lateMs;
  }

  monotonic = (): number => this.#now;
  boot = this.monotonic;
  wall = this.monotonic;
  random = (): number => 0.5;

  endOfTurn(callback: () => void): void {
    callback();
  }

  timer(delayMs: number, callback: () => void): { cancel(): void } {
    const next = { at: this.#now + delayMs + this.#lateMs(), callback };
    this.#next = next;
    return {
      cancel: () => {
        if (this.#next === next) this.#next = undefined;
      },
    };
  }

  /** Fires the timer that is set, if there is one. */
  fire(): boolean {
    const next = this.#next;
    if (next === undefined) return false;
    this.#next = undefined;
    this.#now = next.at;
    next.callback();
    return true;
  }
}

/** When a timer of a second fires. */
function firesAt(lateMs: () => number): number | undefined {
  const runtime = new LateRuntime(lateMs);
  let at: number | undefined;
  patientTimer(runtime, 1_000, () => {
    at = runtime.monotonic();
  });
  for (let n = 0; n < 1_000 && runtime.fire(); n++);
  return at;
}

test('fires when it is due in a loop that is not blocked, or a little late', () => {
  expect(firesAt(() => 0)).toBe(1_000);
  expect(firesAt(() => 20)).toBe(1_100);
});

test('does not count a time in which the loop was blocked', () => {
  const late = [0, 60_000];
  expect(firesAt(() => late.shift() ?? 0)).toBe(61_200);
});

test('fires all the same where the loop is always late', () => {
  expect(firesAt(() => 300)).toBe(15 * 500);
});

test('does not fire once it is cancelled, after some of its steps or before', () => {
  for (const steps of [0, 1, 4]) {
    const runtime = new LateRuntime(() => 0);
    let hasFired = false;
    const timer = patientTimer(runtime, 1_000, () => {
      hasFired = true;
    });
    for (let n = 0; n < steps; n++) runtime.fire();
    timer.cancel();
    expect([runtime.fire(), hasFired]).toEqual([false, false]);
  }
});
