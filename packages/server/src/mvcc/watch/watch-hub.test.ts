import {
  Event_EventType,
  KeyRange,
  type WatchCreateRequest,
  WatchCreateRequest_FilterType,
  WatchRequest,
  WatchResponse,
} from '@conclave/protocol';
import { type Runtime, silentLog, type Timer } from '@conclave/wire';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { eventOf, type RevisionEvents } from '../event.ts';
import { encodeKv, encodeTombstone, fieldsOf, keyOf } from '../key-value.ts';
import type { WatchSource } from './source.ts';
import { WatchHub, type WatchHubOptions } from './watch-hub.ts';
import { noWatch, type WatchStream } from './watch-stream.ts';

// ---- the world around the hub -------------------------------------------------------------------------------------------------------

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'latin1'));
const text = (raw: Uint8Array): string => Buffer.from(raw).toString('latin1');

/** Time that stands still until told otherwise. */
class StillRuntime implements Runtime {
  now = 0;
  readonly log = silentLog;
  #turn: (() => void)[] = [];
  #timers: { due: number; callback: () => void }[] = [];
  monotonic = (): number => this.now;
  boot = (): number => this.now;
  wall = (): number => this.now;
  random = (): number => 0;
  endOfTurn = (callback: () => void): void => void this.#turn.push(callback);
  timer = (delayMs: number, callback: () => void): Timer => {
    const entry = { due: this.now + delayMs, callback };
    this.#timers.push(entry);
    const cancel = (): void => {
      this.#timers = this.#timers.filter((other) => other !== entry);
    };
    return { cancel };
  };

  /** One turn of the loop; false when nothing was left to do. */
  turn(): boolean {
    const callbacks = this.#turn;
    this.#turn = [];
    for (const callback of callbacks) callback();
    return callbacks.length > 0;
  }

  settle(): void {
    for (let turns = 0; this.turn(); turns++) if (turns > 100_000) throw new Error('the hub never comes to rest');
  }

  advance(ms: number): void {
    this.now += ms;
    const due = this.#timers.filter((timer) => timer.due <= this.now);
    this.#timers = this.#timers.filter((timer) => timer.due > this.now);
    for (const { callback } of due) callback();
  }
}

interface Version {
  readonly revision: number;
  readonly kv: Uint8Array;
}

/** How reading history goes: what each read takes of the runtime's time, and how many revisions it gives at most. So slices end early. */
interface ReadPace {
  readonly msPerRead: number;
  readonly revisionsPerRead: number;
}

const atOnce: ReadPace = { msPerRead: 0, revisionsPerRead: Number.POSITIVE_INFINITY };

/** History in an array. */
class ArrayStore implements WatchSource {
  revision = 1;
  compactRevision = -1;
  isReadable = true;
  /** Nothing is ever taken out of here: tests compare with it. */
  readonly history: RevisionEvents[] = [];
  readonly #runtime: StillRuntime;
  readonly #pace: ReadPace;
  readonly #versions = new Map<string, Version[]>();
  readonly #listeners = new Set<(changes: RevisionEvents) => void>();
  readonly #replacedListeners = new Set<(before: number) => void>();

  constructor(runtime: StillRuntime, pace: ReadPace) {
    this.#runtime = runtime;
    this.#pace = pace;
  }

  onReplaced(listener: (before: number) => void): () => void {
    this.#replacedListeners.add(listener);
    return () => this.#replacedListeners.delete(listener);
  }

