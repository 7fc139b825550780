import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Client, put } from '@conclave/sdk';
import { median } from '../figures.ts';
import { LoadProcess } from '../load-process.ts';
import type { SubjectName } from '../subjects.ts';
import { CannedServer } from './canned-server.ts';
import { type ClientName, type Comparison, cell, clientNames, ofBoth } from './compared.ts';

const rounds = 5;
const ms = 1_500;
const history = { prefix: 'speed/history/', events: 50_000, valueBytes: 200 };
const listed = { keys: 1_000, valueBytes: 256 };
const slowEvents = 1_000_000;

const run = promisify(execFile);

/** Item 7: what single calls, ranges, histories and the import cost. */
export async function compareSpeed(address: string, direct: Client): Promise<readonly Comparison[]> {
  return [...(await calls(address)), ...(await decoding()), await delivery(address, direct), await imports(), await heaps(address)];
}

/** Item 9: a consumer that is slower than the server. */
export async function compareSlowConsumer(address: string, direct: Client): Promise<readonly Comparison[]> {
  const first = await write(direct, 'slow/', slowEvents, 100, 10);
  type Slow = { readonly events: number; readonly disordered: number; readonly grownBytes: number };
  const seen = await ofBoth((name) => worker<Slow>('slow', name, address, ['slow/', `${first}`, `${slowEvents}`]));
  const mib = ({ grownBytes }: Slow): number => grownBytes / 2 ** 20;
  const show = (one: Slow) =>
    cell(
      `${slowEvents - one.events} lost, ${one.disordered} out of order, +${mib(one).toFixed(0)} MiB`,
      one.events === slowEvents && one.disordered === 0 && mib(one) <= 64,
    );
  return [
    {
      item: 9,
      measure: `consumer slower than the server, ${slowEvents.toLocaleString('en')} events`,
      bar: 'none lost, RSS + ≤ 64 MiB',
      ours: show(seen.ours),
      etcd3: show(seen.etcd3),
    },
  ];
}

async function calls(address: string): Promise<Comparison[]> {
  const rows: Comparison[] = [];
  const subjects: readonly SubjectName[] = ['sdk', 'etcd3', 'grpc-js'];
  const loads = new Map<SubjectName, LoadProcess>();
  try {
    for (const subject of subjects) loads.set(subject, await LoadProcess.start(subject, address));
    for (const workload of ['put', 'get'] as const) {
      const cpuUs = new Map<string, number[]>();
      const rate = new Map<string, number[]>();
      for (let round = 0; round < rounds; round++) {
        for (const inFlight of [32, 256]) {
          // In turns, each at another place in every round.
          for (let at = 0; at < subjects.length; at++) {
            const subject = subjects[(at + round) % subjects.length] ?? 'sdk';
            const { operations, cpuUs: cpu, seconds } = (await loads.get(subject)?.perform({ workload, inFlight, ms })) ?? failed();
            push(cpuUs, `${subject} ${inFlight}`, cpu / operations);
            push(rate, `${subject} ${inFlight}`, operations / seconds);
          }
        }
      }
      const cost = (subject: SubjectName): number => median(cpuUs.get(`${subject} 32`) ?? []);
      const above = median((cpuUs.get('sdk 32') ?? []).map((us, at) => us - (cpuUs.get('grpc-js 32')?.[at] ?? Number.NaN)));
      rows.push({
        item: 7,
        measure: `CPU per ${workload}, 32 in flight (bare grpc-js: ${cost('grpc-js').toFixed(0)} µs)`,
        bar: '≤ 5 µs above bare grpc-js',
        ours: cell(`${cost('sdk').toFixed(0)} µs, ${above.toFixed(1)} above`, above <= 5 && cost('sdk') < cost('etcd3')),
        etcd3: cell(`${cost('etcd3').toFixed(0)} µs, ${(cost('etcd3') - cost('grpc-js')).toFixed(1)} above`),
      });
      const kept = (subject: SubjectName): number => median(ratios(rate.get(`${subject} 256`), rate.get(`${subject} 32`)));
      const show = (subject: SubjectName) =>
        cell(`${kept(subject).toFixed(2)} (${median(rate.get(`${subject} 256`) ?? []).toFixed(0)}/s)`, kept(subject) >= 0.9);
      rows.push({
        item: 7,
        measure: `rate of ${workload} at 256 in flight to that at 32`,
        bar: '≥ 0.9',
        ours: show('sdk'),
        etcd3: show('etcd3'),
      });
    }
  } finally {
    for (const load of loads.values()) await load[Symbol.asyncDispose]();
  }
  return rows;
}

