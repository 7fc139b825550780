import type { AwaitedCall } from './liveness.ts';

/** A call earns so much of a hedge: at most a tenth of the calls are asked elsewhere as well. */
const callsPerHedge = 10;
/** And so many in a row, for a member that stops answering has many waiting at once. */
const reserve = 20;

/**
 * What a client may spend on asking a second endpoint while a first one is slow. Where one member is slow that is most of its reads; where all are
 * it would be all reads twice, which makes all of them slower. What tells the two apart is who answers first: a hedge that does was
 * worth it, and is not counted. It lets the next go at once, so that many calls that wait for one member are not kept waiting for the budget.
 */
export class HedgeBudget {
  /** In calls. */
  #saved = reserve * callsPerHedge;
  /** In the order in which there was nothing left for them. */
  readonly #refused = new Set<AwaitedCall>();

  /** A call begins. */
  earn(): void {
    if (this.#saved < reserve * callsPerHedge) this.#saved++;
  }

  /** Whether there may be a hedge of `call` now. If not, it is told that it is slow as soon as there may. */
  spend(call: AwaitedCall): boolean {
    if (this.#saved < callsPerHedge) {
      this.#refused.add(call);
      return false;
    }
    this.#refused.delete(call);
    this.#saved -= callsPerHedge;
    return true;
  }

  /** It answered first. */
  refund(): void {
    this.#saved = Math.min(reserve * callsPerHedge, this.#saved + callsPerHedge);
    for (const call of this.#refused) {
      if (this.#saved < callsPerHedge) break;
      this.#refused.delete(call);
      call.onSlow();
    }
  }

  /** It waits no longer. */
  forget(call: AwaitedCall): void {
    this.#refused.delete(call);
  }
}
