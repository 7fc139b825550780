import type { Member } from '@conclave/protocol';
import type { Runtime } from '@conclave/wire';
import type { Applied, Applier } from '../apply/apply.ts';
import type { LeaseTable } from '../lease/lease-table.ts';
import type { Mvcc } from '../mvcc/mvcc.ts';
import type { WatchHub } from '../mvcc/watch/watch-hub.ts';
import type { Replica } from '../replica/replica.ts';
import type { LeaderGuard } from './leader-guard.ts';

/** Everything of this member that the services reach. They hold no state of their own beyond their calls. */
export interface ServedMember {
  readonly runtime: Runtime;
  readonly clusterId: bigint;
  readonly memberId: bigint;
  readonly replica: Pick<Replica<Applied>, 'propose' | 'readBarrier' | 'leases' | 'leader' | 'term' | 'committedIndex' | 'appliedIndex'>;
  readonly mvcc: Pick<Mvcc, 'revision' | 'range' | 'rangeParts' | 'hashKv'>;
  readonly applier: Pick<Applier, 'readTxn'>;
  readonly leases: Pick<LeaseTable, 'has' | 'ids' | 'keysOf' | 'ttlSeconds'>;
  readonly watches: Pick<WatchHub, 'open'>;
  readonly leaderGuard: LeaderGuard;
  /** The members of the cluster, this one included, by ascending id. */
  members(): readonly Member[];
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
}
