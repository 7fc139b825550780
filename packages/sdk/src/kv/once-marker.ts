import { createHash } from 'node:crypto';
import {
  Compare_CompareTarget as CompareTarget,
  type Init,
  type RequestOp,
  TxnRequest,
  type TxnResponse,
  type KeyValue as WireKeyValue,
} from '@conclave/protocol';
import type { KeyPrefix } from './key-range.ts';
import { concatBytes, toBytes, toText } from './text.ts';

/** What is left of a first run: which branch of which transaction ran, and the revision. */
export interface FirstRun {
  readonly revision: number;
  /** Of the transaction that ran. */
  readonly fingerprint: string;
  /** By path: `txn` is the transaction itself, `txn.t1` one that is nested in it as the second operation of its branch `then`. */
  readonly branches: ReadonlyMap<string, boolean>;
}

/**
 * A transaction that leaves a mark of what it did, and does nothing where it finds one.
 *
 * Layout: the keys `conclave/once/<path>/<id>` of the namespace, one for the transaction and one for each nested in it, holding `1` when its
 * branch `then` ran and `0` when `else` did; the first of them also holds the transaction's fingerprint, after a space. They are written at the
 * revision of the transaction, after everything else in their branch.
 */
export class OnceMarker {
  readonly #prefix: KeyPrefix;
  readonly #id: Uint8Array;
  readonly #request: Init<TxnRequest>;
  readonly #paths: readonly string[];
  readonly #fingerprint: string;

  constructor(prefix: KeyPrefix, id: Uint8Array, request: Init<TxnRequest>) {
    this.#prefix = prefix;
    this.#id = id;
    this.#request = request;
    this.#paths = pathsOf(request, rootPath);
    this.#fingerprint = fingerprintOf(request);
  }

  /** What goes out: the transaction with its marks if there are none yet, else a look at them. */
  request(lease: bigint): Init<TxnRequest> {
    return {
      compare: [{ key: this.#key(rootPath), target: CompareTarget.CREATE, createRevision: 0 }],
      success: [{ requestTxn: this.marked(lease) }],
      failure: this.#paths.map((path) => ({ requestRange: { key: this.#key(path) } })),
    };
  }

  /** The transaction with its marks. */
  marked(lease: bigint): Init<TxnRequest> {
    return this.#mark(this.#request, rootPath, lease);
  }

  /** Reads the marks. */
  firstRun(response: TxnResponse): FirstRun | undefined {
    const kvs = response.responses.map(({ responseRange }): WireKeyValue | undefined => responseRange?.kvs[0]);
    const branches = new Map<string, boolean>();
    for (const [at, path] of this.#paths.entries()) {
      const kv = kvs[at];
      if (kv !== undefined) branches.set(path, toText(kv.value).startsWith(did));
    }
    const [root] = kvs;
    if (root === undefined) return undefined;
    return { revision: root.createRevision, fingerprint: toText(root.value).split(' ')[1] ?? '', branches };
  }

  /** Whether the first run was of this transaction. */
  isOf(firstRun: FirstRun): boolean {
    return firstRun.fingerprint === this.#fingerprint;
  }

  #mark(request: Init<TxnRequest>, path: string, lease: bigint): Init<TxnRequest> {
    const branch = (didSucceed: boolean): Init<RequestOp>[] => {
      const operations = branchOf(request, didSucceed).map((operation, at) =>
        operation.requestTxn === undefined
          ? operation
          : { requestTxn: this.#mark(operation.requestTxn, nestedPath(path, didSucceed, at), lease) },
      );
      const what = didSucceed ? did : didOtherwise;
      const value = toBytes(path === rootPath ? `${what} ${this.#fingerprint}` : what);
      return [...operations, { requestPut: { key: this.#key(path), value, lease } }];
    };
    return { compare: request.compare, success: branch(true), failure: branch(false) };
  }

  #key(path: string): Uint8Array {
    return this.#prefix.key(concatBytes(toBytes(`conclave/once/${path}/`), this.#id));
  }
}

export const rootPath = 'txn';

const did = '1';
const didOtherwise = '0';

export function nestedPath(path: string, didSucceed: boolean, at: number): string {
  return `${path}.${didSucceed ? 't' : 'e'}${at}`;
}

export function branchOf(request: Init<TxnRequest>, didSucceed: boolean): readonly Init<RequestOp>[] {
  return (didSucceed ? request.success : request.failure) ?? [];
}

/**
 * Tells a transaction from another, across processes: a hash of it as it is sent, but for the leases that its keys are put under. Those are the
 * process's, and another process that repeats it has others.
 */
function fingerprintOf(request: Init<TxnRequest>): string {
  return createHash('sha256')
    .update(TxnRequest.encode(withoutLeases(request)))
    .digest('hex')
    .slice(0, 32);
}

function withoutLeases({ compare, success = [], failure = [] }: Init<TxnRequest>): Init<TxnRequest> {
  const bare = ({ requestPut, requestTxn, ...operation }: Init<RequestOp>): Init<RequestOp> => {
    if (requestPut !== undefined) return { requestPut: { ...requestPut, lease: undefined } };
    return requestTxn === undefined ? operation : { requestTxn: withoutLeases(requestTxn) };
  };
  return { compare, success: success.map(bare), failure: failure.map(bare) };
}

/** The transaction's own path, then those of the transactions nested in it. */
function pathsOf(request: Init<TxnRequest>, path: string): string[] {
  const nested = [true, false].flatMap((didSucceed) =>
    branchOf(request, didSucceed).flatMap(({ requestTxn }, at) =>
      requestTxn === undefined ? [] : pathsOf(requestTxn, nestedPath(path, didSucceed, at)),
    ),
  );
  return [path, ...nested];
}

/** The answer without the answers to the marks. */
export function unmarked(response: TxnResponse): TxnResponse {
  const responses = response.responses
    .slice(0, -1)
    .map((one) => (one.responseTxn === undefined ? one : { ...one, responseTxn: unmarked(one.responseTxn) }));
  return { ...response, responses };
}
