import { type Connection, type Loopback, type LoopbackServer, loopback, type Routes, type Runtime, type Transport } from '@conclave/wire';
import type { Machine } from './machine.ts';
import type { VirtualRuntime } from './virtual-runtime.ts';

export interface SimulatedCallsOptions {
  /** Milliseconds between one end and the other, drawn for every batch of messages; order is kept, as in a TCP connection. Default: 1. */
  readonly delayMs?: (client: Machine, address: string) => number;
  /** Bytes a stream buffers in one direction before the writer is asked to wait. Default as in `loopback`. */
  readonly highWaterMark?: number;
}

/**
 * The network between simulated clients and the members they call, who are served under the names of their machines. Every pair has a way of its own,
 * which can be partitioned or cut. Nothing passes to or from a paused machine, and the connections of a dead process break.
 *
 * @example
 * const calls = new SimulatedCalls(time);
 * await startServer({ runtime: server.boot(), name: server.name, network: calls.networkOf(server) });
 * const client = await connect({ runtime: app.boot(), endpoints: server.name, transport: calls.transportOf(app) });
 * calls.partition(app, server); // silence, until heal
 */
export class SimulatedCalls {
  readonly #time: VirtualRuntime;
  readonly #options: SimulatedCallsOptions;
  readonly #machines = new Map<string, Machine>();
  readonly #ways = new Map<string, Way>();
  readonly #served = new Map<Machine, Routes>();

  constructor(time: VirtualRuntime, options: SimulatedCallsOptions = {}) {
    this.#time = time;
    this.#options = options;
  }

  /** The network as the server sees it that runs on this machine. */
  networkOf(server: Machine): Loopback {
    this.#know(server);
    return {
      transport: this.transportOf(server),
      serve: (address, routes) => this.#serve(server, address, routes),
    };
  }

  /** The network as the client sees it that runs on this machine. */
  transportOf(client: Machine): Transport {
    this.#know(client);
    const { process } = client;
    return (address): Connection => {
      const connection = this.#way(client, address).connect();
      // A dead process may still run a little, but reaches nobody.
      if (client.process !== process) connection.close();
      return connection;
    };
  }

  /** Holds back everything between the two, in both directions, until as many calls of {@link heal}. */
  partition(client: Machine, server: Machine): void {
    this.#way(client, server.name).hold();
  }

  heal(client: Machine, server: Machine): void {
    this.#way(client, server.name).release();
  }

  /** Breaks the connections between the two. What is on its way is lost. */
  cut(client: Machine, server: Machine): void {
    this.#way(client, server.name).server?.cut();
  }

  #serve(server: Machine, address: string, routes: Routes): LoopbackServer {
    if (address !== server.name) throw new Error(`machine ${server.name} cannot serve as ${address}`);
    const ways = (): Way[] => [...this.#ways.values()].filter((way) => way.address === address);
    this.#served.set(server, routes);
    for (const way of ways()) way.serve(routes);
    const servers = (): LoopbackServer[] => ways().flatMap((way) => way.server ?? []);
    return {
      address,
      close: async (graceMs, reason) => {
        if (this.#served.get(server) === routes) this.#served.delete(server);
        await Promise.all(ways().map((way) => way.withdraw(routes, graceMs, reason)));
      },
      cut: () => {
        for (const one of servers()) one.cut();
      },
      partition: () => {
        for (const way of ways()) way.hold();
      },
      heal: () => {
        for (const way of ways()) way.release();
      },
    };
  }

  #way(client: Machine, address: string): Way {
    const name = `${client.name} ${address}`;
    let way = this.#ways.get(name);
    if (way === undefined) {
      const server = this.#machines.get(address);
      way = new Way(this.#time, client, address, this.#options);
      this.#ways.set(name, way);
      if (client.isPaused) way.hold();
      if (server?.isPaused) way.hold();
      const routes = server && this.#served.get(server);
      if (routes !== undefined) way.serve(routes);
    }
    return way;
  }

  #know(machine: Machine): void {
    if (this.#machines.get(machine.name) === machine) return;
    if (this.#machines.has(machine.name)) throw new Error(`there are two machines ${machine.name}`);
    this.#machines.set(machine.name, machine);
    const own = (): Way[] => [...this.#ways.values()].filter((way) => way.client === machine || way.address === machine.name);
    let isPaused = machine.isPaused;
    const release = (): void => {
      if (isPaused) for (const way of own()) way.release();
      isPaused = false;
    };
    machine.observe({
      paused: () => {
        isPaused = true;
        for (const way of own()) way.hold();
      },
      resumed: release,
      killed: () => {
        this.#served.delete(machine);
        for (const way of own()) way.broken(machine);
        release();
      },
    });
  }
}

/** The way of one client machine to one address. */
class Way {
  readonly client: Machine;
  readonly address: string;
  server: LoopbackServer | undefined;
  readonly #net: Loopback;
  readonly #connections = new Set<Connection>();
  #routes: Routes | undefined;
  #holds = 0;

  constructor(time: VirtualRuntime, client: Machine, address: string, { delayMs = () => 1, highWaterMark }: SimulatedCallsOptions) {
    this.client = client;
    this.address = address;
    const runtime: Runtime = {
      monotonic: () => time.monotonic(),
      boot: () => time.boot(),
      wall: () => time.wall(),
      timer: (ms, callback) => time.timer(ms, callback),
      // The loopback delivers at the end of the turn: here that is when the messages have made their way.
      endOfTurn: (callback) => {
        const delay = delayMs(client, address);
        if (delay > 0) time.timer(delay, callback);
        else time.endOfTurn(callback);
      },
      random: () => time.random(),
      log: time.log,
    };
    this.#net = loopback({ runtime, ...(highWaterMark !== undefined && { highWaterMark }) });
  }

  connect(): Connection {
    const connection = this.#net.transport(this.address);
    this.#connections.add(connection);
    connection.onState((state) => {
      if (state === 'closed') this.#connections.delete(connection);
    });
    return connection;
  }

  serve(routes: Routes): void {
    this.#routes = routes;
    this.server = this.#net.serve(this.address, routes);
    if (this.#holds > 0) this.server.partition();
  }

  async withdraw(routes: Routes, graceMs: number, reason: string): Promise<void> {
    const { server } = this;
    if (this.#routes !== routes || server === undefined) return;
    await server.close(graceMs, reason);
    server.heal();
    if (this.server === server) this.server = undefined;
  }

  /** The process at one end is dead. */
  broken(machine: Machine): void {
    if (machine === this.client) {
      for (const connection of [...this.#connections]) connection.close();
    } else {
      this.server?.cut();
      void this.server?.close(0, '');
      // What was held back on its way there, an attempt to connect above all, now meets nobody.
      this.server?.heal();
      this.server = undefined;
      this.#routes = undefined;
    }
  }

  hold(): void {
    this.#holds += 1;
    if (this.#holds === 1) this.server?.partition();
  }

  release(): void {
    this.#holds -= 1;
    if (this.#holds === 0) this.server?.heal();
  }
}