  onApplied(listener: (changes: RevisionEvents) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Puts (value given) and deletes (undefined) in one revision. Deleting what is not there does nothing. */
  write(changes: Readonly<Record<string, string | undefined>>): void {
    const applied = this.isReadable ? this.#append(changes) : undefined;
    if (applied !== undefined) for (const listener of this.#listeners) listener(applied);
  }

  /** A snapshot begins to take the place of history. */
  suspend(): void {
    this.isReadable = false;
  }

  /** It has: what was written elsewhere meanwhile is part of history, and nobody here was told of it. */
  replace(writes: readonly Readonly<Record<string, string | undefined>>[], compacted: number): void {
    const before = this.revision;
    for (const changes of writes) this.#append(changes);
    this.isReadable = true;
    this.compact(this.revision - compacted);
    for (const listener of this.#replacedListeners) listener(before);
  }

  #append(changes: Readonly<Record<string, string | undefined>>): RevisionEvents | undefined {
    const kvs: Uint8Array[] = [];
    const revision = this.revision + 1;
    for (const [key, value] of Object.entries(changes)) {
      const versions = this.#versions.get(key) ?? [];
      this.#versions.set(key, versions);
      const kv = nextVersion(key, value, versions.at(-1)?.kv, revision);
      if (kv === undefined) continue;
      versions.push({ revision, kv });
      kvs.push(kv);
    }
    if (kvs.length === 0) return undefined;
    this.revision = revision;
    const applied = { revision, events: kvs.map(eventOf) };
    this.history.push(applied);
    return applied;
  }

  put(key: string, value = 'v'): void {
    this.write({ [key]: value });
  }

  compact(revision: number): void {
    if (this.isReadable && revision > this.compactRevision && revision <= this.revision) this.compactRevision = revision;
  }

  eventsFrom(start: number, bounds: { readonly maxRevisions: number; readonly maxBytes: number }): readonly RevisionEvents[] {
    if (!this.isReadable) throw new Error('asked for history that is being replaced');
    if (start < this.compactRevision) throw new Error('asked for compacted history');
    this.#runtime.now += this.#pace.msPerRead;
    const maxRevisions = Math.min(bounds.maxRevisions, this.#pace.revisionsPerRead);
    const found = this.history.slice(Math.max(0, start - 2)).filter(({ revision }) => revision >= start);
    let size = 0;
    const kept = found.findIndex(({ events }, at) => {
      const full = at >= maxRevisions || (at > 0 && size >= bounds.maxBytes);
      size += events.reduce((sum, event) => sum + event.kv.length, 0);
      return full;
    });
    return kept < 0 ? found : found.slice(0, kept);
  }

  kvAt(key: Uint8Array, revision: number): Uint8Array | undefined {
    if (revision < this.compactRevision) return undefined;
    return this.versionBefore(text(key), revision + 1);
  }

  versionBefore(key: string, revision: number): Uint8Array | undefined {
    const kv = this.#versions.get(key)?.findLast((version) => version.revision < revision)?.kv;
    return kv === undefined || fieldsOf(kv).version === 0 ? undefined : kv;
  }
}

function nextVersion(key: string, value: string | undefined, last: Uint8Array | undefined, revision: number): Uint8Array | undefined {
  const before = last === undefined ? undefined : fieldsOf(last);
  const lives = before !== undefined && before.version > 0;
  if (value === undefined) return lives ? encodeTombstone(bytes(key), revision) : undefined;
  return encodeKv({
    key: bytes(key),
    value: bytes(value),
    createRevision: lives ? before.createRevision : revision,
    modRevision: revision,
    version: lives ? before.version + 1 : 1,
    lease: 0n,
  });
}

/** One caller: what it received, and whether it reads. */
class Caller {
  readonly received: WatchResponse[] = [];
  readonly stream: WatchStream;
  /** Writes that still fit. */
  room = Number.POSITIVE_INFINITY;

  constructor(hub: WatchHub) {
    this.stream = hub.open((response) => {
      this.received.push(WatchResponse.decode(response));
      this.room--;
      return this.room > 0;
    });
  }

  create(request: Partial<WatchCreateRequest>): bigint {
    const created = this.stream.create({ ...plainRequest, ...request });
    if ('refused' in created) throw new Error(created.refused);
    return created.watchId;
  }

  drain(room = Number.POSITIVE_INFINITY): void {
    this.room = room;
    this.stream.drained();
  }

  /** What came since the last call, in short. */
  take(): string[] {
    return this.received.splice(0).map(inShort);
  }
}

const plainRequest = WatchRequest.create({ createRequest: {} }).createRequest as WatchCreateRequest;

function inShort(response: WatchResponse): string {
  const { watchId, header, canceled, compactRevision, fragment, events } = response;
  const changes = events.map(({ type, kv, prevKv }) => {
    const prev = prevKv === undefined ? '' : ` was ${text(prevKv.value)}`;
    return `${type === Event_EventType.DELETE ? '-' : '+'}${text(kv!.key)}@${kv!.modRevision}${prev}`;
  });
  const flags = [canceled ? `canceled ${compactRevision}` : '', fragment ? 'fragment' : ''];
  return [`${watchId}/${header?.revision}`, ...flags, ...changes].filter((part) => part !== '').join(' ');
}

function world(options: Partial<WatchHubOptions> & Partial<ReadPace> = {}) {
  const { msPerRead, revisionsPerRead, ...rest } = { ...atOnce, ...options };
  const runtime = new StillRuntime();
  const store = new ArrayStore(runtime, { msPerRead, revisionsPerRead });
  const header = (revision: number) => ({ clusterId: 1n, memberId: 2n, revision, raftTerm: 3 });
  const hub = new WatchHub({ source: store, runtime, header, ...rest });
  return { runtime, store, hub, caller: () => new Caller(hub) };
}

// ---- one thing at a time ------------------------------------------------------------------------------------------------------------

describe('live events', () => {
  test('come once, in one response for all that a turn applied, with the revision of the last', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('a') });
    store.put('a', '1');
    store.put('b', '1');
    store.put('a', '2');
    store.put('b', '2');
    expect(take()).toEqual([]);
    runtime.settle();
    expect(take()).toEqual(['0/4 +a@2 +a@4']);
    runtime.settle();
    expect(take()).toEqual([]);
  });

  test('go to every range that holds the key and to no other', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('b') });
    create({ key: bytes('a'), rangeEnd: bytes('c') });
    create({ key: bytes('c'), rangeEnd: bytes('\0') });
    create({ key: bytes(''), rangeEnd: bytes('\0') });
    create({ key: bytes('b\0') });
    store.put('b');
    runtime.settle();
    expect(take().sort()).toEqual(['0/2 +b@2', '1/2 +b@2', '3/2 +b@2']);
  });

  test('an empty key means the lowest key', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('') });
    store.put('\0');
    store.put('a');
    runtime.settle();
    expect(take()).toEqual(['0/2 +\0@2']);
  });

  test('the bytes for watchers of equal keys, form and id are the same object', () => {
    const { runtime, store, hub } = world();
    const seen: Uint8Array[] = [];
    for (let n = 0; n < 3; n++) {
      hub
        .open((response) => {
          seen.push(response);
          return true;
        })
        .create({ ...plainRequest, key: bytes('a') });
    }
    store.put('a');
    runtime.settle();
    expect(seen).toHaveLength(3);
    expect(new Set(seen).size).toBe(1);
  });

  test('a batch that filters empty is not sent', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('a'), filters: [WatchCreateRequest_FilterType.NOPUT] });
    create({ key: bytes('a'), filters: [WatchCreateRequest_FilterType.NODELETE] });
    create({ key: bytes('a'), filters: [WatchCreateRequest_FilterType.NODELETE, WatchCreateRequest_FilterType.NOPUT, 7] });
    store.put('a');
    runtime.settle();
    expect(take()).toEqual(['1/2 +a@2']);
    store.write({ a: undefined });
    runtime.settle();
    expect(take()).toEqual(['0/3 -a@3']);
  });

  test('carry the previous value only where it is asked for, and none for a create', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('a'), prevKv: true });
    create({ key: bytes('a') });
    store.put('a', '1');
    store.put('a', '2');
    store.write({ a: undefined });
    runtime.settle();
    expect(take()).toEqual(['0/4 +a@2 +a@3 was 1 -a@4 was 2', '1/4 +a@2 +a@3 -a@4']);
  });

  test('of a large batch come in several responses, cut between revisions', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('a'), rangeEnd: bytes('\0') });
    const value = 'x'.repeat(600 * 1024);
    for (let n = 0; n < 3; n++) store.write({ a: value, b: value, c: value });
    store.write({ a: 'small' });
    runtime.settle();
    expect(take()).toEqual(['0/2 +a@2 +b@2 +c@2', '0/3 +a@3 +b@3 +c@3', '0/4 +a@4 +b@4 +c@4', '0/5 +a@5']);
  });
});

