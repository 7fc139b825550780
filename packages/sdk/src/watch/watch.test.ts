import { RangeRequest, RangeResponse } from '@conclave/protocol';
import { allKeys, prefix, type WatchCreated, type WatchEvent, type WatchOptions, type WatchProgress } from '@conclave/sdk';
import { type ScriptedClient, type ScriptedStream, ScriptedWatches, scriptedClient } from '@conclave/testkit';
import { firstValueFrom, take, toArray } from 'rxjs';
import { beforeEach, describe, expect, test } from 'vitest';

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

let scripted: ScriptedClient;

beforeEach(async () => {
  scripted = await scriptedClient();
});

/** Subscribes, and records what comes. */
function follow(options: WatchOptions = { startRevision: 5 }, target = prefix('k')) {
  const seen: (WatchEvent | WatchCreated | WatchProgress)[] = [];
  const record = { seen, error: undefined as unknown, isComplete: false, unsubscribe: () => {} };
  const subscription = scripted.client.watch(target, options).subscribe({
    next: (event) => void seen.push(event),
    error: (error: unknown) => {
      record.error = error;
    },
    complete: () => {
      record.isComplete = true;
    },
  });
  record.unsubscribe = () => subscription.unsubscribe();
  return record;
}

const revisions = (record: { seen: readonly { revision: bigint }[] }): number[] => record.seen.map((event) => Number(event.revision));

/** Waits for the n-th stream and its first creation. */
async function stream(n = 1) {
  const { runtime, script } = scripted;
  await runtime.runUntil(() => (script.streams[n - 1]?.written.length ?? 0) > 0);
  return new ScriptedWatches(script.streams[n - 1] as ScriptedStream);
}

const settle = (): Promise<void> => scripted.runtime.advance(0);

async function reconnected(n: number) {
  scripted.script.cut();
  return stream(n);
}

describe('starting', () => {
  test('a start revision goes to the server as given, with what else was asked for', async () => {
    follow({ startRevision: 5n, prevKv: true, ignore: 'delete', progressNotify: true });
    const server = await stream();
    expect(server.creates()).toMatchObject([
      { key: bytes('k'), rangeEnd: bytes('l'), startRevision: 5, prevKv: true, filters: [1], progressNotify: true, fragment: true },
    ]);
    expect(scripted.script.calls).toHaveLength(0);
  });

  test('the stream asks for a member that has a leader', async () => {
    follow();
    const server = await stream();
    expect(server.stream.options.metadata).toEqual({ hasleader: 'true' });
  });

  test('from now is resolved by one linearizable read, and starts after it', async () => {
    scripted.script.onCall = (call) => call.reply(RangeResponse.encode({ header: { revision: 41 } }));
    follow({});
    const server = await stream();
    expect(scripted.script.calls).toHaveLength(1);
    expect(RangeRequest.decode(scripted.script.call.request)).toMatchObject({ key: bytes('k'), rangeEnd: bytes(''), serializable: false });
    expect(server.creates()[0]?.startRevision).toBe(42);
  });

  test('a stream that breaks before anything was told starts at the same revision', async () => {
    scripted.script.onCall = (call) => call.reply(RangeResponse.encode({ header: { revision: 41 } }));
    follow({});
    await stream();
    scripted.script.onCall = () => expect.unreachable('it reads once');
    expect((await reconnected(2)).creates()[0]?.startRevision).toBe(42);
  });

  test('a read that is refused ends the watch', async () => {
    scripted.script.onCall = (call) => call.end(7, { message: 'etcdserver: permission denied' });
    const record = follow({});
    await scripted.runtime.runUntil(() => record.error !== undefined);
    expect(record.error).toMatchObject({ code: 'permission-denied' });
  });

  test('the creation is told if asked for, once, with the revision before the first', async () => {
    const record = follow({ startRevision: 5, notifyCreated: true });
    (await stream()).created();
    await settle();
    (await reconnected(2)).created();
    await settle();
    expect(record.seen).toEqual([{ type: 'created', revision: 4n }]);
  });

  test('nothing happens before a subscription', async () => {
    scripted.client.watch('k');
    await scripted.runtime.advance(1_000);
    expect(scripted.script.streams).toHaveLength(0);
    expect(scripted.script.calls).toHaveLength(0);
  });

  test('each subscription is a watch of its own, on the same stream', async () => {
    const watch = scripted.client.watch('k', { startRevision: 5 });
    watch.subscribe();
    watch.subscribe();
    const server = await stream();
    expect(server.creates().map(({ watchId }) => watchId)).toEqual([1n, 2n]);
    expect(scripted.script.streams).toHaveLength(1);
  });
});

