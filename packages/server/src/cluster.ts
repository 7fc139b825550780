import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Loopback, loopback, type Runtime, systemRuntime } from '@conclave/wire';
import { type ConclaveServer, type ServerOptions, startServer } from './embed.ts';
import { inProcessPeers } from './transport/in-process.ts';
import type { PeerNetwork } from './transport/network.ts';

export interface ClusterOptions
  extends Omit<ServerOptions, 'name' | 'dataDir' | 'listen' | 'advertise' | 'peerUrls' | 'initialCluster' | 'initialClusterState'> {
  /** How many members, 1 to 7. Default 3. */
  readonly size?: number;
  /** A folder in which each member has one of its own, `m1`, `m2`, ...; made when it is not there. Default: none, the cluster lives in memory. */
  readonly dataDir?: string;
  /** true: every member serves clients on a loopback address, on a free port. Default: no sockets, only {@link ConclaveCluster.network} leads to them. */
  readonly listen?: boolean;
}

/** A cluster whose members all run in this process. */
export interface ConclaveCluster extends AsyncDisposable {
  /** Those that run, in the order of their names `m1`, `m2`, ... */
  readonly members: readonly ConclaveServer[];
  /** Where clients reach the members: their sockets with `listen`, else their names on {@link network}. */
  readonly endpoints: readonly string[];
  /** The network between clients and members: `connect({ endpoints: cluster.endpoints, transport: cluster.network.transport })`. */
  readonly network: Loopback;
  /** Resolves with the member that leads, once one does. */
  leader(): Promise<ConclaveServer>;
  /** Stops a member as an operator would; a leader hands its office over first. */
  stop(name: string): Promise<void>;
  /** Starts a member again on its data dir. Without one there is nothing to start from, and it throws. */
  start(name: string): Promise<ConclaveServer>;
  /** Stops all members. Idempotent. */
  close(): Promise<void>;
}

const sizeMax = 7;

/**
 * Starts a cluster in this process: for tests and demos of what happens when a member goes away. A cluster that is to survive its machine is made
 * of processes on several (docs/reference/server.md).
 *
 * @throws TypeError when an option cannot be; whatever `startServer` throws
 *
 * @example
 * await using cluster = await startCluster({ size: 3 });
 * await using client = await connect({ endpoints: cluster.endpoints, transport: cluster.network.transport });
 * await client.put('greeting', 'hello');
 * await cluster.stop((await cluster.leader()).name);
 * await client.get('greeting'); // the other two go on
 */
export async function startCluster(options: ClusterOptions = {}): Promise<ConclaveCluster> {
  const { size = 3 } = options;
  if (!Number.isInteger(size) || size < 1 || size > sizeMax) throw new TypeError(`a cluster has 1 to ${sizeMax} members, got ${size}`);
  if (options.dataDir !== undefined) await mkdir(options.dataDir, { recursive: true, mode: 0o700 });
  const cluster = new InProcessCluster(options, size);
  try {
    await Promise.all(cluster.names.map((name) => cluster.start(name)));
    return cluster;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

class InProcessCluster implements ConclaveCluster {
  readonly names: readonly string[];
  readonly network: Loopback;
  readonly #options: ClusterOptions;
  readonly #runtime: Runtime;
  readonly #peerNetwork: PeerNetwork;
  readonly #running: Map<string, ConclaveServer> = new Map();
  readonly #wereStarted: Set<string> = new Set();

  constructor(options: ClusterOptions, size: number) {
    this.#options = options;
    this.#runtime = options.runtime ?? systemRuntime();
    this.network = options.network ?? loopback({ runtime: this.#runtime });
    this.#peerNetwork = options.peerNetwork ?? inProcessPeers(this.#runtime);
    this.names = Array.from({ length: size }, (_, at) => `m${at + 1}`);
  }

  get members(): readonly ConclaveServer[] {
    return this.names.flatMap((name) => this.#running.get(name) ?? []);
  }

  get endpoints(): readonly string[] {
    return this.members.flatMap((member) => (this.#options.listen === true ? member.endpoints.slice(0, 1) : [member.name]));
  }

  async start(name: string): Promise<ConclaveServer> {
    if (!this.names.includes(name)) throw new TypeError(`there is no member ${name}`);
    if (this.#running.has(name)) throw new TypeError(`member ${name} runs`);
    const { dataDir, listen, size: _size, ...rest } = this.#options;
    if (dataDir === undefined && this.#wereStarted.has(name)) {
      throw new TypeError(`member ${name} had its state in memory: it cannot come back without what it promised`);
    }
    this.#wereStarted.add(name);
    const server = await startServer({
      ...rest,
      name,
      runtime: this.#runtime,
      network: this.network,
      peerNetwork: this.#peerNetwork,
      peerUrls: [peerUrlOf(name)],
      initialCluster: Object.fromEntries(this.names.map((member) => [member, [peerUrlOf(member)]])),
      ...(dataDir !== undefined && { dataDir: join(dataDir, name) }),
      ...(listen === true && { listen: '127.0.0.1:0' }),
    });
    this.#running.set(name, server);
    return server;
  }

  async leader(): Promise<ConclaveServer> {
    for (;;) {
      const leading = this.members.find((member) => member.isLeader);
      if (leading !== undefined) return leading;
      await new Promise<void>((resolve) => this.#runtime.timer(leaderPollMs, resolve));
    }
  }

  async stop(name: string): Promise<void> {
    const server = this.#running.get(name);
    if (server === undefined) throw new TypeError(`member ${name} does not run`);
    this.#running.delete(name);
    await server.close();
  }

  async close(): Promise<void> {
    const members = this.members;
    this.#running.clear();
    await Promise.all(members.map((member) => member.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const leaderPollMs = 5;

/** Only makes up the member's id: in one process nothing listens there. */
function peerUrlOf(name: string): string {
  return `http://${name}:2380`;
}