describe('history', () => {
  test('comes from the start revision on, then live events follow without a gap or a repeat', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    store.put('a');
    store.put('a');
    store.put('a');
    create({ key: bytes('a'), startRevision: 3 });
    store.put('a');
    runtime.settle();
    expect(take()).toEqual(['0/5 +a@3 +a@4 +a@5']);
    store.put('a');
    runtime.settle();
    expect(take()).toEqual(['0/6 +a@6']);
  });

  test('a start at the present revision gets that revision', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    store.put('a');
    create({ key: bytes('a'), startRevision: 2 });
    runtime.settle();
    expect(take()).toEqual(['0/2 +a@2']);
  });

  test('a future start gets nothing older, not even when it was put back to reading history', () => {
    const { runtime, store, caller } = world({ maxHeldBytes: 1 });
    const it = caller();
    it.create({ key: bytes('a'), startRevision: 4 });
    it.create({ key: bytes('a') });
    it.room = 1;
    for (let n = 0; n < 5; n++) {
      store.put('a');
      runtime.settle();
    }
    expect(it.take()).toEqual(['1/2 +a@2']);
    it.drain();
    runtime.settle();
    expect(it.take().sort()).toEqual(['0/6 +a@4 +a@5 +a@6', '1/6 +a@4 +a@5 +a@6', '1/3 +a@3'].sort());
  });

  test('comes at most 1000 revisions at a time', () => {
    const { runtime, store, caller } = world();
    for (let n = 0; n < 2500; n++) store.put('a');
    const it = caller();
    it.create({ key: bytes('a'), startRevision: 2 });
    runtime.settle();
    expect(it.received.map(({ events }) => events.length)).toEqual([1000, 1000, 500]);
    expect(it.received.flatMap(({ events }) => events.map(({ kv }) => kv!.modRevision))).toEqual(
      Array.from({ length: 2500 }, (_, n) => n + 2),
    );
  });

  test('is read in slices of at most 2 ms, with turns of the loop between them', () => {
    const { runtime, store, caller } = world({ msPerRead: 1.5 });
    for (let n = 0; n < 640; n++) store.put('a');
    const it = caller();
    it.create({ key: bytes('a'), startRevision: 1 });
    const slices: number[] = [];
    for (let before = runtime.now; runtime.turn(); before = runtime.now) slices.push(runtime.now - before);
    expect(Math.max(...slices)).toBeLessThanOrEqual(3);
    expect(slices.length).toBeGreaterThan(4);
    expect(it.received.flatMap(({ events }) => events)).toHaveLength(640);
  });

  test('is read once for all who need it', () => {
    const { runtime, store, caller } = world({ msPerRead: 1 });
    for (let n = 0; n < 1000; n++) store.put('a');
    const callers = Array.from({ length: 50 }, caller);
    for (const it of callers) it.create({ key: bytes('a'), startRevision: 1 });
    runtime.settle();
    expect(runtime.now).toBeLessThan(40);
    for (const it of callers) expect(it.received.flatMap(({ events }) => events)).toHaveLength(1000);
  });

  test('is read on for those who came first, and from the beginning for those who come later', () => {
    const { runtime, store, caller } = world({ msPerRead: 3, revisionsPerRead: 1 });
    for (let n = 0; n < 100; n++) store.put('a');
    const first = caller();
    first.create({ key: bytes('a'), startRevision: 50 });
    const later: Caller[] = [];
    for (let turn = 0; turn < 60; turn++) {
      runtime.turn();
      later.push(caller());
      later.at(-1)!.create({ key: bytes('a'), startRevision: 2 });
    }
    const revisions = (it: Caller) => it.received.flatMap(({ events }) => events.map(({ kv }) => kv!.modRevision));
    const from = (start: number) => Array.from({ length: 102 - start }, (_, n) => start + n);
    expect(revisions(first)).toEqual(from(50));
    runtime.settle();
    for (const it of later) expect(revisions(it)).toEqual(from(2));
  });

  test('that is compacted ends the watch with the compact revision, and its id stays taken until it is canceled', () => {
    const { runtime, store, caller } = world();
    const it = caller();
    for (let n = 0; n < 5; n++) store.put('a');
    store.compact(4);
    it.create({ key: bytes('a'), startRevision: 3 });
    runtime.settle();
    expect(it.take()).toEqual(['0/0 canceled 4']);
    store.put('a');
    runtime.settle();
    expect(it.take()).toEqual([]);
    expect(it.stream.create({ ...plainRequest, key: bytes('a'), watchId: 7n })).toEqual({ watchId: 7n, revision: 7 });
    expect(it.stream.cancel(0n)).toBe(true);
    expect(it.stream.cancel(0n)).toBe(false);
  });

  test('begins at the compact revision itself when asked for, without its previous value', () => {
    const { runtime, store, caller } = world();
    const it = caller();
    store.put('a', '1');
    store.put('a', '2');
    store.put('a', '3');
    store.compact(3);
    it.create({ key: bytes('a'), startRevision: 3, prevKv: true });
    runtime.settle();
    expect(it.take()).toEqual(['0/4 +a@3 +a@4 was 2']);
  });
});

