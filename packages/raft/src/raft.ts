import { changedConfState, encodeConfChange } from './conf-change.ts';
import { invariant } from './invariant.ts';
import { type LogPosition, RaftLog } from './log.ts';
import { quorumIndex, quorumSize, voteResult } from './quorum.ts';
import {
  type AppendEntries,
  type AppendEntriesResponse,
  type ConfChange,
  type ConfState,
  type DropReason,
  type Entry,
  type HardState,
  type Heartbeat,
  type InstallSnapshot,
  type MemberId,
  type Message,
  noMember,
  type PeerMessage,
  type ProposalResult,
  type Propose,
  type ReadState,
  type Ready,
  type RequestVote,
  type RequestVoteResponse,
  type Role,
  type SoftState,
  type Status,
  type StorageAppend,
  type StorageAppendResponse,
} from './types.ts';

/** What a member knows when it starts. For the first start of a new cluster: nothing but `confState`. */
export interface InitialState {
  /** The last one made durable; undefined when there is none. */
  readonly hardState: HardState | undefined;
  /** The configuration as of `appliedIndex`. */
  readonly confState: ConfState;
  /** The position before `entries[0]`: {index: 0, term: 0}, or one whose effect the state machine holds. */
  readonly compacted: LogPosition;
  /** Consecutive, and durable: bytes which a restart merely found in a page cache are not. */
  readonly entries: readonly Entry[];
  /** What the state machine holds. */
  readonly appliedIndex: number;
}

export interface RaftConfig {
  /** This member. Never {@link noMember}. */
  readonly id: MemberId;
  /**
   * How many times this member has started on its data, this start included. It tells what the member asks of its leader in this life from
   * what it asked in an earlier one: hosts that restart a member with the number it had answer reads with what was true before.
   */
  readonly incarnation: number;
  /** A follower that hears from no leader for this many ticks, up to twice as many by chance, campaigns. Above `heartbeatTicks`. */
  readonly electionTimeoutTicks: number;
  /** Ticks between a leader's heartbeats. At least 1. */
  readonly heartbeatTicks: number;
  /** Ask before campaigning, so that a member which was cut off does not depose a working leader by its return (thesis section 9.6). */
  readonly preVote: boolean;
  /** A leader that hears from no quorum for an election timeout steps down (thesis section 6.2), and is held on to until then. */
  readonly checkQuorum: boolean;
  /** Proposals are dropped while this many bytes of data are appended and not committed. One proposal of any size is always let in. */
  readonly maxUncommittedBytes: number;
  /** Data of one append, to storage or to a member. An entry above it travels alone. */
  readonly maxEntriesPerAppendBytes: number;
  /** Appends on their way to one member and not answered: in number, and in bytes of data (one of any size is always let go). */
  readonly maxInflightAppends: number;
  readonly maxInflightBytes: number;
  /** The only chance in here: uniform in [0, 1), drawn when an election timeout is chosen. */
  readonly electionTimeoutJitter: () => number;
  readonly initial: InitialState;
}

const noBytes = new Uint8Array(0);

