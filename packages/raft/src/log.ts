import { invariant } from './invariant.ts';
import type { Entry, EntryType, SnapshotMeta, StorageAppendResponse } from './types.ts';

/** An append the storage has and has not acknowledged. */
interface AppendInFlight {
  readonly append: number;
  readonly index: number;
  readonly term: number;
  /** As the hard state written with it says. */
  readonly commit: number;
  /** Set when it brings a snapshot, whose state is in place once the append is acknowledged. */
  readonly snapshot: SnapshotMeta | undefined;
  /** What of it still holds: lowered when its end is overwritten, as a later write then replaces that end in storage too. */
  durableIndex: number;
}

/** In place of an entry that is not held any more. */
const forgotten: Entry = { term: 0, index: 0, type: 'normal', data: new Uint8Array(0) };

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
 *
 * A snapshot moves compacted, applying, committed, handed and last at once. `applied` and `durable` follow when its state is in place, and
 * are below the others until then.
 */
export class RaftLog {
  /** `#entries[i]` has index `#base + 1 + i`. Indexes have no gap and terms never decrease. */
  readonly #entries: Entry[] = [];
  /** `#bytes[i]`: data of all entries up to and including `#entries[i]`, counted from `#baseBytes` on. */
  readonly #bytes: number[] = [];
  /** At most `#compacted.index`. What is between the two is forgotten, and its places are given up now and then. */
  #base: number;
  #baseBytes = 0;
  #compacted: LogPosition;
  /** Indexes of the changes of membership among `#entries`. Rarely any. */
  readonly #confChanges: number[] = [];
  #committed: number;
  #applied: number;
  #applying: number;
  #durable: number;
  /** The highest commit index in a hard state that is durable, and that was handed to storage. */
  #durableCommit: number;
  #handedCommit: number;
  #handed: number;
  /** Not yet handed to storage. */
  #snapshot: SnapshotMeta | undefined;
  /** In the order written. */
  #inFlight: AppendInFlight[] = [];
  #appends = 0;

  /** @param entries what storage recovered: durable, and consecutive from `compacted.index + 1`. */
  constructor(compacted: LogPosition, entries: readonly Entry[], commitIndex: number, appliedIndex: number) {
    this.#base = compacted.index;
    this.#compacted = compacted;
    this.#checkConsecutive(compacted, entries);
    for (const entry of entries) this.#push(entry);
    const last = compacted.index + entries.length;
    invariant(
      compacted.index <= appliedIndex && appliedIndex <= last,
      () => `applied ${appliedIndex} is outside the log ${compacted.index}..${last}`,
    );
    invariant(commitIndex <= last, () => `the log ends at ${last} and lost committed entries up to ${commitIndex}`);
    // What is applied was committed, though the record of that may not have reached the disk. And of two changes of membership the first was
    // committed before the second was proposed. Who holds both must know it: among the voters of before the first it could be elected beside a
    // leader whose quorum is the one of after the second.
    this.#committed = Math.max(commitIndex, appliedIndex, this.#confChanges.at(-2) ?? 0);
    this.#durableCommit = Math.max(commitIndex, appliedIndex);
    this.#handedCommit = this.#durableCommit;
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
    return this.#base + this.#entries.length;
  }
  get lastTerm(): number {
    return this.termAt(this.lastIndex)!;
  }
  /** A snapshot was taken in and its state is not yet in place. */
  get isRestoring(): boolean {
    return this.#applied < this.#compacted.index;
  }

