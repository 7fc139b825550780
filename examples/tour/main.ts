// `npm start`: a tour of Conclave on real processes and a real data dir. Every claim it prints is checked; one that is not true makes the exit code 1.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { observe } from '@conclave/recipes';
import { type Client, connect, isConclaveError, prefix } from '@conclave/sdk';
import { Actor } from './actor.ts';
import type { CandidateSaying } from './candidate.ts';
import { Cluster } from './cluster.ts';
import type { CounterSaying } from './counter.ts';
import type { Member } from './member.ts';
import { Timeline } from './timeline.ts';

const keep = process.argv.includes('--keep');
const timeline = new Timeline();

async function counting(cluster: Cluster, client: Client): Promise<void> {
  timeline.chapter('Four processes increment one counter 400 times under a lock');
  const startedAt = performance.now();
  const workers = Array.from({ length: 4 }, () => new Actor<CounterSaying>('./counter.js', [cluster.endpoints.join(), '100']));
  timeline.event(`processes ${workers.map(({ pid }) => pid).join(', ')} contend for tour/counter-lock`);
  const sayings = await Promise.all(workers.map((worker) => worker.hears((saying): saying is CounterSaying => 'tokens' in saying)));
  const seconds = (performance.now() - startedAt) / 1000;
  const value = (await client.get('tour/counter'))?.value;
  timeline.event(`done in ${seconds.toFixed(1)} s, the processes' start included`);
  timeline.claim(value === '400', `the counter says ${value}`);
  const tokens = sayings.flatMap((saying) => saying.tokens);
  timeline.claim(new Set(tokens).size === 400, `the lock was held ${tokens.length} times, each with a fencing token of its own`);
  const rising = sayings.every((saying) =>
    saying.tokens.every((token, at) => at === 0 || BigInt(token) > BigInt(saying.tokens[at - 1] ?? 0)),
  );
  timeline.claim(rising, 'no process ever got a lower token after a higher one');
  const left = await client.list(prefix('tour/counter-lock/'));
  timeline.claim(left.count === 0, 'nothing is left behind in the queue');
}

async function electing(cluster: Cluster, client: Client): Promise<void> {
  timeline.chapter('Three candidates campaign; the leader is killed');
  const seen: (string | undefined)[] = [];
  const observation = observe(client, 'tour/leader').subscribe((leader) => seen.push(leader?.value));
  const isWaiting = (saying: CandidateSaying): saying is { is: 'waiting' } => saying.is === 'waiting';
  const isLeading = (saying: CandidateSaying): saying is { is: 'leading'; token: string } => saying.is === 'leading';
  const candidates: Actor<CandidateSaying>[] = [];
  for (const name of ['ada', 'bob', 'cyd']) {
    const candidate = new Actor<CandidateSaying>('./candidate.js', [cluster.endpoints.join(), name]);
    candidates.push(candidate);
    await candidate.hears(isWaiting);
    // The order of the queue is the order of arrival: the next one comes when this one stands in it.
    while ((await client.list(prefix('tour/leader/'))).count < candidates.length) await new Promise((resolve) => setImmediate(resolve));
  }
  const [ada, bob, cyd] = candidates as [Actor<CandidateSaying>, Actor<CandidateSaying>, Actor<CandidateSaying>];
  const first = await ada.hears(isLeading);
  timeline.event(`ada (process ${ada.pid}) leads with token ${first.token}; bob and cyd wait`);
  const killedAt = performance.now();
  await ada.kill('SIGKILL');
  timeline.event('ada is killed with SIGKILL');
  const second = await bob.hears(isLeading);
  const gapMs = performance.now() - killedAt;
  timeline.event(`bob leads with token ${second.token}, ${(gapMs / 1000).toFixed(2)} s after the kill (the lease lasts 2 s)`);
  timeline.claim(BigInt(second.token) > BigInt(first.token), 'the successor has a higher token');
  timeline.claim(gapMs < 4_000, 'the gap is the lease plus at most its last renewal and a moment');
  await until(() => seen.at(-1) === 'bob');
  timeline.claim(
    seen.filter((name) => name !== undefined).join() === 'ada,bob',
    `an observer saw: ${seen.map((name) => name ?? 'nobody').join(', ')}`,
  );
  await Promise.all([bob.kill('SIGKILL'), cyd.kill('SIGKILL')]);
  observation.unsubscribe();
}

