import { type ClusterMember, type EtcdLine, launchCluster, type ProcessCluster } from '@conclave/testkit';
import { cpuOf, median, spread } from './figures.ts';
import { LoadProcess } from './load-process.ts';
import type { Order, Outcome, WorkloadName } from './workload.ts';

export interface ClusterBenchOptions {
  readonly rounds: number;
  readonly ms: number;
  /** Empty: all. */
  readonly only: string;
  readonly etcd: EtcdLine;
  readonly heartbeatMs: number;
  readonly electionMs: number;
}

/** At whom the client's requests arrive. */
type Place = 'leader' | 'follower';

interface Measured extends Outcome {
  /** User and system time in microseconds: of the leader, and of both followers together. */
  readonly leaderCpuUs: number;
  readonly followersCpuUs: number;
}

interface Row {
  readonly workload: WorkloadName;
  readonly place: Place;
  readonly inFlight: number;
  readonly ours: readonly Measured[];
  readonly theirs: readonly Measured[];
}

const concurrencies = [1, 64, 256];
const orders: readonly (readonly [WorkloadName, readonly Place[]])[] = [
  ['put', ['leader', 'follower']],
  ['get', ['leader', 'follower']],
  ['get-serializable', ['follower']],
];
const attemptsMax = 5;
/** Before a workload is measured: what is compared are servers that have been running for a while, whatever compiles their code, and when. */
const warmUpMs = 3_000;

/** Three members each, as processes of one machine; all requests go to one member, by our SDK. */
export async function benchCluster(options: ClusterBenchOptions): Promise<readonly Row[]> {
  const { etcd, heartbeatMs, electionMs, rounds, ms, only } = options;
  await using ours = new Side(await launchCluster({ kind: 'conclave', heartbeatMs, electionMs }));
  await using theirs = new Side(
    await launchCluster({ kind: 'etcd', version: etcd, heartbeatMs, electionMs, flags: ['--quota-backend-bytes', '8589934592'] }),
  );
  console.log(`# three members: conclave / etcd ${etcd}, heartbeat ${heartbeatMs} ms, election ${electionMs} ms, client: our SDK`);
  const rows: Row[] = [];
  for (const [workload, places] of orders) {
    if (only !== '' && workload !== only) continue;
    for (const place of places) {
      for (const side of [ours, theirs]) await side.measure(place, { workload, inFlight: 64, ms: warmUpMs });
      for (const inFlight of concurrencies) {
        const row = { workload, place, inFlight, ours: [] as Measured[], theirs: [] as Measured[] };
        for (let round = 0; round < rounds; round += 1) {
          const order = { workload, inFlight, ms };
          if (round % 2 === 0) row.ours.push(await ours.measure(place, order));
          row.theirs.push(await theirs.measure(place, order));
          if (round % 2 === 1) row.ours.push(await ours.measure(place, order));
        }
        rows.push(row);
        print(row);
      }
    }
  }
  return rows;
}

class Side implements AsyncDisposable {
  readonly #cluster: ProcessCluster;
  readonly #loads = new Map<ClusterMember, LoadProcess>();

  constructor(cluster: ProcessCluster) {
    this.#cluster = cluster;
  }

  /** What is measured while leadership changes hands is thrown away. */
  async measure(place: Place, order: Order): Promise<Measured> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const leader = await this.#cluster.leader();
      const target = place === 'leader' ? leader : this.#cluster.members.find((member) => member !== leader);
      if (target === undefined) throw new Error('a cluster of one has no followers');
      const load = await this.#loadAt(target);
      const cpu = (): Map<ClusterMember, number> =>
        new Map(this.#cluster.members.map((member) => [member, cpuOf(member.pid) ?? Number.NaN]));
      const before = cpu();
      const outcome = await load.perform(order);
      const after = cpu();
      if ((await this.#cluster.leader()) !== leader) {
        console.log(`  (${this.#cluster.kind}: another leader in the middle of ${order.workload} c${order.inFlight}, once more)`);
        continue;
      }
      const grown = (member: ClusterMember): number => (after.get(member) ?? Number.NaN) - (before.get(member) ?? Number.NaN);
      const followers = this.#cluster.members.filter((member) => member !== leader);
      return {
        ...outcome,
        leaderCpuUs: grown(leader),
        followersCpuUs: followers.reduce((sum, member) => sum + grown(member), 0),
      };
    }
    throw new Error(`no leader of ${this.#cluster.kind} lasted for ${order.ms} ms of ${order.workload} c${order.inFlight}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const load of this.#loads.values()) await load[Symbol.asyncDispose]();
    await this.#cluster[Symbol.asyncDispose]();
  }

  async #loadAt(member: ClusterMember): Promise<LoadProcess> {
    const load = this.#loads.get(member) ?? (await LoadProcess.start('sdk', member.endpoint));
    this.#loads.set(member, load);
    return load;
  }
}

function print({ workload, place, inFlight, ours, theirs }: Row): void {
  const rate = (one: Measured): number => one.operations / one.seconds;
  const cell = (of: (one: Measured) => number, digits: number): string =>
    `${median(ours.map(of)).toFixed(digits)} / ${median(theirs.map(of)).toFixed(digits)}`;
  const perOperation = (of: (one: Measured) => number): string => cell((one) => of(one) / one.operations, 1);
  console.log(
    `${`${workload} via ${place} c${inFlight}`.padEnd(34)} ${cell(rate, 0).padStart(17)}/s  x${spread(ours.map(rate), theirs.map(rate)).padEnd(18)}` +
      ` p50 ${cell((one) => one.p50Ms, 2)} ms  p99 ${cell((one) => one.p99Ms, 1)} ms` +
      `  members ${perOperation((one) => one.leaderCpuUs + one.followersCpuUs)} µs` +
      ` (leader ${perOperation((one) => one.leaderCpuUs)}, followers ${perOperation((one) => one.followersCpuUs)})`,
  );
}
