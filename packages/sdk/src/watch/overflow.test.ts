import { isConclaveError, prefix, type WatchOptions } from '@conclave/sdk';
import { type ScriptedClient, type ScriptedStream, ScriptedWatches, scriptedClient } from '@conclave/testkit';
import { beforeEach, describe, expect, test } from 'vitest';

let scripted: ScriptedClient;

beforeEach(async () => {
  scripted = await scriptedClient();
});

async function stream(n = 1): Promise<ScriptedWatches> {
  const { runtime, script } = scripted;
  await runtime.runUntil(() => (script.streams[n - 1]?.written.length ?? 0) > 0);
  return new ScriptedWatches(script.streams[n - 1] as ScriptedStream);
}

const settle = (): Promise<void> => scripted.runtime.advance(0);

/** A loop that has not begun to take anything. */
async function slow<const Options extends WatchOptions>(options: Options) {
  const iterator = scripted.client.watch(prefix('k'), { startRevision: 1, ...options })[Symbol.asyncIterator]();
  const server = await stream();
  server.created();
  return { iterator, server };
}

/** Takes what waits, at most until the end. */
async function taken<T>(iterator: AsyncIterator<T, undefined>, count: number): Promise<readonly T[]> {
  const values: T[] = [];
  while (values.length < count) {
    const step = await scripted.runtime.run(iterator.next());
    if (step.done === true) break;
    values.push(step.value);
  }
  return values;
}

describe('conflate', () => {
  test('leaves of each key its last event, in the order of revisions, with the number and the beginning of the others', async () => {
    const { iterator, server } = await slow({ overflow: 'conflate', bufferedEventsMax: 6, prevKv: true });
    server.events([{ revision: 1, key: 'k1', value: 'a' }]);
    server.events([{ revision: 2, key: 'k2', value: 'b' }]);
    server.events([{ revision: 3, key: 'k1', value: 'c', prev: 'a' }]);
    server.events([{ revision: 4, key: 'k2', type: 'delete', prev: 'b' }]);
    server.events([{ revision: 5, key: 'k1', value: 'd', prev: 'c' }]);
    server.events([{ revision: 6, key: 'k1', value: 'e', prev: 'd' }]);
    server.events([{ revision: 7, key: 'k3', value: 'f' }]);
    await settle();
    expect(server.stream.isPaused).toBe(false);
    const told = (await taken(iterator, 3)).map(
      ({ type, key, value, revision, prevKv, conflated }) => [type, key, value, Number(revision), prevKv?.value, conflated] as const,
    );
    expect(told).toEqual([
      ['delete', 'k2', '', 4, undefined, 1],
      ['put', 'k1', 'e', 6, undefined, 3],
      ['put', 'k3', 'f', 7, undefined, 0],
    ]);
  });

  test('tells the key as it was before the first that is left out', async () => {
    const { iterator, server } = await slow({ overflow: 'conflate', bufferedEventsMax: 2, prevKv: true });
    server.events([{ revision: 1, key: 'k', value: 'b', prev: 'a' }]);
    server.events([{ revision: 2, key: 'k', value: 'c', prev: 'b' }]);
    server.events([{ revision: 3, key: 'k', value: 'd', prev: 'c' }]);
    await settle();
    const [event] = await taken(iterator, 1);
    expect([event?.value, event?.prevKv?.value, event?.conflated]).toEqual(['d', 'a', 2]);
  });

  test('holds the server back when many keys wait, and loses none of them', async () => {
    const { iterator, server } = await slow({ overflow: 'conflate', bufferedEventsMax: 4 });
    for (let revision = 1; revision <= 8; revision++) server.events([{ revision, key: `k${revision}` }]);
    await settle();
    expect(server.stream.isPaused).toBe(true);
    expect((await taken(iterator, 8)).map(({ key, conflated }) => [key, conflated])).toEqual(
      Array.from({ length: 8 }, (_, at) => [`k${at + 1}`, 0]),
    );
    expect(server.stream.isPaused).toBe(false);
  });

  test('keeps the creation and the last word of progress', async () => {
    const { iterator, server } = await slow({ overflow: 'conflate', bufferedEventsMax: 5, notifyCreated: true, progressNotify: true });
    server.events([{ revision: 1, key: 'k' }]);
    server.progress(2);
    server.progress(3);
    server.events([{ revision: 4, key: 'k' }]);
    await settle();
    expect((await taken(iterator, 3)).map((told) => [told.type, Number(told.revision)])).toEqual([
      ['created', 0],
      ['progress', 3],
      ['put', 4],
    ]);
  });
});

