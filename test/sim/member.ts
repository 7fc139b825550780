import { type ConclaveServer, MemberRemovedError, startServer } from '@conclave/server';
import type { Random } from '@conclave/testing';
import { type DiskOperation, Machine, SimulatedBackend, SimulatedDisk } from '@conclave/testing/simulation';
import type { Findings } from './findings.ts';
import { between, type Plan, randomOf } from './plan.ts';
import type { World } from './world.ts';

/** How a member came to be in the cluster. */
export interface Membership {
  readonly initialCluster: Readonly<Record<string, readonly string[]>>;
  readonly state: 'new' | 'existing';
}

/**
 * One member on its machine: it starts, dies, comes back on what its disk kept. A supervisor starts it again after whatever ended it, as long as it is
 * wanted.
 */
export class Member {
  readonly name: string;
  readonly machine: Machine;
  disk: SimulatedDisk;
  readonly state: SimulatedBackend;
  server: ConclaveServer | undefined;
  /** How slow the disk is beside what the plan says. */
  diskSlowness = 0;
  isDiskFull = false;
  /** The next flush fails. */
  willFailSync = false;
  /** Set once the member was told to end by a fault of its disk, until it starts again. */
  failedAt: number | undefined;
  isRemoved = false;
  /** An operator has asked for its removal: it may learn of it, and end. */
  isUnwanted = false;
  readonly #world: World;
  readonly #plan: Plan;
  readonly #findings: Findings;
  readonly #random: Random;
  #membership: Membership;
  #generation = 0;
  #release: 'old' | 'new';
  #isWanted = false;
  #hasDiskFault = false;
  #restartAt = 0;

