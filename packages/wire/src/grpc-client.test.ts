import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttp2Server, type Http2Server, type Http2Session, type ServerHttp2Stream } from 'node:http2';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import type { CallEnd, Connection } from './call.ts';
import { grpcTransport } from './grpc-client.ts';
import { systemRuntime } from './system-runtime.ts';

const runtime = systemRuntime();
const transport = grpcTransport({ runtime });
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

function connectTo(address: string): Connection {
  const connection = transport(address);
  cleanups.push(() => connection.close());
  return connection;
}

function call(connection: Connection, options: Parameters<Connection['unary']>[2] = {}): Promise<CallEnd> {
  return new Promise((resolve) => connection.unary('/t.S/M', new Uint8Array([1, 2, 3]), options, resolve));
}

async function listening(server: Server | Http2Server, where: { port: number; host: string } | { path: string }): Promise<number> {
  await new Promise<void>((resolve) => server.listen(where, resolve));
  cleanups.push(() => server.close());
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** An HTTP/2 peer that does exactly what the test says. */
async function peer(
  onStream: (stream: ServerHttp2Stream, session: Http2Session, headers: Record<string, unknown>) => void,
  sockets: Socket[] = [],
): Promise<number> {
  const server = createHttp2Server();
  server.on('connection', (socket) => sockets.push(socket));
  server.on('session', (session) => {
    session.on('error', () => undefined);
    cleanups.push(() => session.destroy());
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    if (stream.session !== undefined) onStream(stream, stream.session, headers);
  });
  return listening(server, { port: 0, host: '127.0.0.1' });
}

const message = Buffer.from([0, 0, 0, 0, 1, 7]);

function answer(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(message);
}

test.each([
  ['127.0.0.1:1', 'connect ECONNREFUSED 127.0.0.1:1'],
  ['unix:/no/such/socket', 'connect ENOENT /no/such/socket'],
])('a connection to %s tells why it failed', async (address, why) => {
  const connection = connectTo(address);
  expect(connection.failure).toBeUndefined();
  const failed = new Promise<void>((resolve) => connection.onState((state) => state === 'failed' && resolve()));
  connection.connect();
  await failed;
  expect(connection.failure).toBe(why);
});

test('a ping that was answered while the loop was blocked is alive', async () => {
  // A thread of its own, so that it goes on; an answer takes it 50 ms, and the third time it gives none.
  const worker = new Worker(
    `const server = require('node:http2').createServer();
     const headers = { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '0' };
     let asked = 0;
     server.on('stream', (stream) => ++asked < 3 && setTimeout(() => stream.respond(headers, { endStream: true }), 50));
     server.listen(0, '127.0.0.1', () => require('node:worker_threads').parentPort.postMessage(server.address().port));`,
    { eval: true },
  );
  cleanups.push(() => void worker.terminate());
  const [port] = await once(worker, 'message');
  const connection = connectTo(`127.0.0.1:${port}`);
  const ping = (timeoutMs: number): Promise<boolean> => new Promise((resolve) => connection.ping(timeoutMs, resolve));
  expect(await ping(2_000)).toBe(true);
  const started = performance.now();
  const blocked = ping(100);
  await new Promise((resolve) => setTimeout(resolve, 10));
  while (performance.now() - started < 400);
  expect(await blocked).toBe(true);
  expect(await ping(50)).toBe(false);
});

test('an attempt to connect that succeeded while the loop was blocked is not given up', async () => {
  const worker = new Worker(
    `const server = require('node:http2').createServer();
     server.listen(0, '127.0.0.1', () => require('node:worker_threads').parentPort.postMessage(server.address().port));`,
    { eval: true },
  );
  cleanups.push(() => void worker.terminate());
  const [port] = await once(worker, 'message');
  const connection = grpcTransport({ runtime, connectTimeoutMs: 1_000 })(`127.0.0.1:${port}`);
  cleanups.push(() => connection.close());
  const states: string[] = [];
  const decided = new Promise<void>((resolve) =>
    connection.onState((state) => {
      states.push(state);
      if (state !== 'connecting') resolve();
    }),
  );
  connection.connect();
  const started = performance.now();
  while (performance.now() - started < 1_500);
  await decided;
  expect(states).toEqual(['connecting', 'ready']);
});

describe('notProcessed', () => {
  test('is true when the connection was refused', async () => {
    const server = createServer();
    const port = await listening(server, { port: 0, host: '127.0.0.1' });
    await new Promise((resolve) => server.close(resolve));
    const end = await call(connectTo(`127.0.0.1:${port}`));
    expect([end.code, end.notProcessed]).toEqual([14, true]);
    expect(end.message).toContain('ECONNREFUSED');
  });

  test('is true when the name does not resolve', async () => {
    const end = await call(connectTo('no-such-host.invalid:2379'));
    expect([end.code, end.notProcessed]).toEqual([14, true]);
  });

  test('is true when the peer hung up before it spoke HTTP/2', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.resetAndDestroy();
    });
    const end = await call(connectTo(`127.0.0.1:${await listening(server, { port: 0, host: '127.0.0.1' })}`));
    expect([end.code, end.notProcessed]).toEqual([14, true]);
  });

  test('is true when nobody answered in time to connect, with or without a deadline', async () => {
    const server = createServer((socket) => void socket.on('error', () => undefined));
    const port = await listening(server, { port: 0, host: '127.0.0.1' });
    const silent = connectTo(`127.0.0.1:${port}`);
    const byDeadline = await call(silent, { deadline: runtime.monotonic() + 100 });
    expect([byDeadline.code, byDeadline.notProcessed]).toEqual([4, true]);
    const impatient = grpcTransport({ runtime, connectTimeoutMs: 100 })(`127.0.0.1:${port}`);
    cleanups.push(() => impatient.close());
    const byTimeout = await call(impatient);
    expect([byTimeout.code, byTimeout.notProcessed]).toEqual([14, true]);
    expect(impatient.state).toBe('failed');
  });

  test('is true for a stream the server refused', async () => {
    const port = await peer((stream) => stream.close(7));
    const end = await call(connectTo(`127.0.0.1:${port}`));
    expect([end.code, end.notProcessed]).toEqual([14, true]);
  });

  test('is true for a stream above the last one that a GOAWAY names, false for the one it includes', async () => {
    const streams: ServerHttp2Stream[] = [];
    const port = await peer((stream, session) => {
      streams.push(stream);
      if (streams.length === 2) session.goaway(0, 1);
      if (streams.length === 2) setImmediate(() => streams[0]?.session?.destroy());
    });
    const connection = connectTo(`127.0.0.1:${port}`);
    const ends = await Promise.all([call(connection), call(connection)]);
    expect(ends.map((end) => [end.code, end.notProcessed])).toEqual([
      [14, false],
      [14, true],
    ]);
  });

  test('is false when the server died with the request in its hands', async () => {
    const sockets: Socket[] = [];
    const port = await peer(() => sockets[0]?.resetAndDestroy(), sockets);
    const end = await call(connectTo(`127.0.0.1:${port}`));
    expect([end.code, end.notProcessed]).toEqual([14, false]);
  });

  test('is false when response headers had come before the stream was refused', async () => {
    const port = await peer((stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
      stream.write(message.subarray(0, 3));
      setImmediate(() => stream.close(7));
    });
    expect((await call(connectTo(`127.0.0.1:${port}`))).notProcessed).toBe(false);
  });

  test('is false when a server says the words of a refusal as its own status', async () => {
    const port = await peer((stream) =>
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '14', 'grpc-message': 'Stream refused by server' },
        { endStream: true },
      ),
    );
    const end = await call(connectTo(`127.0.0.1:${port}`));
    expect([end.code, end.message, end.notProcessed]).toEqual([14, 'Stream refused by server', false]);
  });

  test('is false when the call was cancelled or ran out of time with the server', async () => {
    let running = 0;
    const port = await peer(() => {
      running++;
    });
    const connection = connectTo(`127.0.0.1:${port}`);
    const end = await call(connection, { deadline: runtime.monotonic() + 200 });
    expect([end.code, end.notProcessed, running]).toEqual([4, false, 1]);
  });
});