describe('history that a snapshot replaces', () => {
  const skipped = [{ a: '5' }, { b: '6' }, { a: undefined }];

  test('is read on from where each watch was: nothing older comes again, nothing is left out', () => {
    const { runtime, store, caller } = world();
    const { create, take, stream } = bound(caller());
    store.put('a', '2');
    create({ key: bytes('a') });
    create({ key: bytes('a'), startRevision: 2 });
    create({ key: bytes('b'), startRevision: 6 });
    create({ key: bytes('a'), startRevision: 9 });
    store.put('a', '3');
    runtime.settle();
    expect(take().sort()).toEqual(['0/3 +a@3', '1/3 +a@2 +a@3']);
    store.put('a', '4');
    store.suspend();
    store.replace(skipped, 100);
    stream.requestProgress();
    expect(take().sort()).toEqual(['0/4 +a@4', '1/4 +a@4']);
    runtime.settle();
    expect(take().sort()).toEqual(['0/7 +a@5 -a@7', '1/7 +a@5 -a@7', '2/7 +b@6']);
    store.put('a', '8');
    store.put('a', '9');
    runtime.settle();
    expect(take().sort()).toEqual(['0/9 +a@8 +a@9', '1/9 +a@8 +a@9', '3/9 +a@9']);
  });

  test('cancels those whose next revision it has no more, with its compact revision', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('a') });
    create({ key: bytes('a'), startRevision: 6 });
    store.put('a');
    store.put('a');
    store.put('a');
    runtime.settle();
    expect(take()).toEqual(['0/4 +a@2 +a@3 +a@4']);
    store.suspend();
    store.replace(skipped, 1);
    expect(store.compactRevision).toBe(6);
    runtime.settle();
    expect(take().sort()).toEqual(['0/0 canceled 6', '1/7 -a@7']);
  });

  test('is not read while it is replaced, and nobody waits for it in vain', () => {
    const { runtime, store, caller } = world({ msPerRead: 1, revisionsPerRead: 1 });
    const { create, take } = bound(caller());
    for (let n = 0; n < 10; n++) store.put('a');
    create({ key: bytes('a'), startRevision: 2 });
    runtime.turn();
    expect(take()).toEqual(['0/11 +a@2 +a@3']);
    store.suspend();
    create({ key: bytes('a'), startRevision: 11 });
    runtime.settle();
    expect(take()).toEqual([]);
    store.replace([{ a: 'newer' }], 100);
    runtime.settle();
    expect(take().flatMap((response) => response.split(' ').slice(1))).toHaveLength(9 + 2);
  });

  test('twice in a row is no different', () => {
    const { runtime, store, caller } = world();
    const { create, take } = bound(caller());
    create({ key: bytes('a') });
    store.replace([{ a: '2' }], 100);
    store.replace([{ a: '3' }], 100);
    store.replace([], 100);
    runtime.settle();
    expect(take()).toEqual(['0/3 +a@2 +a@3']);
  });
});

