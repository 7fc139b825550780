import { leader } from '@conclave/recipes';
import { type Client, type ConnectOptions, connect, type Integer } from '@conclave/sdk';
import type { MemberSettings } from '@conclave/server';
import type { Runtime } from '@conclave/wire';
import type { Subscribable } from 'rxjs';
import { Machine } from '../machine.ts';
import { type ExpectOptions, expectMarbles } from '../marbles/expectation.ts';
import { Recording } from '../marbles/recording.ts';
import { Random } from '../random.ts';
import { SimulatedCalls } from '../simulated-calls.ts';
import { SimulatedPeers } from '../simulated-peers.ts';
import { VirtualRuntime } from '../virtual-runtime.ts';
import type { ClusterOptions } from './cluster-options.ts';
import { Driver, type RunOptions } from './driver.ts';
import { type HostWorld, MemberHost } from './member-host.ts';
import { Operator } from './operator.ts';
import { type PartitionOptions, Partitions, type Party } from './partitions.ts';

/** A client's options: those of `connect`, but for what the simulated network decides. */
export interface ClientOptions extends Omit<ConnectOptions, 'endpoints' | 'transport' | 'runtime' | 'tls'> {
  /** The members it talks to, by number. Default: all. */
  readonly members?: readonly number[] | undefined;
}

type Init = ClusterOptions & Required<Pick<ClusterOptions, 'size' | 'seed' | 'delayMs'>>;

/**
 * A cluster in virtual time, made by {@link cluster}. Its members have numbers, from 1; every client runs on a machine of its own.
 *
 * Methods that return a promise move time until they are done. Within {@link TestCluster.run}, which moves it already, they simply take their time.
 */
export class TestCluster implements AsyncDisposable {
  /** How many members there are, running or not. */
  readonly size: number;
  /** The virtual clocks and timers: `runtime.monotonic()` is the time since the start, in milliseconds. For code under test that has no client. */
  readonly runtime: Runtime;
  readonly #driver: Driver;
  readonly #random: Random;
  readonly #time: VirtualRuntime;
  readonly #calls: SimulatedCalls;
  readonly #hosts: readonly MemberHost[];
  readonly #partitions: Partitions;
  readonly #machines = new Map<Client, Machine>();
  readonly #operator: Operator;
  #clientCount = 0;

  /** @internal */
  constructor({ size, seed, delayMs, log, ...settings }: Init) {
    this.size = size;
    this.#random = new Random(seed);
    this.#time = new VirtualRuntime({ seed, sharesTurns: true });
    this.runtime = this.#time;
    this.#driver = new Driver(this.#time);
    const [least, most] = delayMs;
    this.#calls = new SimulatedCalls(this.#time, { delayMs: () => least + this.#random.below(most - least + 1) });
    const peers = new SimulatedPeers({
      random: this.#random,
      link: (from, to) => ({ isCut: this.#partitions.isCut(from, to), loss: 0, duplication: 0, delayMs }),
    });
    const names = Array.from({ length: size }, (_, at) => `m${at + 1}`);
    const onFailure = (error: unknown): void => this.#driver.fail(error);
    const world: HostWorld = {
      time: this.#time,
      calls: this.#calls,
      peers,
      names,
      settings: settings as Partial<MemberSettings>,
      log,
      onFailure,
    };
    this.#hosts = names.map((name) => new MemberHost(name, this.#random.below(2 ** 32), world));
    const machines = this.#hosts.map(({ machine }) => machine);
    this.#partitions = new Partitions(this.#calls, machines);
    this.#operator = new Operator({
      time: this.#time,
      calls: this.#calls,
      hosts: this.#hosts,
      newMachine: (name) => this.#newMachine(name),
    });
  }

