import { changedConfState, encodeConfChange } from './conf-change.ts';
import { checkConfig, type RaftConfig } from './config.ts';
import { Election, isVoting } from './election.ts';
import { ElectionTimer } from './election-timer.ts';
import { Following } from './following.ts';
import { Forwarding } from './forwarding.ts';
import { Handoff } from './handoff.ts';
import { invariant } from './invariant.ts';
import { Leadership } from './leadership.ts';
import { RaftLog } from './log.ts';
import { Member } from './member.ts';
import type { VoteResult } from './quorum.ts';
import {
  type AppendEntries,
  type Commit,
  type ConfChange,
  type ConfState,
  type Entry,
  type Heartbeat,
  type InstallSnapshot,
  type MemberId,
  type MemberProgress,
  type Message,
  noMember,
  type PeerMessage,
  type ProposalResult,
  type Ready,
  type RequestVote,
  type RequestVoteResponse,
  type Role,
  type Status,
  type StorageAppendResponse,
} from './types.ts';

/**
 * One member's part in Raft: messages, ticks and proposals go in, {@link Ready} comes out. It reads no clock, draws no chance but through
 * `electionTimeoutJitter`, and touches no disk and no network: the same inputs in the same order give the same outputs. DESIGN.md is the
 * contract for its host.
 *
 * Every method may throw InvariantError; the member must then stop.
 *
 * @example
 * const raft = new Raft(config);
 * raft.campaign();
 * while (raft.hasReady()) {
 *   const { append, apply } = raft.ready();
 *   if (append) disk.write(append, () => append.responses.forEach((response) => raft.step(response)));
 *   for (const entry of apply?.entries ?? []) machine.apply(entry);
 *   if (apply) raft.step({ type: 'storageApplyResponse', index: apply.entries.at(-1)!.index });
 * }
 */
export class Raft {
  readonly #config: RaftConfig;
  readonly #member: Member;
  readonly #election: Election;
  readonly #following: Following;
  readonly #forwarding: Forwarding;
  readonly #handoff: Handoff;
  /** Not for a leader. */
  readonly #timer: ElectionTimer;
  #role: Exclude<Role, 'learner'> = 'follower';
  /** While the role is `leader`. */
  #leadership: Leadership | undefined;

  constructor(config: RaftConfig) {
    checkConfig(config);
    const { compacted, entries, appliedIndex, hardState = { term: 0, vote: noMember, commit: 0 } } = config.initial;
    const log = new RaftLog(compacted, entries, hardState.commit, appliedIndex);
    // The entries of a torn last append may be there without its hard state. Nothing was promised in their term yet: it had no vote.
    const isTorn = hardState.term < log.lastTerm;
    this.#config = config;
    this.#member = new Member(config, log, isTorn ? log.lastTerm : hardState.term, isTorn ? noMember : hardState.vote);
    this.#election = new Election(this.#member);
    this.#following = new Following(this.#member);
    this.#forwarding = new Forwarding(this.#member);
    this.#handoff = new Handoff(this.#member, hardState, this.role);
    this.#timer = new ElectionTimer(config);
  }

  // ---- what the host asks ----

  /** A description, made anew for each call. The getters below are for the host's way. */
  status(): Status {
    const { id, leader, term, vote, conf, log } = this.#member;
    return {
      role: this.role,
      leader,
      term,
      id,
      vote,
      commitIndex: log.committedIndex,
      appliedIndex: log.appliedIndex,
      lastIndex: log.lastIndex,
      durableIndex: log.durableIndex,
      compactedIndex: log.compactedIndex,
      uncommittedBytes: this.#leadership?.uncommittedBytes ?? 0,
      confState: conf,
      transferee: this.#leadership?.transferee ?? noMember,
      progress: this.#leadership?.progress ?? [],
    };
  }

  get term(): number {
    return this.#member.term;
  }
  get role(): Role {
    return this.#role === 'follower' && this.#member.conf.learners.includes(this.#member.id) ? 'learner' : this.#role;
  }
  get isLeader(): boolean {
    return this.#role === 'leader';
  }
  /** {@link noMember} while none is known. */
  get leader(): MemberId {
    return this.#member.leader;
  }
  get commitIndex(): number {
    return this.#member.log.committedIndex;
  }
  get appliedIndex(): number {
    return this.#member.log.appliedIndex;
  }
  get lastIndex(): number {
    return this.#member.log.lastIndex;
  }
  /** Last index that is durable here. */
  get durableIndex(): number {
    return this.#member.log.durableIndex;
  }
  /** A snapshot was taken in and its state is not yet in place: `durableIndex` says nothing until then of what the storage still holds. */
  get isRestoring(): boolean {
    return this.#member.log.isRestoring;
  }
  /** Entries above this index are held in memory. */
  get compactedIndex(): number {
    return this.#member.log.compactedIndex;
  }
  /** As of the applied index. */
  get confState(): ConfState {
    return this.#member.conf;
  }
  /** {@link noMember} unless leadership is being transferred. */
  get transferee(): MemberId {
    return this.#leadership?.transferee ?? noMember;
  }

