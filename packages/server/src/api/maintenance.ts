import {
  type AlarmRequest,
  AlarmRequest_AlarmAction,
  type AlarmResponse,
  AlarmType,
  etcdApiVersion,
  etcdClusterVersion,
  type HashKVRequest,
  type HashKVResponse,
  Maintenance,
  StatusCode,
  type StatusResponse,
  wireErrors,
} from '@conclave/protocol';
import { type CallContext, StatusError } from '@conclave/wire';
import { CallSlicer } from './call-slicer.ts';
import { headerNow } from './header.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier } from './outcome.ts';
import { type Answer, type ServiceRoutes, unary, unimplemented } from './route.ts';

/** `etcdserverpb.Maintenance`. */
export function maintenanceRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof Maintenance> {
  const { alarm, status, defragment, hash, hashKv, snapshot, moveLeader, downgrade } = Maintenance.methods;
  return {
    alarm: unary(alarm, guard, (request) => afterBarrier(member, () => serveAlarm(member, request))),
    status: unary(status, guard, () => statusOf(member)),
    defragment: unimplemented(defragment),
    hash: unimplemented(hash),
    hashKv: unary(hashKv, guard, (request, call) => serveHashKv(member, request, call)),
    snapshot: unimplemented(snapshot),
    moveLeader: unimplemented(moveLeader),
    downgrade: unimplemented(downgrade),
  };
}

/** There are no alarms yet: listing them, ending one, and raising none are answered as an etcd without alarms would. */
function serveAlarm(member: ServedMember, { action, alarm }: AlarmRequest): Answer<AlarmResponse> {
  const raisesNothing = action === AlarmRequest_AlarmAction.ACTIVATE && alarm === AlarmType.NONE;
  if (action !== AlarmRequest_AlarmAction.GET && action !== AlarmRequest_AlarmAction.DEACTIVATE && !raisesNothing) {
    throw new StatusError(StatusCode.UNIMPLEMENTED, 'raising an alarm is not implemented by this server');
  }
  return { header: headerNow(member), alarms: [] };
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
    errors: replica.leader === 0n ? [wireErrors['no-leader'].message] : [],
    dbSizeInUse: inUse,
    isLearner: false,
    storageVersion: etcdClusterVersion,
    dbSizeQuota: limits.quotaBytes,
    downgradeInfo: { enabled: false, targetVersion: '' },
  };
}

async function serveHashKv(member: ServedMember, { revision }: HashKVRequest, call: CallContext): Promise<HashKVResponse> {
  const header = headerNow(member);
  const hashed = await member.mvcc.hashKv(revision, new CallSlicer(member.runtime, call));
  return { header, ...hashed };
}
