// `npm start`: a tour of Conclave on real processes and a real data dir. Every claim it prints is checked; one that is not true makes the exit code 1.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { observe } from '@conclave/recipes';
import { type Client, connect, isConclaveError, prefix } from '@conclave/sdk';
import { Actor } from './actor.ts';
import type { CandidateSaying } from './candidate.ts';
import type { CounterSaying } from './counter.ts';
import { Member } from './member.ts';
import { Timeline } from './timeline.ts';

const keep = process.argv.includes('--keep');
const timeline = new Timeline();

async function counting(member: Member, client: Client): Promise<void> {
  timeline.chapter('Four processes increment one counter 400 times under a lock');
  const startedAt = performance.now();
  const workers = Array.from({ length: 4 }, () => new Actor<CounterSaying>('./counter.js', [member.endpoint, '100']));
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

async function electing(member: Member, client: Client): Promise<void> {
  timeline.chapter('Three candidates campaign; the leader is killed');
  const seen: (string | undefined)[] = [];
  const observation = observe(client, 'tour/leader').subscribe((leader) => seen.push(leader?.value));
  const isWaiting = (saying: CandidateSaying): saying is { is: 'waiting' } => saying.is === 'waiting';
  const isLeading = (saying: CandidateSaying): saying is { is: 'leading'; token: string } => saying.is === 'leading';
  const candidates: Actor<CandidateSaying>[] = [];
  for (const name of ['ada', 'bob', 'cyd']) {
    const candidate = new Actor<CandidateSaying>('./candidate.js', [member.endpoint, name]);
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

async function subscribing(member: Member, client: Client): Promise<void> {
  timeline.chapter('A subscriber follows 300 changes while the server is killed and restarted');
  const received: number[] = [];
  const failures: unknown[] = [];
  const { revision } = await client.list('tour/log');
  const subscription = client.watch('tour/log', { startRevision: revision + 1n }).subscribe({
    next: (event) => received.push(Number(event.value)),
    error: (error: unknown) => failures.push(error),
  });
  let inDoubt = 0;
  let restart = Promise.resolve();
  for (let number = 1; number <= 300; number += 1) {
    if (number === 100) restart = killAndRestart(member);
    inDoubt += await write(client, number);
  }
  await restart;
  await until(() => received.at(-1) === 300 || failures.length > 0);
  subscription.unsubscribe();
  timeline.event(`${inDoubt} write(s) lost their answer to the kill; the SDK said "unknown", and a read told which had happened`);
  timeline.claim(failures.length === 0, 'the subscription never failed');
  const inOrder = received.length === 300 && received.every((number, at) => number === at + 1);
  timeline.claim(inOrder, `the subscriber saw ${received.length} changes: each once, in order`);
}

async function killAndRestart(member: Member): Promise<void> {
  timeline.event('the server is killed with SIGKILL while writes arrive');
  const startedAt = performance.now();
  await member.kill();
  await member.start();
  timeline.event(`restarted on its data dir: ready ${(performance.now() - startedAt).toFixed(0)} ms after the kill`);
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
  const dataDir = await mkdtemp(join(tmpdir(), 'conclave-tour-'));
  const member = new Member(dataDir);
  try {
    timeline.chapter('A member starts');
    const startedAt = performance.now();
    await member.start();
    timeline.event(
      `process ${member.pid} serves ${member.endpoint}, ready after ${(performance.now() - startedAt).toFixed(0)} ms; its data is in ${dataDir}`,
    );
    const client = await connect({ endpoints: member.endpoint });
    try {
      await counting(member, client);
      await electing(member, client);
      await subscribing(member, client);
    } finally {
      await client.close();
    }
    return timeline.summary();
  } finally {
    if (keep) member.release();
    else {
      await member.stop();
      await rm(dataDir, { recursive: true, force: true });
    }
    if (keep) next(member, dataDir);
  }
}

function next(member: Member, dataDir: string): void {
  process.stdout.write(`
The server goes on: process ${member.pid} at ${member.endpoint}, data in ${dataDir}. Any etcd client can talk to it:

  etcdctl --endpoints=${member.endpoint} get --prefix tour/
  etcdctl --endpoints=${member.endpoint} lock jobs/nightly

or from Node, in this folder:

  node --input-type=module -e "
    import { connect } from '@conclave/sdk';
    const client = await connect({ endpoints: '${member.endpoint}' });
    console.log((await client.get('tour/counter')).value);
    await client.close();"

Stop it with: kill ${member.pid}
`);
}

process.exitCode = await main();
// The server of --keep outlives this process; nothing else should hold it.
if (keep) process.exit();
