import { invariant } from './invariant.ts';
import type { Member } from './member.ts';
import { Progress } from './progress.ts';
import { quorumReached, quorumSize } from './quorum.ts';
import { type IndexedRead, type Read, ReadRounds } from './reads.ts';
import {
  type AppendEntriesResponse,
  type DropReason,
  type Entry,
  type HeartbeatResponse,
  type MemberId,
  type MemberProgress,
  noMember,
  type PeerReport,
  type ProposalResult,
  type Propose,
  type ReadIndex,
} from './types.ts';

const noBytes = new Uint8Array(0);

/** One term of leading: made when the election is won, and thrown away with all it knows when it ends. */
export class Leadership {
  readonly #member: Member;
  /** The other members, by ascending id. */
  #others: Progress[] = [];
  readonly #reads: ReadRounds = new ReadRounds();
  /** Rounds of heartbeats sent in this term. */
  #round = 0;
  /** Those among them that were sent because it was time. */
  #beat = 0;
  #heartbeatElapsed = 0;
  #quorumElapsed = 0;
  /** A change of membership may be proposed once this index is applied. */
  #pendingConfIndex: number;
  #transferee: MemberId = noMember;
  #transferElapsed = 0;
  #snapshotsFor: MemberId[] = [];
  /** Entries of the last append, as most members are sent the same. */
  #lastBatch: { from: number; to: number; entries: readonly Entry[] } = { from: 0, to: 0, entries: [] };
  readonly #scratch: number[] = [];

  constructor(member: Member) {
    this.#member = member;
    // Whatever is in the log and not applied may be a change of membership.
    this.#pendingConfIndex = member.log.lastIndex;
    this.#followConf();
    member.log.append(member.term, 'normal', noBytes);
  }

  // ---- members ----

  get progress(): readonly MemberProgress[] {
    return this.#others.map((progress) => progress.toMemberProgress());
  }

  progressOf(member: MemberId): MemberProgress | undefined {
    return this.#find(member)?.toMemberProgress();
  }

