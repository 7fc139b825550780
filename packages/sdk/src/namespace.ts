import type { Runtime } from '@conclave/wire';
import type { RequestOptions } from './connection/procedure.ts';
import type { Target } from './kv/key-range.ts';
import type { KeyValue } from './kv/key-value.ts';
import type { CompactOptions } from './kv/kv-client.ts';
import type { DeleteOptions, GetOptions, ListOptions, PutOptions } from './kv/operation.ts';
import type { DeleteResult, ListResult, PutResult } from './kv/result.ts';
import type { Scan, ScanOptions } from './kv/scan.ts';
import type { StmOptions } from './kv/stm.ts';
import type { StmTransaction } from './kv/stm-transaction.ts';
import type { Integer, Key, Value } from './kv/text.ts';
import type { Txn } from './kv/txn.ts';
import type { LeaseClient } from './lease/lease-client.ts';
import type { Feed, FeedSink, FeedSource } from './rx/feed.ts';
import type { Watch } from './rx/watch.ts';
import type { SessionOptions } from './session/open-session.ts';
import type { Session } from './session/session.ts';
import type { Codec } from './space/codec.ts';
import type { Space } from './space/space.ts';
import type { SchemaInput, SchemaOutput, StandardSchemaV1 } from './space/standard-schema.ts';
import type { View } from './view/view.ts';
import type { ViewOptions } from './view/view-options.ts';
import type { ConsumeBody, ConsumeOptions } from './watch/consumer.ts';
import type { WatchEmission, WatchOptions } from './watch/watch-options.ts';

/**
 * The verbs over the keys that start with one prefix. All keys go out with the prefix and come back without it: in results, events,
 * conditions, and in the keys of leases. A client is the namespace of the prefix it was connected with, by default the empty one.
 *
 * Every method takes `deadlineMs` and `signal`, and rejects with a {@link ConclaveError}. Reads are repeated until they get an answer or run
 * out of time. A write is sent once, and once more only when it is certain that no server saw it; when its answer is lost it rejects with
 * the outcome `unknown`.
 */
export interface Namespace {
  /** The clocks, timers and log of the client. */
  readonly runtime: Runtime;
  /** Leases. */
  readonly lease: LeaseClient;

  /**
   * Writes one key.
   *
   * @throws ConclaveError `lease-not-found`, `lease-lost`, `request-too-large`, `no-space`, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const { revision } = await client.put('greeting', 'hello');
   * ```
   */
  put(key: Key, value: Value, options?: PutOptions & RequestOptions): Promise<PutResult>;

  /**
   * Reads one key; undefined: there is no such key.
   *
   * @throws ConclaveError `compacted`, `future-revision`, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const stored = await client.get('greeting');
   * console.log(stored?.value); // hello
   * ```
   */
  get(key: Key, options?: GetOptions & RequestOptions): Promise<KeyValue | undefined>;

  /**
   * Reads a range of keys, or one key together with the revision of the store.
   *
   * @throws ConclaveError `compacted`, `future-revision`, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const { kvs, revision } = await client.list(prefix('config/'), { limit: 100 });
   * ```
   */
  list(target: Target, options?: ListOptions & RequestOptions): Promise<ListResult>;

  /**
   * Reads a range of any size, key by key, as it was at one revision: that of the first page, if none is given. Read with `for await`, once;
   * a slow loop holds the server back. A connection that is lost in between is not noticed. Where the server has range streams (etcd 3.7)
   * they are used.
   *
   * @throws ConclaveError `compacted` when that revision is compacted away before the end, `future-revision`, `unavailable`,
   * `deadline-exceeded`, `cancelled`, … as the error of the loop
   * @example
   * ```ts
   * const scan = client.scan(prefix('config/'));
   * for await (const { key, value } of scan) console.log(key, value);
   * const { revision } = scan; // that of all of it
   * ```
   */
  scan(target: Target, options?: ScanOptions): Scan;

