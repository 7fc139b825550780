import { type Event, type Init, RangeResponse, WatchRequest, WatchResponse } from '@conclave/protocol';
import { prefix, type WatchEvent } from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { type ScriptedStream, type ScriptedTransport, scriptedClient } from '@conclave/testkit';
import fc from 'fast-check';
import { expect, test } from 'vitest';

/**
 * A store with etcd's habits: the header of a catch-up batch and of a created reply carries the revision of the store, a batch may come in
 * fragments, and progress is told only to a watch that is told everything.
 */
class ModelStore {
  readonly #random: Random;
  readonly #watchers = new Set<ModelWatcher>();
  /** The events of revision n stand at n - 2: the first write makes revision 2. */
  readonly log: Init<Event>[][] = [];

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  get revision(): number {
    return this.log.length + 1;
  }

  serve(script: ScriptedTransport): void {
    script.onCall = (call) => call.reply(RangeResponse.encode({ header: { revision: this.revision } }));
    script.onStream = (stream) => {
      stream.onWrite = (bytes) => this.#onRequest(stream, WatchRequest.decode(bytes));
    };
  }

  /** One transaction that changes so many keys. */
  write(count: number): void {
    const modRevision = this.revision + 1;
    this.log.push(
      Array.from({ length: count }, (_, at) => ({
        kv: { key: Buffer.from(`k${modRevision}.${at}`), modRevision, createRevision: modRevision, version: 1 },
      })),
    );
  }

  /** Every watch is sent some of what it has not been sent yet. */
  deliver(): void {
    for (const watcher of this.#watchers) {
      if (watcher.stream.isEnded) this.#watchers.delete(watcher);
      else this.#deliverTo(watcher);
    }
  }

  progress(): void {
    for (const { stream, id, next } of this.#watchers) {
      if (!stream.isEnded && next > this.revision) stream.send(WatchResponse.encode({ header: { revision: this.revision }, watchId: id }));
    }
  }

  #onRequest(stream: ScriptedStream, { createRequest, cancelRequest }: WatchRequest): void {
    if (cancelRequest !== undefined)
      for (const watcher of this.#watchers) if (watcher.id === cancelRequest.watchId) this.#watchers.delete(watcher);
    if (createRequest === undefined || stream.isEnded) return;
    const { watchId: id, startRevision } = createRequest;
    this.#watchers.add({ stream, id, next: startRevision === 0 ? this.revision + 1 : startRevision });
    stream.send(WatchResponse.encode({ header: { revision: this.revision }, watchId: id, created: true }));
  }

  #deliverTo(watcher: ModelWatcher): void {
    if (watcher.next > this.revision) return;
    const last = Math.min(this.revision, watcher.next + Math.floor(this.#random.next() * 4));
    const events = this.log.slice(watcher.next - 2, last - 1).flat();
    watcher.next = last + 1;
    while (events.length > 0) {
      const part = events.splice(0, 1 + Math.floor(this.#random.next() * 5));
      const header = { revision: this.revision };
      watcher.stream.send(WatchResponse.encode({ header, watchId: watcher.id, events: part, fragment: events.length > 0 }));
    }
  }
}

interface ModelWatcher {
  readonly stream: ScriptedStream;
  readonly id: bigint;
  next: number;
}

const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('write' as const), count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('deliver' as const), count: fc.constant(0) }) },
  // `count` is how much of a settled turn passes before the cut: 0 loses what is on its way.
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('cut' as const), count: fc.integer({ min: 0, max: 1 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('progress' as const), count: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), count: fc.integer({ min: 0, max: 200 }) }) },
);

const nameOf = (event: Pick<WatchEvent, 'key'>): string => event.key;

test('whatever happens to the connection, every event is told once, in order, to observers and to slow loops', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer(), fc.integer({ min: 0, max: 4 }), async (steps, seed, history) => {
      const { runtime, script, client } = await scriptedClient({ seed });
      const store = new ModelStore(seed);
      for (let n = 0; n < history; n++) store.write(2);
      store.serve(script);
      const observed: string[] = [];
      const looped: string[] = [];
      const fromNow: string[] = [];
      client.watch(prefix('k'), { startRevision: 2 }).subscribe((event) => observed.push(nameOf(event)));
      client.watch(prefix('k')).subscribe((event) => fromNow.push(nameOf(event)));
      const firstUntold = store.revision + 1;
      const loop = (async () => {
        for await (const event of client.watch(prefix('k'), { startRevision: 2, bufferedEventsMax: 3 })) {
          looped.push(nameOf(event));
          await new Promise<void>((resolve) => void runtime.timer(15, resolve));
        }
      })();
      await runtime.advance(1);
      for (const { kind, count } of steps) {
        if (kind === 'write') store.write(count);
        if (kind === 'deliver') store.deliver();
        if (kind === 'progress') store.progress();
        if (kind === 'cut') {
          if (count === 1) await runtime.advance(0);
          script.cut();
        }
        if (kind === 'wait') await runtime.advance(count);
      }
      const all = store.log.flat().map((event) => Buffer.from(event.kv?.key ?? '').toString());
      const later = store.log.slice(firstUntold - 2).flat().length;
      for (let round = 0; looped.length < all.length || observed.length < all.length || fromNow.length < later; round++) {
        expect(round, `${observed.length}, ${looped.length} and ${fromNow.length} of ${all.length} events`).toBeLessThan(2_000);
        store.deliver();
        await runtime.advance(20);
      }
      await runtime.advance(100);
      expect(observed).toEqual(all);
      expect(looped).toEqual(all);
      expect(fromNow).toEqual(all.slice(all.length - later));
      await client.close();
      await loop;
    }),
    { numRuns: 100 },
  );
});
