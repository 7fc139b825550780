import { type Client, connect } from '@conclave/sdk';
import { type ClusterMember, type ClusterOptions, launchCluster, type ProcessCluster, TcpProxy } from '@conclave/testkit';

/** What happens to one member of three. */
export type Loss = 'killed' | 'paused' | 'cut off from its clients' | 'cut off from the other members';

export interface LossReport {
  readonly reads: number;
  /** Of reads. */
  readonly errors: readonly unknown[];
  readonly p99Ms: number;
  readonly maxMs: number;
  /** From the answer to a write to when the last of the watches was told of it, at most. */
  readonly lagMs: number;
  readonly events: number;
}

const watchers = 6;
const readers = 8;
const calmMs = 1_500;
const tickMs = 50;

/** Reads and watches through three members while one is lost for so long. */
export async function loseMember(options: ClusterOptions, loss: Loss, isLeader: boolean, lostMs: number): Promise<LossReport> {
  await using cluster = await launchCluster({ ...options, hasLinks: loss === 'cut off from the other members' });
  const leader = await cluster.leader();
  const victim = isLeader ? leader : (cluster.members.find((member) => member !== leader) as ClusterMember);
  const proxies = await Promise.all(cluster.endpoints.map((endpoint) => TcpProxy.to(endpoint)));
  try {
    const faulty = proxies[cluster.members.indexOf(victim)] as TcpProxy;
    await using client = await connect({ endpoints: proxies.map(({ address }) => address) });
    await using writer = await connect({
      endpoints: cluster.members.filter((member) => member !== victim).map(({ endpoint }) => endpoint),
    });
    const run = new Run(client, writer);
    await run.begin();
    await sleep(calmMs);
    await lose(cluster, victim, faulty, loss);
    await sleep(lostMs);
    const report = await run.end();
    if (loss === 'paused') victim.resume();
    faulty.heal();
    return report;
  } finally {
    for (const proxy of proxies) await proxy[Symbol.asyncDispose]();
  }
}

async function lose({ links, names }: ProcessCluster, victim: ClusterMember, proxy: TcpProxy, loss: Loss): Promise<void> {
  if (loss === 'killed') await victim.kill();
  if (loss === 'paused') victim.pause();
  if (loss === 'cut off from its clients') proxy.silence();
  if (loss === 'cut off from the other members')
    links?.partition(
      [victim.name],
      names.filter((name) => name !== victim.name),
    );
}

class Run {
  readonly #client: Client;
  readonly #writer: Client;
  readonly #durations: number[] = [];
  readonly #errors: unknown[] = [];
  readonly #answeredAt = new Map<string, number>();
  readonly #toldAt = new Map<string, number>();
  readonly #told = new Map<string, number>();
  readonly #loops: Promise<void>[] = [];
  #isOver = false;

  constructor(client: Client, writer: Client) {
    this.#client = client;
    this.#writer = writer;
  }

  async begin(): Promise<void> {
    const { revision } = await this.#writer.put('tick', 'first');
    for (let n = 0; n < watchers; n++) {
      const watch = this.#client.watch('tick', { startRevision: revision + 1n });
      // One that was held back has a stream of its own: so they are with all members.
      watch.pause();
      watch.subscribe(({ value }) => {
        this.#told.set(value, (this.#told.get(value) ?? 0) + 1);
        this.#toldAt.set(value, performance.now());
      });
      watch.resume();
    }
    for (let n = 0; n < readers; n++) this.#loops.push(this.#read());
    this.#loops.push(this.#write());
  }

  async end(): Promise<LossReport> {
    this.#isOver = true;
    await Promise.all(this.#loops);
    const answered = [...this.#answeredAt];
    const deadline = performance.now() + 10_000;
    while (answered.some(([value]) => this.#told.get(value) !== watchers) && performance.now() < deadline) await sleep(10);
    const missing = answered.filter(([value]) => this.#told.get(value) !== watchers);
    if (missing.length > 0) throw new Error(`${missing.length} writes were not told to all watches`);
    const lags = answered.map(([value, at]) => (this.#toldAt.get(value) ?? 0) - at);
    const sorted = this.#durations.sort((one, other) => one - other);
    return {
      reads: sorted.length,
      errors: this.#errors,
      p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? 0,
      maxMs: sorted.at(-1) ?? 0,
      lagMs: Math.max(...lags),
      events: answered.length,
    };
  }

  async #read(): Promise<void> {
    while (!this.#isOver) {
      const startedAt = performance.now();
      await this.#client.get('tick').catch((error: unknown) => this.#errors.push(error));
      this.#durations.push(performance.now() - startedAt);
      // A pace, so that calls which wait are a share of all, as with a service's own.
      await sleep(5);
    }
  }

  async #write(): Promise<void> {
    for (let n = 0; !this.#isOver; n++) {
      // A write without an answer has no time from which its events could be late.
      await this.#writer.put('tick', `${n}`).then(
        () => this.#answeredAt.set(`${n}`, performance.now()),
        () => undefined,
      );
      await sleep(tickMs);
    }
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
