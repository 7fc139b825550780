import {
  bytes,
  type Client,
  type Codec,
  ConclaveError,
  connect,
  type DeleteResult,
  del,
  type Entry,
  type EntryEvent,
  type Feed,
  get,
  type HeldFunction,
  type HeldKey,
  isConclaveError,
  json,
  type KeyValue,
  key,
  type Lease,
  type ListResult,
  list,
  type Metrics,
  type Middleware,
  message,
  type Namespace,
  type Outcome,
  type PutOperation,
  type PutResult,
  prefix,
  put,
  type Scan,
  type Space,
  type StandardSchemaV1,
  type StmTransaction,
  text,
  txn,
  type ValueIssue,
  type Watch,
  type WatchCreated,
  type WatchEvent,
  type WatchProgress,
  type WatchResync,
} from '@conclave/sdk';
import { spans } from '@conclave/sdk/opentelemetry';
import { promMetrics } from '@conclave/sdk/prom-client';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { firstValueFrom, map, type Observable } from 'rxjs';

/** Fails to compile unless the two types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_proof: Same<A, B>): void {}

declare const client: Client;

export async function transactions(): Promise<void> {
  // The example of the brief: as the conditions may not hold, each position may be empty.
  const [stock, order] = await client
    .txn()
    .if(key('stock/42').value.equals('1'))
    .then(put('stock/42', '0'), put('order/7', 'item 42'))
    .commit();
  same<typeof stock, PutResult | undefined>(true);
  same<typeof order, PutResult | undefined>(true);

  const result = await client
    .txn()
    .then(put('a', ''), get('b'), list(prefix('c')), del('d'))
    .else(get('a'))
    .commit();
  if (result.succeeded) {
    const [a, b, c, d] = result;
    same<typeof a, PutResult>(true);
    same<typeof b, KeyValue | undefined>(true);
    same<typeof c, ListResult>(true);
    same<typeof d, DeleteResult>(true);
    same<typeof result.responses, readonly [PutResult, KeyValue | undefined, ListResult, DeleteResult]>(true);
    // @ts-expect-error there is no fifth operation
    const none = result.responses[4];
    same<typeof none, undefined>(true);
  } else {
    const [a] = result;
    same<typeof a, KeyValue | undefined>(true);
    same<typeof result.responses, readonly [KeyValue | undefined]>(true);
  }
  same<typeof result.revision, bigint>(true);

  const { succeeded, responses } = await client.txn().then(put('a', '')).else(del('a')).commit();
  if (succeeded) same<(typeof responses)[0], PutResult>(true);
  else same<(typeof responses)[0], DeleteResult>(true);

  const nested = await client
    .txn()
    .then(txn().if(key('x').exists()).then(put('y', '')).else(get('z'), get('w')))
    .commit();
  if (nested.succeeded) {
    const [inner] = nested;
    if (inner.succeeded) same<(typeof inner)[0], PutResult>(true);
    else same<(typeof inner)[1], KeyValue | undefined>(true);
  }

  const many: PutOperation[] = [];
  const written = await client
    .txn()
    .then(...many)
    .commit();
  if (written.succeeded) for (const one of written) same<typeof one, PutResult>(true);

  // @ts-expect-error a builder is not a result
  const never: { succeeded: boolean } = client.txn();
  void never;
  // @ts-expect-error a condition is no operation
  client.txn().then(key('a').exists());
}

export async function watches(): Promise<void> {
  const plain = client.watch(prefix('config/'));
  same<typeof plain, Watch<WatchEvent>>(true);
  const observable: Observable<WatchEvent> = plain;
  void observable;
  same<string, Awaited<ReturnType<typeof firstKey>>>(true);
  async function firstKey(): Promise<string> {
    return firstValueFrom(plain.pipe(map((event) => event.key)));
  }
  for await (const event of plain) same<typeof event, WatchEvent>(true);

  same<Emitted<ReturnType<typeof withProgress>>, WatchEvent | WatchProgress>(true);
  function withProgress() {
    return client.watch('k', { progressNotify: true, startRevision: 5n });
  }
  const notified = client.watch('k', { notifyCreated: true, prevKv: true });
  same<Emitted<typeof notified>, WatchEvent | WatchCreated>(true);
  const silent = client.watch('k', { progressNotify: false });
  same<Emitted<typeof silent>, WatchEvent>(true);
  const conflated = client.watch('k', { overflow: 'conflate' });
  same<Emitted<typeof conflated>, WatchEvent>(true);
  same<ReturnType<typeof conflated.requestProgress>, Promise<bigint>>(true);
  // @ts-expect-error there is no such way
  client.watch('k', { overflow: 'drop' });
  const relisted = client.watch('k', { onCompacted: 'relist' });
  same<Emitted<typeof relisted>, WatchEvent | WatchResync>(true);
  relisted.subscribe((event) => {
    if (event.type === 'resync') same<typeof event.scope, 'difference' | 'everything'>(true);
    else same<typeof event.isSynthesised, boolean>(true);
  });
  const failing = client.watch('k', { onCompacted: 'fail' });
  same<Emitted<typeof failing>, WatchEvent>(true);
  const either = client.watch('k', { onCompacted: 'fail' as 'fail' | 'relist' });
  same<Emitted<typeof either>, WatchEvent | WatchResync>(true);
  // @ts-expect-error there is no such way
  client.watch('k', { onCompacted: 'ignore' });
  const perhaps = client.watch('k', { progressNotify: Boolean(1) });
  same<Emitted<typeof perhaps>, WatchEvent | WatchProgress>(true);
}

type Emitted<T> = T extends Feed<infer Value> ? Value : never;

export async function leases(): Promise<void> {
  await using lease = await client.lease.grant({ ttlSeconds: 10 });
  await client.put('k', 'v', { lease });
  await client.put('k', 'v', { lease: lease.id });
  same<typeof lease.id, bigint>(true);
  same<typeof lease.signal, AbortSignal>(true);
  // @ts-expect-error a lease must last
  await client.lease.grant({});
}

export async function values(): Promise<void> {
  const { value } = (await client.get('greeting'))!;
  same<typeof value, string>(true);
  const stored = await client.get('k', { revision: 5n });
  same<typeof stored, KeyValue | undefined>(true);
  // @ts-expect-error what is read cannot be sorted
  await client.get('k', { sort: { by: 'key' } });
  // @ts-expect-error keys are text or bytes
  await client.put(42, 'v');
}

export async function scans(): Promise<void> {
  const scan = client.scan(prefix('k'), { pageSize: 10, order: 'descend', keysOnly: true, serializable: true, revision: 5 });
  same<typeof scan, Scan>(true);
  same<typeof scan.revision, bigint | undefined>(true);
  for await (const kv of scan) same<typeof kv, KeyValue>(true);
  // @ts-expect-error a scan is by key
  client.scan(prefix('k'), { sort: { by: 'value' } });
  // @ts-expect-error it goes up or down
  client.scan(prefix('k'), { order: 'sideways' });
}

export async function markedTransactions(): Promise<void> {
  // The mark changes nothing about the types, wherever in the chain it is set.
  const marked = client.txn().once('id', { ttlSeconds: 60 }).if(key('a').exists()).then(put('a', ''), get('b')).else(del('c'));
  const result = await marked.commit();
  if (result.succeeded) same<typeof result.responses, readonly [PutResult, KeyValue | undefined]>(true);
  else same<typeof result.responses, readonly [DeleteResult]>(true);
  const unmarked = client.txn().if(key('a').exists()).then(put('a', ''), get('b')).else(del('c'));
  same<typeof unmarked, typeof marked>(true);
  // @ts-expect-error an id is a key, not a number
  client.txn().once(7);
  // @ts-expect-error a nested transaction goes with the whole
  txn().once('id');
}

export async function softwareTransactions(): Promise<void> {
  const sum = await client.stm(
    async (tx) => {
      same<typeof tx, StmTransaction>(true);
      const value = await tx.get('a');
      same<typeof value, string | undefined>(true);
      same<bigint, Awaited<ReturnType<typeof tx.modRevision>>>(true);
      tx.put('a', new Uint8Array(1), { lease: 5n });
      tx.delete('b');
      // @ts-expect-error only the lease of a key can be chosen
      tx.put('a', '', { prevKv: true });
      return 7;
    },
    { isolation: 'repeatableReads', attemptsMax: 3 },
  );
  same<typeof sum, number>(true);
  const plain = await client.stm(() => 'no promise');
  same<typeof plain, string>(true);
  // @ts-expect-error there are four isolations
  await client.stm(() => {}, { isolation: 'snapshot' });
}

/** Takes the text of a number, gives the number. */
declare const numeric: StandardSchemaV1<string, number>;

