/**
 * What the replica needs of the rooms around it. It declares these interfaces; `storage`, `apply`, `lease` and `transport` implement them
 * without importing this folder (`storage` and `transport` may import this file), and whoever starts a member puts them together.
 */
import type { ConfChange, ConfState, Entry, HardState, MemberId, PeerMessage, SnapshotMeta } from '@conclave/raft';
import type { LoggedRequest, RequestKind } from '../apply/entry.ts';

/**
 * The write-ahead log. Implemented by `storage/wal`.
 *
 * Batches become durable in the order they are appended, and `durable` callbacks run in that order. What arrives while a flush is under way
 * goes into the next: one write and one fdatasync for all of it.
 */
export interface Log {
  /** Calls `durable` once the batch is on disk; it may do so before `append` returns. A failure to write never returns: it is {@link Fatal}. */
  append(batch: LogBatch, durable: () => void): void;
  /** Entries up to and including `index` are durable elsewhere (the backend) and may be dropped. Never moves backwards. */
  release(index: number): void;
  /** Flushes what was appended, then closes. */
  close(): Promise<void>;
}

export interface LogBatch {
  /**
   * Consecutive. The first may have an index that was appended before: then it and everything after it in the log is replaced, as a new
   * leader of the cluster decided otherwise (thesis section 3.5).
   */
  readonly entries: readonly Entry[];
  readonly hardState: HardState | undefined;
  /**
   * A snapshot received from the leader is complete and durable in {@link Snapshots}: it takes the place of all entries appended before.
   * Appended before the applied state is replaced by it, so that a crash between the two is finished at the next start.
   */
  readonly snapshot?: { readonly index: number; readonly term: number } | undefined;
}

/** What the log held when it was opened. */
export interface RecoveredLog {
  /** undefined: nothing was ever written. */
  readonly hardState: HardState | undefined;
  /** Consecutive; those up to the applied index are ignored. */
  readonly entries: readonly Entry[];
}

/**
 * The applied state: the same on every member, computed from the log alone. Implemented by `apply`.
 *
 * @typeParam R what a request's waiter is given. A client's mistake (a missing lease, a compacted revision) is a value of R. What `apply`
 * throws is a broken invariant and ends the member.
 */
export interface StateMachine<R> {
  /** Index of the last entry applied; 0 before the first. Entries arrive one by one, each with the next index. */
  readonly appliedIndex: number;
  /** Term of the entry at `appliedIndex`. */
  readonly appliedTerm: number;
  /** What is applied up to here survives a crash without the log. Never above `appliedIndex`. */
  readonly durableIndex: number;
  /**
   * `term` is the term the entry was appended in; `request.term` the one its proposer was in. Unless `isAwaited`, nobody will see the result (it was
   * proposed elsewhere, in an earlier life, or its waiter gave up): what is read for it alone may be left out.
   */
  apply(index: number, term: number, request: LoggedRequest, isAwaited: boolean): R;
  /** An entry without a request: a new leader's first. Only the applied index and term move. */
  applyEmpty(index: number, term: number): void;
  /**
   * An entry that changes the membership; `request` is what `change.context` holds. It is checked once more, against the membership as of this
   * entry, and refused the same on every member. `confState` is set when it was accepted: raft is then told of the change.
   */
  applyMembership(
    index: number,
    term: number,
    change: ConfChange,
    request: LoggedRequest,
    isAwaited: boolean,
  ): { readonly result: R; readonly isAccepted: boolean };
  /** Voters and learners as of `appliedIndex`. */
  readonly confState: ConfState;
  /** Whether every member can apply entries of this kind: others must not be proposed. Default: all are allowed. */
  allows?(kind: RequestKind): boolean;
  /** The applied state was replaced by a snapshot, beneath: reads its index, term and all else anew. */
  reload(): void;
  /** True while nothing may be applied because too much is waiting for the disk. */
  readonly isFull: boolean;
  /** Calls back once, when `isFull` next becomes false. */
  onRoom(listener: () => void): void;
}

/** The replicated table of leases as its keeper sees it. Implemented by `lease`. It knows time to live, not time. */
export interface LeaseTable {
  forEach(visit: (id: bigint, ttlSeconds: number) => void): void;
  /** Told of every change from inside the apply that made it. At most one listener: the replica's. */
  listen(listener: LeaseListener): void;
}

export interface LeaseListener {
  granted(id: bigint, ttlSeconds: number): void;
  revoked(id: bigint): void;
}

/** What one member has to say to another, beside raft's own messages. */
export type PeerFrame =
  | { readonly kind: 'raft'; readonly message: PeerMessage }
  | SnapshotChunk
  | SnapshotAck
  | PeerCall
  | PeerAnswer
  /** To a member that was removed: it learns so from any member that has applied its removal, and leaves. */
  | { readonly kind: 'removed' };

/** A piece of a snapshot on its way from the leader. `sequence` counts from 0; the last one is empty and says how many there were. */
export interface SnapshotChunk {
  readonly kind: 'snapshotChunk';
  /** The leader's term. */
  readonly term: number;
  readonly snapshot: SnapshotMeta;
  /** Tells this reading of the state from others at the same index. */
  readonly id: number;
  readonly sequence: number;
  readonly isLast: boolean;
  readonly bytes: Uint8Array;
}

