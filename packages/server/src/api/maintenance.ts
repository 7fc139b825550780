import {
  AlarmRequest,
  AlarmRequest_AlarmAction,
  type AlarmResponse,
  AlarmType,
  etcdApiVersion,
  etcdClusterVersion,
  type HashKVRequest,
  type HashKVResponse,
  Maintenance,
  type MoveLeaderResponse,
  type StatusResponse,
  wireErrors,
} from '@conclave/protocol';
import type { CallContext } from '@conclave/wire';
import { CallSlicer } from './call-slicer.ts';
import { headerNow } from './header.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier, propose } from './outcome.ts';
import { type ServiceRoutes, unary, unimplemented } from './route.ts';

/** `etcdserverpb.Maintenance`. */
export function maintenanceRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof Maintenance> {
  const { alarm, status, defragment, hash, hashKv, snapshot, moveLeader, downgrade } = Maintenance.methods;
  return {
    alarm: unary(alarm, guard, (request, call) => serveAlarm(member, request, call)),
    status: unary(status, guard, () => statusOf(member)),
    defragment: unimplemented(defragment),
    hash: unimplemented(hash),
    hashKv: unary(hashKv, guard, (request, call) => serveHashKv(member, request, call)),
    snapshot: unimplemented(snapshot),
    moveLeader: unary(moveLeader, guard, ({ targetId }) => serveMoveLeader(member, targetId)),
    downgrade: unimplemented(downgrade),
  };
}

/** Asking for them is a linearizable read; raising and ending go through the log. */
async function serveAlarm(member: ServedMember, request: AlarmRequest, call: CallContext): Promise<AlarmResponse> {
  const { action, alarm } = request;
  if (action === AlarmRequest_AlarmAction.GET) {
    return afterBarrier(member, () => ({ header: headerNow(member), alarms: member.applier.alarms.list(alarm) }));
  }
  const { alarms } = await propose(member, 'alarm', AlarmRequest.encode(request), call.deadline);
  return { header: headerNow(member), alarms };
}

async function serveMoveLeader(member: ServedMember, target: bigint): Promise<MoveLeaderResponse> {
  await member.replica.transferLeadership(target);
  return { header: headerNow(member) };
}

/** Of this member alone, whatever the others say: it answers without a leader too, and says so. */
function statusOf(member: ServedMember): StatusResponse {
  const { replica, limits } = member;
  const { total, inUse } = member.databaseSize();
  return {
    header: headerNow(member),
    version: etcdApiVersion,
    dbSize: total,
    leader: replica.leader,
    raftIndex: replica.committedIndex,
    raftTerm: replica.term,
    raftAppliedIndex: replica.appliedIndex,
    errors: statusErrors(member),
    dbSizeInUse: inUse,
    isLearner: replica.isLearner,
    storageVersion: etcdClusterVersion,
    dbSizeQuota: limits.quotaBytes,
    downgradeInfo: { enabled: false, targetVersion: '' },
  };
}

function statusErrors({ replica, applier }: ServedMember): string[] {
  const alarms = applier.alarms
    .list()
    .map(({ memberId, alarm }) => `memberID:${memberId} alarm:${alarm === AlarmType.NOSPACE ? 'NOSPACE' : 'CORRUPT'} `);
  return replica.leader === 0n ? [wireErrors['no-leader'].message, ...alarms] : alarms;
}

async function serveHashKv(member: ServedMember, { revision }: HashKVRequest, call: CallContext): Promise<HashKVResponse> {
  const header = headerNow(member);
  const hashed = await member.mvcc.hashKv(revision, new CallSlicer(member.runtime, call));
  return { header, ...hashed };
}