describe('ids and refusals', () => {
  test('chosen ids count up and step over those in use', () => {
    const { caller } = world();
    const it = caller();
    expect(it.create({ key: bytes('a') })).toBe(0n);
    expect(it.create({ key: bytes('a'), watchId: 1n })).toBe(1n);
    expect(it.create({ key: bytes('a') })).toBe(2n);
    it.stream.cancel(0n);
    expect(it.create({ key: bytes('a') })).toBe(3n);
  });

  test('a duplicate id, an empty range and a negative start are refused', () => {
    const { caller } = world();
    const { stream } = caller();
    const create = (request: Partial<WatchCreateRequest>) => stream.create({ ...plainRequest, ...request });
    expect(create({ key: bytes('a'), watchId: 5n })).toEqual({ watchId: 5n, revision: 1 });
    expect(create({ key: bytes('a'), watchId: 5n })).toEqual({ refused: 'watch-id-duplicate', revision: 1 });
    expect(create({ key: bytes('b'), rangeEnd: bytes('a') })).toEqual({ refused: 'watch-range-empty', revision: 1 });
    expect(create({ key: bytes('b'), rangeEnd: bytes('b') })).toEqual({ refused: 'watch-range-empty', revision: 1 });
    expect(create({ key: bytes('b'), startRevision: -1 })).toEqual({ refused: 'compacted', revision: 1 });
  });

  test('a canceled watch gets nothing more, not even what was matched or held before', () => {
    const { runtime, store, caller } = world();
    const it = caller();
    it.create({ key: bytes('a') });
    it.create({ key: bytes('a') });
    it.room = 1;
    store.put('a');
    runtime.settle();
    it.take();
    store.put('a');
    runtime.settle();
    store.put('a');
    it.stream.cancel(0n);
    runtime.settle();
    it.drain();
    runtime.settle();
    expect(it.take()).toEqual(['1/2 +a@2', '1/3 +a@3', '1/4 +a@4']);
  });

  test('the end of one watch leaves others of the same keys alone', () => {
    const { runtime, store, caller } = world();
    const { create, take, stream } = bound(caller());
    for (const rangeEnd of ['', 'b']) {
      create({ key: bytes('a'), rangeEnd: bytes(rangeEnd) });
      create({ key: bytes('a'), rangeEnd: bytes(rangeEnd), prevKv: true });
    }
    stream.cancel(0n);
    stream.cancel(2n);
    store.put('a');
    runtime.settle();
    expect(take().sort()).toEqual(['1/2 +a@2', '3/2 +a@2']);
  });

  test('a stream that ends while it is written to ends alone', () => {
    const { runtime, store, hub, caller } = world();
    for (let n = 0; n < 5; n++) store.put('a');
    const brittle: WatchStream = hub.open(() => {
      brittle.close();
      return false;
    });
    const it = caller();
    for (const startRevision of [2, 3, 0]) brittle.create({ ...plainRequest, key: bytes('a'), startRevision });
    it.create({ key: bytes('a'), startRevision: 5 });
    runtime.settle();
    store.put('a');
    runtime.settle();
    expect(it.take()).toEqual(['0/6 +a@5 +a@6', '0/7 +a@7']);
  });

  test('a closed stream gets nothing more and leaves nothing behind', () => {
    const { runtime, store, hub, caller } = world();
    const it = caller();
    store.put('a');
    it.create({ key: bytes('a'), progressNotify: true });
    it.create({ key: bytes('a'), startRevision: 1 });
    it.stream.close();
    it.stream.close();
    store.put('a');
    runtime.settle();
    runtime.advance(10_000_000);
    expect(it.take()).toEqual([]);
    hub.close();
  });
});

describe('progress', () => {
  test('asked for: is told when every watch is up to date, after the events up to it', () => {
    const { runtime, store, caller } = world();
    const it = caller();
    it.create({ key: bytes('a') });
    it.create({ key: bytes('b') });
    store.put('a');
    it.stream.requestProgress();
    expect(it.take()).toEqual(['0/2 +a@2', '-1/2']);
    runtime.settle();
    expect(it.take()).toEqual([]);
  });

  test('asked for: nothing is told while a watch reads history or waits for a future revision, nor without a watch', () => {
    const { runtime, store, caller } = world();
    const [none, behind, future] = [caller(), caller(), caller()];
    store.put('a');
    behind.create({ key: bytes('a'), startRevision: 1 });
    future.create({ key: bytes('a'), startRevision: 4 });
    for (const it of [none, behind, future]) it.stream.requestProgress();
    expect([none, behind, future].flatMap((it) => it.take())).toEqual([]);
    store.put('b');
    runtime.settle();
    for (const it of [none, behind, future]) it.stream.requestProgress();
    expect([none, behind, future].flatMap((it) => it.take())).toEqual(['0/3 +a@2', '-1/3', '-1/3']);
  });

  test('asked for on a stream that does not drain: is told after the events that wait', () => {
    const { runtime, store, caller } = world();
    const it = caller();
    it.create({ key: bytes('a') });
    it.room = 1;
    store.put('a');
    runtime.settle();
    store.put('a');
    it.stream.requestProgress();
    expect(it.take()).toEqual(['0/2 +a@2']);
    it.drain();
    expect(it.take()).toEqual(['0/3 +a@3', '-1/3']);
  });

  test('by the clock: goes to each watch that asked for it and had no events since', () => {
    const { runtime, store, caller } = world({ progressIntervalMs: 1000 });
    const it = caller();
    it.create({ key: bytes('a'), progressNotify: true });
    it.create({ key: bytes('b'), progressNotify: true });
    it.create({ key: bytes('c') });
    it.create({ key: bytes('c'), startRevision: 9, progressNotify: true });
    store.put('a');
    runtime.settle();
    it.take();
    runtime.advance(1000);
    expect(it.take()).toEqual(['1/2']);
    runtime.advance(1000);
    expect(it.take()).toEqual(['0/2', '1/2']);
  });

  test('the interval is at least 100 ms', () => {
    const { runtime, caller } = world({ progressIntervalMs: 1 });
    const it = caller();
    it.create({ key: bytes('a'), progressNotify: true });
    runtime.advance(99);
    expect(it.take()).toEqual([]);
    runtime.advance(1);
    expect(it.take()).toEqual(['0/1']);
  });
});

