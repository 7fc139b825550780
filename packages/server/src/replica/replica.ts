import type { ConfState, MemberId, Role } from '@conclave/raft';
import type { Runtime, StatusError } from '@conclave/wire';
import type { RequestKind } from '../apply/entry.ts';
import type { Fatal, LeaseTable, Log, Peers, RecoveredLog, StateMachine } from './ports.ts';

export interface ReplicaOptions<R> {
  readonly runtime: Runtime;
  readonly id: MemberId;
  /** The members as of the applied index. */
  readonly confState: ConfState;
  readonly log: Log;
  /** What `log` held when it was opened. */
  readonly recovered: RecoveredLog;
  readonly stateMachine: StateMachine<R>;
  readonly leases: LeaseTable;
  readonly fatal: Fatal;
  /** Absent while this is the only member. */
  readonly peers?: Peers;
  /** Milliseconds between ticks, etcd's `--heartbeat-interval`. Default 100. */
  readonly tickMs?: number;
  /** Ticks without a leader before an election, etcd's `--election-timeout` divided by `tickMs`. Default 10. */
  readonly electionTicks?: number;
  readonly limits?: Partial<ReplicaLimits>;
}

export interface ReplicaLimits {
  /** A larger request is refused with `request-too-large`. Default 1.5 MiB, etcd's `--max-request-bytes`. */
  readonly maxRequestBytes: number;
  /** While more entries than this are committed and not applied, proposals are refused with `too-many-requests`. Default 5000. */
  readonly maxPendingGap: number;
  /** Bytes of entries that are appended and not committed; beyond them proposals wait. Default 64 MiB. */
  readonly maxUncommittedBytes: number;
}

export interface ProposeOptions {
  /** Who asks; empty (the default) without authentication. */
  readonly user?: string;
  /** Auth revision at which the permission was checked. Default 0. */
  readonly authRevision?: number;
  /** Instant on `runtime.monotonic()` after which a request that has not entered the log is not proposed any more. Default: never. */
  readonly deadline?: number;
}

export type ReplicaStatus = {
  readonly term: number;
  readonly leader: MemberId;
  readonly committedIndex: number;
  readonly appliedIndex: number;
  readonly role: Role;
};

export declare class Replica<R> {
  constructor(options: ReplicaOptions<R>);
  /** Keeps lease deadlines while this member leads. */
  readonly leases: LeaseKeeper;
  get term(): number;
  /** 0n while none is known. */
  get leader(): MemberId;
  get isLeader(): boolean;
  get role(): Role;
  get committedIndex(): number;
  get appliedIndex(): number;
  /** Begins to take part. The only voter campaigns at once. */
  start(): void;
  /**
   * Puts a request through the log and gives what this member's own apply made of it.
   *
   * Rejects with StatusError: `request-too-large`, `too-many-requests`, `request-timeout`, `server-stopped`. Where the request surely never
   * entered the log the error has the trailer `conclave-outcome: not-applied`.
   */
  propose(kind: RequestKind, body: Uint8Array, options?: ProposeOptions): Promise<R>;
  /**
   * Calls `done` once everything that was acknowledged anywhere before this call is applied here: reads of the state machine made inside
   * `done` are linearizable. With an error when that cannot be known in time. May call back before it returns.
   */
  readBarrier(done: (error: StatusError | undefined) => void): void;
  /** Refuses new requests, waits for those in the log (at most `graceMs`, default the request timeout), closes the log. Idempotent. */
  stop(graceMs?: number): Promise<void>;
}

export declare class LeaseKeeper {
  /** Smallest TTL a lease may have, in seconds. */
  readonly minTtlSeconds: number;
  /** Renews a lease; the granted TTL in seconds, or 0 when it is unknown or expired. Waits while an expired lease is being revoked. */
  renew(id: bigint): Promise<number>;
  /** Seconds left, 0 when expired and not yet revoked, undefined when unknown. Only meaningful after a read barrier on the leader. */
  remainingSeconds(id: bigint): number | undefined;
}
