import {
  Cluster,
  MemberAddition,
  type MemberAddRequest,
  type MemberAddResponse,
  type MemberListResponse,
  MemberPromoteRequest,
  type MemberPromoteResponse,
  type MemberRemoveRequest,
  type MemberRemoveResponse,
  type MemberUpdateRequest,
  type MemberUpdateResponse,
  type WireErrorKey,
} from '@conclave/protocol';
import type { CallContext } from '@conclave/wire';
import { membersShown } from '../apply/member-changes.ts';
import { addedMemberIdOf } from '../membership/ids.ts';
import { checkUrl } from '../membership/member-url.ts';
import { healthyAfterMs, isInSync, type Reach, refuseAdd, refusePromote, refuseRemove } from '../membership/reconfiguration.ts';
import { failure } from '../mvcc/failure.ts';
import { refusalBeforeLog } from '../replica/refusal.ts';
import { headerAt } from './header.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier, proposeMembership } from './outcome.ts';
import { proposal, type Received, type ServiceRoutes, unary } from './route.ts';

/**
 * `etcdserverpb.Cluster`. What is refused here, before the log, is what the cluster might not survive, as far as this member can tell; whether a
 * change can be at all is decided when it is applied, and the same on every member.
 */
export function clusterRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof Cluster> {
  const { memberAdd, memberRemove, memberUpdate, memberList, memberPromote } = Cluster.methods;
  return {
    memberAdd: unary(memberAdd, guard, (request, call) => serveAdd(member, request, call)),
    memberRemove: proposal(memberRemove, guard, (received, call) => serveRemove(member, received, call)),
    memberUpdate: proposal(memberUpdate, guard, (received, call) => serveUpdate(member, received, call)),
    memberList: unary(memberList, guard, ({ linearizable }) => {
      return linearizable ? afterBarrier(member, () => memberListOf(member)) : memberListOf(member);
    }),
    memberPromote: proposal(memberPromote, guard, (received, call) => servePromote(member, received, call)),
  };
}

/** Lets the other members ask whether a learner may be promoted: only a leader knows. */
export function answerPromotions(member: ServedMember): void {
  member.replica.onCall('memberPromote', async (body) => {
    const { id } = MemberPromoteRequest.decode(body);
    await afterBarrier(member, () => checkReady(member, id));
    return noBytes;
  });
}

const noBytes = new Uint8Array(0);

async function serveAdd(
  member: ServedMember,
  { peerUrls: given, isLearner }: MemberAddRequest,
  call: CallContext,
): Promise<MemberAddResponse> {
  const peerUrls = [...given].sort();
  checkPeerUrls(peerUrls);
  strictly(member, (reach) => refuseAdd(member.memberTable.list(), isLearner, reach));
  const id = addedMemberIdOf(peerUrls, Math.floor(member.runtime.wall() / 1000));
  const maxLearners = isLearner ? member.limits.maxLearners : 0;
  const body = MemberAddition.encode({ member: { id, peerUrls, isLearner }, maxLearners });
  const change = { type: isLearner ? 'addLearner' : 'addVoter', member: id } as const;
  const response = await proposeMembership(member, change, 'memberAdd', body, call.deadline);
  return { ...response, header: headerAt(member, 0) };
}

async function serveRemove(
  member: ServedMember,
  { request: { id }, bytes }: Received<MemberRemoveRequest>,
  call: CallContext,
): Promise<MemberRemoveResponse> {
  strictly(member, (reach) => refuseRemove(member.memberTable.list(), id, reach));
  const response = await proposeMembership(member, { type: 'remove', member: id }, 'memberRemove', bytes, call.deadline);
  return { ...response, header: headerAt(member, 0) };
}

/** The URLs are checked, which etcd forgets: there, one that cannot be ends every member at once. */
async function serveUpdate(
  member: ServedMember,
  { request: { id, peerUrls }, bytes }: Received<MemberUpdateRequest>,
  call: CallContext,
): Promise<MemberUpdateResponse> {
  checkPeerUrls(peerUrls);
  const response = await proposeMembership(member, { type: 'update', member: id }, 'memberUpdate', bytes, call.deadline);
  return { ...response, header: headerAt(member, 0) };
}

async function servePromote(
  member: ServedMember,
  { request: { id }, bytes }: Received<MemberPromoteRequest>,
  call: CallContext,
): Promise<MemberPromoteResponse> {
  await afterBarrier(member, () => readiness(member, id, bytes));
  const response = await proposeMembership(member, { type: 'addVoter', member: id }, 'memberPromote', bytes, call.deadline);
  return { ...response, header: headerAt(member, 0) };
}

/** Throws what stands against a promotion, wherever the leader is. */
async function readiness(member: ServedMember, id: bigint, body: Uint8Array): Promise<void> {
  const { replica } = member;
  if (replica.isLeader) checkReady(member, id);
  else if (replica.leader === 0n) throw refusalBeforeLog('no-leader');
  else await replica.call(replica.leader, 'memberPromote', body);
}

/** As the leader sees it. What is not committed yet is not counted: nobody has to have it. */
function checkReady(member: ServedMember, id: bigint): void {
  const { replica, memberId, memberTable } = member;
  if (!replica.isLeader) throw refusalBeforeLog('leader-changed');
  const progress = replica.progress().find((other) => other.member === id);
  if (progress === undefined && id !== memberId) throw failure('member-not-found');
  if (progress !== undefined && !isInSync(progress.matchIndex, replica.committedIndex)) throw failure('learner-not-ready');
  strictly(member, () => refusePromote(memberTable.list()));
}

function strictly(member: ServedMember, refuse: (reach: Reach) => WireErrorKey | undefined): void {
  if (!member.limits.strictReconfigCheck) return;
  const now = member.runtime.monotonic();
  const key = refuse({
    self: member.memberId,
    isConnected: (id) => member.connectedSince(id) !== undefined,
    isHealthy: (id) => now - (member.connectedSince(id) ?? now) >= healthyAfterMs,
  });
  if (key !== undefined) throw refusalBeforeLog(key);
}

/** @throws StatusError `member-urls-invalid` */
function checkPeerUrls(peerUrls: readonly string[]): void {
  if (peerUrls.length === 0) throw failure('member-urls-invalid');
  for (const url of peerUrls) {
    try {
      checkUrl(url);
    } catch {
      // The caller is told that they are invalid, as by etcd, and not why.
      throw failure('member-urls-invalid');
    }
  }
}

function memberListOf(member: ServedMember): MemberListResponse {
  return { header: headerAt(member, 0), members: membersShown(member.memberTable) };
}
