import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import type { CallContext, CallEnd, Connection, Route, ServerStream, StreamReceiver } from './call.ts';
import { grpcTransport } from './grpc-client.ts';
import { type GrpcServer, grpcServer } from './grpc-server.ts';
import { loopback } from './loopback.ts';
import { systemRuntime } from './system-runtime.ts';

/** What every transport promises, asked of each of them. */

const runtime = systemRuntime();
const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString();
const bytes = (content: string): Uint8Array => new Uint8Array(Buffer.from(content));
const unary = (handle: Extract<Route, { kind: 'unary' }>['handle']): Route => ({ kind: 'unary', handle });
const stream = (handle: (stream: ServerStream) => void): Route => ({ kind: 'stream', handle });

interface Rig {
  readonly connection: Connection;
  /** As the peer's machine losing power: nothing in flight arrives. */
  cut(): void;
  closeServer(graceMs: number): Promise<void>;
  dispose(): Promise<void>;
}

type MakeRig = (routes: ReadonlyMap<string, Route>) => Promise<Rig>;

const loopbackRig: MakeRig = async (routes) => {
  const net = loopback({ runtime });
  const server = net.serve('peer', routes);
  const connection = net.transport('peer');
  return {
    connection,
    cut: () => server.cut(),
    closeServer: (graceMs) => server.close(graceMs, 'server stopped'),
    async dispose() {
      connection.close();
      await server.close(0, 'server stopped');
    },
  };
};