test('a thousand watches share a stream; the next opens another, and one that comes when there is room does not', async () => {
  const records = Array.from({ length: 1_001 }, () => follow());
  expect((await stream(1)).creates()).toHaveLength(1_000);
  expect((await stream(2)).creates()).toHaveLength(1);
  records[0]?.unsubscribe();
  follow();
  await settle();
  expect((await stream(1)).creates()).toHaveLength(1_001);
  expect(scripted.script.streams).toHaveLength(2);
});

describe('going on after a break', () => {
  test('starts after the last event, not after the revision in a header', async () => {
    const record = follow();
    const server = await stream();
    server.created(0, 4_000);
    server.events([{ revision: 5 }, { revision: 6 }], { revision: 4_000 });
    await settle();
    expect((await reconnected(2)).creates()[0]?.startRevision).toBe(7);
    expect(revisions(record)).toEqual([5, 6]);
  });

  test('never moves for the answer to the creation', async () => {
    follow();
    (await stream()).created(0, 4_000);
    await settle();
    expect((await reconnected(2)).creates()[0]?.startRevision).toBe(5);
  });

  test('moves past a progress notification', async () => {
    follow();
    const server = await stream();
    server.created();
    server.progress(50);
    await settle();
    expect((await reconnected(2)).creates()[0]?.startRevision).toBe(51);
  });

  test('does not move back for the progress of a store that has not reached the start', async () => {
    follow({ startRevision: 500 });
    const server = await stream();
    server.created();
    server.progress(50);
    await settle();
    expect((await reconnected(2)).creates()[0]?.startRevision).toBe(500);
  });

  test('counts fragments as one: a batch of which a part came is asked for again', async () => {
    const record = follow();
    const server = await stream();
    server.created();
    server.events([{ revision: 5, key: 'k1' }], { fragment: true });
    server.events([{ revision: 5, key: 'k2' }], { fragment: true });
    await settle();
    expect(record.seen).toEqual([]);
    const next = await reconnected(2);
    expect(next.creates()[0]?.startRevision).toBe(5);
    next.created();
    next.events([{ revision: 5, key: 'k1' }], { fragment: true });
    next.events([{ revision: 5, key: 'k2' }], { fragment: true });
    next.events([{ revision: 5, key: 'k3' }]);
    await settle();
    expect(record.seen.map((event) => 'key' in event && event.key)).toEqual(['k1', 'k2', 'k3']);
  });

  test('tells the whole revisions of an unfinished batch, and goes on after them', async () => {
    const record = follow();
    const server = await stream();
    server.created();
    server.events([{ revision: 5 }, { revision: 6, key: 'k1' }], { fragment: true });
    await settle();
    expect(revisions(record)).toEqual([5]);
    server.events([{ revision: 6, key: 'k2' }, { revision: 7 }], { fragment: true });
    await settle();
    expect(revisions(record)).toEqual([5, 6, 6]);
    expect((await reconnected(2)).creates()[0]?.startRevision).toBe(7);
  });

  test('takes every watch of the stream along, each from where it is', async () => {
    follow({ startRevision: 5 });
    follow({ startRevision: 20 });
    const server = await stream();
    server.created(0);
    server.created(1);
    server.events([{ revision: 9 }], { n: 0 });
    await settle();
    expect((await reconnected(2)).creates().map(({ startRevision }) => startRevision)).toEqual([10, 20]);
  });

  test('drops what it has told before, should a server repeat it', async () => {
    const record = follow();
    const server = await stream();
    server.created();
    server.events([{ revision: 5 }, { revision: 6 }]);
    server.events([{ revision: 6 }, { revision: 7 }]);
    await settle();
    expect(revisions(record)).toEqual([5, 6, 7]);
  });

  test.each([
    [14, 'etcdserver: no leader'],
    [14, 'connection lost'],
    [13, 'RST_STREAM'],
    [2, 'nobody knows'],
    [0, ''],
  ])('happens when the stream ends with status %i %s', async (code, message) => {
    const record = follow();
    (await stream()).stream.end(code, { message });
    await stream(2);
    expect(record.error).toBeUndefined();
  });

  test('moves to another member when this one lost its leader', async () => {
    scripted = await scriptedClient({ endpoints: 'a:1,b:2' });
    await scripted.runtime.advance(10);
    follow();
    const first = await stream();
    first.stream.end(14, { message: 'etcdserver: no leader' });
    const second = await stream(2);
    expect(second.stream.address).not.toBe(first.stream.address);
  });
});