async function subscribing(cluster: Cluster, client: Client): Promise<void> {
  timeline.chapter('A subscriber follows 300 changes while the leader of the cluster is killed');
  const received: number[] = [];
  const failures: unknown[] = [];
  const { revision } = await client.list('tour/log');
  const subscription = client.watch('tour/log', { startRevision: revision + 1n }).subscribe({
    next: (event) => received.push(Number(event.value)),
    error: (error: unknown) => failures.push(error),
  });
  let inDoubt = 0;
  const leader = await cluster.leader();
  let killedAt = 0;
  let restart = Promise.resolve();
  for (let number = 1; number <= 300; number += 1) {
    if (number === 100) {
      killedAt = performance.now();
      await leader.kill();
      timeline.event(`${leader.name}, which leads the cluster, is killed with SIGKILL; the writes go on`);
    }
    inDoubt += await write(client, number);
    if (number === 100) timeline.event(`the next write is acknowledged ${(performance.now() - killedAt).toFixed(0)} ms after the kill`);
    if (number === 200) restart = rejoin(cluster, leader);
  }
  await restart;
  await until(() => received.at(-1) === 300 || failures.length > 0);
  subscription.unsubscribe();
  timeline.event(`${inDoubt} write(s) lost their answer to the kill; the SDK said "unknown", and a read told which had happened`);
  timeline.claim(failures.length === 0, 'the subscription never failed');
  const inOrder = received.length === 300 && received.every((number, at) => number === at + 1);
  timeline.claim(inOrder, `the subscriber saw ${received.length} changes: each once, in order`);
}

async function rejoin(cluster: Cluster, member: Member): Promise<void> {
  timeline.event(`${(await cluster.leader()).name} leads now; ${member.name} is started again on its data dir`);
  const startedAt = performance.now();
  await member.start();
  timeline.event(`${member.name} is back after ${(performance.now() - startedAt).toFixed(0)} ms`);
}

/** Each member by itself, without asking the others. */
async function comparing(cluster: Cluster): Promise<void> {
  timeline.chapter('Every member is asked what it holds');
  const held = await Promise.all(
    cluster.members.map(async ({ endpoint }) => {
      await using client = await connect({ endpoints: endpoint });
      // A linearizable read first: the member has then applied all that was acknowledged.
      await client.get('tour/log');
      const { kvs } = await client.list(prefix('tour/'), { serializable: true });
      return kvs.map(({ key, value, modRevision }) => `${key}=${value}@${modRevision}`).join('\n');
    }),
  );
  timeline.claim(held[0] !== '' && new Set(held).size === 1, 'all three hold the same keys, values and revisions');
}

/** Writes a number once. Returns 1 if its outcome was in doubt and had to be looked up. */
async function write(client: Client, number: number): Promise<number> {
  for (let doubts = 0; ; ) {
    try {
      await client.put('tour/log', String(number));
      return doubts;
    } catch (error) {
      // Anything but a server that is away is a defect.
      if (!isConclaveError(error) || (error.outcome !== 'unknown' && error.code !== 'unavailable')) throw error;
      if (error.outcome === 'not-applied') continue;
      doubts = 1;
      if ((await client.get('tour/log'))?.value === String(number)) return doubts;
    }
  }
}

/** Waits for a condition that other processes bring about. */
async function until(isTrue: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!isTrue() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function main(): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), 'conclave-tour-'));
  timeline.chapter('Three members start and elect a leader');
  const startedAt = performance.now();
  const cluster = await Cluster.start(dir);
  try {
    timeline.event(`ready after ${(performance.now() - startedAt).toFixed(0)} ms; their data is in ${dir}`);
    for (const { name, pid, endpoint } of cluster.members) timeline.event(`${name}: process ${pid}, serves ${endpoint}`);
    timeline.event(`${(await cluster.leader()).name} leads`);
    const client = await connect({ endpoints: cluster.endpoints });
    try {
      await counting(cluster, client);
      await electing(cluster, client);
      await subscribing(cluster, client);
      await comparing(cluster);
    } finally {
      await client.close();
    }
    return timeline.summary();
  } finally {
    if (keep) {
      cluster.release();
      next(cluster, dir);
    } else {
      await cluster.stop();
      await rm(dir, { recursive: true, force: true });
    }
  }
}

function next(cluster: Cluster, dir: string): void {
  const pids = cluster.members.map(({ pid }) => pid).join(' ');
  process.stdout.write(`
The cluster goes on: processes ${pids}, data in ${dir}. Any etcd client can talk to it:

  export ETCDCTL_ENDPOINTS=${cluster.endpoints.join()}
  etcdctl endpoint status -w table
  etcdctl get --prefix tour/
  etcdctl lock jobs/nightly

or from Node, in this folder:

  node --input-type=module -e "
    import { connect } from '@conclave/sdk';
    const client = await connect({ endpoints: '${cluster.endpoints.join()}' });
    console.log((await client.get('tour/counter')).value);
    await client.close();"

Stop it with: kill ${pids}
`);
}

process.exitCode = await main();
// The servers of --keep outlive this process; nothing else should hold it.
if (keep) process.exit();
