import assert from 'node:assert/strict';
import {
  Auth,
  allKeys,
  Cluster,
  type Compare,
  type Event,
  type Init,
  type KeyValue,
  KV,
  Lease,
  Maintenance,
  type MethodDescriptor,
  type RangeRequest,
  type RangeResponse,
  type RequestOp,
  type ResponseOp,
  type TxnResponse,
  Watch,
  type WatchCreateRequest,
  type WatchRequest,
  type WatchResponse,
  type WireErrorKey,
  wireErrors,
} from '@conclave/protocol';
import { type Answer, type RawCallOptions, RawClient, type RawStream } from '@conclave/testkit';
import type { StartedTarget } from './target.ts';

export const methods = {
  ...KV.methods,
  ...Lease.methods,
  ...Cluster.methods,
  ...Maintenance.methods,
  ...Auth.methods,
  ...Watch.methods,
};

const encoder = new TextEncoder();

export function bytes(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Readable where it can be, and short: long or binary data is told by length and its ends. */
export function text(data: Uint8Array): string {
  const plain = Buffer.from(data).toString('latin1');
  if (plain.length <= 48 && /^[\x20-\x7e]*$/.test(plain)) return plain;
  if (plain.length <= 24) return `0x${Buffer.from(data).toString('hex')}`;
  return `<${data.length} bytes ${Buffer.from(data.subarray(0, 4)).toString('hex')}..${Buffer.from(data.subarray(-4)).toString('hex')}>`;
}

/** What a case works with: one connection to the server under test, and every revision told relative to where the case began. */
export class Context implements Disposable {
  readonly server: StartedTarget;
  readonly client: RawClient;
  /** Revision of the store when the case began. */
  readonly base: number;
  readonly #opened: RawClient[] = [];

  private constructor(server: StartedTarget, client: RawClient, base: number) {
    this.server = server;
    this.client = client;
    this.base = base;
  }

  /** Empties the store and takes the revision it then has as the base. */
  static async begin(server: StartedTarget): Promise<Context> {
    const client = new RawClient(server.connect());
    const { leases } = good(await client.unary(methods.leaseLeases, {}));
    for (const { id } of leases) await client.unary(methods.leaseRevoke, { id });
    let { header, count } = good(await client.unary(methods.range, { ...allKeys(), countOnly: true }));
    if (count > 0) ({ header } = good(await client.unary(methods.deleteRange, allKeys())));
    return new Context(server, client, header?.revision ?? 0);
  }

  /** Another connection to the same server, closed with the case. */
  another(): RawClient {
    const client = new RawClient(this.server.connect());
    this.#opened.push(client);
    return client;
  }

  [Symbol.dispose](): void {
    this.client.connection.close();
    for (const client of this.#opened) client.connection.close();
  }

  // ---- sending ----

  call<I, O>(method: MethodDescriptor<I, O, false, false>, request: Init<I>, options?: RawCallOptions): Promise<Answer<O>> {
    return this.client.unary(method, request, options);
  }

  /** The response of a call that must succeed. */
  async ok<I, O>(method: MethodDescriptor<I, O, false, false>, request: Init<I>, options?: RawCallOptions): Promise<O> {
    return good(await this.call(method, request, options));
  }

  /** A call that must fail with the table's code and text. */
  async fails<I, O>(
    method: MethodDescriptor<I, O, false, false>,
    request: Init<I>,
    key: WireErrorKey,
    options?: RawCallOptions,
  ): Promise<void> {
    assert.equal(status(await this.call(method, request, options)), expectedStatus(key));
  }

  /** Puts and gives the revision it made, relative to the base. */
  async put(key: string, value: string, lease = 0n): Promise<number> {
    const { header } = await this.ok(methods.put, { key: bytes(key), value: bytes(value), lease });
    return this.relative(header?.revision);
  }

  /** `a=1` puts, `-a` deletes: one revision each. */
  async write(...writes: readonly string[]): Promise<void> {
    for (const one of writes) {
      if (one.startsWith('-')) await this.ok(methods.deleteRange, { key: bytes(one.slice(1)) });
      else await this.put(one.slice(0, one.indexOf('=')), one.slice(one.indexOf('=') + 1));
    }
  }

  async range(request: Init<RangeRequest>): Promise<ShownRange> {
    return this.shownRange(await this.ok(methods.range, request));
  }

  /** Every key, in the form of {@link shownKv}. */
  async all(): Promise<readonly string[]> {
    return (await this.range(allKeys())).kvs;
  }

  async txn(
    compare: readonly Init<Compare>[],
    success: readonly Init<RequestOp>[],
    failure: readonly Init<RequestOp>[] = [],
  ): Promise<ShownTxn> {
    return this.shownTxn(await this.ok(methods.txn, { compare, success, failure }));
  }

  async grant(ttl = 60, id = 0n): Promise<bigint> {
    return (await this.ok(methods.leaseGrant, { ttl, id })).id;
  }

  watch(options?: RawCallOptions): WatchStream {
    return new WatchStream(this, this.client.stream(methods.watch, options));
  }

  // ---- showing ----

  /** A revision as the distance from the base; 0 stays 0 where the field was not set. */
  relative(revision: number | undefined): number {
    return revision === undefined || revision === 0 ? Number.NaN : revision - this.base;
  }

  /** `key=value c1 m2 v2`, and the lease if it has one. */
  shownKv(kv: KeyValue): string {
    const lease = kv.lease === 0n ? '' : ` l${kv.lease}`;
    return `${text(kv.key)}=${text(kv.value)} c${this.#point(kv.createRevision)} m${this.#point(kv.modRevision)} v${kv.version}${lease}`;
  }

  shownRange(response: RangeResponse): ShownRange {
    return { kvs: response.kvs.map((kv) => this.shownKv(kv)), count: response.count, more: response.more };
  }

  shownTxn(response: TxnResponse): ShownTxn {
    return { succeeded: response.succeeded, responses: response.responses.map((op) => this.#shownOp(op)) };
  }

  /** `PUT a=1 c1 m1 v1`, with ` <- ` and the previous pair if it came along. */
  shownEvent(event: Event): string {
    const what = event.type === 0 ? 'PUT' : 'DELETE';
    const before = event.prevKv === undefined ? '' : ` <- ${this.shownKv(event.prevKv)}`;
    return `${what} ${event.kv === undefined ? 'nothing' : this.shownKv(event.kv)}${before}`;
  }

  #point(revision: number): number {
    return revision === 0 ? 0 : revision - this.base;
  }

  #shownOp(op: ResponseOp): ShownOp {
    if (op.responseRange) return { range: this.shownRange(op.responseRange) };
    if (op.responsePut) return { put: op.responsePut.prevKv ? this.shownKv(op.responsePut.prevKv) : '' };
    if (op.responseDeleteRange)
      return { deleted: op.responseDeleteRange.deleted, prevKvs: op.responseDeleteRange.prevKvs.map((kv) => this.shownKv(kv)) };
    if (op.responseTxn) return { txn: this.shownTxn(op.responseTxn) };
    return {};
  }
}

export interface ShownRange {
  readonly kvs: readonly string[];
  readonly count: number;
  readonly more: boolean;
}

export interface ShownTxn {
  readonly succeeded: boolean;
  readonly responses: readonly ShownOp[];
}

export interface ShownOp {
  readonly range?: ShownRange;
  readonly put?: string;
  readonly deleted?: number;
  readonly prevKvs?: readonly string[];
  readonly txn?: ShownTxn;
}

/** A Watch stream and what cases ask of it. */
export class WatchStream implements Disposable {
  readonly raw: RawStream<WatchRequest, WatchResponse>;
  readonly #context: Context;

  constructor(context: Context, raw: RawStream<WatchRequest, WatchResponse>) {
    this.#context = context;
    this.raw = raw;
  }

  next(timeoutMs?: number): Promise<WatchResponse> {
    return this.raw.next(timeoutMs);
  }

  /** Asks for a watch and takes the next response, which must be the `created` one. */
  async create(request: Init<WatchCreateRequest>): Promise<WatchResponse> {
    this.raw.send({ createRequest: request });
    const response = await this.next();
    assert.equal(response.created, true, 'the first response to a create request is the created one');
    return response;
  }

  /** Asks for a watch and gives the whole first response, whatever it is. */
  ask(request: Init<WatchCreateRequest>): Promise<WatchResponse> {
    this.raw.send({ createRequest: request });
    return this.next();
  }

  cancel(watchId: bigint): void {
    this.raw.send({ cancelRequest: { watchId } });
  }

  progress(): void {
    this.raw.send({ progressRequest: {} });
  }

  /** The events of the next `count` events' worth of responses, shown, in order of arrival. Fails on any response without events. */
  async events(count: number): Promise<readonly string[]> {
    const shown: string[] = [];
    while (shown.length < count) {
      const response = await this.next();
      assert.equal(response.canceled, false, `the watch was canceled: ${response.cancelReason}`);
      assert.notEqual(response.events.length, 0, 'a response without events came instead of one with events');
      shown.push(...response.events.map((event) => this.#context.shownEvent(event)));
    }
    return shown;
  }

  [Symbol.dispose](): void {
    this.raw.cancel();
  }
}

function good<O>(answer: Answer<O>): O {
  assert.equal(status(answer), '0 ');
  assert.ok(answer.response !== undefined);
  return answer.response;
}

/** `code text`, so that a mismatch shows both. */
export function status(end: { readonly code: number; readonly message: string }): string {
  return `${end.code} ${end.message}`;
}

function expectedStatus(key: WireErrorKey): string {
  return status(wireErrors[key]);
}

// ---- requests, short ----

export const op = {
  put: (
    key: string,
    value: string,
    more: Init<{ lease: bigint; prevKv: boolean; ignoreValue: boolean; ignoreLease: boolean }> = {},
  ): Init<RequestOp> => ({
    requestPut: { key: bytes(key), value: bytes(value), ...more },
  }),
  get: (key: string, more: Init<RangeRequest> = {}): Init<RequestOp> => ({ requestRange: { key: bytes(key), ...more } }),
  del: (key: string, more: Init<{ rangeEnd: Uint8Array; prevKv: boolean }> = {}): Init<RequestOp> => ({
    requestDeleteRange: { key: bytes(key), ...more },
  }),
  txn: (
    compare: readonly Init<Compare>[],
    success: readonly Init<RequestOp>[],
    failure: readonly Init<RequestOp>[] = [],
  ): Init<RequestOp> => ({
    requestTxn: { compare, success, failure },
  }),
};
