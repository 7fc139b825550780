import { onAbort } from './abort.ts';
import type { CallHost } from './procedure.ts';

/** Waits so many milliseconds, or until the signal is aborted or the client closes: what comes next is told of that. */
export function pause(host: Pick<CallHost, 'runtime' | 'parked'>, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  if (signal?.aborted === true) return Promise.resolve();
  return new Promise((resolve) => {
    const end = (): void => {
      timer.cancel();
      stopListening?.();
      host.parked.delete(part);
      resolve();
    };
    const part = { close: end };
    const timer = host.runtime.timer(delayMs, end);
    const stopListening = signal === undefined ? undefined : onAbort(signal, end);
    host.parked.add(part);
  });
}