export async function spaces(): Promise<void> {
  const counts = client.space('counts/', numeric);
  same<typeof counts, Space<string, number>>(true);
  await counts.put('a', '1', { lease: 5n });
  // @ts-expect-error what goes in is text
  await counts.put('a', 1);
  // @ts-expect-error what was there before may not be of the type
  await counts.put('a', '1', { prevKv: true });
  const entry = await counts.get('a');
  same<typeof entry, Entry<number> | undefined>(true);
  const { entries } = await counts.list(prefix(''), { limit: 3, sort: { by: 'modRevision' } });
  same<typeof entries, readonly Entry<number>[]>(true);
  // @ts-expect-error keys alone have no type
  await counts.list(prefix(''), { keysOnly: true });
  for await (const { value, kv } of counts.scan()) {
    same<typeof value, number>(true);
    same<typeof kv, KeyValue>(true);
  }
  same<Emitted<ReturnType<typeof counts.watch>>, EntryEvent<number>>(true);
  for await (const change of counts.watch()) {
    if (change.type === 'put') same<typeof change.value, number>(true);
    // @ts-expect-error what was deleted has no value
    else void change.value;
  }
  const notified = counts.watch(undefined, { notifyCreated: true, progressNotify: true });
  same<Emitted<typeof notified>, EntryEvent<number> | WatchCreated | WatchProgress>(true);
  const relisted = counts.watch(undefined, { onCompacted: 'relist' });
  same<Emitted<typeof relisted>, EntryEvent<number> | WatchResync>(true);

  same<ReturnType<typeof text>, Codec<string>>(true);
  same<Awaited<ReturnType<Codec<Uint8Array>['decode']>>, Uint8Array>(true);
  const words = client.space('words/', text());
  same<typeof words, Space<string, string>>(true);
  const blobs = client.namespace('x/').space('blobs/', bytes());
  same<typeof blobs, Space<Uint8Array, Uint8Array>>(true);
  const documents = client.space('documents/', json());
  await documents.put('d', { tags: ['a', null, 1] });
  // @ts-expect-error JSON has no functions
  await documents.put('d', { call: () => {} });
  const validated = client.space('validated/', json(numeric));
  same<typeof validated, Space<string, number>>(true);
  const messages = client.space('messages/', message({ encode: (n: number) => new Uint8Array(n), decode: (data) => data.length }));
  same<typeof messages, Space<number, number>>(true);
  const own = client.space('own/', { encode: (date: Date) => date.toISOString(), decode: (data: Uint8Array) => new Date(data.length) });
  same<typeof own, Space<Date, Date>>(true);
}

