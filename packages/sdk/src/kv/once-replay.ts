import {
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  type Init,
  type PutRequest,
  type RangeRequest,
  type RangeResponse,
  type RequestOp,
  ResponseOp,
  type TxnRequest,
  TxnResponse,
} from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import type { WireRange } from './key-range.ts';
import { branchOf, type FirstRun, nestedPath, rootPath } from './once-marker.ts';
import { readRange } from './read-range.ts';
import { noBytes } from './text.ts';

/** A write of the first run, and its place among all operations of it. */
interface Write extends WireRange {
  readonly at: number;
  readonly kind: 'put' | 'delete' | 'mark';
}

/**
 * Says again what a transaction answered: which branches ran is marked, the revision is that of the mark, and what it read or replaced is
 * still in the history. Operations see what those before them wrote, so that what a read saw is either what the transaction left behind, or,
 * if something of it was only written later, what it found.
 */
export class OnceReplay {
  readonly #engine: Engine;
  readonly #firstRun: FirstRun;
  readonly #options: RequestOptions | undefined;
  readonly #writes: Write[] = [];
  /** The place of the operation in hand. */
  #at = 0;
  #hasWritten = false;

  constructor(engine: Engine, firstRun: FirstRun, options: RequestOptions | undefined) {
    this.#engine = engine;
    this.#firstRun = firstRun;
    this.#options = options;
  }

  /**
   * The answer to a transaction, as it was with its marks.
   *
   * @throws ConclaveError `result-unavailable` when the history that is needed is compacted away
   */
  async response(marked: Init<TxnRequest>): Promise<TxnResponse> {
    this.#collect(marked, rootPath);
    this.#at = 0;
    return await this.#txn(marked, rootPath);
  }