  /** undefined outside of what is in memory. */
  termAt(index: number): number | undefined {
    if (index <= this.#compacted.index) return index === this.#compacted.index ? this.#compacted.term : undefined;
    return this.#entries[index - this.#base - 1]?.term;
  }

  /** Whether a log that ends with this entry is at least as complete as this one (thesis section 3.6.1). */
  isUpToDate(lastLogIndex: number, lastLogTerm: number): boolean {
    return lastLogTerm > this.lastTerm || (lastLogTerm === this.lastTerm && lastLogIndex >= this.lastIndex);
  }

  /**
   * The highest index, at most `index`, whose entry is of `term` or an earlier one: no entry between the two can agree with a log that has
   * `term` at `index`. Where this log begins later, `index` itself.
   */
  lastIndexUpToTerm(index: number, term: number): number {
    let [low, high] = [this.#compacted.index, Math.min(index, this.lastIndex)];
    if (high <= low) return high;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.termAt(middle)! <= term) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Entries with `from < index <= to` that are in memory. */
  slice(from: number, to: number): readonly Entry[] {
    const first = Math.max(from, this.#compacted.index);
    return this.#entries.slice(first - this.#base, Math.max(to, first) - this.#base);
  }

  /** Whether one of the entries with `from < index <= to` changes the membership. */
  hasConfChange(from: number, to: number): boolean {
    return this.#confChanges.some((index) => index > from && index <= to);
  }

  // ---- bytes ----

  #bytesAt(index: number): number {
    const at = Math.max(index, this.#compacted.index);
    return at === this.#base ? this.#baseBytes : this.#bytes[at - this.#base - 1]!;
  }

  /** Data of the entries with `from < index <= to` that are in memory. */
  bytesBetween(from: number, to: number): number {
    return this.#bytesAt(to) - this.#bytesAt(from);
  }

  /** The last index of what follows `from` and fits `maxBytes` of data: one entry always does. `from` where nothing follows. */
  batchEnd(from: number, maxBytes: number): number {
    if (from >= this.lastIndex) return from;
    const limit = this.#bytesAt(from) + maxBytes;
    if (this.#bytesAt(this.lastIndex) <= limit) return this.lastIndex;
    return Math.max(from + 1, this.#firstWithBytesAbove(limit) - 1);
  }

  /** The first index, at most one behind the end, whose count of bytes is above this. */
  #firstWithBytesAbove(bytes: number): number {
    let [low, high] = [0, this.#bytes.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#bytes[middle]! > bytes) high = middle;
      else low = middle + 1;
    }
    return this.#base + 1 + low;
  }

  /** The highest index up to which entries may be forgotten when the newest applied ones are kept, as many as fit both bounds. */
  catchUpIndex(maxEntries: number, maxBytes: number): number {
    if (this.isRestoring) return this.#compacted.index;
    const surplus = this.#bytesAt(this.#applied) - maxBytes;
    // Up to which the count of bytes is at least the surplus: what follows then fits.
    const fits = surplus <= this.#bytesAt(this.#compacted.index) ? this.#compacted.index : this.#firstWithBytesAbove(surplus - 1);
    return Math.max(this.#compacted.index, this.#applied - maxEntries, Math.min(fits, this.#applied));
  }

  // ---- growing ----

  #push(entry: Entry): void {
    this.#bytes.push(this.#bytesAt(this.lastIndex) + entry.data.length);
    this.#entries.push(entry);
    if (entry.type === 'confChange') this.#confChanges.push(entry.index);
  }

  /** A leader's append. */
  append(term: number, type: EntryType, data: Uint8Array): Entry {
    const index = this.lastIndex + 1;
    invariant(term >= this.lastTerm, () => `entry ${index} has term ${term} after term ${this.lastTerm}`);
    invariant(Number.isSafeInteger(index), () => `log index ${index} is beyond 2^53-1`);
    const entry: Entry = { term, index, type, data };
    this.#push(entry);
    return entry;
  }

  /**
   * A follower's append, after the log was found to match at `prev`: keeps what agrees, and from the first entry that does not agree
   * replaces everything. Never cuts what agrees: the message may be an old one, and what follows it may have been acknowledged.
   */
  merge(prev: LogPosition, entries: readonly Entry[]): void {
    this.#checkConsecutive(prev, entries);
    let at = 0;
    while (at < entries.length && this.termAt(entries[at]!.index) === entries[at]!.term) at += 1;
    if (at === entries.length) return;
    if (entries[at]!.index <= this.lastIndex) this.#truncate(entries[at]!.index);
    for (; at < entries.length; at++) this.#push(entries[at]!);
  }

  /** Drops the entry at `from` and all behind it, here and (by the next append) in storage. */
  #truncate(from: number): void {
    invariant(from > this.#committed, () => `entry ${from} is to be replaced, and ${this.#committed} is committed`);
    this.#entries.length = from - this.#base - 1;
    this.#bytes.length = this.#entries.length;
    while ((this.#confChanges.at(-1) ?? 0) >= from) this.#confChanges.pop();
    this.#handed = Math.min(this.#handed, from - 1);
    this.#trustUpTo(from - 1);
  }

  /** What was written beyond `index` is not what the log holds any more. */
  #trustUpTo(index: number): void {
    this.#durable = Math.min(this.#durable, index);
    for (const write of this.#inFlight) write.durableIndex = Math.min(write.durableIndex, index);
  }

  #checkConsecutive(prev: LogPosition, entries: readonly Entry[]): void {
    let { index, term } = prev;
    for (const entry of entries) {
      invariant(entry.index === index + 1 && entry.term >= term, () => `entry ${entry.term}/${entry.index} follows ${term}/${index}`);
      ({ index, term } = entry);
    }
  }

  /** A snapshot takes the place of the whole log. It is ahead of what is committed here, and conflicts with it or reaches further. */
  restore(snapshot: SnapshotMeta): void {
    const { index, term } = snapshot;
    invariant(index > this.#committed, () => `a snapshot at ${index} is behind the commit, ${this.#committed}`);
    this.#trustUpTo(this.#committed);
    this.#entries.length = 0;
    this.#bytes.length = 0;
    this.#confChanges.length = 0;
    this.#base = index;
    this.#baseBytes = 0;
    this.#compacted = { index, term };
    this.#committed = index;
    this.#applying = index;
    this.#handed = index;
    this.#snapshot = snapshot;
  }

  // ---- storage ----

  get hasSnapshot(): boolean {
    return this.#snapshot !== undefined;
  }

  /** The snapshot to write before any further entry. */
  takeSnapshot(): SnapshotMeta | undefined {
    const snapshot = this.#snapshot;
    this.#snapshot = undefined;
    return snapshot;
  }

  /** The next entries to write, at most `maxBytes` of data but at least one if there is any. */
  takeUnwritten(maxBytes: number): readonly Entry[] {
    const taken = this.slice(this.#handed, this.batchEnd(this.#handed, maxBytes));
    this.#handed += taken.length;
    return taken;
  }

  /**
   * Notes that an append is under way, of all that was taken until now, with this commit index in its hard state.
   * @returns what storage has to hand back.
   */
  began(commit: number, snapshot?: SnapshotMeta): StorageAppendResponse {
    const index = this.#handed;
    const term = this.termAt(index)!;
    this.#appends += 1;
    this.#handedCommit = Math.max(this.#handedCommit, commit);
    this.#inFlight.push({ append: this.#appends, index, term, commit, snapshot, durableIndex: index });
    return { type: 'storageAppendResponse', append: this.#appends, index, term };
  }

  /**
   * The append is durable, and so are all before it; the state of a snapshot it brought is in place. An answer that came before is ignored.
   * @returns the last such snapshot.
   */
  acknowledge(response: StorageAppendResponse): SnapshotMeta | undefined {
    const at = this.#inFlight.findIndex((write) => write.append === response.append);
    if (at < 0) {
      invariant(response.append <= this.#appends, () => `storage acknowledges append ${response.append}, which was never handed out`);
      return undefined;
    }
    const { index, term } = this.#inFlight[at]!;
    invariant(
      index === response.index && term === response.term,
      () => `append ${response.append} ended with ${term}/${index}, storage acknowledges ${response.term}/${response.index}`,
    );
    let restored: SnapshotMeta | undefined;
    for (const write of this.#inFlight.splice(0, at + 1)) {
      this.#durable = Math.max(this.#durable, write.durableIndex);
      this.#durableCommit = Math.max(this.#durableCommit, write.commit);
      restored = write.snapshot ?? restored;
    }
    if (restored) this.#applied = restored.index;
    invariant(this.#durable <= this.#handed, () => `durable ${this.#durable} beyond what storage was given, ${this.#handed}`);
    return restored;
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
    if (!this.hasUnapplied) return [];
    const entries = this.slice(this.#applying, this.#applicable);
    this.#applying += entries.length;
    return entries;
  }

  get #applicable(): number {
    const applicable = Math.min(this.#committed, this.#durable);
    if (this.#confChanges.length === 0) return applicable;
    const held = this.#firstConfChangeAbove(this.#durableCommit);
    return held <= applicable ? held - 1 : applicable;
  }

  #firstConfChangeAbove(index: number): number {
    return this.#confChanges.find((at) => at > index) ?? Number.POSITIVE_INFINITY;
  }

  /**
   * A change of membership is committed, and storage was not told so yet. It is applied only when a restart would know of it, too: whoever was
   * told that a member is removed may take that member away for good, and its vote must not be needed ever after.
   */
  get owesCommit(): boolean {
    return this.#confChanges.length > 0 && this.#firstConfChangeAbove(this.#handedCommit) <= Math.min(this.#committed, this.#handed);
  }

  appliedTo(index: number): void {
    // Applies that were under way when a snapshot overtook them.
    if (index < this.#compacted.index) return;
    invariant(index >= this.#applied && index <= this.#applying, () => `applied ${index} is outside ${this.#applied}..${this.#applying}`);
    this.#applied = index;
  }

  /** Forgets entries up to and including `index`, which must be applied. Less than what is forgotten already: no change. */
  compact(index: number): void {
    if (index <= this.#compacted.index) return;
    invariant(index <= this.#applied, () => `compaction to ${index} is beyond what is applied, ${this.#applied}`);
    const term = this.termAt(index)!;
    this.#entries.fill(forgotten, this.#compacted.index - this.#base, index - this.#base);
    this.#compacted = { index, term };
    while ((this.#confChanges[0] ?? index + 1) <= index) this.#confChanges.shift();
    // Moving the rest costs as much as it is long: only when it is the smaller part.
    if (index - this.#base > this.#entries.length / 2) this.#giveUpPlaces(index);
  }

  #giveUpPlaces(index: number): void {
    this.#baseBytes = this.#bytesAt(index);
    this.#entries.splice(0, index - this.#base);
    this.#bytes.splice(0, index - this.#base);
    this.#base = index;
  }
}