describe('a stream that does not drain', () => {
  test('holds a bounded amount, then goes back to history, and misses nothing', () => {
    const { runtime, store, caller } = world({ maxHeldBytes: 1000 });
    const it = caller();
    it.create({ key: bytes('a') });
    it.room = 1;
    for (let n = 0; n < 300; n++) {
      store.put('a', 'x'.repeat(100));
      runtime.settle();
    }
    expect(it.received).toHaveLength(1);
    it.drain(5);
    runtime.settle();
    expect(it.received).toHaveLength(6);
    it.drain();
    runtime.settle();
    expect(it.received.flatMap(({ events }) => events.map(({ kv }) => kv!.modRevision))).toEqual(
      Array.from({ length: 300 }, (_, n) => n + 2),
    );
  });

  test('that fills up while history is read for many misses nothing', () => {
    const { runtime, store, caller } = world({ maxHeldBytes: 1 });
    for (let n = 0; n < 3; n++) store.put('a');
    const it = caller();
    it.room = 1;
    for (let n = 0; n < 4; n++) it.create({ key: bytes('a'), startRevision: 2 });
    runtime.settle();
    expect(it.take()).toEqual(['0/4 +a@2 +a@3 +a@4']);
    it.drain();
    runtime.settle();
    expect(it.take()).toEqual(['1/4 +a@2 +a@3 +a@4', '2/4 +a@2 +a@3 +a@4', '3/4 +a@2 +a@3 +a@4']);
  });

  test('is told that its history was compacted meanwhile, after what it held', () => {
    const { runtime, store, caller } = world({ maxHeldBytes: 1 });
    const it = caller();
    it.create({ key: bytes('a') });
    it.room = 1;
    for (let n = 0; n < 10; n++) {
      store.put('a');
      runtime.settle();
    }
    store.compact(9);
    it.drain();
    runtime.settle();
    expect(it.take()).toEqual(['0/2 +a@2', '0/3 +a@3', '0/0 canceled 9']);
  });

  test('does not hold up others', () => {
    const { runtime, store, caller } = world({ maxHeldBytes: 1 });
    const [slow, quick] = [caller(), caller()];
    for (const it of [slow, quick]) it.create({ key: bytes('a') });
    slow.room = 1;
    for (let n = 0; n < 10; n++) {
      store.put('a');
      runtime.settle();
    }
    expect(quick.take()).toHaveLength(10);
  });

  test('counts the replies it is sent meanwhile', () => {
    const { caller } = world();
    const it = caller();
    it.room = 1;
    for (let n = 0; n < 3; n++) it.stream.reply(WatchResponse.encode({ watchId: 1n }));
    expect(it.stream.unreadReplies).toBe(2);
    it.drain();
    expect(it.stream.unreadReplies).toBe(0);
  });
});

describe('fragments', () => {
  const big = 'x'.repeat(400);

  test('split a response that would reach the bound, every part but the last marked', () => {
    const { runtime, store, caller } = world({ fragmentBytes: 1000 });
    const it = caller();
    it.create({ key: bytes('a'), rangeEnd: bytes('z'), fragment: true });
    it.create({ key: bytes('a'), rangeEnd: bytes('z') });
    store.write({ a: big, b: big, c: big });
    store.write({ d: 'small' });
    runtime.settle();
    expect(it.take()).toEqual(['0/3 fragment +a@2 +b@2', '0/3 +c@2 +d@3', '1/3 +a@2 +b@2 +c@2 +d@3']);
  });

  test('never split a single event', () => {
    const { runtime, store, caller } = world({ fragmentBytes: 100 });
    const it = caller();
    it.create({ key: bytes('a'), rangeEnd: bytes('z'), fragment: true });
    store.write({ a: big, b: big });
    runtime.settle();
    expect(it.take()).toEqual(['0/2 fragment +a@2', '0/2 +b@2']);
  });

  test('of one response stay together when the stream fills up between them', () => {
    const { runtime, store, caller } = world({ fragmentBytes: 100, maxHeldBytes: 1 });
    const it = caller();
    it.create({ key: bytes('a'), rangeEnd: bytes('z'), fragment: true });
    it.room = 1;
    store.write({ a: big, b: big, c: big });
    runtime.settle();
    expect(it.take()).toEqual(['0/2 fragment +a@2']);
    store.put('d');
    runtime.settle();
    it.drain(1);
    expect(it.take()).toEqual(['0/2 fragment +b@2']);
    it.drain();
    runtime.settle();
    expect(it.take()).toEqual(['0/2 +c@2', '0/3 +d@3']);
  });
});

