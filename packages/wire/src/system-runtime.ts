import { uptime } from 'node:os';
import { performance } from 'node:perf_hooks';
import { type Logger, type Runtime, silentLog, type Timer, type TimerOptions } from './runtime.ts';

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
    timer: systemTimer,
    endOfTurn: (callback) => void setImmediate(callback),
    random: () => Math.random(),
    log,
  };
}

const longestDelayMs = 2 ** 31 - 1;

/** Node fires a timer of more than 24.8 days at once: such a delay is waited for in parts. */
function systemTimer(delayMs: number, callback: () => void, options?: TimerOptions): Timer {
  let handle: NodeJS.Timeout;
  const arm = (leftMs: number): void => {
    handle = leftMs > longestDelayMs ? setTimeout(() => arm(leftMs - longestDelayMs), longestDelayMs) : setTimeout(callback, leftMs);
    if (options?.background) handle.unref();
  };
  arm(delayMs);
  return { cancel: () => clearTimeout(handle) };
}
