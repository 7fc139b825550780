/**
 * The vocabulary of the core. Words are those of the Raft paper and thesis. Terms and indexes are numbers, asserted to be at most
 * 2^53-1 wherever bytes are decoded; member ids are 64-bit and stay bigint.
 */

export type MemberId = bigint;

/** No member: the value of `vote` before one was given, and of `leader` while none is known. */
export const noMember: MemberId = 0n;

export type EntryType = 'normal' | 'confChange';

export interface Entry {
  readonly term: number;
  readonly index: number;
  readonly type: EntryType;
  /** Opaque to raft. Empty for the entry a new leader appends to commit its predecessors' entries (thesis section 6.4). */
  readonly data: Uint8Array;
}

/**
 * What must be durable before any message or answer that depends on it leaves the member. One record: term and vote are never written
 * apart, or a crash between two writes could cast two votes in one term.
 */
export interface HardState {
  readonly term: number;
  readonly vote: MemberId;
  readonly commit: number;
}

export interface ConfState {
  readonly voters: readonly MemberId[];
  readonly learners: readonly MemberId[];
}

export interface SnapshotMeta {
  readonly index: number;
  readonly term: number;
  readonly confState: ConfState;
}

/** A change of membership by one member (thesis section 4.1). `context` is the host's, opaque to raft. */
export interface ConfChange {
  readonly type: 'addVoter' | 'addLearner' | 'remove' | 'update';
  readonly member: MemberId;
  readonly context: Uint8Array;
}

/** What every message between members carries. `term` is the sender's current term unless the message says otherwise. */
interface Envelope {
  readonly from: MemberId;
  readonly to: MemberId;
  readonly term: number;
}

/**
 * What candidates and voters tell each other beside the vote: how far the sender knows the log to be committed, and the term it has there. Who
 * holds the same entry then knows it too. Between two that need each other's vote it may be the only way to learn that a change of membership is
 * in force.
 */
interface Voting extends Envelope {
  readonly commitIndex: number;
  readonly commitTerm: number;
}

/**
 * Asks for a vote. `requestPreVote` asks whether one would be given (thesis section 9.6): its term is the one after the sender's, and
 * answering it changes nothing at the receiver.
 */
export interface RequestVote extends Voting {
  readonly type: 'requestPreVote' | 'requestVote';
  readonly lastLogIndex: number;
  readonly lastLogTerm: number;
  /** The leader itself asked for this election: the receiver does not hold on to that leader (thesis section 4.2.3). */
  readonly leadershipTransfer: boolean;
}

/** A granted pre-vote carries the term that was asked for; every other answer the sender's term. */
export interface RequestVoteResponse extends Voting {
  readonly type: 'requestPreVoteResponse' | 'requestVoteResponse';
  readonly granted: boolean;
}

export interface AppendEntries extends Envelope {
  readonly type: 'appendEntries';
  readonly prevLogIndex: number;
  readonly prevLogTerm: number;
  readonly entries: readonly Entry[];
  readonly leaderCommit: number;
}

export interface AppendEntriesResponse extends Envelope {
  readonly type: 'appendEntriesResponse';
  /** Accepted: the sender's log is durable and equal to the leader's up to here. Rejected: `prevLogIndex` of what was rejected. */
  readonly index: number;
  readonly rejected: boolean;
  /** Rejected: the highest index at which the logs can still agree, as far as the sender knows, and the term it has there. */
  readonly hintIndex: number;
  readonly hintTerm: number;
}

/**
 * `round` counts the leader's heartbeats in its term, from 1: no two rounds share a number, so that an answer confirms only the reads that were
 * asked for before its heartbeat was sent (thesis section 6.4).
 */
export interface Heartbeat extends Envelope {
  readonly type: 'heartbeat';
  /** Never above what the receiver is known to hold: it may commit up to here without looking. */
  readonly leaderCommit: number;
  readonly round: number;
}

export interface HeartbeatResponse extends Envelope {
  readonly type: 'heartbeatResponse';
  readonly round: number;
}

/** Tells of commits where there is nothing else to send. It is not answered: who misses it is told by the next append or heartbeat. */
export interface Commit extends Envelope {
  readonly type: 'commit';
  /** As in {@link Heartbeat}. */
  readonly leaderCommit: number;
}

/**
 * The state up to `snapshot.index` in place of entries that the leader has dropped. The leader's core never sends it: it asks for the transfer
 * (`Ready.snapshotsFor`), the hosts move the state, and the receiving host steps this when it holds all of it, verified and durable. `term` and
 * `from` are those of the leader that sent the state.
 */
export interface InstallSnapshot extends Envelope {
  readonly type: 'installSnapshot';
  readonly snapshot: SnapshotMeta;
}

/** The leader asks the receiver to campaign at once (thesis section 3.10). */
export interface TimeoutNow extends Envelope {
  readonly type: 'timeoutNow';
}

/**
 * What a member asks of its leader, numbered: a network may repeat it, and the repetition must be known for one. A number is used once in an
 * incarnation of the member, and an incarnation in one life of its process only.
 */
interface Numbered extends Envelope {
  readonly incarnation: number;
  /** From 1. */
  readonly sequence: number;
}

/** Proposals on their way from a follower to the leader, which takes each message once. */
export interface Propose extends Numbered {
  readonly type: 'propose';
  readonly entries: readonly Pick<Entry, 'type' | 'data'>[];
}

/** Linearizable reads of a follower on their way to the leader: all that were asked for since the last question. */
export interface ReadIndex extends Numbered {
  readonly type: 'readIndex';
}