describe('an end that nothing can be done about', () => {
  test('compaction ends the watch with the revision from which there is history', async () => {
    const record = follow();
    const server = await stream();
    server.created();
    server.cancel('', 77);
    await settle();
    expect(record.error).toMatchObject({ code: 'compacted', details: { compactRevision: 77n }, outcome: 'not-applied' });
  });

  test('a compaction while disconnected is found out when going on', async () => {
    const record = follow();
    const server = await stream();
    server.created();
    server.events([{ revision: 5 }]);
    await settle();
    const next = await reconnected(2);
    next.created();
    next.cancel('', 900);
    await settle();
    expect(revisions(record)).toEqual([5]);
    expect(record.error).toMatchObject({ code: 'compacted', details: { compactRevision: 900n } });
  });

  test.each([
    ['mvcc: watcher range is empty', 'watch-range-empty'],
    ['rpc error: code = PermissionDenied desc = etcdserver: permission denied', 'permission-denied'],
    ['something new', 'unknown'],
  ])('a refusal without an id, %s, ends the right watch', async (reason, code) => {
    const fine = follow({ startRevision: 5 });
    const refused = follow({ startRevision: 6 });
    const server = await stream();
    server.created(0);
    server.refuse(reason);
    await settle();
    expect(refused.error).toMatchObject({ code, message: reason });
    server.events([{ revision: 8 }], { n: 0 });
    await settle();
    expect(revisions(fine)).toEqual([8]);
    expect(fine.error).toBeUndefined();
  });

  test('creations that a lost stream left unanswered do not count on the next', async () => {
    const gone = follow({ startRevision: 4 });
    const fine = follow({ startRevision: 5 });
    const refused = follow({ startRevision: 6 });
    await stream();
    gone.unsubscribe();
    const next = await reconnected(2);
    next.created(0);
    next.refuse('mvcc: watcher range is empty');
    await settle();
    expect(fine.error).toBeUndefined();
    expect(refused.error).toMatchObject({ code: 'watch-range-empty' });
  });

  test('a refused stream ends all its watches', async () => {
    const records = [follow(), follow()];
    (await stream()).stream.end(12, { message: 'unknown service etcdserverpb.Watch' });
    await settle();
    for (const record of records) expect(record.error).toMatchObject({ code: 'unimplemented' });
    await scripted.runtime.advance(5_000);
    expect(scripted.script.streams).toHaveLength(1);
  });

  test('a cancellation without a reason is none: the watch goes on', async () => {
    const record = follow();
    const server = await stream();
    server.created();
    server.events([{ revision: 5 }]);
    server.cancel('');
    await settle();
    expect((await stream(2)).creates()[0]?.startRevision).toBe(6);
    expect(record.error).toBeUndefined();
  });
});