function bound(caller: Caller) {
  return { create: caller.create.bind(caller), take: caller.take.bind(caller), stream: caller.stream };
}

// ---- everything at once -------------------------------------------------------------------------------------------------------------

const keyNames = ['a', 'ab', 'b', 'c', 'c\0', 'd'];
const keyName = fc.constantFrom(...keyNames);
const endName = fc.constantFrom('', '', '\0', 'b', 'c', 'cc', 'd', 'e');
const callerNumber = fc.integer({ min: 0, max: 2 });

type Command =
  | { readonly op: 'write'; readonly changes: Record<string, string | undefined> }
  | { readonly op: 'turn' | 'settle' | 'tick' }
  | { readonly op: 'compact'; readonly back: number }
  | { readonly op: 'suspend' }
  | { readonly op: 'replace'; readonly writes: readonly Record<string, string | undefined>[]; readonly back: number }
  | {
      readonly op: 'create';
      readonly caller: number;
      readonly request: Partial<WatchCreateRequest>;
      readonly startOffset: number | undefined;
    }
  | { readonly op: 'cancel'; readonly caller: number; readonly nth: number }
  | { readonly op: 'progress'; readonly caller: number }
  | { readonly op: 'room'; readonly caller: number; readonly room: number };

const changesOfKeys = fc.dictionary(keyName, fc.option(fc.string({ maxLength: 40, minLength: 0 }), { nil: undefined }), {
  minKeys: 1,
  maxKeys: 3,
});