  #find(member: MemberId): Progress | undefined {
    // A handful: cheaper than hashing ids.
    return this.#others.find((progress) => progress.member === member);
  }

  /** The configuration was changed: new members are taken in, and those removed forgotten. */
  followConf(): void {
    this.#followConf();
    if (this.#transferee !== noMember && !this.#find(this.#transferee)?.isVoter) this.#transferee = noMember;
    // A smaller cluster may have a quorum for what a larger one had not.
    this.advanceCommit();
    this.#confirmReads();
    this.#handOver();
  }

  /**
   * A leader that was removed, and knows so, leads until another does: without its help the others could miss that the removal is committed, and
   * go on needing its vote. It does not count itself, and takes no proposals.
   */
  #handOver(): void {
    if (this.#member.isVoter || this.#transferee !== noMember) return;
    const voters = this.#others.filter(({ isVoter }) => isVoter);
    const rank = ({ isActive, matchIndex }: Progress): number => (isActive ? matchIndex + 1 : 0);
    const [best] = voters.sort((a, b) => rank(b) - rank(a));
    if (best) this.transferTo(best.member);
  }

  #followConf(): void {
    const { conf, id, log, config } = this.#member;
    const take = (member: MemberId, isVoter: boolean): Progress => {
      const known = this.#find(member) ?? new Progress(member, isVoter, log.lastIndex + 1, config);
      known.isVoter = isVoter;
      return known;
    };
    this.#others = [...conf.voters.map((voter) => take(voter, true)), ...conf.learners.map((learner) => take(learner, false))]
      .filter(({ member }) => member !== id)
      .sort((a, b) => (a.member < b.member ? -1 : 1));
  }

  /** Hears from a member: whatever it says, it is there and knows this term. */
  heardFrom(member: MemberId): void {
    const progress = this.#find(member);
    if (progress) progress.isActive = true;
  }

  /** What a quorum of the voters has reached. */
  #quorumReached(own: number, of: (progress: Progress) => number): number {
    this.#scratch.length = 0;
    if (this.#member.isVoter) this.#scratch.push(own);
    for (const progress of this.#others) if (progress.isVoter) this.#scratch.push(of(progress));
    return quorumReached(this.#scratch);
  }

  // ---- time ----

  /** @returns whether it goes on leading: not when it has heard from no quorum for an election timeout (thesis section 6.2). */
  tick(): boolean {
    const { electionTimeoutTicks, heartbeatTicks } = this.#member.config;
    this.#tickTransfer();
    this.#handOver();
    this.#quorumElapsed += 1;
    if (this.#quorumElapsed >= electionTimeoutTicks && !this.#checkQuorum()) return false;
    this.#heartbeatElapsed += 1;
    if (this.#heartbeatElapsed < heartbeatTicks) return true;
    this.#heartbeatElapsed = 0;
    this.#beat += 1;
    this.#sendHeartbeats(true);
    return true;
  }

  #checkQuorum(): boolean {
    this.#quorumElapsed = 0;
    const { config, conf, isVoter } = this.#member;
    let heard = isVoter ? 1 : 0;
    for (const progress of this.#others) {
      if (progress.isVoter && progress.isActive) heard += 1;
      progress.isActive = false;
      // Who knows what became of the transfer.
      progress.isSnapshotDoubted = true;
    }
    return !config.checkQuorum || heard >= quorumSize(conf.voters.length);
  }

  // ---- heartbeats ----

  #sendHeartbeats(toLearners: boolean): void {
    const { log, messages } = this.#member;
    this.#round += 1;
    for (const progress of this.#others) {
      if (!progress.isVoter && !toLearners) continue;
      const leaderCommit = progress.tellCommit(log.committedIndex);
      messages.push({ type: 'heartbeat', ...this.#member.envelope(progress.member), leaderCommit, round: this.#round });
    }
  }

  onHeartbeatResponse({ from, round }: HeartbeatResponse): void {
    const progress = this.#find(from);
    invariant(round <= this.#round, () => `a member answers round ${round} of heartbeats, and ${this.#round} were sent`);
    if (!progress) return;
    progress.answeredHeartbeat(this.#beat);
    if (round <= progress.round) return;
    progress.round = round;
    this.#confirmReads();
  }

  // ---- replication ----

  /** Whether {@link prepare} has something to do. */
  get isDue(): boolean {
    if (this.#snapshotsFor.length > 0 || (this.#reads.hasWaiting && this.#hasCommittedInTerm)) return true;
    const { lastIndex, committedIndex } = this.#member.log;
    for (const progress of this.#others) if (progress.isAppendDue(lastIndex) || progress.isCommitDue(committedIndex)) return true;
    return false;
  }

  /** Puts together what is to be sent: once for all that came in since the last time. */
  prepare(): void {
    this.#beginReads();
    const { log } = this.#member;
    for (const progress of this.#others) {
      while (progress.isAppendDue(log.lastIndex)) this.#sendAppend(progress);
      if (progress.isCommitDue(log.committedIndex)) this.#sendCommit(progress);
    }
  }

  takeSnapshotsFor(): readonly MemberId[] {
    const members = this.#snapshotsFor;
    if (members.length > 0) this.#snapshotsFor = [];
    return members;
  }

  #sendAppend(progress: Progress): void {
    const { log, messages, config } = this.#member;
    const prevLogIndex = progress.state === 'snapshot' ? log.compactedIndex : progress.nextIndex - 1;
    const prevLogTerm = log.termAt(prevLogIndex);
    if (prevLogTerm === undefined) {
      this.#askForSnapshot(progress);
      return;
    }
    const to = progress.mayCarryEntries ? log.batchEnd(prevLogIndex, config.maxEntriesPerAppendBytes) : prevLogIndex;
    const entries = this.#batch(prevLogIndex, to);
    const leaderCommit = log.committedIndex;
    messages.push({ type: 'appendEntries', ...this.#member.envelope(progress.member), prevLogIndex, prevLogTerm, entries, leaderCommit });
    progress.sent(to, to > prevLogIndex, log.bytesBetween(prevLogIndex, to), leaderCommit, this.#beat);
  }

  #sendCommit(progress: Progress): void {
    const { log, messages } = this.#member;
    messages.push({ type: 'commit', ...this.#member.envelope(progress.member), leaderCommit: progress.tellCommit(log.committedIndex) });
  }

  #batch(from: number, to: number): readonly Entry[] {
    const last = this.#lastBatch;
    if (last.from !== from || last.to !== to) this.#lastBatch = { from, to, entries: this.#member.log.slice(from, to) };
    return this.#lastBatch.entries;
  }

  /** Only for a member that is there: reading the state for one that is not costs much and helps nobody. */
  #askForSnapshot(progress: Progress): void {
    if (!progress.isActive) {
      progress.pause(this.#beat);
      return;
    }
    progress.becomeSnapshot(this.#beat);
    this.#snapshotsFor.push(progress.member);
  }

  /** Finds out anew what the member needs, when it next answers a heartbeat. */
  #probeLater(progress: Progress): void {
    progress.becomeProbe();
    progress.pause(this.#beat);
  }

  onAppendResponse(response: AppendEntriesResponse): void {
    const progress = this.#find(response.from);
    if (!progress) return;
    if (response.rejected) this.#onRejected(progress, response);
    else this.#onAccepted(progress, response.index);
  }

  #onAccepted(progress: Progress, index: number): void {
    const { log } = this.#member;
    invariant(index <= log.lastIndex, () => `a member holds ${index}, this leader ends at ${log.lastIndex}`);
    const isNews = progress.matched(index);
    if (progress.state === 'probe' && index === progress.matchIndex) progress.becomeReplicate();
    if (progress.state === 'snapshot' && progress.matchIndex >= log.compactedIndex) progress.becomeReplicate();
    if (isNews && index > log.committedIndex) this.advanceCommit();
    if (progress.member === this.#transferee) this.#continueTransfer();
  }

  #onRejected(progress: Progress, { index, hintIndex, hintTerm }: AppendEntriesResponse): void {
    // What is known to match was not rejected: the answer is older than that knowledge, or repeated.
    if (index <= progress.matchIndex) return;
    if (progress.state === 'replicate') progress.becomeProbe();
    else if (progress.state === 'snapshot') this.#onSnapshotMissing(progress);
    else if (index === progress.nextIndex - 1) progress.backTo(this.#member.log.lastIndexUpToTerm(hintIndex, hintTerm));
  }

  /**
   * While the state is put in place a member answers nothing. If it has all of it and answers that it is still behind, this snapshot does not
   * help it. And a transfer that neither helps nor ends is asked for again from time to time: its report may be lost.
   */
  #onSnapshotMissing(progress: Progress): void {
    if (progress.isSnapshotDoubted) this.#probeLater(progress);
  }

  report({ type, member }: PeerReport): void {
    const progress = this.#find(member);
    if (!progress) return;
    if (type === 'unreachable' && progress.state === 'replicate') this.#probeLater(progress);
    if (progress.state !== 'snapshot') return;
    if (type === 'snapshotFailed') this.#probeLater(progress);
    if (type === 'snapshotDelivered') progress.isSnapshotDoubted = true;
  }

  /** Only an entry of the leader's own term is committed by counting; it takes its predecessors with it (thesis section 3.6.2). */
  advanceCommit(): void {
    const { log, term } = this.#member;
    const held = this.#quorumReached(log.durableIndex, ({ matchIndex }) => matchIndex);
    if (held > log.committedIndex && log.termAt(held) === term) log.commitTo(held);
  }

  get #hasCommittedInTerm(): boolean {
    const { log, term } = this.#member;
    return log.termAt(log.committedIndex) === term;
  }

  // ---- proposals ----

  propose(type: Entry['type'], data: Uint8Array): ProposalResult {
    const reason = this.#dropReason(type, data);
    if (reason) return { status: 'dropped', reason };
    const { term, index } = this.#member.log.append(this.#member.term, type, data);
    if (type === 'confChange') this.#pendingConfIndex = index;
    return { status: 'appended', term, index };
  }

  get uncommittedBytes(): number {
    const { log } = this.#member;
    return log.bytesBetween(log.committedIndex, log.lastIndex);
  }

  #dropReason(type: Entry['type'], data: Uint8Array): DropReason | undefined {
    const { isVoter, config, log } = this.#member;
    const { uncommittedBytes } = this;
    if (!isVoter) return 'notMember';
    if (this.#transferee !== noMember) return 'transferringLeadership';
    if (uncommittedBytes > 0 && uncommittedBytes + data.length > config.maxUncommittedBytes) return 'tooMuchUncommitted';
    if (type !== 'confChange') return undefined;
    // Ongaro, raft-dev, July 2015: without this, leaders of two terms could each change the configuration by one and share no quorum.
    if (!this.#hasCommittedInTerm) return 'ownTermNotCommitted';
    return this.#pendingConfIndex > log.appliedIndex ? 'confChangePending' : undefined;
  }

  /** Dropped ones are lost: their proposer cannot be answered, and finds out by its own timeout. */
  onPropose({ from, incarnation, sequence, entries }: Propose): void {
    if (!this.#find(from)?.arrivals.isNew(incarnation, sequence)) return;
    for (const { type, data } of entries) this.propose(type, data);
  }

  // ---- reads ----

  read(context: Uint8Array): void {
    this.#reads.add({ context });
  }

  onReadIndex({ from, incarnation, sequence }: ReadIndex): void {
    this.#reads.add({ from, incarnation, sequence });
  }

  /**
   * A new leader holds every committed entry but does not know how far they go until one of its own is committed (thesis section 6.4). Then a
   * round of heartbeats confirms that nobody else leads.
   */
  #beginReads(): void {
    if (!this.#reads.hasWaiting || !this.#hasCommittedInTerm) return;
    const { isSoleVoter, log } = this.#member;
    if (!isSoleVoter) this.#sendHeartbeats(false);
    this.#reads.begin(this.#round, log.committedIndex);
    if (isSoleVoter) this.#answerReads(this.#reads.confirm(this.#round));
  }

  #confirmReads(): void {
    if (this.#reads.hasAsked) this.#answerReads(this.#reads.confirm(this.#quorumReached(this.#round, ({ round }) => round)));
  }

  get soleReadIndex(): number | undefined {
    return this.#member.isSoleVoter && this.#hasCommittedInTerm ? this.#member.log.committedIndex : undefined;
  }

  #answerReads(reads: readonly IndexedRead[]): void {
    const { messages, readStates } = this.#member;
    for (const { read, index } of reads) this.#answerRead(read, index, messages, readStates);
  }

  #answerRead(read: Read, index: number, messages: Member['messages'], readStates: Member['readStates']): void {
    if ('context' in read) {
      readStates.push({ index, context: read.context });
      return;
    }
    const { from, incarnation, sequence } = read;
    messages.push({ type: 'readIndexResponse', ...this.#member.envelope(from), incarnation, sequence, index });
  }

  // ---- transfer ----

  get transferee(): MemberId {
    return this.#transferee;
  }

  /** @returns false when the target is no other voter. */
  transferTo(target: MemberId): boolean {
    if (!this.#find(target)?.isVoter) return false;
    if (this.#transferee !== target) {
      this.#transferee = target;
      this.#transferElapsed = 0;
      this.#continueTransfer();
    }
    return true;
  }

  #tickTransfer(): void {
    if (this.#transferee === noMember) return;
    this.#transferElapsed += 1;
    if (this.#transferElapsed >= this.#member.config.electionTimeoutTicks) this.#transferee = noMember;
    else this.#continueTransfer();
  }

  /** The target begins its election when it holds all of the log, and is told so until it does: the message may be lost. */
  #continueTransfer(): void {
    const target = this.#transferee;
    if (this.#find(target)?.matchIndex !== this.#member.log.lastIndex) return;
    this.#member.messages.push({ type: 'timeoutNow', ...this.#member.envelope(target) });
  }
}