  /**
   * Deletes one key or a range of them. Nothing to delete is no error.
   *
   * @throws ConclaveError `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const { deleted } = await client.delete(prefix('config/'));
   * ```
   */
  delete(target: Target, options?: DeleteOptions & RequestOptions): Promise<DeleteResult>;

  /**
   * Begins a transaction: conditions, what to do when they hold, and what otherwise.
   *
   * @example
   * ```ts
   * const result = await client.txn()
   *   .if(key('stock/42').value.equals('1'))
   *   .then(put('stock/42', '0'), put('order/7', 'item 42'))
   *   .commit();
   * if (result.succeeded) console.log(result[1].revision);
   * ```
   */
  txn(): Txn<readonly [], readonly []>;

  /**
   * Runs a software transaction: `body` reads and writes keys as if it were alone, and its writes happen all at one revision, if what it read
   * still holds then; otherwise it runs again, after a pause that grows. So it must have no effect but through `tx`. Returns what `body`
   * returns; an error it throws ends the transaction, and nothing is written.
   *
   * A body that writes nothing costs no more than its reads, except with `repeatableReads` and several of them. As with any transaction, an
   * answer that is lost leaves the outcome `unknown`, and then the body does not run again.
   *
   * @throws ConclaveError `conflict` after `attemptsMax` runs, `guard-failed`, `too-many-operations` for more than 127 keys, `unavailable`, `deadline-exceeded`,
   * `cancelled`, …
   * @example
   * ```ts
   * await client.stm(async (tx) => {
   *   const balance = Number(await tx.get('accounts/alice'));
   *   if (balance < 10) throw new Error('not enough');
   *   tx.put('accounts/alice', String(balance - 10));
   *   tx.put('accounts/bob', String(Number(await tx.get('accounts/bob')) + 10));
   * });
   * ```
   */
  stm<T>(body: (tx: StmTransaction) => T | Promise<T>, options?: StmOptions): Promise<T>;

  /**
   * Follows the changes of one key or a range: an rxjs Observable that also iterates. Nothing happens before it is subscribed to; each
   * subscription and each loop is a watch of its own.
   *
   * Every change from the start on is told once, in order, across lost connections. A watch that cannot go on ends with an error: with
   * `compacted` when it needs history that is gone, and `details.compactRevision` says from where on there is some. With `onCompacted: 'relist'` it
   * reads the range anew instead, and tells what became of each key: see {@link WatchOptions.onCompacted}.
   *
   * @throws ConclaveError `compacted`, `permission-denied`, `watch-range-empty`, `cancelled`, … as the error of the Observable or loop
   * @example
   * ```ts
   * const { kvs, revision } = await client.list(prefix('config/'));
   * for await (const event of client.watch(prefix('config/'), { startRevision: revision + 1n })) {
   *   console.log(event.type, event.key, event.value);
   * }
   * ```
   */
  watch(target: Target): Watch;
  watch<const Options extends WatchOptions>(target: Target, options: Options): Watch<WatchEmission<Options>>;

  /**
   * Reads some keys and keeps the copy up to date. Several targets are followed as one: what the view shows is what all of them held at one
   * revision. They must not overlap.
   *
   * Resolves when the view is complete. From then on it gets over lost connections by itself, and over history that was compacted away while it
   * could not follow: then it reads everything anew and tells the difference.
   *
   * @throws ConclaveError `deadline-exceeded` when it is not complete in time, `permission-denied`, `invalid-argument`, `cancelled`, …
   * @example
   * ```ts
   * await using view = await client.view(prefix('config/'));
   * console.log(view.get('config/color')?.value);
   * ```
   */
  view<IndexName extends string = never>(targets: Target | readonly Target[], options?: ViewOptions<IndexName>): Promise<View<IndexName>>;

