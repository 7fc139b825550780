import { AsyncLocalStorage } from 'node:async_hooks';
import { PutResponse, RangeResponse, RangeStreamResponse, WatchRequest, WatchResponse } from '@conclave/protocol';
import { type CallAttempt, type CallReport, type InterceptedCall, type Logger, type Middleware, prefix, put } from '@conclave/sdk';
import { type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const written = PutResponse.encode({ header: { revision: 7 } });
const found = RangeResponse.encode({ header: { revision: 7 } });
const unavailable = 14;

/** What a middleware that lets everything pass was told. */
interface Seen {
  readonly calls: InterceptedCall[];
  readonly attempts: CallAttempt[];
  readonly reports: CallReport[];
  readonly middleware: Middleware;
}

function observer(): Seen {
  const seen: Seen = {
    calls: [],
    attempts: [],
    reports: [],
    middleware: (call, next) => {
      seen.calls.push(call);
      call.onAttempt((attempt) => seen.attempts.push(attempt));
      call.onEnd((report) => seen.reports.push(report));
      next();
    },
  };
  return seen;
}

async function answering(middleware: readonly Middleware[]): Promise<ScriptedClient> {
  const scripted = await scriptedClient({ middleware });
  scripted.script.onCall = (call) => call.reply(call.path.endsWith('/Range') ? found : written);
  return scripted;
}

const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => expect.unreachable('it resolved'),
    (error: unknown) => error,
  );

describe('a call is seen', () => {
  test('with its method, its key as it is sent, its time, and how it ended', async () => {
    const seen = observer();
    const { runtime, client } = await answering([seen.middleware]);
    await runtime.run(client.namespace('app/').put('k', 'v', { deadlineMs: 300 }));
    const [call] = seen.calls;
    expect(call).toMatchObject({
      kind: 'unary',
      service: 'etcdserverpb.KV',
      method: 'Put',
      rangeEnd: undefined,
      isRepeatable: false,
      deadlineMs: 300,
    });
    expect(Buffer.from(call?.key ?? []).toString()).toBe('app/k');
    expect(seen.attempts).toEqual([{ number: 1, endpoint: 'a:1' }]);
    expect(seen.reports).toEqual([{ code: 'ok', outcome: undefined, error: undefined, attempts: 1, endpoint: 'a:1' }]);
  });

  test('with the range it asks for', async () => {
    const seen = observer();
    const { runtime, client } = await answering([seen.middleware]);
    await runtime.run(client.list(prefix('config/')));
    const [call] = seen.calls;
    expect(call).toMatchObject({ method: 'Range', isRepeatable: true, deadlineMs: 5_000 });
    expect(Buffer.from(call?.key ?? []).toString()).toBe('config/');
    expect(Buffer.from(call?.rangeEnd ?? []).toString()).toBe('config0');
  });

  test('without a key when it has several, and never with a value', async () => {
    const seen = observer();
    const { runtime, client } = await answering([seen.middleware]);
    await runtime.run(client.txn().then(put('k', 'secret'), put('l', 'secret')).commit());
    await runtime.run(client.put('k', 'secret'));
    expect(seen.calls.map(({ key }) => key && Buffer.from(key).toString())).toEqual([undefined, 'k']);
    for (const call of seen.calls) {
      const shown = Object.values(call).map((value) => (value instanceof Uint8Array ? Buffer.from(value).toString() : String(value)));
      expect(shown.join()).not.toContain('secret');
    }
  });

  test('with each attempt, and why the one before was not the last', async () => {
    const seen = observer();
    const { runtime, client, script } = await answering([seen.middleware]);
    let failures = 2;
    script.onCall = (call) => (failures-- > 0 ? call.end(unavailable, { message: 'etcdserver: no leader' }) : call.reply(found));
    await runtime.run(client.get('k'));
    const after = { grpcCode: unavailable, message: 'etcdserver: no leader' };
    expect(seen.attempts).toEqual([
      { number: 1, endpoint: 'a:1' },
      { number: 2, endpoint: 'a:1', after },
      { number: 3, endpoint: 'a:1', after },
    ]);
    expect(seen.reports).toMatchObject([{ code: 'ok', attempts: 3 }]);
  });

  test('as failed, with what the caller is told', async () => {
    const seen = observer();
    const { runtime, client, script } = await answering([seen.middleware]);
    script.onCall = (call) => call.end(unavailable, { message: 'etcdserver: leader changed' });
    const error = await failure(runtime.run(client.put('k', 'v')));
    expect(error).toMatchObject({ outcome: 'unknown' });
    expect(seen.reports).toEqual([{ code: 'leader-changed', outcome: 'unknown', error, attempts: 1, endpoint: 'a:1' }]);
  });

  test('as failed when it was never sent', async () => {
    const seen = observer();
    const { runtime, client, script } = await answering([seen.middleware]);
    script.reach = () => false;
    script.cut();
    await failure(runtime.run(client.put('k', 'v', { deadlineMs: 100 })));
    expect(seen.reports).toMatchObject([{ code: 'unavailable', outcome: 'not-applied', attempts: 0, endpoint: undefined }]);
  });

  test('as ended before its caller goes on', async () => {
    const order: string[] = [];
    const { runtime, client } = await answering([
      (call, next) => {
        call.onEnd(() => order.push('told'));
        next();
      },
    ]);
    await runtime.run(client.put('k', 'v').then(() => order.push('resolved')));
    expect(order).toEqual(['told', 'resolved']);
  });
});