/** The receiver has every chunk below `next`, durably enough to go on from there after a broken connection. */
export interface SnapshotAck {
  readonly kind: 'snapshotAck';
  readonly term: number;
  readonly id: number;
  readonly next: number;
  /** The receiver cannot use it (too old, or a checksum failed): send another. */
  readonly isRefused: boolean;
}

/** A question that only the member asked can answer, often the leader: renewals of leases, hashes. May be lost; asked at most once. */
export interface PeerCall {
  readonly kind: 'call';
  readonly id: number;
  readonly method: PeerMethod;
  readonly body: Uint8Array;
}

export interface PeerAnswer {
  readonly kind: 'answer';
  readonly id: number;
  /** Empty: the call succeeded. Otherwise the key of the wire error. */
  readonly error: string;
  readonly body: Uint8Array;
}

export type PeerMethod = 'leaseRenew' | 'leaseTimeToLive' | 'hashKv' | 'memberPromote' | 'moveLeader';

/**
 * What travels between members: frames for one member (maybe none), with what the sender says of itself. By the latter a member that came back with
 * less than it had (its disk was put back to an earlier state) is found out.
 */
export interface PeerPacket {
  readonly from: MemberId;
  readonly to: MemberId;
  /** How many times the sender has started on its data dir. */
  readonly incarnation: number;
  /** Last index durable at the sender, and how far it knows of commits. */
  readonly durableIndex: number;
  readonly commitIndex: number;
  readonly frames: readonly PeerFrame[];
}

export type PeerEvent =
  | { readonly kind: 'packet'; readonly packet: PeerPacket }
  /** What was sent last to this member may be lost: a connection broke, or none could be made, or its queue was full. */
  | { readonly kind: 'unreachable'; readonly member: MemberId };

export interface PeerAddress {
  readonly id: MemberId;
  readonly urls: readonly string[];
}

/**
 * The way to the other members. Losing, repeating and reordering packets is allowed, changing them is not. Implemented by `transport`.
 *
 * Raft's heartbeats, votes and other small frames never wait behind appends or snapshots.
 */
export interface Peers {
  /** Never waits. What does not fit into a member's bounded queue is lost, and told as `unreachable`. */
  send(packet: PeerPacket): void;
  /** At most one listener: the replica's. */
  listen(listener: (event: PeerEvent) => void): void;
  /** Who the other members are, from now on. Connections to others are closed. */
  setMembers(members: readonly PeerAddress[]): void;
  /**
   * Since when, on `runtime.monotonic()`, this member is connected with the other without a break; undefined: it is not. A network that cannot tell
   * has no such method.
   */
  connectedSince?(member: MemberId): number | undefined;
  close(): Promise<void>;
}

/**
 * Whole states on their way between members. Implemented by `storage/snapshot`.
 */
export interface Snapshots {
  /** Begins to read the state: consistent, and with all that was durable before the call, whatever is applied meanwhile. */
  open(): Promise<SnapshotReader>;
  /** The place for a snapshot that comes in; goes on with what is there of the same id. One at a time: another one's rest is thrown away. */
  receive(snapshot: SnapshotMeta, id: number): Promise<SnapshotWriter>;
  /** Replaces the applied state by a received, finished snapshot. Repeatable: a crash in the middle is finished at the next start. */
  restore(snapshot: { readonly index: number; readonly term: number }): Promise<void>;
}

export interface SnapshotReader {
  readonly snapshot: SnapshotMeta;
  readonly id: number;
  /** The next chunk, checksummed, of at most 256 KiB or one row; undefined at the end. Reads ahead nothing. */
  next(): Promise<Uint8Array | undefined>;
  close(): void;
}

/** What does not fit together is refused with an error whose `code` is `snapshot-corrupt`. Any other ends the member. */
export interface SnapshotWriter {
  /** Sequence of the chunk that is needed next. */
  readonly next: number;
  write(chunk: Uint8Array): Promise<void>;
  /** Verifies all of it and makes it durable. */
  finish(): Promise<void>;
  /** Throws away what came so far. */
  abandon(): Promise<void>;
}

/** What this member remembers of itself and its peers, and shares with nobody: not part of the applied state. Implemented by `storage`. */
export interface LocalMemory {
  /** How many times the member has started on this data dir, this start included. Durable before the member speaks to anybody. */
  readonly incarnation: number;
  /** The highest this peer has shown. */
  peer(id: MemberId): PeerMark | undefined;
  /** Durable some time later, with the applied state. */
  notePeer(id: MemberId, mark: PeerMark): void;
}

export interface PeerMark {
  readonly incarnation: number;
  /** Durable at the peer and committed: it can never lawfully come back with less. */
  readonly index: number;
}

/**
 * What to do when the member cannot keep its promises any more (a write or fsync failed, an invariant is broken). The executable exits; an
 * embedded server closes its doors and rejects `failed`. After the call nothing may be acknowledged. Never returns control to the failing
 * path: where the process goes on it throws, and the replica's callbacks at the top of the stack end there. Idempotent, as that throw may
 * be reported again.
 */
export type Fatal = (cause: Error) => never;
