import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Cluster,
  type Init,
  KV,
  Lease,
  Maintenance,
  type MethodDescriptor,
  type PutResponse,
  Watch,
  WatchRequest,
  WatchResponse,
} from '@conclave/protocol';
import { VirtualRuntime } from '@conclave/testing';
import { SimulatedDisk } from '@conclave/testing/simulation';
import { type CallEnd, type Connection, systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { afterEach, expect, test } from 'vitest';
import { type ConclaveServer, type ServerOptions, startServer } from './embed.ts';
import type { Backend } from './storage/backend/backend.ts';
import { MemoryBackend } from './storage/backend/memory.ts';

const runtime = systemRuntime();
const cleanups: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(options: ServerOptions = {}): Promise<ConclaveServer> {
  const server = await startServer(options);
  cleanups.push(() => server.close().catch(() => undefined));
  return server;
}

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'embed-'));
  cleanups.push(() => rmSync(made, { recursive: true }));
  return join(made, 'data');
}

interface Answer<O> {
  readonly end: CallEnd;
  readonly response: O | undefined;
}

function call<I, O>(connection: Connection, method: MethodDescriptor<I, O>, request: Init<I>): Promise<Answer<O>> {
  return new Promise((resolve) =>
    connection.unary(method.path, method.input.encode(request), {}, (end, response) =>
      resolve({ end, response: response === undefined ? undefined : method.output.decode(response) }),
    ),
  );
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
const put = (connection: Connection, key: string, value: string): Promise<Answer<PutResponse>> =>
  call(connection, KV.methods.put, { key: bytes(key), value: bytes(value) });
async function get(connection: Connection, key: string): Promise<string | undefined> {
  const { response } = await call(connection, KV.methods.range, { key: bytes(key) });
  const kv = response?.kvs[0];
  return kv === undefined ? undefined : Buffer.from(kv.value).toString();
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = runtime.monotonic() + 10_000;
  while (!condition()) {
    if (runtime.monotonic() > deadline) throw new Error('never came true');
    await new Promise<void>((resolve) => runtime.timer(5, resolve));
  }
}

test('without options it lives in memory, behind the door without sockets', async () => {
  const server = await start();
  expect(server.endpoints).toEqual([]);
  expect(server.memberId).toBe(0x8e9e05c52164694dn);
  expect(server.clusterId).toBe(0xcdf818194e3a8c32n);
  const connection = server.transport('anything');
  expect((await put(connection, 'a', '1')).response?.header?.revision).toBe(2);
  expect(await get(connection, 'a')).toBe('1');
  const members = (await call(connection, Cluster.methods.memberList, {})).response?.members;
  expect(members).toEqual([
    { id: server.memberId, name: 'default', peerUrls: ['http://localhost:2380'], clientUrls: [], isLearner: false },
  ]);
  connection.close();
});

test('over sockets it says where it really listens, and its member list says so too', async () => {
  const server = await start({ listen: ['127.0.0.1:0', `unix:${folder()}.sock`], name: 'm1' });
  expect(server.endpoints[0]).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
  for (const endpoint of server.endpoints) {
    const connection = grpcTransport({ runtime })(endpoint);
    await put(connection, 'k', endpoint);
    expect(await get(connection, 'k')).toBe(endpoint);
    const members = (await call(connection, Cluster.methods.memberList, {})).response?.members;
    expect(members?.[0]?.clientUrls[0]).toBe(`http://${server.endpoints[0]}`);
    connection.close();
  }
});

test('a data dir keeps keys, leases, revision and ids over a restart, whatever the flags say then', async () => {
  const dataDir = folder();
  const first = await start({ dataDir, peerUrls: ['http://127.0.0.1:7001'], clusterToken: 'mine' });
  const { memberId, clusterId } = first;
  const before = first.transport('');
  await put(before, 'a', '1');
  const lease = (await call(before, Lease.methods.leaseGrant, { id: 77n, ttl: 600 })).response?.id;
  await put(before, 'a', '2');
  await first.close();

  const second = await start({ dataDir, clusterToken: 'other' });
  expect([second.memberId, second.clusterId]).toEqual([memberId, clusterId]);
  const after = second.transport('');
  expect(await get(after, 'a')).toBe('2');
  expect((await put(after, 'b', '3')).response?.header?.revision).toBe(4);
  expect((await call(after, Lease.methods.leaseTimeToLive, { id: lease ?? 0n })).response?.grantedTtl).toBe(600);
});

test('closing ends watches with the words of a stopped server and refuses what comes later', async () => {
  const server = await start();
  const connection = server.transport('');
  const received: WatchResponse[] = [];
  const ended = new Promise<CallEnd>((resolve) => {
    const stream = connection.stream(
      Watch.methods.watch.path,
      {},
      {
        onMessage: (message) => received.push(WatchResponse.decode(message)),
        onEnd: resolve,
      },
    );
    stream.write(WatchRequest.encode({ createRequest: { key: bytes('a') } }));
  });
  while (received.length === 0) await put(connection, 'b', '');
  expect(received[0]?.created).toBe(true);
  await server.close();
  await server.close();
  const end = await ended;
  expect([end.code, end.message]).toEqual([14, 'etcdserver: server stopped']);
  expect((await put(connection, 'a', '')).end.code).toBe(14);
});

test('requests taken in before the close are answered', async () => {
  const server = await start({ dataDir: folder() });
  const connection = server.transport('');
  await put(connection, 'warm', '');
  const answers = Array.from({ length: 50 }, (_, n) => put(connection, `k${n}`, 'v'));
  await new Promise<void>((resolve) => runtime.endOfTurn(resolve));
  await server.close();
  for (const { end } of await Promise.all(answers)) expect(end.code).toBe(0);
});

test('an option that cannot be is refused before anything is made', async () => {
  await expect(startServer({ heartbeatMs: 100, electionMs: 400 })).rejects.toThrow('should be at least as 5 times');
  await expect(startServer({ listen: 'https://127.0.0.1:0' })).rejects.toThrow('TLS is not supported');
  await expect(startServer({ listen: 'example.org:1' })).rejects.toThrow('expected IP in URL for binding');
});

test('a port in use fails the start and leaves the data dir free', async () => {
  const other = await start({ listen: '127.0.0.1:0' });
  const dataDir = folder();
  await expect(startServer({ dataDir, listen: other.endpoints })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  const server = await start({ dataDir });
  expect((await put(server.transport(''), 'a', '1')).end.code).toBe(0);
});

/** A backend whose commits fail from a moment on. */
class FailingBackend extends MemoryBackend {
  isBroken = false;

  override commit(changes: Parameters<Backend['commit']>[0]): Promise<void> {
    if (this.isBroken) return Promise.reject(Object.assign(new Error('no space left on device'), { code: 'ENOSPC' }));
    return super.commit(changes);
  }
}

test('a commit that fails closes the doors, rejects `failed`, and nothing is acknowledged any more', async () => {
  const backend = new FailingBackend();
  const server = await start({ listen: '127.0.0.1:0', storage: { backend: () => backend } });
  const connections = [server.transport(''), grpcTransport({ runtime })(server.endpoints[0] ?? '')];
  for (const connection of connections) cleanups.push(() => connection.close());
  for (const connection of connections) await put(connection, 'a', '1');
  backend.isBroken = true;
  for (const connection of connections) await put(connection, 'a', '2');
  const cause = await server.failed.catch((error: unknown) => error);
  expect(cause).toMatchObject({ message: 'the state could not be committed', cause: { code: 'ENOSPC' } });
  for (const connection of connections) {
    const { end } = await put(connection, 'a', '3');
    expect(end.code).toBe(14);
    expect((await call(connection, Maintenance.methods.status, {})).end.code).toBe(14);
  }
  await server.close();
});

test('a data dir has one owner, in this process too, and none after a fatal error', async () => {
  const dataDir = join(folder(), 'deeper');
  const backend = new FailingBackend();
  const server = await start({ dataDir, storage: { backend: () => backend } });
  await expect(startServer({ dataDir })).rejects.toMatchObject({ code: 'data-dir-locked' });
  expect((await put(server.transport(''), 'a', '1')).end.code).toBe(0);
  backend.isBroken = true;
  await put(server.transport(''), 'a', '2');
  await server.failed.catch(() => undefined);
  await server.close();
  await expect(startServer({ dataDir })).rejects.toMatchObject({ code: 'data-dir-unusable' });
});

test('settings reach those they bound', async () => {
  const server = await start({ maxRequestBytes: 1000, maxTxnOps: 1 });
  const connection = server.transport('');
  expect((await put(connection, 'a', 'x'.repeat(2000))).end.message).toBe('etcdserver: request is too large');
  const key = bytes('a');
  const success = [{ requestPut: { key, value: key } }, { requestRange: { key } }];
  expect((await call(connection, KV.methods.txn, { success })).end.message).toBe('etcdserver: too many operations in txn request');
});

test('what was compacted leaves storage, unasked', async () => {
  const backend = new MemoryBackend();
  const server = await start({ storage: { backend: () => backend } });
  const connection = server.transport('');
  for (let n = 0; n < 1000; n++) await put(connection, 'a', `${n}`);
  expect((await call(connection, KV.methods.compact, { revision: 900 })).end.code).toBe(0);
  expect((await call(connection, KV.methods.range, { key: bytes('a'), revision: 899 })).end.message).toBe(
    'etcdserver: mvcc: required revision has been compacted',
  );
  await until(() => backend.count('log') > 0 && backend.count('log') < 150);
  expect((await call(connection, KV.methods.compact, { revision: 1000, physical: true })).end.code).toBe(0);
  expect(backend.count('log')).toBeLessThan(5);
});

test('a whole server and its clients run in virtual time: a lease of an hour expires in a moment', async () => {
  const virtual = new VirtualRuntime({ seed: 1 });
  const starting = startServer({ runtime: virtual });
  await virtual.advance(100);
  const server = await starting;
  const connection = server.transport('');
  const steps = (async () => {
    await call(connection, Lease.methods.leaseGrant, { id: 5n, ttl: 3600 });
    await call(connection, KV.methods.put, { key: bytes('leased'), value: bytes('v'), lease: 5n });
    return await get(connection, 'leased');
  })();
  await virtual.advance(100);
  expect(await steps).toBe('v');
  await virtual.advance(3_605_000);
  const after = get(connection, 'leased');
  await virtual.advance(100);
  expect(await after).toBeUndefined();
  const closing = server.close();
  await virtual.advance(10_000);
  await closing;
});

test('a start that ends with the disk says so, whichever of its flushes failed', async () => {
  const causes: string[] = [];
  for (let failing = 1; causes.at(-1) !== 'none'; failing++) {
    const virtual = new VirtualRuntime({ seed: failing });
    let flushes = 0;
    const disk = new SimulatedDisk({
      runtime: virtual,
      latencyMs: ({ kind }) => (kind === 'sync' ? 1 : 0),
      fault: ({ kind }) => (kind === 'sync' && ++flushes === failing ? 'EIO' : undefined),
    });
    const storage = { disk: disk.mount(), backend: () => new MemoryBackend() };
    const starting = startServer({ runtime: virtual, dataDir: '/data', storage });
    causes.push(
      await virtual.run(starting).then(
        () => 'none',
        (cause: unknown) => (cause as { code: string }).code,
      ),
    );
  }
  expect(causes.length).toBeGreaterThan(3);
  expect(new Set(causes.slice(0, -1))).toEqual(new Set(['EIO']));
});
