import {
  type Event,
  WatchCreateRequest_FilterType as FilterType,
  type Init,
  RangeRequest,
  RangeResponse,
  WatchRequest,
  WatchResponse,
  type KeyValue as WireKeyValue,
} from '@conclave/protocol';
import { prefix, type WatchCreated, type WatchEvent, type WatchOptions, type WatchProgress, type WatchResync } from '@conclave/sdk';
import { Random, type VirtualRuntime } from '@conclave/testing';
import { type ScriptedCall, type ScriptedStream, type ScriptedTransport, scriptedClient } from '@conclave/testkit';
import fc from 'fast-check';
import { expect, test } from 'vitest';

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
const text = (data: Uint8Array): string => Buffer.from(data).toString();

interface Change {
  readonly key: string;
  readonly isDelete: boolean;
}

/** Keys and their modRevisions. */
type State = ReadonlyMap<string, number>;

const keyNames = Array.from({ length: 8 }, (_, at) => `k${at}`);
const pageKeys = 3;

interface ModelWatcher {
  readonly stream: ScriptedStream;
  readonly id: bigint;
  readonly filters: readonly number[];
  next: number;
}

/** A store that forgets its history, and gives lists in small pages that take their time. It keeps the history for the test alone. */
class ModelStore {
  readonly #random: Random;
  readonly #runtime: VirtualRuntime;
  readonly #watchers = new Set<ModelWatcher>();
  /** The changes of revision n stand at n - 2, and what there was then at n - 1. */
  readonly log: (readonly Change[])[] = [];
  readonly states: State[] = [new Map()];
  compactRevision = 0;

  constructor(seed: number, runtime: VirtualRuntime) {
    this.#random = new Random(seed);
    this.#runtime = runtime;
  }

  get revision(): number {
    return this.log.length + 1;
  }

  stateAt(revision: number): State {
    return this.states[Math.max(0, revision - 1)] as State;
  }

  serve(script: ScriptedTransport): void {
    script.onCall = (call) => void this.#runtime.timer(Math.floor(this.#random.next() * 30), () => this.#range(call));
    script.onStream = (stream) => {
      stream.onWrite = (written) => this.#onRequest(stream, WatchRequest.decode(written));
    };
  }

