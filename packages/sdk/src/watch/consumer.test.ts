import {
  KV,
  RangeRequest,
  RangeResponse,
  StatusCode,
  TxnRequest,
  TxnResponse,
  type WatchCreateRequest,
  WatchRequest,
  WatchResponse,
} from '@conclave/protocol';
import { type Delivery, prefix } from '@conclave/sdk';
import { type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { beforeEach, expect, test } from 'vitest';

let scripted: ScriptedClient;
/** What was written to the cursor. */
let cursors: string[];
let creates: WatchCreateRequest[];
let controller: AbortController;
let stored: { readonly value: string; readonly modRevision: number } | undefined;
let deliveries: Delivery[];

beforeEach(async () => {
  scripted = await scriptedClient();
  cursors = [];
  creates = [];
  deliveries = [];
  controller = new AbortController();
  stored = { value: '5 x', modRevision: 6 };
  scripted.script.onCall = (call) => {
    const header = { revision: 20 };
    if (call.path === KV.methods.range.path) {
      const kvs =
        stored === undefined ? [] : [{ key: Buffer.from('cursor'), value: Buffer.from(stored.value), modRevision: stored.modRevision }];
      call.reply(RangeResponse.encode({ header, kvs }));
    }
    if (call.path === KV.methods.txn.path) {
      const { success } = TxnRequest.decode(call.request);
      cursors.push(Buffer.from(success[0]?.requestPut?.value ?? []).toString());
      call.reply(TxnResponse.encode({ header, succeeded: true, responses: success.map(() => ({ responsePut: { header } })) }));
    }
  };
  scripted.script.onStream = (stream) => {
    stream.onWrite = (bytes) => {
      const { createRequest } = WatchRequest.decode(bytes);
      if (createRequest === undefined) return;
      creates.push(createRequest);
      stream.send(WatchResponse.encode({ header: { revision: 20 }, watchId: createRequest.watchId, created: true }));
    };
  };
});

const consume = () =>
  scripted.client.consume(prefix('in/'), { cursor: 'cursor', signal: controller.signal }, (delivery) => {
    deliveries.push(delivery);
    return [];
  });

const send = (stream: ScriptedStream, revision: number, keys: readonly string[] = []): void => {
  const events = keys.map((name) => ({ kv: { key: Buffer.from(`in/${name}`), modRevision: revision, version: 1 } }));
  stream.send(WatchResponse.encode({ header: { revision }, watchId: creates.at(-1)?.watchId, events }));
};

test('goes on after its cursor, and moves it with each revision', async () => {
  const done = consume();
  await scripted.runtime.advance(10);
  expect(creates[0]?.startRevision).toBe(6);
  send(scripted.script.stream, 9, ['a', 'b']);
  send(scripted.script.stream, 11, ['a']);
  await scripted.runtime.advance(10);
  expect(cursors.map((cursor) => cursor.split(' ')[0])).toEqual(['9', '11']);
  expect(deliveries.map((delivery) => delivery.type === 'events' && delivery.events.length)).toEqual([2, 1]);
  controller.abort();
  await scripted.runtime.run(done);
});

test('moves its cursor when the server says that nothing happened, so that it does not grow old', async () => {
  const done = consume();
  await scripted.runtime.advance(10);
  send(scripted.script.stream, 4_000);
  await scripted.runtime.advance(10);
  expect(cursors.map((cursor) => cursor.split(' ')[0])).toEqual(['4000']);
  expect(deliveries).toEqual([]);
  controller.abort();
  await scripted.runtime.run(done);
});

test('holds the server back while too much waits, and not for ever', async () => {
  let release: (() => void) | undefined;
  const done = scripted.client.consume(prefix('in/'), { cursor: 'cursor', eventsMax: 400, signal: controller.signal }, async (delivery) => {
    deliveries.push(delivery);
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    return [];
  });
  await scripted.runtime.advance(10);
  for (let revision = 7; revision < 1_208; revision++) send(scripted.script.stream, revision, ['a']);
  await scripted.runtime.advance(10);
  expect(scripted.script.streams.at(-1)?.isPaused).toBe(true);
  for (let round = 0; round < 4; round++) {
    release?.();
    await scripted.runtime.advance(10);
  }
  expect(scripted.script.streams.at(-1)?.isPaused).toBe(false);
  controller.abort();
  release?.();
  await scripted.runtime.run(done);
});

test('told to stop while its body runs, it writes nothing more', async () => {
  let release: (() => void) | undefined;
  const done = scripted.client.consume(prefix('in/'), { cursor: 'cursor', signal: controller.signal }, async (_, signal) => {
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    expect(signal.aborted).toBe(true);
    return [];
  });
  await scripted.runtime.advance(10);
  send(scripted.script.stream, 9, ['a']);
  await scripted.runtime.advance(10);
  controller.abort();
  release?.();
  await scripted.runtime.run(done);
  expect(cursors).toEqual([]);
});

test('a move that is in doubt is sent again, and finds its own words', async () => {
  const { onCall } = scripted.script;
  let attempts = 0;
  scripted.script.onCall = (call) => {
    if (call.path !== KV.methods.txn.path) return onCall(call);
    attempts++;
    const value = TxnRequest.decode(call.request).success[0]?.requestPut?.value;
    const kvs = [{ key: Buffer.from('cursor'), value, modRevision: 12 }];
    if (attempts < 3) call.end(StatusCode.UNAVAILABLE, { message: 'connection lost' });
    else call.reply(TxnResponse.encode({ header: { revision: 13 }, succeeded: false, responses: [{ responseRange: { kvs } }] }));
  };
  const done = consume();
  await scripted.runtime.advance(10);
  send(scripted.script.stream, 9, ['a']);
  await scripted.runtime.advance(2_000);
  expect(attempts).toBe(3);
  // The next one stands on those words, not on the revision at which they were found.
  send(scripted.script.stream, 10, ['a']);
  await scripted.runtime.advance(10);
  expect(TxnRequest.decode(scripted.script.calls.at(-1)?.request ?? new Uint8Array()).compare[0]).toMatchObject({ modRevision: 12 });
  controller.abort();
  await scripted.runtime.run(done);
});

test('says in the log why it does not get on, once for each reason', async () => {
  const lines: object[] = [];
  const warn = (fields: object, message: string): void => void lines.push({ ...fields, message });
  const { onCall, onStream } = scripted.script;
  scripted = await scriptedClient({ log: { debug() {}, info() {}, error() {}, warn } });
  const causes = [
    ...Array.from({ length: 5 }, () => ({ code: StatusCode.RESOURCE_EXHAUSTED, message: 'etcdserver: mvcc: database space exceeded' })),
    ...Array.from({ length: 2 }, () => ({ code: StatusCode.UNAVAILABLE, message: 'connection lost' })),
  ];
  scripted.script.onStream = onStream;
  scripted.script.onCall = (call) => {
    const cause = call.path === KV.methods.txn.path ? causes.shift() : undefined;
    if (cause === undefined) onCall(call);
    else call.end(cause.code, cause);
  };
  const done = consume();
  await scripted.runtime.advance(10);
  send(scripted.script.stream, 9, ['a']);
  await scripted.runtime.runUntil(() => cursors.length === 1);
  const message = 'a consumer cannot move its cursor; trying again';
  expect(lines).toMatchObject(['no-space', 'unavailable'].map((code) => ({ err: { code }, cursor: 'cursor', message })));
  controller.abort();
  await scripted.runtime.run(done);
});

test.each([
  ['by another consumer', 12, 'cursor-moved'],
  ['by nobody: then a guard stands against it', 6, 'guard-failed'],
])('a cursor that was written %s ends it', async (_, modRevision, code) => {
  const { onCall } = scripted.script;
  scripted.script.onCall = (call) => {
    if (call.path !== KV.methods.txn.path) return onCall(call);
    const kvs = [{ key: Buffer.from('cursor'), value: Buffer.from('9 other'), modRevision }];
    call.reply(TxnResponse.encode({ header: { revision: 13 }, succeeded: false, responses: [{ responseRange: { kvs } }] }));
  };
  const done = consume();
  const ended = expect(done).rejects.toMatchObject({ code, outcome: 'not-applied' });
  await scripted.runtime.advance(10);
  send(scripted.script.stream, 9, ['a']);
  await scripted.runtime.advance(10);
  await ended;
});

test.each([
  ['by another consumer', 12, 'cursor-moved'],
  ['by nobody', 6, 'guard-failed'],
])('a move that is in doubt may have been done, though the cursor was written %s then', async (_, modRevision, code) => {
  const { onCall } = scripted.script;
  let attempts = 0;
  scripted.script.onCall = (call) => {
    if (call.path !== KV.methods.txn.path) return onCall(call);
    const kvs = [{ key: Buffer.from('cursor'), value: Buffer.from('9 other'), modRevision }];
    if (++attempts === 1) call.end(StatusCode.UNAVAILABLE, { message: 'connection lost' });
    else call.reply(TxnResponse.encode({ header: { revision: 13 }, succeeded: false, responses: [{ responseRange: { kvs } }] }));
  };
  const done = consume();
  const ended = expect(done).rejects.toMatchObject({ code, outcome: 'unknown' });
  await scripted.runtime.advance(10);
  send(scripted.script.stream, 9, ['a']);
  await scripted.runtime.advance(2_000);
  await ended;
});

test('the same events have the same revision, whatever the server said of the time after them', async () => {
  const release: (() => void)[] = [];
  const done = scripted.client.consume(prefix('in/'), { cursor: 'cursor', eventsMax: 10, signal: controller.signal }, async (delivery) => {
    deliveries.push(delivery);
    await new Promise<void>((resolve) => release.push(resolve));
    return [];
  });
  await scripted.runtime.advance(10);
  send(scripted.script.stream, 9, ['a']);
  await scripted.runtime.advance(10);
  // While the first is in hand.
  send(scripted.script.stream, 11, ['a']);
  send(scripted.script.stream, 11);
  send(scripted.script.stream, 30);
  await scripted.runtime.advance(10);
  for (let nth = 0; nth < 2; nth++) {
    release[nth]?.();
    await scripted.runtime.advance(10);
  }
  expect(deliveries.map(({ revision }) => revision)).toEqual([9n, 11n]);
  expect(cursors.map((cursor) => cursor.split(' ')[0])).toEqual(['9', '11', '30']);
  controller.abort();
  await scripted.runtime.run(done);
});

test('reads what there is page by page, and begins again when that is compacted meanwhile', async () => {
  stored = undefined;
  const { onCall } = scripted.script;
  let pages = 0;
  scripted.script.onCall = (call) => {
    if (call.path !== KV.methods.range.path || RangeRequest.decode(call.request).rangeEnd.length === 0) return onCall(call);
    pages++;
    const kvs = [{ key: Buffer.from(`in/${pages}`), value: Buffer.from('v'), modRevision: 3 }];
    if (pages === 2) call.end(11, { message: 'etcdserver: mvcc: required revision has been compacted' });
    else call.reply(RangeResponse.encode({ header: { revision: 20 }, kvs, more: pages === 1 || pages === 3 }));
  };
  const done = consume();
  await scripted.runtime.advance(10);
  expect(deliveries.map((delivery) => delivery.type === 'resync' && delivery.kvs.map(({ key }) => key))).toEqual([['in/3', 'in/4']]);
  controller.abort();
  await scripted.runtime.run(done);
});
