import type { Member } from '@conclave/protocol';
import { type Loopback, type LoopbackServer, loopback, type Routes, type Runtime, systemRuntime, type Transport } from '@conclave/wire';
import { type GrpcServer, grpcServer } from '@conclave/wire/grpc-server';
import { headerAt } from './api/header.ts';
import { HttpDoor } from './api/http.ts';
import { LeaderGuard } from './api/leader-guard.ts';
import { Listener } from './api/listener.ts';
import { checkUrl, parseListenUrl, withBoundPort } from './api/listener-url.ts';
import type { ServedMember } from './api/member.ts';
import { createRoutes } from './api/routes.ts';
import { type Applied, Applier } from './apply/apply.ts';
import { Compactor } from './compactor.ts';
import { LeaseTable } from './lease/lease-table.ts';
import { defaultSettings, drainMs, grpcOverheadBytes, type MemberSettings, settingsProblem } from './limits.ts';
import { type MemberStorage, openMemberStorage, type StoragePorts } from './member-storage.ts';
import { clusterIdOf, memberIdOf } from './membership/ids.ts';
import { MemberTable } from './membership/member-table.ts';
import { Mvcc } from './mvcc/mvcc.ts';
import { WatchHub } from './mvcc/watch/watch-hub.ts';
import type { Fatal } from './replica/ports.ts';
import { Replica } from './replica/replica.ts';

export interface ServerOptions extends Partial<MemberSettings> {
  /** The folder that holds everything; made when it is not there. Default: none, the server lives in memory and is gone when it is closed. */
  readonly dataDir?: string;
  /**
   * Where clients reach it over sockets: `127.0.0.1:2379`, `http://[::1]:2379`, `localhost:0` (both loopback addresses, a free port),
   * `unix:///run/conclave.sock`. Default: nowhere; then only {@link ConclaveServer.transport} leads to it.
   */
  readonly listen?: string | readonly string[];
  /** URLs that the member list shows to clients. Port 0 stands for the port really bound. Default: those of `listen`. */
  readonly advertise?: readonly string[];
  /** Default: `default`, as in etcd. */
  readonly name?: string;
  /** The member's peer URLs. They make up its id, once, when the data dir is made. Default: `http://localhost:2380`. */
  readonly peerUrls?: readonly string[];
  /** Goes into the ids too. Default: `etcd-cluster`. */
  readonly clusterToken?: string;
  /** Clocks, timers, chance and log. Default: the system's, with a silent log. */
  readonly runtime?: Runtime;
  /** The network that the in-process door is on; the server is served there under its name. Default: one of its own. */
  readonly network?: Loopback;
  readonly storage?: StoragePorts;
}

/** A running member. */
export interface ConclaveServer extends AsyncDisposable {
  readonly name: string;
  readonly memberId: bigint;
  readonly clusterId: bigint;
  /** Addresses of its sockets, as clients dial them, with the ports really bound. Empty without `listen`. */
  readonly endpoints: readonly string[];
  /** What the member list tells clients. */
  readonly clientUrls: readonly string[];
  /** The door without sockets: connects to this server, whatever the address. */
  readonly transport: Transport;
  /**
   * Rejects when the server can keep its promises no more: a write to the disk failed, or what is stored is damaged. By then its doors are closed and
   * nothing more is acknowledged; the data dir cannot be opened again in this process. Stays pending otherwise, after `close` too.
   */
  readonly failed: Promise<never>;
  /** Takes nothing new, gives what it has taken in up to 5 s, makes everything durable and lets the data dir go. Idempotent. */
  close(): Promise<void>;
}

/**
 * Starts a member in this process, and resolves when it serves.
 *
 * @throws StorageError `data-dir-locked`, `data-dir-unusable`, `format-newer`; CorruptionError `wal-corrupt`; the system's error when an
 * address cannot be bound; TypeError when an option cannot be
 *
 * @example
 * await using server = await startServer({ dataDir: './data', listen: '127.0.0.1:2379' });
 * // or, in a test, in memory and without a socket:
 * await using server = await startServer();
 * await using client = await connect({ endpoints: server.name, transport: server.transport });
 */
export async function startServer(options: ServerOptions = {}): Promise<ConclaveServer> {
  const settings = settingsOf(options);
  const server = new EmbeddedServer(options, settings);
  try {
    await server.start();
    return server;
  } catch (error) {
    await server.abandon();
    throw error;
  }
}

function settingsOf(options: ServerOptions): MemberSettings {
  const {
    heartbeatMs = defaultSettings.heartbeatMs,
    electionMs = defaultSettings.electionMs,
    maxRequestBytes = defaultSettings.maxRequestBytes,
    maxTxnOps = defaultSettings.maxTxnOps,
    watchProgressNotifyMs = defaultSettings.watchProgressNotifyMs,
  } = options;
  const settings = { heartbeatMs, electionMs, maxRequestBytes, maxTxnOps, watchProgressNotifyMs };
  const problem = settingsProblem(settings);
  if (problem !== undefined) throw new TypeError(problem);
  return settings;
}

