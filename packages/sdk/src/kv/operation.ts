import {
  type DeleteRangeRequest,
  type Init,
  type PutRequest,
  type RangeRequest,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from '@conclave/protocol';
import { invalidArgument } from '../errors/conclave-error.ts';
import type { KeyPrefix, Target } from './key-range.ts';
import { type Integer, type Key, toBytes, toCounter, toId, type Value } from './text.ts';

/** A lease to attach a key to. An object that no longer holds its lease refuses. */
export interface HeldLease {
  readonly id: bigint;
  /** Throws `lease-lost` or `lease-revoked` unless the lease is still held. */
  assertHeld(): void;
}

export interface PutOptions {
  /**
   * The lease the key shall go with: it is deleted when the lease ends. Without one the key is detached from any lease it had. A
   * {@link Lease} is checked first: when it is no longer held, nothing is sent and the call rejects with `lease-lost`.
   */
  readonly lease?: HeldLease | Integer | undefined;
  /** Also return what the key held before. Default: false. */
  readonly prevKv?: boolean | undefined;
  /** Keep the value and change only the lease; the given value must be empty. Fails with `key-not-found` if there is no such key. */
  readonly ignoreValue?: boolean | undefined;
  /** Keep the lease the key has. Fails with `key-not-found` if there is no such key. */
  readonly ignoreLease?: boolean | undefined;
}

export interface GetOptions {
  /** Read as of this revision. Default: the latest. Fails with `compacted` or `future-revision` outside of what is stored. */
  readonly revision?: Integer | undefined;
  /** Let the member that is asked answer alone: faster, available without a leader, and possibly stale. Default: false. */
  readonly serializable?: boolean | undefined;
}

export interface ListOptions extends GetOptions {
  /** Return at most so many keys. Default: all. `more` of the result says whether it cut anything off. */
  readonly limit?: number | undefined;
  /** Default: by key, ascending. */
  readonly sort?: Sort | undefined;
  /** Leave the values out. Default: false. */
  readonly keysOnly?: boolean | undefined;
  /** Return only `count`. Default: false. */
  readonly countOnly?: boolean | undefined;
  /** Leave out keys last written before this revision. `count` does not heed this and the following bounds. */
  readonly minModRevision?: Integer | undefined;
  readonly maxModRevision?: Integer | undefined;
  readonly minCreateRevision?: Integer | undefined;
  readonly maxCreateRevision?: Integer | undefined;
}

export interface Sort {
  readonly by: 'key' | 'version' | 'createRevision' | 'modRevision' | 'value';
  /** Default: `ascend`. */
  readonly order?: 'ascend' | 'descend' | undefined;
}

export interface DeleteOptions {
  /** Also return what was deleted. Default: false. */
  readonly prevKv?: boolean | undefined;
}

export interface PutOperation {
  readonly kind: 'put';
  readonly key: Key;
  readonly value: Value;
  readonly options: PutOptions | undefined;
}

export interface GetOperation {
  readonly kind: 'get';
  readonly key: Key;
  readonly options: GetOptions | undefined;
}

export interface ListOperation {
  readonly kind: 'list';
  readonly target: Target;
  readonly options: ListOptions | undefined;
}

export interface DeleteOperation {
  readonly kind: 'delete';
  readonly target: Target;
  readonly options: DeleteOptions | undefined;
}

/**
 * Writes `value` to `key`, in a transaction.
 *
 * @example
 * ```ts
 * await client.txn().then(put('a', '1'), put('b', '2')).commit(); // both at one revision
 * ```
 */
export function put(key: Key, value: Value, options?: PutOptions): PutOperation {
  return { kind: 'put', key, value, options };
}

/**
 * Reads one key, in a transaction.
 *
 * @example
 * ```ts
 * const result = await client.txn().then(get('greeting')).commit();
 * if (result.succeeded) console.log(result[0]?.value); // hello
 * ```
 */
export function get(key: Key, options?: GetOptions): GetOperation {
  return { kind: 'get', key, options };
}

/**
 * Reads a range, in a transaction.
 *
 * @example
 * ```ts
 * const result = await client.txn().then(list(prefix('config/')), list(prefix('stock/'))).commit(); // both at one revision
 * if (result.succeeded) console.log(result[0].kvs.length, result[1].kvs.length); // 1 1
 * ```
 */
export function list(target: Target, options?: ListOptions): ListOperation {
  return { kind: 'list', target, options };
}

/**
 * Deletes a key or a range, in a transaction.
 *
 * @example
 * ```ts
 * await client.txn().if(key('drafts/7').exists()).then(del('drafts/7'), put('sent/7', 'hello')).commit();
 * ```
 */
export function del(target: Target, options?: DeleteOptions): DeleteOperation {
  return { kind: 'delete', target, options };
}

// ---- to the wire ------------------------------------------------------------------------------------------------------------------------

export function toPutRequest(prefix: KeyPrefix, key: Key, value: Value, options: PutOptions | undefined): Init<PutRequest> {
  if (options === undefined) return { key: prefix.key(key), value: toBytes(value) };
  return {
    key: prefix.key(key),
    value: toBytes(value),
    lease: options.lease === undefined ? undefined : toLeaseId(options.lease),
    prevKv: options.prevKv,
    ignoreValue: options.ignoreValue,
    ignoreLease: options.ignoreLease,
  };
}

export function toGetRequest(prefix: KeyPrefix, key: Key, options: GetOptions | undefined): Init<RangeRequest> {
  if (options === undefined) return { key: prefix.key(key) };
  return { key: prefix.key(key), revision: optionalCounter(options.revision, 'revision'), serializable: options.serializable };
}

export function toListRequest(prefix: KeyPrefix, target: Target, options: ListOptions | undefined): Init<RangeRequest> {
  const { key, rangeEnd } = prefix.range(target);
  if (options === undefined) return { key, rangeEnd };
  const { sort } = options;
  return {
    key,
    rangeEnd,
    revision: optionalCounter(options.revision, 'revision'),
    serializable: options.serializable,
    limit: optionalCounter(options.limit, 'limit'),
    sortTarget: sort === undefined ? undefined : sortTargets[sort.by],
    sortOrder: sort === undefined ? undefined : sortOrder(sort),
    keysOnly: options.keysOnly,
    countOnly: options.countOnly,
    minModRevision: optionalCounter(options.minModRevision, 'minModRevision'),
    maxModRevision: optionalCounter(options.maxModRevision, 'maxModRevision'),
    minCreateRevision: optionalCounter(options.minCreateRevision, 'minCreateRevision'),
    maxCreateRevision: optionalCounter(options.maxCreateRevision, 'maxCreateRevision'),
  };
}

export function toDeleteRequest(prefix: KeyPrefix, target: Target, options: DeleteOptions | undefined): Init<DeleteRangeRequest> {
  const { key, rangeEnd } = prefix.range(target);
  return { key, rangeEnd, prevKv: options?.prevKv };
}

export function toLeaseId(lease: HeldLease | Integer): bigint {
  if (typeof lease !== 'object') return toId(lease, 'lease');
  lease.assertHeld();
  return lease.id;
}

const sortTargets = {
  key: SortTarget.KEY,
  version: SortTarget.VERSION,
  createRevision: SortTarget.CREATE,
  modRevision: SortTarget.MOD,
  value: SortTarget.VALUE,
} as const;

function sortOrder(sort: Sort): number {
  if (sortTargets[sort.by] === undefined) throw invalidArgument(`cannot sort by ${sort.by}`);
  if (sort.order === 'descend') return SortOrder.DESCEND;
  // Keys come ascending anyway, and servers need not sort for it. For other targets the order must be said: left out, the limit would cut
  // the range by key before it is sorted.
  return sort.by === 'key' ? SortOrder.NONE : SortOrder.ASCEND;
}

function optionalCounter(value: Integer | undefined, name: string): number | undefined {
  return value === undefined ? undefined : toCounter(value, name);
}
