import type {
  KeyValue,
  LeaseLeasesResponse,
  LeaseTimeToLiveResponse,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseOp,
  TxnRequest,
  TxnResponse,
} from '@conclave/protocol';
import { RangeRequest_SortOrder, RangeRequest_SortTarget } from '@conclave/protocol';
import { text } from '../conformance/context.ts';

/*
 * Answers as text that must be equal on both sides. What etcd leaves open, and where 3.5 is known to differ from the 3.7 we implement, is
 * taken out here and nowhere else, one named rule each.
 */

/** Any message as text: bytes readable, of a header only the revision (ids and terms are each server's own), nothing left out. */
export function shown(value: unknown): string {
  return JSON.stringify(value, (name, part: unknown) => {
    if (part instanceof Uint8Array) return text(part);
    if (name === 'header' && isHeader(part)) return { revision: part.revision };
    if (typeof part === 'bigint') return `${part}`;
    return part;
  });
}

/** Rules of a Range, in a txn or alone. */
export function rangeByRule(request: RangeRequest, response: RangeResponse): unknown {
  const kvs = response.kvs.map((kv) => keysOnlyWithoutLease(request, kv));
  return { ...response, kvs: tiesUnordered(request, { ...response, kvs }) };
}

/** Rules of a Txn: those of its ranges, nested ones included. */
export function txnByRule(request: TxnRequest, response: TxnResponse): unknown {
  const taken = response.succeeded ? request.success : request.failure;
  return { ...response, responses: response.responses.map((one, at) => opByRule(taken[at], one)) };
}

/** The list is told in no order. */
export function leasesUnordered(response: LeaseLeasesResponse): unknown {
  return { ...response, leases: response.leases.map(({ id }) => `${id}`).sort() };
}

/** A lease's keys are told in no order; what is left of its time differs by how long ago each side granted it. */
export function remainingTimeAndKeysUnordered(response: LeaseTimeToLiveResponse): unknown {
  const { ttl, grantedTtl } = response;
  const isAboutGranted = ttl <= grantedTtl && ttl > grantedTtl - 1_000;
  return { ...response, ttl: isAboutGranted ? 'some time left' : ttl, keys: response.keys.map(text).sort() };
}

const branchErrors: ReadonlySet<string> = new Set([
  'etcdserver: requested lease not found',
  'etcdserver: key not found',
  'etcdserver: mvcc: required revision is a future revision',
  'etcdserver: mvcc: required revision has been compacted',
]);

/** Of several operations that cannot be done 3.5 tells the puts' error first, 3.6 the first one's, and 3.7 looks at a put's lease first. */
export function anyErrorOfBranch(request: TxnRequest, status: string, message: string): string {
  return branchErrors.has(message) && failureCauses(request) > 1 ? 'an error of the branch taken' : status;
}

function failureCauses(request: TxnRequest): number {
  return [...request.success, ...request.failure].reduce((sum, one) => sum + failureCausesOf(one), 0);
}

function failureCausesOf({ requestRange, requestPut, requestTxn }: RequestOp): number {
  if (requestRange !== undefined) return requestRange.revision === 0 ? 0 : 1;
  if (requestPut !== undefined) return (requestPut.lease === 0n ? 0 : 1) + (requestPut.ignoreLease || requestPut.ignoreValue ? 1 : 0);
  return requestTxn === undefined ? 0 : failureCauses(requestTxn);
}

/** Since 3.7 keys_only leaves the lease out too, unless the read was sorted by value; before, it came along. */
function keysOnlyWithoutLease({ keysOnly, sortTarget }: RangeRequest, kv: KeyValue): KeyValue {
  return keysOnly && sortTarget !== RangeRequest_SortTarget.VALUE ? { ...kv, lease: 0n } : kv;
}

/**
 * Keys that are equal in what a read is sorted by come in no particular order: told as sets, in the order of the sort. Of the last set a limit
 * may have cut any part: only its size is told then.
 */
function tiesUnordered(request: RangeRequest, { kvs, more }: RangeResponse): unknown {
  const { sortTarget, sortOrder } = request;
  if (sortTarget === RangeRequest_SortTarget.KEY) return kvs;
  const groups = new Map<string, string[]>();
  for (const kv of kvs) {
    const sortedBy = sortValue(request, kv);
    groups.set(sortedBy, [...(groups.get(sortedBy) ?? []), shown(kv)]);
  }
  const sets = [...groups].map(([sortedBy, members]) => ({ sortedBy, members: members.sort() as unknown }));
  const last = sets.at(-1);
  if (more && last !== undefined) last.members = groups.get(last.sortedBy)?.length;
  return { sortOrder: sortOrder === RangeRequest_SortOrder.DESCEND ? 'descending' : 'ascending', sets };
}

function sortValue({ sortTarget }: RangeRequest, kv: KeyValue): string {
  if (sortTarget === RangeRequest_SortTarget.VERSION) return `version ${kv.version}`;
  if (sortTarget === RangeRequest_SortTarget.CREATE) return `created ${kv.createRevision}`;
  if (sortTarget === RangeRequest_SortTarget.MOD) return `modified ${kv.modRevision}`;
  return `value ${text(kv.value)}`;
}

function opByRule(request: RequestOp | undefined, response: ResponseOp): unknown {
  if (request?.requestRange && response.responseRange) return { responseRange: rangeByRule(request.requestRange, response.responseRange) };
  if (request?.requestTxn && response.responseTxn) return { responseTxn: txnByRule(request.requestTxn, response.responseTxn) };
  return response;
}

function isHeader(value: unknown): value is { readonly revision: number } {
  return typeof value === 'object' && value !== null && 'revision' in value && 'clusterId' in value;
}