test('a refused or failed call is not sent again by the transport', async () => {
  let streams = 0;
  const port = await peer((stream) => {
    streams++;
    if (streams === 1) stream.close(7);
    else
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '14', 'grpc-retry-pushback-ms': '0' },
        { endStream: true },
      );
  });
  const connection = connectTo(`127.0.0.1:${port}`);
  expect((await call(connection)).code).toBe(14);
  expect((await call(connection)).code).toBe(14);
  await new Promise<void>((resolve) => runtime.timer(100, resolve));
  expect(streams).toBe(2);
});

test('a call in flight survives a graceful GOAWAY, and the connection says failed', async () => {
  const port = await peer((stream, session) => {
    session.close();
    runtime.timer(50, () => answer(stream));
  });
  const connection = connectTo(`127.0.0.1:${port}`);
  const states: string[] = [];
  connection.onState((state) => states.push(state));
  expect((await call(connection)).code).toBe(0);
  expect(states).toEqual(['connecting', 'ready', 'failed']);
});

test('proxy settings of the environment are not honoured', async () => {
  const port = await peer(answer);
  const before = process.env['grpc_proxy'];
  process.env['grpc_proxy'] = 'http://127.0.0.1:1';
  try {
    expect((await call(connectTo(`localhost:${port}`))).code).toBe(0);
  } finally {
    if (before === undefined) delete process.env['grpc_proxy'];
    else process.env['grpc_proxy'] = before;
  }
});

