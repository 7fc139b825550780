import type { Logger, Runtime } from '@conclave/wire';

/** `runtime` with another log. */
export function loggingRuntime(runtime: Runtime, log: Logger): Runtime {
  return {
    monotonic: () => runtime.monotonic(),
    boot: () => runtime.boot(),
    wall: () => runtime.wall(),
    timer: (delayMs, callback, options) => runtime.timer(delayMs, callback, options),
    endOfTurn: (callback) => runtime.endOfTurn(callback),
    random: () => runtime.random(),
    log,
  };
}
