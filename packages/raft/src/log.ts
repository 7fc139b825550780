import { invariant } from './invariant.ts';
import type { Entry, EntryType, StorageAppendResponse } from './types.ts';

/** An append the storage has and has not acknowledged. */
interface AppendInFlight {
  readonly append: number;
  readonly index: number;
  readonly term: number;
  /** What of it still holds: lowered when its end is overwritten, as a later write then replaces that end in storage too. */
  durableIndex: number;
}

/** The position before the first entry held in memory. */
export interface LogPosition {
  readonly index: number;
  readonly term: number;
}

/**
 * The log from the last compaction on, and how far each of its consumers is. Always:
 *
 * ```
 * compacted <= applied <= applying <= committed <= last
 * applying <= durable <= handed <= last
 * ```
 *
 * `committed` and `durable` are not ordered: a follower may learn that entries are committed before its own disk has them. It does not apply
 * them until it does, so that the state machine's own disk never knows more than the log.
 */
export class RaftLog {
  /** `#entries[i]` has index `#compacted.index + 1 + i`. Indexes have no gap and terms never decrease. */
  readonly #entries: Entry[];
  #compacted: LogPosition;
  #committed: number;
  #applied: number;
  #applying: number;
  #durable: number;
  #handed: number;
  /** In the order written. */
  #inFlight: AppendInFlight[] = [];
  #appends = 0;

  /** @param entries what storage recovered: durable, and consecutive from `compacted.index + 1`. */
  constructor(compacted: LogPosition, entries: readonly Entry[], commitIndex: number, appliedIndex: number) {
    this.#compacted = compacted;
    this.#entries = [...entries];
    this.#checkConsecutive(compacted, entries);
    const last = compacted.index + entries.length;
    invariant(
      compacted.index <= appliedIndex && appliedIndex <= last,
      () => `applied ${appliedIndex} is outside the log ${compacted.index}..${last}`,
    );
    invariant(commitIndex <= last, () => `the log ends at ${last} and lost committed entries up to ${commitIndex}`);
    // What is applied was committed, though the record of that may not have reached the disk.
    this.#committed = Math.max(commitIndex, appliedIndex);
    this.#applied = appliedIndex;
    this.#applying = appliedIndex;
    this.#durable = last;
    this.#handed = last;
  }

  get compactedIndex(): number {
    return this.#compacted.index;
  }
  get committedIndex(): number {
    return this.#committed;
  }
  get appliedIndex(): number {
    return this.#applied;
  }
  get durableIndex(): number {
    return this.#durable;
  }
  /** Storage was given everything up to here. */
  get handedIndex(): number {
    return this.#handed;
  }
  get lastIndex(): number {
    return this.#compacted.index + this.#entries.length;
  }
  get lastTerm(): number {
    return this.#entries.at(-1)?.term ?? this.#compacted.term;
  }