  /**
   * Follows the changes of some keys across restarts, and has each take effect once: what `body` returns for a delivery is written in one
   * transaction with the cursor that remembers it. A run that ends in between, however it ends, leaves both or neither, and the next one goes on
   * there. What `body` does outside of that transaction may be done again.
   *
   * Deliveries come one at a time. The first of a new cursor is a {@link ResyncDelivery} with everything there is; so is what comes after history
   * that was compacted away while nobody consumed. Resolves when `signal` is aborted; an error of `body` ends it, and nothing of that delivery is written.
   *
   * @throws what `body` throws; ConclaveError `cursor-moved` when another consumer uses the cursor, `guard-failed`, `too-many-operations` for effects
   * of more than 127 keys (etcd), `permission-denied`, `client-closed`, …
   * @example
   * ```ts
   * await client.consume(prefix('orders/'), { cursor: 'billing/cursor', signal: shutdown.signal }, (delivery) => {
   *   if (delivery.type === 'resync') return delivery.kvs.map((kv) => put(`bills/${kv.key}`, kv.value));
   *   return delivery.events.map(({ type, key, value }) => (type === 'put' ? put(`bills/${key}`, value) : del(`bills/${key}`)));
   * });
   * ```
   */
  consume(target: Target, options: ConsumeOptions, body: ConsumeBody): Promise<void>;

  /**
   * Opens a session: a lease that is granted anew when it is lost, and keys that are put under each. Resolves when it is live.
   *
   * Its own key is `conclave/session/<lease id in hex>` of the namespace.
   *
   * @throws ConclaveError `deadline-exceeded` when it is not live in time, `permission-denied`, `lease-ttl-too-large`, `cancelled`, …; with `from`
   * also `session-claimed` and `session-expired`
   * @example
   * ```ts
   * await using session = await client.session({ ttlSeconds: 10 });
   * session.hold('services/cart/7', '10.0.0.7:8080');
   * ```
   */
  session(options?: SessionOptions): Promise<Session>;

  /**
   * Makes an Observable that also iterates out of a source that calls back, as `watch` is made: for what is built on this client.
   *
   * @example
   * ```ts
   * const names = client.feed<string>((sink) => {
   *   const subscription = client.watch(prefix('services/')).subscribe((event) => sink.next(event.key.slice('services/'.length)));
   *   return { cancel: () => subscription.unsubscribe(), pause() {}, resume() {} };
   * });
   * names.subscribe((name) => console.log(name));
   * ```
   */
  feed<T>(open: (sink: FeedSink<T>) => FeedSource): Feed<T>;

  /**
   * The namespace of `prefix` within this one.
   *
   * @example
   * ```ts
   * const shop = client.namespace('shop/');
   * await shop.put('open', 'yes'); // writes shop/open
   * ```
   */
  namespace(prefix: Key): Namespace;

  /**
   * The keys that start with `prefix`, with values of one type: what a schema accepts, stored as JSON, or what a codec makes of them. Any
   * validator that follows the Standard Schema specification will do. Codecs: {@link json}, {@link text}, {@link bytes}, {@link message}.
   *
   * @throws ConclaveError `invalid-value` from the methods of the space
   * @example
   * ```ts
   * const users = client.space('users/', z.object({ name: z.string(), age: z.number() }));
   * await users.put('7', { name: 'Ada', age: 36 });
   * const ada = await users.get('7'); // ada?.value.name is a string
   * ```
   */
  space<Schema extends StandardSchemaV1>(prefix: Key, schema: Schema): Space<SchemaInput<Schema>, SchemaOutput<Schema>>;
  space<In, Out>(prefix: Key, codec: Codec<In, Out>): Space<In, Out>;

  /**
   * Forgets the history before `revision`, of the whole store: reads and watches of it fail with `compacted` from then on.
   *
   * @throws ConclaveError `compacted`, `future-revision`, …
   * @example
   * ```ts
   * const { revision } = await client.put('config/color', 'red');
   * await client.compact(revision); // what the key held before is forgotten
   * ```
   */
  compact(revision: Integer, options?: CompactOptions & RequestOptions): Promise<void>;
}
