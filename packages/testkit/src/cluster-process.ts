import type { ChildProcess } from 'node:child_process';
import {
  Cluster,
  etcdApiVersion,
  type Init,
  Maintenance,
  type Member,
  type MethodDescriptor,
  type StatusResponse,
} from '@conclave/protocol';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { eventually, within } from './condition.ts';
import { type EtcdLine, etcdBinaryOf, etcdVersion, untilHealthy } from './etcd-process.ts';
import { freePort } from './free-port.ts';
import { PeerLinks } from './net-links.ts';
import { type Answer, RawClient } from './raw-client.ts';
import { launch, type ProcessExit, type RunningProcess } from './running-process.ts';
import { announcedPort, serverScript } from './server-process.ts';

export interface ClusterOptions {
  readonly kind: 'conclave' | 'etcd';
  /** Of etcd. Default: 3.5. */
  readonly version?: EtcdLine;
  /** Default: 3. */
  readonly size?: number;
  /** Default: 100. */
  readonly heartbeatMs?: number;
  /** Default: 1000. */
  readonly electionMs?: number;
  /** For every member, as on etcd's own command line. */
  readonly flags?: readonly string[];
  /** Let the members talk through {@link ProcessCluster.links}. Default: false. */
  readonly hasLinks?: boolean;
  /** What is special about one member. Asked once, before its first start. */
  readonly member?: (name: string) => MemberOptions;
}

export interface MemberOptions {
  readonly dataDir?: string;
  /** Variables of its environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Options of Node itself, of ours only. */
  readonly nodeFlags?: readonly string[];
  /** After those of all members. */
  readonly flags?: readonly string[];
}

const transport = grpcTransport({ runtime: systemRuntime() });

/**
 * Starts a cluster of processes on this machine, ours or a stock etcd; resolves when every member says that it serves.
 *
 * @example
 * await using cluster = await launchCluster({ kind: 'conclave', hasLinks: true });
 * await (await cluster.leader()).kill();
 * await using client = await connect({ endpoints: cluster.endpoints });
 */
