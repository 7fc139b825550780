import {
  type CompactionRequest,
  type CompactionResponse,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  KV,
  type PutRequest,
  type PutResponse,
  type RangeRequest,
  type TxnRequest,
  type TxnResponse,
} from '@conclave/protocol';
import type { CallContext } from '@conclave/wire';
import { checkDeleteRange, checkPut, checkRange, checkTxn } from '../apply/check.ts';
import { isReadOnlyTxn, isSerializableTxn } from '../apply/txn-plan.ts';
import { encodeRangeResponse, encodeRangeResponseSliced } from '../mvcc/range-response.ts';
import { CallSlicer } from './call-slicer.ts';
import { headerAt } from './header.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier, propose } from './outcome.ts';
import { putCost, refuseWithoutSpace, txnCost } from './quota.ts';
import { serveRangeStream } from './range-stream.ts';
import { proposal, type Received, type ServiceRoutes, streaming, unary } from './route.ts';

/** `etcdserverpb.KV`. */
export function kvRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof KV> {
  const { range, rangeStream, put, deleteRange, txn, compact } = KV.methods;
  return {
    range: unary(range, guard, (request, call) => serveRange(member, request, call)),
    rangeStream: streaming(rangeStream, guard, (stream) => serveRangeStream(member, stream)),
    put: proposal(put, guard, (received, call) => servePut(member, received, call)),
    deleteRange: proposal(deleteRange, guard, (received, call) => serveDeleteRange(member, received, call)),
    txn: proposal(txn, guard, (received, call) => serveTxn(member, received, call)),
    compact: proposal(compact, guard, (received, call) => serveCompact(member, received, call)),
  };
}

function serveRange(member: ServedMember, request: RangeRequest, call: CallContext): Uint8Array | Promise<Uint8Array> {
  checkRange(request);
  const read = (): Uint8Array | Promise<Uint8Array> => readRange(member, request, call);
  return request.serializable ? read() : afterBarrier(member, read);
}

function readRange(member: ServedMember, request: RangeRequest, call: CallContext): Uint8Array | Promise<Uint8Array> {
  // The revision in the header is that of the moment the read began, even if writes come in between its slices.
  const { revision } = member.mvcc;
  const slicer = new CallSlicer(member.runtime, call);
  const result = member.mvcc.range(request, slicer);
  if (result instanceof Promise) return result.then((whole) => encodeRangeResponseSliced(headerAt(member, revision), whole, slicer));
  return encodeRangeResponse(headerAt(member, revision), result);
}

async function servePut(member: ServedMember, { request, bytes }: Received<PutRequest>, call: CallContext): Promise<PutResponse> {
  checkPut(request);
  const full = refuseWithoutSpace(member, putCost(request));
  if (full !== undefined) await full;
  return withHeader(member, await propose(member, 'put', bytes, call.deadline));
}

async function serveDeleteRange(
  member: ServedMember,
  { request, bytes }: Received<DeleteRangeRequest>,
  call: CallContext,
): Promise<DeleteRangeResponse> {
  checkDeleteRange(request);
  return withHeader(member, await propose(member, 'deleteRange', bytes, call.deadline));
}

/**
 * A txn that can only read stays out of the log. It is linearized unless all its reads are serializable, which is also true where there are none:
 * so etcd may answer a txn of conditions alone from a stale member, and so do we.
 */
async function serveTxn(member: ServedMember, { request, bytes }: Received<TxnRequest>, call: CallContext): Promise<TxnResponse> {
  checkTxn(request, member.limits.maxTxnOps);
  const full = refuseWithoutSpace(member, txnCost(request));
  if (full !== undefined) await full;
  if (!isReadOnlyTxn(request)) return withHeader(member, await propose(member, 'txn', bytes, call.deadline));
  const read = (): Promise<TxnResponse> => member.applier.readTxn(request, new CallSlicer(member.runtime, call));
  return withHeader(member, await (isSerializableTxn(request) ? read() : afterBarrier(member, read)));
}

async function serveCompact(
  member: ServedMember,
  { request, bytes }: Received<CompactionRequest>,
  call: CallContext,
): Promise<CompactionResponse> {
  const response = await propose(member, 'compaction', bytes, call.deadline);
  if (request.physical) await member.compactionDone();
  return withHeader(member, response);
}

/** Completes a header that has only the revision. */
function withHeader<R extends PutResponse | DeleteRangeResponse | TxnResponse | CompactionResponse>(member: ServedMember, response: R): R {
  response.header = headerAt(member, response.header?.revision ?? 0);
  return response;
}