test('unix sockets, IPv6 literals and localhost are addresses', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'wire-'));
  cleanups.push(() => rmSync(directory, { recursive: true }));
  const unix = createHttp2Server().on('stream', answer);
  unix.on('session', (session) => cleanups.push(() => session.destroy()));
  await listening(unix, { path: join(directory, 's') });
  expect((await call(connectTo(`unix:${join(directory, 's')}`))).code).toBe(0);
  expect((await call(connectTo(`unix:${join(directory, 'absent')}`))).notProcessed).toBe(true);

  const v6 = createHttp2Server().on('stream', answer);
  v6.on('session', (session) => cleanups.push(() => session.destroy()));
  const port = await listening(v6, { port: 0, host: '::1' });
  expect((await call(connectTo(`[::1]:${port}`))).code).toBe(0);
});

test('metadata that HTTP/2 cannot carry ends the call instead of throwing', async () => {
  const end = await call(connectTo('127.0.0.1:1'), { metadata: { token: 'line\nbreak' } });
  expect([end.code, end.notProcessed]).toEqual([13, true]);
});

test('a second or missing response to a unary call is an internal error', async () => {
  let empty = false;
  const port = await peer((stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.end(empty ? Buffer.alloc(0) : Buffer.concat([message, message]));
  });
  const connection = connectTo(`127.0.0.1:${port}`);
  expect((await call(connection)).code).toBe(13);
  empty = true;
  expect((await call(connection)).code).toBe(13);
});

test('a record of metadata is sent with every call that names it', async () => {
  const seen: unknown[] = [];
  const port = await peer((stream, _session, headers) => {
    seen.push(headers['token']);
    answer(stream);
  });
  const connection = connectTo(`127.0.0.1:${port}`);
  const metadata = { token: 'abc' };
  await call(connection, { metadata });
  await call(connection, { metadata });
  await call(connection);
  expect(seen).toEqual(['abc', 'abc', undefined]);
});
