import type { Runtime } from '@conclave/wire';
import { onAbort } from '../connection/abort.ts';
import { ConclaveError } from '../errors/conclave-error.ts';

/** Those who wait until a view has reached a revision. */
export class RevisionWaiters {
  readonly #runtime: Runtime;
  readonly #waiters = new Set<Waiter>();

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  get size(): number {
    return this.#waiters.size;
  }

  /** Resolves when `revision` is reached; rejects at `deadline`, by the signal, or with what ended the view. */
  wait(revision: number, deadline: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(cancelled(signal));
        return;
      }
      const settle = (error?: ConclaveError): void => {
        timer?.cancel();
        stopListening?.();
        this.#waiters.delete(waiter);
        if (error === undefined) resolve();
        else reject(error);
      };
      const waiter: Waiter = { revision, settle };
      this.#waiters.add(waiter);
      const leftMs = Math.max(0, deadline - this.#runtime.monotonic());
      const timer = leftMs === Number.POSITIVE_INFINITY ? undefined : this.#runtime.timer(leftMs, () => settle(late(revision)));
      const stopListening = signal === undefined ? undefined : onAbort(signal, () => settle(cancelled(signal)));
    });
  }

  reached(revision: number): void {
    for (const waiter of [...this.#waiters]) if (waiter.revision <= revision) waiter.settle();
  }

  fail(error: ConclaveError): void {
    for (const waiter of [...this.#waiters]) waiter.settle(error);
  }
}

interface Waiter {
  readonly revision: number;
  settle(error?: ConclaveError): void;
}

function late(revision: number): ConclaveError {
  return new ConclaveError({
    code: 'deadline-exceeded',
    message: `the view did not reach revision ${revision} in time`,
    outcome: 'not-applied',
  });
}

function cancelled(signal: AbortSignal): ConclaveError {
  return new ConclaveError({
    code: 'cancelled',
    message: 'waiting for the view was cancelled',
    outcome: 'not-applied',
    cause: signal.reason,
  });
}
