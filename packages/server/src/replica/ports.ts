/**
 * What the replica needs of the rooms around it. It declares these interfaces; `storage`, `apply`, `lease` and `transport` implement them
 * without importing this folder (`storage` and `transport` may import this file), and whoever starts a member puts them together.
 */
import type { Entry, HardState, PeerMessage, PeerReport } from '@conclave/raft';
import type { LoggedRequest } from '../apply/entry.ts';

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

/** The way to the other members. Losing, repeating and reordering messages is allowed. */
export interface Peers {
  send(messages: readonly PeerMessage[]): void;
  /** Messages for this member, and what became of those it sent. At most one listener: the replica's. */
  listen(listener: (message: PeerMessage | PeerReport) => void): void;
}

/**
 * What to do when the member cannot keep its promises any more (a write or fsync failed, an invariant is broken). The executable exits; an
 * embedded server closes its doors and rejects `failed`. After the call nothing may be acknowledged. Never returns control to the failing
 * path: where the process goes on it throws, and the replica's callbacks at the top of the stack end there. Idempotent, as that throw may
 * be reported again.
 */
export type Fatal = (cause: Error) => never;
