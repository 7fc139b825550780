import type { Runtime } from '@conclave/wire';
import { AuthClient } from './admin/auth-client.ts';
import { ClusterClient } from './admin/cluster-client.ts';
import { MaintenanceClient } from './admin/maintenance-client.ts';
import { RoleClient } from './admin/role-client.ts';
import { UserClient } from './admin/user-client.ts';
import type { ClientStatus } from './connection/client-status.ts';
import type { EndpointSync } from './connection/endpoint-sync.ts';
import type { Engine } from './connection/engine.ts';
import type { RequestOptions } from './connection/procedure.ts';
import type { KeyPrefix, Target } from './kv/key-range.ts';
import type { KeyValue } from './kv/key-value.ts';
import { type CompactOptions, KvClient } from './kv/kv-client.ts';
import { OnceCommit } from './kv/once-commit.ts';
import type { DeleteOptions, GetOptions, ListOptions, PutOptions } from './kv/operation.ts';
import { RangeStreams } from './kv/range-stream.ts';
import type { DeleteResult, ListResult, PutResult } from './kv/result.ts';
import { Scan, type ScanOptions } from './kv/scan.ts';
import { runStm, type StmOptions } from './kv/stm.ts';
import type { StmTransaction } from './kv/stm-transaction.ts';
import type { Integer, Key, Value } from './kv/text.ts';
import { Txn, type TxnSource } from './kv/txn.ts';
import { LeaseClient, LeaseRegistry } from './lease/lease-client.ts';
import { MarkerLeases } from './lease/marker-leases.ts';
import type { Namespace } from './namespace.ts';
import type { Feed, FeedSink, FeedSource } from './rx/feed.ts';
import { feed, statusFeed, watchFeed } from './rx/ring.ts';
import type { Watch } from './rx/watch.ts';
import { openSession, type SessionOptions } from './session/open-session.ts';
import type { Session } from './session/session.ts';
import { type Codec, isSchema, json } from './space/codec.ts';
import { Space } from './space/space.ts';
import type { SchemaInput, SchemaOutput, StandardSchemaV1 } from './space/standard-schema.ts';
import type { View } from './view/view.ts';
import { ViewHub } from './view/view-hub.ts';
import type { ViewOptions } from './view/view-options.ts';
import { type ConsumeBody, type ConsumeOptions, Consumer } from './watch/consumer.ts';
import { WatchHub } from './watch/watch-hub.ts';
import type { WatchEmission, WatchOptions } from './watch/watch-options.ts';

/** What all namespaces of one client share. */
export interface Core extends TxnSource {
  readonly rangeStreams: RangeStreams;
  readonly endpoints: EndpointSync;
  readonly leases: LeaseRegistry;
  readonly markers: MarkerLeases;
  readonly watches: WatchHub;
  readonly views: ViewHub;
}

export function coreOf(engine: Engine, endpoints: EndpointSync): Core {
  const markers = new MarkerLeases(engine);
  return {
    engine,
    endpoints,
    rangeStreams: new RangeStreams(engine),
    leases: new LeaseRegistry(engine),
    markers,
    commitOnce: (marker, ttlSeconds, options) => new OnceCommit({ engine, markers }, marker, ttlSeconds, options).run(),
    watches: new WatchHub(engine),
    views: new ViewHub(engine, feed),
  };
}

class NamespaceView implements Namespace {
  readonly lease: LeaseClient;
  readonly #core: Core;
  readonly #prefix: KeyPrefix;
  readonly #kv: KvClient;

  constructor(core: Core, prefix: KeyPrefix) {
    this.#core = core;
    this.#prefix = prefix;
    this.#kv = new KvClient(core.engine, prefix);
    this.lease = new LeaseClient(core.leases, prefix);
  }

  get runtime(): Runtime {
    return this.#core.engine.runtime;
  }

  put(key: Key, value: Value, options?: PutOptions & RequestOptions): Promise<PutResult> {
    return this.#kv.put(key, value, options);
  }

  get(key: Key, options?: GetOptions & RequestOptions): Promise<KeyValue | undefined> {
    return this.#kv.get(key, options);
  }

  list(target: Target, options?: ListOptions & RequestOptions): Promise<ListResult> {
    return this.#kv.list(target, options);
  }

