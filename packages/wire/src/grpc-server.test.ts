import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { createServer, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Route, ServerStream } from './call.ts';
import { type GrpcServer, grpcServer } from './grpc-server.ts';
import { systemRuntime } from './system-runtime.ts';

/** Requests that no well-behaved client sends, as bytes over HTTP/2. */

const runtime = systemRuntime();
const maxReceiveBytes = 100_000;
let server: GrpcServer;
let session: ClientHttp2Session;
let seen: Uint8Array[] = [];
let deepest = 0;
let streams: ServerStream[] = [];
let dispose: () => Promise<void>;

const routes = new Map<string, Route>([
  [
    '/t.S/Echo',
    {
      kind: 'unary',
      handle(request, _call, reply) {
        seen.push(request);
        reply.send(request);
      },
    },
  ],
  ['/t.S/Slow', { kind: 'unary', handle: (request, _call, reply) => void runtime.timer(50, () => reply.send(request)) }],
  ['/t.S/Hang', { kind: 'unary', handle: () => undefined }],
  [
    '/t.S/Collect',
    {
      kind: 'stream',
      handle(stream) {
        streams.push(stream);
        stream.onMessage((message) => {
          seen.push(message);
          if (seen.length === 1) stream.pause();
          deepest = Math.max(deepest, new Error().stack?.split('\n').length ?? 0);
        });
        stream.onHalfClose(() => stream.end(0, ''));
      },
    },
  ],
]);

