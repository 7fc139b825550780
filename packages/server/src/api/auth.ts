import { Auth } from '@conclave/protocol';
import { failure } from '../mvcc/failure.ts';
import { headerNow } from './header.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier } from './outcome.ts';
import { type ServiceRoutes, unary, unimplemented } from './route.ts';

// etcd counts changes of users, roles and grants from here.
const firstAuthRevision = 1;

/**
 * `etcdserverpb.Auth`: that of a server on which nothing was configured. Nobody can be let in or kept out yet, so what would change that is
 * refused as unimplemented and not accepted without effect.
 */
export function authRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof Auth> {
  const { methods } = Auth;
  return {
    authEnable: unimplemented(methods.authEnable),
    authDisable: unimplemented(methods.authDisable),
    authStatus: unary(methods.authStatus, guard, () =>
      afterBarrier(member, () => ({ header: headerNow(member), enabled: false, authRevision: firstAuthRevision })),
    ),
    // Clients that carry a password ask this first, and go on without a token when they are told that none is needed.
    authenticate: unary(methods.authenticate, guard, () => Promise.reject(failure('authentication-not-enabled'))),
    userAdd: unimplemented(methods.userAdd),
    userGet: unimplemented(methods.userGet),
    userList: unary(methods.userList, guard, () => afterBarrier(member, () => ({ header: headerNow(member), users: [] }))),
    userDelete: unimplemented(methods.userDelete),
    userChangePassword: unimplemented(methods.userChangePassword),
    userGrantRole: unimplemented(methods.userGrantRole),
    userRevokeRole: unimplemented(methods.userRevokeRole),
    roleAdd: unimplemented(methods.roleAdd),
    roleGet: unimplemented(methods.roleGet),
    roleList: unary(methods.roleList, guard, () => afterBarrier(member, () => ({ header: headerNow(member), roles: [] }))),
    roleDelete: unimplemented(methods.roleDelete),
    roleGrantPermission: unimplemented(methods.roleGrantPermission),
    roleRevokePermission: unimplemented(methods.roleRevokePermission),
  };
}