export function namespaces(): void {
  const view: Namespace = client.namespace('app/');
  // @ts-expect-error closing is for the client
  view.close();
  const also: Namespace = client;
  void also;
}

export async function views(): Promise<void> {
  await using view = await client.view(prefix('k'), { indexes: { owner: (kv) => kv.value, tags: (kv) => kv.value.split(',') } });
  same<Parameters<typeof view.by>[0], 'owner' | 'tags'>(true);
  // @ts-expect-error there is no such index
  view.by('color', 'red');
  const now = view.get('k');
  same<typeof now, KeyValue | undefined>(true);
  const then = view.get('k', { atLeast: 5n });
  same<typeof then, Promise<KeyValue | undefined>>(true);
  await using plain = await client.view(['a', prefix('b')]);
  // @ts-expect-error it has no index at all
  plain.by('owner', 'ann');
  plain.changes().subscribe((change) => {
    if (change.type === 'added') same<typeof change.old, undefined>(true);
    if (change.type === 'changed') same<typeof change.old, KeyValue>(true);
    if (change.type === 'removed') same<typeof change.kv, undefined>(true);
  });
  // @ts-expect-error an index is what a function says of a key
  await client.view('k', { indexes: { owner: 'owner' } });
}

export async function sessions(): Promise<void> {
  await using session = await client.session({ ttlSeconds: 10 });
  const held = session.hold('k', 'v', { ifTaken: 'overwrite' });
  same<typeof held, HeldKey>(true);
  const established = session.hold(async ({ lease, signal }) => {
    same<typeof lease, Lease>(true);
    same<typeof signal, AbortSignal>(true);
    return async () => {};
  });
  same<typeof established, HeldFunction>(true);
  // Nothing to take away.
  session.hold(async () => {});
  // @ts-expect-error what a function establishes has no value
  established.update('v');
  // @ts-expect-error a key is held with a value
  session.hold('k');
  // @ts-expect-error there is no such way
  session.hold('k', 'v', { ifTaken: 'fight' });
  const { state } = session;
  // @ts-expect-error not in every state
  void state.error;
  if (state.state === 'lost') same<typeof state.error, ConclaveError>(true);
  if (state.state === 'recovered') same<typeof state.lostMs, number>(true);
  const token = await session.handOver();
  await client.session({ from: token });
  // @ts-expect-error plain data, but not any
  await client.session({ from: { lease: 'a' } });
}

