import { type Client, connect, isConclaveError } from '@conclave/sdk';
import type { Random } from '@conclave/testing';
import { Machine } from '@conclave/testing/simulation';
import { recordingTransport } from '@conclave/testkit';
import type { Runtime } from '@conclave/wire';
import { Contention } from './contention.ts';
import { exponential, randomOf } from './plan.ts';
import { Requests } from './requests.ts';
import { Watching } from './watching.ts';
import type { World } from './world.ts';

/** What belongs to one process of a client: all of it dies with it. */
export interface ClientProcess {
  readonly world: World;
  readonly name: string;
  readonly number: number;
  readonly runtime: Runtime;
  readonly client: Client;
  readonly random: Random;
  /** False once the process is dead. What was written for it after that is not its doing. */
  readonly isAlive: () => boolean;
  /** It stands still: what arrived in the turn in which it was stopped may still come to its end. */
  readonly isPaused: () => boolean;
  /** No more work is begun. */
  readonly isStopping: () => boolean;
}

/** A program that uses the cluster through the SDK: requests, watches, leases, locks, elections. */
export class SimulatedClient {
  readonly name: string;
  readonly machine: Machine;
  readonly #world: World;
  readonly #number: number;
  readonly #random: Random;
  #isStopping = false;
  #life:
    | { readonly process: ClientProcess; readonly contention: Contention; readonly requests: Requests; readonly watching: Watching }
    | undefined;

  constructor(number: number, world: World) {
    const { plan, time, trace, findings } = world;
    this.name = `c${number}`;
    this.#world = world;
    this.#number = number;
    this.#random = randomOf(plan.seed, `client ${number}`);
    const traced = world.numberOf(this.name);
    this.machine = new Machine(time, {
      name: this.name,
      seed: this.#random.below(2 ** 32),
      clockRate: 1 - this.#random.next() * plan.clockSkew,
      quantumMs: 1,
      log: findings.logOf(this.name, () => false),
      onTimer: () => trace.note(traced, time.monotonic()),
    });
    // A process that stands still does not act: what it believes meanwhile harms nobody.
    this.machine.observe({ paused: () => this.#life?.contention.interrupted(), killed: () => this.#died() });
  }

  /** Whether nothing it began is still under way. */
  get isIdle(): boolean {
    return this.#life === undefined || (this.#life.requests.isIdle && this.#life.contention.isIdle);
  }

  get underWay(): string {
    return `${this.name}: ${this.#life?.requests.underWay.join(', ') ?? ''} ${this.#life?.contention.underWay ?? ''}`;
  }

  start(): void {
    if (this.machine.isUp) return;
    const { calls, recorder, members, time } = this.#world;
    const runtime = this.machine.boot();
    const isAlive = (): boolean => this.machine.process === runtime;
    const transport = recordingTransport(calls.transportOf(this.machine), { recorder, client: this.#number, now: () => time.monotonic() });
    const endpoints = members.map((member) => member.name);
    connect({ endpoints, transport, runtime, lazy: true, deadlineMs: 3_000 }).then((client) => {
      if (isAlive()) this.#begin(client, runtime, isAlive);
    }, this.#crashed);
  }

  crash(downMs: number): void {
    this.machine.kill();
    this.#life = undefined;
    this.#world.time.timer(downMs, () => this.start());
  }

  /** Begins nothing more; what is under way comes to its end. */
  stop(): void {
    this.#isStopping = true;
    this.#life?.contention.stop();
  }

  #died(): void {
    this.#life?.contention.interrupted();
    this.#life?.watching.died();
  }

  closeWatches(): void {
    this.#life?.watching.stop();
  }

  async close(): Promise<void> {
    await this.#life?.process.client.close();
  }

  #begin(client: Client, runtime: Runtime, isAlive: () => boolean): void {
    const process: ClientProcess = {
      world: this.#world,
      name: this.name,
      number: this.#number,
      runtime,
      client,
      random: this.#random,
      isAlive,
      isPaused: () => this.machine.isPaused,
      isStopping: () => this.#isStopping,
    };
    const life = { process, requests: new Requests(process), contention: new Contention(process), watching: new Watching(process) };
    this.#life = life;
    life.watching.start();
    life.contention.start();
    const { operationsPerSecond, clients } = this.#world.plan;
    const meanMs = (1000 * clients) / operationsPerSecond;
    const next = (): void => {
      runtime.timer(exponential(this.#random, meanMs), () => {
        if (this.#isStopping) return;
        next();
        life.requests.makeOne();
      });
    };
    next();
  }

  readonly #crashed = (error: unknown): void => {
    this.#world.findings.add('client-crashed', `${this.name}: ${error instanceof Error ? error.stack : String(error)}`);
  };
}

/** Errors that a client must expect while its servers are in trouble. Any other is a finding. */
export function isTrouble(error: unknown): boolean {
  return isConclaveError(error) && troubles.has(error.code);
}

const troubles: ReadonlySet<string> = new Set([
  'unavailable',
  'deadline-exceeded',
  'cancelled',
  'request-timeout',
  'request-timeout-leader-failure',
  'request-timeout-connection-lost',
  'request-timeout-applied-index',
  'leader-changed',
  'no-leader',
  'not-leader',
  'server-stopped',
  'too-many-requests',
  'request-canceled',
  'not-supported-for-learner',
  'unhealthy-cluster',
]);
