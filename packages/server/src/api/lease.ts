import {
  Lease,
  LeaseGrantRequest,
  type LeaseGrantResponse,
  type LeaseLeasesResponse,
  type LeaseRevokeRequest,
  type LeaseRevokeResponse,
  type LeaseTimeToLiveRequest,
  type LeaseTimeToLiveResponse,
} from '@conclave/protocol';
import type { CallContext, Runtime } from '@conclave/wire';
import { maxLeaseTtlSeconds } from '../apply/lease-changes.ts';
import { failure } from '../mvcc/failure.ts';
import { headerAt, headerNow } from './header.ts';
import { serveKeepAlive } from './keep-alive.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier, propose } from './outcome.ts';
import { refuseWithoutSpace } from './quota.ts';
import { proposal, type Received, type ServiceRoutes, streaming, unary } from './route.ts';

/** `etcdserverpb.Lease`. */
export function leaseRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof Lease> {
  const { leaseGrant, leaseRevoke, leaseKeepAlive, leaseTimeToLive, leaseLeases } = Lease.methods;
  return {
    leaseGrant: unary(leaseGrant, guard, (request, call) => serveGrant(member, request, call)),
    leaseRevoke: proposal(leaseRevoke, guard, (received, call) => serveRevoke(member, received, call)),
    leaseKeepAlive: streaming(leaseKeepAlive, guard, (stream) => serveKeepAlive(member, stream)),
    leaseTimeToLive: unary(leaseTimeToLive, guard, (request) => timeToLive(member, request)),
    leaseLeases: unary(leaseLeases, guard, () => leases(member)),
  };
}

/** The id and the least TTL are settled here, once: every member applies the same. */
async function serveGrant(member: ServedMember, request: LeaseGrantRequest, call: CallContext): Promise<LeaseGrantResponse> {
  if (request.ttl > maxLeaseTtlSeconds) throw failure('lease-ttl-too-large');
  const full = refuseWithoutSpace(member, leaseCostBytes);
  if (full !== undefined) await full;
  const id = request.id === 0n ? freeId(member) : request.id;
  const ttl = Math.max(request.ttl, member.replica.leases.minTtlSeconds);
  const response = await propose(member, 'leaseGrant', LeaseGrantRequest.encode({ id, ttl }), call.deadline);
  response.header = headerAt(member, response.header?.revision ?? 0);
  return response;
}

async function serveRevoke(member: ServedMember, { bytes }: Received<LeaseRevokeRequest>, call: CallContext): Promise<LeaseRevokeResponse> {
  const response = await propose(member, 'leaseRevoke', bytes, call.deadline);
  response.header = headerAt(member, response.header?.revision ?? 0);
  return response;
}

/** A lease that is not there is an answer, not an error. */
async function timeToLive(member: ServedMember, { id, keys }: LeaseTimeToLiveRequest): Promise<LeaseTimeToLiveResponse> {
  const remaining = await member.replica.leaseRemaining(id);
  // What the leader knew when it answered is applied here too, keys included.
  if (keys && remaining !== undefined) await afterBarrier(member, () => undefined);
  const header = headerNow(member);
  const grantedTtl = member.leases.ttlSeconds(id) ?? remaining?.grantedSeconds;
  const ttl = remaining?.remainingSeconds;
  if (grantedTtl === undefined || ttl === undefined) return { header, id, ttl: -1, grantedTtl: 0, keys: [] };
  return { header, id, ttl, grantedTtl, keys: keys ? member.leases.keysOf(id) : [] };
}

/** What etcd counts for a lease. */
const leaseCostBytes = 64;

/** This member's own list, the leases that expire first at its beginning. */
function leases(member: ServedMember): LeaseLeasesResponse {
  const remaining = new Map(member.leases.ids().map((id) => [id, member.replica.leases.remainingSeconds(id) ?? 0]));
  const byExpiry = [...remaining].sort(([, a], [, b]) => a - b);
  return { header: headerNow(member), leases: byExpiry.map(([id]) => ({ id })) };
}

function freeId(member: ServedMember): bigint {
  let id: bigint;
  do id = randomId(member.runtime);
  while (id === 0n || member.leases.has(id));
  return id;
}

/** Below 2^63. */
function randomId(runtime: Runtime): bigint {
  const high = BigInt(Math.floor(runtime.random() * 0x80000000));
  const low = BigInt(Math.floor(runtime.random() * 0x100000000));
  return (high << 32n) | low;
}