export async function consumers(): Promise<void> {
  await client.consume(prefix('k'), { cursor: 'c' }, (delivery) => {
    if (delivery.type === 'resync') same<typeof delivery.reason, 'started' | 'compacted'>(true);
    else same<typeof delivery.events, readonly WatchEvent[]>(true);
    return [put('a', ''), txn().then(del('b'))];
  });
  await client.consume(prefix('k'), { cursor: 'c' }, async () => {});
  await client.consume(prefix('k'), { cursor: 'c' }, () => {});
  // @ts-expect-error without a cursor it is a watch
  await client.consume(prefix('k'), {}, () => {});
  // @ts-expect-error what is done elsewhere does not happen once
  await client.consume(prefix('k'), { cursor: 'c' }, () => 'done');
}

export async function upkeep(): Promise<void> {
  const member = client.maintenance.at('127.0.0.1:2379');
  const { leader } = await member.status();
  same<typeof leader, bigint | undefined>(true);
  // @ts-expect-error of which member
  await client.maintenance.status();
  // @ts-expect-error there is no such right
  await client.roles.grantPermission('reader', { type: 'delete', target: 'k' });
  // @ts-expect-error a user has a password, or says that it has none
  await client.users.add('ann', {});
}

export async function observing(): Promise<void> {
  const patient: Middleware = async (call, next) => {
    await Promise.resolve();
    next();
    same<typeof call.kind, 'unary' | 'stream'>(true);
    same<typeof call.key, Uint8Array | undefined>(true);
    call.onEnd((report) => {
      same<typeof report.outcome, Outcome | undefined>(true);
      same<typeof report.error, ConclaveError | undefined>(true);
      // @ts-expect-error what happened cannot be changed
      report.outcome = 'applied';
    });
    call.onAttempt(({ after }) => same<typeof after, { readonly grpcCode: number; readonly message: string } | undefined>(true));
    // @ts-expect-error metadata is text
    call.setMetadata('x-attempt', 1);
  };
  const metrics: Metrics = promMetrics({ client: 'orders', register: new Registry() });
  await connect({ endpoints: 'a:1', middleware: [patient, spans({ propagate: true })], metrics, log: pino() });
  await connect({ endpoints: 'a:1', log: console });
  // @ts-expect-error a middleware stands in a list
  await connect({ endpoints: 'a:1', middleware: patient });
  // @ts-expect-error a log takes four levels
  await connect({ endpoints: 'a:1', log: { info() {} } });
  // @ts-expect-error a middleware returns nothing
  const wrong: Middleware = () => 7;
  void wrong;
}

export function errors(error: unknown): void {
  if (isConclaveError(error, 'compacted')) {
    same<typeof error.code, 'compacted'>(true);
    same<NonNullable<typeof error.details>['compactRevision'], bigint | undefined>(true);
  }
  if (isConclaveError(error, 'result-unavailable'))
    same<typeof error.details, { readonly succeeded: boolean; readonly revision: bigint } | undefined>(true);
  if (isConclaveError(error, 'once-mismatch')) same<NonNullable<typeof error.details>['revision'], bigint>(true);
  if (isConclaveError(error, 'invalid-value')) same<NonNullable<typeof error.details>['issues'], readonly ValueIssue[]>(true);
  if (isConclaveError(error)) same<typeof error, ConclaveError<string>>(true);
  // Packages built on this one have codes of their own.
  new ConclaveError({ code: 'lock-lost', message: '', outcome: 'not-applied' });
  // @ts-expect-error the outcome must be said
  new ConclaveError({ code: 'lock-lost', message: '' });
}