const commands: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ op: fc.constant('write' as const), changes: changesOfKeys }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('suspend' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('replace' as const),
      writes: fc.array(changesOfKeys, { maxLength: 5 }),
      back: fc.integer({ min: 0, max: 20 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constantFrom('turn' as const, 'turn' as const, 'settle' as const, 'tick' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('compact' as const), back: fc.integer({ min: 0, max: 10 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('create' as const),
      caller: callerNumber,
      startOffset: fc.option(fc.integer({ min: -12, max: 4 }), { nil: undefined }),
      request: fc.record({
        key: fc.constantFrom('', ...keyNames).map(bytes),
        rangeEnd: endName.map(bytes),
        prevKv: fc.boolean(),
        fragment: fc.boolean(),
        progressNotify: fc.boolean(),
        filters: fc.subarray([0, 1]),
      }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('cancel' as const), caller: callerNumber, nth: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('progress' as const), caller: callerNumber }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('room' as const), caller: callerNumber, room: fc.integer({ min: 1, max: 6 }) }) },
);

interface Expected {
  readonly request: WatchCreateRequest;
  readonly start: number;
  /** Where in the caller's responses its own begin; anything before would precede the reply. */
  readonly since: number;
  canceledAt: number | undefined;
}

/** What a watch from `start` to `until` must have got: the changes it wants, by revision. */
function wanted(store: ArrayStore, { request, start }: Expected, until: number): Map<number, string[]> {
  const key = request.key.length === 0 ? bytes('\0') : request.key;
  const range = KeyRange.fromWire(key, request.rangeEnd);
  const result = new Map<number, string[]>();
  for (const { revision, events } of store.history) {
    if (revision < start || revision > until) continue;
    const mine = events.filter(({ type, kv }) => range.contains(keyOf(kv)) && !request.filters.includes(type));
    if (mine.length > 0)
      result.set(
        revision,
        mine.map(({ type, kv }) => `${type} ${text(kv)}`),
      );
  }
  return result;
}

const change = (event: WatchResponse['events'][number]): string => {
  const { kv } = event;
  const stored = event.type === Event_EventType.DELETE ? encodeTombstone(kv!.key, kv!.modRevision) : encodeKv(kv!);
  return `${event.type} ${text(stored)}`;
};

/** Checks everything that was promised to one watch. */
function validate(store: ArrayStore, responses: readonly WatchResponse[], watch: Expected): void {
  const got = new Map<number, string[]>();
  let last = 0;
  let open = false;
  let compacted: number | undefined;
  for (const response of responses) {
    if (compacted !== undefined && response.watchId === noWatch) continue;
    expect(compacted, 'nothing follows a cancellation').toBeUndefined();
    if (response.canceled) {
      compacted = response.compactRevision;
      expect(response.header?.revision).toBe(0);
      continue;
    }
    if (response.events.length === 0) {
      // Progress: all up to here was told, to those that are still open.
      expect([...got.keys()], 'progress overtakes nothing').toEqual([...wanted(store, watch, response.header!.revision).keys()]);
      continue;
    }
    expect(response.header!.revision).toBeGreaterThanOrEqual(response.events.at(-1)!.kv!.modRevision);
    const first = response.events[0]!.kv!.modRevision;
    // Atomic: a revision goes on in the next response only if this one is a fragment.
    expect(open ? first >= last : first > last, 'ordered, unique and atomic').toBe(true);
    for (const event of response.events) {
      const revision = event.kv!.modRevision;
      expect(revision).toBeGreaterThanOrEqual(last);
      last = revision;
      got.set(revision, [...(got.get(revision) ?? []), change(event)]);
      validatePrev(store, watch.request, event);
    }
    open = response.fragment;
    expect(open && !watch.request.fragment).toBe(false);
  }
  expect(open && watch.canceledAt === undefined, 'a fragment has an end').toBe(false);
  const all = [...wanted(store, watch, store.revision)];
  // A cancel may come between two fragments; the rest of that revision is then not sent.
  const had = [...got].slice(0, open ? -1 : undefined);
  expect(had, 'reliable').toEqual(all.slice(0, had.length));
  if (watch.canceledAt !== undefined) return;
  const missing = all[had.length]?.[0];
  if (compacted === undefined) expect(missing).toBeUndefined();
  else expect(Math.max(watch.start, last)).toBeLessThan(compacted);
}

function validatePrev(store: ArrayStore, request: WatchCreateRequest, event: WatchResponse['events'][number]): void {
  const { key, modRevision } = event.kv!;
  const before = store.versionBefore(text(key), modRevision);
  if (!request.prevKv) expect(event.prevKv).toBeUndefined();
  else if (event.prevKv !== undefined) expect(text(encodeKv(event.prevKv))).toBe(text(before!));
  else expect(before === undefined || modRevision - 1 < store.compactRevision).toBe(true);
}

test('whatever happens, every watch gets everything it asked for, in order and once, or is told that it is compacted', () => {
  const pace = fc.record({ msPerRead: fc.constantFrom(0, 0.7, 3), revisionsPerRead: fc.constantFrom(1, 4, 100) });
  const bounds = fc.record({ maxHeldBytes: fc.constantFrom(1, 200, 5000), fragmentBytes: fc.constantFrom(60, 200, 5000) });
  fc.assert(
    fc.property(bounds, pace, fc.array(commands, { minLength: 10, maxLength: 120 }), (options, reading, script) => {
      const { runtime, store, caller } = world({ ...options, ...reading, progressIntervalMs: 1000 });
      const callers = [caller(), caller(), caller()];
      const watches = callers.map(() => new Map<bigint, Expected>());
      for (const command of script) run(command, { runtime, store, callers, watches });
      if (!store.isReadable) store.replace([], 100);
      for (const it of callers) it.drain();
      runtime.settle();
      for (const [n, it] of callers.entries()) {
        for (const [id, watch] of watches[n]!) {
          const mine = (response: WatchResponse) => response.watchId === id;
          expect(it.received.slice(0, watch.since).some(mine), 'nothing comes before the reply').toBe(false);
          const told = it.received.filter((response) => mine(response) || isProgressOf(it, watch, response));
          validate(store, told, watch);
          if (watch.canceledAt !== undefined)
            expect(it.received.slice(watch.canceledAt).some(mine), 'nothing follows a cancel').toBe(false);
        }
      }
    }),
    { numRuns: 400 },
  );
});

/** Progress of the whole stream counts for the watches that were open then. */
function isProgressOf(it: Caller, watch: Expected, response: WatchResponse): boolean {
  const at = it.received.indexOf(response);
  return response.watchId === noWatch && at >= watch.since && (watch.canceledAt === undefined || at < watch.canceledAt);
}

interface Scene {
  readonly runtime: StillRuntime;
  readonly store: ArrayStore;
  readonly callers: readonly Caller[];
  readonly watches: readonly Map<bigint, Expected>[];
}

function run(command: Command, { runtime, store, callers, watches }: Scene): void {
  switch (command.op) {
    case 'write':
      store.write(command.changes);
      break;
    case 'turn':
      runtime.turn();
      break;
    case 'settle':
      runtime.settle();
      break;
    case 'tick':
      runtime.advance(1000);
      break;
    case 'compact':
      store.compact(store.revision - command.back);
      break;
    case 'suspend':
      store.suspend();
      break;
    case 'replace':
      store.replace(command.writes, command.back);
      break;
    case 'progress':
      callers[command.caller]!.stream.requestProgress();
      break;
    case 'room':
      callers[command.caller]!.drain(command.room);
      break;
    case 'cancel':
      runCancel(callers[command.caller]!, [...watches[command.caller]!][command.nth]);
      break;
    case 'create':
      runCreate(command, store, callers[command.caller]!, watches[command.caller]!);
  }
}

function runCancel(caller: Caller, [id, watch]: [bigint, Expected] | [] = []): void {
  if (id === undefined || watch?.canceledAt !== undefined) return;
  expect(caller.stream.cancel(id)).toBe(true);
  watch!.canceledAt = caller.received.length;
}

function runCreate(command: Command & { op: 'create' }, store: ArrayStore, caller: Caller, mine: Map<bigint, Expected>): void {
  const startRevision = command.startOffset === undefined ? 0 : Math.max(1, store.revision + command.startOffset);
  const request = { ...plainRequest, ...command.request, startRevision };
  const created = caller.stream.create(request);
  if ('refused' in created) {
    expect(created.refused).toBe('watch-range-empty');
    return;
  }
  expect(created.revision).toBe(store.revision);
  const start = startRevision === 0 ? store.revision + 1 : startRevision;
  mine.set(created.watchId, { request, start, since: caller.received.length, canceledAt: undefined });
}
