import type { Runtime } from '@conclave/wire';
import type { Applied, Applier } from '../apply/apply.ts';
import type { LeaseTable } from '../lease/lease-table.ts';
import type { MemberTable } from '../membership/member-table.ts';
import type { Mvcc } from '../mvcc/mvcc.ts';
import type { WatchHub } from '../mvcc/watch/watch-hub.ts';
import type { Replica } from '../replica/replica.ts';
import type { LeaderGuard } from './leader-guard.ts';

/** Everything of this member that the services reach. They hold no state of their own beyond their calls. */
export interface ServedMember {
  readonly runtime: Runtime;
  readonly clusterId: bigint;
  readonly memberId: bigint;
  readonly replica: Pick<
    Replica<Applied>,
    | 'propose'
    | 'proposeMembership'
    | 'readBarrier'
    | 'leases'
    | 'leader'
    | 'isLeader'
    | 'term'
    | 'committedIndex'
    | 'appliedIndex'
    | 'progress'
    | 'call'
    | 'isLearner'
    | 'leaseRemaining'
    | 'renewLease'
    | 'transferLeadership'
    | 'onCall'
  >;
  readonly mvcc: Pick<Mvcc, 'revision' | 'range' | 'rangeParts' | 'hashKv'>;
  readonly applier: Pick<Applier, 'readTxn' | 'alarms' | 'allows'>;
  readonly leases: Pick<LeaseTable, 'has' | 'ids' | 'keysOf' | 'ttlSeconds'>;
  readonly watches: Pick<WatchHub, 'open'>;
  readonly leaderGuard: LeaderGuard;
  readonly memberTable: Pick<MemberTable, 'list' | 'get'>;
  /** Since when, on `runtime.monotonic()`, this member has been connected with the other without a break; undefined: it is not. */
  connectedSince(id: bigint): number | undefined;
  /** Bytes of the database file, and how many of them are in use; both above 0. */
  databaseSize(): { readonly total: number; readonly inUse: number };
  /** Resolves once everything that was compacted before the call is out of storage, durably. */
  compactionDone(): Promise<void>;
  readonly limits: ServiceLimits;
}

interface ServiceLimits {
  /** Operations in a txn, etcd's `--max-txn-ops`. Its default is 128. */
  readonly maxTxnOps: number;
  /** What a chunk of a RangeStream aims at, etcd's `--max-request-bytes`. Its default is 1.5 MiB. */
  readonly maxRequestBytes: number;
  /** Bytes the database may grow to, as Status tells it; 0 when it is not bounded. */
  readonly quotaBytes: number;
  /** etcd's `--strict-reconfig-check`. Its default is true. */
  readonly strictReconfigCheck: boolean;
  /** Learners there may be, etcd's `--max-learners`. Its default is 1. */
  readonly maxLearners: number;
}