describe('stopping', () => {
  test('the last watch takes the stream with it', async () => {
    const record = follow();
    const server = await stream();
    record.unsubscribe();
    await settle();
    expect(server.stream.isCancelled).toBe(true);
    expect(scripted.runtime.pendingTimers).toBeLessThanOrEqual(1);
  });

  test('one of several is cancelled at the server and hears nothing more', async () => {
    const one = follow();
    const other = follow();
    const server = await stream();
    server.created(0);
    server.created(1);
    await settle();
    one.unsubscribe();
    server.events([{ revision: 5 }], { n: 0 });
    server.events([{ revision: 5 }], { n: 1 });
    await settle();
    expect(server.cancels()).toEqual([1n]);
    expect(revisions(one)).toEqual([]);
    expect(revisions(other)).toEqual([5]);
  });

  test('before the creation is answered does not confuse the answers', async () => {
    const one = follow();
    const other = follow();
    const server = await stream();
    one.unsubscribe();
    server.created(0);
    server.refuse('mvcc: watcher range is empty');
    await settle();
    expect(other.error).toMatchObject({ code: 'watch-range-empty' });
  });

  test('from within an event is heeded at once', async () => {
    const watch = scripted.client.watch(allKeys(), { startRevision: 5 });
    const promise = firstValueFrom(watch.pipe(take(2), toArray()));
    const server = await stream();
    server.created();
    server.events([{ revision: 5 }, { revision: 6 }, { revision: 7 }]);
    expect((await scripted.runtime.run(promise)).map((event) => Number(event.revision))).toEqual([5, 6]);
    expect(server.stream.isCancelled).toBe(true);
  });

  test('while the first read is under way cancels it', async () => {
    const record = follow({});
    await scripted.runtime.runUntil(() => scripted.script.calls.length === 1);
    record.unsubscribe();
    await settle();
    expect(scripted.script.call.isCancelled).toBe(true);
    expect(scripted.script.streams).toHaveLength(0);
  });

  test('an aborted signal ends the watch with an error', async () => {
    const controller = new AbortController();
    const record = follow({ startRevision: 5, signal: controller.signal });
    const server = await stream();
    controller.abort('enough');
    await settle();
    expect(record.error).toMatchObject({ code: 'cancelled', cause: 'enough' });
    expect(server.stream.isCancelled).toBe(true);
  });

  test('closing the watch completes all its subscriptions and loops', async () => {
    const watch = scripted.client.watch('k', { startRevision: 5 });
    let isComplete = false;
    watch.subscribe({
      complete: () => {
        isComplete = true;
      },
    });
    const next = watch[Symbol.asyncIterator]().next();
    await stream();
    await watch[Symbol.asyncDispose]();
    expect(isComplete).toBe(true);
    expect(await scripted.runtime.run(next)).toEqual({ done: true, value: undefined });
    expect(scripted.script.stream.isCancelled).toBe(true);
  });

  test('closing the client completes every watch', async () => {
    const record = follow();
    const loop = scripted.client.watch('k', { startRevision: 5 })[Symbol.asyncIterator]().next();
    await stream();
    await scripted.client.close();
    expect(record).toMatchObject({ isComplete: true, error: undefined });
    expect(await scripted.runtime.run(loop)).toEqual({ done: true, value: undefined });
    expect(scripted.runtime.pendingTimers).toBe(0);
  });
});

