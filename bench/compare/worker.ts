// A client in a process of its own, whose CPU time, memory and heap are then its own. Arguments: what to do, which client, the server's address.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { RangeResponse } from '@conclave/protocol';
import { rangeOf } from './canned-server.ts';
import { type ClientName, connectCompared, pause } from './compared.ts';

const [what = '', name = '', address = '', ...rest] = process.argv.slice(2);

const tasks: Readonly<Record<string, () => Promise<unknown>>> = { replay, slow, heap, list, decode, stand };

/** Every event of a history, from its first revision on: events a second. */
async function replay(): Promise<unknown> {
  const [prefix = '', first = '', count = '', isUnlimited] = rest;
  await using client = await connectCompared(name as ClientName, { hosts: [address], isUnlimited: isUnlimited === 'unlimited' });
  await client.get('warm-up');
  let events = 0;
  const startedAt = performance.now();
  const cpu = process.cpuUsage();
  const watching = await client.watch(prefix, Number(first), () => (events += 1));
  for (const until = startedAt + 20_000; events < Number(count) && performance.now() < until && watching.failure === undefined; )
    await pause(1);
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { events, seconds, cpuSeconds: (user + system) / 1e6 };
}

/** The same at a pace that the server is far above: how much memory that takes, and whether all come. */
async function slow(): Promise<unknown> {
  const [prefix = '', first = '', count = ''] = rest;
  await using client = await connectCompared(name as ClientName, { hosts: [address], isUnlimited: true });
  await client.get('warm-up');
  globalThis.gc?.();
  const before = residentBytes();
  let most = before;
  let events = 0;
  let lastRevision = 0;
  let disordered = 0;
  const watching = await client.consume(prefix, Number(first), async ({ revision }) => {
    if (revision < lastRevision) disordered += 1;
    lastRevision = revision;
    events += 1;
    if (events % 2_000 !== 0) return;
    most = Math.max(most, residentBytes());
    // As one would who writes each batch to somewhere else.
    await pause(100);
  });
  for (let seen = -1, since = performance.now(); events < Number(count) && watching.failure === undefined; await pause(50)) {
    most = Math.max(most, residentBytes());
    if (events !== seen) [seen, since] = [events, performance.now()];
    else if (performance.now() - since > 20_000) break;
  }
  await watching.stop();
  return { events, disordered, grownBytes: most - before };
}

/** Bytes of heap a watcher, of ten thousand on keys of their own. */
async function heap(): Promise<unknown> {
  const watchers = 10_000;
  await using client = await connectCompared(name as ClientName, { hosts: [address] });
  const open = async (first: number, count: number): Promise<void> => {
    for (let n = first; n < first + count; n += 100) await client.watchEach(Array.from({ length: 100 }, (_, at) => `heap/${n + at}`));
  };
  const heapUsed = (): number => {
    for (let round = 0; round < 3; round++) globalThis.gc?.();
    return process.memoryUsage().heapUsed;
  };
  // What is made once is made before.
  await open(0, 100);
  const before = heapUsed();
  await open(100, watchers);
  return { bytesEach: (heapUsed() - before) / watchers };
}

/** Ranges of a thousand small values, four at a time: how fast they are decoded. */
async function list(): Promise<unknown> {
  const [prefix = '', ms = ''] = rest;
  await using client = await connectCompared(name as ClientName, { hosts: [address] });
  for (let n = 0; n < 50; n++) await client.list(prefix);
  let kvs = 0;
  const startedAt = performance.now();
  const cpu = process.cpuUsage();
  const worker = async (): Promise<void> => {
    while (performance.now() - startedAt < Number(ms)) kvs += await client.list(prefix);
  };
  await Promise.all(Array.from({ length: 4 }, worker));
  const { user, system } = process.cpuUsage(cpu);
  return { kvs, seconds: (performance.now() - startedAt) / 1000, cpuSeconds: (user + system) / 1e6 };
}

/** Registrations and candidacies, until this process is ended. */
async function stand(): Promise<unknown> {
  const [present = '', registrations = '', elections = '', candidacies = '', ttlSeconds = ''] = rest;
  // A rejection that nobody hears is none of the comparison's.
  process.on('unhandledRejection', () => undefined);
  const client = await connectCompared(name as ClientName, { hosts: [address] });
  for (let n = 0; n < Number(registrations); n++) await client.register(`${present}${n}`, 'here', Number(ttlSeconds));
  for (let n = 0; n < Number(candidacies); n++) await client.stand(`${elections}${n}`, 'me', Number(ttlSeconds));
  return new Promise(() => undefined);
}

/** The answer to such a range, from bytes to the message, with nothing around it: how many key-value pairs a second. */
async function decode(): Promise<unknown> {
  const [ms = ''] = rest;
  const bytes = Buffer.from(rangeOf(1_000, 256));
  const once = name === 'ours' ? () => RangeResponse.decode(bytes).kvs.length : await etcd3Decoder(bytes);
  const during = (time: number): number => {
    let kvs = 0;
    for (const until = performance.now() + time; performance.now() < until; ) kvs += once();
    return kvs;
  };
  during(Number(ms) / 3);
  const startedAt = performance.now();
  const kvs = during(Number(ms));
  return { kvs, seconds: (performance.now() - startedAt) / 1000 };
}

/** As etcd3 sets up the loader of its messages. */
async function etcd3Decoder(bytes: Buffer): Promise<() => number> {
  const fromEtcd3 = createRequire(createRequire(import.meta.url).resolve('etcd3'));
  const { loadSync } = fromEtcd3('@grpc/proto-loader') as {
    loadSync(file: string, options: object): Record<string, Record<string, unknown>>;
  };
  const loaded = loadSync(fromEtcd3.resolve('../proto/rpc.proto'), {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const range = loaded['etcdserverpb.KV']?.['Range'] as { responseDeserialize(bytes: Buffer): { kvs: unknown[] } };
  return () => range.responseDeserialize(bytes).kvs.length;
}

function residentBytes(): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? Number.NaN) * 1024;
}

const task = tasks[what];
if (task === undefined) throw new Error(`there is no task ${what}`);
process.stdout.write(`${JSON.stringify(await task())}\n`);
process.exit(0);
