import type { LeaseId, Operation } from '../history.ts';

/** The earliest time at which each lease could run out: its time to live after the last renewal that succeeded was asked for. */
export function leaseDeadlines(operations: readonly Operation[]): Map<LeaseId, number> {
  const deadlines = new Map<LeaseId, number>();
  const granted = new Set<LeaseId>();
  const again = new Set<LeaseId>();
  for (const { request, outcome, call } of operations) {
    if (request.type !== 'leaseGrant' && request.type !== 'leaseKeepAlive') continue;
    const id = outcome.status === 'ok' && outcome.response.type === 'leaseGrant' ? outcome.response.id : request.id;
    if (id === undefined || outcome.status === 'failed') continue;
    if (request.type === 'leaseGrant') (granted.has(id) ? again : granted).add(id);
    if (outcome.status !== 'ok') continue;
    const { ttl } = outcome.response as { readonly ttl: number };
    if (ttl > 0) deadlines.set(id, Math.max(deadlines.get(id) ?? 0, call + ttl * 1000));
  }
  for (const id of again) deadlines.delete(id);
  return deadlines;
}
