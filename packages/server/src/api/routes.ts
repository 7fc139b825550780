import { Auth, Cluster, Election, Health, KV, Lease, Lock, Maintenance, type MethodDescriptor, Watch } from '@conclave/protocol';
import type { Route, Routes } from '@conclave/wire';
import { authRoutes } from './auth.ts';
import { clusterRoutes } from './cluster.ts';
import { healthRoutes } from './health.ts';
import { kvRoutes } from './kv.ts';
import { leaseRoutes } from './lease.ts';
import { maintenanceRoutes } from './maintenance.ts';
import type { ServedMember } from './member.ts';
import { type ServiceRoutes, unimplemented } from './route.ts';
import { watchRoutes } from './watch.ts';

/**
 * Every procedure of every service of the protocol, by path. What is not offered yet says so; nothing is answered by default.
 *
 * @example
 * const routes = createRoutes(member);
 * net.serve('member-1', routes);
 */
export function createRoutes(member: ServedMember): Routes {
  const guard = member.leaderGuard;
  return new Map([
    ...rows(KV, kvRoutes(member, guard)),
    ...rows(Watch, watchRoutes(member, guard)),
    ...rows(Lease, leaseRoutes(member, guard)),
    ...rows(Cluster, clusterRoutes(member, guard)),
    ...rows(Maintenance, maintenanceRoutes(member, guard)),
    ...rows(Auth, authRoutes(member, guard)),
    ...rows(Health, healthRoutes(guard)),
    ...rows(Lock, lockRoutes()),
    ...rows(Election, electionRoutes()),
  ]);
}

/** `v3lockpb.Lock`: the recipe is in the SDK; its twin in the server comes later. */
function lockRoutes(): ServiceRoutes<typeof Lock> {
  const { lock, unlock } = Lock.methods;
  return { lock: unimplemented(lock), unlock: unimplemented(unlock) };
}

/** `v3electionpb.Election`: as {@link lockRoutes}. */
function electionRoutes(): ServiceRoutes<typeof Election> {
  const { campaign, proclaim, leader, observe, resign } = Election.methods;
  return {
    campaign: unimplemented(campaign),
    proclaim: unimplemented(proclaim),
    leader: unimplemented(leader),
    observe: unimplemented(observe),
    resign: unimplemented(resign),
  };
}

function rows<M extends Readonly<Record<string, Pick<MethodDescriptor<unknown, unknown>, 'path'>>>>(
  service: { readonly methods: M },
  routes: Readonly<Record<keyof M, Route>>,
): [string, Route][] {
  const names: (keyof M)[] = Object.keys(service.methods);
  return names.map((name) => [service.methods[name]!.path, routes[name]]);
}