  /** What this leader knows of a member; undefined for itself, for who is no member, and when it does not lead. */
  progressOf(member: MemberId): MemberProgress | undefined {
    return this.#leadership?.progressOf(member);
  }

  /** One unit of time has passed. */
  tick(): void {
    if (this.#leadership) {
      if (!this.#leadership.tick()) this.#becomeFollower(this.#member.term, noMember);
      return;
    }
    if (!this.#timer.tick()) return;
    this.campaign();
    // Who may not campaign has lost its leader all the same.
    if (this.#role === 'follower') this.#setLeader(noMember);
  }

  /** Begins an election, if this member is a voter and may: the host need not wait for the timeout when it knows that nobody else can lead. */
  campaign(): void {
    if (this.#leadership || !this.#election.mayCampaign) return;
    // All it waits for is its own disk. Another term would only make that write worthless.
    if (this.#role === 'candidate' && this.#member.isSoleVoter) return;
    if (this.#config.preVote) this.#becomePreCandidate();
    else this.#becomeCandidate(false);
  }

  /**
   * Puts data into the log. The leader appends it; a follower sends it to the leader. The host must not propose it again unless it was
   * dropped: it would be applied twice. @param data not empty.
   */
  propose(data: Uint8Array): ProposalResult {
    invariant(data.length > 0, () => 'an empty proposal cannot be told from a leader’s own entry');
    return this.#proposeEntry('normal', data);
  }

  /**
   * Puts a change of membership into the log; it takes effect when the host calls {@link applyConfChange}. The leader lets in one at a time,
   * and none before it has committed an entry of its term.
   */
  proposeConfChange(change: ConfChange): ProposalResult {
    invariant(change.member !== noMember, () => 'a membership change names no member');
    return this.#proposeEntry('confChange', encodeConfChange(change));
  }

  #proposeEntry(type: Entry['type'], data: Uint8Array): ProposalResult {
    if (this.#leadership) return this.#leadership.propose(type, data);
    const { leader } = this.#member;
    if (leader === noMember) return { status: 'dropped', reason: 'noLeader' };
    this.#forwarding.propose(type, data);
    return { status: 'forwarded', leader };
  }

  /**
   * A change of membership was applied: called for each entry of type `confChange`, in order with the others. The host may turn the change
   * down (the member is already there, say) by not calling this for it.
   * @returns the configuration from now on, to be kept with the applied index.
   */
  applyConfChange(change: ConfChange): ConfState {
    const conf = changedConfState(this.#member.conf, change);
    this.#member.conf = conf;
    this.#leadership?.followConf();
    return conf;
  }

  /**
   * Asks up to where a linearizable read must see the log; the answer is a {@link ReadState} with this context. False: no leader is known. True
   * is no promise: a message may be lost, and when the leader changes no answer comes.
   * @param context not used for another question while the answer to this one is awaited.
   */
  readIndex(context: Uint8Array): boolean {
    if (this.#leadership) this.#leadership.read(context);
    else if (this.#member.leader !== noMember) this.#forwarding.read(context);
    else return false;
    return true;
  }

  /**
   * The answer of {@link readIndex} where this member knows it without asking: it is the only voter, leads, and has committed an entry of its
   * term, so no other member can know of a later commit. Otherwise undefined.
   */
  get soleReadIndex(): number | undefined {
    return this.#leadership?.soleReadIndex;
  }

  /**
   * Hands leadership to another voter, once it holds all of the log; proposals are dropped meanwhile. Given up after an election timeout.
   * False: this member does not lead, or the target is no other voter.
   */
  transferLeadership(target: MemberId): boolean {
    return this.#leadership?.transferTo(target) ?? false;
  }

  /** The highest index up to which entries may be forgotten when the newest applied ones are kept, as many as fit both bounds. */
  catchUpIndex(maxEntries: number, maxBytes: number): number {
    return this.#member.log.catchUpIndex(maxEntries, maxBytes);
  }

  /** Forgets entries up to `index` (at most the applied index): who still needs them is brought a snapshot. */
  compact(index: number): void {
    this.#member.log.compact(index);
  }

  // ---- what the host must do ----

  hasReady(): boolean {
    return this.#handoff.hasWork(this.role) || (this.#leadership?.isDue ?? false);
  }

  /** Everything there is to do now. The core counts it as under way: each piece of work is handed out once. */
  ready(): Ready {
    this.#leadership?.prepare();
    this.#forwarding.close();
    const append = this.#handoff.takeAppend();
    const entries = this.#member.log.takeUnapplied();
    const { messages, readStates } = this.#member;
    this.#member.messages = [];
    this.#member.readStates = [];
    return {
      messages,
      append,
      apply: entries.length > 0 ? { entries } : undefined,
      readStates,
      snapshotsFor: this.#leadership?.takeSnapshotsFor() ?? [],
      softState: this.#handoff.takeSoftState(this.role),
    };
  }

  // ---- messages ----

  /** Takes in a message from another member, or what storage, state machine or host have to say. */
  step(message: Message): void {
    switch (message.type) {
      case 'storageAppendResponse':
        this.#onDurable(message);
        break;
      case 'storageApplyResponse':
        this.#member.log.appliedTo(message.index);
        break;
      case 'unreachable':
      case 'snapshotDelivered':
      case 'snapshotFailed':
        this.#leadership?.report(message);
        break;
      default:
        if (message.to === this.#member.id) this.#onPeer(message);
    }
  }

  #onPeer(message: PeerMessage): void {
    if (isVoting(message) && !this.#leadership) this.#learnCommit(message);
    if (this.#admit(message)) this.#dispatch(message);
  }

  /**
   * Who campaigns by a configuration and learns that another is in force has nothing to win. And who learns from a later term does not stay in its
   * own: the deposed leader of this one may lack what was committed since, and would contradict it.
   */
  #learnCommit(message: RequestVote | RequestVoteResponse): void {
    if (!this.#election.learnCommit(message)) return;
    const told = message.type === 'requestPreVote' ? message.term - 1 : message.term;
    if (told > this.#member.term) this.#becomeFollower(told, noMember);
    else if (this.#role !== 'follower' && !this.#election.mayCampaign) this.#becomeFollower(this.#member.term, noMember);
  }

  #onDurable(response: StorageAppendResponse): void {
    const restored = this.#member.log.acknowledge(response);
    if (restored) this.#member.conf = restored.confState;
    this.#leadership?.advanceCommit();
  }

  /** The term rules (thesis section 3.3). True: the message is of the current term, or its kind stands above terms. */
  #admit(message: PeerMessage): boolean {
    if (message.term > this.#member.term) return this.#admitNewer(message);
    if (message.term < this.#member.term) return this.#refuseOlder(message);
    return true;
  }

  #admitNewer(message: PeerMessage): boolean {
    const { type, term, from } = message;
    if ((type === 'requestVote' || type === 'requestPreVote') && this.#holdsOnToLeader(message)) return false;
    // A pre-vote speaks of a term that nobody is in yet.
    if (type === 'requestPreVote' || (type === 'requestPreVoteResponse' && message.granted)) return true;
    const isFromLeader = type === 'appendEntries' || type === 'heartbeat' || type === 'commit' || type === 'installSnapshot';
    this.#becomeFollower(term, isFromLeader ? from : noMember);
    return true;
  }

  /** The sender is behind. Whoever acts on its term is told of ours, or it could go on campaigning or leading for ever. */
  #refuseOlder(message: PeerMessage): false {
    switch (message.type) {
      case 'requestVote':
      case 'requestPreVote':
        this.#election.answer(message, false);
        break;
      case 'appendEntries':
      case 'heartbeat':
      case 'commit':
      case 'installSnapshot':
        this.#following.reject(message.from, 0, 0);
        break;
      default:
    }
    return false;
  }

  /**
   * A voter that hears from its leader, and a leader that hears from its quorum, turn campaigns down without looking (thesis section 4.2.3):
   * a member that was removed, or cannot hear the leader, must not depose it. A real vote is withheld only where a leader that lost its
   * quorum steps down by itself.
   */
  #holdsOnToLeader({ type, leadershipTransfer }: RequestVote): boolean {
    if (leadershipTransfer || (type === 'requestVote' && !this.#config.checkQuorum)) return false;
    return this.isLeader || (this.leader !== noMember && this.#timer.isFresh);
  }

  #dispatch(message: PeerMessage): void {
    this.#leadership?.heardFrom(message.from);
    switch (message.type) {
      case 'requestVote':
      case 'requestPreVote':
        this.#onVoteRequest(message);
        break;
      case 'requestVoteResponse':
      case 'requestPreVoteResponse':
        this.#onVote(message);
        break;
      case 'appendEntries':
      case 'heartbeat':
      case 'commit':
      case 'installSnapshot':
        this.#onLeader(message);
        break;
      case 'appendEntriesResponse':
        this.#leadership?.onAppendResponse(message);
        break;
      case 'heartbeatResponse':
        this.#leadership?.onHeartbeatResponse(message);
        break;
      case 'timeoutNow':
        if (!this.#leadership && this.#election.mayCampaign) this.#becomeCandidate(true);
        break;
      case 'propose':
        this.#leadership?.onPropose(message);
        break;
      case 'readIndex':
        this.#leadership?.onReadIndex(message);
        break;
      case 'readIndexResponse':
        this.#forwarding.answered(message);
        break;
    }
  }

  #onLeader(message: AppendEntries | Heartbeat | Commit | InstallSnapshot): void {
    const { id, term } = this.#member;
    const { from } = message;
    invariant(!this.#leadership, () => `members ${id.toString(16)} and ${from.toString(16)} both lead in term ${term}`);
    if (this.#role === 'follower') this.#setLeader(from);
    else this.#becomeFollower(term, from);
    this.#timer.extend();
    if (message.type === 'appendEntries') this.#following.append(message);
    else if (message.type === 'heartbeat') this.#following.heartbeat(message);
    else if (message.type === 'commit') this.#following.commit(message);
    else this.#following.snapshot(message);
  }

  #onVoteRequest(request: RequestVote): void {
    const granted = this.#election.grants(request);
    if (granted && request.type === 'requestVote') {
      this.#member.vote = request.from;
      this.#timer.extend();
    }
    this.#election.answer(request, granted);
  }

  #onVote({ type, from, term, granted }: RequestVoteResponse): void {
    const isPreVote = type === 'requestPreVoteResponse';
    if (this.#role !== (isPreVote ? 'preCandidate' : 'candidate')) return;
    // An answer to an earlier campaign of ours.
    if (isPreVote && granted && term !== this.#member.term + 1) return;
    this.#onVoteResult(this.#election.count(from, granted));
  }

  #onVoteResult(result: VoteResult): void {
    if (result === 'lost') this.#becomeFollower(this.#member.term, noMember);
    if (result !== 'won') return;
    if (this.#role === 'preCandidate') this.#becomeCandidate(false);
    else this.#becomeLeader();
  }

  // ---- roles ----

  #becomeFollower(term: number, leader: MemberId): void {
    invariant(term >= this.#member.term, () => `term goes back from ${this.#member.term} to ${term}`);
    if (term > this.#member.term) this.#enterTerm(term, noMember);
    this.#begin('follower', leader);
  }

  #becomePreCandidate(): void {
    // Neither term nor vote change, and the member goes on answering in its term.
    this.#begin('preCandidate', noMember);
    this.#election.ask('requestPreVote', this.#member.term + 1, false);
    this.#onVoteResult(this.#election.count(this.#member.id, true));
  }

  #becomeCandidate(leadershipTransfer: boolean): void {
    const { id } = this.#member;
    this.#enterTerm(this.#member.term + 1, id);
    this.#begin('candidate', noMember);
    this.#election.ask('requestVote', this.#member.term, leadershipTransfer);
    this.#election.voteForItself();
  }

  #becomeLeader(): void {
    this.#begin('leader', this.#member.id);
    this.#leadership = new Leadership(this.#member);
  }

  #begin(role: Exclude<Role, 'learner'>, leader: MemberId): void {
    this.#role = role;
    this.#leadership = undefined;
    this.#election.reset();
    this.#forwarding.forget();
    this.#member.leader = leader;
    this.#timer.restart();
  }

  #setLeader(leader: MemberId): void {
    if (this.#member.leader === leader) return;
    this.#member.leader = leader;
    this.#forwarding.forget();
  }

  /** Term and vote change together: a vote belongs to a term. */
  #enterTerm(term: number, vote: MemberId): void {
    invariant(Number.isSafeInteger(term), () => `term ${term} is beyond 2^53-1`);
    this.#member.term = term;
    this.#member.vote = vote;
  }
}
