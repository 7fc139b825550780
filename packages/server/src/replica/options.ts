import type { ConfChange, MemberId } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { Fatal, LeaseTable, LocalMemory, Log, Peers, RecoveredLog, Snapshots, StateMachine } from './ports.ts';

/**
 * @typeParam R what the state machine makes of a request.
 */
export interface ReplicaOptions<R> {
  readonly runtime: Runtime;
  readonly id: MemberId;
  readonly log: Log;
  /** What `log` held when it was opened. */
  readonly recovered: RecoveredLog;
  readonly stateMachine: StateMachine<R>;
  readonly leases: LeaseTable;
  readonly fatal: Fatal;
  /** The way to the other members. Absent: nobody can be reached, and the member can only be alone. */
  readonly peers?: Peers;
  /** Whole states on their way between members. Needed with `peers`. */
  readonly snapshots?: Snapshots;
  /** What this member remembers of itself and its peers. Default: nothing, and this is its first start. */
  readonly memory?: LocalMemory;
  /** Whether this was a member and can never be again, as of the applied index. Default: nobody was. */
  readonly isRemoved?: (id: MemberId) => boolean;
  /** A snapshot took the place of the applied state, and the state machine has read it anew: watchers and whoever else holds copies start over. */
  readonly onRestored?: () => void;
  /** The members are others than before: a change was applied and accepted, or a snapshot restored. */
  readonly onMembership?: () => void;
  /** This member was removed: by an entry it applied, or so a member says. It takes part no more and should be stopped. Told once. */
  readonly onRemoved?: () => void;
  /** Milliseconds between ticks, etcd's `--heartbeat-interval`. Default 100. */
  readonly tickMs?: number;
  /** Ticks without a leader before an election: etcd's `--election-timeout` divided by `tickMs`. Default 10. */
  readonly electionTicks?: number;
  /** Ask before campaigning, etcd's `--pre-vote`. Default true. */
  readonly preVote?: boolean;
  readonly limits?: Partial<ReplicaLimits>;
}

export interface ReplicaLimits {
  /** A larger request is refused with `request-too-large`. Default 1.5 MiB, etcd's `--max-request-bytes`. */
  readonly maxRequestBytes: number;
  /** While more entries than this are committed and not applied, proposals are refused with `too-many-requests`. Default 5000, as in etcd. */
  readonly maxPendingGap: number;
  /**
   * Bytes of entries in the log that wait for their commit; further ones wait before the log. Up to as many bytes may wait there, and what
   * comes then is refused with `too-many-requests`. Default 64 MiB.
   */
  readonly maxUncommittedBytes: number;
  /**
   * Applied entries kept in memory for members that lag behind: at most this many (default 5000, as in etcd) and of at most so many bytes
   * (default 64 MiB). Who lags more is brought a snapshot. While that is on its way, what follows it is kept, up to four times these bytes.
   */
  readonly catchUpEntries: number;
  readonly catchUpBytes: number;
}

export const defaultLimits: ReplicaLimits = {
  maxRequestBytes: 1.5 * 1024 * 1024,
  maxPendingGap: 5000,
  maxUncommittedBytes: 64 * 1024 * 1024,
  catchUpEntries: 5000,
  catchUpBytes: 64 * 1024 * 1024,
};

export interface ProposeOptions {
  /** Who asks; empty (the default) without authentication. */
  readonly user?: string;
  /** Auth revision at which the permission was checked. Default 0. */
  readonly authRevision?: number;
  /** Instant on `runtime.monotonic()` after which a request that has not entered the log is not proposed any more. Default: never. */
  readonly deadline?: number;
}

/** What raft is told of a change of the members; the rest is in the request. */
export type MembershipChange = Omit<ConfChange, 'context'>;