  /** One transaction that changes so many keys. */
  write(count: number): void {
    const state = new Map(this.stateAt(this.revision));
    const names = [...keyNames].sort(() => this.#random.next() - 0.5).slice(0, count);
    const changes = names.map((key) => ({ key, isDelete: state.has(key) && this.#random.next() < 0.5 }));
    for (const { key, isDelete } of changes) {
      if (isDelete) state.delete(key);
      else state.set(key, this.revision + 1);
    }
    this.log.push(changes);
    this.states.push(state);
  }

  compact(): void {
    this.compactRevision = this.revision;
  }

  /** Every watch is sent some of what it has not been sent yet, or told that it is gone. */
  deliver(): void {
    for (const watcher of this.#watchers) {
      if (watcher.stream.isEnded) this.#watchers.delete(watcher);
      else if (watcher.next < this.compactRevision) this.#cancel(watcher);
      else this.#deliverTo(watcher);
    }
  }

  progress(): void {
    for (const { stream, id, next } of this.#watchers)
      if (!stream.isEnded && next > this.revision) stream.send(WatchResponse.encode({ header: { revision: this.revision }, watchId: id }));
  }

  #range(call: ScriptedCall): void {
    const { key, rangeEnd, revision, keysOnly } = RangeRequest.decode(call.request);
    const at = revision === 0 ? this.revision : revision;
    if (at > this.revision || at < this.compactRevision) {
      const problem = at > this.revision ? 'is a future revision' : 'has been compacted';
      call.end(11, { message: `etcdserver: mvcc: required revision ${problem}` });
      return;
    }
    const isAsked = (name: string): boolean => (rangeEnd.length === 0 ? name === text(key) : name >= text(key) && name < text(rangeEnd));
    const found = [...this.stateAt(at)].filter(([name]) => isAsked(name)).sort(([one], [other]) => (one < other ? -1 : 1));
    const kvs = found.slice(0, pageKeys).map(([name, modRevision]) => kvOf(name, modRevision, keysOnly ? '' : `${modRevision}`));
    call.reply(RangeResponse.encode({ header: { revision: this.revision }, kvs, more: found.length > pageKeys }));
  }

  #onRequest(stream: ScriptedStream, { createRequest, cancelRequest }: WatchRequest): void {
    if (cancelRequest !== undefined)
      for (const watcher of this.#watchers) if (watcher.id === cancelRequest.watchId) this.#watchers.delete(watcher);
    if (createRequest === undefined || stream.isEnded) return;
    const { watchId: id, startRevision: next, filters } = createRequest;
    this.#watchers.add({ stream, id, filters, next });
    stream.send(WatchResponse.encode({ header: { revision: this.revision }, watchId: id, created: true }));
  }

  #cancel(watcher: ModelWatcher): void {
    this.#watchers.delete(watcher);
    watcher.stream.send(WatchResponse.encode({ watchId: watcher.id, canceled: true, compactRevision: this.compactRevision }));
  }

  #deliverTo(watcher: ModelWatcher): void {
    if (watcher.next > this.revision) return;
    const last = Math.min(this.revision, watcher.next + Math.floor(this.#random.next() * 4));
    const events: Init<Event>[] = [];
    for (let revision = watcher.next; revision <= last; revision++)
      for (const { key, isDelete } of this.log[revision - 2] ?? [])
        if (!watcher.filters.includes(isDelete ? FilterType.NODELETE : FilterType.NOPUT))
          events.push(isDelete ? { type: 1, kv: { key: bytes(key), modRevision: revision } } : { kv: kvOf(key, revision, `${revision}`) });
    watcher.next = last + 1;
    while (events.length > 0) {
      const part = events.splice(0, 1 + Math.floor(this.#random.next() * 5));
      const header = { revision: this.revision };
      watcher.stream.send(WatchResponse.encode({ header, watchId: watcher.id, events: part, fragment: events.length > 0 }));
    }
  }
}

function kvOf(name: string, modRevision: number, value: string): Init<WireKeyValue> {
  return { key: bytes(name), modRevision, createRevision: modRevision, version: 1, value: bytes(value) };
}

type Emitted = WatchEvent | WatchCreated | WatchProgress | WatchResync;

/** Follows a watch with the true history in hand, and objects to whatever it tells too much, too late or not at all. */
class Checker {
  readonly #store: ModelStore;
  readonly #ignore: WatchOptions['ignore'];
  /** All up to there was told. */
  #through: number;
  #last = 0n;
  /** What the rest of a resync has to be. */
  #owed: string[] = [];
  /** What it can be besides: a watch that is not told puts may have been sent more than can be seen from here. */
  #allowed: string[] = [];
  /** What the rest of a revision has to be. */
  #siblings: string[] = [];
  resyncs = 0;
  synthesised = 0;
  copy = new Map<string, number>();

  constructor(store: ModelStore, startRevision: number, ignore?: WatchOptions['ignore']) {
    this.#store = store;
    this.#ignore = ignore;
    this.#through = startRevision - 1;
    this.copy = new Map(store.stateAt(this.#through));
  }

  take(emitted: Emitted): void {
    expect(emitted.revision, 'revisions go on').toBeGreaterThanOrEqual(this.#last);
    this.#last = emitted.revision;
    if (emitted.type === 'created') return;
    if (emitted.type === 'resync') this.#resync(emitted);
    else if (emitted.type === 'progress') this.#progress(Number(emitted.revision));
    else if (emitted.isSynthesised) this.#takeSynthesised(emitted);
    else this.#takeLive(emitted);
  }

  /** Nothing is left to tell. */
  finish(): void {
    this.#progress(this.#store.revision);
    if (this.#ignore === undefined) expect(this.copy).toEqual(this.#store.stateAt(this.#store.revision));
  }

  #resync({ scope, revision }: WatchResync): void {
    expect(this.#owed).toEqual([]);
    expect(this.#siblings).toEqual([]);
    this.resyncs++;
    const before = scope === 'everything' ? new Map<string, number>() : this.#store.stateAt(this.#through);
    if (scope === 'everything') this.copy.clear();
    const after = this.#store.stateAt(Number(revision));
    const puts = [...after].filter(([key, at]) => before.get(key) !== at).map(([key, at]) => `put ${key} ${at}`);
    const deletes = [...before.keys()].filter((key) => !after.has(key)).map((key) => `delete ${key}`);
    this.#owed = [...(this.#ignore === 'put' ? [] : puts), ...(this.#ignore === 'delete' ? [] : deletes)];
    this.#allowed = [];
    for (let at = this.#through + 1; at < revision && this.#ignore === 'put'; at++)
      for (const key of this.#store.stateAt(at).keys()) if (!after.has(key) && !before.has(key)) this.#allowed.push(`delete ${key}`);
    this.#through = Number(revision);
  }

  #takeSynthesised(event: WatchEvent): void {
    const said = event.type === 'put' ? `put ${event.key} ${event.value}` : `delete ${event.key}`;
    expect([...this.#owed, ...this.#allowed], 'owed once').toContain(said);
    expect(Number(event.revision)).toBe(this.#through);
    expect(event.prevKv).toBeUndefined();
    this.#owed = this.#owed.filter((owed) => owed !== said);
    this.#allowed = this.#allowed.filter((allowed) => allowed !== said);
    this.synthesised++;
    this.#apply(event);
  }

  #takeLive(event: WatchEvent): void {
    expect(this.#owed).toEqual([]);
    const revision = Number(event.revision);
    if (this.#siblings.length === 0) {
      this.#progress(revision - 1);
      this.#siblings = this.#toldAt(revision);
      this.#through = revision;
    }
    expect(`${event.type} ${event.key} ${revision}`).toBe(this.#siblings.shift());
    this.#apply(event);
  }

  #apply({ type, key, kv }: WatchEvent): void {
    if (type === 'put') this.copy.set(key, Number(kv.modRevision));
    else this.copy.delete(key);
  }

  /** Nothing that had to be told lies between what was told and `revision`. */
  #progress(revision: number): void {
    expect([...this.#owed, ...this.#siblings]).toEqual([]);
    for (; this.#through < revision; this.#through++) expect(this.#toldAt(this.#through + 1), `revision ${this.#through + 1}`).toEqual([]);
  }

  #toldAt(revision: number): string[] {
    return (this.#store.log[revision - 2] ?? [])
      .filter(({ isDelete }) => this.#ignore !== (isDelete ? 'delete' : 'put'))
      .map(({ key, isDelete }) => `${isDelete ? 'delete' : 'put'} ${key} ${revision}`);
  }
}

const count = fc.integer({ min: 0, max: 4 });
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('write' as const), count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('deliver' as const), count }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('compact' as const), count }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('cut' as const), count }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('progress' as const), count }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), count: fc.integer({ min: 0, max: 200 }) }) },
);

let resyncs = 0;
let synthesised = 0;

test('whatever is compacted and cut, every change is told once, or what it comes to in its place', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer(), fc.integer({ min: 0, max: 6 }), async (steps, seed, history) => {
      const { runtime, script, client } = await scriptedClient({ seed });
      const store = new ModelStore(seed, runtime);
      for (let n = 0; n < history; n++) store.write(2);
      store.serve(script);
      const failures: unknown[] = [];
      const checkers: Checker[] = [];
      const check = (startRevision: number, ignore?: 'put' | 'delete'): Checker => {
        const checker = new Checker(store, startRevision, ignore);
        checkers.push(checker);
        return checker;
      };
      const observe = (options: WatchOptions): void => {
        // What is there before a watch from now begins it cannot be told: its check begins when the watch does.
        let checker = options.startRevision === undefined ? undefined : check(Number(options.startRevision), options.ignore);
        client.watch(prefix('k'), { ...options, notifyCreated: true, onCompacted: 'relist' }).subscribe({
          next: (emitted) => {
            try {
              if (emitted.type === 'created') checker ??= check(Number(emitted.revision) + 1, options.ignore);
              checker?.take(emitted);
            } catch (error) {
              failures.push(error);
            }
          },
          error: (error: unknown) => failures.push(error),
        });
      };
      observe({ startRevision: 1 });
      observe({ startRevision: 2, progressNotify: true });
      observe({ startRevision: history + 1 });
      observe({ progressNotify: true });
      observe({ startRevision: 1, ignore: 'put' });
      observe({ startRevision: 3, ignore: 'delete' });
      // It leaves out what it may; only what is left in the end can be said.
      const conflated = new Checker(store, 1);
      const loops = (['pause', 'conflate'] as const).map(async (overflow) => {
        const checker = overflow === 'pause' ? check(1) : conflated;
        const watch = client.watch(prefix('k'), { startRevision: 1, bufferedEventsMax: 3, overflow, onCompacted: 'relist' });
        for await (const emitted of watch) {
          if (overflow === 'pause') checker.take(emitted);
          else if (emitted.type === 'put') checker.copy.set(emitted.key, Number(emitted.kv.modRevision));
          else if (emitted.type === 'delete') checker.copy.delete(emitted.key);
          await new Promise<void>((resolve) => void runtime.timer(15, resolve));
        }
      });
      const ended = Promise.all(loops).catch((error: unknown) => failures.push(error));
      for (const { kind, count: amount } of steps) {
        if (kind === 'write') store.write(amount);
        if (kind === 'deliver') store.deliver();
        if (kind === 'progress') store.progress();
        if (kind === 'compact') store.compact();
        if (kind === 'cut') {
          await runtime.advance(amount);
          script.cut();
        }
        if (kind === 'wait') await runtime.advance(amount);
      }
      for (let round = 0; round < 100; round++) {
        store.deliver();
        await runtime.advance(50);
      }
      expect(failures).toEqual([]);
      for (const checker of checkers) checker.finish();
      expect(conflated.copy).toEqual(store.stateAt(store.revision));
      for (const checker of checkers) {
        resyncs += checker.resyncs;
        synthesised += checker.synthesised;
      }
      await client.close();
      await ended;
    }),
    { numRuns: 150 },
  );
  // Otherwise nothing of it was seen.
  expect(resyncs).toBeGreaterThan(100);
  expect(synthesised).toBeGreaterThan(300);
});
