import { type Init, KV, type RequestOp, type TxnRequest, type TxnResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import { invalidArgument } from '../errors/conclave-error.ts';
import { type Comparison, toCompare } from './comparison.ts';
import type { KeyPrefix } from './key-range.ts';
import { toDeleteRequest, toGetRequest, toListRequest, toPutRequest } from './operation.ts';
import { type AnyTxnResult, type Operation, type TxnOperation, type TxnResult, toTxnResult } from './txn-result.ts';

/** What a transaction is made of. */
interface TxnParts {
  readonly comparisons: readonly Comparison[];
  readonly success: readonly Operation[];
  readonly failure: readonly Operation[];
}

/**
 * A transaction that is part of another. Begun with {@link txn}; each method returns a new one.
 *
 * @example
 * ```ts
 * await client.txn()
 *   .if(key('a').exists())
 *   .then(txn().if(key('b').exists()).then(put('both', 'yes')))
 *   .commit();
 * ```
 */
export class NestedTxn<Success extends readonly Operation[], Failure extends readonly Operation[]>
  implements TxnOperation<Success, Failure>
{
  readonly kind = 'txn';
  readonly comparisons: readonly Comparison[];
  readonly success: Success;
  readonly failure: Failure;

  /** @internal */
  constructor(comparisons: readonly Comparison[], success: Success, failure: Failure) {
    this.comparisons = comparisons;
    this.success = success;
    this.failure = failure;
  }

  /** Adds conditions; all must hold. */
  if(...comparisons: readonly Comparison[]): NestedTxn<Success, Failure> {
    return new NestedTxn([...this.comparisons, ...comparisons], this.success, this.failure);
  }

  /** What happens when all conditions hold. */
  // biome-ignore lint/suspicious/noThenProperty: the word of the API this speaks; `assertOperations` tells an await from a branch.
  then<const Ops extends readonly Operation[]>(...operations: Ops): NestedTxn<Ops, Failure> {
    assertOperations(operations);
    return new NestedTxn(this.comparisons, operations, this.failure);
  }

  /** What happens otherwise. */
  else<const Ops extends readonly Operation[]>(...operations: Ops): NestedTxn<Success, Ops> {
    return new NestedTxn(this.comparisons, this.success, operations);
  }
}

/** Begins a transaction to be used as an operation of another. */
export function txn(): NestedTxn<readonly [], readonly []> {
  return new NestedTxn([], [], []);
}

/**
 * A transaction in the making: all of it happens at one revision, or nothing does. Begun with `client.txn()`, sent by {@link Txn.commit};
 * each method returns a new one.
 */
export class Txn<Success extends readonly Operation[], Failure extends readonly Operation[]> {
  readonly #engine: Engine;
  readonly #prefix: KeyPrefix;
  readonly #comparisons: readonly Comparison[];
  readonly #success: Success;
  readonly #failure: Failure;

  /** @internal */
  constructor(engine: Engine, prefix: KeyPrefix, comparisons: readonly Comparison[], success: Success, failure: Failure) {
    this.#engine = engine;
    this.#prefix = prefix;
    this.#comparisons = comparisons;
    this.#success = success;
    this.#failure = failure;
  }

  /** Adds conditions; all must hold. Without any, the branch `then` runs. */
  if(...comparisons: readonly Comparison[]): Txn<Success, Failure> {
    return new Txn(this.#engine, this.#prefix, [...this.#comparisons, ...comparisons], this.#success, this.#failure);
  }

  /** What happens when all conditions hold. */
  // biome-ignore lint/suspicious/noThenProperty: the word of the API this speaks; `assertOperations` tells an await from a branch.
  then<const Ops extends readonly Operation[]>(...operations: Ops): Txn<Ops, Failure> {
    assertOperations(operations);
    return new Txn(this.#engine, this.#prefix, this.#comparisons, operations, this.#failure);
  }

  /** What happens otherwise. Default: nothing. */
  else<const Ops extends readonly Operation[]>(...operations: Ops): Txn<Success, Ops> {
    return new Txn(this.#engine, this.#prefix, this.#comparisons, this.#success, operations);
  }

  /**
   * Sends the transaction. Conditions that do not hold are no error, see {@link TxnResult}.
   *
   * A transaction that writes is sent once: when its answer is lost it rejects with the outcome `unknown`, and whether it happened can only
   * be read. One that only reads is repeated like any read.
   */
  commit(options?: RequestOptions): Promise<TxnResult<Success, Failure>> {
    return new Promise((resolve, reject) => {
      const request = toTxnRequest(this.#prefix, { comparisons: this.#comparisons, success: this.#success, failure: this.#failure });
      const context: TxnContext = { prefix: this.#prefix, success: this.#success, failure: this.#failure };
      // The result was read by these very operations.
      const settle = (result: AnyTxnResult): void => resolve(result as TxnResult<Success, Failure>);
      this.#engine.start(
        isReadOnly(this.#success) && isReadOnly(this.#failure) ? readTxn : writeTxn,
        request,
        context,
        options,
        settle,
        reject,
      );
    });
  }
}

interface TxnContext {
  readonly prefix: KeyPrefix;
  readonly success: readonly Operation[];
  readonly failure: readonly Operation[];
}

type TxnProcedure = Procedure<Init<TxnRequest>, TxnResponse, TxnContext, AnyTxnResult>;

const { path, input, output } = KV.methods.txn;

const writeTxn: TxnProcedure = {
  path,
  input,
  output,
  isRepeatable: false,
  result: (response, context) => toTxnResult(response, context.success, context.failure, context.prefix),
};

const readTxn: TxnProcedure = { ...writeTxn, isRepeatable: true };

function isReadOnly(operations: readonly Operation[]): boolean {
  return operations.every(
    (operation) =>
      operation.kind === 'get' ||
      operation.kind === 'list' ||
      (operation.kind === 'txn' && isReadOnly(operation.success) && isReadOnly(operation.failure)),
  );
}

function toTxnRequest(prefix: KeyPrefix, { comparisons, success, failure }: TxnParts): Init<TxnRequest> {
  return {
    compare: comparisons.map((comparison) => toCompare(prefix, comparison)),
    success: success.map((operation) => toRequestOp(prefix, operation)),
    failure: failure.map((operation) => toRequestOp(prefix, operation)),
  };
}

function toRequestOp(prefix: KeyPrefix, operation: Operation): Init<RequestOp> {
  switch (operation.kind) {
    case 'put':
      return { requestPut: toPutRequest(prefix, operation.key, operation.value, operation.options) };
    case 'get':
      return { requestRange: toGetRequest(prefix, operation.key, operation.options) };
    case 'list':
      return { requestRange: toListRequest(prefix, operation.target, operation.options) };
    case 'delete':
      return { requestDeleteRange: toDeleteRequest(prefix, operation.target, operation.options) };
    case 'txn':
      return { requestTxn: toTxnRequest(prefix, operation) };
  }
}

/**
 * Having a `then`, a builder that is awaited (or returned from an async function) would be taken for a promise and never settle: the engine
 * calls `then` with two functions. Say so instead.
 */
function assertOperations(operations: readonly unknown[]): void {
  const [, reject] = operations;
  if (typeof operations[0] !== 'function') return;
  const error = invalidArgument('a transaction is not a promise: await its commit()');
  if (typeof reject !== 'function') throw error;
  reject(error);
}