describe('middleware', () => {
  test('stands in the order given, and is told of the end in the opposite one', async () => {
    const order: string[] = [];
    const named =
      (name: string): Middleware =>
      (call, next) => {
        order.push(name);
        call.onEnd(() => order.push(`${name} ended`));
        next();
      };
    const { runtime, client } = await answering([named('first'), named('second')]);
    await runtime.run(client.put('k', 'v'));
    expect(order).toEqual(['first', 'second', 'second ended', 'first ended']);
  });

  test('may hold a call back for a while', async () => {
    const { runtime, client, script } = await answering([(_, next) => void runtime.timer(250, next)]);
    await runtime.run(client.put('k', 'v'));
    expect(script.call.at).toBe(250);
  });

  test('may be asynchronous', async () => {
    const gate = gateOf();
    const { runtime, client, script } = await answering([
      async (_, next) => {
        await gate.promise;
        next();
      },
    ]);
    const promise = client.put('k', 'v');
    await runtime.advance(100);
    expect(script.calls).toHaveLength(0);
    gate.resolve();
    await runtime.run(promise);
    expect(script.calls).toHaveLength(1);
  });

  test('that holds a call back for too long has it fail at its deadline, never sent', async () => {
    let letPass = (): void => {};
    const { runtime, client, script } = await answering([
      (_, next) => {
        letPass = next;
      },
    ]);
    const error = await failure(runtime.run(client.put('k', 'v', { deadlineMs: 300 })));
    expect(error).toMatchObject({ code: 'deadline-exceeded', outcome: 'not-applied' });
    expect(runtime.monotonic()).toBe(300);
    letPass();
    await runtime.advance(10);
    expect(script.calls).toHaveLength(0);
  });

  test('that lets a call pass too late has nobody behind it begin with it', async () => {
    const seen = observer();
    let letPass = (): void => {};
    const holding: Middleware = (_, next) => {
      letPass = next;
    };
    const { runtime, client } = await answering([holding, seen.middleware]);
    await failure(runtime.run(client.put('k', 'v', { deadlineMs: 300 })));
    letPass();
    expect(seen.calls).toEqual([]);
  });

  test('that fails when its call is over is told of in the log', async () => {
    const told: [unknown, string][] = [];
    const { promise, resolve } = gateOf();
    const { runtime, client } = await scriptedClient({
      log: { ...silent, warn: (fields, message) => told.push([fields, message]) },
      middleware: [
        async () => {
          await promise;
          throw new Error('too late');
        },
      ],
    });
    await failure(runtime.run(client.put('k', 'v', { deadlineMs: 300 })));
    expect(told).toEqual([]);
    resolve();
    await runtime.advance(1);
    expect(told).toEqual([[{ err: new Error('too late'), method: 'Put' }, 'a middleware failed that held a call back until it was over']]);
  });

  test('learns the end of a call that it asks about too late, and may ask while it is told', async () => {
    const order: string[] = [];
    let passed: InterceptedCall | undefined;
    const { runtime, client } = await answering([
      (call, next) => {
        passed = call;
        call.onAttempt(() => call.onAttempt(() => order.push('another attempt')));
        call.onEnd(() => call.onEnd(({ code }) => order.push(`asked while told: ${code}`)));
        next();
      },
    ]);
    await runtime.run(client.put('k', 'v'));
    passed?.onEnd(({ code }) => order.push(`asked too late: ${code}`));
    expect(order).toEqual(['asked while told: ok', 'asked too late: ok']);
  });

  test('may give back what it likes', async () => {
    // Not so in TypeScript, but easily written without it.
    const timed: unknown = (_: unknown, next: () => void) => runtime.timer(5, next);
    const { runtime, client, script } = await answering([timed as Middleware]);
    await runtime.run(client.put('k', 'v'));
    expect(script.calls).toHaveLength(1);
  });

  test('holds nothing up when the caller gives up, or the client closes', async () => {
    const { runtime, client, script } = await answering([() => {}]);
    const controller = new AbortController();
    const given = failure(client.put('k', 'v', { signal: controller.signal }));
    controller.abort();
    expect(await runtime.run(given)).toMatchObject({ code: 'cancelled', outcome: 'not-applied' });
    const waiting = failure(client.put('k', 'v'));
    await client.close();
    expect(await runtime.run(waiting)).toMatchObject({ code: 'client-closed', outcome: 'not-applied' });
    expect(script.calls).toHaveLength(0);
  });

  test.each([
    [
      'by throwing',
      (why: unknown): Middleware =>
        () => {
          throw why;
        },
    ],
    [
      'by rejecting',
      (why: unknown): Middleware =>
        async () => {
          await Promise.resolve();
          throw why;
        },
    ],
  ])('refuses a call %s, and nothing is sent', async (_how, refusing) => {
    const why = new Error('this service only reads');
    const seen = observer();
    const { runtime, client, script } = await answering([seen.middleware, refusing(why)]);
    const error = await failure(runtime.run(client.put('k', 'v')));
    expect(error).toMatchObject({ code: 'refused', outcome: 'not-applied', cause: why });
    expect((error as Error).message).toContain('this service only reads');
    expect(script.calls).toHaveLength(0);
    expect(seen.reports).toMatchObject([{ code: 'refused', attempts: 0 }]);
  });

  test('cannot change what became of a call: what it throws afterwards is logged', async () => {
    const lines: object[] = [];
    const log = { debug() {}, info() {}, warn: (fields: object) => void lines.push(fields), error() {} };
    const late = new Error('too late');
    const { runtime, client, script } = await scriptedClient({
      log,
      middleware: [
        (call, next) => {
          call.onAttempt(() => {
            throw late;
          });
          call.onEnd(() => {
            throw late;
          });
          next();
          next();
          throw late;
        },
        async (_, next) => {
          next();
          throw late;
        },
      ],
    });
    script.onCall = (call) => call.reply(written);
    expect((await runtime.run(client.put('k', 'v'))).revision).toBe(7n);
    expect(script.calls).toHaveLength(1);
    expect(lines).toEqual(Array.from({ length: 4 }, () => ({ err: late, method: 'Put' })));
  });

  test('adds metadata, and none that the client sends itself', async () => {
    const { runtime, client, script } = await scriptedClient({
      credentials: { username: 'ann', password: 'x' },
      lazy: true,
      middleware: [
        (call, next) => {
          call.setMetadata('x-team', 'coordination');
          call.setMetadata('token', 'mine');
          call.onAttempt(({ number }) => call.setMetadata('x-attempt', String(number)));
          next();
        },
      ],
    });
    let failures = 1;
    script.onCall = (call) => {
      if (call.path.endsWith('/Authenticate')) call.reply(Buffer.from([0x12, 1, 0x74]));
      else if (failures-- > 0) call.end(unavailable);
      else call.reply(found);
    };
    await runtime.run(client.get('k'));
    const sent = script.calls.filter((call) => call.path.endsWith('/Range')).map((call) => call.options.metadata);
    expect(sent).toEqual([
      { 'x-team': 'coordination', token: 't', 'x-attempt': '1' },
      { 'x-team': 'coordination', token: 't', 'x-attempt': '2' },
    ]);
  });

  test.each([
    ['X-Upper', 'v'],
    ['', 'v'],
    ['grpc-timeout', '1'],
    ['raw-bin', 'v'],
    ['ok', 'línea'],
    ['ok', 'two\nlines'],
    ['ok', 5 as unknown as string],
    ['ok', undefined as unknown as string],
    [5 as unknown as string, 'v'],
    ['connection', 'close'],
    ['content-length', '5'],
    ['content-type', 'text/html'],
    ['te', 'gzip'],
  ])('cannot add metadata %j: %j', async (name, value) => {
    const { runtime, client, script } = await answering([
      (call, next) => {
        call.setMetadata(name, value);
        next();
      },
    ]);
    const error = await failure(runtime.run(client.get('k')));
    expect(error).toMatchObject({ code: 'refused', cause: { code: 'invalid-argument' } });
    expect(script.calls).toHaveLength(0);
  });

  test('passes its asynchronous context on to what it stands around, and has that of the caller', async () => {
    const storage = new AsyncLocalStorage<string>();
    const stores: (string | undefined)[] = [];
    const note: Middleware = (_, next) => {
      stores.push(storage.getStore());
      next();
    };
    const { runtime, client } = await answering([note, (_, next) => storage.run('inner', next), note]);
    await runtime.run(storage.run('caller', () => client.put('k', 'v')));
    expect(stores).toEqual(['caller', 'inner']);
  });
});

