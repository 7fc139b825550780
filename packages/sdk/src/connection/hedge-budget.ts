/** A call earns so much of a hedge: at most a tenth of the calls are asked elsewhere as well. */
const callsPerHedge = 10;
/** And so many in a row, for a member that stops answering has many waiting at once. */
const reserve = 20;

/**
 * What a client may spend on asking a second endpoint while a first one is slow. Where one member is slow that is most of its reads; where all are
 * it would be all reads twice, which makes all of them slower. What tells the two apart is who answers first: a hedge that does was
 * worth it, and is not counted.
 */
export class HedgeBudget {
  /** In calls. */
  #saved = reserve * callsPerHedge;

  /** A call begins. */
  earn(): void {
    if (this.#saved < reserve * callsPerHedge) this.#saved++;
  }

  /** Whether there may be a hedge now. */
  spend(): boolean {
    if (this.#saved < callsPerHedge) return false;
    this.#saved -= callsPerHedge;
    return true;
  }

  /** It answered first. */
  refund(): void {
    this.#saved = Math.min(reserve * callsPerHedge, this.#saved + callsPerHedge);
  }
}
