import { type LeaseGrantRequest, LeaseGrantResponse, type LeaseRevokeRequest, LeaseRevokeResponse } from '@conclave/protocol';
import type { LeaseTable } from '../lease/lease-table.ts';
import { failure } from '../mvcc/failure.ts';
import type { Mvcc } from '../mvcc/mvcc.ts';

/** etcd's greatest TTL, in seconds. */
export const maxLeaseTtlSeconds = 9_000_000_000;

/** @throws StatusError `lease-ttl-too-large`, `lease-exists` */
export function grantLease(leases: LeaseTable, mvcc: Mvcc, { id, ttl: asked }: LeaseGrantRequest): LeaseGrantResponse {
  // The member that received the request chose the id; 0 stands for no lease.
  if (id === 0n) throw failure('lease-not-found');
  if (asked > maxLeaseTtlSeconds) throw failure('lease-ttl-too-large');
  if (leases.has(id)) throw failure('lease-exists');
  const ttl = Math.max(1, asked);
  leases.grant(id, ttl);
  return LeaseGrantResponse.create({ header: { revision: mvcc.revision }, id, ttl });
}

/**
 * Deletes the attached keys in order, in one revision, with the lease. A revoke that comes from an earlier term is refused: a leader that was
 * stuck while another took over would end leases that have been renewed since (etcd issue 15247).
 *
 * @throws StatusError `leader-changed`, `lease-not-found`
 */
export function revokeLease(leases: LeaseTable, mvcc: Mvcc, { id }: LeaseRevokeRequest, isOfEarlierTerm: boolean): LeaseRevokeResponse {
  if (isOfEarlierTerm) throw failure('leader-changed');
  if (!leases.has(id)) throw failure('lease-not-found');
  const txn = mvcc.begin();
  for (const key of leases.keysOf(id)) txn.deleteRange(key, noBytes);
  leases.revoke(id);
  txn.end();
  return LeaseRevokeResponse.create({ header: { revision: txn.revision } });
}

const noBytes = new Uint8Array(0);
