import { type ConclaveServer, type MemberSettings, type PeerNetwork, startServer } from '@conclave/server';
import type { Logger } from '@conclave/wire';
import { Machine } from '../machine.ts';
import { Random } from '../random.ts';
import { SimulatedBackend } from '../simulated-backend.ts';
import type { SimulatedCalls } from '../simulated-calls.ts';
import { SimulatedDisk } from '../simulated-disk.ts';
import type { VirtualRuntime } from '../virtual-runtime.ts';

/** What all members of a cluster have in common. */
export interface HostWorld {
  readonly time: VirtualRuntime;
  readonly calls: SimulatedCalls;
  readonly peers: { networkOf(machine: Machine): PeerNetwork };
  /** Their names, in the order of their numbers. */
  readonly names: readonly string[];
  readonly settings: Partial<MemberSettings>;
  readonly log: Logger | undefined;
  /** A member ended by itself. */
  readonly onFailure: (error: unknown) => void;
}

/** A machine with a disk, and the member that runs on it. */
export class MemberHost {
  readonly name: string;
  readonly machine: Machine;
  readonly #world: HostWorld;
  readonly #random: Random;
  readonly #disk: SimulatedDisk;
  readonly #state: SimulatedBackend;
  #server: ConclaveServer | undefined;

  constructor(name: string, seed: number, world: HostWorld) {
    this.name = name;
    this.#world = world;
    this.#random = new Random(seed);
    this.machine = new Machine(world.time, { name, seed, quantumMs: 1, ...(world.log !== undefined && { log: world.log }) });
    this.#disk = new SimulatedDisk({ runtime: this.machine.asRuntime() });
    this.#state = new SimulatedBackend(this.machine, { random: this.#random, commitMs: () => 1 });
  }

  /** The member, while it serves. */
  get server(): ConclaveServer | undefined {
    return this.#server;
  }

  /** Whether the member can answer: it serves, and stands not still. */
  get isActive(): boolean {
    return this.#server !== undefined && !this.machine.isPaused;
  }

  /** Starts it on what its disk holds. Resolves when it serves, for which a majority is needed. */
  async start(): Promise<void> {
    const { calls, peers, names, settings, onFailure } = this.#world;
    const runtime = this.machine.boot();
    const isCurrent = (): boolean => this.machine.process === runtime;
    this.#state.crash();
    const server = await startServer({
      ...settings,
      name: this.name,
      runtime,
      network: calls.networkOf(this.machine),
      peerNetwork: peers.networkOf(this.machine),
      peerUrls: [peerUrlOf(this.name)],
      initialCluster: Object.fromEntries(names.map((name) => [name, [peerUrlOf(name)]])),
      dataDir: '/data',
      storage: { disk: this.#disk.mount(), backend: () => this.#state.mount(), segmentBytes: { first: 64 * 1024, max: 1024 * 1024 } },
    });
    if (!isCurrent()) return;
    this.#server = server;
    server.failed.catch((error: unknown) => {
      if (isCurrent()) onFailure(error);
    });
  }

  /** The machine loses power. */
  crash(): void {
    this.#end();
    this.#disk.cutPower(this.#random);
  }

  /** It is stopped as an operator would. */
  async stop(): Promise<void> {
    await this.#server?.close();
    this.#end();
    this.#disk.killProcess();
  }

  #end(): void {
    this.#server = undefined;
    this.machine.kill();
    this.#state.crash();
  }
}

/** Only makes up the member's id. */
function peerUrlOf(name: string): string {
  return `http://${name}:2380`;
}
