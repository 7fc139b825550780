import type { Timer } from '@conclave/wire';
import { Backoff } from './backoff.ts';
import type { Waiter } from './balancer.ts';
import type { CallHost, Closable } from './procedure.ts';
import type { TokenWaiter } from './token.ts';

const retryInitialMs = 20;
const retryMaxMs = 1_000;

/** The times in which nothing of a call is under way: it waits for an endpoint, for a token, or for its next attempt. */
export class CallWait {
  readonly #host: CallHost;
  readonly #call: Closable & Waiter & TokenWaiter;
  readonly #deadline: number;
  #backoff: Backoff | undefined;
  #timer: Timer | undefined;

  constructor(host: CallHost, call: Closable & Waiter & TokenWaiter, deadline: number) {
    this.#host = host;
    this.#call = call;
    this.#deadline = deadline;
  }

  /** How long to pause before the next attempt, in milliseconds. Before the first repeat not at all if it `mayHurry`. */
  nextPauseMs(mayHurry: boolean): number {
    const isFirst = this.#backoff === undefined;
    this.#backoff ??= new Backoff(this.#host.runtime, retryInitialMs, retryMaxMs);
    return isFirst && mayHurry ? 0 : this.#backoff.next();
  }

  /** Whether there is time left for an attempt after that pause. */
  allows(pauseMs: number): boolean {
    return this.#host.runtime.monotonic() + pauseMs < this.#deadline;
  }

  pause(pauseMs: number, goOn: () => void): void {
    this.#host.parked.add(this.#call);
    this.#timer = this.#host.runtime.timer(pauseMs, goOn);
  }

  /** Until something comes that the call waits for, or the time is over. */
  park(giveUp: () => void): void {
    this.#host.parked.add(this.#call);
    if (this.#deadline === Number.POSITIVE_INFINITY) return;
    this.#timer = this.#host.runtime.timer(Math.max(0, this.#deadline - this.#host.runtime.monotonic()), giveUp);
  }

  /** It waits no longer. */
  end(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (!this.#host.parked.delete(this.#call)) return;
    this.#host.balancer.forget(this.#call);
    this.#host.authenticator?.forget(this.#call);
  }
}
