import type { ResponseHeader } from '@conclave/protocol';
import type { ServedMember } from './member.ts';

/**
 * What every response says of the member that gives it.
 *
 * @param revision - of the store. Where an answer has none (the cluster service, a canceled watch) it is 0.
 */
export function headerAt(member: Pick<ServedMember, 'clusterId' | 'memberId' | 'replica'>, revision: number): ResponseHeader {
  return { clusterId: member.clusterId, memberId: member.memberId, revision, raftTerm: member.replica.term };
}

/** The header of an answer about the present: reads have it too, whatever revision they were asked for. */
export function headerNow(member: Pick<ServedMember, 'clusterId' | 'memberId' | 'replica' | 'mvcc'>): ResponseHeader {
  return headerAt(member, member.mvcc.revision);
}
