import { onAbort } from '../connection/abort.ts';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError, type Outcome } from '../errors/conclave-error.ts';

/**
 * Waits until `start` calls back, the time is up, or the signal is aborted. `start` returns how to stop listening; it may call back at once.
 * Given up, the effect of what is waited for is as much in doubt as when it is late.
 */
export function patiently<T>(
  engine: Engine,
  options: RequestOptions,
  late: () => ConclaveError,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void,
): Promise<T> {
  const { signal } = options;
  const leftMs = engine.deadlineOf(options.deadlineMs) - engine.runtime.monotonic();
  return new Promise<T>((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(cancelled(signal, late().outcome));
      return;
    }
    const undo: (() => void)[] = [];
    let isSettled = false;
    const settle = (outcome: () => void): void => {
      if (isSettled) return;
      isSettled = true;
      for (const step of undo) step();
      outcome();
    };
    if (leftMs < Number.POSITIVE_INFINITY) {
      const timer = engine.runtime.timer(Math.max(0, leftMs), () => settle(() => reject(late())));
      undo.push(() => timer.cancel());
    }
    if (signal !== undefined) undo.push(onAbort(signal, () => settle(() => reject(cancelled(signal, late().outcome)))));
    const stop = start(
      (value) => settle(() => resolve(value)),
      (error) => settle(() => reject(error)),
    );
    if (isSettled) stop();
    else undo.push(stop);
  });
}

function cancelled(signal: AbortSignal, outcome: Outcome): ConclaveError {
  return new ConclaveError({ code: 'cancelled', message: 'the call was cancelled', outcome, cause: signal.reason });
}