describe('a loop', () => {
  test('sees every event, and leaving it cancels the watch', async () => {
    const loop = (async () => {
      const seen: number[] = [];
      for await (const event of scripted.client.watch('k', { startRevision: 5 })) {
        seen.push(Number(event.revision));
        if (seen.length === 3) break;
      }
      return seen;
    })();
    const server = await stream();
    server.created();
    server.events([{ revision: 5 }, { revision: 6 }]);
    server.events([{ revision: 7 }]);
    expect(await scripted.runtime.run(loop)).toEqual([5, 6, 7]);
    expect(server.stream.isCancelled).toBe(true);
  });

  test('throws what ends the watch, after what came before it', async () => {
    const seen: number[] = [];
    const loop = (async () => {
      for await (const event of scripted.client.watch('k', { startRevision: 5 })) seen.push(Number(event.revision));
    })();
    const server = await stream();
    server.created();
    server.events([{ revision: 5 }]);
    server.cancel('', 77);
    await expect(scripted.runtime.run(loop)).rejects.toMatchObject({ code: 'compacted' });
    expect(seen).toEqual([5]);
  });

  test('that is slow and alone holds the stream back, and lets it go on', async () => {
    const iterator = scripted.client.watch('k', { startRevision: 1, bufferedEventsMax: 4 })[Symbol.asyncIterator]();
    const server = await stream();
    server.created();
    for (let revision = 1; revision <= 4; revision++) server.events([{ revision }]);
    await settle();
    expect(server.stream.isPaused).toBe(true);
    for (let revision = 5; revision <= 8; revision++) server.events([{ revision }]);
    const seen: number[] = [];
    for (let n = 0; n < 8; n++) seen.push(Number((await scripted.runtime.run(iterator.next())).value?.revision));
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(server.stream.isPaused).toBe(false);
    expect(scripted.script.streams).toHaveLength(1);
  });

  test('that is slow moves to a stream of its own where it has company, and loses nothing', async () => {
    const quick = follow({ startRevision: 1 });
    const iterator = scripted.client.watch('k', { startRevision: 1, bufferedEventsMax: 2 })[Symbol.asyncIterator]();
    const server = await stream();
    server.created(0);
    server.created(1);
    for (let revision = 1; revision <= 2; revision++) server.events([{ revision }], { n: 1 });
    await settle();
    const own = await stream(2);
    expect(own.stream.isPaused).toBe(true);
    expect(server.stream.isPaused).toBe(false);
    expect(server.cancels()).toEqual([2n]);
    expect(own.creates()[0]?.startRevision).toBe(3);
    own.created();
    own.events([{ revision: 3 }]);
    server.events([{ revision: 3 }], { n: 1 });
    server.events([{ revision: 3 }], { n: 0 });
    const seen: number[] = [];
    for (let n = 0; n < 3; n++) seen.push(Number((await scripted.runtime.run(iterator.next())).value?.revision));
    expect(seen).toEqual([1, 2, 3]);
    expect(revisions(quick)).toEqual([3]);
  });

  test('that holds its stream back does not hold back a newcomer', async () => {
    const iterator = scripted.client.watch('k', { startRevision: 1, bufferedEventsMax: 1 })[Symbol.asyncIterator]();
    const slow = await stream();
    slow.created();
    slow.events([{ revision: 1 }]);
    await settle();
    expect(slow.stream.isPaused).toBe(true);
    const record = follow({ startRevision: 1 });
    const fresh = await stream(2);
    fresh.created();
    fresh.events([{ revision: 1 }]);
    await settle();
    expect(revisions(record)).toEqual([1]);
    await iterator.return?.();
  });
});

test('a namespace sees its own keys under their short names', async () => {
  const seen: string[] = [];
  scripted.client
    .namespace('app/')
    .watch(prefix('config/'), { startRevision: 5 })
    .subscribe((event) => seen.push(event.key));
  const server = await stream();
  expect(server.creates()).toMatchObject([{ key: bytes('app/config/'), rangeEnd: bytes('app/config0') }]);
  server.created();
  server.events([{ revision: 5, key: 'app/config/a' }]);
  await settle();
  expect(seen).toEqual(['config/a']);
});

test('progress is told only to those who asked', async () => {
  const asked = follow({ startRevision: 5, progressNotify: true });
  const other = follow({ startRevision: 5 });
  const server = await stream();
  server.created(0);
  server.created(1);
  server.progress(50, 0);
  server.progress(50, 1);
  await settle();
  expect(asked.seen).toEqual([{ type: 'progress', revision: 50n }]);
  expect(other.seen).toEqual([]);
});

test('an observer that throws does not disturb other watches', async () => {
  const uncaught: unknown[] = [];
  const keep = (error: unknown): void => void uncaught.push(error);
  process.on('uncaughtException', keep);
  try {
    scripted.client.watch('k', { startRevision: 5 }).subscribe(() => {
      throw new Error('mine');
    });
    const other = follow();
    const server = await stream();
    server.created(0);
    server.created(1);
    server.events([{ revision: 5 }], { n: 0 });
    server.events([{ revision: 5 }], { n: 1 });
    await settle();
    expect(revisions(other)).toEqual([5]);
    await new Promise((resolve) => setTimeout(resolve, 5));
  } finally {
    process.off('uncaughtException', keep);
  }
  expect(uncaught).toMatchObject([{ message: 'mine' }]);
});

test.each([{ startRevision: 5 }, {}])('a watch begun after the client was closed fails at once (%o)', async (options) => {
  await scripted.client.close();
  const watch = follow(options);
  await settle();
  expect(watch.error).toMatchObject({ code: 'client-closed' });
});
