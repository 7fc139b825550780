import { MemberPublication } from '@conclave/protocol';
import { type Loopback, loopback, type Runtime, systemRuntime, type Transport } from '@conclave/wire';
import type { Listener } from './api/listener.ts';
import { parseListenUrl, withBoundPort } from './api/listener-url.ts';
import { entryVersion } from './apply/entry.ts';
import { foundCluster } from './apply/founding.ts';
import { type Doors, openDoors } from './doors.ts';
import { drainMs, type MemberSettings, settingsOf, settingsProblem } from './limits.ts';
import { type MemberStorage, openMemberStorage, type StoragePorts } from './member-storage.ts';
import { InitialClusterError, type InitialConfig, joinCluster, refuseSecondFounding } from './membership/initial-cluster.ts';
import { checkUrl } from './membership/member-url.ts';
import type { Fatal, RecoveredLog } from './replica/ports.ts';
import { type RunningMember, runMember } from './running-member.ts';
import type { PeerNetwork } from './transport/network.ts';
import { tcpPeerNetwork } from './transport/tcp.ts';
import { conclaveVersion } from './version.ts';

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
  /** Where the other members reach this one: `http://10.0.0.7:2380`. Default: nowhere; then it stays alone. */
  readonly listenPeers?: string | readonly string[];
  /**
   * The founding members, this one included: name → peer URLs. The same at each of them. Looked at once, when the data dir is made; later the
   * cluster itself knows who belongs to it. Default: this member alone.
   */
  readonly initialCluster?: Readonly<Record<string, readonly string[]>>;
  /** `existing`: this member was added to a cluster that runs, and `initialCluster` says who is in it by now. Default: `new`. */
  readonly initialClusterState?: 'new' | 'existing';
  /** Goes into the ids too. Default: `etcd-cluster`. */
  readonly clusterToken?: string;
  /** Clocks, timers, chance and log. Default: the system's, with a silent log. */
  readonly runtime?: Runtime;
  /** The network that the in-process door is on; the server is served there under its name. Default: one of its own. */
  readonly network?: Loopback;
  /** The network between members. Default: sockets on `listenPeers`. */
  readonly peerNetwork?: PeerNetwork;
  readonly storage?: StoragePorts;
  /** The entries this member can apply, up to this version. Lower than the default it stands for an older release, in tests of clusters of two releases. */
  readonly entryVersion?: number;
}

/** A running member. */
export interface ConclaveServer extends AsyncDisposable {
  readonly name: string;
  readonly memberId: bigint;
  readonly clusterId: bigint;
  /** Whether it leads the cluster, as far as it knows. */
  readonly isLeader: boolean;
  /** Addresses of its sockets, as clients dial them, with the ports really bound. Empty without `listen`. */
  readonly endpoints: readonly string[];
  /** What the member list tells clients. */
  readonly clientUrls: readonly string[];
  /** The door without sockets: connects to this server, whatever the address. */
  readonly transport: Transport;
  /**
   * Rejects when the server can keep its promises no more: a write to the disk failed, or what is stored is damaged. By then its doors are closed and
   * nothing more is acknowledged; the data dir cannot be opened again in this process. Rejects with {@link MemberRemovedError} when the cluster
   * removed this member. Stays pending otherwise, after `close` too.
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
  const settings = checkedSettings(options);
  const server = new EmbeddedServer(options, settings);
  try {
    // What waits for a disk that has failed waits for ever.
    await Promise.race([server.failed, server.start()]);
    return server;
  } catch (error) {
    await server.abandon();
    throw error;
  }
}

function checkedSettings(options: ServerOptions): MemberSettings {
  const settings = settingsOf(options);
  const problem = settingsProblem(settings);
  if (problem !== undefined) throw new TypeError(problem);
  return settings;
}

/** The cluster removed this member for good: its data dir is worth nothing any more. */
export class MemberRemovedError extends Error {
  readonly code = 'member-removed';

  constructor(memberId: bigint) {
    super(`member ${memberId.toString(16)} has been permanently removed from the cluster`);
    this.name = 'MemberRemovedError';
  }
}

/** Between two attempts to be heard by the cluster. */
const retryMs = 100;
/** Who asked a member to remove itself is still to be answered. As in etcd. */
const removedGraceMs = 1_000;

const defaultPeerUrl = 'http://localhost:2380';
const defaultToken = 'etcd-cluster';

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