const grpcRig: MakeRig = async (routes) => {
  const server: GrpcServer = grpcServer({ runtime, routes, maxReceiveBytes: 2 * 1024 * 1024 });
  const sockets = new Set<Socket>();
  const listener: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    server.accept(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const connection = grpcTransport({ runtime })(`127.0.0.1:${address.port}`);
  return {
    connection,
    cut: () => sockets.forEach((socket) => void socket.resetAndDestroy()),
    async closeServer(graceMs) {
      listener.close();
      await server.close(graceMs, 'server stopped');
    },
    async dispose() {
      connection.close();
      listener.close();
      await server.close(0, 'server stopped');
    },
  };
};

const open: Rig[] = [];
afterEach(async () => {
  for (const rig of open.splice(0)) await rig.dispose();
});

interface Answer {
  readonly end: CallEnd;
  readonly response: Uint8Array | undefined;
}

function call(connection: Connection, path: string, request: string, options: Parameters<Connection['unary']>[2] = {}): Promise<Answer> {
  return new Promise((resolve) => connection.unary(path, bytes(request), options, (end, response) => resolve({ end, response })));
}

/** A receiver that writes down what it is told. */
class Recorder implements StreamReceiver {
  readonly messages: string[] = [];
  readonly events: string[] = [];
  readonly ended: Promise<CallEnd>;
  onWake: () => void = () => undefined;
  #end: (end: CallEnd) => void = () => undefined;

  constructor() {
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }
  onOpen(): void {
    this.events.push('open');
  }
  onMessage(message: Uint8Array): void {
    this.messages.push(text(message));
    this.events.push('message');
    this.onWake();
  }
  onDrain(): void {
    this.events.push('drain');
    this.onWake();
  }
  onEnd(end: CallEnd): void {
    this.events.push('end');
    this.#end(end);
  }
  async count(wanted: number): Promise<void> {
    await until(() => this.messages.length >= wanted, `${wanted} messages, has ${this.messages.length}`);
  }
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = runtime.monotonic() + 10_000;
  while (!condition()) {
    if (runtime.monotonic() > deadline) throw new Error(`never came true: ${what}`);
    await turn();
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => runtime.endOfTurn(resolve));
}

function later(milliseconds: number): Promise<void> {
  return new Promise((resolve) => runtime.timer(milliseconds, resolve));
}

describe.each([
  ['loopback', loopbackRig],
  ['grpc-js', grpcRig],
])('%s', (_name, make) => {
  async function rig(routes: Record<string, Route>): Promise<Rig> {
    const made = await make(new Map(Object.entries(routes)));
    open.push(made);
    return made;
  }

  const echo = unary((request, _call, reply) => reply.send(request));

  test('a unary call brings the response, and done comes after unary has returned', async () => {
    const { connection } = await rig({ '/t.S/Echo': echo });
    let returned = false;
    const answer = await new Promise<Answer>((resolve) => {
      connection.unary('/t.S/Echo', bytes('hello'), {}, (end, response) => {
        expect(returned).toBe(true);
        resolve({ end, response });
      });
      returned = true;
    });
    expect(answer.end.code).toBe(0);
    expect(text(answer.response)).toBe('hello');
    expect(connection.state).toBe('ready');
  });

  test('empty and large messages arrive whole, and a megabyte comes back', async () => {
    const { connection } = await rig({ '/t.S/Echo': echo });
    expect((await call(connection, '/t.S/Echo', '')).response).toHaveLength(0);
    const large = 'x'.repeat(1_500_000);
    expect(text((await call(connection, '/t.S/Echo', large)).response)).toBe(large);
  });

  test('a failure carries its code, exact text and trailers', async () => {
    const fail = unary((_request, context, reply) => {
      context.setTrailer('conclave-outcome', 'not-applied');
      reply.fail(9, 'etcdserver: 100% wrong, "quoted", ünïcode\nsecond line');
    });
    const { connection } = await rig({ '/t.S/Fail': fail });
    const { end, response } = await call(connection, '/t.S/Fail', '');
    expect(response).toBeUndefined();
    expect(end.code).toBe(9);
    expect(end.message).toBe('etcdserver: 100% wrong, "quoted", ünïcode\nsecond line');
    expect(end.trailer('conclave-outcome')).toBe('not-applied');
    expect(end.trailer('other')).toBeUndefined();
    expect(end.notProcessed).toBe(false);
  });

  test('a text with a lone surrogate does not break the answer', async () => {
    const { connection } = await rig({ '/t.S/Fail': unary((_request, _call, reply) => reply.fail(3, 'bad \ud800 text')) });
    expect((await call(connection, '/t.S/Fail', '')).end.code).toBe(3);
  });

  test('only the first reply counts', async () => {
    const twice = unary((request, _call, reply) => {
      reply.send(request);
      reply.fail(13, 'late');
      reply.send(bytes('again'));
    });
    const { connection } = await rig({ '/t.S/Twice': twice });
    const { end, response } = await call(connection, '/t.S/Twice', 'once');
    expect([end.code, text(response)]).toEqual([0, 'once']);
  });

  test('an unknown method, service or path is answered UNIMPLEMENTED in the words of gRPC', async () => {
    const { connection } = await rig({ '/t.S/Echo': echo });
    const texts: Record<string, string> = {
      '/t.S/Nope': 'unknown method Nope for service t.S',
      '/other.S/Echo': 'unknown service other.S',
      '/a/b/c': 'unknown service a/b',
      '/malformed': 'malformed method name: "/malformed"',
    };
    for (const [path, message] of Object.entries(texts)) {
      const { end } = await call(connection, path, '');
      expect([path, end.code, end.message]).toEqual([path, 12, message]);
    }
  });

  test('a handler that throws is answered UNKNOWN with its text', async () => {
    const thrower = unary(() => {
      throw new Error('broken handler');
    });
    const { connection } = await rig({ '/t.S/Throw': thrower, '/t.S/Echo': echo });
    const { end } = await call(connection, '/t.S/Throw', '');
    expect([end.code, end.message]).toEqual([2, 'broken handler']);
    expect((await call(connection, '/t.S/Echo', 'still')).end.code).toBe(0);
  });

  test('the handler sees metadata and the deadline as an instant on the monotonic clock', async () => {
    let seen: CallContext | undefined;
    let deadline = 0;
    const look = unary((request, context, reply) => {
      seen = context;
      deadline = context.deadline;
      reply.send(request);
    });
    const { connection } = await rig({ '/t.S/Look': look });
    const wanted = runtime.monotonic() + 5_000;
    await call(connection, '/t.S/Look', '', { metadata: { token: 'secret', hasleader: 'true' }, deadline: wanted });
    expect(seen?.metadata('token')).toBe('secret');
    expect(seen?.metadata('hasleader')).toBe('true');
    expect(seen?.metadata('absent')).toBeUndefined();
    expect(seen?.metadata('constructor')).toBeUndefined();
    expect(Math.abs(deadline - wanted)).toBeLessThan(50);
    await call(connection, '/t.S/Look', '');
    expect(deadline).toBe(Number.POSITIVE_INFINITY);
    await call(connection, '/t.S/Look', '', { deadline: runtime.monotonic() + 30 * 24 * 3600 * 1000 });
    expect(deadline).toBeGreaterThan(runtime.monotonic() + 20 * 24 * 3600 * 1000);
  });

  test('a deadline ends the call with DEADLINE_EXCEEDED and tells the handler', async () => {
    let context: CallContext | undefined;
    const told: string[] = [];
    const hang = unary((_request, given) => {
      context = given;
      given.onCancel(() => told.push('cancel'));
    });
    const { connection } = await rig({ '/t.S/Hang': hang });
    const { end } = await call(connection, '/t.S/Hang', '', { deadline: runtime.monotonic() + 100 });
    expect(end.code).toBe(4);
    expect(end.notProcessed).toBe(false);
    await until(() => told.length > 0, 'the handler was told');
    expect(told).toEqual(['cancel']);
    expect(context?.isCancelled).toBe(true);
    expect(context?.signal.aborted).toBe(true);
  });

  test('a deadline already past ends the call without hanging, and no handler sees it though it would be answered at once', async () => {
    let calls = 0;
    const count = unary((request, _call, reply) => {
      calls++;
      reply.send(request);
    });
    const { connection } = await rig({ '/t.S/Hang': unary(() => undefined), '/t.S/Count': count });
    for (const path of ['/t.S/Hang', '/t.S/Count', '/t.S/Count']) {
      const { end } = await call(connection, path, '', { deadline: runtime.monotonic() - 1_000 });
      expect([end.code, end.notProcessed]).toEqual([4, true]);
      await call(connection, '/t.S/Other', '');
    }
    expect(calls).toBe(0);
  });

  test('cancel ends the call once with CANCELLED, aborts the signal of the handler, and is idempotent', async () => {
    let signal: AbortSignal | undefined;
    const hang = unary((_request, given) => {
      signal = given.signal;
    });
    const { connection } = await rig({ '/t.S/Hang': hang });
    const ends: CallEnd[] = [];
    const pending = connection.unary('/t.S/Hang', bytes(''), {}, (end) => ends.push(end));
    await until(() => signal !== undefined, 'the handler runs');
    pending.cancel();
    pending.cancel();
    expect(ends).toHaveLength(0);
    await until(() => ends.length > 0, 'the call ended');
    pending.cancel();
    await until(() => signal?.aborted === true, 'the signal aborted');
    expect(ends.map((end) => [end.code, end.notProcessed])).toEqual([[1, false]]);
  });

  test('a call cancelled before it left is proved not to have been processed, and no handler sees it', async () => {
    let calls = 0;
    const { connection } = await rig({
      '/t.S/Count': unary((request, _call, reply) => {
        calls++;
        reply.send(request);
      }),
    });
    const end = await new Promise<CallEnd>((resolve) => connection.unary('/t.S/Count', bytes(''), {}, resolve).cancel());
    expect([end.code, end.notProcessed]).toEqual([1, true]);
    await call(connection, '/t.S/Count', '');
    expect(calls).toBe(1);
    for (let n = 0; n < 20; n++) {
      const before = calls;
      const connected = await new Promise<CallEnd>((resolve) => connection.unary('/t.S/Count', bytes(''), {}, resolve).cancel());
      await call(connection, '/t.S/Other', '');
      expect(connected.code).toBe(1);
      if (connected.notProcessed) expect(calls, 'a call said to be unseen').toBe(before);
    }
  });

  test('onCancel stays silent when a call ends by itself', async () => {
    let cancelled = false;
    const { connection } = await rig({
      '/t.S/Echo': unary((request, context, reply) => {
        context.onCancel(() => {
          cancelled = true;
        });
        reply.send(request);
      }),
    });
    await call(connection, '/t.S/Echo', '');
    await later(20);
    expect(cancelled).toBe(false);
  });

  test('a stream carries messages both ways in order, half-close reaches the handler, and headers come first', async () => {
    const echoAll = stream((given) => {
      given.onMessage((message) => void given.write(message));
      given.onHalfClose(() => given.end(0, ''));
    });
    const { connection } = await rig({ '/t.S/EchoAll': echoAll });
    const receiver = new Recorder();
    const sent = connection.stream('/t.S/EchoAll', {}, receiver);
    for (let n = 0; n < 500; n++) sent.write(bytes(`message ${n}`));
    sent.halfClose();
    const end = await receiver.ended;
    expect(end.code).toBe(0);
    expect(receiver.messages).toEqual(Array.from({ length: 500 }, (_, n) => `message ${n}`));
    expect(receiver.events[0]).toBe('open');
    expect(receiver.events.at(-1)).toBe('end');
    expect(receiver.events.filter((event) => event === 'end')).toHaveLength(1);
    expect(sent.write(bytes('too late'))).toBe(false);
  });

  test('a unary method can be called as a stream, and a server stream with unary writes', async () => {
    const { connection } = await rig({ '/t.S/Echo': echo });
    const receiver = new Recorder();
    const sent = connection.stream('/t.S/Echo', {}, receiver);
    sent.write(bytes('as a stream'));
    sent.halfClose();
    expect((await receiver.ended).code).toBe(0);
    expect(receiver.messages).toEqual(['as a stream']);
  });

  test('a unary method that gets no message is answered', async () => {
    const { connection } = await rig({ '/t.S/Echo': echo });
    const receiver = new Recorder();
    connection.stream('/t.S/Echo', {}, receiver).halfClose();
    const end = await receiver.ended;
    expect([end.code, end.message]).toEqual([2, 'EOF']);
  });

  test('the end of a stream comes behind everything written before it', async () => {
    const burst = stream((given) => {
      for (let n = 0; n < 100; n++) given.write(bytes(`${n}`));
      given.end(14, 'etcdserver: server stopped');
      expect(given.write(bytes('after the end'))).toBe(false);
    });
    const { connection } = await rig({ '/t.S/Burst': burst });
    const receiver = new Recorder();
    connection.stream('/t.S/Burst', {}, receiver);
    const end = await receiver.ended;
    expect([end.code, end.message, end.notProcessed]).toEqual([14, 'etcdserver: server stopped', false]);
    expect(receiver.messages).toHaveLength(100);
  });

  test('a paused reader holds the server back, and resuming loses nothing', async () => {
    const chunk = bytes('x'.repeat(10_000));
    let written = 0;
    let peak = 0;
    const total = 1_000;
    const flood = stream((given) => {
      const pump = (): void => {
        while (written < total) {
          written++;
          const more = given.write(chunk);
          peak = Math.max(peak, given.bufferedBytes);
          if (!more) return;
        }
        given.end(0, '');
      };
      given.onDrain(pump);
      pump();
    });
    const { connection } = await rig({ '/t.S/Flood': flood });
    const receiver = new Recorder();
    const sent = connection.stream('/t.S/Flood', {}, receiver);
    receiver.onWake = () => {
      if (receiver.messages.length === 3) sent.pause();
    };
    await receiver.count(3);
    await later(100);
    const heldAt = receiver.messages.length;
    expect(heldAt).toBeLessThan(10);
    expect(written).toBeLessThan(200);
    sent.resume();
    expect((await receiver.ended).code).toBe(0);
    expect(receiver.messages).toHaveLength(total);
    expect(peak).toBeLessThan(100_000);
  });

  test('a paused handler holds the caller back: write says no, onDrain says when', async () => {
    let server: ServerStream | undefined;
    let received = 0;
    const slow = stream((given) => {
      server = given;
      given.pause();
      given.onMessage(() => {
        received++;
      });
      given.onHalfClose(() => given.end(0, ''));
    });
    const { connection } = await rig({ '/t.S/Slow': slow });
    const receiver = new Recorder();
    const sent = connection.stream('/t.S/Slow', {}, receiver);
    const chunk = bytes('y'.repeat(10_000));
    let accepted = 0;
    let blocked = false;
    const pump = (): void => {
      blocked = false;
      while (!blocked && accepted < 100) {
        accepted++;
        blocked = !sent.write(chunk);
      }
      if (!blocked) sent.halfClose();
    };
    receiver.onWake = pump;
    pump();
    await until(() => server !== undefined, 'the handler runs');
    await later(100);
    expect(blocked).toBe(true);
    expect(accepted).toBeLessThan(40);
    expect(received).toBeLessThan(3);
    server?.resume();
    await receiver.ended;
    expect(received).toBe(100);
    expect(receiver.events).toContain('drain');
  });

  test('cancelling a stream ends it once and stops the handler', async () => {
    let server: ServerStream | undefined;
    let cancels = 0;
    const feed = stream((given) => {
      server = given;
      given.onCancel(() => {
        cancels++;
      });
      given.write(bytes('first'));
    });
    const { connection } = await rig({ '/t.S/Feed': feed });
    const receiver = new Recorder();
    const sent = connection.stream('/t.S/Feed', {}, receiver);
    await receiver.count(1);
    sent.cancel();
    sent.cancel();
    const end = await receiver.ended;
    expect([end.code, end.notProcessed]).toEqual([1, false]);
    await until(() => cancels > 0, 'the handler was told');
    expect(server?.write(bytes('nobody listens'))).toBe(false);
    await later(20);
    expect(cancels).toBe(1);
    expect(receiver.events.filter((event) => event === 'end')).toHaveLength(1);
  });

  test('a cut connection ends its calls as unavailable and unknown, and only a new call or connect tries again', async () => {
    let running = 0;
    const hang = unary(() => {
      running++;
    });
    const { connection, cut } = await rig({ '/t.S/Hang': hang, '/t.S/Echo': echo });
    const states: string[] = [];
    connection.onState((state) => states.push(state));
    const receiver = new Recorder();
    const pending = [call(connection, '/t.S/Hang', ''), call(connection, '/t.S/Hang', '')];
    await until(() => running === 2, 'both handlers run');
    connection.stream('/t.S/Hang', {}, receiver).write(bytes(''));
    await until(() => running === 3, 'the stream runs');
    cut();
    for (const { end } of await Promise.all(pending)) expect([end.code, end.notProcessed]).toEqual([14, false]);
    expect((await receiver.ended).code).toBe(14);
    await until(() => connection.state === 'failed', 'failed');
    await later(200);
    expect(states).toEqual(['connecting', 'ready', 'failed']);
    expect((await call(connection, '/t.S/Echo', 'again')).end.code).toBe(0);
    expect(states).toEqual(['connecting', 'ready', 'failed', 'connecting', 'ready']);
  });

  test('connect makes the connection ready without a call, and again after it failed', async () => {
    const { connection, cut } = await rig({ '/t.S/Echo': echo });
    expect(connection.state).toBe('idle');
    connection.connect();
    await until(() => connection.state === 'ready', 'ready');
    cut();
    await until(() => connection.state === 'failed', 'failed');
    connection.connect();
    connection.connect();
    await until(() => connection.state === 'ready', 'ready again');
  });

  test('close ends every call as unavailable, says closed, and refuses what comes later', async () => {
    let running = 0;
    const { connection } = await rig({
      '/t.S/Hang': unary(() => {
        running++;
      }),
    });
    const states: string[] = [];
    const unsubscribe = connection.onState((state) => states.push(state));
    const pending = call(connection, '/t.S/Hang', '');
    await until(() => running === 1, 'the handler runs');
    connection.close();
    connection.close();
    expect(connection.state).toBe('closed');
    expect((await pending).end.code).toBe(14);
    const late = (await call(connection, '/t.S/Hang', '')).end;
    expect([late.code, late.notProcessed]).toEqual([14, true]);
    const receiver = new Recorder();
    connection.stream('/t.S/Hang', {}, receiver).write(bytes(''));
    expect((await receiver.ended).code).toBe(14);
    connection.connect();
    expect(connection.state).toBe('closed');
    expect(states).toEqual(['connecting', 'ready', 'closed']);
    unsubscribe();
    expect(running).toBe(1);
  });

  test('a ping is alive when anything answers, dead when nothing does in time', async () => {
    const { connection } = await rig({ '/grpc.health.v1.Health/Check': echo });
    expect(await new Promise((resolve) => connection.ping(2_000, resolve))).toBe(true);
    const without = await rig({ '/t.S/Echo': echo });
    expect(await new Promise((resolve) => without.connection.ping(2_000, resolve))).toBe(true);
    await without.closeServer(0);
    expect(await new Promise((resolve) => without.connection.ping(500, resolve))).toBe(false);
    connection.close();
    expect(await new Promise((resolve) => connection.ping(500, resolve))).toBe(false);
  });

  test('a closing server lets unary calls finish and ends streams with its reason', async () => {
    let finish: (() => void) | undefined;
    const slow = unary((request, _call, reply) => {
      finish = () => reply.send(request);
    });
    const feed = stream((given) => void given.write(bytes('first')));
    const { connection, closeServer } = await rig({ '/t.S/Slow': slow, '/t.S/Feed': feed });
    const receiver = new Recorder();
    connection.stream('/t.S/Feed', {}, receiver);
    await receiver.count(1);
    const pending = call(connection, '/t.S/Slow', 'finished');
    await until(() => finish !== undefined, 'the handler runs');
    let closed = false;
    const closing = closeServer(10_000).then(() => {
      closed = true;
    });
    const end = await receiver.ended;
    expect([end.code, end.message]).toEqual([14, 'server stopped']);
    await later(30);
    expect(closed).toBe(false);
    finish?.();
    expect(text((await pending).response)).toBe('finished');
    await closing;
    const refused = (await call(connection, '/t.S/Slow', '')).end;
    expect(refused.code).toBe(14);
  });

  test('a closing server gives up waiting after the grace', async () => {
    let running = 0;
    const { connection, closeServer } = await rig({
      '/t.S/Hang': unary(() => {
        running++;
      }),
    });
    const pending = call(connection, '/t.S/Hang', '');
    await until(() => running === 1, 'the handler runs');
    await closeServer(50);
    expect((await pending).end.code).toBe(14);
  });

  test('what the sender does to its bytes afterwards does not reach the peer', async () => {
    let kept: Uint8Array | undefined;
    const { connection } = await rig({
      '/t.S/Keep': unary((request, _call, reply) => {
        kept = request;
        reply.send(request);
        request.fill(0);
      }),
    });
    const request = bytes('original');
    const answer = call(connection, '/t.S/Keep', '');
    await answer;
    const second = await new Promise<Uint8Array | undefined>((resolve) =>
      connection.unary('/t.S/Keep', request, {}, (_end, response) => resolve(response)),
    );
    expect(text(request)).toBe('original');
    expect(kept).toBeDefined();
    expect(second).toHaveLength(8);
  });

  test('hundreds of calls at once all end', async () => {
    const { connection } = await rig({ '/t.S/Echo': echo });
    const answers = await Promise.all(Array.from({ length: 300 }, (_, n) => call(connection, '/t.S/Echo', `${n}`)));
    expect(answers.map((answer) => text(answer.response))).toEqual(Array.from({ length: 300 }, (_, n) => `${n}`));
  });
});
