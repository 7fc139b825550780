import { KeyValue, RangeRequest, RangeResponse, type RequestOp, ResponseOp, type TxnRequest, TxnResponse } from '@conclave/protocol';
import { failure } from '../mvcc/failure.ts';
import type { Mvcc, Pin } from '../mvcc/mvcc.ts';
import type { RangeResult } from '../mvcc/range-read.ts';
import type { Slicer } from '../mvcc/slicer.ts';
import { holds } from './compare.ts';

/**
 * Evaluates a txn that only reads (`isReadOnlyTxn`) at the present revision, without the log; yields to the loop as `slicer` says.
 *
 * @throws StatusError `compacted` or `future-revision`, by way of the promise
 */
export async function readTxn(mvcc: Mvcc, request: TxnRequest, slicer: Slicer): Promise<TxnResponse> {
  const pin = mvcc.pin(0);
  try {
    const succeeded = await allHold(mvcc, request, pin, slicer);
    const branch = succeeded ? request.success : request.failure;
    const responses: ResponseOp[] = [];
    for (const range of branch.map(onlyRange)) checkRevision(mvcc, range, pin.revision);
    for (const range of branch.map(onlyRange)) {
      const result = await mvcc.range(range, slicer, range.revision > 0 ? undefined : pin);
      responses.push(ResponseOp.create({ responseRange: rangeResponse(result, pin.revision) }));
    }
    return TxnResponse.create({ header: { revision: pin.revision }, succeeded, responses });
  } finally {
    pin.release();
  }
}

/** Within a txn only 0 means the latest: a negative revision is an old one. @throws StatusError `compacted`, `future-revision` */
export function checkRevision(mvcc: Mvcc, request: RangeRequest, current: number): void {
  if (request.revision === 0) return;
  if (request.revision > current) throw failure('future-revision');
  if (request.revision < mvcc.compactRevision) throw failure('compacted');
}

export function rangeResponse(result: RangeResult, revision: number): RangeResponse {
  return RangeResponse.create({ header: { revision }, kvs: result.kvs.map(ownKv), count: result.count, more: result.more });
}

/** Storage's bytes are valid only until the loop goes on, and a response is sent later. */
export function ownKv(kv: Uint8Array): KeyValue {
  return KeyValue.decode(new Uint8Array(kv));
}

async function allHold(mvcc: Mvcc, request: TxnRequest, pin: Pin, slicer: Slicer): Promise<boolean> {
  for (const compare of request.compare) {
    const { kvs } = await mvcc.range(RangeRequest.create({ key: compare.key, rangeEnd: compare.rangeEnd }), slicer, pin);
    if (!holds(compare, kvs)) return false;
  }
  return true;
}

function onlyRange({ requestRange }: RequestOp): RangeRequest {
  if (requestRange === undefined) throw new Error('a txn that only reads holds another operation');
  return requestRange;
}
