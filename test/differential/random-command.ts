import {
  type Compare,
  type DeleteRangeRequest,
  type Init,
  KV,
  Lease,
  type MethodDescriptor,
  type PutRequest,
  prefixEnd,
  RangeRequest,
  type RequestOp,
  TxnRequest,
  type WatchCreateRequest,
} from '@conclave/protocol';
import type { Answer, RawClient } from '@conclave/testkit';
import fc from 'fast-check';
import { bytes } from '../conformance/context.ts';
import { anyErrorOfBranch, leasesUnordered, rangeByRule, remainingTimeAndKeysUnordered, shown, txnByRule } from './shown.ts';

/** Where both stores are when a command is sent: commands name revisions by their distance from these. */
export interface Position {
  readonly revision: number;
  readonly compacted: number;
}

/** A unary call and how its answer is compared. */
export interface Call {
  readonly kind: 'call';
  readonly what: string;
  /** Compaction: no watcher may be behind it, for whether one makes it in time is chance. */
  readonly settlesFirst: boolean;
  /** The revision that is the compacted one if the call succeeds. */
  readonly compactsTo?: number;
  send(client: RawClient): Promise<{ readonly shown: string; readonly revision: number }>;
}

export type Command =
  | Call
  | { readonly kind: 'watch'; readonly stream: number; readonly request: Init<WatchCreateRequest> }
  | { readonly kind: 'cancel'; readonly stream: number; readonly watchId: bigint }
  | { readonly kind: 'progress'; readonly stream: number }
  | { readonly kind: 'keepAlive'; readonly id: bigint }
  | { readonly kind: 'passingLease'; readonly id: bigint; readonly ttl: number };

/** A part of a command that is known once the position is. */
type At<T> = (position: Position) => T;

/** Watch streams of one sequence. */
export const streams = 2;

// ---- the alphabet: small, so that commands meet ----

const long = 'k/'.padEnd(1978, 'l');
const keys = ['a', 'a/', 'a/1', 'a/2', 'a/2/x', 'b', 'b/1', '\u00ff', long, `${long}m`].map((key) =>
  Uint8Array.from(Buffer.from(key, 'latin1')),
);
const ends = [...keys, ...keys.map(prefixEnd), bytes('c'), bytes('l')];
const zero = new Uint8Array([0]);
const none = new Uint8Array(0);
const leaseIds = [1n, 2n, 3n, 0x7fff_ffff_ffff_fff1n, -7n];
const watchIds = [1n, 2n, 3n, 70n];

const key: fc.Arbitrary<Uint8Array> = fc.oneof(
  { weight: 60, arbitrary: fc.constantFrom(...keys.slice(0, 8)) },
  { weight: 12, arbitrary: fc.constantFrom(...keys.slice(8)) },
  { weight: 1, arbitrary: fc.constantFrom(none, zero, bytes('missing')) },
);
const rangeEnd: fc.Arbitrary<Uint8Array> = fc.oneof(
  { weight: 4, arbitrary: fc.constant(none) },
  { weight: 4, arbitrary: fc.constantFrom(...ends) },
  { weight: 3, arbitrary: fc.constant(zero) },
);
/** A key and an end; every key there is, often enough. */
const interval = fc.oneof(
  { weight: 4, arbitrary: fc.record({ key, rangeEnd }) },
  { weight: 2, arbitrary: key.map((start) => ({ key: start, rangeEnd: prefixEnd(start) })) },
  { weight: 2, arbitrary: fc.constant({ key: zero, rangeEnd: zero }) },
);
const value: fc.Arbitrary<Uint8Array> = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom('', 'x', 'y', 'yy', 'z').map(bytes) },
  { weight: 1, arbitrary: fc.constant(bytes('v'.repeat(3_000))) },
);
const seldom = fc.integer({ min: 0, max: 5 }).map((one) => one === 5);
const anyLease = fc.constantFrom(...leaseIds);
const optionalLease = fc.oneof(
  { weight: 5, arbitrary: fc.constant(0n) },
  { weight: 4, arbitrary: anyLease },
  { weight: 1, arbitrary: fc.constant(99n) },
);

const before = (most: number): fc.Arbitrary<At<number>> =>
  fc.nat(most).map(
    (by) =>
      ({ revision }) =>
        Math.max(1, revision - by),
  );
