import { ConclaveError, isConclaveError, type Lease, type Namespace } from '@conclave/sdk';
import { type Kind, recipeError } from './kind.ts';

/**
 * The life of one attempt to get a place: it ends when the caller gives up, when its time is over, or when the lease it stands on is lost.
 * Calls made within it carry its signal, and fail with the reason for which it ended rather than with their own.
 */
export class Scope {
  readonly #controller = new AbortController();
  readonly #kind: Kind;
  readonly #undo: (() => void)[] = [];

  constructor(client: Namespace, kind: Kind, signal: AbortSignal | undefined, timeoutMs: number | undefined) {
    this.#kind = kind;
    if (signal !== undefined) {
      this.#follow(signal, (reason) => {
        return new ConclaveError({
          code: 'cancelled',
          message: `waiting for the ${kind.noun} was cancelled`,
          outcome: 'not-applied',
          cause: reason,
        });
      });
    }
    if (timeoutMs !== undefined) {
      const end = (): void => this.#end(recipeError(kind.timeout, `the ${kind.noun} was not free within ${timeoutMs} ms`));
      const timer = client.runtime.timer(timeoutMs, end);
      this.#undo.push(() => timer.cancel());
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends with the lease from now on. */
  standOn(lease: Lease): void {
    this.#follow(lease.signal, (reason) =>
      recipeError(this.#kind.lost, `the lease ended while waiting for the ${this.#kind.noun}`, reason),
    );
  }

  /** Waits for something within this scope. It goes on by itself when the scope ends. */
  async race<Result>(promise: Promise<Result>): Promise<Result> {
    // Where the scope has ended already, nobody below listens to it.
    promise.catch(() => undefined);
    let result: { readonly value: Result } | undefined;
    await this.wait((resolve, reject) => {
      promise.then((value) => {
        result = { value };
        resolve();
      }, reject);
      return () => undefined;
    });
    if (result === undefined) throw new Error('a wait resolves after its promise');
    return result.value;
  }

  /** Makes a call within this scope. */
  async run<Result>(call: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
    this.signal.throwIfAborted();
    try {
      return await call(this.signal);
    } catch (error) {
      this.signal.throwIfAborted();
      throw error;
    }
  }

  /** Resolves once `start` calls back; `start` returns how to stop waiting. */
  wait(start: (resolve: () => void, reject: (error: unknown) => void) => () => void): Promise<void> {
    this.signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      let isSettled = false;
      let stop: (() => void) | undefined;
      const settle = (then: () => void): void => {
        if (isSettled) return;
        isSettled = true;
        this.signal.removeEventListener('abort', onAbort);
        stop?.();
        then();
      };
      const onAbort = (): void => settle(() => reject(this.signal.reason));
      this.signal.addEventListener('abort', onAbort);
      stop = start(
        () => settle(resolve),
        (error) => settle(() => reject(error)),
      );
      // It may have called back before it returned.
      if (isSettled) stop();
    });
  }

  /** Lets go of the caller's signal and the timer. What ended the scope before stays its reason. */
  close(): void {
    for (const undo of this.#undo.splice(0)) undo();
  }

  #follow(signal: AbortSignal, toError: (reason: unknown) => ConclaveError): void {
    const onAbort = (): void => this.#end(toError(signal.reason));
    if (signal.aborted) {
      onAbort();
      return;
    }
    signal.addEventListener('abort', onAbort, { once: true });
    this.#undo.push(() => signal.removeEventListener('abort', onAbort));
  }

  #end(error: ConclaveError): void {
    if (!this.signal.aborted) this.#controller.abort(error);
  }
}

/** The gRPC status of a server that cannot answer now: it has no leader, is too slow, or is going away. */
const statusUnavailable = 14;

/** Whether asking again may help: the server could not be asked, could not answer, or its answer was lost; or a session's own key is missing. */
export function isTransient(error: unknown): boolean {
  if (!isConclaveError(error)) return false;
  if (error.outcome === 'unknown' || error.grpcCode === statusUnavailable) return true;
  return (
    error.code === 'unavailable' ||
    error.code === 'deadline-exceeded' ||
    error.code === 'too-many-requests' ||
    error.code === 'guard-failed'
  );
}

/** Waits that grow from 50 ms to 2 s, spread by chance so that many waiters do not return together. */
export function pauseMs(client: Namespace, attempt: number): number {
  return Math.min(2_000, 50 * 2 ** Math.min(attempt, 6)) * (0.5 + client.runtime.random() / 2);
}
