import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { allKeys, type Client, connect, put } from '@conclave/sdk';
import { launchServer, type RunningProcess } from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Lateness } from './measured-server.ts';

const keyCount = 1_000_000;
const opsPerTxn = 125;

describe('a store of a million keys', () => {
  let full: RunningProcess;
  let empty: RunningProcess;

  beforeAll(async () => {
    full = await launchServer();
    empty = await launchServer();
    await using client = await connect({ endpoints: full.address });
    const startedAt = performance.now();
    await fill(client);
    console.log(`filled in ${((performance.now() - startedAt) / 1000).toFixed(0)} s`);
  }, 600_000);
  afterAll(async () => {
    await full?.[Symbol.asyncDispose]();
    await empty?.[Symbol.asyncDispose]();
  });

  it('opens at most 300 ms later than an empty one, with at most 40 MB more anonymous memory', async () => {
    const samples = { full: [] as Start[], empty: [] as Start[] };
    for (let round = 0; round < 5; round++) {
      samples.full.push(await start(full));
      samples.empty.push(await start(empty));
    }
    const of = (list: readonly Start[], what: keyof Start): number => median(list.map((one) => one[what]));
    console.log(`ready after ${of(samples.full, 'ms').toFixed(0)} ms against ${of(samples.empty, 'ms').toFixed(0)} ms when empty`);
    console.log(
      `anonymous memory ${of(samples.full, 'anonymousMb').toFixed(1)} MB against ${of(samples.empty, 'anonymousMb').toFixed(1)} MB`,
    );
    expect(of(samples.full, 'ms') - of(samples.empty, 'ms')).toBeLessThanOrEqual(300);
    expect(of(samples.full, 'anonymousMb') - of(samples.empty, 'anonymousMb')).toBeLessThanOrEqual(40);
  });

  it('keeps its timers within 50 ms at p99.9 while all keys are counted and the largest requests arrive', async () => {
    await full.stop();
    const child = fork(fileURLToPath(new URL('./measured-server.ts', import.meta.url)), [full.dataDir], {
      execArgv: ['--conditions=@conclave/source', '--import', 'tsx'],
    });
    try {
      const { address } = await next<{ address: string }>(child);
      await using client = await connect({ endpoints: address, deadlineMs: 60_000 });
      expect((await client.list(allKeys(), { countOnly: true })).count).toBe(keyCount);
      await lateness(child);
      const load = await underLoad(client, 20_000);
      const late = await lateness(child);
      console.log(`${load.counts} counts of a million keys, ${load.bigPuts} puts of 1.5 MiB, ${load.txns} txns of 128 operations`);
      console.log(
        `timers late by ${late.p50.toFixed(1)} ms at p50, ${late.p99.toFixed(1)} at p99, ${late.p999.toFixed(1)} at p99.9, ${late.max.toFixed(1)} at most`,
      );
      expect(load.counts).toBeGreaterThanOrEqual(3);
      expect(load.bigPuts).toBeGreaterThan(20);
      expect(load.txns).toBeGreaterThan(200);
      expect(late.samples).toBeGreaterThan(1_000);
      expect(late.p999).toBeLessThanOrEqual(50);
    } finally {
      const gone = once(child, 'exit');
      child.disconnect();
      await gone;
    }
  });
});

async function fill(client: Client): Promise<void> {
  const value = 'v'.repeat(64);
  let next = 0;
  const writer = async (): Promise<void> => {
    for (let from = next; from < keyCount; from = next) {
      next += opsPerTxn;
      const puts = Array.from({ length: opsPerTxn }, (_, at) => put(`million/${String(from + at).padStart(8, '0')}`, value));
      await client
        .txn()
        .then(...puts)
        .commit({ deadlineMs: 60_000 });
    }
  };
  await Promise.all(Array.from({ length: 16 }, writer));
}

interface Start {
  readonly ms: number;
  readonly anonymousMb: number;
}

/** Restarts the server, reads one key, and looks at its memory. */
async function start(server: RunningProcess): Promise<Start> {
  await server.stop();
  const startedAt = performance.now();
  await server.restart();
  const ms = performance.now() - startedAt;
  await using client = await connect({ endpoints: server.address });
  await client.get('million/00500000');
  const kib = /RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1];
  return { ms, anonymousMb: Number(kib) / 1024 };
}

interface Load {
  readonly counts: number;
  readonly bigPuts: number;
  readonly txns: number;
}

async function underLoad(client: Client, ms: number): Promise<Load> {
  const endAt = performance.now() + ms;
  const big = Buffer.alloc(1.5 * 1024 * 1024 - 64, 'b');
  const small = 's'.repeat(128);
  const repeat = async (work: () => Promise<unknown>): Promise<number> => {
    let times = 0;
    for (; performance.now() < endAt; times += 1) await work();
    return times;
  };
  const txnOf128 = (): Promise<unknown> => {
    const puts = Array.from({ length: 128 }, (_, at) => put(`txn/${at}`, small));
    return client
      .txn()
      .then(...puts)
      .commit();
  };
  const [counts, bigPuts, ...txns] = await Promise.all([
    repeat(() => client.list(allKeys(), { countOnly: true })),
    repeat(() => client.put('big', big)),
    repeat(txnOf128),
    repeat(txnOf128),
  ]);
  return { counts, bigPuts, txns: txns.reduce((sum, one) => sum + one, 0) };
}

async function lateness(child: ChildProcess): Promise<Lateness> {
  child.send({ measure: true });
  return (await next<{ lateness: Lateness }>(child)).lateness;
}

async function next<Message>(child: ChildProcess): Promise<Message> {
  const [message] = (await once(child, 'message')) as [Message];
  return message;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