  /** undefined outside of what is in memory. */
  termAt(index: number): number | undefined {
    if (index === this.#compacted.index) return this.#compacted.term;
    return this.#entries[index - this.#compacted.index - 1]?.term;
  }

  /** Whether a log that ends with this entry is at least as complete as this one (thesis section 3.6.1). */
  isUpToDate(lastLogIndex: number, lastLogTerm: number): boolean {
    return lastLogTerm > this.lastTerm || (lastLogTerm === this.lastTerm && lastLogIndex >= this.lastIndex);
  }

  /** Entries with `from < index <= to` that are in memory. */
  slice(from: number, to: number): readonly Entry[] {
    return this.#entries.slice(Math.max(0, from - this.#compacted.index), Math.max(0, to - this.#compacted.index));
  }

  // ---- growing ----

  /** A leader's append. */
  append(term: number, type: EntryType, data: Uint8Array): Entry {
    const index = this.lastIndex + 1;
    invariant(term >= this.lastTerm, () => `entry ${index} has term ${term} after term ${this.lastTerm}`);
    invariant(Number.isSafeInteger(index), () => `log index ${index} is beyond 2^53-1`);
    const entry: Entry = { term, index, type, data };
    this.#entries.push(entry);
    return entry;
  }

  /**
   * A follower's append, after the log was found to match at `prev`: keeps what agrees, and from the first entry that does not agree
   * replaces everything. Never cuts what agrees: the message may be an old one, and what follows it may have been acknowledged.
   */
  merge(prev: LogPosition, entries: readonly Entry[]): void {
    this.#checkConsecutive(prev, entries);
    const conflict = entries.findIndex((entry) => this.termAt(entry.index) !== entry.term);
    if (conflict < 0) return;
    const fresh = entries.slice(conflict);
    this.#truncate(fresh[0]!.index);
    this.#entries.push(...fresh);
  }

  /** Drops the entry at `from` and all behind it, here and (by the next append) in storage. */
  #truncate(from: number): void {
    invariant(from > this.#committed, () => `entry ${from} is to be replaced, and ${this.#committed} is committed`);
    this.#entries.length = Math.min(this.#entries.length, from - this.#compacted.index - 1);
    this.#handed = Math.min(this.#handed, from - 1);
    this.#durable = Math.min(this.#durable, from - 1);
    for (const write of this.#inFlight) write.durableIndex = Math.min(write.durableIndex, from - 1);
  }

  #checkConsecutive(prev: LogPosition, entries: readonly Entry[]): void {
    let { index, term } = prev;
    for (const entry of entries) {
      invariant(entry.index === index + 1 && entry.term >= term, () => `entry ${entry.term}/${entry.index} follows ${term}/${index}`);
      ({ index, term } = entry);
    }
  }

  // ---- storage ----

  /** The next entries to write, at most `maxBytes` of data but at least one if there is any. */
  takeUnwritten(maxBytes: number): readonly Entry[] {
    if (this.#handed === this.lastIndex) return [];
    const start = this.#handed - this.#compacted.index;
    let end = start;
    let bytes = 0;
    while (end < this.#entries.length && (end === start || bytes + this.#entries[end]!.data.length <= maxBytes)) {
      bytes += this.#entries[end]!.data.length;
      end += 1;
    }
    const taken = this.#entries.slice(start, end);
    this.#handed += taken.length;
    return taken;
  }

  /** Notes that an append which ends with this entry is under way. @returns what storage has to hand back. */
  began(last: Entry): StorageAppendResponse {
    this.#appends += 1;
    const { index, term } = last;
    this.#inFlight.push({ append: this.#appends, index, term, durableIndex: index });
    return { type: 'storageAppendResponse', append: this.#appends, index, term };
  }

  /** The append is durable, and so are all before it. An answer that came before is ignored. */
  acknowledge(response: StorageAppendResponse): void {
    const at = this.#inFlight.findIndex((write) => write.append === response.append);
    if (at < 0) {
      invariant(response.append <= this.#appends, () => `storage acknowledges append ${response.append}, which was never handed out`);
      return;
    }
    const { index, term } = this.#inFlight[at]!;
    invariant(
      index === response.index && term === response.term,
      () => `append ${response.append} ended with ${term}/${index}, storage acknowledges ${response.term}/${response.index}`,
    );
    for (const write of this.#inFlight.splice(0, at + 1)) this.#durable = Math.max(this.#durable, write.durableIndex);
    invariant(this.#durable <= this.#handed, () => `durable ${this.#durable} beyond what storage was given, ${this.#handed}`);
  }

  // ---- commit and apply ----

  /** @returns whether it moved. Never moves back. */
  commitTo(index: number): boolean {
    if (index <= this.#committed) return false;
    invariant(index <= this.lastIndex, () => `commit ${index} is beyond the end of the log, ${this.lastIndex}`);
    this.#committed = index;
    return true;
  }

  get hasUnapplied(): boolean {
    return this.#applying < this.#applicable;
  }

  /** The next entries for the state machine: committed, and durable here. */
  takeUnapplied(): readonly Entry[] {
    const entries = this.slice(this.#applying, this.#applicable);
    this.#applying += entries.length;
    return entries;
  }

  get #applicable(): number {
    return Math.min(this.#committed, this.#durable);
  }

  appliedTo(index: number): void {
    invariant(index >= this.#applied && index <= this.#applying, () => `applied ${index} is outside ${this.#applied}..${this.#applying}`);
    this.#applied = index;
  }

  /** Forgets entries up to and including `index`, which must be applied. Less than what is forgotten already: no change. */
  compact(index: number): void {
    if (index <= this.#compacted.index) return;
    invariant(index <= this.#applied, () => `compaction to ${index} is beyond what is applied, ${this.#applied}`);
    const term = this.termAt(index)!;
    this.#entries.splice(0, index - this.#compacted.index);
    this.#compacted = { index, term };
  }
}