const aboutCompacted = fc.integer({ min: -1, max: 3 }).map(
  (by): At<number> =>
    ({ compacted }) =>
      Math.max(1, compacted + by),
);
const ahead = fc.integer({ min: 1, max: 4 }).map(
  (by): At<number> =>
    ({ revision }) =>
      revision + by,
);
const always = (revision: number): fc.Arbitrary<At<number>> => fc.constant(() => revision);
const revision: fc.Arbitrary<At<number>> = fc.oneof(
  { weight: 12, arbitrary: always(0) },
  { weight: 6, arbitrary: before(20) },
  { weight: 2, arbitrary: aboutCompacted },
  { weight: 1, arbitrary: ahead },
  { weight: 1, arbitrary: always(-1) },
);
const bound: fc.Arbitrary<At<number>> = fc.oneof(
  { weight: 9, arbitrary: always(0) },
  { weight: 3, arbitrary: before(30) },
  { weight: 1, arbitrary: fc.oneof(ahead, always(-1)) },
);

// ---- requests ----

const range: fc.Arbitrary<At<Init<RangeRequest>>> = fc
  .record({
    interval,
    limit: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 3, arbitrary: fc.integer({ min: -1, max: 6 }) }),
    revision,
    sortOrder: fc.integer({ min: 0, max: 2 }),
    sortTarget: fc.integer({ min: 0, max: 4 }),
    serializable: fc.boolean(),
    keysOnly: seldom,
    countOnly: seldom,
    bounds: fc.tuple(bound, bound, bound, bound),
  })
  .map(({ interval, revision, bounds, ...plain }) => (position) => ({
    ...interval,
    ...plain,
    revision: revision(position),
    minModRevision: bounds[0](position),
    maxModRevision: bounds[1](position),
    minCreateRevision: bounds[2](position),
    maxCreateRevision: bounds[3](position),
  }));

const plainPut = fc.record({ key, value, lease: optionalLease, prevKv: fc.boolean() });
const flaggedPut = fc.record({
  key,
  value: fc.oneof({ weight: 3, arbitrary: fc.constant(none) }, { weight: 1, arbitrary: value }),
  lease: fc.oneof({ weight: 3, arbitrary: fc.constant(0n) }, { weight: 1, arbitrary: optionalLease }),
  prevKv: fc.boolean(),
  ignoreValue: fc.boolean(),
  ignoreLease: fc.boolean(),
});
const put: fc.Arbitrary<Init<PutRequest>> = fc.oneof({ weight: 4, arbitrary: plainPut }, { weight: 1, arbitrary: flaggedPut });

/** Mostly of few keys, or hardly any would be left. */
const deleteRange: fc.Arbitrary<Init<DeleteRangeRequest>> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ key, prevKv: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ interval, prevKv: fc.boolean() }).map(({ interval, prevKv }) => ({ ...interval, prevKv })) },
);

/** What a key is compared with; the union member need not be the target's. */
const operand: fc.Arbitrary<At<Init<Compare>>> = fc.oneof(
  fc.integer({ min: 0, max: 4 }).map(
    (version): At<Init<Compare>> =>
      () => ({ target: 0, version }),
  ),
  bound.map(
    (revision): At<Init<Compare>> =>
      (position) => ({ target: 1, createRevision: revision(position) }),
  ),
  bound.map(
    (revision): At<Init<Compare>> =>
      (position) => ({ target: 2, modRevision: revision(position) }),
  ),
  value.map(
    (value): At<Init<Compare>> =>
      () => ({ target: 3, value }),
  ),
  optionalLease.map(
    (lease): At<Init<Compare>> =>
      () => ({ target: 4, lease }),
  ),
  fc.integer({ min: 0, max: 4 }).map(
    (target): At<Init<Compare>> =>
      () => ({ target }),
  ),
);
const compare: fc.Arbitrary<At<Init<Compare>>> = fc
  .record({ interval: fc.oneof(fc.record({ key }), interval), result: fc.integer({ min: 0, max: 3 }), operand })
  .map(({ interval, result, operand }) => (position) => ({ ...interval, result, ...operand(position) }));

