import type { Timer } from '@conclave/wire';
import { ConclaveError } from '../errors/conclave-error.ts';
import { onAbort } from './abort.ts';
import type { CallHost, RequestOptions } from './procedure.ts';

/** The time and the signal of something that takes several calls. */
export class TimeLimit {
  readonly signal: AbortSignal | undefined;
  readonly #host: CallHost;
  readonly #deadline: number;

  /** `maxMs` is how long it may take at most, whatever the caller says. */
  constructor(host: CallHost, options: RequestOptions | undefined, maxMs: number = Number.POSITIVE_INFINITY) {
    this.#host = host;
    this.signal = options?.signal;
    this.#deadline = Math.min(host.deadlineOf(options?.deadlineMs), host.runtime.monotonic() + maxMs);
  }

  get remainingMs(): number {
    return this.#deadline - this.#host.runtime.monotonic();
  }

  /** Throws `cancelled` or `deadline-exceeded` once there is nothing left; what is under way is not its matter. */
  check(): void {
    if (this.signal?.aborted === true) throw this.cancelled();
    if (this.remainingMs <= 0) throw this.exceeded();
  }

  /** Waits for something that knows of no limit. Throws as {@link TimeLimit.check} does once there is nothing left. */
  async until(done: Promise<void>): Promise<void> {
    this.check();
    const { signal, remainingMs } = this;
    let timer: Timer | undefined;
    let stopListening: (() => void) | undefined;
    const over = new Promise<never>((_, reject) => {
      if (remainingMs !== Number.POSITIVE_INFINITY) timer = this.#host.runtime.timer(remainingMs, () => reject(this.exceeded()));
      if (signal !== undefined) stopListening = onAbort(signal, () => reject(this.cancelled()));
    });
    try {
      await Promise.race([done, over]);
    } finally {
      timer?.cancel();
      stopListening?.();
    }
  }

  /** What the next call is given. */
  rest(): RequestOptions {
    this.check();
    return { signal: this.signal, deadlineMs: this.remainingMs };
  }

  cancelled(): ConclaveError<'cancelled'> {
    return new ConclaveError({ code: 'cancelled', message: 'the call was cancelled', outcome: 'not-applied', cause: this.signal?.reason });
  }

  exceeded(): ConclaveError<'deadline-exceeded'> {
    return new ConclaveError({ code: 'deadline-exceeded', message: 'the time was up', outcome: 'not-applied' });
  }
}