const defaultPeerUrl = 'http://localhost:2380';
const defaultToken = 'etcd-cluster';
const stopReason = 'etcdserver: server stopped';

class EmbeddedServer implements ConclaveServer {
  readonly name: string;
  readonly failed: Promise<never>;
  readonly transport: Transport;
  readonly #options: ServerOptions;
  readonly #settings: MemberSettings;
  readonly #runtime: Runtime;
  readonly #network: Loopback;
  readonly #fatal: Fatal;
  #tellFailure: (cause: Error) => void = () => undefined;
  #hasFailed = false;
  #storage: MemberStorage | undefined;
  #member: RunningMember | undefined;
  #doors: Doors | undefined;
  #clientUrls: readonly string[] = [];
  #closed: Promise<void> | undefined;

  constructor(options: ServerOptions, settings: MemberSettings) {
    this.#options = options;
    this.#settings = settings;
    this.#runtime = options.runtime ?? systemRuntime();
    this.#network = options.network ?? loopback({ runtime: this.#runtime });
    this.name = options.name ?? 'default';
    this.transport = () => this.#network.transport(this.name);
    this.failed = new Promise((_resolve, reject) => {
      this.#tellFailure = reject;
    });
    // Whoever does not ask is not to be ended by a rejection nobody handles.
    this.failed.catch(() => undefined);
    this.#fatal = (cause) => {
      this.#fail(cause);
      throw cause;
    };
  }

  get memberId(): bigint {
    return this.#identity.memberId;
  }

  get clusterId(): bigint {
    return this.#identity.clusterId;
  }

  get endpoints(): readonly string[] {
    return this.#doors?.listener?.addresses.map(({ address }) => address) ?? [];
  }

  get clientUrls(): readonly string[] {
    return this.#clientUrls;
  }

  get #identity(): MemberStorage['identity'] {
    if (this.#storage === undefined) throw new Error('the server has not started');
    return this.#storage.identity;
  }

  async start(): Promise<void> {
    const { dataDir, storage: ports = {} } = this.#options;
    const urls = listenUrls(this.#options.listen).map(parseListenUrl);
    for (const url of this.#options.advertise ?? []) checkUrl(url);
    this.#storage = await openMemberStorage({ runtime: this.#runtime, fatal: this.#fatal, dataDir, founder: this.#founder(), ports });
    const member = runMember(this.#storage, {
      runtime: this.#runtime,
      settings: this.#settings,
      fatal: this.#fatal,
      members: () => [this.#memberEntry()],
    });
    this.#member = member;
    member.replica.start();
    await Promise.race([this.failed, readable(member.replica)]);
    this.#doors = await openDoors(member, this.#network, this.name, urls, this.#settings);
    this.#clientUrls = this.#advertised(this.#doors.listener);
    for (const address of this.endpoints) {
      this.#runtime.log.info({ address, 'advertise-client-urls': this.#clientUrls }, 'ready to serve client requests');
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Lets everything go after a start that failed. Why it failed is what matters: a second error is only written down. */
  async abandon(): Promise<void> {
    await this.close().catch((error: unknown) => {
      this.#runtime.log.warn({ error: String(error) }, 'closing after a failed start');
    });
  }

  async #close(): Promise<void> {
    await this.#doors?.close(drainMs);
    this.#member?.compactor.stop();
    await this.#member?.replica.stop(drainMs);
    this.#member?.watches.close();
    this.#member?.leaderGuard.stop();
    if (this.#member === undefined) await this.#storage?.log.close();
    await this.#storage?.close();
  }

  /** The fatal port of an embedded member: nothing is answered from here on. */
  #fail(cause: Error): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#runtime.log.error({ error: cause.message, code: 'code' in cause ? cause.code : undefined }, 'the member has failed and stops');
    this.#member?.replica.halt();
    this.#member?.compactor.stop();
    this.#doors?.destroy();
    this.#tellFailure(cause);
  }

  #founder(): MemberStorage['identity'] {
    const { peerUrls = [defaultPeerUrl], clusterToken = defaultToken } = this.#options;
    const memberId = memberIdOf(peerUrls, clusterToken);
    return { memberId, clusterId: clusterIdOf([memberId]) };
  }

  #memberEntry(): Member {
    const { peerUrls = [defaultPeerUrl] } = this.#options;
    return { id: this.memberId, name: this.name, peerUrls: [...peerUrls], clientUrls: [...this.#clientUrls], isLearner: false };
  }

  #advertised(listener: Listener | undefined): readonly string[] {
    const port = listener?.addresses.find((address) => address.port !== undefined)?.port;
    const urls = this.#options.advertise ?? listenUrls(this.#options.listen);
    return urls.map((url) => withBoundPort(url, port));
  }
}

/** What `listen` says, as URLs. */
function listenUrls(listen: ServerOptions['listen']): readonly string[] {
  if (listen === undefined) return [];
  const entries = typeof listen === 'string' ? [listen] : listen;
  return entries.map((entry) => (/^([a-z]+:\/\/|unix:)/.test(entry) ? entry : `http://${entry}`));
}

// ---- the member behind the doors -----------------------------------------------------------------------------------------------------

interface RunningMember extends ServedMember {
  readonly replica: Replica<Applied>;
  readonly watches: WatchHub;
  readonly compactor: Compactor;
}

interface RunOptions {
  readonly runtime: Runtime;
  readonly settings: MemberSettings;
  readonly fatal: Fatal;
  readonly members: () => readonly Member[];
}

/** Puts the rooms together. */
function runMember(storage: MemberStorage, { runtime, settings, fatal, members }: RunOptions): RunningMember {
  const { store, log, recovered, identity } = storage;
  const { memberId, clusterId } = identity;
  const mvcc = new Mvcc(store);
  const leases = new LeaseTable(store);
  const applier = new Applier({ store, mvcc, leases, members: new MemberTable(store) });
  const compactor = new Compactor({ runtime, mvcc, applier, store, fatal });
  const replica = new Replica<Applied>({
    runtime,
    id: memberId,
    confState: { voters: [memberId], learners: [] },
    log,
    recovered,
    stateMachine: applier,
    leases,
    fatal,
    tickMs: settings.heartbeatMs,
    electionTicks: Math.floor(settings.electionMs / settings.heartbeatMs),
    limits: { maxRequestBytes: settings.maxRequestBytes },
  });
  const watches = new WatchHub({
    source: mvcc,
    runtime,
    header: (revision) => headerAt({ clusterId, memberId, replica }, revision),
    fragmentBytes: settings.maxRequestBytes + grpcOverheadBytes,
    progressIntervalMs: settings.watchProgressNotifyMs,
  });
  applier.onCompaction(() => compactor.wake());
  compactor.wake();
  return {
    runtime,
    clusterId,
    memberId,
    replica,
    mvcc,
    applier,
    leases,
    watches,
    leaderGuard: new LeaderGuard({ runtime, replica, electionTimeoutMs: settings.electionMs }),
    compactor,
    members,
    databaseSize: () => store.size(),
    compactionDone: () => compactor.done(),
    limits: {
      maxTxnOps: settings.maxTxnOps,
      maxRequestBytes: settings.maxRequestBytes,
      quotaBytes: 0,
    },
  };
}

function readable(replica: Replica<Applied>): Promise<void> {
  return new Promise((resolve, reject) => {
    replica.readBarrier((error) => (error === undefined ? resolve() : reject(error)));
  });
}

// ---- the doors ------------------------------------------------------------------------------------------------------------------------

interface Doors {
  readonly listener: Listener | undefined;
  close(graceMs: number): Promise<void>;
  /** At once, with no answer to anybody. */
  destroy(): void;
}

async function openDoors(
  member: ServedMember,
  network: Loopback,
  name: string,
  urls: Parameters<typeof Listener.open>[0]['urls'],
  settings: MemberSettings,
): Promise<Doors> {
  const routes = createRoutes(member);
  const sockets = urls.length === 0 ? undefined : await openSocketDoors(member, routes, urls, settings);
  const inProcess: LoopbackServer = network.serve(name, routes);
  return {
    listener: sockets?.listener,
    async close(graceMs) {
      const loopbackClosed = inProcess.close(graceMs, stopReason);
      await sockets?.close(graceMs);
      await loopbackClosed;
    },
    destroy() {
      sockets?.destroy();
      inProcess.cut();
      void inProcess.close(0, stopReason);
    },
  };
}

async function openSocketDoors(
  member: ServedMember,
  routes: Routes,
  urls: Parameters<typeof Listener.open>[0]['urls'],
  settings: MemberSettings,
): Promise<Omit<Doors, 'listener'> & { readonly listener: Listener }> {
  const { runtime } = member;
  const http2: GrpcServer = grpcServer({ runtime, routes, maxReceiveBytes: settings.maxRequestBytes + grpcOverheadBytes });
  const http1 = new HttpDoor(member);
  const listener = await Listener.open({ runtime, urls, http2, http1 });
  return {
    listener,
    async close(graceMs) {
      const closed = listener.close();
      await http2.close(graceMs, stopReason);
      http1.close();
      await closed;
    },
    destroy() {
      http2.destroy();
      http1.close();
      void listener.close();
    },
  };
}
