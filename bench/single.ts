import { type EtcdLine, launchEtcd, launchServer, type RunningProcess } from '@conclave/testkit';
import { cpuOf, median, spread } from './figures.ts';
import { LoadProcess } from './load-process.ts';
import type { SubjectName } from './subjects.ts';
import type { Order, Outcome, WorkloadName } from './workload.ts';

export interface SingleOptions {
  readonly rounds: number;
  readonly ms: number;
  /** Empty: all. */
  readonly only: string;
  readonly etcd: EtcdLine;
}

/** A client process at one server. */
interface Side {
  readonly name: string;
  readonly server: RunningProcess;
  readonly load: LoadProcess;
}

interface Measured extends Outcome {
  readonly serverCpuUs: number | undefined;
}

interface Row {
  readonly comparison: string;
  readonly workload: WorkloadName;
  readonly inFlight: number;
  readonly ours: readonly Measured[];
  readonly theirs: readonly Measured[];
}

const concurrencies = [1, 64, 256];
const serverOrders: readonly [WorkloadName, readonly number[]][] = [
  ['put', concurrencies],
  ['get', concurrencies],
  ['get-serializable', concurrencies],
  ['txn', concurrencies],
  ['watch', [1, 64]],
  ['lock', [1, 64]],
  ['lock-handover', [2, 64]],
];
const clientOrders = serverOrders.filter(([workload]) => workload !== 'lock-handover');

/** Servers of one member, driven by our SDK; then clients, on etcd. */
export async function benchSingle(options: SingleOptions): Promise<readonly Row[]> {
  await using conclave = await launchServer();
  await using etcd = await launchEtcd({ version: options.etcd, flags: ['--quota-backend-bytes', '8589934592'] });
  const rows: Row[] = [];
  console.log(`# servers: ${conclave.name} / ${etcd.name}, client: our SDK`);
  rows.push(...(await compare('server', [conclave, 'sdk'], [etcd, 'sdk'], serverOrders, options)));
  console.log(`\n# clients: @conclave/sdk / npm etcd3, server: ${etcd.name}`);
  rows.push(...(await compare('client', [etcd, 'sdk'], [etcd, 'etcd3'], clientOrders, options)));
  return rows;
}

async function compare(
  comparison: string,
  [ourServer, ourClient]: readonly [RunningProcess, SubjectName],
  [theirServer, theirClient]: readonly [RunningProcess, SubjectName],
  orders: typeof serverOrders,
  { rounds, ms, only }: SingleOptions,
): Promise<Row[]> {
  await using ourLoad = await LoadProcess.start(ourClient, ourServer.address);
  await using theirLoad = await LoadProcess.start(theirClient, theirServer.address);
  const ours: Side = { name: ourServer.name, server: ourServer, load: ourLoad };
  const theirs: Side = { name: theirServer.name, server: theirServer, load: theirLoad };
  const rows: Row[] = [];
  for (const [workload, list] of orders) {
    if (only !== '' && workload !== only) continue;
    for (const inFlight of list) {
      const row = { comparison, workload, inFlight, ours: [] as Measured[], theirs: [] as Measured[] };
      for (let round = 0; round < rounds; round += 1) {
        // In turns, and each first as often as second.
        const order = { workload, inFlight, ms };
        if (round % 2 === 0) row.ours.push(await measure(ours, order));
        row.theirs.push(await measure(theirs, order));
        if (round % 2 === 1) row.ours.push(await measure(ours, order));
      }
      rows.push(row);
      print(row);
    }
  }
  return rows;
}

/** The warm-up's share is in the server's CPU time, on both sides alike. */
async function measure({ server, load }: Side, order: Order): Promise<Measured> {
  const before = cpuOf(server.pid);
  const outcome = await load.perform(order);
  const after = cpuOf(server.pid);
  return { ...outcome, serverCpuUs: before === undefined || after === undefined ? undefined : after - before };
}

function print(row: Row): void {
  const rate = (one: Measured): number => one.operations / one.seconds;
  const clientCpu = (one: Measured): number => one.cpuUs / one.operations;
  const serverCpu = (one: Measured): number => (one.serverCpuUs ?? Number.NaN) / one.operations;
  const cell = (of: (one: Measured) => number, digits: number): string =>
    `${median(row.ours.map(of)).toFixed(digits)} / ${median(row.theirs.map(of)).toFixed(digits)}`;
  console.log(
    `${`${row.workload} c${row.inFlight}`.padEnd(22)} ${cell(rate, 0).padStart(17)}/s  x${spread(row.ours.map(rate), row.theirs.map(rate)).padEnd(18)}` +
      ` p50 ${cell((one) => one.p50Ms, 2)} ms  p99 ${cell((one) => one.p99Ms, 1)} ms  server ${cell(serverCpu, 1)} µs  client ${cell(clientCpu, 1)} µs`,
  );
}
