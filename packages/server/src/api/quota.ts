import { AlarmRequest, AlarmRequest_AlarmAction, AlarmType, type PutRequest, type RequestOp, type TxnRequest } from '@conclave/protocol';
import { refusalBeforeLog } from '../replica/refusal.ts';
import type { ServedMember } from './member.ts';

/** What etcd counts for a key beside its bytes. */
const keyOverheadBytes = 256;

export function putCost({ key, value }: PutRequest): number {
  return keyOverheadBytes + key.length + value.length;
}

/** That of the dearer branch; 0 where nothing is put. */
export function txnCost({ success, failure }: TxnRequest): number {
  return Math.max(branchCost(success), branchCost(failure));
}

function branchCost(operations: readonly RequestOp[]): number {
  let cost = 0;
  for (const { requestPut, requestTxn } of operations) {
    if (requestPut !== undefined) cost += putCost(requestPut);
    if (requestTxn !== undefined) cost += txnCost(requestTxn);
  }
  return cost;
}

/**
 * Refuses what would take the database over its quota, and raises the alarm NOSPACE for this member. The quota is each member's own, and files
 * differ in size; so it decides nothing but this: what all members refuse, and from when on, follows from the alarm in the log.
 *
 * Counted is what holds data: room that a compaction freed is used again.
 *
 * @returns undefined where there is room; otherwise a promise that rejects with StatusError `no-space`
 */
export function refuseWithoutSpace(member: ServedMember, costBytes: number): Promise<never> | undefined {
  const { quotaBytes } = member.limits;
  if (quotaBytes === 0 || costBytes === 0 || member.databaseSize().inUse + costBytes < quotaBytes) return undefined;
  return refuse(member);
}

async function refuse(member: ServedMember): Promise<never> {
  const { memberId, applier, replica, runtime, limits } = member;
  const isRaised = applier.alarms.list(AlarmType.NOSPACE).some((alarm) => alarm.memberId === memberId);
  // Until all members have said that they know alarms this one refuses alone.
  if (!isRaised && applier.allows('alarm')) {
    runtime.log.error({ quotaBytes: limits.quotaBytes }, 'the database is at its quota: raising the alarm NOSPACE');
    const { ACTIVATE } = AlarmRequest_AlarmAction;
    await replica.propose('alarm', AlarmRequest.encode({ action: ACTIVATE, memberId, alarm: AlarmType.NOSPACE }));
  }
  throw refusalBeforeLog('no-space');
}
