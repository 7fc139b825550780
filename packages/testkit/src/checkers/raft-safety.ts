import type { Finding } from './finding.ts';

/** An entry as the checks see it: `digest` stands for its type and data, equal only if those are. */
export interface TracedEntry {
  readonly term: number;
  readonly index: number;
  readonly digest: string | number;
}

/** What one member was at one moment. */
export interface RaftSample {
  readonly member: string;
  readonly term: number;
  readonly role: 'follower' | 'preCandidate' | 'candidate' | 'leader' | 'learner';
  readonly commitIndex: number;
  /**
   * Entries of its log that may be new to the checker since the member's last sample: consecutive. Those from the first index on replace what was
   * known of this member. Absent: unchanged.
   */
  readonly log?: readonly TracedEntry[];
  /** Entries up to here are gone from the member's log, covered by a snapshot. */
  readonly compactedIndex?: number;
  /** The member started anew and what was known of its log beyond this index is void. */
  readonly restartedAt?: number;
}

/**
 * The safety properties of Raft (paper, figure 3), checked while samples of all members arrive, in the order they were taken:
 * election safety, leader append-only, log matching, leader completeness, state machine safety; and that no term or commit index goes back
 * while a member runs.
 */
export class RaftSafety {
  readonly #members = new Map<string, MemberView>();
  /** The leader of each term. */
  readonly #leaders = new Map<number, string>();
  /** What is committed, from anybody's view, by index. */
  readonly #committed = new Map<number, TracedEntry & { readonly by: string }>();
  /** The entry at (term, index): log matching says there is one, and one only before it. */
  readonly #entries = new Map<string, { readonly entry: TracedEntry; readonly previousTerm: number; readonly by: string }>();
  readonly #applied = new Map<number, { readonly digest: string | number; readonly by: string }>();
  readonly #findings: Finding[] = [];
  #committedUpTo = 0;

  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /** Highest index that anybody has called committed. */
  get committedIndex(): number {
    return this.#committedUpTo;
  }

  sample(sample: RaftSample): void {
    const view = this.#viewOf(sample);
    if (sample.log !== undefined) this.#takeLog(sample, view);
    if (sample.compactedIndex !== undefined) view.compact(sample.compactedIndex);
    if (sample.role === 'leader') this.#takeLeader(sample, view);
    this.#takeCommit(sample, view);
    view.term = sample.term;
    view.role = sample.role;
    view.commitIndex = Math.max(view.commitIndex, sample.commitIndex);
  }