  /**
   * Connects a client on a machine of its own. The cluster closes it at the end.
   *
   * @throws ConclaveError as `connect`; TypeError for a member that there is not
   * @example
   * ```ts
   * const client = await c.client();
   * const onlyTheThird = await c.client({ members: [3], namespace: 'app/' });
   * ```
   */
  async client(options: ClientOptions = {}): Promise<Client> {
    const { members = this.#numbers(), ...connectOptions } = options;
    const endpoints = members.map((number) => this.#host(number).name);
    this.#clientCount += 1;
    const machine = this.#newMachine(`c${this.#clientCount}`);
    this.#partitions.add(machine);
    return this.#driver.drive(async () => {
      const runtime = machine.boot();
      const client = await connect({ ...connectOptions, endpoints, runtime, transport: this.#calls.transportOf(machine) });
      this.#machines.set(client, machine);
      return client;
    });
  }

  /**
   * Moves time until `work` has settled, and returns or throws what it did: a promise, or an asynchronous function to be called. What runs
   * at the same time goes on beside it.
   *
   * @throws Error when `deadlineMs` of virtual time have passed before; whatever a member failed with, if one did
   * @example
   * ```ts
   * const { revision } = await c.run(client.put('a', '1'));
   * await c.run(async () => {
   *   await client.put('a', '2');
   *   await c.advance(60_000); // a minute later
   *   await client.delete('a');
   * });
   * ```
   */
  run<T>(work: Promise<T> | (() => T | Promise<T>), options?: RunOptions): Promise<T> {
    return this.#driver.drive(typeof work === 'function' ? work : () => work, options);
  }

  /**
   * Lets `ms` milliseconds pass.
   *
   * @example
   * ```ts
   * const lease = await c.run(client.lease.grant({ ttlSeconds: 10 }));
   * await c.advance(600_000); // ten minutes, in which it was renewed again and again
   * console.log(lease.state); // held
   * ```
   */
  advance(ms: number): Promise<void> {
    return this.#driver.advance(ms);
  }

  /**
   * Lets time pass until `condition` holds; it is asked every 10 virtual milliseconds.
   *
   * @throws Error when `deadlineMs` have passed before
   * @example
   * ```ts
   * const seen: string[] = [];
   * client.watch('a').subscribe((event) => seen.push(event.value));
   * await c.advance(100);
   * await c.run(client.put('a', '1'));
   * await c.until(() => seen.includes('1'));
   * ```
   */
  until(condition: () => boolean | Promise<boolean>, options?: RunOptions): Promise<void> {
    return this.#driver.until(condition, options);
  }

  /**
   * Nothing passes between the two sides, until {@link TestCluster.heal}: what is sent is lost between members, and waits between a client and a
   * member, as in a TCP connection.
   *
   * @throws TypeError for sides that cannot be
   * @example
   * ```ts
   * c.partition([1, client], [2, 3]); // the client is left with a minority
   * c.partition([1], [2], { isOneWay: true }); // 2 does not hear 1, but 1 hears 2
   * ```
   */
  partition(side: readonly Party[], other: readonly Party[], { isOneWay = false }: PartitionOptions = {}): void {
    const machinesOf = (parties: readonly Party[]): Machine[] => parties.map((party) => this.#machineOf(party));
    this.#partitions.partition(machinesOf(side), machinesOf(other), isOneWay);
  }

  /**
   * Nothing passes between this one and anybody else, until {@link TestCluster.heal}.
   *
   * @example
   * ```ts
   * const lease = await c.run(client.lease.grant({ ttlSeconds: 5 }));
   * c.isolate(client);
   * await c.advance(6_000);
   * console.log(lease.state); // lost
   * ```
   */
  isolate(party: Party): void {
    this.#partitions.isolate(this.#machineOf(party));
  }

  /**
   * Breaks the connections of a client, and what is on its way there is lost. It connects again at once, unless it is cut off.
   *
   * @throws TypeError for what is no client of this cluster
   * @example
   * ```ts
   * const writing = client.put('a', '1');
   * await c.advance(1); // it is on its way
   * c.disconnect(client);
   * await c.run(writing).catch((error) => console.log(error.outcome)); // unknown
   * ```
   */
  disconnect(client: Client): void {
    if (typeof client === 'number')
      throw new TypeError('only clients have connections that can be broken: members are kept apart by partition');
    const machine = this.#machineOf(client);
    for (const host of this.#hosts) this.#calls.cut(machine, host.machine);
  }

  /**
   * Ends all partitions and isolations.
   *
   * @example
   * ```ts
   * c.isolate(client);
   * await c.advance(1_000);
   * c.heal();
   * await c.run(client.put('a', '1')); // gets through again
   * ```
   */
  heal(): void {
    this.#partitions.heal();
  }

  /**
   * Power is cut: of a member, what was not flushed to its disk is lost, and {@link TestCluster.restart} brings it back. A client is dead for
   * good: nothing it waits for comes, so that whoever awaits one of its calls waits for ever.
   *
   * @example
   * ```ts
   * c.crash(1);
   * await c.advance(5_000);
   * await c.restart(1);
   * ```
   */
  crash(party: Party): void {
    if (typeof party === 'number') this.#host(party).crash();
    else this.#machineOf(party).kill();
  }

  /**
   * Starts members again on what their disks hold, after stopping those that run as an operator would. Resolves when they serve, for which a
   * majority must run: of three members of which two are down, restart both in one call. Default: all that are down.
   *
   * @throws TypeError for a member that there is not, or that is paused
   * @example
   * ```ts
   * c.crash(1);
   * c.crash(2);
   * await c.restart(1, 2);
   * ```
   */
  async restart(...members: readonly number[]): Promise<void> {
    const hosts =
      members.length > 0 ? [...new Set(members)].map((number) => this.#host(number)) : this.#hosts.filter(({ machine }) => !machine.isUp);
    const paused = hosts.find(({ machine }) => machine.isUp && machine.isPaused);
    if (paused !== undefined) throw new TypeError(`${paused.name} stands still and cannot be stopped: resume or crash it first`);
    await this.#driver.drive(async () => {
      for (const host of hosts) if (host.server !== undefined) await host.stop();
      await Promise.all(hosts.map((host) => host.start()));
    });
  }

  /**
   * The process stands still, as by SIGSTOP: time goes on without it, and what arrives waits, until {@link TestCluster.resume}.
   *
   * @example
   * ```ts
   * const lease = await c.run(client.lease.grant({ ttlSeconds: 5 }));
   * c.pause(client); // a long garbage collection
   * await c.advance(60_000);
   * c.resume(client);
   * console.log(lease.state); // lost: told at the first look
   * ```
   */
  pause(party: Party): void {
    this.#machineOf(party).pause();
  }

  /**
   * Ends a {@link TestCluster.pause}: what fell due meanwhile happens now.
   *
   * @example
   * ```ts
   * const writing = client.put('a', '1');
   * c.pause(1);
   * await c.advance(2_000);
   * c.resume(1);
   * await c.run(writing); // it only took longer
   * ```
   */
  resume(party: Party): void {
    this.#machineOf(party).resume();
  }

  /**
   * Steps the wall clock of one machine alone, forward or back, as a time daemon does. Nothing should mind.
   *
   * @throws TypeError for a step that is no number of milliseconds
   * @example
   * ```ts
   * const lease = await c.run(client.lease.grant({ ttlSeconds: 5 }));
   * c.stepWall(client, 3_600_000);
   * await c.advance(1_000);
   * console.log(lease.state); // held
   * ```
   */
  stepWall(party: Party, ms: number): void {
    this.#machineOf(party).stepWall(ms);
  }

  /**
   * The number of the member that leads, once one does that a majority follows.
   *
   * @example
   * ```ts
   * const old = await c.leader();
   * c.pause(old);
   * console.log((await c.leader()) === old); // false
   * ```
   */
  leader(): Promise<number> {
    return this.#driver.drive(() => this.#operator.atLeader(async (_, number) => number));
  }

  /**
   * Has leadership handed over: to the member given, or to any other. Gives the number of the new leader.
   *
   * @throws TypeError when there is no other; ConclaveError `leader-transfer-timeout` when it cannot take over
   * @example
   * ```ts
   * const now = await c.moveLeader();
   * await c.moveLeader(now === 1 ? 2 : 1);
   * ```
   */
  async moveLeader(to?: number): Promise<number> {
    if (to !== undefined) this.#host(to);
    return this.#driver.drive(async () => {
      const target = await this.#operator.atLeader(async (client, number) => {
        const other = to ?? this.#numbers().find((one) => one !== number && this.#host(one).isActive);
        if (other === undefined) throw new TypeError('there is no other member that could lead');
        const id = this.#host(other).server?.memberId;
        if (id === undefined) throw new TypeError(`member ${other} does not run`);
        await client.maintenance.moveLeader(id);
        return other;
      });
      await this.#driver.until(() => this.#host(target).server?.isLeader === true);
      return target;
    });
  }

  /**
   * Has the server let a lease expire now, whatever time it has left: its keys go, and its holder learns of it as early as it can by itself. To
   * have the holder lose it first, as it should be, {@link TestCluster.isolate} it and let the time pass.
   *
   * @example
   * ```ts
   * const lease = await c.run(client.lease.grant({ ttlSeconds: 60 }));
   * await c.run(client.put('workers/7', 'alive', { lease }));
   * await c.expireLease(lease);
   * console.log(await c.run(client.get('workers/7'))); // undefined
   * ```
   */
  expireLease(lease: Integer | { readonly id: bigint }): Promise<void> {
    const id = typeof lease === 'object' ? lease.id : lease;
    return this.#driver.drive(() => this.#operator.atLeader((client) => client.lease.revoke(id)));
  }

  /**
   * Takes a lock or an election away from whoever has it: its lease expires, and who is next in the queue follows. The name is that in the
   * store, with the namespace of the client.
   *
   * @throws Error when nobody has it
   * @example
   * ```ts
   * const held = await c.run(lock(client, 'jobs/nightly'));
   * await c.evict('jobs/nightly');
   * await c.until(() => !held.isHeld);
   * console.log(held.signal.reason.code); // lock-lost
   * ```
   */
  evict(name: string): Promise<void> {
    return this.#driver.drive(() =>
      this.#operator.atLeader(async (client) => {
        const first = await leader(client, name);
        const held = first && (await client.get(first.key));
        if (held === undefined) throw new Error(`nobody has the lock or election ${name}`);
        await client.lease.revoke(held.lease);
      }),
    );
  }

  /**
   * Forgets all history before `revision`; by default before the present one. A watch meets that if its connection broke and it has missed more
   * than one revision. Gives the revision.
   *
   * @throws ConclaveError `compacted`, `future-revision`
   * @example
   * ```ts
   * await using view = await c.run(client.view(prefix('config/')));
   * const other = await c.client();
   * c.isolate(client);
   * c.disconnect(client);
   * await c.run(async () => {
   *   for (const color of ['red', 'green', 'blue']) await other.put('config/color', color);
   * });
   * await c.compact(); // what the view missed cannot be told any more
   * c.heal();
   * await c.until(() => view.get('config/color')?.value === 'blue');
   * ```
   */
  compact(revision?: Integer): Promise<bigint> {
    return this.#driver.drive(() =>
      this.#operator.atLeader(async (client) => {
        const at = revision === undefined ? (await client.list('\0', { limit: 1 })).revision : BigInt(revision);
        await client.compact(at, { physical: true });
        return at;
      }),
    );
  }

  /**
   * Subscribes now, and notes what comes and when, until the recording is stopped: for more than one Observable at a time.
   *
   * @example
   * ```ts
   * const seen = c.record(client.watch('a'));
   * await c.advance(100);
   * await c.run(client.put('a', '1'));
   * await c.until(() => seen.emissions.length === 1);
   * seen.stop();
   * ```
   */
  record<T>(source: Subscribable<T>): Recording<T> {
    return new Recording(source, this.#time);
  }

  /**
   * Subscribes to `source`, lets the time of the diagram pass, and compares what it emitted. Diagrams are those of rxjs: one character is 10 ms of
   * virtual time, `(ab)` are values of one moment, `|` is the end, `#` an error, ` 2s ` are two seconds. What comes within the 10 ms of a
   * character belongs to it.
   *
   * @throws AssertionError with both diagrams and what differs
   * @example
   * ```ts
   * import { map } from 'rxjs';
   *
   * const values = client.watch(prefix('a/')).pipe(map((event) => event.value));
   * await c.expectMarbles(values, '-x-y', {
   *   during: ['-p-q', { p: () => client.put('a/1', 'x'), q: () => client.put('a/2', 'y') }],
   * });
   * ```
   */
  expectMarbles<T>(source: Subscribable<T>, marbles: string, options: ExpectOptions = {}): Promise<void> {
    return this.#driver.drive(() => expectMarbles(this.#time, source, marbles, options));
  }

  /**
   * Closes the clients and ends the members at once; whatever still runs, or is run later, rejects. Idempotent. Held with `await using` there is no
   * need to.
   *
   * @example
   * ```ts
   * const c = await cluster();
   * await c.close();
   * ```
   */
  async close(): Promise<void> {
    for (const client of this.#machines.keys()) await client.close();
    this.#machines.clear();
    for (const { machine } of this.#hosts) machine.kill();
    this.#driver.fail(new Error('the cluster is closed'));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #newMachine(name: string): Machine {
    return new Machine(this.#time, { name, seed: this.#random.below(2 ** 32), quantumMs: 1 });
  }

  #numbers(): readonly number[] {
    return this.#hosts.map((_, at) => at + 1);
  }

  #host(number: number): MemberHost {
    const host = this.#hosts[number - 1];
    if (host === undefined) throw new TypeError(`there is no member ${number}: they are 1 to ${this.size}`);
    return host;
  }

  #machineOf(party: Party): Machine {
    if (typeof party === 'number') return this.#host(party).machine;
    const machine = this.#machines.get(party);
    if (machine === undefined) throw new TypeError('this client is none of this cluster');
    return machine;
  }
}
