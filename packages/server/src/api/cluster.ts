import { Cluster, type MemberListResponse } from '@conclave/protocol';
import { headerAt } from './header.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier } from './outcome.ts';
import { type ServiceRoutes, unary, unimplemented } from './route.ts';

/** `etcdserverpb.Cluster`. Membership cannot change yet. */
export function clusterRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof Cluster> {
  const { memberAdd, memberRemove, memberUpdate, memberList, memberPromote } = Cluster.methods;
  return {
    memberAdd: unimplemented(memberAdd),
    memberRemove: unimplemented(memberRemove),
    memberUpdate: unimplemented(memberUpdate),
    memberList: unary(memberList, guard, ({ linearizable }) => {
      return linearizable ? afterBarrier(member, () => memberListOf(member)) : memberListOf(member);
    }),
    memberPromote: unimplemented(memberPromote),
  };
}

function memberListOf(member: ServedMember): MemberListResponse {
  return { header: headerAt(member, 0), members: [...member.members()] };
}