beforeEach(async () => {
  seen = [];
  streams = [];
  server = grpcServer({ runtime, routes, maxReceiveBytes });
  const listener = createServer((socket: Socket) => {
    socket.on('error', () => socket.destroy());
    server.accept(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  session = connect(`http://127.0.0.1:${address.port}`);
  session.on('error', () => undefined);
  dispose = async () => {
    session.destroy();
    listener.close();
    await server.close(0, 'over');
  };
});
afterEach(() => dispose());

function frame(body: Uint8Array, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(body.length, 1);
  return Buffer.concat([prefix, body]);
}

interface Outcome {
  readonly status: string | undefined;
  readonly message: string | undefined;
  readonly body: Buffer;
  readonly http: number | undefined;
}

function request(
  path: string,
  pieces: readonly Buffer[],
  headers: Record<string, string> = {},
  pause?: () => Promise<void>,
): Promise<Outcome> {
  return new Promise((resolve) => {
    const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...headers });
    const body: Buffer[] = [];
    let first: IncomingHttpHeaders = {};
    let last: IncomingHttpHeaders = {};
    stream.on('response', (given) => {
      first = given;
    });
    stream.on('trailers', (given) => {
      last = given;
    });
    stream.on('data', (data: Buffer) => body.push(data));
    stream.on('error', () => undefined);
    stream.on('end', () => {
      const end = { ...first, ...last };
      const message = end['grpc-message'];
      resolve({
        status: end['grpc-status']?.toString(),
        message: message === undefined ? undefined : decodeURIComponent(message.toString()),
        body: Buffer.concat(body),
        http: Number(first[':status']),
      });
      stream.close();
    });
    const send = async (): Promise<void> => {
      for (const piece of pieces) {
        stream.write(piece);
        await pause?.();
      }
      stream.end();
    };
    void send();
  });
}

function turn(): Promise<void> {
  return new Promise((resolve) => runtime.endOfTurn(resolve));
}

describe('message size', () => {
  test('a message of exactly the limit is taken, one byte more is refused in the words of gRPC', async () => {
    expect((await request('/t.S/Echo', [frame(Buffer.alloc(maxReceiveBytes))])).status).toBe('0');
    const outcome = await request('/t.S/Echo', [frame(Buffer.alloc(maxReceiveBytes + 1))]);
    expect([outcome.status, outcome.message]).toEqual(['8', 'grpc: received message larger than max (100001 vs. 100000)']);
    expect(seen).toHaveLength(1);
  });

  test('an announced length costs nothing and is refused before a byte of it came', async () => {
    const outcome = await request('/t.S/Echo', [Buffer.from([0, 0xff, 0xff, 0xff, 0xff])]);
    expect([outcome.status, outcome.message]).toEqual(['8', 'grpc: received message larger than max (4294967295 vs. 100000)']);
  });

  test('a message in one-byte pieces arrives whole and does not cost a buffer a piece', async () => {
    const body = Buffer.from(Array.from({ length: 3_000 }, (_, n) => n % 251));
    const pieces = [...frame(body)].map((byte) => Buffer.from([byte]));
    const outcome = await request('/t.S/Echo', pieces, {}, turn);
    expect(outcome.status).toBe('0');
    expect(Buffer.from(seen[0] ?? [])).toEqual(body);
  });

  test('a zip bomb is refused without being unpacked', async () => {
    const bomb = frame(gzipSync(Buffer.alloc(50_000_000)), 1);
    expect(bomb.length).toBeLessThan(maxReceiveBytes);
    expect((await request('/t.S/Echo', [bomb], { 'grpc-encoding': 'gzip' })).status).toBe('8');
    expect(seen).toHaveLength(0);
  });
});

describe('encoding', () => {
  test('gzip is honoured', async () => {
    const outcome = await request('/t.S/Echo', [frame(gzipSync(Buffer.from('packed')), 1)], { 'grpc-encoding': 'gzip' });
    expect(outcome.status).toBe('0');
    expect(outcome.body.subarray(5).toString()).toBe('packed');
  });

  test('a broken or unknown compression ends the call and not the process', async () => {
    expect((await request('/t.S/Echo', [frame(Buffer.from('not gzip'), 1)], { 'grpc-encoding': 'gzip' })).status).toBe('13');
    expect((await request('/t.S/Echo', [frame(Buffer.from('x'), 1)], { 'grpc-encoding': 'snappy' })).status).toBe('12');
    expect((await request('/t.S/Echo', [frame(Buffer.from('fine'))])).status).toBe('0');
  });
});

test.each([
  [1, {}, 'grpc: compressed flag set with identity or empty encoding'],
  [1, { 'grpc-encoding': 'identity' }, 'grpc: compressed flag set with identity or empty encoding'],
  [2, { 'grpc-encoding': 'gzip' }, 'grpc: received unexpected payload format 2'],
  [255, {}, 'grpc: received unexpected payload format 255'],
])('a message with flag %i and headers %j is refused and never seen', async (flag, headers, text) => {
  const outcome = await request('/t.S/Echo', [frame(Buffer.from('whole'), flag)], headers);
  expect([outcome.status, outcome.message]).toEqual(['13', text]);
  const stream = await request('/t.S/Collect', [frame(Buffer.from('one'), flag), frame(Buffer.from('two'))], headers);
  expect([stream.status, stream.message]).toEqual(['13', text]);
  expect(seen).toHaveLength(0);
  expect((await request('/t.S/Echo', [frame(Buffer.from('fine'))])).status).toBe('0');
});

describe('bad requests', () => {
  test('a stream that ends in the middle of a message or without one is answered', async () => {
    const cut = await request('/t.S/Echo', [frame(Buffer.from('whole')).subarray(0, 7)]);
    expect([cut.status, cut.message]).toEqual(['2', 'unexpected EOF']);
    const none = await request('/t.S/Echo', []);
    expect([none.status, none.message]).toEqual(['2', 'EOF']);
  });

  test('a second message to a unary method is ignored', async () => {
    const outcome = await request('/t.S/Echo', [frame(Buffer.from('one')), frame(Buffer.from('two'))]);
    expect([outcome.status, outcome.body.subarray(5).toString()]).toEqual(['0', 'one']);
    expect(seen).toHaveLength(1);
  });

  test('another content type is not gRPC', async () => {
    expect((await request('/t.S/Echo', [], { 'content-type': 'text/plain' })).http).toBe(415);
  });

  test('paths that nobody serves are answered in the words of gRPC', async () => {
    const outcomes = await Promise.all(
      ['/t.S/Nope', '/x.Y/Z', '/', '//', '/constructor/x'].map((path) => request(path, [frame(Buffer.alloc(0))])),
    );
    expect(outcomes.map((outcome) => [outcome.status, outcome.message])).toEqual([
      ['12', 'unknown method Nope for service t.S'],
      ['12', 'unknown service x.Y'],
      ['12', 'malformed method name: "/"'],
      ['12', 'unknown service '],
      ['12', 'unknown service constructor'],
    ]);
  });
});

describe('grpc-timeout', () => {
  test('ends a call that takes longer', async () => {
    expect((await request('/t.S/Hang', [frame(Buffer.alloc(0))], { 'grpc-timeout': '50m' })).status).toBe('4');
  });

  test('a malformed one is an error, the longest one is no deadline', async () => {
    expect((await request('/t.S/Echo', [frame(Buffer.alloc(0))], { 'grpc-timeout': 'abc' })).status).toBe('13');
    expect((await request('/t.S/Slow', [frame(Buffer.alloc(0))], { 'grpc-timeout': '720H' })).status).toBe('0');
  });
});

test('thousands of messages waiting behind a paused reader are handed over without nesting', async () => {
  const pieces = Buffer.concat(Array.from({ length: 12_000 }, () => frame(Buffer.alloc(0))));
  const outcome = request('/t.S/Collect', [pieces]);
  while (seen.length === 0) await turn();
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 1000;
  for (let n = 0; n < 50; n++) await turn();
  streams[0]?.resume();
  expect((await outcome).status).toBe('0');
  Error.stackTraceLimit = stackTraceLimit;
  expect(seen).toHaveLength(12_000);
  expect(deepest).toBeLessThan(50);
});

test('a connection that dies in the middle of a message leaves the server serving', async () => {
  const stream = session.request({ ':method': 'POST', ':path': '/t.S/Echo', 'content-type': 'application/grpc' });
  stream.on('error', () => undefined);
  stream.write(frame(Buffer.alloc(1000)).subarray(0, 500));
  await turn();
  stream.close(8);
  expect((await request('/t.S/Echo', [frame(Buffer.from('fine'))])).status).toBe('0');
});
