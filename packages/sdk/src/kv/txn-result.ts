import type { ResponseOp, TxnResponse } from '@conclave/protocol';
import { ConclaveError } from '../errors/conclave-error.ts';
import type { Comparison } from './comparison.ts';
import type { KeyPrefix } from './key-range.ts';
import type { KeyValue } from './key-value.ts';
import type { DeleteOperation, GetOperation, ListOperation, PutOperation } from './operation.ts';
import {
  type DeleteResult,
  type ListResult,
  type PutResult,
  revisionOf,
  toDeleteResult,
  toGetResult,
  toListResult,
  toPutResult,
} from './result.ts';

/** A transaction within a transaction. */
export interface TxnOperation<Success extends readonly Operation[], Failure extends readonly Operation[]> {
  readonly kind: 'txn';
  readonly comparisons: readonly Comparison[];
  readonly success: Success;
  readonly failure: Failure;
}

/** What a branch of a transaction can do. Made by {@link put}, {@link get}, {@link list}, {@link del} and {@link txn}. */
export type Operation =
  | PutOperation
  | GetOperation
  | ListOperation
  | DeleteOperation
  | TxnOperation<readonly Operation[], readonly Operation[]>;

/** The result of one operation, by its type. */
export type OperationResult<Op> = Op extends PutOperation
  ? PutResult
  : Op extends GetOperation
    ? KeyValue | undefined
    : Op extends ListOperation
      ? ListResult
      : Op extends DeleteOperation
        ? DeleteResult
        : Op extends TxnOperation<infer Success, infer Failure>
          ? readonly Operation[] extends Success
            ? AnyTxnResult
            : TxnResult<Success, Failure>
          : never;

/** The results of a branch, position by position. */
export type OperationResults<Ops extends readonly unknown[]> = { readonly [Position in keyof Ops]: OperationResult<Ops[Position]> };

// A branch that is shorter than the other is given optional positions that hold nothing, so that the union of the two can be destructured.
type Padded<Results extends readonly unknown[], Other extends readonly unknown[]> = number extends Results['length']
  ? Results
  : number extends Other['length']
    ? readonly [...Results, ...undefined[]]
    : Other extends readonly [unknown, ...infer OtherRest]
      ? Results extends readonly [infer First, ...infer Rest]
        ? readonly [First, ...Padded<Rest, OtherRest>]
        : readonly [undefined?, ...Padded<readonly [], OtherRest>]
      : Results;

/**
 * What a transaction did. Conditions that did not hold are no error: the other branch ran.
 *
 * The result is the list of what the operations of that branch returned, in their order, with a few properties of its own. Asking for
 * `succeeded` makes the types exact; without it a position may be `undefined`, as the branch that ran may not have it.
 *
 * @example
 * ```ts
 * const result = await client.txn().if(key('stock/42').value.equals('1')).then(put('stock/42', '0'), get('price/42')).else(get('stock/42')).commit();
 * if (result.succeeded) {
 *   const [stock, price] = result; // PutResult, KeyValue | undefined
 * } else {
 *   const [stock] = result; // KeyValue | undefined
 * }
 * ```
 */
export type TxnResult<Success extends readonly Operation[], Failure extends readonly Operation[]> =
  | (Padded<OperationResults<Success>, Failure> & TxnOutcome<true, OperationResults<Success>>)
  | (Padded<OperationResults<Failure>, Success> & TxnOutcome<false, OperationResults<Failure>>);

export interface TxnOutcome<Succeeded extends boolean, Responses> {
  /** Whether all conditions held: the branch `then` ran, else the branch `else`. */
  readonly succeeded: Succeeded;
  /** The list without the extra properties. */
  readonly responses: Responses;
  /** The store's revision afterwards; if the branch wrote anything, the one its writes made. */
  readonly revision: bigint;
}

/** A result whose operations are not known to the compiler. */
export type AnyTxnResult = readonly unknown[] & TxnOutcome<boolean, readonly unknown[]>;

/** Reads a response in the light of the operations that were asked for. */
export function toTxnResult(
  response: TxnResponse,
  success: readonly Operation[],
  failure: readonly Operation[],
  prefix: KeyPrefix,
): AnyTxnResult {
  // The header of a nested response is empty, so that the revision is handed down.
  return readBranch(response, success, failure, prefix, revisionOf(response));
}

function readBranch(
  response: TxnResponse,
  success: readonly Operation[],
  failure: readonly Operation[],
  prefix: KeyPrefix,
  revision: bigint,
): AnyTxnResult {
  const operations = response.succeeded ? success : failure;
  if (operations.length !== response.responses.length) throw unexpected();
  const responses = response.responses.map((one, at) => readResponse(operations[at] as Operation, one, prefix, revision));
  return Object.assign(responses.slice(), { succeeded: response.succeeded, responses, revision });
}

function readResponse(operation: Operation, response: ResponseOp, prefix: KeyPrefix, revision: bigint): unknown {
  switch (operation.kind) {
    case 'put':
      return toPutResult(response.responsePut ?? fail(), prefix);
    case 'get':
      return toGetResult(response.responseRange ?? fail(), prefix);
    case 'list':
      return toListResult(response.responseRange ?? fail(), prefix);
    case 'delete':
      return toDeleteResult(response.responseDeleteRange ?? fail(), prefix);
    case 'txn':
      return readBranch(response.responseTxn ?? fail(), operation.success, operation.failure, prefix, revision);
  }
}

function fail(): never {
  throw unexpected();
}

function unexpected(): ConclaveError {
  return new ConclaveError({ code: 'internal', message: 'the answer does not fit the transaction', outcome: 'applied' });
}
