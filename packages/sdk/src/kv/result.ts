import type { DeleteRangeResponse, PutResponse, RangeResponse, KeyValue as WireKeyValue } from '@conclave/protocol';
import type { KeyPrefix } from './key-range.ts';
import { KeyValue } from './key-value.ts';

export interface PutResult {
  /** The revision the write made; in a transaction, that of the transaction. */
  readonly revision: bigint;
  /** What the key held before, if it was asked for and there was something. */
  readonly prevKv: KeyValue | undefined;
}

export interface ListResult {
  readonly kvs: readonly KeyValue[];
  /** How many keys the range has, whatever the limit. */
  readonly count: number;
  /** Whether the limit cut keys off. */
  readonly more: boolean;
  /** The store's revision when it answered, even if an older one was read. To follow what comes after a latest read, watch from `revision + 1n`. */
  readonly revision: bigint;
}

export interface DeleteResult {
  /** How many keys were deleted. */
  readonly deleted: number;
  /** What they held, if it was asked for. */
  readonly prevKvs: readonly KeyValue[];
  /** The store's revision afterwards. */
  readonly revision: bigint;
}

export function toPutResult(response: PutResponse, prefix: KeyPrefix): PutResult {
  return { revision: revisionOf(response), prevKv: response.prevKv === undefined ? undefined : new KeyValue(response.prevKv, prefix) };
}

export function toGetResult(response: RangeResponse, prefix: KeyPrefix): KeyValue | undefined {
  const kv = response.kvs[0];
  return kv === undefined ? undefined : new KeyValue(kv, prefix);
}

export function toListResult(response: RangeResponse, prefix: KeyPrefix): ListResult {
  return { kvs: keyValues(response.kvs, prefix), count: response.count, more: response.more, revision: revisionOf(response) };
}

export function toDeleteResult(response: DeleteRangeResponse, prefix: KeyPrefix): DeleteResult {
  return { deleted: response.deleted, prevKvs: keyValues(response.prevKvs, prefix), revision: revisionOf(response) };
}

export function revisionOf(response: { header: { revision: number } | undefined }): bigint {
  return BigInt(headerRevision(response));
}

export function headerRevision(response: { header: { revision: number } | undefined }): number {
  return response.header?.revision ?? 0;
}

function keyValues(kvs: readonly WireKeyValue[], prefix: KeyPrefix): KeyValue[] {
  return kvs.map((kv) => new KeyValue(kv, prefix));
}
