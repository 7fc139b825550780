import type { Runtime } from '@conclave/wire';
import type { RequestOptions } from './connection/procedure.ts';
import type { Target } from './kv/key-range.ts';
import type { KeyValue } from './kv/key-value.ts';
import type { CompactOptions } from './kv/kv-client.ts';
import type { DeleteOptions, GetOptions, ListOptions, PutOptions } from './kv/operation.ts';
import type { DeleteResult, ListResult, PutResult } from './kv/result.ts';
import type { Integer, Key, Value } from './kv/text.ts';
import type { Txn } from './kv/txn.ts';
import type { LeaseClient } from './lease/lease-client.ts';
import type { Feed, FeedSink, FeedSource } from './rx/feed.ts';
import type { View } from './view/view.ts';
import type { ViewOptions } from './view/view-options.ts';
import type { WatchEvent } from './watch/watch-event.ts';
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
   * Follows the changes of one key or a range: an rxjs Observable that also iterates. Nothing happens before it is subscribed to; each
   * subscription and each loop is a watch of its own.
   *
   * Every change from the start on is told once, in order, across lost connections. A watch that cannot go on ends with an error: with
   * `compacted` when it needs history that is gone, and `details.compactRevision` says from where on there is some.
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
  watch(target: Target): Feed<WatchEvent>;
  watch<const Options extends WatchOptions>(target: Target, options: Options): Feed<WatchEmission<Options>>;

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
   * Makes an Observable that also iterates out of a source that calls back, as `watch` is made: for what is built on this client.
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
   * Forgets the history before `revision`, of the whole store: reads and watches of it fail with `compacted` from then on.
   *
   * @throws ConclaveError `compacted`, `future-revision`, …
   */
  compact(revision: Integer, options?: CompactOptions & RequestOptions): Promise<void>;
}
