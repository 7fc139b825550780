import type { Logger, Runtime } from '@conclave/wire';

/** `runtime` with the log of a caller. */
export function loggingRuntime(runtime: Runtime, log: Logger): Runtime {
  return {
    monotonic: () => runtime.monotonic(),
    boot: () => runtime.boot(),
    wall: () => runtime.wall(),
    timer: (delayMs, callback, options) => runtime.timer(delayMs, callback, options),
    endOfTurn: (callback) => runtime.endOfTurn(callback),
    random: () => runtime.random(),
    log: harmless(log, runtime),
  };
}

/**
 * `log`, without a say in what is logged: what it throws would end in the midst of a call. It is thrown by itself, so that the process hears of it as of
 * any error that nobody handles; the first time, for a log that fails once mostly fails for each line.
 */
function harmless(log: Logger, runtime: Runtime): Logger {
  let hasFailed = false;
  const guard =
    (level: keyof Logger) =>
    (fields: object, message: string): void => {
      try {
        log[level](fields, message);
      } catch (error) {
        if (hasFailed) return;
        hasFailed = true;
        runtime.timer(0, () => {
          throw error;
        });
      }
    };
  return { debug: guard('debug'), info: guard('info'), warn: guard('warn'), error: guard('error') };
}
