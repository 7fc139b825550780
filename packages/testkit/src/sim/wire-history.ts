import {
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  Event_EventType as EventType,
  WatchCreateRequest_FilterType as FilterType,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
  type Compare as WireCompare,
  type DeleteRangeRequest as WireDeleteRangeRequest,
  type DeleteRangeResponse as WireDeleteRangeResponse,
  type Event as WireEvent,
  type KeyValue as WireKeyValue,
  type PutRequest as WirePutRequest,
  type PutResponse as WirePutResponse,
  type RangeRequest as WireRangeRequest,
  type RangeResponse as WireRangeResponse,
  type RequestOp as WireRequestOp,
  type ResponseOp as WireResponseOp,
  type TxnRequest as WireTxnRequest,
  type TxnResponse as WireTxnResponse,
  type WatchCreateRequest as WireWatchCreateRequest,
} from '@conclave/protocol';
import type {
  Compare,
  DeleteRangeRequest,
  DeleteRangeResponse,
  KeySpan,
  KeyValue,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  TxnOperation,
  TxnOperationResponse,
  TxnRequest,
  TxnResponse,
  WatchEvent,
  WatchRequest,
} from '../history.ts';

/** The request asks for what a history has no words for. */
export class NotRecordable extends Error {}

/** One character a byte, as histories write keys and values. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

function spanOf({ key, rangeEnd }: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array }): KeySpan {
  return rangeEnd.length === 0 ? { key: textOf(key) } : { key: textOf(key), end: textOf(rangeEnd) };
}

function keyValueOf({ key, value, createRevision, modRevision, version, lease }: WireKeyValue): KeyValue {
  const kv = { key: textOf(key), value: textOf(value), createRevision, modRevision, version };
  return lease === 0n ? kv : { ...kv, lease: lease.toString() };
}

export function putOf(request: WirePutRequest): PutRequest {
  return {
    type: 'put',
    key: textOf(request.key),
    value: textOf(request.value),
    ...(request.lease !== 0n && { lease: request.lease.toString() }),
    ...(request.prevKv && { prevKv: true }),
    ...(request.ignoreValue && { ignoreValue: true }),
    ...(request.ignoreLease && { ignoreLease: true }),
  };
}

const sortBy = {
  [SortTarget.KEY]: 'key',
  [SortTarget.VERSION]: 'version',
  [SortTarget.CREATE]: 'create',
  [SortTarget.MOD]: 'mod',
  [SortTarget.VALUE]: 'value',
} as const;

/** @throws NotRecordable */
export function rangeOf(request: WireRangeRequest): RangeRequest {
  const { minModRevision, maxModRevision, minCreateRevision, maxCreateRevision, sortTarget, sortOrder } = request;
  if (minModRevision + maxModRevision + minCreateRevision + maxCreateRevision > 0) throw new NotRecordable('a range by revisions');
  const by = sortBy[sortTarget as keyof typeof sortBy];
  const isSorted = sortOrder !== SortOrder.NONE || sortTarget !== SortTarget.KEY;
  return {
    type: 'range',
    ...spanOf(request),
    ...(request.revision > 0 && { revision: request.revision }),
    ...(request.limit > 0 && { limit: request.limit }),
    ...(request.countOnly && { countOnly: true }),
    ...(request.keysOnly && { keysOnly: true }),
    ...(request.serializable && { serializable: true }),
    ...(isSorted && { sort: { by, order: sortOrder === SortOrder.DESCEND ? 'descend' : 'ascend' } }),
  };
}

export function deleteRangeOf(request: WireDeleteRangeRequest): DeleteRangeRequest {
  return { type: 'deleteRange', ...spanOf(request), ...(request.prevKv && { prevKv: true }) };
}

/** @throws NotRecordable */
export function txnOf({ compare, success, failure }: WireTxnRequest): TxnRequest {
  return { type: 'txn', compares: compare.map(compareOf), success: success.map(operationOf), failure: failure.map(operationOf) };
}

function operationOf({ requestRange, requestPut, requestDeleteRange, requestTxn }: WireRequestOp): TxnOperation {
  if (requestRange !== undefined) return rangeOf(requestRange);
  if (requestPut !== undefined) return putOf(requestPut);
  if (requestDeleteRange !== undefined) return deleteRangeOf(requestDeleteRange);
  if (requestTxn !== undefined) return txnOf(requestTxn);
  throw new NotRecordable('an empty operation');
}

const signs = {
  [CompareResult.EQUAL]: '=',
  [CompareResult.NOT_EQUAL]: '!=',
  [CompareResult.LESS]: '<',
  [CompareResult.GREATER]: '>',
} as const;

function compareOf(compare: WireCompare): Compare {
  const about = { ...spanOf(compare), is: signs[compare.result as keyof typeof signs] };
  switch (compare.target) {
    case CompareTarget.VALUE:
      return { ...about, target: 'value', operand: textOf(compare.value ?? new Uint8Array(0)) };
    case CompareTarget.LEASE:
      return { ...about, target: 'lease', operand: (compare.lease ?? 0n).toString() };
    case CompareTarget.VERSION:
      return { ...about, target: 'version', operand: compare.version ?? 0 };
    case CompareTarget.CREATE:
      return { ...about, target: 'create', operand: compare.createRevision ?? 0 };
    default:
      return { ...about, target: 'mod', operand: compare.modRevision ?? 0 };
  }
}

export function putResponseOf({ prevKv }: WirePutResponse): PutResponse {
  return prevKv === undefined ? { type: 'put' } : { type: 'put', prevKv: keyValueOf(prevKv) };
}

export function rangeResponseOf({ kvs, count, more }: WireRangeResponse): RangeResponse {
  return { type: 'range', kvs: kvs.map(keyValueOf), count, more };
}

export function deleteRangeResponseOf({ deleted, prevKvs }: WireDeleteRangeResponse): DeleteRangeResponse {
  return { type: 'deleteRange', deleted, prevKvs: prevKvs.map(keyValueOf) };
}

export function txnResponseOf({ succeeded, responses }: WireTxnResponse): TxnResponse {
  return { type: 'txn', succeeded, responses: responses.map(operationResponseOf) };
}

function operationResponseOf(response: WireResponseOp): TxnOperationResponse {
  const { responseRange, responsePut, responseDeleteRange, responseTxn } = response;
  if (responseRange !== undefined) return rangeResponseOf(responseRange);
  if (responsePut !== undefined) return putResponseOf(responsePut);
  if (responseDeleteRange !== undefined) return deleteRangeResponseOf(responseDeleteRange);
  if (responseTxn !== undefined) return txnResponseOf(responseTxn);
  throw new NotRecordable('an empty response');
}

export function watchOf(request: WireWatchCreateRequest): WatchRequest {
  const { startRevision, prevKv, filters, fragment, progressNotify } = request;
  return {
    ...spanOf(request),
    ...(startRevision > 0 && { startRevision }),
    ...(prevKv && { prevKv }),
    ...(filters.length > 0 && { ignore: filters.includes(FilterType.NOPUT) ? 'put' : 'delete' }),
    ...(fragment && { fragment }),
    ...(progressNotify && { progressNotify }),
  };
}

export function eventOf({ type, kv, prevKv }: WireEvent): WatchEvent {
  if (kv === undefined) throw new NotRecordable('an event without a key');
  return {
    type: type === EventType.DELETE ? 'delete' : 'put',
    kv: keyValueOf(kv),
    ...(prevKv !== undefined && { prevKv: keyValueOf(prevKv) }),
  };
}
