import { failure } from './failure.ts';

/** Nothing was ever compacted. etcd counts from here too, so that compacting at revision 0 succeeds once. */
export const neverCompacted = -1;

/**
 * The revisions that bound what can be read, and the reads that hold old ones in place.
 *
 * Invariant: neverCompacted <= compacted <= current. Neither ever decreases.
 */
export class Revisions {
  #current: number;
  #compacted: number;
  /** How many times history was replaced beneath. */
  #epoch = 0;
  /** Revisions that reads under way depend on, with the number of reads at each. Few at any time. */
  readonly #pins = new Map<number, number>();

  constructor(current: number, compacted: number) {
    this.#current = current;
    this.#compacted = compacted;
    checkBounds(current, compacted);
  }

  /** Revision of the last write; 1 in a store that was never written to. */
  get current(): number {
    return this.#current;
  }

  /** Reads below this revision are refused; {@link neverCompacted} when none are. */
  get compacted(): number {
    return this.#compacted;
  }

  /** A read that began in one epoch cannot go on in another: what it pinned may be gone. */
  get epoch(): number {
    return this.#epoch;
  }

  /** @throws StatusError `request-timeout-applied-index` when history was replaced since `epoch`. */
  checkEpoch(epoch: number): void {
    if (epoch !== this.#epoch) throw failure('request-timeout-applied-index');
  }

  /** History was replaced by that of a later entry. */
  replace(current: number, compacted: number): void {
    checkBounds(current, compacted);
    if (current < this.#current || compacted < this.#compacted) {
      throw new Error(`revision ${this.#current}, compacted at ${this.#compacted}, replaced by ${current} and ${compacted}`);
    }
    this.#current = current;
    this.#compacted = compacted;
    this.#epoch++;
  }

  advance(): void {
    if (this.#current >= Number.MAX_SAFE_INTEGER) throw new Error('the revision is beyond 2^53-1');
    this.#current++;
  }

  compact(revision: number): void {
    if (revision <= this.#compacted) throw failure('compacted');
    if (revision > this.#current) throw failure('future-revision');
    this.#compacted = revision;
  }

  /** The revision that a read of `requested` sees: 0 and below mean the latest. */
  resolve(requested: number): number {
    if (requested > this.#current) throw failure('future-revision');
    if (requested <= 0) return this.#current;
    if (requested < this.#compacted) throw failure('compacted');
    return requested;
  }

  /**
   * Keeps what a read at `revision` needs in storage until the returned function is called, whatever is compacted meanwhile. Compaction is
   * decided by the log and never waits; only its physical part does.
   */
  pin(revision: number): () => void {
    this.#pins.set(revision, (this.#pins.get(revision) ?? 0) + 1);
    let held = true;
    return () => {
      if (held) this.#unpin(revision);
      held = false;
    };
  }

  /** Whether some read under way needs a revision below `revision`. */
  isPinnedBelow(revision: number): boolean {
    for (const pinned of this.#pins.keys()) if (pinned < revision) return true;
    return false;
  }

  #unpin(revision: number): void {
    const reads = this.#pins.get(revision) ?? 0;
    if (reads > 1) this.#pins.set(revision, reads - 1);
    else this.#pins.delete(revision);
  }
}

function checkBounds(current: number, compacted: number): void {
  if (compacted > current) throw new Error(`compacted at ${compacted}, beyond the current revision ${current}`);
}
