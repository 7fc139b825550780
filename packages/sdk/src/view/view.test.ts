import {
  type Init,
  KV,
  Maintenance,
  RangeRequest,
  RangeResponse,
  StatusResponse,
  TxnRequest,
  TxnResponse,
  WatchRequest,
  WatchResponse,
  type KeyValue as WireKeyValue,
} from '@conclave/protocol';
import { allKeys, fromKey, prefix, range, type Target, type View, type ViewChange, type ViewOptions, type ViewResync } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { beforeEach, describe, expect, test } from 'vitest';

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
const text = (data: Uint8Array | undefined): string => Buffer.from(data ?? []).toString();

type Wire = Init<WireKeyValue>;
const put = (key: string, revision: number, version = 1, value = `${revision}`): Wire => ({
  key: bytes(key),
  value: bytes(value),
  modRevision: revision,
  createRevision: revision,
  version,
});

let scripted: ScriptedClient;

/** What the scripted server answers by itself. A test changes what it is about. */
let store: {
  version: string;
  revision: number;
  /** What a list of the range that begins with this key finds. */
  listed: Record<string, readonly Wire[]>;
  /** Whether watches are answered with `created`, and what becomes of a request for progress. */
  stands: boolean;
  onProgress: (stream: ScriptedStream) => void;
  /** What a look finds in the range that begins with this key. */
  look: (key: string, since: number) => { written: number; count: number };
};

const decoded = (stream: ScriptedStream): WatchRequest[] => stream.written.map((written) => WatchRequest.decode(written));
const send = (stream: ScriptedStream, response: Parameters<typeof WatchResponse.encode>[0]): void =>
  stream.send(WatchResponse.encode(response));
const progress = (stream: ScriptedStream, revision = store.revision): void => send(stream, { header: { revision }, watchId: -1n });
const events = (stream: ScriptedStream, watch: number, ...changes: readonly (Wire | { readonly deleted: string; readonly at: number })[]) =>
  send(stream, {
    watchId: BigInt(watch),
    events: changes.map((change) =>
      'deleted' in change ? { type: 1, kv: { key: bytes(change.deleted), modRevision: change.at } } : { kv: change },
    ),
  });

function onCall(call: ScriptedCall): void {
  const header = { revision: store.revision };
  if (call.path === Maintenance.methods.status.path) call.reply(StatusResponse.encode({ version: store.version }));
  else if (call.path === KV.methods.range.path) {
    const { key, keysOnly } = RangeRequest.decode(call.request);
    const kvs = keysOnly ? [] : (store.listed[text(key)] ?? []);
    call.reply(RangeResponse.encode({ header, kvs, count: kvs.length }));
  } else {
    const responses = TxnRequest.decode(call.request).success.map(({ requestRange }) => {
      const { written, count } = store.look(text(requestRange?.key), requestRange?.minModRevision ?? 0);
      return { responseRange: { count, kvs: Array.from({ length: Math.min(1, written) }, () => ({ key: bytes('x') })) } };
    });
    call.reply(TxnResponse.encode({ header, responses }));
  }
}

function onStream(stream: ScriptedStream): void {
  stream.onWrite = (written) => {
    const { createRequest, progressRequest } = WatchRequest.decode(written);
    if (progressRequest !== undefined) store.onProgress(stream);
    else if (createRequest !== undefined && store.stands)
      send(stream, { header: { revision: store.revision }, watchId: createRequest.watchId, created: true });
  };
}

beforeEach(async () => {
  scripted = await scriptedClient();
  store = {
    version: '3.5.30',
    revision: 10,
    listed: {},
    stands: true,
    onProgress: (stream) => progress(stream),
    look: () => expect.unreachable('it is not looked at'),
  };
  scripted.script.onCall = onCall;
  scripted.script.onStream = onStream;
});

const open = (targets: Target | readonly Target[] = prefix('k'), options: ViewOptions = {}): Promise<View<never>> =>
  scripted.runtime.run(scripted.client.view(targets, options));

