// `npm run soak -- --minutes 120`: three members, faults of all kinds, a checked history, and an eye on memory and open files.
import { parseArgs } from 'node:util';
import { launchCluster, type ProcessCluster } from '@conclave/testkit';
import { judge, keepWords } from '../nemesis/judge.ts';
import { recovered, shownError, warmUp } from '../nemesis/run.ts';
import { Workload } from '../nemesis/workload.ts';
import { MixedFaults } from './faults.ts';
import { MemoryWatch } from './memory.ts';
import { storeNow } from './store-now.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '120' },
    segment: { type: 'string', default: '120' },
    /** Milliseconds that each client rests between two calls. */
    rest: { type: 'string', default: '30' },
  },
});

const minutes = Number(values.minutes);
const segmentMs = Number(values.segment) * 1000;
const electionMs = 1000;
const sampleEveryMs = 5000;
/** What is judged over two hours: the slope after a quarter of one. A short run is judged by a bound that only a gross leak breaks. */
const isFull = minutes >= 60;
const warmUpHours = 0.25;
const windowHours = 0.1;
const slopeMax = 5;
const highestInShort = 600;
const filesMore = 20;
/** Between two faults, so that what they leave behind shows. */
const calmMs = 2000;

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));

async function main(): Promise<boolean> {
  using faults = new MixedFaults(electionMs);
  const member = (name: string): { environment: Readonly<Record<string, string>> } => ({ environment: faults.environment(name) });
  const flags = ['--snapshot-count', '2000', '--snapshot-catchup-entries', '1000'];
  await using cluster = await launchCluster({ kind: 'conclave', size: 3, electionMs, hasLinks: true, flags, member });
  const steady = cluster.members.slice(0, 2);
  const memories = new Map(steady.map(({ name, pid }) => [name, new MemoryWatch(pid)]));
  const sampler = setInterval(() => {
    for (const memory of memories.values()) memory.sample();
  }, sampleEveryMs);
  const problems: string[] = [];
  const endAt = performance.now() + minutes * 60_000;
  try {
    for (let segment = 1; performance.now() < endAt && problems.length === 0; segment++) {
      const { calls, found } = await runSegment(cluster, faults, segment, endAt);
      problems.push(...found);
      const memory = [...memories].map(([name, { latest }]) => `${name} ${latest.toFixed(0)} MiB`).join(', ');
      say(`segment ${segment}: ${calls} calls; so far ${faults.counts}; ${memory}`);
    }
  } catch (error) {
    problems.push(shownError(error));
  } finally {
    clearInterval(sampler);
  }
  for (const [name, memory] of memories) problems.push(...judgeMemory(name, memory));
  if (problems.length > 0) problems.push(keepWords('soak', cluster));
  for (const problem of problems) say(`  ${problem}`);
  say(problems.length === 0 ? 'passed' : 'FAILED');
  return problems.length === 0;
}

/** Load and faults for a while, then peace, then the judgement: a history of hours would not fit into memory. */
async function runSegment(
  cluster: ProcessCluster,
  faults: MixedFaults,
  segment: number,
  endAt: number,
): Promise<{ readonly calls: number; readonly found: readonly string[] }> {
  const initial = await storeNow(cluster);
  const workload = new Workload({ restMs: Number(values.rest) });
  try {
    await workload.start(cluster.endpoints);
    await warmUp(workload);
    const until = Math.min(performance.now() + segmentMs, endAt);
    do {
      await faults.strike(cluster);
      await workload.changesThrough(cluster.endpoints, 10 * electionMs);
      await new Promise((resolve) => setTimeout(resolve, calmMs));
    } while (performance.now() < until);
    await recovered(workload, cluster, electionMs);
    const { history, settledRevision } = await workload.finish();
    const found = await judge({ name: `soak-${segment}`, cluster, history, settledRevision, initial });
    return { calls: workload.tally.ok, found };
  } finally {
    await workload.abandon();
  }
}

function judgeMemory(name: string, memory: MemoryWatch): string[] {
  const problems: string[] = [];
  const { first, last } = memory.files;
  say(`${name}: at most ${memory.highest.toFixed(0)} MiB anonymous memory, ${first} open files at first, ${last} at last`);
  if (last > first + filesMore) problems.push(`${name} has ${last - first} more open files than at first`);
  if (!isFull) {
    if (memory.highest > highestInShort) problems.push(`${name} came to ${memory.highest.toFixed(0)} MiB of anonymous memory`);
    return problems;
  }
  const slope = memory.slope(warmUpHours, windowHours);
  say(`${name}: ${slope.toFixed(2)} MiB more in an hour, after the first ${warmUpHours * 60} minutes`);
  if (!(slope < slopeMax)) problems.push(`${name} grows by ${slope.toFixed(2)} MiB in an hour`);
  return problems;
}

process.exitCode = (await main()) ? 0 : 1;
