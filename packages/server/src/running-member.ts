import type { Runtime } from '@conclave/wire';
import { answerPromotions } from './api/cluster.ts';
import { headerAt } from './api/header.ts';
import { LeaderGuard } from './api/leader-guard.ts';
import type { ServedMember } from './api/member.ts';
import { type Applied, Applier } from './apply/apply.ts';
import { isOlderThanMembers, newMember } from './apply/founding.ts';
import { AutoCompactor } from './auto-compactor.ts';
import { Compactor } from './compactor.ts';
import { CorruptionCheck } from './corruption-check.ts';
import { LeaseTable } from './lease/lease-table.ts';
import { grpcOverheadBytes, type MemberSettings, quotaBytesOf } from './limits.ts';
import type { MemberStorage } from './member-storage.ts';
import { MemberTable } from './membership/member-table.ts';
import { Mvcc } from './mvcc/mvcc.ts';
import { WatchHub } from './mvcc/watch/watch-hub.ts';
import type { Fatal, Peers } from './replica/ports.ts';
import { Replica } from './replica/replica.ts';
import type { PeerNetwork } from './transport/network.ts';
import { VersionKeeper } from './version-keeper.ts';

/** All that is behind the doors, put together. */
export interface RunningMember extends ServedMember {
  readonly replica: Replica<Applied>;
  readonly watches: WatchHub;
  readonly compactor: Compactor;
  readonly autoCompactor: AutoCompactor;
  readonly corruptionCheck: CorruptionCheck;
  readonly versionKeeper: VersionKeeper;
  readonly memberTable: MemberTable;
  /** Ends the connections with the other members. */
  closePeers(): Promise<void>;
}

export interface RunOptions {
  readonly runtime: Runtime;
  readonly settings: MemberSettings;
  readonly fatal: Fatal;
  /** What the member is called and where others reach it, for a data dir that does not say. */
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly entryVersion: number;
  /** Absent: nobody can reach this member, and it reaches nobody. */
  readonly peerNetwork: PeerNetwork | undefined;
  /** This member learned that the cluster removed it. */
  readonly onRemoved: () => void;
}

export async function runMember(storage: MemberStorage, options: RunOptions): Promise<RunningMember> {
  const { runtime, settings, fatal, peerNetwork, onRemoved } = options;
  const { store, log, recovered, identity, snapshots, memory } = storage;
  const { memberId, clusterId } = identity;
  const mvcc = new Mvcc(store);
  const leases = new LeaseTable(store);
  const members = new MemberTable(store);
  const applier = new Applier({ store, mvcc, leases, members, entryVersion: options.entryVersion });
  if (isOlderThanMembers(members, applier.appliedIndex, recovered.entries)) {
    applier.adopt(newMember(memberId, options.name, options.peerUrls));
  }
  const compactor = new Compactor({ runtime, mvcc, applier, store, fatal });
  const describe = () => ({ clusterId, members: members.list() });
  const peers = await peerNetwork?.open({ id: memberId, clusterId, describe });
  const tellPeers = (): void => {
    const others = othersOf(members, memberId);
    peers?.setMembers(others);
    // Who knows nobody yet, not even itself, knows not that it is alone.
    if (members.list().length > 0) storage.setHasPeers(others.length > 0);
  };
  members.listen(tellPeers);
  tellPeers();
  const replica = new Replica<Applied>({
    runtime,
    id: memberId,
    log,
    recovered,
    stateMachine: applier,
    leases,
    fatal,
    snapshots,
    memory,
    isRemoved: (id) => members.isRemoved(id),
    onRemoved,
    ...(peers !== undefined && { peers }),
    tickMs: settings.heartbeatMs,
    electionTicks: Math.floor(settings.electionMs / settings.heartbeatMs),
    preVote: settings.preVote,
    limits: { maxRequestBytes: settings.maxRequestBytes, catchUpEntries: settings.snapshotCatchUpEntries },
  });
  const watches = new WatchHub({
    source: mvcc,
    runtime,
    header: (revision) => headerAt({ clusterId, memberId, replica }, revision),
    fragmentBytes: settings.maxRequestBytes + grpcOverheadBytes,
    progressIntervalMs: settings.watchProgressNotifyMs,
  });
  applier.onCompaction(() => compactor.wake());
  compactor.wake();
  const member: RunningMember = {
    runtime,
    clusterId,
    memberId,
    replica,
    mvcc,
    applier,
    leases,
    watches,
    memberTable: members,
    leaderGuard: new LeaderGuard({ runtime, replica, electionTimeoutMs: settings.electionMs }),
    compactor,
    autoCompactor: new AutoCompactor({ runtime, settings, mvcc, replica }),
    corruptionCheck: new CorruptionCheck({ runtime, memberId, members, mvcc, applier, replica, intervalMs: settings.corruptCheckMs }),
    versionKeeper: new VersionKeeper({ runtime, members, replica }),
    connectedSince: (id) => connectedSince(peers, id),
    databaseSize: () => store.size(),
    compactionDone: () => compactor.done(),
    closePeers: () => peers?.close() ?? Promise.resolve(),
    limits: {
      maxTxnOps: settings.maxTxnOps,
      maxRequestBytes: settings.maxRequestBytes,
      quotaBytes: quotaBytesOf(settings),
      strictReconfigCheck: settings.strictReconfigCheck,
      maxLearners: settings.maxLearners,
    },
  };
  answerPromotions(member);
  return member;
}

/** Where the network cannot tell, everybody counts as connected. */
function connectedSince(peers: Peers | undefined, id: bigint): number | undefined {
  if (peers === undefined) return undefined;
  return peers.connectedSince === undefined ? Number.NEGATIVE_INFINITY : peers.connectedSince(id);
}

function othersOf(members: MemberTable, self: bigint): Parameters<Peers['setMembers']>[0] {
  return members
    .list()
    .filter(({ id }) => id !== self)
    .map(({ id, peerUrls }) => ({ id, urls: peerUrls }));
}