/** What clients make of the same bytes, sent as fast as they are taken: a real server waits between the parts of a history. */
async function decoding(): Promise<Comparison[]> {
  await using canned = await CannedServer.start(listed.keys, listed.valueBytes, history.events, history.valueBytes);
  const { address } = canned;
  type Listed = { readonly kvs: number; readonly cpuSeconds: number; readonly seconds: number };
  type Replayed = { readonly events: number; readonly cpuSeconds: number; readonly seconds: number };
  const lists = await inTurns((name) => worker<Listed>('list', name, address, ['canned/', `${ms}`]));
  const replays = await inTurns((name) => worker<Replayed>('replay', name, address, ['canned/', '1', `${history.events}`, 'unlimited']));
  const kvRate = (all: readonly Listed[]): number[] => all.map(({ kvs, seconds }) => kvs / seconds);
  const eventRate = (all: readonly Replayed[]): number[] => all.map(({ events, seconds }) => events / seconds);
  const decodes = await inTurns((name) => worker<Listed>('decode', name, address, [`${ms}`]));
  const row = (measure: string, unit: string, least: number | undefined, ours: number[], etcd3: number[]): Comparison => {
    const ratio = median(ratios(ours, etcd3));
    return {
      item: 7,
      measure,
      bar: least === undefined ? '' : `≥ ${least} × etcd3`,
      ours: cell(`${median(ours).toFixed(0)} ${unit} (${ratio.toFixed(1)} ×)`, least === undefined ? undefined : ratio >= least),
      etcd3: cell(`${median(etcd3).toFixed(0)} ${unit}`),
    };
  };
  return [
    row('ranges of 1,000 × 256 B decoded', 'kv/s', 4, kvRate(decodes.ours), kvRate(decodes.etcd3)),
    row('the same, from the socket to the caller, 4 in flight', 'kv/s', undefined, kvRate(lists.ours), kvRate(lists.etcd3)),
    row('a history as fast as it is taken, receive limit lifted', 'events/s', 1.5, eventRate(replays.ours), eventRate(replays.etcd3)),
  ];
}

/** Of transactions of a hundred puts each: etcd sends a thousand revisions in one message. */
async function delivery(address: string, direct: Client): Promise<Comparison> {
  const { prefix, events, valueBytes } = history;
  const first = await write(direct, prefix, events, valueBytes, 100);
  type Replayed = { readonly events: number };
  const seen = await ofBoth((name) => worker<Replayed>('replay', name, address, [prefix, `${first}`, `${events}`, 'default']));
  const whole = ({ events: count }: Replayed) => cell(`${count.toLocaleString('en')} events`, count === events);
  return { item: 7, measure: 'history of 50,000 events, 14 MB, by default', bar: 'all', ours: whole(seen.ours), etcd3: whole(seen.etcd3) };
}

/** From the built package, as users have it. */
async function imports(): Promise<Comparison> {
  const cwd = fileURLToPath(new URL('../../packages/recipes', import.meta.url));
  const time = async (module: string): Promise<number> => {
    const startedAt = performance.now();
    await run(process.execPath, ['--input-type=module', '--eval', module === '' ? '' : `import ${JSON.stringify(module)}`], { cwd });
    return performance.now() - startedAt;
  };
  const taken: Record<'bare' | ClientName, number[]> = { bare: [], ours: [], etcd3: [] };
  for (let round = 0; round < 15; round++) {
    taken.bare.push(await time(''));
    taken.ours.push(await time('@conclave/sdk'));
    taken.etcd3.push(await time('etcd3'));
  }
  const above = (name: ClientName): number => median(taken[name].map((one, at) => one - (taken.bare[at] ?? Number.NaN)));
  const ratio = above('ours') / above('etcd3');
  return {
    item: 7,
    measure: 'import, above bare Node',
    bar: '≤ 0.6 × etcd3',
    ours: cell(`${above('ours').toFixed(0)} ms (${ratio.toFixed(2)} ×)`, ratio <= 0.6),
    etcd3: cell(`${above('etcd3').toFixed(0)} ms`),
  };
}

async function heaps(address: string): Promise<Comparison> {
  const seen = await ofBoth((name) => worker<{ readonly bytesEach: number }>('heap', name, address, []));
  const show = ({ bytesEach }: { readonly bytesEach: number }) => cell(`${(bytesEach / 1000).toFixed(2)} kB`, bytesEach <= 2_000);
  return { item: 7, measure: 'heap per watcher, of 10,000', bar: '≤ 2 kB', ours: show(seen.ours), etcd3: show(seen.etcd3) };
}

/** By transactions of so many puts each. The revision of the first. */
async function write(direct: Client, prefix: string, count: number, valueBytes: number, each: number): Promise<number> {
  const value = 'x'.repeat(valueBytes);
  const commit = async (n: number): Promise<bigint> => {
    const puts = Array.from({ length: each }, (_, at) => put(`${prefix}${n + at}`, value));
    return (
      await direct
        .txn()
        .then(...puts)
        .commit()
    ).revision;
  };
  const first = await commit(0);
  let next = each;
  const writer = async (): Promise<void> => {
    for (let n = next; n < count; n = next) {
      next += each;
      await commit(n);
    }
  };
  await Promise.all(Array.from({ length: 64 }, writer));
  return Number(first);
}

async function worker<T>(what: string, name: ClientName, address: string, args: readonly string[]): Promise<T> {
  const file = fileURLToPath(new URL('./worker.ts', import.meta.url));
  const { stdout } = await run(process.execPath, ['--expose-gc', ...process.execArgv, file, what, name, address, ...args], {
    maxBuffer: 2 ** 20,
  });
  return JSON.parse(stdout.slice(stdout.lastIndexOf('{'))) as T;
}

async function inTurns<T>(ask: (name: ClientName) => Promise<T>): Promise<Record<ClientName, T[]>> {
  const all: Record<ClientName, T[]> = { ours: [], etcd3: [] };
  for (let round = 0; round < rounds; round++)
    for (const name of round % 2 === 0 ? clientNames : [...clientNames].reverse()) all[name].push(await ask(name));
  return all;
}

function ratios(ours: readonly number[] = [], theirs: readonly number[] = []): number[] {
  return ours.map((one, at) => one / (theirs[at] ?? Number.NaN));
}

function push(map: Map<string, number[]>, key: string, value: number): void {
  map.set(key, [...(map.get(key) ?? []), value]);
}

function failed(): never {
  throw new Error('there is no such client');
}
