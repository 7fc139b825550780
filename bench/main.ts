// `npm run bench`: us beside the others, in one run and in turns, because the speed of a machine drifts by more than most differences.
//
//   npm run bench -- [--rounds 5] [--ms 1000] [--only put] [--out bench/results/latest.json]
//
// Servers: conclave-server and etcd, driven by our SDK. Clients: our SDK and npm etcd3, on etcd. Ratios are ours divided by theirs, round by
// round; what is printed is the median and the spread. Above 1 is better for rates, below 1 is better for CPU.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { etcdBinary, launchEtcd, launchServer, type RunningProcess } from '@conclave/testkit';
import type { SubjectName } from './subjects.ts';
import type { Order, Outcome, WorkloadName } from './workload.ts';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    ms: { type: 'string', default: '1000' },
    only: { type: 'string', default: '' },
    out: { type: 'string', default: 'bench/results/latest.json' },
  },
});
const rounds = Number(options.rounds);
const ms = Number(options.ms);

/** A client process at one server. */
interface Side {
  readonly name: string;
  readonly server: RunningProcess;
  readonly load: ChildProcess;
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

async function openSide(name: string, server: RunningProcess, subject: SubjectName): Promise<Side> {
  const load = fork(fileURLToPath(new URL('./load.ts', import.meta.url)), [subject, server.address]);
  const [message] = (await once(load, 'message')) as [{ ready?: boolean }];
  if (message.ready !== true) throw new Error(`${name} did not start`);
  return { name, server, load };
}

async function measure(side: Side, order: Order): Promise<Measured> {
  const before = cpuOf(side.server.pid);
  const answer = once(side.load, 'message') as Promise<[{ outcome?: Outcome; error?: string }]>;
  side.load.send(order);
  const [{ outcome, error }] = await answer;
  if (outcome === undefined) throw new Error(`${side.name}, ${order.workload}: ${error}`);
  const after = cpuOf(side.server.pid);
  return { ...outcome, serverCpuUs: before === undefined || after === undefined ? undefined : after - before };
}

/** User and system time of a process in microseconds; undefined where there is no /proc. The warm-up's share is in it, on both sides alike. */
function cpuOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10_000;
  } catch {
    return undefined;
  }
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

async function compare(comparison: string, ours: Side, theirs: Side, orders: typeof serverOrders): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [workload, list] of orders) {
    if (options.only !== '' && workload !== options.only) continue;
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

function print(row: Row): void {
  const rate = (one: Measured): number => one.operations / one.seconds;
  const clientCpu = (one: Measured): number => one.cpuUs / one.operations;
  const serverCpu = (one: Measured): number => (one.serverCpuUs ?? Number.NaN) / one.operations;
  const cell = (of: (one: Measured) => number, digits: number): string =>
    `${median(row.ours.map(of)).toFixed(digits)} / ${median(row.theirs.map(of)).toFixed(digits)}`;
  const ratios = row.ours.map((one, at) => rate(one) / rate(row.theirs[at] ?? one));
  const spread = `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)})`;
  console.log(
    `${`${row.workload} c${row.inFlight}`.padEnd(22)} ${cell(rate, 0).padStart(17)}/s  x${spread.padEnd(18)}` +
      ` p50 ${cell((one) => one.p50Ms, 2)} ms  p99 ${cell((one) => one.p99Ms, 1)} ms  server ${cell(serverCpu, 1)} µs  client ${cell(clientCpu, 1)} µs`,
  );
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function close(side: Side): Promise<void> {
  const gone = once(side.load, 'exit');
  side.load.disconnect();
  await gone;
}

if (etcdBinary('3.5', 'etcd') === undefined && etcdBinary('3.4', 'etcd') === undefined) {
  console.error(
    'bench compares with a real etcd: set ETCD_BIN_DIR to a folder holding 3.5/etcd (on Debian: export ETCD_BIN_DIR=$(.ci/etcd.sh)).',
  );
  process.exit(1);
}
const version = etcdBinary('3.5', 'etcd') === undefined ? '3.4' : '3.5';
await using conclave = await launchServer();
await using etcd = await launchEtcd({ version, flags: ['--quota-backend-bytes', '8589934592'] });
const rows: Row[] = [];
const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'cpu'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}`;
console.log(`${machine}; ${rounds} rounds of ${ms} ms, ours / theirs, medians; x: ratio of the rates, median (lowest–highest round)\n`);

console.log(`# servers: ${conclave.name} / ${etcd.name}, client: our SDK`);
{
  const ours = await openSide('conclave-server', conclave, 'sdk');
  const theirs = await openSide('etcd', etcd, 'sdk');
  rows.push(...(await compare('server', ours, theirs, serverOrders)));
  await close(ours);
  await close(theirs);
}
console.log(`\n# clients: @conclave/sdk / npm etcd3, server: ${etcd.name}`);
{
  const ours = await openSide('sdk', etcd, 'sdk');
  const theirs = await openSide('etcd3', etcd, 'etcd3');
  rows.push(...(await compare('client', ours, theirs, clientOrders)));
  await close(ours);
  await close(theirs);
}
mkdirSync(dirname(options.out), { recursive: true });
writeFileSync(options.out, `${JSON.stringify({ machine, etcd: etcd.version, rounds, ms, rows }, null, 2)}\n`);
console.log(`\nwritten to ${options.out}`);