  constructor(name: string, world: World, membership: Membership) {
    const { plan, time, findings, trace } = world;
    this.name = name;
    this.#world = world;
    this.#plan = plan;
    this.#findings = findings;
    this.#membership = membership;
    this.#release = world.numberOf(name) <= plan.oldReleases ? 'old' : 'new';
    this.#random = randomOf(plan.seed, `member ${name}`);
    const number = world.numberOf(name);
    this.machine = new Machine(time, {
      name,
      seed: this.#random.below(2 ** 32),
      // Never fast: what the history says of a lease's time is in true milliseconds.
      clockRate: 1 - this.#random.next() * plan.clockSkew,
      quantumMs: 1,
      log: findings.logOf(
        name,
        (message) => this.#hasDiskFault || this.isUnwanted || (plan.quotas.length > 0 && message.includes('NOSPACE')),
      ),
      onTimer: () => trace.note(number, time.monotonic()),
    });
    this.disk = this.#emptyDisk();
    this.state = new SimulatedBackend(this.machine, {
      random: randomOf(plan.seed, `backend ${name}`),
      commitMs: () => between(this.#random, plan.disk.commitMs) + this.diskSlowness,
    });
  }

  get isUp(): boolean {
    return this.machine.isUp;
  }

  get peerUrl(): string {
    return peerUrlOf(this.name, this.#generation);
  }

  /** The address of the next member on this machine. */
  get nextPeerUrl(): string {
    return peerUrlOf(this.name, this.#generation + 1);
  }

  /** Starts it, and again after every end, until {@link retire}. */
  start(): void {
    this.#isWanted = true;
    this.#start();
  }

  /** It is not started again. */
  retire(): void {
    this.#isWanted = false;
  }

  /** Its process dies at once, or its machine loses power; it comes back after `downMs`. */
  crash(kind: 'process' | 'power', downMs: number): void {
    if (!this.isUp) return;
    this.#end(kind, downMs);
  }

  /** An operator stops it, installs the newest release, and starts it again after `downMs`. */
  restart(downMs: number): void {
    const { server, machine } = this;
    const { process } = machine;
    if (server === undefined) return;
    this.#release = 'new';
    server.close().then(
      () => {
        if (machine.process === process) this.#end('process', downMs);
      },
      (cause: unknown) => {
        if (machine.process === process && !this.#hasDiskFault)
          this.#findings.add('stop-failed', `${this.name} did not stop well: ${describe(cause)}`);
      },
    );
  }

  /** The machine gets empty disks, and serves another member from now on, once that is started. */
  replace(membership: Membership): void {
    this.#end('power', 0);
    this.state.wipe();
    this.disk = this.#emptyDisk();
    this.#membership = membership;
    this.#generation += 1;
    this.#release = 'new';
    this.isRemoved = false;
    this.isUnwanted = false;
  }

  /** An operator stops it, and does not start it again. */
  async stop(): Promise<void> {
    this.#isWanted = false;
    const { server } = this;
    if (server === undefined) this.machine.kill();
    else await server.close();
  }

  #emptyDisk(): SimulatedDisk {
    const { time, trace } = this.#world;
    const number = this.#world.numberOf(this.name) + 0x100;
    return new SimulatedDisk({
      runtime: this.machine.asRuntime(),
      latencyMs: (operation) => this.#latency(operation),
      fault: (operation) => this.#fault(operation),
      onOperation: () => trace.note(number, time.monotonic()),
    });
  }

  #start(): void {
    if (!this.#isWanted || this.isUp || this.isRemoved) return;
    const { calls, peers, plan } = this.#world;
    const quota = plan.quotas[this.#world.numberOf(this.name) - 1];
    this.failedAt = undefined;
    this.willFailSync = false;
    this.#hasDiskFault = this.isDiskFull;
    const runtime = this.machine.boot();
    const isCurrent = (): boolean => this.machine.process === runtime;
    this.state.crash();
    startServer({
      name: this.name,
      runtime,
      network: calls.networkOf(this.machine),
      peerNetwork: peers.networkOf(this.machine),
      peerUrls: [this.peerUrl],
      initialCluster: this.#membership.initialCluster,
      initialClusterState: this.#membership.state,
      dataDir: '/data',
      storage: { disk: this.disk.mount(), backend: () => this.state.mount(), ...this.#plan.storage },
      ...this.#plan.settings,
      ...(quota !== undefined && { quotaBackendBytes: quota }),
      ...(this.#release === 'old' && { entryVersion: 1 }),
    }).then(
      (server) => {
        if (!isCurrent()) return;
        this.server = server;
        server.failed.catch((cause: unknown) => {
          if (isCurrent()) this.#onFailed(cause);
        });
      },
      (cause: unknown) => {
        if (isCurrent()) this.#onStartFailed(cause);
      },
    );
  }

  #onFailed(cause: unknown): void {
    const { time } = this.#world;
    this.failedAt = time.monotonic();
    if (cause instanceof MemberRemovedError && this.isUnwanted) this.isRemoved = true;
    else if (!this.#isExcused(cause)) this.#findings.add('member-failed', `${this.name} failed by itself: ${describe(cause)}`);
    // A moment later, so that one that goes on after its end is caught at it.
    this.machine.arrive(20, () => this.#end('process', 200));
  }

  #onStartFailed(cause: unknown): void {
    if (cause instanceof MemberRemovedError && this.isUnwanted) this.isRemoved = true;
    else if (!this.#isExcused(cause)) this.#findings.add('start-failed', `${this.name} did not start: ${describe(cause)}`);
    this.#end('process', 300);
  }

  /** It had a fault by the simulation's hand: then, and only then, the member may end. */
  #isExcused(cause: unknown): boolean {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    // Whoever joins has to reach somebody who knows of it; otherwise it ends, and is started again.
    if (code === 'ECONNREFUSED' || (cause instanceof Error && cause.name === 'InitialClusterError'))
      return this.#membership.state === 'existing';
    return this.#hasDiskFault && (code === 'EIO' || code === 'ENOSPC');
  }

  #end(kind: 'process' | 'power', downMs: number): void {
    this.server = undefined;
    this.machine.kill();
    this.state.crash();
    if (kind === 'process') this.disk.killProcess();
    else this.disk.cutPower(this.#random);
    const { time } = this.#world;
    this.#restartAt = time.monotonic() + downMs;
    time.timer(downMs, () => {
      if (time.monotonic() >= this.#restartAt) this.#start();
    });
  }

  #latency({ kind }: DiskOperation): number {
    if (kind !== 'sync' && kind !== 'syncDir') return 0;
    return between(this.#random, this.#plan.disk.syncMs) + (this.diskSlowness > 0 ? this.#random.below(this.diskSlowness) : 0);
  }

  #fault({ kind, growth = 0 }: DiskOperation): string | undefined {
    if (this.isDiskFull && (kind === 'create' || kind === 'makeDir' || growth > 0)) {
      this.#hasDiskFault = true;
      return 'ENOSPC';
    }
    if (this.willFailSync && kind === 'sync') {
      this.willFailSync = false;
      this.#hasDiskFault = true;
      return 'EIO';
    }
    return undefined;
  }
}

/** A machine may serve one member after the other: each has an address of its own. */
export function peerUrlOf(name: string, generation: number): string {
  return `http://${name}-${generation}:2380`;
}

function describe(cause: unknown): string {
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}
