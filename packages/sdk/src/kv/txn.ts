import { type Init, KV, type RequestOp, type TxnRequest, type TxnResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import { invalidArgument } from '../errors/conclave-error.ts';
import { type Comparison, toCompares } from './comparison.ts';
import type { KeyPrefix } from './key-range.ts';
import { OnceMarker } from './once-marker.ts';
import { toDeleteRequest, toGetRequest, toListRequest, toPutRequest } from './operation.ts';
import { headerRevision } from './result.ts';
import { type Key, toBytes } from './text.ts';
import { type AnyTxnResult, type Operation, type TxnOperation, type TxnResult, toTxnResult } from './txn-result.ts';

/** What transactions are sent with, of the client they belong to. Whoever only builds one loads nothing of it. */
export interface TxnSource {
  readonly engine: Engine;
  commitOnce(marker: OnceMarker, ttlSeconds: number, options: RequestOptions | undefined): Promise<TxnResponse>;
}

/** What a transaction is made of. */
export interface TxnParts<Success extends readonly Operation[], Failure extends readonly Operation[]> {
  readonly comparisons: readonly Comparison[];
  readonly success: Success;
  readonly failure: Failure;
}

export interface OnceOptions {
  /**
   * For how long after the commit, in seconds, a repeat is recognised; 1 or more. A commit does not go on for longer either. Default: 300.
   * What is sent again later is done again.
   */
  readonly ttlSeconds?: number | undefined;
}

/**
 * A transaction that is part of another. Begun with {@link txn}; each method returns a new one.
 *
 * @example
 * ```ts
 * await client.txn()
 *   .if(key('a').exists())
 *   .then(txn().if(key('b').exists()).then(put('both', 'yes')).else(put('both', 'no')))
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

/**
 * Begins a transaction to be used as an operation of another.
 *
 * @example
 * ```ts
 * const unlessThere = (name: string, value: string) => txn().if(key(name).missing()).then(put(name, value));
 * await client.txn().then(unlessThere('config/color', 'red'), unlessThere('config/size', 'XL')).commit();
 * ```
 */
export function txn(): NestedTxn<readonly [], readonly []> {
  return new NestedTxn([], [], []);
}

/**
 * A transaction in the making: all of it happens at one revision, or nothing does. Begun with `client.txn()`, sent by {@link Txn.commit};
 * each method returns a new one.
 *
 * @example
 * ```ts
 * const stored = await client.get('counter');
 * const result = await client.txn()
 *   .if(key('counter').modRevision.equals(stored?.modRevision ?? 0n))
 *   .then(put('counter', String(Number(stored?.value ?? 0) + 1)))
 *   .else(get('counter'))
 *   .commit();
 * console.log(result.succeeded ? 'counted' : `somebody was faster: ${result[0]?.value}`);
 * ```
 */
export class Txn<Success extends readonly Operation[], Failure extends readonly Operation[]> {
  readonly #source: TxnSource;
  readonly #prefix: KeyPrefix;
  readonly #parts: TxnParts<Success, Failure>;
  readonly #once: Once | undefined;

  /** @internal */
  constructor(source: TxnSource, prefix: KeyPrefix, parts: TxnParts<Success, Failure>, once?: Once) {
    this.#source = source;
    this.#prefix = prefix;
    this.#parts = parts;
    this.#once = once;
  }

  /** Adds conditions; all must hold. Without any, the branch `then` runs. */
  if(...comparisons: readonly Comparison[]): Txn<Success, Failure> {
    return this.#with({ ...this.#parts, comparisons: [...this.#parts.comparisons, ...comparisons] });
  }

  /** What happens when all conditions hold. */
  // biome-ignore lint/suspicious/noThenProperty: the word of the API this speaks; `assertOperations` tells an await from a branch.
  then<const Ops extends readonly Operation[]>(...operations: Ops): Txn<Ops, Failure> {
    assertOperations(operations);
    return this.#with({ ...this.#parts, success: operations });
  }

  /** What happens otherwise. Default: nothing. */
  else<const Ops extends readonly Operation[]>(...operations: Ops): Txn<Success, Ops> {
    return this.#with({ ...this.#parts, failure: operations });
  }

  /**
   * Makes it safe to repeat. The transaction leaves a mark under `id`, written with it; while the mark lives, whoever commits it again under
   * the same id, here or in another process, changes nothing and is given the answer of the first run: its branch, its revision, and what it
   * read, read again in the history. So {@link Txn.commit} sends it again by itself when its answer is lost.
   *
   * An id stands for one transaction: draw a new one for the next. Another transaction under it rejects with `once-mismatch` and does nothing.
   * It is another if anything in it differs but the leases of its puts; the `guard` of another holder makes it another, too. The mark is the key `conclave/once/txn/<id>` of the namespace, and
   * one more, `conclave/once/txn.…/<id>`, for each nested transaction; they go by themselves between `ttlSeconds` and twice as many seconds
   * later. They make a branch that only reads a write, and cost two of the operations a transaction may have (etcd: 128).
   *
   * @throws ConclaveError `invalid-argument`; from `commit` also `result-unavailable` and `once-mismatch`, see there
   * @example
   * ```ts
   * const result = await client.txn()
   *   .if(key('stock/42').value.equals('1'))
   *   .then(put('stock/42', '0'))
   *   .once('order-7')
   *   .commit(); // true or false, and certain, even if the first answer was lost
   * ```
   */
  once(id: Key, options?: OnceOptions): Txn<Success, Failure> {
    return new Txn(this.#source, this.#prefix, this.#parts, toOnce(id, options));
  }

  /**
   * Sends the transaction. Conditions that do not hold are no error, see {@link TxnResult}.
   *
   * A transaction that writes is sent once: when its answer is lost it rejects with the outcome `unknown`, and whether it happened can only
   * be read; unless it is marked, see {@link Txn.once}. One that only reads is repeated like any read.
   *
   * @throws ConclaveError `duplicate-key`, `too-many-operations`, `lease-not-found`, `unavailable`, `deadline-exceeded`, …; with a mark
   * `result-unavailable` when it was done before and the history of what it read is compacted away, or `once-mismatch` when another transaction was
   * done under its id: `details` hold `succeeded` and `revision`
   */
  commit(options?: RequestOptions): Promise<TxnResult<Success, Failure>> {
    return new Promise((resolve, reject) => {
      const { success, failure } = this.#parts;
      const request = toTxnRequest(this.#prefix, this.#parts);
      const context: TxnContext = { prefix: this.#prefix, success, failure };
      // The result was read by these very operations.
      const settle = (result: AnyTxnResult): void => resolve(result as TxnResult<Success, Failure>);
      if (this.#once !== undefined) {
        const marker = new OnceMarker(this.#prefix, this.#once.id, request);
        const { ttlSeconds } = this.#once;
        this.#source.commitOnce(marker, ttlSeconds, options).then((response) => settle(writeTxn.result(response, context)), reject);
        return;
      }
      const procedure = isReadOnly(success) && isReadOnly(failure) ? readTxn : writeTxn;
      this.#source.engine.start(procedure, request, context, options, settle, reject);
    });
  }

  #with<Then extends readonly Operation[], Else extends readonly Operation[]>(parts: TxnParts<Then, Else>): Txn<Then, Else> {
    return new Txn(this.#source, this.#prefix, parts, this.#once);
  }
}

/** The mark a transaction leaves. */
interface Once {
  readonly id: Uint8Array;
  readonly ttlSeconds: number;
}

const markerTtlSecondsDefault = 300;

function toOnce(id: Key, { ttlSeconds = markerTtlSecondsDefault }: OnceOptions = {}): Once {
  if (id.length === 0) throw invalidArgument('an id must not be empty');
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < 1)
    throw invalidArgument(`ttlSeconds must be a whole number from 1 up, not ${ttlSeconds}`);
  return { id: toBytes(id), ttlSeconds };
}

type AnyTxnParts = TxnParts<readonly Operation[], readonly Operation[]>;

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
  revision: headerRevision,
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

function toTxnRequest(prefix: KeyPrefix, { comparisons, success, failure }: AnyTxnParts): Init<TxnRequest> {
  return {
    compare: toCompares(prefix, comparisons),
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
