import { PutRequest } from '@conclave/protocol';
import { type ClusterMember, type EtcdLine, launchCluster, type ProcessCluster, RawClient, within } from '@conclave/testkit';
import { type Connection, systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { quantile } from './figures.ts';

export interface FailoverOptions {
  readonly rounds: number;
  readonly etcd: EtcdLine;
  readonly heartbeatMs: number;
  readonly electionMs: number;
}

/** Milliseconds, one a round. */
interface Outages {
  readonly ours: readonly number[];
  readonly theirs: readonly number[];
}

/** A write is sent this often, whatever became of those before it. */
const writeEveryMs = 5;
const writeTimeoutMs = 15_000;
const beforeKillMs = 1_500;
/** A round in which less was acknowledged before the kill measures something else. */
const writesBeforeMin = 100;
const outageMaxMs = 60_000;

/**
 * From `kill -9` of the leader, under a steady load of writes at all members, to the first acknowledgement of a write that was sent after it to one of
 * those left.
 */
export async function benchFailover({ rounds, etcd, heartbeatMs, electionMs }: FailoverOptions): Promise<Outages> {
  await using ours = await launchCluster({ kind: 'conclave', heartbeatMs, electionMs });
  await using theirs = await launchCluster({ kind: 'etcd', version: etcd, heartbeatMs, electionMs });
  console.log(`# leader killed: conclave / etcd ${etcd}, three members each, heartbeat ${heartbeatMs} ms, election ${electionMs} ms`);
  const outages = { ours: [] as number[], theirs: [] as number[] };
  for (let round = 0; round < rounds; round += 1) {
    if (round % 2 === 0) outages.ours.push(await outage(ours));
    outages.theirs.push(await outage(theirs));
    if (round % 2 === 1) outages.ours.push(await outage(ours));
    console.log(`round ${String(round + 1).padStart(3)}   ${outages.ours.at(-1)?.toFixed(0)} / ${outages.theirs.at(-1)?.toFixed(0)} ms`);
  }
  for (const [name, share] of [
    ['p50', 0.5],
    ['p90', 0.9],
    ['max', 1],
    ['min', 0],
  ] as const) {
    const [our, their] = [quantile(outages.ours, share), quantile(outages.theirs, share)];
    console.log(`${name}   ${our.toFixed(0)} / ${their.toFixed(0)} ms   x${(our / their).toFixed(2)}`);
  }
  return outages;
}

async function outage(cluster: ProcessCluster): Promise<number> {
  const leader = await cluster.leader();
  const writes = new SteadyWrites(cluster.members);
  try {
    // Anywhere between two heartbeats.
    await pause(beforeKillMs + Math.random() * 200);
    if (writes.acknowledged < writesBeforeMin) throw new Error(`only ${writes.acknowledged} writes were acknowledged before the kill`);
    const killedAt = performance.now();
    const died = leader.kill();
    const next = writes.nextWithout(leader, killedAt);
    await died;
    return (await within('the next acknowledged write', next, outageMaxMs)) - killedAt;
  } finally {
    await writes.stop();
    await leader.restart();
  }
}

/** Writes at all members in turn, at a steady pace: one that hangs holds up no other. */
class SteadyWrites {
  readonly #connections: Connection[] = [];
  readonly #clients = new Map<ClusterMember, RawClient>();
  readonly #timer: NodeJS.Timeout;
  #turn = 0;
  #acknowledged = 0;
  #onAcknowledged: (sentAt: number) => void = () => undefined;

  constructor(members: readonly ClusterMember[]) {
    const transport = grpcTransport({ runtime: systemRuntime() });
    for (const member of members) {
      const connection = transport(member.endpoint);
      this.#connections.push(connection);
      this.#clients.set(member, new RawClient(connection));
    }
    this.#timer = setInterval(() => this.#write(), writeEveryMs);
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** Leaves a member out from now on, and resolves with the instant at which the first write sent after `since` was acknowledged. */
  nextWithout(member: ClusterMember, since: number): Promise<number> {
    this.#clients.delete(member);
    return new Promise((resolve) => {
      this.#onAcknowledged = (sentAt) => {
        if (sentAt > since) resolve(performance.now());
      };
    });
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const connection of this.#connections) connection.close();
    await pause(50);
  }

  #write(): void {
    const clients = [...this.#clients.values()];
    const client = clients[this.#turn++ % clients.length];
    const sentAt = performance.now();
    const request = PutRequest.encode({ key: Buffer.from(`failover/${this.#turn % 1000}`), value: Buffer.alloc(64, 'v') });
    void client?.unaryBytes('/etcdserverpb.KV/Put', request, { timeoutMs: writeTimeoutMs }).then(({ end }) => {
      if (end.code !== 0) return;
      this.#acknowledged += 1;
      this.#onAcknowledged(sentAt);
    });
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
