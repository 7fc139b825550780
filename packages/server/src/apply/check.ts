import {
  type DeleteRangeRequest,
  type PutRequest,
  type RangeRequest,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  type RequestOp,
  type TxnRequest,
} from '@conclave/protocol';
import { failure } from '../mvcc/failure.ts';

/**
 * What can be said against a request without looking at the state. The doors ask before they propose; what enters the log has passed.
 * Each function throws the first `StatusError` that etcd would answer with.
 */

/** @throws StatusError `key-empty`, `invalid-sort-option` */
export function checkRange(request: RangeRequest): void {
  if (request.key.length === 0) throw failure('key-empty');
  if (!sortOrders.has(request.sortOrder) || !sortTargets.has(request.sortTarget)) throw failure('invalid-sort-option');
}

/** @throws StatusError `key-empty`, `value-provided`, `lease-provided` */
export function checkPut(request: PutRequest): void {
  if (request.key.length === 0) throw failure('key-empty');
  if (request.ignoreValue && request.value.length > 0) throw failure('value-provided');
  if (request.ignoreLease && request.lease !== 0n) throw failure('lease-provided');
}

/** @throws StatusError `key-empty` */
export function checkDeleteRange(request: DeleteRangeRequest): void {
  if (request.key.length === 0) throw failure('key-empty');
}

/**
 * @param maxTxnOps - most operations in a branch, and most compares; nested txns share what their parents leave. etcd's default is 128.
 * @throws StatusError `too-many-operations`, `key-empty`, `key-not-found` (an operation without content), `duplicate-key`, and those of the operations
 */
export function checkTxn(request: TxnRequest, maxTxnOps: number): void {
  checkOperations(request, maxTxnOps);
  new BranchWrites().addBranch(request.success);
  new BranchWrites().addBranch(request.failure);
}

const sortOrders: ReadonlySet<number> = new Set(Object.values(RangeRequest_SortOrder));
const sortTargets: ReadonlySet<number> = new Set(Object.values(RangeRequest_SortTarget));

function checkOperations(request: TxnRequest, maxTxnOps: number): void {
  const operations = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (operations > maxTxnOps) throw failure('too-many-operations');
  for (const { key } of request.compare) if (key.length === 0) throw failure('key-empty');
  for (const operation of request.success) checkOperation(operation, maxTxnOps - operations);
  for (const operation of request.failure) checkOperation(operation, maxTxnOps - operations);
}

function checkOperation(operation: RequestOp, maxTxnOps: number): void {
  if (operation.requestRange !== undefined) checkRange(operation.requestRange);
  else if (operation.requestPut !== undefined) checkPut(operation.requestPut);
  else if (operation.requestDeleteRange !== undefined) checkDeleteRange(operation.requestDeleteRange);
  else if (operation.requestTxn !== undefined) checkOperations(operation.requestTxn, maxTxnOps);
  else throw failure('key-not-found');
}

/**
 * What a branch may write, as far as it conflicts: a key may be put once, and not put where the branch deletes.
 *
 * The rule is etcd's to the letter, clients' txns depend on it: children are compared in their order, so that a put may precede a sibling's
 * delete and not follow it; and a deletion without an end ("\0") conflicts with nothing.
 */
class BranchWrites {
  readonly #puts = new Set<string>();
  readonly #deletes: Span[] = [];

  addBranch(operations: readonly RequestOp[]): void {
    for (const { requestDeleteRange } of operations) if (requestDeleteRange !== undefined) this.#deletes.push(spanOf(requestDeleteRange));
    for (const { requestTxn } of operations) if (requestTxn !== undefined) this.#addTxn(requestTxn);
    for (const { requestPut } of operations) if (requestPut !== undefined) this.#put(textOf(requestPut.key));
  }

  /** The branches of a nested txn exclude each other, so a key may be put in both; against everything else they count alike. */
  #addTxn(request: TxnRequest): void {
    const success = new BranchWrites();
    success.addBranch(request.success);
    const other = new BranchWrites();
    other.addBranch(request.failure);
    for (const key of success.#puts) this.#put(key);
    for (const key of other.#puts) if (!success.#puts.has(key)) this.#put(key);
    this.#deletes.push(...success.#deletes, ...other.#deletes);
  }

  #put(key: string): void {
    if (this.#puts.has(key) || this.#deletes.some(({ start, end }) => start <= key && key < end)) throw failure('duplicate-key');
    this.#puts.add(key);
  }
}

/** Keys from `start` to before `end`, as texts of one character a byte, which order as the bytes do. */
interface Span {
  readonly start: string;
  readonly end: string;
}

function spanOf({ key, rangeEnd }: DeleteRangeRequest): Span {
  const start = textOf(key);
  return { start, end: rangeEnd.length === 0 ? `${start}\0` : textOf(rangeEnd) };
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}
