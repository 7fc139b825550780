import type { Compare, RequestOp, TxnRequest } from '@conclave/protocol';
import { holds } from './compare.ts';

/** A txn with the branch its conditions chose, and so for every txn nested in that branch. */
export interface TxnPlan {
  readonly succeeded: boolean;
  /** The operations of the branch taken, in order. */
  readonly operations: readonly PlannedOperation[];
}

interface PlannedOperation {
  readonly request: RequestOp;
  /** Set when the operation is a txn. */
  readonly txn: TxnPlan | undefined;
}

/** The KeyValues in a condition's range, in their wire form. */
export type ReadCompared = (compare: Compare) => readonly Uint8Array[];

/**
 * Chooses every branch before anything is written: the conditions of nested txns, too, are about the state before the whole txn. A condition
 * that fails ends the list: the ones after it are not read.
 */
export function planTxn(request: TxnRequest, read: ReadCompared): TxnPlan {
  const succeeded = request.compare.every((compare) => holds(compare, read(compare)));
  const branch = succeeded ? request.success : request.failure;
  const operations = branch.map((operation) => ({
    request: operation,
    txn: operation.requestTxn && planTxn(operation.requestTxn, read),
  }));
  return { succeeded, operations };
}

/** Every operation that is no txn, in order, at whatever depth. */
export function* leavesOf(plan: TxnPlan): Generator<RequestOp, undefined> {
  for (const { request, txn } of plan.operations) {
    if (txn === undefined) yield request;
    else yield* leavesOf(txn);
  }
}

/** Whether neither branch can write and none holds a txn: such a request need not enter the log. */
export function isReadOnlyTxn(request: TxnRequest): boolean {
  return [...request.success, ...request.failure].every(({ requestRange }) => requestRange !== undefined);
}

/** Whether every read of it may be answered from the member's own state; so also where there is none (etcd api, Txn). */
export function isSerializableTxn(request: TxnRequest): boolean {
  return [...request.success, ...request.failure].every(({ requestRange }) => requestRange?.serializable);
}

/** Whether either branch puts something, at whatever depth. */
export function hasPut(request: TxnRequest): boolean {
  return [...request.success, ...request.failure].some(
    ({ requestPut, requestTxn }) => requestPut !== undefined || (requestTxn !== undefined && hasPut(requestTxn)),
  );
}