/** The changes of a view, and its states, as they come. */
function follow(view: View) {
  const seen: string[] = [];
  const states: string[] = [];
  const record = { seen, states, error: undefined as unknown };
  view.changes().subscribe({
    next: (change) => seen.push(shown(change)),
    error: (error: unknown) => {
      record.error = error;
    },
  });
  view.status().subscribe((status) => states.push(status.state === 'stale' ? status.reason : status.state));
  return record;
}

const shown = (change: ViewChange | ViewResync): string =>
  change.type === 'resync'
    ? 'resync'
    : `${change.type} ${(change.kv ?? change.old).key} ${change.old?.value ?? '-'}>${change.kv?.value ?? '-'}`;

const stream = (): ScriptedStream => scripted.script.stream;
const settle = (): Promise<void> => scripted.runtime.advance(0);

describe('making a view', () => {
  test('reads page by page at the revision of the first, and begins again when that is compacted', async () => {
    const requests: { key: string; revision: number }[] = [];
    scripted.script.onCall = (call) => {
      if (call.path !== KV.methods.range.path) return onCall(call);
      const { key, revision } = RangeRequest.decode(call.request);
      requests.push({ key: text(key), revision });
      const header = { revision: 10 + requests.length };
      if (requests.length === 2) call.end(11, { message: 'etcdserver: mvcc: required revision has been compacted' });
      else if (text(key) === 'k') call.reply(RangeResponse.encode({ header, kvs: [put('k1', 5)], more: true }));
      else call.reply(RangeResponse.encode({ header, kvs: [put('k2', 6)] }));
    };
    const view = await open();
    expect(requests).toEqual([
      { key: 'k', revision: 0 },
      { key: 'k1\0', revision: 11 },
      { key: 'k', revision: 0 },
      { key: 'k1\0', revision: 13 },
    ]);
    expect(view.revision).toBe(13n);
    expect([...view.values()].map(({ key }) => key)).toEqual(['k1', 'k2']);
  });

  test('watches from what was read on, one revision early, so that the server can speak of progress', async () => {
    store.listed = { k: [put('k', 10)] };
    const view = await open();
    expect(decoded(stream())[0]?.createRequest).toMatchObject({ key: bytes('k'), rangeEnd: bytes('l'), startRevision: 10, fragment: true });
    const { seen } = follow(view);
    events(stream(), 1, put('k', 10), put('k', 11, 2));
    await settle();
    expect(seen).toEqual(['changed k 10>11']);
  });

  test.each([
    ['nothing', [], {}],
    ['a range without room', range('b', 'a'), {}],
    ['a key twice', ['k', 'k'], {}],
    ['a key and its prefix', ['k', prefix('k')], {}],
    ['everything and something', [allKeys(), 'x'], {}],
    ['two open ends', [fromKey('a'), fromKey('b')], {}],
    ['too short a time to be stale', 'k', { staleAfterMs: 999 }],
  ] as const)('of %s is refused', async (_name, targets, options) => {
    await expect(open(targets, options)).rejects.toMatchObject({ code: 'invalid-argument' });
    expect(scripted.script.calls).toHaveLength(0);
  });

  test('ends at its deadline, by its signal, and with what the server refuses; nothing is left behind', async () => {
    store.stands = false;
    await expect(open('k', { deadlineMs: 300 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
    expect(stream().isCancelled).toBe(true);
    const controller = new AbortController();
    const opening = expect(scripted.client.view('k', { signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled' });
    await settle();
    controller.abort();
    await scripted.runtime.run(opening);
    await expect(open('k', { signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled' });
    scripted.script.onCall = (call) => call.end(7, { message: 'etcdserver: permission denied' });
    await expect(open()).rejects.toMatchObject({ code: 'permission-denied' });
    const calls = scripted.script.calls.length;
    await scripted.runtime.advance(60_000);
    expect(scripted.script.calls).toHaveLength(calls);
  });
});

describe('the state', () => {
  test('is stale when the server does not say for long that the view is up to date, and synced when it does', async () => {
    const view = await open('k', { staleAfterMs: 3_000 });
    const { states } = follow(view);
    await scripted.runtime.advance(60_000);
    expect(states).toEqual(['synced']);
    store.onProgress = () => {};
    await scripted.runtime.advance(2_000);
    expect(states).toEqual(['synced']);
    await scripted.runtime.advance(3_000);
    expect(states).toEqual(['synced', 'silent']);
    store.onProgress = (stream) => progress(stream);
    await scripted.runtime.advance(1_100);
    expect(states).toEqual(['synced', 'silent', 'synced']);
  });

  test('is stale from a break until the server says that nothing is missing', async () => {
    const view = await open();
    const { states } = follow(view);
    store.revision = 20;
    store.onProgress = () => {};
    scripted.script.cut();
    await scripted.runtime.advance(2_000);
    expect(decoded(stream())[0]?.createRequest).toMatchObject({ startRevision: 10 });
    expect(states).toEqual(['synced', 'disconnected']);
    progress(stream(), 15);
    await settle();
    expect(states).toEqual(['synced', 'disconnected', 'synced']);
    expect(view.revision).toBe(15n);
    // What is known to have been told is not asked for again.
    scripted.script.cut();
    await scripted.runtime.advance(2_000);
    expect(decoded(stream())[0]?.createRequest).toMatchObject({ startRevision: 15 });
  });

  test('is failed when the watch is refused for good, and everything tells why', async () => {
    const view = await open();
    const record = follow(view);
    const waiting = expect(view.reach({ atLeast: 99n })).rejects.toMatchObject({ code: 'permission-denied' });
    send(stream(), { watchId: 1n, canceled: true, cancelReason: 'etcdserver: permission denied' });
    await scripted.runtime.run(waiting);
    expect(view.state).toMatchObject({ state: 'failed', error: { code: 'permission-denied' } });
    expect(record.error).toMatchObject({ code: 'permission-denied' });
    expect(() => view.get('k')).toThrow(expect.objectContaining({ code: 'permission-denied' }));
    expect(follow(view).error).toMatchObject({ code: 'permission-denied' });
  });
});

describe('a word of progress', () => {
  test('that nobody asked for counts too, one that comes before all watches stand does not', async () => {
    const view = await open(['a', 'b']);
    progress(stream(), 12);
    await settle();
    expect(view.revision).toBe(12n);
    store.stands = false;
    scripted.script.cut();
    await scripted.runtime.advance(2_000);
    send(stream(), { watchId: 1n, created: true });
    progress(stream(), 20);
    await settle();
    expect(view.revision).toBe(12n);
  });

  test('is not believed of servers where it overtakes events: a view waits for these', async () => {
    store.version = '3.4.23';
    store.look = () => ({ written: 1, count: 1 });
    const view = await open('k');
    const { seen } = follow(view);
    store.revision = 12;
    progress(stream(), 12);
    await settle();
    expect(view.revision).toBe(10n);
    events(stream(), 1, put('k', 11));
    await settle();
    expect(seen).toEqual(['added k ->11']);
  });

  test.each([
    ['3.3.27', false],
    ['3.4.24', false],
    ['3.4.25', true],
    ['3.5.0-rc.1', false],
    ['3.5.7', false],
    ['3.5.8', true],
    ['3.6.0', true],
    ['4.0.0', true],
    ['unheard of', false],
  ])('of version %s is believed: %s', async (version, isBelieved) => {
    store.version = version;
    store.look = () => ({ written: 0, count: 0 });
    const view = await open('k');
    store.revision = 12;
    progress(stream(), 12);
    await settle();
    expect(view.revision).toBe(isBelieved ? 12n : 10n);
  });

  test('is not believed either when the member does not say what it is', async () => {
    scripted.script.onCall = (call) => {
      if (call.path === Maintenance.methods.status.path) call.end(7, { message: 'etcdserver: permission denied' });
      else onCall(call);
    };
    store.look = () => ({ written: 0, count: 0 });
    const view = await open('k');
    store.revision = 12;
    progress(stream(), 12);
    await settle();
    expect(view.revision).toBe(10n);
  });
});

describe('a look at the ranges', () => {
  beforeEach(() => {
    store.version = '3.4.23';
    store.look = (key) => ({ written: 0, count: store.listed[key]?.length ?? 0 });
  });

  test('that finds nothing new and nothing missing takes the view along', async () => {
    store.listed = { k: [put('k1', 5), put('k2', 6)] };
    const view = await open();
    events(stream(), 1, put('k1', 20, 2));
    await settle();
    store.revision = 50;
    let since = 0;
    store.look = (_key, asked) => {
      since = asked;
      return { written: 0, count: 2 };
    };
    expect(await scripted.runtime.run(view.reach({ atLeast: 50n }))).toBe(50n);
    expect(since).toBe(21);
  });

  test('that misses a key waits for the deletion', async () => {
    store.listed = { k: [put('k1', 5), put('k2', 6)] };
    const view = await open();
    store.revision = 50;
    store.look = () => ({ written: 0, count: 1 });
    const reaching = view.reach({ atLeast: 50n });
    await scripted.runtime.advance(1_000);
    expect(view.revision).toBe(10n);
    events(stream(), 1, { deleted: 'k1', at: 40 });
    expect(await scripted.runtime.run(reaching)).toBe(50n);
    expect(view.size).toBe(1);
  });

  test('counts what waits for other ranges, too', async () => {
    const view = await open(['a', 'b']);
    store.revision = 30;
    store.look = (key) => (key === 'a' ? { written: 0, count: 1 } : { written: 1, count: 1 });
    events(stream(), 1, put('a', 20));
    await scripted.runtime.advance(500);
    expect(view.size).toBe(0);
    events(stream(), 2, put('b', 25));
    await settle();
    expect([...view.values()].map(({ key }) => key)).toEqual(['a', 'b']);
    expect(view.revision).toBe(25n);
  });

  test('says nothing of a range of which something was told meanwhile', async () => {
    const view = await open();
    store.revision = 50;
    // A key came and went: the look shows neither, but its coming is told before the answer is here.
    let held: ScriptedCall | undefined;
    scripted.script.onCall = (call) => {
      if (call.path === KV.methods.txn.path && held === undefined) held = call;
      else onCall(call);
    };
    const reaching = view.reach({ atLeast: 50n });
    await settle();
    events(stream(), 1, put('k1', 41));
    await settle();
    if (held !== undefined) onCall(held);
    await settle();
    expect(view.revision).toBe(41n);
    events(stream(), 1, { deleted: 'k1', at: 42 });
    expect(await scripted.runtime.run(reaching)).toBe(50n);
    expect(view.size).toBe(0);
  });
});

describe('several targets', () => {
  test('show what happened to one only when the others are known to have come as far', async () => {
    store.onProgress = () => {};
    const view = await open(['a', 'b']);
    const { seen } = follow(view);
    events(stream(), 1, put('a', 12), put('a', 14, 2));
    await scripted.runtime.advance(100);
    expect(seen).toEqual([]);
    events(stream(), 2, put('b', 12));
    await settle();
    expect(seen).toEqual(['added a ->12', 'added b ->12']);
    expect(view.revision).toBe(12n);
    progress(stream(), 20);
    await settle();
    expect(seen.slice(2)).toEqual(['changed a 12>14']);
    expect(view.revision).toBe(20n);
  });

  test('are told in the order of their revisions, and all is done before the first is told', async () => {
    const view = await open(['a', 'b']);
    const contents: string[] = [];
    view.changes().subscribe((change) => contents.push(`${change.revision}: ${[...view.values()].map(({ value }) => value).join()}`));
    store.onProgress = () => {};
    events(stream(), 1, put('a', 11), put('a', 13, 2));
    events(stream(), 2, put('b', 12), put('b', 14, 2));
    await settle();
    progress(stream(), 14);
    await settle();
    expect(contents).toEqual(['11: 13,12', '12: 13,12', '13: 13,12', '14: 13,14']);
  });
});

describe('reading', () => {
  test('is answered at once when the view is new enough, and otherwise by one linearizable read and the wait for it', async () => {
    const view = await open(prefix('k'));
    const reads = (): number => scripted.script.calls.filter(({ path }) => path === KV.methods.range.path).length;
    expect(reads()).toBe(1);
    await scripted.runtime.advance(400);
    expect(await scripted.runtime.run(view.get('k', { maxStaleMs: 500 }))).toBeUndefined();
    expect(reads()).toBe(1);
    await scripted.runtime.advance(200);
    store.revision = 30;
    const reading = view.get('k', { maxStaleMs: 500 });
    store.onProgress = (stream) => {
      events(stream, 1, put('k', 25));
      progress(stream, 30);
    };
    expect((await scripted.runtime.run(reading))?.value).toBe('25');
    expect(reads()).toBe(2);
    await scripted.runtime.run(view.get('k', { maxStaleMs: 500 }));
    expect(reads()).toBe(2);
    await scripted.runtime.run(view.get('k', { maxStaleMs: 0 }));
    expect(reads()).toBe(3);
    // Of one key: the server would count those of a range.
    const last = scripted.script.calls.filter(({ path }) => path === KV.methods.range.path).at(-1);
    expect(RangeRequest.decode(last?.request ?? new Uint8Array(0))).toMatchObject({
      key: bytes('k'),
      rangeEnd: bytes(''),
      serializable: false,
    });
  });

  test('takes only what makes sense', async () => {
    const view = await open('k');
    await expect(view.reach({ atLeast: -1 })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(view.reach({ maxStaleMs: -1 })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(view.reach({ atLeast: 99, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'cancelled' });
    expect(() => view.get('l')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    expect(() => view.get('')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });

  test('an unanswered request for progress is made again', async () => {
    const view = await open('k');
    let asked = 0;
    store.onProgress = (stream) => {
      if (++asked === 4) progress(stream, 30);
    };
    expect(await scripted.runtime.run(view.reach({ atLeast: 30 }))).toBe(30n);
    expect(asked).toBe(4);
  });

  test('asks soon, also after it was left without an answer for long', async () => {
    const view = await open('k');
    let asked = 0;
    store.onProgress = () => void asked++;
    const long = expect(view.reach({ atLeast: 99, deadlineMs: 20_000 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
    await scripted.runtime.advance(15_000);
    const before = asked;
    const another = expect(view.reach({ atLeast: 50, deadlineMs: 4_000 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
    await scripted.runtime.advance(1_200);
    expect(asked - before).toBeGreaterThanOrEqual(5);
    await scripted.runtime.run(Promise.all([long, another]));
  });

  test('that waited in vain leaves nothing behind that asks on', async () => {
    const view = await open('k');
    await expect(scripted.runtime.run(view.reach({ atLeast: 99, deadlineMs: 500 }))).rejects.toMatchObject({ code: 'deadline-exceeded' });
    await scripted.runtime.advance(2_000);
    let asked = 0;
    store.onProgress = (stream) => {
      asked++;
      progress(stream);
    };
    await scripted.runtime.advance(60_000);
    expect(asked).toBe(18);
  });

  test('knows keys that differ only as bytes', async () => {
    store.listed = {
      k: [0x80, 0x81].map((byte) => ({ key: new Uint8Array([0x6b, byte]), value: bytes(`${byte}`), modRevision: 5, version: 1 })),
    };
    const view = await open();
    expect(view.get(new Uint8Array([0x6b, 0x80]))?.value).toBe('128');
    expect(view.get(new Uint8Array([0x6b, 0x81]))?.value).toBe('129');
  });
});

describe('indexes', () => {
  test('find keys by one value, several, or none, as they change', async () => {
    store.listed = { k: [put('k1', 5, 1, 'red'), put('k2', 6, 1, 'red,blue'), put('k3', 7, 1, '')] };
    const indexes = { color: ({ value }: { readonly value: string }) => (value === '' ? undefined : value.split(',')) };
    const view = await scripted.runtime.run(scripted.client.view(prefix('k'), { indexes }));
    const found = (color: string): string[] => view.by('color', color).map(({ key }) => key);
    expect([found('red'), found('blue'), found('')]).toEqual([['k1', 'k2'], ['k2'], []]);
    events(stream(), 1, put('k1', 11, 2, 'green'), { deleted: 'k2', at: 12 }, put('k3', 13, 2, 'red'));
    await settle();
    expect([found('red'), found('blue'), found('green')]).toEqual([['k3'], [], ['k1']]);
    // @ts-expect-error there is no such index
    expect(() => view.by('size', 'big')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });

  test('that throw fail the view, which says why', async () => {
    const indexes = {
      json: ({ value }: { readonly value: string }): string => (JSON.parse(value) as { name: string }).name,
    };
    const view = await scripted.runtime.run(scripted.client.view(prefix('k'), { indexes }));
    events(stream(), 1, put('k1', 11, 1, 'no JSON'));
    await settle();
    expect(view.state).toMatchObject({ state: 'failed', error: { code: 'invalid-argument', cause: expect.any(SyntaxError) } });
  });
});

describe('changes', () => {
  test('of a slow loop amount to one for each key, and the notice of a resync comes before them', async () => {
    store.listed = { k: [put('k0', 5), put('k1', 6)] };
    const view = await open();
    const loop = view.changes()[Symbol.asyncIterator]();
    // More than a loop lets wait.
    const filler = Array.from({ length: 1_000 }, (_, at) => put('k1', 11 + at, 2 + at));
    events(stream(), 1, ...filler);
    await settle();
    events(stream(), 1, put('k0', 2_000, 2), put('k0', 2_001, 3), put('k9', 2_002), { deleted: 'k9', at: 2_003 });
    await settle();
    store.listed = { k: [put('k1', 1_010)] };
    store.revision = 3_000;
    send(stream(), { watchId: 1n, canceled: true, compactRevision: 2_500 });
    await scripted.runtime.advance(1_000);
    expect(view.state.state).toBe('synced');
    const told: string[] = [];
    for (let n = 0; n < 1_002; n++) {
      const { value } = await loop.next();
      if (value !== undefined) told.push(shown(value));
    }
    expect(told.slice(0, 2)).toEqual(['changed k1 6>11', 'changed k1 11>12']);
    expect(told.slice(1_000)).toEqual(['resync', 'removed k0 5>-']);
    await view.close();
    expect(await loop.next()).toEqual({ done: true, value: undefined });
  });

  test('that wait for a slow loop are taken over only as it can take them', async () => {
    const view = await open();
    const loop = view.changes()[Symbol.asyncIterator]();
    events(stream(), 1, ...Array.from({ length: 4_000 }, (_, at) => put(`k${at}`, 11 + at)));
    await settle();
    for (let n = 0; n < 600; n++) await loop.next();
    events(stream(), 1, put('k3999', 5_000, 2));
    await settle();
    let last = '';
    for (let n = 600; n < 4_000; n++) {
      const { value } = await loop.next();
      if (value !== undefined) last = shown(value);
    }
    expect(last).toBe('added k3999 ->5000');
  });

  test('end for who does not want them any more', async () => {
    const view = await open();
    let count = 0;
    const subscription = view.changes().subscribe(() => {
      count++;
      subscription.unsubscribe();
    });
    events(stream(), 1, put('k1', 11), put('k2', 12));
    await settle();
    events(stream(), 1, put('k3', 13));
    await settle();
    expect(count).toBe(1);
  });

  test('may close the view that tells them', async () => {
    const view = await open();
    view.changes().subscribe(() => void view.close());
    events(stream(), 1, put('k1', 11));
    await settle();
    expect(view.state).toEqual({ state: 'closed' });
    expect(stream().isCancelled).toBe(true);
  });

  test('in a namespace are told in its words', async () => {
    store.listed = { 'app/k': [put('app/k', 5)] };
    const view = await scripted.runtime.run(scripted.client.namespace('app/').view('k'));
    expect(view.get('k')?.key).toBe('k');
    const { seen } = follow(view);
    events(stream(), 1, put('app/k', 11, 2));
    await settle();
    expect(seen).toEqual(['changed k 5>11']);
  });
});
