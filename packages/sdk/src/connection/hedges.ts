import type { Call } from '@conclave/wire';
import type { AwaitedCall } from './liveness.ts';
import type { CallHost } from './procedure.ts';
import type { Slot } from './slot.ts';

/** A call as it was sent to one endpoint. */
export interface Attempt {
  readonly slot: Slot;
  readonly call: Call;
}

/** With the first attempt, three endpoints are asked. */
const attemptsMax = 2;
const pauseMs = 500;

/** The further attempts of a call whose first one is slow, each at another endpoint. */
export class Hedges {
  readonly #call: AwaitedCall;
  #attempts: readonly Attempt[] = [];
  #nextAt = Number.NEGATIVE_INFINITY;

  constructor(call: AwaitedCall) {
    this.#call = call;
  }

  /** Where to ask next, which is then paid for; undefined: nowhere, or not yet. */
  next({ balancer, runtime, hedgeBudget }: CallHost, first: Slot): Slot | undefined {
    const now = runtime.monotonic();
    if (this.#attempts.length >= attemptsMax || now < this.#nextAt) return undefined;
    const slot = balancer.better([first, ...this.#attempts.map((attempt) => attempt.slot)]);
    if (slot === undefined || !hedgeBudget.spend(this.#call)) return undefined;
    this.#nextAt = now + pauseMs;
    return slot;
  }

  add(attempt: Attempt): void {
    this.#attempts = [...this.#attempts, attempt];
  }

  /** Takes one out that has ended; gives those that are older. Undefined: it is none of these any more. */
  remove(call: Call): readonly Attempt[] | undefined {
    const at = this.#attempts.findIndex((attempt) => attempt.call === call);
    if (at === -1) return undefined;
    const older = this.#attempts.slice(0, at);
    this.#attempts = [...older, ...this.#attempts.slice(at + 1)];
    return older;
  }

  /** Takes the oldest out, to go on with. */
  shift(): Attempt | undefined {
    const [oldest, ...others] = this.#attempts;
    this.#attempts = others;
    return oldest;
  }

  /** Takes all out. */
  clear(): readonly Attempt[] {
    const attempts = this.#attempts;
    this.#attempts = [];
    return attempts;
  }
}
