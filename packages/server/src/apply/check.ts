import {
  type DeleteRangeRequest,
  KeyRange,
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

/** Keys that a branch may write, as far as they conflict: a key may be put once, and not put where the branch deletes. */
class BranchWrites {
  readonly #puts = new Set<string>();
  readonly #deletes: KeyRange[] = [];

  addBranch(operations: readonly RequestOp[]): void {
    for (const { requestDeleteRange: request } of operations) {
      if (request !== undefined) this.#deletes.push(KeyRange.fromWire(request.key, request.rangeEnd));
    }
    for (const { requestTxn } of operations) if (requestTxn !== undefined) this.#addTxn(requestTxn);
    for (const { requestPut } of operations) if (requestPut !== undefined) this.#put(latin1(requestPut.key));
  }

  /** The branches of a nested txn exclude each other, so a key may be put in both; against everything else they count alike. */
  #addTxn(request: TxnRequest): void {
    const success = new BranchWrites();
    success.addBranch(request.success);
    const failureBranch = new BranchWrites();
    failureBranch.addBranch(request.failure);
    for (const key of success.#puts) this.#put(key);
    for (const key of failureBranch.#puts) {
      if (success.#puts.has(key)) continue;
      this.#put(key);
    }
    this.#deletes.push(...success.#deletes, ...failureBranch.#deletes);
  }

  #put(key: string): void {
    const bytes = Buffer.from(key, 'latin1');
    if (this.#puts.has(key) || this.#deletes.some((range) => range.contains(bytes))) throw failure('duplicate-key');
    this.#puts.add(key);
  }
}

function latin1(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
}
