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
 * The safety properties of Raft (paper, figure 3), checked while observations of all members come in, in the order they were made: election safety, log
 * matching, state machine safety, and from whole samples also leader append-only, leader completeness, and that no term or commit index goes back while a
 * member runs.
 */
export class RaftSafety {
  readonly #onFinding: (finding: Finding) => void;
  readonly #members = new Map<string, MemberView>();
  /** The leader of each term. */
  readonly #leaders = new Map<number, string>();
  /** What is committed, from anybody's view, by index. */
  readonly #committed = new Map<
    number,
    { readonly term: number; readonly digest: TracedEntry['digest'] | undefined; readonly by: string }
  >();
  /** The entry at (term, index): log matching says that there is one, and one only before it. */
  readonly #entries = new Map<string, { readonly digest: TracedEntry['digest']; readonly previousTerm: number; readonly by: string }>();
  readonly #applied = new Map<number, { readonly digest: string | number; readonly by: string }>();
  readonly #findings: Finding[] = [];
  #committedUpTo = 0;

  constructor(onFinding: (finding: Finding) => void = () => {}) {
    this.#onFinding = onFinding;
  }

  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /** Highest index that anybody has called committed. */
  get committedIndex(): number {
    return this.#committedUpTo;
  }

  /** Terms that had a leader. */
  get terms(): number {
    return this.#leaders.size;
  }

  // ---- single observations, of members whose logs are not known as a whole ----

  /** A member acts as the leader of a term. @returns whether it is news. */
  leads(member: string, term: number): boolean {
    const known = this.#leaders.get(term);
    if (known === undefined) this.#leaders.set(term, member);
    else if (known !== member) this.#find('election-safety', `term ${term} has two leaders: ${known} and ${member}`);
    return known === undefined;
  }

  /** A member has this entry, behind one of `previousTerm`; -1: not known. */
  holds(member: string, { term, index, digest }: TracedEntry, previousTerm: number): void {
    const place = `${term}/${index}`;
    const known = this.#entries.get(place);
    const isSame =
      known === undefined ||
      (known.digest === digest && (previousTerm === -1 || known.previousTerm === -1 || known.previousTerm === previousTerm));
    if (!isSame) {
      const what = `members ${known.by} and ${member} have the same term at index ${index} and not the same log up to it`;
      this.#find('log-matching', what, [
        `${known.by}: term ${term}, ${known.digest} after term ${known.previousTerm}`,
        `${member}: term ${term}, ${digest} after term ${previousTerm}`,
      ]);
    } else if (known === undefined || known.previousTerm === -1) this.#entries.set(place, { digest, previousTerm, by: member });
  }

  /** A member calls what it has at `index`, of this term, committed. */
  commits(member: string, index: number, term: number, digest?: TracedEntry['digest']): void {
    this.#committedUpTo = Math.max(this.#committedUpTo, index);
    const known = this.#committed.get(index);
    if (known === undefined) this.#committed.set(index, { term, digest, by: member });
    else if (!isSameEntry(known, { term, digest })) {
      this.#find('state-machine-safety', `members ${known.by} and ${member} committed different entries at index ${index}`, [
        `${known.by}: ${showEntry(known)}`,
        `${member}: ${showEntry({ term, digest })}`,
      ]);
    }
  }

  /** A member has this entry where, as it knows, all is committed. */
  keeps(member: string, { index, term, digest }: Pick<TracedEntry, 'index' | 'term'> & { readonly digest?: TracedEntry['digest'] }): void {
    const committed = this.#committed.get(index);
    if (committed === undefined || isSameEntry(committed, { term, digest })) return;
    this.#find('committed-overwritten', `member ${member} has another entry at index ${index} than the committed one`, [
      `committed (seen by ${committed.by}): ${showEntry(committed)}`,
      `${member}: ${showEntry({ term, digest })}`,
    ]);
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

  // ---- whole samples ----

  sample(sample: RaftSample): void {
    const view = this.#viewOf(sample);
    if (sample.log !== undefined) this.#takeLog(sample, sample.log, view);
    if (sample.compactedIndex !== undefined) view.compact(sample.compactedIndex);
    if (sample.role === 'leader' && this.leads(sample.member, sample.term)) this.#completeness(sample, view);
    this.#takeCommit(sample, view);
    view.term = sample.term;
    view.role = sample.role;
    view.commitIndex = Math.max(view.commitIndex, sample.commitIndex);
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

  #takeLog(sample: RaftSample, log: readonly TracedEntry[], view: MemberView): void {
    const wasLeading = view.role === 'leader' && sample.role === 'leader' && view.term === sample.term;
    const replaced = log.find((entry) => {
      const before = view.entryAt(entry.index);
      return before !== undefined && !isSameEntry(before, entry);
    });
    if (wasLeading && replaced !== undefined) {
      const what = `leader ${sample.member} of term ${sample.term} replaced its own entry at index ${replaced.index}`;
      this.#find('leader-append-only', what, [`before: ${showEntry(view.entryAt(replaced.index))}`, `after: ${showEntry(replaced)}`]);
    }
    view.replaceFrom(log);
    for (const entry of log) this.holds(sample.member, entry, view.termAt(entry.index - 1));
    for (const entry of log) if (entry.index <= view.commitIndex) this.keeps(sample.member, entry);
  }

  /** A new leader holds every entry that was committed in an earlier term. */
  #completeness(sample: RaftSample, view: MemberView): void {
    for (let index = view.compactedIndex + 1; index <= this.#committedUpTo; index++) {
      const committed = this.#committed.get(index);
      if (committed === undefined || committed.term >= sample.term) continue;
      const own = view.entryAt(index);
      if (own !== undefined && isSameEntry(own, committed)) continue;
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
      if (entry !== undefined) this.commits(sample.member, index, entry.term, entry.digest);
    }
    this.#committedUpTo = Math.max(this.#committedUpTo, sample.commitIndex);
  }

  #find(rule: string, what: string, context: readonly string[] = []): void {
    const finding = { rule, what, context };
    this.#findings.push(finding);
    this.#onFinding(finding);
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

interface Known {
  readonly term: number;
  readonly digest?: TracedEntry['digest'] | undefined;
}

/** As far as both are known. */
const isSameEntry = (a: Known, b: Known): boolean =>
  a.term === b.term && (a.digest === undefined || b.digest === undefined || a.digest === b.digest);

const showEntry = (entry: Known | undefined): string =>
  entry === undefined ? 'nothing' : `term ${entry.term}, ${entry.digest ?? 'of any content'}`;

const showSample = ({ member, term, role, commitIndex }: RaftSample): string => `${member}: ${role} of term ${term}, commit ${commitIndex}`;
