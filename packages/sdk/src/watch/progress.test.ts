import { StatusResponse } from '@conclave/protocol';
import { prefix, type WatchOptions } from '@conclave/sdk';
import { type ScriptedClient, type ScriptedStream, ScriptedWatches, scriptedClient } from '@conclave/testkit';
import { beforeEach, expect, test } from 'vitest';

let scripted: ScriptedClient;
let version: string;

beforeEach(async () => {
  version = '3.5.30';
  scripted = await scriptedClient();
  scripted.script.onCall = (call) => call.reply(StatusResponse.encode({ version }));
});

async function stream(n = 1): Promise<ScriptedWatches> {
  const { runtime, script } = scripted;
  await runtime.runUntil(() => (script.streams[n - 1]?.written.length ?? 0) > 0);
  return new ScriptedWatches(script.streams[n - 1] as ScriptedStream);
}

const settle = (): Promise<void> => scripted.runtime.advance(0);

/** A watch that stands, with a subscriber. */
async function standing<const Options extends WatchOptions>(options: Options) {
  const watch = scripted.client.watch(prefix('k'), { startRevision: 5, ...options });
  const seen: string[] = [];
  watch.subscribe(({ type, revision }) => seen.push(`${type} ${revision}`));
  const server = await stream();
  server.created();
  await settle();
  return { watch, seen, server };
}

test('it asks on a stream of its own, on which the server has something to say', async () => {
  const { watch, seen, server } = await standing({ progressNotify: true });
  server.events([{ revision: 7 }]);
  await settle();
  const asked = watch.requestProgress();
  const own = await stream(2);
  expect(server.stream.isCancelled).toBe(true);
  expect(own.creates()).toMatchObject([{ startRevision: 7 }]);
  expect(own.progressRequests()).toBe(0);
  own.created();
  await scripted.runtime.runUntil(() => own.progressRequests() === 1);
  own.events([{ revision: 7 }, { revision: 9 }]);
  own.streamProgress(12);
  expect(await scripted.runtime.run(asked)).toBe(12n);
  expect(seen).toEqual(['put 7', 'put 9', 'progress 12']);
  scripted.script.cut();
  expect((await stream(3)).creates()).toMatchObject([{ startRevision: 12 }]);
});

test('asks again until the server says something, and a second time on the same stream', async () => {
  const { watch, seen } = await standing({});
  const asked = watch.requestProgress();
  const own = await stream(2);
  own.created();
  await scripted.runtime.runUntil(() => own.progressRequests() === 3);
  own.streamProgress(8);
  expect(await scripted.runtime.run(asked)).toBe(8n);
  await scripted.runtime.advance(5_000);
  expect(own.progressRequests()).toBe(3);
  const again = watch.requestProgress();
  await scripted.runtime.runUntil(() => own.progressRequests() === 4);
  own.streamProgress(10);
  expect(await scripted.runtime.run(again)).toBe(10n);
  expect(scripted.script.streams).toHaveLength(2);
  expect(seen).toEqual([]);
});

test('is asked anew after a break, of the member that serves the watch then', async () => {
  const { watch } = await standing({});
  const asked = watch.requestProgress();
  (await stream(2)).created();
  await settle();
  scripted.script.cut();
  const next = await stream(3);
  next.streamProgress(6);
  next.created();
  await scripted.runtime.runUntil(() => next.progressRequests() === 1);
  next.streamProgress(8);
  expect(await scripted.runtime.run(asked)).toBe(8n);
});

test('a word that comes in the midst of a batch does not count', async () => {
  const { watch, seen } = await standing({});
  const asked = watch.requestProgress();
  const own = await stream(2);
  own.created();
  own.events([{ revision: 5, key: 'k1' }], { fragment: true });
  await scripted.runtime.runUntil(() => own.progressRequests() === 1);
  own.streamProgress(5);
  await settle();
  own.events([{ revision: 5, key: 'k2' }]);
  own.streamProgress(6);
  expect(await scripted.runtime.run(asked)).toBe(6n);
  expect(seen).toEqual(['put 5', 'put 5']);
});

test('a revision that is behind what was told is not given', async () => {
  const { watch, server } = await standing({});
  server.events([{ revision: 20 }]);
  await settle();
  const asked = watch.requestProgress();
  const own = await stream(2);
  own.created();
  await scripted.runtime.runUntil(() => own.progressRequests() === 1);
  own.streamProgress(15);
  expect(await scripted.runtime.run(asked)).toBe(20n);
});

test('where what was told last is compacted away, it starts after that', async () => {
  const { watch, server } = await standing({});
  server.events([{ revision: 7 }]);
  await settle();
  void watch.requestProgress().catch(() => {});
  const own = await stream(2);
  own.created();
  own.cancel('', 8);
  expect((await stream(3)).creates()).toMatchObject([{ startRevision: 8 }]);
});

test.each(['3.4.24', '3.5.7'])('a server of version %s is not believed', async (old) => {
  version = old;
  const { watch } = await standing({});
  const asked = watch.requestProgress();
  (await stream(2)).created();
  await expect(scripted.runtime.run(asked)).rejects.toMatchObject({ code: 'unimplemented', outcome: 'not-applied' });
});

test('it ends with its time, its signal, or the watch', async () => {
  const { watch } = await standing({});
  const controller = new AbortController();
  const late = watch.requestProgress({ deadlineMs: 100 });
  const aborted = watch.requestProgress({ signal: controller.signal });
  const ended = watch.requestProgress();
  const settled = Promise.allSettled([late, aborted, ended]);
  await scripted.runtime.advance(200);
  controller.abort('enough');
  watch.close();
  expect(await scripted.runtime.run(settled)).toMatchObject([
    { reason: { code: 'deadline-exceeded' } },
    { reason: { code: 'cancelled', cause: 'enough' } },
    { reason: { code: 'cancelled' } },
  ]);
  await scripted.client.close();
  expect(scripted.runtime.pendingTimers).toBe(0);
});

test('with several subscribers it is where the last of them is, and with none it is refused', async () => {
  const watch = scripted.client.watch('k', { startRevision: 5 });
  await expect(watch.requestProgress()).rejects.toMatchObject({ code: 'invalid-argument' });
  watch.subscribe();
  watch.subscribe();
  await stream();
  const asked = watch.requestProgress();
  for (const [n, revision] of [
    [2, 9],
    [3, 7],
  ] as const) {
    const own = await stream(n);
    own.created();
    await scripted.runtime.runUntil(() => own.progressRequests() === 1);
    own.streamProgress(revision);
  }
  expect(await scripted.runtime.run(asked)).toBe(7n);
});