  scan(target: Target, options?: ScanOptions): Scan {
    return new Scan(this.#core, this.#prefix, target, options);
  }

  delete(target: Target, options?: DeleteOptions & RequestOptions): Promise<DeleteResult> {
    return this.#kv.delete(target, options);
  }

  compact(revision: Integer, options?: CompactOptions & RequestOptions): Promise<void> {
    return this.#kv.compact(revision, options);
  }

  txn(): Txn<readonly [], readonly []> {
    return new Txn<readonly [], readonly []>(this.#core, this.#prefix, { comparisons: [], success: [], failure: [] });
  }

  stm<T>(body: (tx: StmTransaction) => T | Promise<T>, options?: StmOptions): Promise<T> {
    return runStm(this.#core.engine, this.#prefix, body, options);
  }

  watch(target: Target): Watch;
  watch<const Options extends WatchOptions>(target: Target, options: Options): Watch<WatchEmission<Options>>;
  watch(target: Target, options: WatchOptions = {}): Watch<unknown> {
    return watchFeed(this.#core.watches, this.#prefix, target, options);
  }

  view<IndexName extends string = never>(
    targets: Target | readonly Target[],
    options: ViewOptions<IndexName> = {},
  ): Promise<View<IndexName>> {
    return this.#core.views.open(this.#prefix, targets, options);
  }

  async consume(target: Target, options: ConsumeOptions, body: ConsumeBody): Promise<void> {
    await new Consumer(this.#core, this, this.#prefix, target, options, body).run();
  }

  feed<T>(open: (sink: FeedSink<T>) => FeedSource): Feed<T> {
    return feed(open);
  }

  session(options: SessionOptions = {}): Promise<Session> {
    return openSession(this.#core, this, this.#prefix, options);
  }

  space<Schema extends StandardSchemaV1>(prefix: Key, schema: Schema): Space<SchemaInput<Schema>, SchemaOutput<Schema>>;
  space<In, Out>(prefix: Key, codec: Codec<In, Out>): Space<In, Out>;
  space(prefix: Key, codec: Codec<unknown> | StandardSchemaV1): Space<unknown> {
    return new Space(this.namespace(prefix), isSchema(codec) ? json(codec) : codec);
  }

  namespace(prefix: Key): Namespace {
    return new NamespaceView(this.#core, this.#prefix.append(prefix));
  }
}

/**
 * A connected client. Made by {@link connect}.
 *
 * It keeps the process alive while calls, watches or leases are under way, and otherwise may: close it when done, or hold it with
 * `await using`.
 */
export class Client extends NamespaceView implements Namespace, AsyncDisposable {
  /** The members. */
  readonly cluster: ClusterClient;
  /** Upkeep of the cluster and of its members. */
  readonly maintenance: MaintenanceClient;
  /** Whether the cluster asks who calls. */
  readonly auth: AuthClient;
  /** Who may call. */
  readonly users: UserClient;
  /** What they may do. */
  readonly roles: RoleClient;
  readonly #core: Core;

  /** @internal */
  constructor(core: Core, prefix: KeyPrefix) {
    super(core, prefix);
    this.#core = core;
    this.cluster = new ClusterClient(core.engine);
    this.maintenance = new MaintenanceClient(core.engine);
    this.auth = new AuthClient(core.engine);
    this.users = new UserClient(core.engine);
    this.roles = new RoleClient(core.engine);
  }

  /**
   * The state of the connections: the present one, then each change. Completes when the client closes.
   *
   * @example
   * ```ts
   * client.status().subscribe(({ state, reason }) => console.log(state, reason ?? '')); // ready
   * ```
   */
  status(): Feed<ClientStatus> {
    return statusFeed(this.#core.engine);
  }

  /**
   * Asks the cluster for its members and goes over to their addresses: those that the voting members advertise to clients, with TLS or without
   * as this client speaks it. With `discovery`, asks DNS instead. An endpoint that is not among them is left once one of them is ready; what is
   * under way on it goes on. Gives the addresses.
   *
   * @throws ConclaveError `unavailable` also when no member advertises a fitting address, `deadline-exceeded`, …
   * @example
   * ```ts
   * const addresses = await client.sync(); // now there is one endpoint for each voting member
   * ```
   */
  sync(options?: RequestOptions): Promise<readonly string[]> {
    return this.#core.endpoints.sync(options);
  }

  /**
   * Ends everything: calls under way reject with `client-closed`, watches complete, leases are no longer renewed and count as lost. Keys under
   * a lease stay until its time is up; revoke it first if they shall go at once.
   *
   * @example
   * ```ts
   * const other = await connect({ endpoints: '127.0.0.1:2379' });
   * await other.close(); // or: await using other = …
   * ```
   */
  async close(): Promise<void> {
    this.#core.engine.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
