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

/** Messages between members, and (last group) between a member and its own storage. */
export type Message =
  | {
      readonly type: 'requestPreVote' | 'requestVote';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly lastLogIndex: number;
      readonly lastLogTerm: number;
      readonly leadershipTransfer: boolean;
    }
  | {
      readonly type: 'requestPreVoteResponse' | 'requestVoteResponse';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly granted: boolean;
    }
  | {
      readonly type: 'appendEntries';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly prevLogIndex: number;
      readonly prevLogTerm: number;
      readonly entries: readonly Entry[];
      readonly leaderCommit: number;
    }
  | {
      readonly type: 'appendEntriesResponse';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly index: number;
      readonly rejected: boolean;
      readonly hintIndex: number;
      readonly hintTerm: number;
    }
  | {
      readonly type: 'heartbeat';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly leaderCommit: number;
      readonly context: Uint8Array;
    }
  | {
      readonly type: 'heartbeatResponse';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly context: Uint8Array;
    }
  | {
      readonly type: 'installSnapshot';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly snapshot: SnapshotMeta;
    }
  | { readonly type: 'timeoutNow'; readonly from: MemberId; readonly to: MemberId; readonly term: number }
  | {
      readonly type: 'propose';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly entries: readonly Pick<Entry, 'type' | 'data'>[];
    }
  | { readonly type: 'readIndex'; readonly from: MemberId; readonly to: MemberId; readonly term: number; readonly context: Uint8Array }
  | {
      readonly type: 'readIndexResponse';
      readonly from: MemberId;
      readonly to: MemberId;
      readonly term: number;
      readonly context: Uint8Array;
      readonly index: number;
    }
  | StorageAppendResponse
  | StorageApplyResponse;

/**
 * The log storage says: everything up to `index`, whose entry had `term`, is durable, and so is the hard state handed over with it. The pair
 * guards against the answer to an append whose entries were since overwritten by another term's.
 */
export interface StorageAppendResponse {
  readonly type: 'storageAppendResponse';
  /** Last log index of the append, or 0 when it carried no entries. */
  readonly index: number;
  readonly term: number;
  readonly snapshot: SnapshotMeta | undefined;
}

/** The state machine says: applied up to `index`. */
export interface StorageApplyResponse {
  readonly type: 'storageApplyResponse';
  readonly index: number;
}

/** Work for the log storage. Appends are made durable in the order given. */
export interface StorageAppend {
  readonly entries: readonly Entry[];
  readonly hardState: HardState | undefined;
  readonly snapshot: SnapshotMeta | undefined;
  /** To be released only once all of this is durable: peers' messages to be sent, own ones to be stepped. */
  readonly responses: readonly Message[];
}

/** Work for the state machine, in log order. */
export interface StorageApply {
  readonly entries: readonly Entry[];
  /** To be stepped once these entries are applied. */
  readonly responses: readonly Message[];
}

/** A linearizable read that was asked for with `readIndex(context)` may be served once applied up to `index`. */
export interface ReadState {
  readonly index: number;
  readonly context: Uint8Array;
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader' | 'learner';

export interface SoftState {
  readonly role: Role;
  readonly leader: MemberId;
  readonly term: number;
}

/** What the host must do next. Every field is independent work; the core goes on without waiting for any of it. */
export interface Ready {
  /** To send at once: nothing in them depends on storage still to be written. */
  readonly messages: readonly Message[];
  readonly append: StorageAppend | undefined;
  readonly apply: StorageApply | undefined;
  readonly readStates: readonly ReadState[];
  /** Set when it changed. */
  readonly softState: SoftState | undefined;
}