export async function launchCluster(options: ClusterOptions): Promise<ProcessCluster> {
  const cluster = new ProcessCluster(options);
  try {
    await cluster.found(options.size ?? 3);
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
  return cluster;
}

/** Names and addresses of one member, known before it runs. */
interface Seat {
  readonly name: string;
  readonly clientPort: number;
  readonly peerPort: number;
  /** The port the other members are told: the proxy's, if there is one. */
  readonly toldPort: number;
}

export class ProcessCluster implements AsyncDisposable {
  /** The wires between the members, when asked for. */
  readonly links: PeerLinks | undefined;
  readonly kind: 'conclave' | 'etcd';
  readonly #options: ClusterOptions;
  readonly #members: ClusterMember[] = [];
  readonly #removed: ClusterMember[] = [];
  #named = 0;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.kind = options.kind;
    this.links = options.hasLinks === true ? new PeerLinks() : undefined;
  }

  /** Those that were not removed, in the order they came, whether they run or not. */
  get members(): readonly ClusterMember[] {
    return this.#members;
  }

  /** `host:port` of every member's client door. */
  get endpoints(): readonly string[] {
    return this.#members.map(({ endpoint }) => endpoint);
  }

  get names(): readonly string[] {
    return this.#members.map(({ name }) => name);
  }

  /** Starts the first members. Called once, by {@link launchCluster}. */
  async found(size: number): Promise<void> {
    const seats = await Promise.all(Array.from({ length: size }, () => this.#seat()));
    const initialCluster = seats.map(({ name, toldPort }) => `${name}=${peerUrl(toldPort)}`).join(',');
    const starts = seats.map((seat) => this.#start(seat, ['--initial-cluster', initialCluster, '--initial-cluster-state', 'new']));
    // All of them, also when one fails: none may be left behind unknown.
    const failed = (await Promise.allSettled(starts)).find((start) => start.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** Waits until a member says that it leads and a majority of those there are agrees. */
  async leader(timeoutMs = 15_000): Promise<ClusterMember> {
    return eventually('the cluster has a leader', () => this.#leaderNow(), timeoutMs);
  }

  /**
   * Adds a member, waits until the cluster has taken it, and starts it with an empty data dir.
   *
   * @throws when the cluster refuses, in its words
   */
  async add({ isLearner = false }: { readonly isLearner?: boolean } = {}): Promise<ClusterMember> {
    const seat = await this.#seat();
    const url = peerUrl(seat.toldPort);
    const members = await this.#change(
      () => this.call(Cluster.methods.memberAdd, { peerUrls: [url], isLearner }),
      (now) => now.some(({ peerUrls }) => peerUrls.includes(url)),
    );
    const initialCluster = members.flatMap(({ name, peerUrls }) => peerUrls.map((each) => `${each === url ? seat.name : name}=${each}`));
    return this.#start(seat, ['--initial-cluster', initialCluster.join(','), '--initial-cluster-state', 'existing'], isLearner);
  }

  /** Makes a learner a voter, as soon as it has caught up. */
  async promote(member: ClusterMember): Promise<void> {
    const { id } = member;
    await this.#change(
      () => this.call(Cluster.methods.memberPromote, { id }),
      (members) => members.some((other) => other.id === id && !other.isLearner),
    );
  }

  /** Hands leadership over; refused when the cluster has another leader meanwhile. */
  async moveLeader(from: ClusterMember, to: ClusterMember): Promise<Answer<unknown>> {
    return from.call(Maintenance.methods.moveLeader, { targetId: to.id }, 10_000);
  }

  /** Removes a member from the cluster, and waits until it has learned that and ended, if it runs. Its data stays until this cluster is disposed of. */
  async remove(member: ClusterMember): Promise<void> {
    const { id } = member;
    await this.#change(
      () => this.call(Cluster.methods.memberRemove, { id }),
      (members) => members.every((other) => other.id !== id),
    );
    this.#members.splice(this.#members.indexOf(member), 1);
    this.#removed.push(member);
    if (member.isRunning) await within(`${member.name} ends, as it was removed`, member.exited, 20_000);
    await this.links?.removeMember(member.name);
  }

  /** Asks the members in turn until one succeeds; gives the last answer if none does. */
  async call<I, O>(method: MethodDescriptor<I, O, false, false>, request: Init<I>, timeoutMs = 5000): Promise<Answer<O>> {
    let answer: Answer<O> | undefined;
    for (const member of this.#members) {
      if (!member.isRunning) continue;
      answer = await member.call(method, request, timeoutMs);
      if (answer.code === 0) return answer;
    }
    if (answer === undefined) throw new Error('no member runs');
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#members, ...this.#removed].map((member) => member[Symbol.asyncDispose]()));
    await this.links?.[Symbol.asyncDispose]();
  }

  async #seat(): Promise<Seat> {
    const name = `m${++this.#named}`;
    const [clientPort, peerPort] = [await freePort(), await freePort()];
    const toldPort = this.links === undefined ? peerPort : await freePort();
    return { name, clientPort, peerPort, toldPort };
  }

  async #start(seat: Seat, clusterFlags: readonly string[], isLearner = false): Promise<ClusterMember> {
    const { heartbeatMs = 100, electionMs = 1000, flags = [], member: optionsOf } = this.#options;
    const options = optionsOf?.(seat.name) ?? {};
    const allFlags = [
      ...['--name', seat.name, '--initial-cluster-token', 'conclave-test'],
      ...['--listen-peer-urls', peerUrl(seat.peerPort), '--initial-advertise-peer-urls', peerUrl(seat.toldPort)],
      ...['--heartbeat-interval', String(heartbeatMs), '--election-timeout', String(electionMs)],
      ...clusterFlags,
      ...flags,
      ...(options.flags ?? []),
    ];
    const member = new ClusterMember(seat.name, `127.0.0.1:${seat.clientPort}`, this.#recipe(seat, options, isLearner));
    this.#members.push(member);
    await this.links?.addMember({ name: seat.name, peerPort: seat.peerPort, proxyPort: seat.toldPort, pid: () => member.pid });
    await member.start(allFlags);
    return member;
  }

  #recipe(seat: Seat, options: MemberOptions, isLearner: boolean): MemberRecipe {
    const { kind, version = '3.5' } = this.#options;
    const program = kind === 'etcd' ? [etcdBinaryOf(version)] : [process.execPath, ...(options.nodeFlags ?? []), serverScript()];
    return {
      name: kind === 'etcd' ? `etcd ${etcdVersion(version)} ${seat.name}` : `conclave-server ${seat.name}`,
      version: kind === 'etcd' ? etcdVersion(version) : etcdApiVersion,
      dataDir: options.dataDir,
      environment: options.environment,
      firstPort: () => Promise.resolve(seat.clientPort),
      command: (dataDir, port, flags) => [
        ...program,
        ...['--data-dir', dataDir, '--log-level', kind === 'etcd' ? 'error' : 'info'],
        ...['--listen-client-urls', `http://127.0.0.1:${port}`, '--advertise-client-urls', `http://127.0.0.1:${port}`],
        ...flags,
      ],
      readyAt: async (child, port) => {
        if (kind === 'conclave') return announcedPort(child);
        // A learner of etcd is never healthy: it serves no linearizable read.
        await untilHealthy(`http://127.0.0.1:${port}/${isLearner ? 'version' : 'health'}`, isLearner ? 'etcdserver' : '"health":"true"');
        return port;
      },
    };
  }

  async #leaderNow(): Promise<ClusterMember | undefined> {
    const said = await Promise.all(this.#members.map(async (member) => ({ member, status: await member.status() })));
    for (const { member, status } of said) {
      const id = status?.header?.memberId;
      if (id === undefined || status?.leader !== id) continue;
      const voices = said.filter((other) => other.status?.leader === id && other.status.raftTerm === status.raftTerm).length;
      if (voices * 2 > this.#members.length) return member;
    }
    return undefined;
  }

  /** Membership changes are refused for a while after the one before, and an answer may be lost: what counts is the list of members. */
  async #change(
    attempt: () => Promise<Answer<{ readonly members: readonly Member[] }>>,
    isDone: (members: readonly Member[]) => boolean,
  ): Promise<readonly Member[]> {
    let refusal = '';
    const change = async (): Promise<readonly Member[] | undefined> => {
      const answer = await attempt();
      if (answer.response !== undefined) return answer.response.members;
      refusal = answer.message;
      const members = (await this.call(Cluster.methods.memberList, { linearizable: true })).response?.members;
      return members !== undefined && isDone(members) ? members : undefined;
    };
    try {
      return await eventually('the membership has changed', change, 30_000);
    } catch (error) {
      throw new Error(`the membership does not change: ${refusal}`, { cause: error });
    }
  }
}

interface MemberRecipe {
  readonly name: string;
  readonly version: string;
  readonly dataDir: string | undefined;
  readonly environment: Readonly<Record<string, string>> | undefined;
  firstPort(): Promise<number>;
  command(dataDir: string, port: number, flags: readonly string[]): readonly string[];
  readyAt(child: ChildProcess, port: number): Promise<number>;
}

/** One member of a {@link ProcessCluster}. */
export class ClusterMember implements AsyncDisposable {
  readonly name: string;
  /** `host:port` of its client door. */
  readonly endpoint: string;
  readonly #recipe: MemberRecipe;
  #process: RunningProcess | undefined;
  #spawned: ChildProcess | undefined;
  #id: bigint | undefined;

  constructor(name: string, endpoint: string, recipe: MemberRecipe) {
    this.name = name;
    this.endpoint = endpoint;
    this.#recipe = recipe;
  }

  /** Called once, by the cluster. */
  async start(flags: readonly string[]): Promise<void> {
    const recipe: MemberRecipe = {
      ...this.#recipe,
      readyAt: (child, port) => {
        this.#spawned = child;
        return this.#recipe.readyAt(child, port);
      },
    };
    this.#process = await launch(recipe, flags);
    this.#id = (await eventually(`${this.name} tells its id`, () => this.status())).header?.memberId;
  }

  get process(): RunningProcess {
    if (this.#process === undefined) throw new Error(`${this.name} was never started`);
    return this.#process;
  }

  /** The member's id in the cluster. */
  get id(): bigint {
    if (this.#id === undefined) throw new Error(`${this.name} has not told its id yet`);
    return this.#id;
  }

  get isRunning(): boolean {
    return this.#spawned !== undefined && this.#spawned.exitCode === null && this.#spawned.signalCode === null;
  }

  /** 0 while it does not run. */
  get pid(): number {
    return this.isRunning ? (this.#spawned?.pid ?? 0) : 0;
  }

  get dataDir(): string {
    return this.process.dataDir;
  }

  /** The last 64 KiB of what it printed, since the first start. */
  get output(): string {
    return this.process.output;
  }

  get exited(): Promise<ProcessExit> {
    return this.process.exited;
  }

  kill(): Promise<ProcessExit> {
    return this.process.kill();
  }

  /** SIGTERM, then waits for the end. */
  stop(): Promise<ProcessExit> {
    return this.process.stop();
  }

  pause(): void {
    this.process.signal('SIGSTOP');
  }

  resume(): void {
    this.process.signal('SIGCONT');
  }

  /** Resolves when it serves, for which a majority of the members must run. */
  restart(): Promise<void> {
    return this.process.restart();
  }

  /** Asks this member over a connection of its own. */
  async call<I, O>(method: MethodDescriptor<I, O, false, false>, request: Init<I>, timeoutMs = 5000): Promise<Answer<O>> {
    const connection = transport(this.endpoint);
    try {
      return await new RawClient(connection).unary(method, request, { timeoutMs });
    } finally {
      connection.close();
    }
  }

  /** What it says of itself; undefined: it does not answer. */
  async status(timeoutMs = 1000): Promise<StatusResponse | undefined> {
    if (!this.isRunning) return undefined;
    return (await this.call(Maintenance.methods.status, {}, timeoutMs)).response;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]();
  }
}

function peerUrl(port: number): string {
  return `http://127.0.0.1:${port}`;
}