/** The numbers are those of the question. */
export interface ReadIndexResponse extends Numbered {
  readonly type: 'readIndexResponse';
  readonly index: number;
}

/** Messages between members. */
export type PeerMessage =
  | RequestVote
  | RequestVoteResponse
  | AppendEntries
  | AppendEntriesResponse
  | Heartbeat
  | HeartbeatResponse
  | Commit
  | InstallSnapshot
  | TimeoutNow
  | Propose
  | ReadIndex
  | ReadIndexResponse;

/**
 * The log storage says: this append, and with it every earlier one, is durable. A copy of what {@link StorageAppend} carried, handed back
 * unchanged. The number names the write and not just its end: (index, term) alone could belong to an older write of an entry that was
 * overwritten and came back since, with the overwriting still on its way to the disk.
 */
export interface StorageAppendResponse {
  readonly type: 'storageAppendResponse';
  readonly append: number;
  /** Last log index that the append carried, and the term of that entry. */
  readonly index: number;
  readonly term: number;
}

/** The state machine says: applied up to `index`. May be stepped for any part of what {@link StorageApply} carried, in order. */
export interface StorageApplyResponse {
  readonly type: 'storageApplyResponse';
  readonly index: number;
}

/** The host could not deliver to a member, or finished (or gave up) bringing it a snapshot: hints that speed replication up or slow it down. */
export interface PeerReport {
  readonly type: 'unreachable' | 'snapshotDelivered' | 'snapshotFailed';
  readonly member: MemberId;
}

/** Everything that can be stepped. */
export type Message = PeerMessage | StorageAppendResponse | StorageApplyResponse | PeerReport;

/** Work for the log storage. Appends are made durable in the order given. */
export interface StorageAppend {
  /** Consecutive. When the first index was written before, this and everything after it in storage is replaced. */
  readonly entries: readonly Entry[];
  /** Set when entries are given, or when term or vote changed. A new commit index alone is never worth a write. */
  readonly hardState: HardState | undefined;
  /** Set when the state machine is to be replaced by the snapshot that the host received. Comes before `entries`. */
  readonly snapshot: SnapshotMeta | undefined;
  /** To be released only once all of this, and all earlier appends, are durable: those for other members to be sent, others to be stepped. */
  readonly responses: readonly (PeerMessage | StorageAppendResponse)[];
}

/** Work for the state machine, in log order. Every entry in it is committed, and durable here. */
export interface StorageApply {
  readonly entries: readonly Entry[];
}

/** A linearizable read that was asked for with `readIndex(context)` may be served once applied up to `index`. */
export interface ReadState {
  readonly index: number;
  readonly context: Uint8Array;
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader' | 'learner';

export interface SoftState {
  readonly role: Role;
  /** {@link noMember} while none is known. */
  readonly leader: MemberId;
  readonly term: number;
}

/** What the host must do next. Every field is independent work; the core goes on without waiting for any of it. */
export interface Ready {
  /** To send at once: nothing in them depends on storage still to be written. */
  readonly messages: readonly PeerMessage[];
  readonly append: StorageAppend | undefined;
  readonly apply: StorageApply | undefined;
  readonly readStates: readonly ReadState[];
  /** Leader: members that need entries which are dropped. The host brings each a snapshot, and reports how that ended. */
  readonly snapshotsFor: readonly MemberId[];
  /** Set when it changed. */
  readonly softState: SoftState | undefined;
}

/** Why a proposal was dropped. It has not entered the log and never will. */
export type DropReason =
  /** No leader is known to hand it to. */
  | 'noLeader'
  /** Too many bytes wait for their commit: propose again when some are. */
  | 'tooMuchUncommitted'
  /** Leadership is being transferred. */
  | 'transferringLeadership'
  /** This member leads and was removed, or takes no part in the configuration. */
  | 'notMember'
  /** A change of membership is in the log and not yet applied: one at a time (thesis section 4.1). */
  | 'confChangePending'
  /** The leader has committed nothing in its term yet, and a change of membership now could let two quorums miss each other. */
  | 'ownTermNotCommitted';

/**
 * What became of a proposal.
 * - `appended`: it is in this leader's log at `index`, and committed iff an entry of `term` is committed there.
 * - `forwarded`: sent to the leader, no more is known. It may be lost, and must not be proposed again.
 */
export type ProposalResult =
  | { readonly status: 'appended'; readonly term: number; readonly index: number }
  | { readonly status: 'forwarded'; readonly leader: MemberId }
  | { readonly status: 'dropped'; readonly reason: DropReason };

/** What a leader knows of another member. */
export interface MemberProgress {
  readonly member: MemberId;
  /** - `probe`: one append at a time, until the logs are known to agree. - `replicate`: pipelined. - `snapshot`: waits for one. */
  readonly state: 'probe' | 'replicate' | 'snapshot';
  readonly matchIndex: number;
  readonly nextIndex: number;
  /** Heard from since the last check of the quorum. */
  readonly isActive: boolean;
}

/** For people and for tests; no decision of the host rests on it, except what it reports to clients. */
export interface Status extends SoftState {
  readonly id: MemberId;
  readonly vote: MemberId;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  /** Last index of the log, and the last one durable here. */
  readonly lastIndex: number;
  readonly durableIndex: number;
  /** Entries above this index are held in memory. */
  readonly compactedIndex: number;
  readonly uncommittedBytes: number;
  readonly confState: ConfState;
  /** {@link noMember} unless leadership is being transferred. */
  readonly transferee: MemberId;
  /** Leader: the other members, voters and learners, by ascending id. Otherwise empty. */
  readonly progress: readonly MemberProgress[];
}