const { txn } = fc.letrec<{ txn: At<Init<TxnRequest>>; op: At<Init<RequestOp>> }>((tie) => ({
  txn: fc
    .record({
      compare: fc.array(compare, { maxLength: 3 }),
      success: fc.array(tie('op'), { maxLength: 4 }),
      failure: fc.array(tie('op'), { maxLength: 4 }),
    })
    .map(({ compare, success, failure }) => (position) => ({
      compare: compare.map((one) => one(position)),
      success: success.map((one) => one(position)),
      failure: failure.map((one) => one(position)),
    })),
  op: fc.oneof(
    { maxDepth: 2, depthIdentifier: 'nested' },
    {
      weight: 4,
      arbitrary: put.map(
        (requestPut): At<Init<RequestOp>> =>
          () => ({ requestPut }),
      ),
    },
    {
      weight: 4,
      arbitrary: range.map(
        (request): At<Init<RequestOp>> =>
          (position) => ({ requestRange: request(position) }),
      ),
    },
    {
      weight: 2,
      arbitrary: deleteRange.map(
        (requestDeleteRange): At<Init<RequestOp>> =>
          () => ({ requestDeleteRange }),
      ),
    },
    {
      weight: 2,
      arbitrary: tie('txn').map(
        (request): At<Init<RequestOp>> =>
          (position) => ({ requestTxn: request(position) }),
      ),
    },
    {
      weight: 1,
      arbitrary: fc.integer({ min: 0, max: 19 }).map(
        (one): At<Init<RequestOp>> =>
          () =>
            one === 0 ? {} : { requestPut: { key: bytes(`t${one}`) } },
      ),
    },
  ),
}));
/** At the greatest number of operations, and past it. */
const crowdedTxn = fc.constantFrom(128, 129).map(
  (count): At<Init<TxnRequest>> =>
    () => {
      return { success: Array.from({ length: count }, (_, at) => ({ requestPut: { key: bytes(`t${at}`) } })) };
    },
);

const compactTo: fc.Arbitrary<At<number>> = fc.oneof(
  { weight: 8, arbitrary: before(40) },
  { weight: 2, arbitrary: aboutCompacted },
  ahead,
  always(0),
  always(-1),
);

const watchStart: fc.Arbitrary<At<number>> = fc.oneof(
  { weight: 5, arbitrary: always(0) },
  { weight: 5, arbitrary: before(60) },
  { weight: 2, arbitrary: aboutCompacted },
  { weight: 1, arbitrary: ahead },
  { weight: 1, arbitrary: always(-1) },
);
const watch: fc.Arbitrary<At<Init<WatchCreateRequest>>> = fc
  .record({
    interval,
    startRevision: watchStart,
    filters: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: fc.array(fc.nat(1), { maxLength: 2 }) }),
    prevKv: fc.boolean(),
    fragment: fc.boolean(),
    watchId: fc.oneof({ weight: 3, arbitrary: fc.constant(0n) }, { weight: 4, arbitrary: fc.constantFrom(...watchIds) }),
  })
  .map(({ interval, startRevision, ...plain }) => (position) => ({ ...interval, ...plain, startRevision: startRevision(position) }));

// ---- commands ----

const stream = fc.nat(streams - 1);
const ttl = fc.constantFrom(5_000, 6_000, 9_000_000_000, 9_000_000_001);
const { range: rangeMethod, put: putMethod, deleteRange: deleteMethod, txn: txnMethod, compact: compactMethod } = KV.methods;
const { leaseGrant, leaseRevoke, leaseTimeToLive, leaseLeases } = Lease.methods;