test('what is no function is no middleware', async () => {
  await expect(scriptedClient({ middleware: ['log' as unknown as Middleware] })).rejects.toMatchObject({ code: 'invalid-argument' });
});

describe('a stream', () => {
  /** Serves any watch. */
  const serve = ({ script }: ScriptedClient): void => {
    script.onCall = (call) => call.reply(found);
    script.onStream = (stream) => {
      stream.onWrite = (bytes) => {
        const { createRequest } = WatchRequest.decode(bytes);
        if (createRequest !== undefined) stream.send(WatchResponse.encode({ watchId: createRequest.watchId, created: true }));
      };
    };
  };

  test('is seen from its opening to its end, and its repetition as another', async () => {
    const seen = observer();
    const scripted = await scriptedClient({ middleware: [seen.middleware] });
    serve(scripted);
    const { client, runtime, script } = scripted;
    const subscription = client.watch('k', { startRevision: 5n }).subscribe();
    await runtime.advance(10);
    expect(seen.calls).toMatchObject([
      { kind: 'stream', service: 'etcdserverpb.Watch', method: 'Watch', deadlineMs: Number.POSITIVE_INFINITY },
    ]);
    expect(seen.attempts).toEqual([{ number: 1, endpoint: 'a:1' }]);
    script.stream.end(unavailable, { message: 'connection lost' });
    await runtime.advance(100);
    expect(seen.reports).toMatchObject([{ code: 'unavailable', attempts: 1, endpoint: 'a:1' }]);
    expect(seen.calls).toHaveLength(2);
    subscription.unsubscribe();
    expect(seen.reports).toMatchObject([{ code: 'unavailable' }, { code: 'ok' }]);
  });

  test('is refused to its watches, and to nobody else', async () => {
    const scripted = await scriptedClient({
      middleware: [
        (call, next) => {
          if (call.method === 'Watch') throw new Error('no watches here');
          next();
        },
      ],
    });
    serve(scripted);
    const { client, runtime, script } = scripted;
    const errors: unknown[] = [];
    client.watch('k', { startRevision: 5n }).subscribe({ error: (error) => errors.push(error) });
    await runtime.advance(10);
    expect(errors).toMatchObject([{ code: 'refused' }]);
    expect(script.streams).toHaveLength(0);
    await runtime.run(client.get('k'));
  });

  test('that is held back opens when it may, and not after its last watch', async () => {
    const held: (() => void)[] = [];
    const ends: string[] = [];
    const hold: Middleware = (call, next) => {
      call.onEnd(({ code, attempts }) => ends.push(`${code} after ${attempts}`));
      held.push(next);
    };
    const scripted = await scriptedClient({ middleware: [hold] });
    serve(scripted);
    const { client, runtime, script } = scripted;
    const first = client.watch('k', { startRevision: 5n }).subscribe();
    await runtime.advance(1_000);
    expect(script.streams).toHaveLength(0);
    first.unsubscribe();
    expect(ends).toEqual(['ok after 0']);
    held.shift()?.();
    await runtime.advance(10);
    expect(script.streams).toHaveLength(0);
    client.watch('k', { startRevision: 5n }).subscribe();
    held.shift()?.();
    await runtime.advance(10);
    expect(script.streams).toHaveLength(1);
    await client.close();
  });

  test('that renews leases is tried again when it is refused', async () => {
    let refusals = 2;
    const seen = observer();
    const { client, runtime, script } = await scriptedClient({
      middleware: [
        seen.middleware,
        (call, next) => {
          if (call.method === 'LeaseKeepAlive' && refusals-- > 0) throw new Error('not yet');
          next();
        },
      ],
    });
    script.onCall = (call) => call.reply(Buffer.from([0x10, 1, 0x18, 10]));
    const lease = await runtime.run(client.lease.grant({ ttlSeconds: 10 }));
    await runtime.advance(2_000);
    expect(script.streams).toHaveLength(1);
    expect(lease.state).toBe('held');
    expect(seen.reports.map(({ code }) => code)).toEqual(['ok', 'refused', 'refused']);
    await client.close();
  });

  test('of a range or a snapshot carries metadata, and is refused as a whole', async () => {
    const { client, runtime, script } = await scriptedClient({
      middleware: [
        (call, next) => {
          call.setMetadata('x-team', 'coordination');
          if (call.method === 'Snapshot') throw new Error('no snapshots here');
          next();
        },
      ],
    });
    const page = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('k') }], more: true, count: 2 });
    const last = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('l') }], count: 1 });
    script.onCall = (call) => call.reply(script.calls.length === 1 ? page : last);
    script.onStream = (stream) => stream.end(12, { message: 'unknown method RangeStream' });
    const keys: string[] = [];
    const scan = async (): Promise<void> => {
      for await (const { key } of client.scan(prefix(''))) keys.push(key);
    };
    await runtime.run(scan());
    expect(keys).toEqual(['k', 'l']);
    expect(script.stream).toMatchObject({ path: '/etcdserverpb.KV/RangeStream', options: { metadata: { 'x-team': 'coordination' } } });
    const snapshot = async (): Promise<void> => {
      for await (const _ of client.maintenance.at('a:1').snapshot()) expect.unreachable();
    };
    expect(await failure(runtime.run(snapshot()))).toMatchObject({ code: 'refused', outcome: 'not-applied' });
    expect(script.streams).toHaveLength(1);
  });

  test('of a range that is held back opens later', async () => {
    const { client, runtime, script } = await scriptedClient({
      middleware: [(call, next) => (call.method === 'RangeStream' ? void runtime.timer(300, next) : next())],
    });
    const page = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('k') }], more: true, count: 2 });
    script.onCall = (call) => call.reply(page);
    script.onStream = (stream) => {
      const rangeResponse = { header: { revision: 7 }, kvs: [{ key: Buffer.from('l') }], count: 1 };
      stream.send(RangeStreamResponse.encode({ rangeResponse }));
      stream.end(0);
    };
    const keys: string[] = [];
    const scan = async (): Promise<void> => {
      for await (const { key } of client.scan(prefix(''))) keys.push(key);
    };
    await runtime.run(scan());
    expect(keys).toEqual(['k', 'l']);
    expect(script.stream.at).toBe(300);
    expect(script.calls).toHaveLength(1);
  });

  test('of a range that its reader leaves has ended well', async () => {
    const seen = observer();
    const { client, runtime, script } = await scriptedClient({ middleware: [seen.middleware] });
    const page = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('k') }], more: true, count: 3 });
    script.onCall = (call) => call.reply(page);
    script.onStream = (stream) => stream.send(RangeStreamResponse.encode({ rangeResponse: { kvs: [{ key: Buffer.from('l') }] } }));
    const scan = async (): Promise<string> => {
      for await (const { key } of client.scan(prefix(''))) if (key === 'l') return key;
      return 'nothing';
    };
    expect(await runtime.run(scan())).toBe('l');
    await runtime.advance(10);
    expect(seen.reports.map(({ code }) => code)).toEqual(['ok', 'ok']);
    expect(seen.calls.map(({ method }) => method)).toEqual(['Range', 'RangeStream']);
  });

  test('of a snapshot that is held back for too long fails at its deadline', async () => {
    const left: number[] = [];
    const { client, runtime, script } = await scriptedClient({ middleware: [({ deadlineMs }) => void left.push(deadlineMs)] });
    const snapshot = async (): Promise<void> => {
      for await (const _ of client.maintenance.at('a:1').snapshot({ deadlineMs: 300 })) expect.unreachable();
    };
    expect(await failure(runtime.run(snapshot()))).toMatchObject({ code: 'deadline-exceeded', outcome: 'not-applied' });
    expect(runtime.monotonic()).toBe(300);
    expect(left).toEqual([300]);
    expect(script.streams).toHaveLength(0);
  });

  test('of a range that is refused is read in pages', async () => {
    const seen = observer();
    const { client, runtime, script } = await scriptedClient({
      middleware: [
        seen.middleware,
        (call, next) => {
          if (call.method === 'RangeStream') throw new Error('no streams here');
          next();
        },
      ],
    });
    const page = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('k') }], more: true, count: 2 });
    const last = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('l') }], count: 1 });
    script.onCall = (call) => call.reply(script.calls.length === 1 ? page : last);
    const keys: string[] = [];
    const scan = async (): Promise<void> => {
      for await (const { key } of client.scan(prefix(''))) keys.push(key);
    };
    await runtime.run(scan());
    expect(keys).toEqual(['k', 'l']);
    expect(seen.reports.map(({ code }) => code)).toEqual(['ok', 'refused', 'ok']);
  });
});

function gateOf(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
