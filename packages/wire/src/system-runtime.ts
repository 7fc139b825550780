import { uptime } from 'node:os';
import { performance } from 'node:perf_hooks';
import { type Logger, type Runtime, silentLog } from './runtime.ts';

/**
 * The runtime of a real process: the only place in the packages that touches Node's clocks, timers and random source.
 *
 * @param log where log lines go; silent by default.
 */
export function systemRuntime(log: Logger = silentLog): Runtime {
  return {
    monotonic: () => performance.now(),
    // libuv reads CLOCK_BOOTTIME (or /proc/uptime) on Linux; elsewhere uptime derives from the wall clock, which is the documented fallback.
    boot: () => uptime() * 1000,
    wall: () => Date.now(),
    timer(delayMs, callback, options) {
      const handle = setTimeout(callback, delayMs);
      if (options?.background) handle.unref();
      return { cancel: () => clearTimeout(handle) };
    },
    endOfTurn: (callback) => void setImmediate(callback),
    random: () => Math.random(),
    log,
  };
}