/**
 * One member's part in Raft: messages, ticks and proposals go in, {@link Ready} comes out. It reads no clock, draws no chance but through
 * `electionTimeoutJitter`, and touches no disk and no network: the same inputs in the same order give the same outputs. DESIGN.md is the
 * contract for its host.
 *
 * This version leads a cluster of one. It votes, follows and steps down by the rules in any configuration, but as a leader it sends no
 * entries to others yet: with other voters it commits nothing, which is safe and of no use.
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
  readonly #id: MemberId;
  readonly #log: RaftLog;
  #conf: ConfState;

  #term: number;
  /** Whom this member voted for in `#term`. Counts once the hard state that says so is durable. */
  #vote: MemberId;
  #role: Exclude<Role, 'learner'> = 'follower';
  #leader: MemberId = noMember;

  /** Ticks since the last sign of a leader, since a vote was given, or (leader) since the last check of the quorum. */
  #electionElapsed = 0;
  #heartbeatElapsed = 0;
  /** In [electionTimeoutTicks, 2 * electionTimeoutTicks). */
  #randomizedElectionTimeout = 0;

  /** (Pre-)candidate: who answered what in this campaign. */
  readonly #votes: Map<MemberId, boolean> = new Map();
  /** Leader: what others are known to hold durably. Its own is `#log.durableIndex`. Never decreases within a term. */
  readonly #matchIndex: Map<MemberId, number> = new Map();
  /** Leader: who was heard from since the last check of the quorum. */
  readonly #heardFrom: Set<MemberId> = new Set();
  /** Leader: a change of membership may be proposed once this index is applied. */
  #pendingConfIndex = 0;
  /** Leader: data bytes of the entries above the commit index. */
  #uncommittedBytes = 0;
  /** Leader: reads that wait for the first commit of the term (thesis section 6.4). */
  #pendingReads: { readonly from: MemberId; readonly context: Uint8Array }[] = [];
  #transferee: MemberId = noMember;
  #sequence = 0;
  #asked: Map<number, Uint8Array> = new Map();

  // What the next Ready is made of.
  #messages: PeerMessage[] = [];
  /** Messages that promise something which is not on disk yet. */
  #afterDurable: PeerMessage[] = [];
  #readStates: ReadState[] = [];
  /** What storage was last given. */
  #handedTerm: number;
  #handedVote: MemberId;
  #reportedSoftState: SoftState;

  constructor(config: RaftConfig) {
    const { initial } = config;
    const hardState = initial.hardState ?? { term: 0, vote: noMember, commit: 0 };
    checkConfig(config);
    this.#config = config;
    this.#id = config.id;
    this.#conf = initial.confState;
    this.#log = new RaftLog(initial.compacted, initial.entries, hardState.commit, initial.appliedIndex);
    // The entries of a torn last append may be there without its hard state. Nothing was promised in their term yet: it had no vote.
    const isTorn = hardState.term < this.#log.lastTerm;
    this.#term = isTorn ? this.#log.lastTerm : hardState.term;
    this.#vote = isTorn ? noMember : hardState.vote;
    this.#handedTerm = hardState.term;
    this.#handedVote = hardState.vote;
    this.#restartElectionTimer();
    this.#reportedSoftState = this.#softState();
  }

  // ---- what the host asks ----

  status(): Status {
    return {
      ...this.#softState(),
      id: this.#id,
      vote: this.#vote,
      commitIndex: this.#log.committedIndex,
      appliedIndex: this.#log.appliedIndex,
      lastIndex: this.#log.lastIndex,
      durableIndex: this.#log.durableIndex,
      compactedIndex: this.#log.compactedIndex,
      uncommittedBytes: this.#uncommittedBytes,
      confState: this.#conf,
      transferee: this.#transferee,
      progress: [],
    };
  }

  get term(): number {
    return this.#term;
  }
  get role(): Role {
    return this.#role === 'follower' && this.#conf.learners.includes(this.#id) ? 'learner' : this.#role;
  }
  /** {@link noMember} while none is known. */
  get leader(): MemberId {
    return this.#leader;
  }
  get commitIndex(): number {
    return this.#log.committedIndex;
  }

  /** One unit of time has passed. */
  tick(): void {
    this.#electionElapsed += 1;
    if (this.#role === 'leader') this.#tickLeader();
    else if (this.#electionElapsed >= this.#randomizedElectionTimeout) this.campaign();
  }

  /** Begins an election, if this member is a voter and may: the host need not wait for the timeout when it knows that nobody else can lead. */
  campaign(): void {
    if (this.#role === 'leader' || !this.#mayCampaign()) return;
    // All it waits for is its own disk. Another term would only make that write worthless.
    if (this.#role === 'candidate' && this.#isSoleVoter) return;
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

  /**
   * A change of membership was applied: called for each entry of type `confChange`, in order with the others. The host may turn the change
   * down (the member is already there, say) by not calling this for it.
   * @returns the configuration from now on, to be kept with the applied index.
   */
  applyConfChange(change: ConfChange): ConfState {
    this.#conf = changedConfState(this.#conf, change);
    if (change.type === 'remove') this.#matchIndex.delete(change.member);
    if (this.#transferee === change.member) this.#transferee = noMember;
    if (this.#role === 'leader' && !this.#conf.voters.includes(this.#id)) this.#becomeFollower(this.#term, noMember);
    // A smaller cluster may have a quorum for what a larger one had not.
    if (this.#role === 'leader') this.#advanceCommit();
    return this.#conf;
  }

  /**
   * Asks up to where a linearizable read must see the log; the answer is a {@link ReadState} with this context. Contexts must not repeat, as
   * an old answer must not be taken for a new one. False: no leader is known. True is no promise: when the leader changes, no answer comes.
   */
  readIndex(context: Uint8Array): boolean {
    if (this.#role === 'leader') this.#readAsLeader(this.#id, context);
    else if (this.#leader !== noMember) {
      const sequence = ++this.#sequence;
      this.#asked.set(sequence, context);
      this.#messages.push({ type: 'readIndex', ...this.#envelope(this.#leader), incarnation: this.#config.incarnation, sequence });
    } else return false;
    return true;
  }

  /**
   * The answer of {@link readIndex} where this member knows it without asking: it is the only voter, leads, and has committed an entry of its
   * term, so no other member can know of a later commit. Otherwise undefined.
   */
  get soleReadIndex(): number | undefined {
    return this.#role === 'leader' && this.#isSoleVoter && this.#hasCommittedInTerm ? this.#log.committedIndex : undefined;
  }

  /**
   * Hands leadership to another voter, once it holds all of the log; proposals are dropped meanwhile. Given up after an election timeout.
   * False: this member does not lead, or the target is no other voter.
   */
  transferLeadership(target: MemberId): boolean {
    if (this.#role !== 'leader' || target === this.#id || !this.#conf.voters.includes(target)) return false;
    this.#transferee = target;
    this.#electionElapsed = 0;
    this.#continueTransfer();
    return true;
  }

  /** The highest index up to which entries may be forgotten when the newest applied ones are kept, as many as fit both bounds. */
  catchUpIndex(maxEntries: number, maxBytes: number): number {
    let [index, bytes] = [this.#log.appliedIndex, 0];
    while (index > this.#log.compactedIndex && this.#log.appliedIndex - index < maxEntries) {
      bytes += dataBytes(this.#log.slice(index - 1, index));
      if (bytes > maxBytes) break;
      index -= 1;
    }
    return index;
  }

  /** Forgets entries up to `index` (at most the applied index): who still needs them is brought a snapshot. */
  compact(index: number): void {
    this.#log.compact(index);
  }

  // ---- what the host must do ----

  hasReady(): boolean {
    return (
      this.#messages.length > 0 ||
      this.#readStates.length > 0 ||
      this.#afterDurable.length > 0 ||
      this.#log.handedIndex < this.#log.lastIndex ||
      this.#hardStateChanged ||
      this.#log.hasUnapplied ||
      this.#softStateChanged
    );
  }

  /** Everything there is to do now. The core counts it as under way: each piece of work is handed out once. */
  ready(): Ready {
    const append = this.#takeAppend();
    const entries = this.#log.takeUnapplied();
    const ready: Ready = {
      messages: this.#messages,
      append,
      apply: entries.length > 0 ? { entries } : undefined,
      readStates: this.#readStates,
      snapshotsFor: [],
      softState: this.#takeSoftState(),
    };
    this.#messages = [];
    this.#readStates = [];
    return ready;
  }

  #takeAppend(): StorageAppend | undefined {
    const entries = this.#log.takeUnwritten(this.#config.maxEntriesPerAppendBytes);
    const last = entries.at(-1);
    const hardState = last || this.#hardStateChanged ? this.#takeHardState() : undefined;
    const responses: (PeerMessage | StorageAppendResponse)[] = last ? [this.#log.began(last)] : [];
    // While entries are left, what they promise waits for the append that holds the last of them.
    if (this.#log.handedIndex === this.#log.lastIndex) {
      responses.push(...this.#afterDurable);
      this.#afterDurable = [];
    }
    if (!hardState && responses.length === 0) return undefined;
    return { entries, hardState, snapshot: undefined, responses };
  }

  /** The commit index is cut to what is durable here: a restart that finds it beyond the end of its log then knows that entries were lost. */
  #takeHardState(): HardState {
    this.#handedTerm = this.#term;
    this.#handedVote = this.#vote;
    return { term: this.#term, vote: this.#vote, commit: Math.min(this.#log.committedIndex, this.#log.durableIndex) };
  }

  get #hardStateChanged(): boolean {
    return this.#handedTerm !== this.#term || this.#handedVote !== this.#vote;
  }

  #softState(): SoftState {
    return { role: this.role, leader: this.#leader, term: this.#term };
  }

  get #softStateChanged(): boolean {
    const { role, leader, term } = this.#reportedSoftState;
    return role !== this.role || leader !== this.#leader || term !== this.#term;
  }

  #takeSoftState(): SoftState | undefined {
    if (!this.#softStateChanged) return undefined;
    this.#reportedSoftState = this.#softState();
    return this.#reportedSoftState;
  }

  // ---- messages ----

  /** Takes in a message from another member, or what storage, state machine or host have to say. */
  step(message: Message): void {
    switch (message.type) {
      case 'storageAppendResponse':
        this.#log.acknowledge(message);
        if (this.#role === 'leader') this.#advanceCommit();
        break;
      case 'storageApplyResponse':
        this.#log.appliedTo(message.index);
        break;
      case 'unreachable':
      case 'snapshotDelivered':
      case 'snapshotFailed':
        break; // Hints for replication to others.
      default:
        if (message.to === this.#id && this.#admit(message)) this.#dispatch(message);
    }
  }

  /** The term rules (thesis section 3.3). True: the message is of the current term, or its kind stands above terms. */
  #admit(message: PeerMessage): boolean {
    if (message.term > this.#term) return this.#admitNewer(message);
    if (message.term < this.#term) return this.#refuseOlder(message);
    return true;
  }

  #admitNewer(message: PeerMessage): boolean {
    const { type, term, from } = message;
    if ((type === 'requestVote' || type === 'requestPreVote') && this.#holdsOnToLeader(message)) return false;
    // A pre-vote speaks of a term that nobody is in yet.
    if (type === 'requestPreVote' || (type === 'requestPreVoteResponse' && message.granted)) return true;
    const isFromLeader = type === 'appendEntries' || type === 'heartbeat' || type === 'installSnapshot';
    this.#becomeFollower(term, isFromLeader ? from : noMember);
    return true;
  }

  /** The sender is behind. Whoever acts on its term is told of ours, or it could go on campaigning or leading for ever. */
  #refuseOlder(message: PeerMessage): false {
    switch (message.type) {
      case 'requestVote':
      case 'requestPreVote':
        this.#answerVote(message, false);
        break;
      case 'appendEntries':
      case 'heartbeat':
      case 'installSnapshot':
        this.#rejectAppend(message.from, 0);
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
    return this.#leader !== noMember && this.#electionElapsed < this.#config.electionTimeoutTicks;
  }

  #dispatch(message: PeerMessage): void {
    if (this.#role === 'leader') this.#heardFrom.add(message.from);
    switch (message.type) {
      case 'requestVote':
      case 'requestPreVote':
        this.#answerVote(message, this.#grants(message));
        break;
      case 'requestVoteResponse':
      case 'requestPreVoteResponse':
        this.#countVote(message);
        break;
      case 'appendEntries':
      case 'heartbeat':
      case 'installSnapshot':
        this.#followLeader(message.from);
        this.#dispatchFromLeader(message);
        break;
      case 'appendEntriesResponse':
        this.#noteMatch(message);
        break;
      case 'heartbeatResponse':
        break; // That it came is all it says.
      case 'timeoutNow':
        if (this.#role === 'follower' && this.#mayCampaign()) this.#becomeCandidate(true);
        break;
      case 'propose':
        this.#proposeForwarded(message);
        break;
      case 'readIndex':
        break;
      case 'readIndexResponse':
        if (message.incarnation !== this.#config.incarnation || !this.#asked.has(message.sequence)) break;
        this.#readStates.push({ index: message.index, context: this.#asked.get(message.sequence)! });
        this.#asked.delete(message.sequence);
        break;
    }
  }

  #dispatchFromLeader(message: AppendEntries | Heartbeat | InstallSnapshot): void {
    if (message.type === 'appendEntries') this.#appendFromLeader(message);
    else if (message.type === 'heartbeat') this.#answerHeartbeat(message);
    // A snapshot is not taken: the leader learns how far this log is good, and goes on from there.
    else this.#acceptAppend(message.from, this.#log.committedIndex);
  }

  #envelope(to: MemberId): { readonly from: MemberId; readonly to: MemberId; readonly term: number } {
    return { from: this.#id, to, term: this.#term };
  }

  // ---- roles ----

  #becomeFollower(term: number, leader: MemberId): void {
    invariant(term >= this.#term, () => `term goes back from ${this.#term} to ${term}`);
    if (term > this.#term) this.#enterTerm(term, noMember);
    this.#role = 'follower';
    this.#leader = leader;
    this.#forgetRole();
  }

  #becomePreCandidate(): void {
    // Neither term nor vote change, and the member goes on answering in its term.
    this.#role = 'preCandidate';
    this.#leader = noMember;
    this.#forgetRole();
    this.#requestVotes('requestPreVote', this.#term + 1, false);
    this.#noteVote(this.#id, true);
  }

  #becomeCandidate(leadershipTransfer: boolean): void {
    this.#enterTerm(this.#term + 1, this.#id);
    this.#role = 'candidate';
    this.#leader = noMember;
    this.#forgetRole();
    this.#requestVotes('requestVote', this.#term, leadershipTransfer);
    // The own vote counts like any other: when it is durable. Before that, a crash could have it cast again for somebody else.
    this.#afterDurable.push({ type: 'requestVoteResponse', ...this.#envelope(this.#id), granted: true });
  }

  #becomeLeader(): void {
    this.#role = 'leader';
    this.#leader = this.#id;
    this.#forgetRole();
    // Whatever is in the log and not applied may be a change of membership.
    this.#pendingConfIndex = this.#log.lastIndex;
    this.#uncommittedBytes = dataBytes(this.#log.slice(this.#log.committedIndex, this.#log.lastIndex));
    this.#log.append(this.#term, 'normal', noBytes);
    this.#sendHeartbeats();
  }

  /** Term and vote change together: a vote belongs to a term. */
  #enterTerm(term: number, vote: MemberId): void {
    invariant(Number.isSafeInteger(term), () => `term ${term} is beyond 2^53-1`);
    this.#term = term;
    this.#vote = vote;
  }

  #forgetRole(): void {
    this.#votes.clear();
    this.#matchIndex.clear();
    this.#heardFrom.clear();
    this.#pendingReads = [];
    this.#uncommittedBytes = 0;
    this.#transferee = noMember;
    this.#restartElectionTimer();
  }

  #restartElectionTimer(): void {
    const { electionTimeoutTicks, electionTimeoutJitter } = this.#config;
    const chance = electionTimeoutJitter();
    invariant(chance >= 0 && chance < 1, () => `electionTimeoutJitter gave ${chance}`);
    this.#electionElapsed = 0;
    this.#heartbeatElapsed = 0;
    this.#randomizedElectionTimeout = electionTimeoutTicks + Math.floor(chance * electionTimeoutTicks);
  }

  get #isSoleVoter(): boolean {
    return this.#conf.voters.length === 1 && this.#conf.voters[0] === this.#id;
  }

  // ---- elections ----

  /** A change of membership that is committed and not applied hides who the voters are. */
  #mayCampaign(): boolean {
    if (!this.#conf.voters.includes(this.#id)) return false;
    return !this.#log.slice(this.#log.appliedIndex, this.#log.committedIndex).some((entry) => entry.type === 'confChange');
  }

  #requestVotes(type: RequestVote['type'], term: number, leadershipTransfer: boolean): void {
    const { lastIndex: lastLogIndex, lastTerm: lastLogTerm } = this.#log;
    for (const to of this.#otherVoters()) {
      this.#messages.push({ type, from: this.#id, to, term, lastLogIndex, lastLogTerm, leadershipTransfer });
    }
  }

  /** Also a learner answers: its own configuration may be the older one. */
  #grants(request: RequestVote): boolean {
    const isFree = request.type === 'requestPreVote' ? request.term > this.#term : this.#vote === noMember && this.#leader === noMember;
    return (isFree || this.#vote === request.from) && this.#log.isUpToDate(request.lastLogIndex, request.lastLogTerm);
  }

  #answerVote(request: RequestVote, granted: boolean): void {
    const isPreVote = request.type === 'requestPreVote';
    if (granted && !isPreVote) {
      this.#vote = request.from;
      this.#electionElapsed = 0;
    }
    this.#afterDurable.push({
      type: isPreVote ? 'requestPreVoteResponse' : 'requestVoteResponse',
      from: this.#id,
      to: request.from,
      term: granted ? request.term : this.#term,
      granted,
    });
  }

  #countVote(response: RequestVoteResponse): void {
    const isPreVote = response.type === 'requestPreVoteResponse';
    if (this.#role !== (isPreVote ? 'preCandidate' : 'candidate')) return;
    // An answer to an earlier campaign of ours.
    if (isPreVote && response.granted && response.term !== this.#term + 1) return;
    this.#noteVote(response.from, response.granted);
  }

  #noteVote(voter: MemberId, granted: boolean): void {
    if (!this.#votes.has(voter)) this.#votes.set(voter, granted);
    const result = voteResult(this.#conf.voters, this.#votes);
    if (result === 'lost') this.#becomeFollower(this.#term, noMember);
    if (result !== 'won') return;
    if (this.#role === 'preCandidate') this.#becomeCandidate(false);
    else this.#becomeLeader();
  }

  #otherVoters(): readonly MemberId[] {
    return this.#conf.voters.filter((voter) => voter !== this.#id);
  }

  // ---- following ----

  #followLeader(leader: MemberId): void {
    invariant(this.#role !== 'leader', () => `members ${this.#id.toString(16)} and ${leader.toString(16)} both lead in term ${this.#term}`);
    if (this.#role !== 'follower') this.#becomeFollower(this.#term, leader);
    this.#leader = leader;
    this.#electionElapsed = 0;
  }

  #appendFromLeader(message: AppendEntries): void {
    const { from, prevLogIndex, prevLogTerm, entries, leaderCommit } = message;
    // Committed entries agree by Raft's safety, also where they are compacted and cannot be compared.
    if (prevLogIndex < this.#log.committedIndex) {
      this.#acceptAppend(from, this.#log.committedIndex);
    } else if (this.#log.termAt(prevLogIndex) !== prevLogTerm) {
      this.#rejectAppend(from, prevLogIndex);
    } else {
      this.#log.merge({ index: prevLogIndex, term: prevLogTerm }, entries);
      const agreed = prevLogIndex + entries.length;
      // What lies behind the message may be another leader's, whatever is committed elsewhere.
      this.#log.commitTo(Math.min(leaderCommit, agreed));
      this.#acceptAppend(from, agreed);
    }
  }

  #acceptAppend(leader: MemberId, index: number): void {
    this.#afterDurable.push({
      type: 'appendEntriesResponse',
      ...this.#envelope(leader),
      index,
      rejected: false,
      hintIndex: 0,
      hintTerm: 0,
    });
  }

  #rejectAppend(leader: MemberId, prevLogIndex: number): void {
    const hintIndex = Math.min(prevLogIndex, this.#log.lastIndex);
    this.#afterDurable.push({
      type: 'appendEntriesResponse',
      ...this.#envelope(leader),
      index: prevLogIndex,
      rejected: true,
      hintIndex,
      hintTerm: this.#log.termAt(hintIndex) ?? 0,
    });
  }

  #answerHeartbeat(message: Heartbeat): void {
    this.#log.commitTo(message.leaderCommit);
    this.#messages.push({ type: 'heartbeatResponse', ...this.#envelope(message.from), round: message.round });
  }

  // ---- leading ----

  #tickLeader(): void {
    this.#heartbeatElapsed += 1;
    if (this.#electionElapsed >= this.#config.electionTimeoutTicks) this.#checkQuorum();
    if (this.#role !== 'leader' || this.#heartbeatElapsed < this.#config.heartbeatTicks) return;
    this.#heartbeatElapsed = 0;
    this.#sendHeartbeats();
  }

  #checkQuorum(): void {
    this.#electionElapsed = 0;
    this.#transferee = noMember;
    if (this.#config.checkQuorum && !this.#hearsFromQuorum()) this.#becomeFollower(this.#term, noMember);
    this.#heardFrom.clear();
  }

  #hearsFromQuorum(): boolean {
    const { voters } = this.#conf;
    return voters.filter((voter) => voter === this.#id || this.#heardFrom.has(voter)).length >= quorumSize(voters);
  }

  #sendHeartbeats(): void {
    for (const to of [...this.#otherVoters(), ...this.#conf.learners]) {
      const leaderCommit = Math.min(this.#log.committedIndex, this.#matchIndex.get(to) ?? 0);
      this.#messages.push({ type: 'heartbeat', ...this.#envelope(to), leaderCommit, round: 1 });
    }
  }

  #proposeEntry(type: Entry['type'], data: Uint8Array): ProposalResult {
    if (this.#role === 'leader') return this.#appendProposal(type, data);
    if (this.#leader === noMember) return dropped('noLeader');
    this.#messages.push({ type: 'propose', ...this.#envelope(this.#leader), incarnation: this.#config.incarnation, sequence: ++this.#sequence, entries: [{ type, data }] });
    return { status: 'forwarded', leader: this.#leader };
  }

  #appendProposal(type: Entry['type'], data: Uint8Array): ProposalResult {
    const reason = this.#dropReason(type, data);
    if (reason) return dropped(reason);
    const { term, index } = this.#log.append(this.#term, type, data);
    this.#uncommittedBytes += data.length;
    if (type === 'confChange') this.#pendingConfIndex = index;
    return { status: 'appended', term, index };
  }

  #dropReason(type: Entry['type'], data: Uint8Array): DropReason | undefined {
    if (!this.#conf.voters.includes(this.#id)) return 'notMember';
    if (this.#transferee !== noMember) return 'transferringLeadership';
    if (this.#uncommittedBytes > 0 && this.#uncommittedBytes + data.length > this.#config.maxUncommittedBytes) return 'tooMuchUncommitted';
    if (type !== 'confChange') return undefined;
    // Ongaro, raft-dev, July 2015: without this, leaders of two terms could each change the configuration by one and share no quorum.
    if (!this.#hasCommittedInTerm) return 'ownTermNotCommitted';
    return this.#pendingConfIndex > this.#log.appliedIndex ? 'confChangePending' : undefined;
  }

  /** Dropped ones are lost: their proposer cannot be answered, and finds out by its own timeout. */
  #proposeForwarded(message: Propose): void {
    if (this.#role !== 'leader') return;
    for (const { type, data } of message.entries) this.#appendProposal(type, data);
  }

  #noteMatch(response: AppendEntriesResponse): void {
    if (this.#role !== 'leader' || response.rejected) return;
    invariant(
      response.index <= this.#log.lastIndex,
      () => `a follower holds ${response.index}, this leader ends at ${this.#log.lastIndex}`,
    );
    const known = this.#matchIndex.get(response.from) ?? 0;
    if (response.index <= known) return;
    this.#matchIndex.set(response.from, response.index);
    this.#advanceCommit();
    this.#continueTransfer();
  }

  /** Only an entry of the leader's own term is committed by counting; it takes its predecessors with it (thesis section 3.6.2). */
  #advanceCommit(): void {
    const before = this.#log.committedIndex;
    const held = quorumIndex(this.#conf.voters, (voter) =>
      voter === this.#id ? this.#log.durableIndex : (this.#matchIndex.get(voter) ?? 0),
    );
    if (held <= before || this.#log.termAt(held) !== this.#term) return;
    this.#log.commitTo(held);
    this.#uncommittedBytes -= dataBytes(this.#log.slice(before, held));
    invariant(this.#uncommittedBytes >= 0, () => `more bytes were committed than appended: ${this.#uncommittedBytes}`);
    this.#releaseReads();
  }

  get #hasCommittedInTerm(): boolean {
    return this.#log.termAt(this.#log.committedIndex) === this.#term;
  }

  #continueTransfer(): void {
    const target = this.#transferee;
    if (target === noMember || this.#matchIndex.get(target) !== this.#log.lastIndex) return;
    this.#messages.push({ type: 'timeoutNow', ...this.#envelope(target) });
  }

  // ---- reads ----

  #readAsLeader(from: MemberId, context: Uint8Array): void {
    this.#pendingReads.push({ from, context });
    this.#releaseReads();
  }

  /**
   * A new leader holds every committed entry but does not know how far they go until one of its own is committed (thesis section 6.4). With
   * other voters the quorum would have to confirm next that nobody else leads.
   */
  #releaseReads(): void {
    const index = this.soleReadIndex;
    if (index === undefined || this.#pendingReads.length === 0) return;
    for (const { from, context } of this.#pendingReads) {
      if (from === this.#id) this.#readStates.push({ index, context });
    }
    this.#pendingReads = [];
  }
}

function dropped(reason: DropReason): ProposalResult {
  return { status: 'dropped', reason };
}

function dataBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entry.data.length;
  return bytes;
}

function checkConfig(config: RaftConfig): void {
  const { id, heartbeatTicks, electionTimeoutTicks, maxUncommittedBytes, maxEntriesPerAppendBytes } = config;
  const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 1;
  invariant(id !== noMember, () => 'member id 0 means no member');
  invariant(isCount(heartbeatTicks), () => `heartbeatTicks is ${heartbeatTicks}`);
  invariant(isCount(electionTimeoutTicks), () => `electionTimeoutTicks is ${electionTimeoutTicks}`);
  invariant(
    heartbeatTicks < electionTimeoutTicks,
    () => `${heartbeatTicks} heartbeatTicks do not fit below ${electionTimeoutTicks} electionTimeoutTicks`,
  );
  invariant(isCount(maxUncommittedBytes), () => `maxUncommittedBytes is ${maxUncommittedBytes}`);
  invariant(isCount(maxEntriesPerAppendBytes), () => `maxEntriesPerAppendBytes is ${maxEntriesPerAppendBytes}`);
}