  get #entryVersion(): number {
    return this.#options.entryVersion ?? entryVersion;
  }

  get isLeader(): boolean {
    return this.#member?.replica.isLeader ?? false;
  }

  async start(): Promise<void> {
    const { dataDir, storage: ports = {}, listenPeers } = this.#options;
    const urls = urlsOf(this.#options.listen).map(parseListenUrl);
    for (const url of this.#options.advertise ?? []) checkUrl(url);
    const runtime = this.#runtime;
    const fatal = this.#fatal;
    const peerNetwork =
      this.#options.peerNetwork ?? (listenPeers === undefined ? undefined : tcpPeerNetwork({ runtime, listen: urlsOf(listenPeers) }));
    const founder = (): Promise<MemberStorage['identity']> => this.#firstIdentity(peerNetwork);
    const storage = await openMemberStorage({ runtime, fatal, dataDir, founder, hasPeers: this.#isOneOfMany, ports });
    this.#storage = storage;
    const recovered = await this.#recoveredOrFounded(storage);
    const { name, peerUrls } = this.#initialConfig();
    const removed = new MemberRemovedError(storage.identity.memberId);
    const onRemoved = (): void => void runtime.timer(removedGraceMs, () => this.#fail(removed), { background: true });
    const options = { runtime, settings: this.#settings, fatal, name, peerUrls, peerNetwork, onRemoved, entryVersion: this.#entryVersion };
    const member = await runMember({ ...storage, recovered }, options);
    this.#member = member;
    member.replica.start();
    await this.#readable(member);
    if (this.#settings.initialCorruptCheck) await member.corruptionCheck.checkBeforeServing();
    this.#doors = await openDoors(member, this.#network, this.name, urls, this.#settings);
    this.#clientUrls = this.#advertised(this.#doors.listener);
    await this.#publish(member);
    for (const address of this.endpoints) {
      runtime.log.info({ address, 'advertise-client-urls': this.#clientUrls }, 'ready to serve client requests');
    }
  }

  /** Who this member is when it has no data yet. */
  async #firstIdentity(peerNetwork: PeerNetwork | undefined): Promise<MemberStorage['identity']> {
    const config = this.#initialConfig();
    const others = Object.entries(config.initialCluster).flatMap(([name, urls]) => (name === config.name ? [] : urls));
    if (this.#options.initialClusterState !== 'existing') {
      const { identity } = foundCluster(config);
      const cluster = others.length === 0 ? undefined : await peerNetwork?.describeCluster(others).catch(() => undefined);
      if (cluster !== undefined) refuseSecondFounding(cluster, identity);
      return identity;
    }
    if (peerNetwork === undefined) throw new TypeError('a member that joins a cluster needs listenPeers');
    return joinFirst(peerNetwork, others, config);
  }

  /** A founder's log begins with the founders. A crash may have come between the making of the log and this. */
  async #recoveredOrFounded({ identity, recovered, store, log }: MemberStorage): Promise<RecoveredLog> {
    const isBlank = recovered.hardState === undefined && recovered.entries.length === 0 && store.durableIndex === 0;
    if (!isBlank || this.#options.initialClusterState === 'existing') return recovered;
    const { identity: founder, entries, hardState } = foundCluster(this.#initialConfig());
    // Made by an earlier start, which joined this cluster: it founds none.
    if (founder.memberId !== identity.memberId || founder.clusterId !== identity.clusterId) return recovered;
    await new Promise<void>((resolve) => log.append({ entries, hardState }, resolve));
    return { entries, hardState };
  }

  #initialConfig(): InitialConfig & { readonly clusterToken: string } {
    const { peerUrls = [defaultPeerUrl], clusterToken = defaultToken } = this.#options;
    return { name: this.name, peerUrls, clusterToken, initialCluster: this.#options.initialCluster ?? { [this.name]: peerUrls } };
  }

  get #isOneOfMany(): boolean {
    return this.#options.initialClusterState === 'existing' || Object.keys(this.#options.initialCluster ?? {}).length > 1;
  }

  /** Without a quorum there is nothing to serve but old state: it waits for as long as that takes. */
  async #readable({ replica }: RunningMember): Promise<void> {
    for (;;) {
      if (this.#hasFailed) await this.failed;
      const error = await Promise.race([this.failed, new Promise<Error | undefined>((resolve) => replica.readBarrier(resolve))]);
      if (error === undefined) return;
      this.#runtime.log.warn({ error: error.message }, 'waiting for a leader');
      await this.#pause();
    }
  }

  /** A member that takes part no more refuses at once: without a pause nothing else would get its turn. */
  #pause(): Promise<void> {
    return new Promise((resolve) => this.#runtime.timer(retryMs, resolve));
  }

  /** Tells the cluster, through the log, what only this member knows of itself. */
  async #publish({ replica, memberTable, memberId }: RunningMember): Promise<void> {
    const clientUrls = [...this.#clientUrls];
    const isKnown = (): boolean => {
      const known = memberTable.get(memberId);
      return (
        known?.name === this.name &&
        known.clientUrls.join() === clientUrls.join() &&
        known.entryVersion === this.#entryVersion &&
        known.serverVersion === conclaveVersion
      );
    };
    const publication = { id: memberId, name: this.name, clientUrls, entryVersion: this.#entryVersion, serverVersion: conclaveVersion };
    const body = MemberPublication.encode(publication);
    while (!isKnown()) {
      if (this.#hasFailed) await this.failed;
      await Promise.race([this.failed, replica.propose('memberPublish', body)]).catch(async (error: unknown) => {
        // Why it failed, and not that it could not be asked any more.
        if (this.#hasFailed) await this.failed;
        this.#runtime.log.warn({ error: String(error) }, 'the member could not be published, trying again');
        await this.#pause();
      });
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
    this.#member?.versionKeeper.stop();
    this.#member?.autoCompactor.stop();
    this.#member?.corruptionCheck.stop();
    await this.#member?.replica.stop(drainMs);
    this.#member?.watches.close();
    this.#member?.leaderGuard.stop();
    await this.#member?.closePeers();
    if (this.#member === undefined) await this.#storage?.log.close();
    await this.#storage?.close();
  }

  /** The fatal port of an embedded member: nothing is answered from here on. */
  #fail(cause: Error): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    const fields = { error: cause.message, code: 'code' in cause ? cause.code : undefined };
    if (cause instanceof MemberRemovedError) this.#runtime.log.warn(fields, 'the member was removed and stops');
    else this.#runtime.log.error(fields, 'the member has failed and stops');
    this.#member?.replica.halt();
    this.#member?.compactor.stop();
    this.#member?.versionKeeper.stop();
    this.#member?.autoCompactor.stop();
    this.#member?.corruptionCheck.stop();
    this.#member?.closePeers().catch(() => undefined);
    this.#doors?.destroy();
    this.#tellFailure(cause);
  }

  #advertised(listener: Listener | undefined): readonly string[] {
    const port = listener?.addresses.find((address) => address.port !== undefined)?.port;
    const urls = this.#options.advertise ?? urlsOf(this.#options.listen);
    return urls.map((url) => withBoundPort(url, port));
  }
}

/** A member that lags does not know of the addition yet: it is enough that one of them does. */
async function joinFirst(peerNetwork: PeerNetwork, urls: readonly string[], config: InitialConfig): Promise<MemberStorage['identity']> {
  let problem = new InitialClusterError(
    'cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs',
  );
  for (const url of urls) {
    const existing = await peerNetwork.describeCluster([url]).catch(() => undefined);
    if (existing === undefined) continue;
    try {
      return joinCluster(existing, config);
    } catch (error) {
      if (!(error instanceof InitialClusterError)) throw error;
      problem = error;
    }
  }
  throw problem;
}

/** What `listen` or `listenPeers` says, as URLs. */
function urlsOf(listen: ServerOptions['listen']): readonly string[] {
  if (listen === undefined) return [];
  const entries = typeof listen === 'string' ? [listen] : listen;
  return entries.map((entry) => (/^([a-z]+:\/\/|unix:)/.test(entry) ? entry : `http://${entry}`));
}