  #collect(request: Init<TxnRequest>, path: string): void {
    const didSucceed = this.#didSucceed(path);
    const operations = branchOf(request, didSucceed);
    for (const [nth, { requestPut, requestDeleteRange, requestTxn }] of operations.entries()) {
      if (requestTxn !== undefined) {
        this.#collect(requestTxn, nestedPath(path, didSucceed, nth));
        continue;
      }
      const at = this.#at++;
      const isMark = nth === operations.length - 1;
      if (requestPut !== undefined) this.#writes.push({ ...wireRange(requestPut), at, kind: isMark ? 'mark' : 'put' });
      if (requestDeleteRange !== undefined) this.#writes.push({ ...wireRange(requestDeleteRange), at, kind: 'delete' });
    }
  }

  async #txn(request: Init<TxnRequest>, path: string): Promise<TxnResponse> {
    const succeeded = this.#didSucceed(path);
    const responses: ResponseOp[] = [];
    // One after the other: what a deletion did tells at which revision those after it saw the store.
    for (const [nth, operation] of branchOf(request, succeeded).entries())
      responses.push(await this.#operation(operation, nestedPath(path, succeeded, nth)));
    return { ...TxnResponse.create({ succeeded, header: { revision: this.#firstRun.revision } }), responses };
  }

  async #operation(operation: Init<RequestOp>, path: string): Promise<ResponseOp> {
    const { requestPut, requestRange, requestDeleteRange, requestTxn } = operation;
    if (requestTxn !== undefined) return { ...ResponseOp.create(), responseTxn: await this.#txn(requestTxn, path) };
    try {
      if (requestRange !== undefined) return { ...ResponseOp.create(), responseRange: await this.#range(requestRange) };
      if (requestDeleteRange !== undefined) return { ...ResponseOp.create(), responseDeleteRange: await this.#delete(requestDeleteRange) };
      return ResponseOp.create({ responsePut: await this.#put(requestPut ?? {}) });
    } finally {
      this.#at++;
    }
  }

  async #put(request: Init<PutRequest>): Promise<Init<ResponseOp['responsePut']>> {
    const prevKv = request.prevKv === true ? (await this.#before({ key: request.key, rangeEnd: noBytes })).kvs[0] : undefined;
    this.#hasWritten = true;
    return { header: this.#header(), prevKv };
  }

  async #range(request: Init<RangeRequest>): Promise<RangeResponse> {
    const header = this.#header();
    if (request.revision) return { ...(await this.#read({ ...request, serializable: false })), header };
    const touching = this.#writes.filter((write) => overlaps(write, wireRange(request)));
    const later = touching.filter(({ at }) => at > this.#at);
    if (later.some(({ kind }) => kind !== 'mark')) {
      if (touching.some(({ at }) => at < this.#at)) throw this.#unavailable('it reads a range between two writes to it');
      return { ...(await this.#before({ ...request, serializable: false })), header };
    }
    const limit = request.limit ? request.limit + later.length : 0;
    const after = await this.#read({ ...request, limit, revision: this.#firstRun.revision, serializable: false });
    return { ...without(after, later, request.limit ?? 0), header };
  }

  async #delete(request: Init<DeleteRangeRequest>): Promise<DeleteRangeResponse> {
    const { key, rangeEnd, prevKv } = request;
    const { kvs } = await this.#before({ key, rangeEnd, keysOnly: prevKv !== true });
    const gone = this.#writes.filter((write) => write.kind === 'delete' && write.at < this.#at);
    const prevKvs = kvs.filter((kv) => !gone.some((write) => overlaps(write, { key: kv.key, rangeEnd: noBytes })));
    if (prevKvs.length > 0) this.#hasWritten = true;
    return { header: this.#header(), deleted: prevKvs.length, prevKvs: prevKv === true ? prevKvs : [] };
  }

  /** What the transaction found. */
  #before(request: Init<RangeRequest>): Promise<RangeResponse> {
    return this.#read({ ...request, revision: this.#firstRun.revision - 1 });
  }

  async #read(request: Init<RangeRequest>): Promise<RangeResponse> {
    try {
      return await readRange(this.#engine, request, this.#options);
    } catch (error) {
      if (isConclaveError(error, 'compacted')) throw this.#unavailable('its revision is compacted away', error);
      throw error;
    }
  }

  /** What the store's revision was for the operation in hand. */
  #header(): RangeResponse['header'] {
    const revision = this.#firstRun.revision - (this.#hasWritten ? 0 : 1);
    return { clusterId: 0n, memberId: 0n, raftTerm: 0, revision };
  }

  #didSucceed(path: string): boolean {
    return this.#firstRun.branches.get(path) === true;
  }

  #unavailable(why: string, cause?: unknown): ConclaveError<'result-unavailable'> {
    return new ConclaveError({
      code: 'result-unavailable',
      message: `the transaction was done before, but what it read cannot be read again: ${why}`,
      outcome: 'applied',
      cause,
      details: { succeeded: this.#didSucceed(rootPath), revision: BigInt(this.#firstRun.revision) },
    });
  }
}

/** A range as it was before these keys were added to it, of which so many more were read. */
function without(response: RangeResponse, added: readonly WireRange[], limit: number): RangeResponse {
  const kvs = response.kvs.filter(({ key }) => !added.some((one) => Buffer.compare(one.key, key) === 0));
  const isCut = limit > 0 && kvs.length > limit;
  return { ...response, kvs: isCut ? kvs.slice(0, limit) : kvs, more: response.more || isCut, count: response.count - added.length };
}

function wireRange({ key, rangeEnd }: { readonly key?: Uint8Array | undefined; readonly rangeEnd?: Uint8Array | undefined }): WireRange {
  return { key: key ?? noBytes, rangeEnd: rangeEnd ?? noBytes };
}

function overlaps(one: WireRange, other: WireRange): boolean {
  return startsBelowEnd(one, other) && startsBelowEnd(other, one);
}

/** Whether `one` begins before `other` ends. No end is one key; a lone zero byte is no bound. */
function startsBelowEnd(one: WireRange, other: WireRange): boolean {
  const { rangeEnd, key } = other;
  if (rangeEnd.length === 0) return Buffer.compare(one.key, key) <= 0;
  return (rangeEnd.length === 1 && rangeEnd[0] === 0) || Buffer.compare(one.key, rangeEnd) < 0;
}