  /** A member applied an entry. `digest` may also be that of the state after it. */
  applied(member: string, index: number, digest: string | number): void {
    const known = this.#applied.get(index);
    if (known === undefined) this.#applied.set(index, { digest, by: member });
    else if (known.digest !== digest) {
      this.#find('state-machine-safety', `members ${known.by} and ${member} applied different entries at index ${index}`, [
        `${known.by}: ${known.digest}`,
        `${member}: ${digest}`,
      ]);
    }
  }

  #viewOf(sample: RaftSample): MemberView {
    let view = this.#members.get(sample.member);
    if (view === undefined) {
      view = new MemberView();
      this.#members.set(sample.member, view);
    }
    if (sample.restartedAt !== undefined) view.restart(sample.restartedAt);
    if (sample.term < view.term) {
      this.#find('term-monotonic', `member ${sample.member} went from term ${view.term} back to ${sample.term}`, [showSample(sample)]);
    }
    if (sample.commitIndex < view.commitIndex) {
      this.#find('commit-monotonic', `member ${sample.member} took its commit index ${view.commitIndex} back to ${sample.commitIndex}`, [
        showSample(sample),
      ]);
    }
    return view;
  }

  #takeLog(sample: RaftSample, view: MemberView): void {
    const log = sample.log ?? [];
    const first = log[0];
    if (first === undefined) return;
    const wasLeading = view.role === 'leader' && sample.role === 'leader' && view.term === sample.term;
    if (wasLeading && first.index <= view.lastIndex && !log.every((entry) => sameEntry(view.entryAt(entry.index), entry))) {
      const replaced = log.find((entry) => !sameEntry(view.entryAt(entry.index), entry));
      if (replaced !== undefined && replaced.index <= view.lastIndex) {
        this.#find(
          'leader-append-only',
          `leader ${sample.member} of term ${sample.term} replaced its own entry at index ${replaced.index}`,
          [`before: ${showEntry(view.entryAt(replaced.index))}`, `after: ${showEntry(replaced)}`],
        );
      }
    }
    view.replaceFrom(log);
    for (const entry of log) this.#matchLog(sample.member, view, entry);
    for (const entry of log) {
      const committed = this.#committed.get(entry.index);
      // Overwriting a committed entry in a minority's log is lawful never; but an old entry below the commit may still be there uncommitted.
      if (committed !== undefined && entry.index <= view.commitIndex && !sameEntry(committed, entry)) {
        this.#find('committed-overwritten', `member ${sample.member} replaced the committed entry at index ${entry.index}`, [
          `committed (seen by ${committed.by}): ${showEntry(committed)}`,
          `now: ${showEntry(entry)}`,
        ]);
      }
    }
  }

  #matchLog(member: string, view: MemberView, entry: TracedEntry): void {
    const previousTerm = view.termAt(entry.index - 1);
    const place = `${entry.term}/${entry.index}`;
    const known = this.#entries.get(place);
    if (known === undefined || known.previousTerm === -1) {
      if (known !== undefined && known.entry.digest !== entry.digest) this.#mismatch(member, entry, known);
      else this.#entries.set(place, { entry, previousTerm, by: member });
    } else if (known.entry.digest !== entry.digest || (previousTerm !== -1 && previousTerm !== known.previousTerm)) {
      this.#mismatch(member, entry, known);
    }
  }

  #mismatch(
    member: string,
    entry: TracedEntry,
    known: { readonly entry: TracedEntry; readonly previousTerm: number; readonly by: string },
  ): void {
    this.#find(
      'log-matching',
      `members ${known.by} and ${member} have the same term at index ${entry.index} and not the same log up to it`,
      [`${known.by}: ${showEntry(known.entry)} after term ${known.previousTerm}`, `${member}: ${showEntry(entry)}`],
    );
  }

  #takeLeader(sample: RaftSample, view: MemberView): void {
    const known = this.#leaders.get(sample.term);
    if (known === undefined) {
      this.#leaders.set(sample.term, sample.member);
      this.#completeness(sample, view);
    } else if (known !== sample.member) {
      this.#find('election-safety', `term ${sample.term} has two leaders: ${known} and ${sample.member}`, [showSample(sample)]);
    }
  }

  /** A new leader holds every entry that was committed in an earlier term. */
  #completeness(sample: RaftSample, view: MemberView): void {
    for (let index = view.compactedIndex + 1; index <= this.#committedUpTo; index++) {
      const committed = this.#committed.get(index);
      if (committed === undefined || committed.term >= sample.term) continue;
      const own = view.entryAt(index);
      if (own !== undefined && sameEntry(own, committed)) continue;
      this.#find('leader-completeness', `leader ${sample.member} of term ${sample.term} lacks the committed entry at index ${index}`, [
        `committed (seen by ${committed.by}): ${showEntry(committed)}`,
        `leader's: ${showEntry(own)}`,
      ]);
      return;
    }
  }

  #takeCommit(sample: RaftSample, view: MemberView): void {
    for (let index = Math.max(view.commitIndex, view.compactedIndex) + 1; index <= sample.commitIndex; index++) {
      const entry = view.entryAt(index);
      if (entry === undefined) continue;
      const committed = this.#committed.get(index);
      if (committed === undefined) this.#committed.set(index, { ...entry, by: sample.member });
      else if (!sameEntry(committed, entry)) {
        this.#find('state-machine-safety', `members ${committed.by} and ${sample.member} committed different entries at index ${index}`, [
          `${committed.by}: ${showEntry(committed)}`,
          `${sample.member}: ${showEntry(entry)}`,
        ]);
      }
    }
    this.#committedUpTo = Math.max(this.#committedUpTo, sample.commitIndex);
  }

  #find(rule: string, what: string, context: readonly string[]): void {
    this.#findings.push({ rule, what, context });
  }
}

/** What is known of one member's log. */
class MemberView {
  term = 0;
  role: RaftSample['role'] = 'follower';
  commitIndex = 0;
  compactedIndex = 0;
  lastIndex = 0;
  readonly #log = new Map<number, TracedEntry>();

  entryAt(index: number): TracedEntry | undefined {
    return this.#log.get(index);
  }

  /** -1: not known. */
  termAt(index: number): number {
    if (index === 0) return 0;
    return this.#log.get(index)?.term ?? -1;
  }

  replaceFrom(log: readonly TracedEntry[]): void {
    const first = log[0]?.index ?? 0;
    for (let index = first; index <= this.lastIndex; index++) this.#log.delete(index);
    for (const entry of log) this.#log.set(entry.index, entry);
    this.lastIndex = first + log.length - 1;
  }

  compact(index: number): void {
    for (let gone = this.compactedIndex; gone < index; gone++) this.#log.delete(gone);
    this.compactedIndex = Math.max(this.compactedIndex, index);
    this.lastIndex = Math.max(this.lastIndex, index);
  }

  /** A crash may take back what was not durable, the term and the commit index included. */
  restart(index: number): void {
    for (let lost = index + 1; lost <= this.lastIndex; lost++) this.#log.delete(lost);
    this.lastIndex = Math.min(this.lastIndex, index);
    this.term = 0;
    this.commitIndex = 0;
    this.role = 'follower';
  }
}

const sameEntry = (a: TracedEntry | undefined, b: TracedEntry | undefined): boolean =>
  a !== undefined && b !== undefined && a.term === b.term && a.digest === b.digest;

const showEntry = (entry: TracedEntry | undefined): string =>
  entry === undefined ? 'nothing' : `term ${entry.term}, index ${entry.index}, ${entry.digest}`;

const showSample = ({ member, term, role, commitIndex }: RaftSample): string => `${member}: ${role} of term ${term}, commit ${commitIndex}`;
