import { Lease, Watch } from '@conclave/protocol';
import { type Client, type Comparison, connect, del, get, isConclaveError, key, list, type Operation, put, range } from '@conclave/sdk';
import { Random } from '@conclave/testing';
import {
  checkHistory,
  eventually,
  type History,
  HistoryRecorder,
  launchEtcd,
  launchServer,
  RawClient,
  type RunningProcess,
  recordingTransport,
  showFinding,
} from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { expect, test } from 'vitest';

const transport = grpcTransport({ runtime: systemRuntime() });
const now = (): number => performance.now();
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const rest = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const keyOf = (random: Random): string => `k${random.below(8)}`;

/** Clients of every kind on one server that is killed now and then: requests of all sorts, leases that run out, watches that begin anywhere. */
class Traffic {
  readonly #recorder = new HistoryRecorder();
  readonly #random: Random;
  readonly #server: RunningProcess;
  readonly #stop = new AbortController();
  readonly #leases: bigint[] = [];
  #clients = 0;
  #values = 0;
  #answered = 0;
  #revision = 1n;

  constructor(server: RunningProcess, seed: number) {
    this.#server = server;
    this.#random = new Random(seed);
  }

  /** Until that many calls were answered. */
  async run(calls: number): Promise<{ readonly history: History; readonly settledRevision: number }> {
    const everything = this.#watch({ key: '\0', end: '\0', startRevision: 1 });
    const loops = [1, 2, 3, 4, 5, 6].map(() => this.#loop((client) => this.#useKeys(client)));
    loops.push(this.#useLeases(), ...[1, 2, 3].map(() => this.#useWatches()));
    for (let part = 1; part <= 4; part++) {
      await eventually('more calls are answered', () => this.#answered > (calls * part) / 4, 120_000);
      await this.#server.kill();
      await this.#server.restart();
    }
    this.#stop.abort();
    await Promise.all(loops);
    const client = await this.#connect();
    const { revision } = await eventually('a last write', () => client.put('last', '').catch(() => undefined), 20_000);
    await everything.toldUpTo(Number(revision));
    await client.close();
    await everything.done;
    return { history: this.#recorder.finish(now()), settledRevision: Number(revision) };
  }

  async #connect(): Promise<Client> {
    const recording = recordingTransport(transport, { recorder: this.#recorder, client: ++this.#clients, now });
    return connect({ endpoints: [this.#server.address], transport: recording, deadlineMs: 2000, lazy: true });
  }

  async #loop(use: (client: Client) => Promise<{ readonly revision: bigint } | undefined>): Promise<void> {
    const client = await this.#connect();
    while (!this.#stop.signal.aborted) {
      try {
        const result = await use(client);
        this.#answered++;
        if (result !== undefined && result.revision > this.#revision) this.#revision = result.revision;
      } catch (error) {
        if (!isConclaveError(error)) throw error;
        await rest(5);
      }
    }
    await client.close();
  }

  async #useKeys(client: Client): Promise<{ readonly revision: bigint } | undefined> {
    const random = this.#random;
    const face = random.below(100);
    if (face < 20) return client.put(keyOf(random), this.#value(), { prevKv: random.chance(0.5), ...this.#lease() });
    if (face < 23) return client.put(keyOf(random), '', { ignoreValue: true });
    if (face < 26) return client.put(keyOf(random), this.#value(), { ignoreLease: true });
    if (face < 50) return client.list(...this.#listing());
    if (face < 60) return client.delete(this.#target(0.2), { prevKv: random.chance(0.5) });
    if (face < 62) {
      await client.compact(this.#revision - BigInt(random.below(200)));
      return undefined;
    }
    const txn = client.txn().if(this.#condition());
    if (face < 90)
      return txn
        .then(...this.#operations())
        .else(...this.#operations())
        .commit();
    return client
      .txn()
      .then(put('outer', this.#value()), list(range('a', 'z')))
      .commit();
  }

  #listing(): Parameters<Client['list']> {
    const random = this.#random;
    const at = Number(this.#revision) - random.below(100);
    const sort = { by: random.pick(['key', 'version', 'modRevision'] as const), order: random.pick(['ascend', 'descend'] as const) };
    return [
      this.#target(0.5),
      {
        ...(random.chance(0.2) && at > 0 && { revision: at }),
        ...(random.chance(0.2) && { limit: 1 + random.below(4) }),
        ...(random.chance(0.2) && { sort }),
        ...(random.chance(0.1) && { keysOnly: true }),
        ...(random.chance(0.1) && { countOnly: true }),
        ...(random.chance(0.2) && { serializable: true }),
      },
    ];
  }

  #target(manyChance: number): Parameters<Client['list']>[0] {
    const one = keyOf(this.#random);
    return this.#random.chance(manyChance) ? range(one, 'l') : one;
  }

  #condition(): Comparison {
    const random = this.#random;
    const of = key(keyOf(random));
    switch (random.below(4)) {
      case 0:
        return of.version.greaterThan(random.below(3));
      case 1:
        return of.modRevision.lessThan(this.#revision - BigInt(random.below(10)));
      case 2:
        return of.value.notEquals(`v${this.#values - random.below(10)}`);
      default:
        return of.createRevision.equals(0);
    }
  }

  #operations(): Operation[] {
    const random = this.#random;
    const first = random.below(4);
    const operations: Operation[] = [put(`k${first}`, this.#value(), this.#lease())];
    if (random.chance(0.5)) operations.push(get(keyOf(random)));
    if (random.chance(0.5)) operations.push(del(`k${4 + random.below(4)}`, { prevKv: true }));
    if (random.chance(0.3)) operations.push(list(range('k', 'l')));
    return operations;
  }

  #value(): string {
    return `v${++this.#values}`;
  }

  #lease(): { readonly lease?: bigint } {
    return this.#leases.length > 0 && this.#random.chance(0.3) ? { lease: this.#random.pick(this.#leases) } : {};
  }

  #raw(): RawClient {
    return new RawClient(recordingTransport(transport, { recorder: this.#recorder, client: ++this.#clients, now })(this.#server.address));
  }

  /** Some are renewed, some revoked, some run out. */
  async #useLeases(): Promise<void> {
    const raw = this.#raw();
    const timeoutMs = 2000;
    while (!this.#stop.signal.aborted) {
      const { response } = await raw.unary(Lease.methods.leaseGrant, { ttl: 2 }, { timeoutMs });
      if (response !== undefined) this.#leases.push(response.id);
      await rest(50 + this.#random.below(100));
      const id = this.#random.pick([...this.#leases, 1n]);
      const face = this.#random.below(4);
      if (face === 0) await raw.unary(Lease.methods.leaseRevoke, { id }, { timeoutMs });
      else if (face === 1) await raw.unary(Lease.methods.leaseTimeToLive, { id, keys: true }, { timeoutMs });
      else {
        using stream = raw.stream(Lease.methods.leaseKeepAlive, { timeoutMs });
        stream.send({ id });
        await stream.next(timeoutMs).catch(() => undefined);
      }
      if (this.#leases.length > 12) this.#leases.shift();
    }
    raw.connection.close();
  }

  async #useWatches(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const random = this.#random;
      const startRevision = random.chance(0.3) ? 0 : Math.max(1, Number(this.#revision) - 50 + random.below(80));
      const watch = this.#watch({
        ...(random.chance(0.5) ? { key: 'k', end: 'l' } : { key: keyOf(random), end: '' }),
        startRevision,
        prevKv: random.chance(0.5),
        fragment: random.chance(0.5),
        ...(random.chance(0.5) && { ignore: random.pick(['put', 'delete'] as const) }),
      });
      await rest(200 + random.below(800));
      watch.close();
      await watch.done;
    }
  }

  #watch(options: { key: string; end: string; startRevision: number; prevKv?: boolean; fragment?: boolean; ignore?: 'put' | 'delete' }): {
    close(): void;
    toldUpTo(revision: number): Promise<void>;
    readonly done: Promise<void>;
  } {
    const { key: from, end, ignore, ...rest } = options;
    let next = options.startRevision;
    let isClosed = false;
    let close = (): void => {};
    const follow = async (): Promise<void> => {
      const raw = this.#raw();
      using stream = raw.stream(Watch.methods.watch, { timeoutMs: 600_000 });
      close = () => stream.cancel();
      const filters = ignore === undefined ? [] : [ignore === 'put' ? 0 : 1];
      stream.send({ createRequest: { ...rest, key: bytes(from), rangeEnd: bytes(end), startRevision: next, filters } });
      try {
        for (let at = 0; ; at++) {
          const message = await stream.next(600_000);
          if (message.canceled) isClosed ||= message.compactRevision === 0;
          if (message.canceled && message.compactRevision > 0) next = message.compactRevision;
          if (message.canceled) return;
          if (!message.fragment) for (const event of message.events) next = (event.kv?.modRevision ?? 0) + 1;
          if (at % 5 === 4) stream.send({ progressRequest: {} });
        }
      } catch {
        // The server was killed, or nobody wants it any more.
      } finally {
        raw.connection.close();
      }
    };
    const done = (async () => {
      while (!isClosed) {
        await follow();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
    const stop = (): void => {
      isClosed = true;
      close();
    };
    return {
      close: stop,
      done,
      toldUpTo: async (revision) => {
        await eventually(`everything up to ${revision} is told`, () => next > revision, 30_000);
        stop();
      },
    };
  }
}

const servers = [
  ['etcd 3.5', () => launchEtcd({ version: '3.5', flags: ['--heartbeat-interval', '10', '--election-timeout', '100'] })],
  ['our server', () => launchServer()],
] as const;

test.each(servers)('nothing is found in what clients saw of %s while it was killed', async (_name, launchOne) => {
  await using server = await launchOne();
  const { history, settledRevision } = await new Traffic(server, 1).run(3000);
  const answered = history.operations.filter((operation) => operation.outcome.status === 'ok').length;
  const unknown = history.operations.filter((operation) => operation.outcome.status === 'unknown').length;
  const events = history.watches.flatMap((watch) => watch.messages).filter((message) => message.type === 'events').length;
  console.log(`${answered} answered, ${unknown} unknown, ${history.watches.length} watches with ${events} messages of events`);
  expect(checkHistory(history, { settledRevision }).map(showFinding)).toEqual([]);
  expect(unknown).toBeGreaterThan(0);
  expect(events).toBeGreaterThan(500);
});
