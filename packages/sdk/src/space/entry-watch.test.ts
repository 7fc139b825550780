import { StatusResponse } from '@conclave/protocol';
import { type Codec, text } from '@conclave/sdk';
import { type ScriptedClient, type ScriptedStream, ScriptedWatches, scriptedClient } from '@conclave/testkit';
import { beforeEach, expect, test } from 'vitest';

let scripted: ScriptedClient;

beforeEach(async () => {
  scripted = await scriptedClient();
  scripted.script.onCall = (call) => call.reply(StatusResponse.encode({ version: '3.5.30' }));
});

async function stream(n = 1): Promise<ScriptedWatches> {
  const { runtime, script } = scripted;
  await runtime.runUntil(() => (script.streams[n - 1]?.written.length ?? 0) > 0);
  return new ScriptedWatches(script.streams[n - 1] as ScriptedStream);
}

const settle = (): Promise<void> => scripted.runtime.advance(0);

/** Takes a second for each value. */
const slow = (): Codec<string> => ({
  encode: (value) => value,
  decode: (data) => new Promise((resolve) => void scripted.runtime.timer(1_000, () => resolve(Buffer.from(data).toString()))),
});

test('an observer pauses a watch of a space and goes on, with nothing lost', async () => {
  const watch = scripted.client.space('k', text()).watch(undefined, { startRevision: 1 });
  const seen: string[] = [];
  watch.subscribe(({ key }) => {
    seen.push(key);
    if (key === '2') watch.pause();
  });
  const server = await stream();
  server.created();
  for (let revision = 1; revision <= 2; revision++) server.events([{ revision }]);
  await settle();
  for (let revision = 3; revision <= 5; revision++) server.events([{ revision }]);
  await settle();
  expect([server.stream.isPaused, seen]).toEqual([true, ['1', '2']]);
  watch.resume();
  await settle();
  expect([server.stream.isPaused, seen]).toEqual([false, ['1', '2', '3', '4', '5']]);
});

test('a loop over a paused watch of a space holds the server back', async () => {
  const watch = scripted.client.space('k', text()).watch(undefined, { startRevision: 1 });
  watch.pause();
  const next = watch[Symbol.asyncIterator]().next();
  const server = await stream();
  server.created();
  server.events([{ revision: 1 }]);
  await settle();
  expect(server.stream.isPaused).toBe(true);
  watch.resume();
  expect((await scripted.runtime.run(next)).value).toMatchObject({ key: '1', value: 'v' });
});

test('progress of a space is told once the values before it were, however long they take to read', async () => {
  const watch = scripted.client.space('k', slow()).watch(undefined, { startRevision: 5, progressNotify: true });
  const seen: string[] = [];
  watch.subscribe((told) => void seen.push(told.type === 'put' ? told.key : told.type));
  (await stream()).created();
  await settle();
  const asked = watch.requestProgress();
  const own = await stream(2);
  own.created();
  await scripted.runtime.runUntil(() => own.progressRequests() === 1);
  own.events([{ revision: 7 }, { revision: 9 }]);
  own.streamProgress(12);
  await settle();
  expect(seen).toEqual([]);
  expect(await scripted.runtime.run(asked)).toBe(12n);
  expect(seen).toEqual(['7', '9', 'progress']);
});

test('progress of a space whose values are never read is waited for no longer than was asked for', async () => {
  const stuck: Codec<string> = { encode: (value) => value, decode: () => new Promise(() => {}) };
  const watch = scripted.client.space('k', stuck).watch(undefined, { startRevision: 5 });
  watch.subscribe();
  (await stream()).created();
  await settle();
  const controller = new AbortController();
  const asked = [watch.requestProgress({ deadlineMs: 300 }), watch.requestProgress({ signal: controller.signal })];
  const own = await stream(2);
  own.created();
  await scripted.runtime.runUntil(() => own.progressRequests() > 0);
  own.events([{ revision: 7 }]);
  own.streamProgress(12);
  await settle();
  controller.abort();
  const [late, cancelled] = await scripted.runtime.run(Promise.allSettled(asked));
  expect(late).toMatchObject({ reason: { code: 'deadline-exceeded' } });
  expect(cancelled).toMatchObject({ reason: { code: 'cancelled' } });
  await scripted.runtime.run(scripted.client.close());
  expect(scripted.runtime.pendingTimers).toBe(0);
});

test('progress does not wait for an observer that has left', async () => {
  const watch = scripted.client.space('k', slow()).watch(undefined, { startRevision: 5 });
  const leaving = watch.subscribe();
  watch.subscribe();
  const servers = await stream();
  servers.created(0);
  servers.created(1);
  await settle();
  const asked = watch.requestProgress();
  const [first, second] = [await stream(2), await stream(3)];
  for (const own of [first, second]) own.created();
  await scripted.runtime.runUntil(() => first.progressRequests() + second.progressRequests() >= 2);
  first.events([{ revision: 7 }]);
  for (const own of [first, second]) own.streamProgress(12);
  await settle();
  leaving.unsubscribe();
  expect(await scripted.runtime.run(asked)).toBe(12n);
});

test('a watch of a space that nobody follows has no progress, and none is left behind by who has left', async () => {
  const watch = scripted.client.space('k', text()).watch(undefined, { startRevision: 5 });
  await expect(watch.requestProgress()).rejects.toMatchObject({ code: 'invalid-argument' });
  const subscription = watch.subscribe();
  (await stream()).created();
  await settle();
  subscription.unsubscribe();
  await expect(watch.requestProgress()).rejects.toMatchObject({ code: 'invalid-argument' });
});

test('closing completes observers and loops', async () => {
  const watch = scripted.client.space('k', text()).watch(undefined, { startRevision: 5 });
  let isComplete = false;
  watch.subscribe({
    complete: () => {
      isComplete = true;
    },
  });
  const loop = watch[Symbol.asyncIterator]();
  watch.close();
  expect(isComplete).toBe(true);
  expect((await scripted.runtime.run(loop.next())).done).toBe(true);
  await expect(watch.requestProgress()).rejects.toMatchObject({ code: 'invalid-argument' });
});