/** One command of a sequence. */
export const command: fc.Arbitrary<At<Command>> = fc.oneof(
  { weight: 30, arbitrary: put.map((request) => () => call(putMethod, request)) },
  { weight: 30, arbitrary: range.map((request) => (position: Position) => rangeCall(request(position))) },
  { weight: 10, arbitrary: deleteRange.map((request) => () => call(deleteMethod, request)) },
  { weight: 30, arbitrary: txn.map((request) => (position: Position) => txnCall(request(position))) },
  { weight: 1, arbitrary: crowdedTxn.map((request) => (position: Position) => txnCall(request(position))) },
  {
    weight: 2,
    arbitrary: fc.tuple(compactTo, fc.boolean()).map(
      ([revision, physical]) =>
        (position: Position) =>
          compactCall(revision(position), physical),
    ),
  },
  { weight: 8, arbitrary: fc.record({ id: anyLease, ttl }).map((request) => () => call(leaseGrant, request)) },
  { weight: 4, arbitrary: fc.record({ id: fc.oneof(anyLease, optionalLease) }).map((request) => () => call(leaseRevoke, request)) },
  {
    weight: 5,
    arbitrary: fc
      .record({ id: fc.oneof(anyLease, optionalLease), keys: fc.boolean() })
      .map((request) => () => call(leaseTimeToLive, request, remainingTimeAndKeysUnordered)),
  },
  { weight: 2, arbitrary: fc.constant(() => call(leaseLeases, {}, leasesUnordered)) },
  { weight: 2, arbitrary: optionalLease.map((id) => (): Command => ({ kind: 'keepAlive', id })) },
  {
    weight: 2,
    arbitrary: fc
      .record({ id: fc.constantFrom(0n, 1n, 8n), ttl: fc.integer({ min: -5, max: 4 }) })
      .map((lease) => (): Command => ({ kind: 'passingLease', ...lease })),
  },
  {
    weight: 5,
    arbitrary: fc.record({ stream, watch }).map(
      ({ stream, watch }) =>
        (position: Position): Command => ({ kind: 'watch', stream, request: watch(position) }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.record({ stream, watchId: fc.constantFrom(0n, ...watchIds) }).map((one) => (): Command => ({ kind: 'cancel', ...one })),
  },
  { weight: 2, arbitrary: stream.map((stream) => (): Command => ({ kind: 'progress', stream })) },
);

/** A put that changes nothing a command looks at but the revision. */
export function bump(): Call {
  return call(putMethod, { key: bytes('zz-bump') });
}

/** What the reproduction of a failure is told by. */
export function describeCommand(one: Command): string {
  if (one.kind === 'call') return one.what;
  return shown(one);
}

export function call<I, O extends { readonly header: { readonly revision: number } | undefined }>(
  method: MethodDescriptor<I, O, false, false>,
  request: Init<I>,
  rule: (response: O) => unknown = (response) => response,
  error: (status: string, message: string) => string = (status) => status,
): Call {
  return {
    kind: 'call',
    what: `${method.path} ${shown(request)}`,
    settlesFirst: false,
    send: async (client) => {
      const answer = await client.unary(method, request);
      return { shown: shownAnswer(answer, rule, error), revision: answer.response?.header?.revision ?? 0 };
    },
  };
}

function shownAnswer<O>(
  { code, message, response }: Answer<O>,
  rule: (response: O) => unknown,
  error: (status: string, message: string) => string,
): string {
  return response === undefined ? error(`${code} ${message}`, message) : shown(rule(response));
}

function rangeCall(request: Init<RangeRequest>): Call {
  const full = RangeRequest.create(request);
  return call(rangeMethod, request, (response) => rangeByRule(full, response));
}

function txnCall(request: Init<TxnRequest>): Call {
  const full = TxnRequest.decode(TxnRequest.encode(request));
  if (hasDelete(full)) keepEtcdAlive(full);
  return call(
    txnMethod,
    full,
    (response) => txnByRule(full, response),
    (status, message) => anyErrorOfBranch(full, status, message),
  );
}

/**
 * Two mixtures of delete and put in a txn end the process of etcd 3.5 and are not sent. One is a put that keeps what an earlier operation of
 * its txn has deleted. The other is a key deleted by a range without end, which the rule against duplicate keys overlooks, and put again:
 * compaction at just that revision loses it.
 */
function keepEtcdAlive({ success, failure }: TxnRequest): void {
  for (const { requestPut, requestDeleteRange, requestTxn } of [...success, ...failure]) {
    if (requestPut !== undefined) Object.assign(requestPut, { ignoreValue: false, ignoreLease: false });
    if (requestDeleteRange?.rangeEnd[0] === 0) requestDeleteRange.rangeEnd = new Uint8Array([0xff, 0xff]);
    if (requestTxn !== undefined) keepEtcdAlive(requestTxn);
  }
}

function hasDelete({ success, failure }: TxnRequest): boolean {
  return [...success, ...failure].some((one) => one.requestDeleteRange !== undefined || (one.requestTxn && hasDelete(one.requestTxn)));
}

function compactCall(revision: number, physical: boolean): Call {
  return { ...call(compactMethod, { revision, physical }), settlesFirst: true, compactsTo: revision };
}