describe('fail', () => {
  test('ends the loop after what waits, says from where to go on, and takes the watch off the server', async () => {
    const { iterator, server } = await slow({ overflow: 'fail', bufferedEventsMax: 3 });
    for (let revision = 1; revision <= 3; revision++) server.events([{ revision }]);
    await settle();
    expect(server.stream.isCancelled).toBe(false);
    server.events([{ revision: 4 }]);
    await settle();
    expect(server.stream.isCancelled).toBe(true);
    expect((await taken(iterator, 3)).map(({ revision }) => Number(revision))).toEqual([1, 2, 3]);
    const error = await scripted.runtime.run(iterator.next()).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'watch-overflow', outcome: 'not-applied', details: { revision: 3n } });
    expect(isConclaveError(error, 'watch-overflow') && error.details?.revision).toBe(3n);
  });

  test('does not tear a transaction apart', async () => {
    const { iterator, server } = await slow({ overflow: 'fail', bufferedEventsMax: 2 });
    server.events([{ revision: 1 }, { revision: 2, key: 'k1' }, { revision: 2, key: 'k2' }, { revision: 2, key: 'k3' }, { revision: 3 }]);
    await settle();
    expect((await taken(iterator, 4)).map(({ revision }) => Number(revision))).toEqual([1, 2, 2, 2]);
    await expect(scripted.runtime.run(iterator.next())).rejects.toMatchObject({ details: { revision: 2n } });
  });

  test('does not concern a loop that keeps up', async () => {
    const { iterator, server } = await slow({ overflow: 'fail', bufferedEventsMax: 1 });
    for (let revision = 1; revision <= 10; revision++) {
      server.events([{ revision }]);
      expect((await taken(iterator, 1)).map((event) => Number(event.revision))).toEqual([revision]);
    }
  });
});

test.each([{ bufferedEventsMax: 0 }, { bufferedEventsMax: Number.NaN }, { bufferedBytesMax: 0 }])('%o is refused', (options) => {
  expect(() => scripted.client.watch('k', options)).toThrow(/must be 1 or more/);
});

describe('an observer', () => {
  test('that pauses its watch is told nothing until it lets it go on, and misses nothing', async () => {
    const watch = scripted.client.watch('k', { startRevision: 1 });
    const seen: number[] = [];
    watch.subscribe(({ revision }) => {
      seen.push(Number(revision));
      if (revision === 2n) watch.pause();
    });
    const server = await stream();
    server.created();
    for (let revision = 1; revision <= 2; revision++) server.events([{ revision }]);
    await settle();
    for (let revision = 3; revision <= 5; revision++) server.events([{ revision }]);
    await settle();
    expect([server.stream.isPaused, seen]).toEqual([true, [1, 2]]);
    watch.resume();
    await settle();
    expect([server.stream.isPaused, seen]).toEqual([false, [1, 2, 3, 4, 5]]);
  });

  test('of a watch that is paused begins paused', async () => {
    const watch = scripted.client.watch('k', { startRevision: 1 });
    watch.pause();
    const seen: number[] = [];
    watch.subscribe(({ revision }) => seen.push(Number(revision)));
    const server = await stream();
    server.created();
    server.events([{ revision: 1 }]);
    await settle();
    expect(seen).toEqual([]);
    watch.resume();
    await settle();
    expect(seen).toEqual([1]);
  });

  test('does not let a loop go on that is full', async () => {
    const watch = scripted.client.watch('k', { startRevision: 1, bufferedEventsMax: 2 });
    const iterator = watch[Symbol.asyncIterator]();
    const server = await stream();
    server.created();
    for (let revision = 1; revision <= 2; revision++) server.events([{ revision }]);
    await settle();
    watch.pause();
    watch.resume();
    expect(server.stream.isPaused).toBe(true);
    watch.pause();
    await taken(iterator, 2);
    expect(server.stream.isPaused).toBe(true);
    watch.resume();
    expect(server.stream.isPaused).toBe(false);
  });
});
