import type { Entry, HardState } from '@conclave/raft';
import type { LogRecord, SnapshotPoint } from './log-record.ts';
import type { BatchHead } from './segment.ts';

/**
 * Rebuilds what raft needs from the records of the log, in order. Holds no more than the entries above the applied index: what is below, the
 * backend has.
 */
export class Replay {
  readonly #appliedIndex: number;
  #entries: Entry[] = [];
  #hardState: HardState | undefined;
  #snapshot: SnapshotPoint | undefined;
  #index = 0;
  #term = 0;

  constructor(appliedIndex: number) {
    this.#appliedIndex = appliedIndex;
  }

  /** Index and term of the last entry so far. */
  get index(): number {
    return this.#index;
  }
  get term(): number {
    return this.#term;
  }
  get entries(): readonly Entry[] {
    return this.#entries;
  }
  /** The newest snapshot marker above the applied index: the snapshot is complete on disk, and its install did not finish. */
  get snapshot(): SnapshotPoint | undefined {
    return this.#snapshot !== undefined && this.#snapshot.index > this.#appliedIndex ? this.#snapshot : undefined;
  }

  /**
   * Entries of a term prove that this member was in that term, even where the hard state behind them was torn off. It had not voted in it: a
   * vote is durable before entries of its term are asked for.
   */
  get hardState(): HardState | undefined {
    const stored = this.#hardState;
    if (this.#term <= (stored?.term ?? 0)) return stored;
    return { term: this.#term, vote: 0n, commit: stored?.commit ?? 0 };
  }

  startAt(index: number, term: number): void {
    this.#index = index;
    this.#term = term;
  }

  /** Returns why the record contradicts those before, or undefined. */
  apply(record: LogRecord): string | undefined {
    switch (record.kind) {
      case 'head':
        return this.#check(record.head);
      case 'entry':
        return this.#append(record.entry);
      case 'hardState':
        return this.#setHardState(record.hardState);
      case 'snapshot':
        this.#entries = [];
        this.#snapshot = record.snapshot;
        this.startAt(record.snapshot.index, record.snapshot.term);
        return undefined;
    }
  }

  /** Returns why the log as a whole cannot be the whole log, or undefined. */
  verify(): string | undefined {
    if (this.#index < this.#appliedIndex) {
      return `it ends at index ${this.#index} although the applied state, which never runs ahead of it, is at ${this.#appliedIndex}`;
    }
    const commit = this.#hardState?.commit ?? 0;
    if (this.#index < commit) return `it ends at index ${this.#index} although ${commit} was known to be committed`;
    return undefined;
  }

  // What the head repeats is what the records before it said, where those were read.
  #check({ start, hardState }: BatchHead): string | undefined {
    if (start.index !== this.#index || start.term !== this.#term) {
      return `a batch was written behind entry ${start.index} of term ${start.term} and stands behind ${this.#index} of ${this.#term}`;
    }
    return hardState && this.#setHardState(hardState);
  }

  #append(entry: Entry): string | undefined {
    if (entry.index > this.#index + 1 || entry.index === 0) return `entry ${entry.index} follows entry ${this.#index}`;
    const kept = this.#entries.length - (this.#index + 1 - entry.index);
    const before = this.#entries[kept - 1];
    if (before !== undefined && entry.term < before.term) return `entry ${entry.index} has term ${entry.term} after term ${before.term}`;
    this.#entries.length = Math.max(0, kept);
    if (entry.index > this.#appliedIndex) this.#entries.push(entry);
    this.startAt(entry.index, entry.term);
    return undefined;
  }

  #setHardState(hardState: HardState): string | undefined {
    const before = this.#hardState?.term ?? 0;
    if (hardState.term < before) return `the hard state goes back from term ${before} to ${hardState.term}`;
    this.#hardState = hardState;
    return undefined;
  }
}
