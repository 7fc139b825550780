import { inspect } from 'node:util';
import { type Init, Maintenance, RangeRequest, RangeResponse, StatusResponse, type KeyValue as WireKeyValue } from '@conclave/protocol';
import { json, prefix, type WatchCreated, type WatchEvent, type WatchOptions, type WatchProgress, type WatchResync } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, type ScriptedStream, ScriptedWatches, scriptedClient } from '@conclave/testkit';
import { take } from 'rxjs';
import { beforeEach, describe, expect, test } from 'vitest';

type Emitted = WatchEvent | WatchCreated | WatchProgress | WatchResync;

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
const kv = (key: string, modRevision: number, value = `v${modRevision}`): Init<WireKeyValue> => ({
  key: bytes(key),
  value: bytes(value),
  modRevision,
  createRevision: modRevision,
  version: 1,
});

const compactedText = 'etcdserver: mvcc: required revision has been compacted';

let scripted: ScriptedClient;
let reads: RangeRequest[];
/** What is there to be listed, and at which revision. */
let listed: readonly Init<WireKeyValue>[];
let revision: number;
/** Answers in place of the list, if it does. */
let instead: (call: ScriptedCall, request: RangeRequest) => boolean;

beforeEach(async () => {
  scripted = await scriptedClient();
  arrange();
});

function arrange(): void {
  reads = [];
  listed = [];
  revision = 10;
  instead = () => false;
  scripted.script.onCall = (call) => {
    if (call.path === Maintenance.methods.status.path) {
      call.reply(StatusResponse.encode({ version: '3.5.30' }));
      return;
    }
    const request = RangeRequest.decode(call.request);
    reads.push(request);
    if (!instead(call, request)) reply(call, listed);
  };
}

const reply = (call: ScriptedCall, kvs: readonly Init<WireKeyValue>[], more = false): void =>
  call.reply(RangeResponse.encode({ header: { revision }, kvs, more }));

/** Subscribes, and records what comes. */
function follow(options: WatchOptions = {}) {
  const seen: Emitted[] = [];
  const watch = scripted.client.watch(prefix('k'), { onCompacted: 'relist', ...options });
  const record = { seen, watch, error: undefined as unknown, isComplete: false, unsubscribe: () => {} };
  const subscription = watch.subscribe({
    next: (emitted) => void seen.push(emitted),
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

const shown = (emitted: Emitted): string => {
  if (emitted.type === 'resync') return `resync ${emitted.scope} ${emitted.revision}`;
  if (!('kv' in emitted)) return `${emitted.type} ${emitted.revision}`;
  const { type, key, value, isSynthesised } = emitted;
  return `${isSynthesised ? '~' : ''}${type} ${key}${type === 'put' ? `=${value}` : ''} ${emitted.revision}`;
};
const told = ({ seen }: { seen: readonly Emitted[] }): string[] => seen.map(shown);

const settle = (): Promise<void> => scripted.runtime.advance(0);

/** Waits for the n-th stream and its first creation. */
async function stream(n = 1): Promise<ScriptedWatches> {
  const { runtime, script } = scripted;
  await runtime.runUntil(() => (script.streams[n - 1]?.written.length ?? 0) > 0);
  return new ScriptedWatches(script.streams[n - 1] as ScriptedStream);
}

/** A watch that knows of k1, k2 and k3, was told all up to 10, and whose history up to 20 is then gone. */
async function compacted(options: WatchOptions = {}) {
  listed = [kv('k1', 3), kv('k2', 4), kv('k3', 5)];
  const record = follow(options);
  const server = await stream();
  server.created();
  listed = [kv('k1', 14), kv('k2', 4), kv('k4', 12)];
  revision = 20;
  reads = [];
  server.cancel('', 20);
  return record;
}

describe('what is there at the start', () => {
  test('is read from now on: keys only, page by page at one revision, before the watch begins after it', async () => {
    instead = (call, { key }) => {
      if (Buffer.from(key).toString() !== 'k') return false;
      reply(call, [kv('k1', 3)], true);
      revision = 12;
      return true;
    };
    follow();
    const server = await stream();
    expect(reads).toMatchObject([
      { key: bytes('k'), rangeEnd: bytes('l'), keysOnly: true, revision: 0, serializable: false },
      { key: bytes('k1\0'), rangeEnd: bytes('l'), keysOnly: true, revision: 10 },
    ]);
    expect(server.creates()).toMatchObject([{ startRevision: 11 }]);
  });

  test('is read again when it is compacted between two pages', async () => {
    instead = (call, { key, revision: at }) => {
      if (at === 0 && revision === 10) {
        reply(call, [kv('k1', 3)], true);
        revision = 15;
        return true;
      }
      if (at === 10) call.end(11, { message: compactedText });
      return at === 10 && key.length > 0;
    };
    follow();
    expect((await stream()).creates()).toMatchObject([{ startRevision: 16 }]);
  });

  test('is read as it was before the start revision', async () => {
    follow({ startRevision: 8 });
    expect((await stream()).creates()).toMatchObject([{ startRevision: 8 }]);
    expect(reads).toMatchObject([{ revision: 7, keysOnly: true }]);
  });

  test('is not read where there is nothing, or nobody needs it', async () => {
    follow({ startRevision: 1 });
    follow({ startRevision: 8, ignore: 'delete' });
    const server = await stream();
    await settle();
    expect(server.creates()).toMatchObject([
      { startRevision: 8, filters: [1] },
      { startRevision: 1, filters: [] },
    ]);
    expect(reads).toEqual([]);
    follow({ ignore: 'delete' });
    await settle();
    expect(reads).toMatchObject([{ key: bytes('k'), rangeEnd: bytes(''), keysOnly: true }]);
  });

  test('that may not be read ends the watch', async () => {
    instead = (call) => {
      call.end(7, { message: 'etcdserver: permission denied' });
      return true;
    };
    const record = follow();
    await settle();
    expect(record.error).toMatchObject({ code: 'permission-denied' });
  });
});

describe('history that was compacted away', () => {
  test('ends a watch that was not told otherwise, which reads nothing more', async () => {
    const record = await compacted({ onCompacted: 'fail' });
    await settle();
    expect(record.error).toMatchObject({ code: 'compacted', details: { compactRevision: 20n } });
    expect(reads).toEqual([]);
  });

  test('is replaced by what it comes to: once each, at one revision, marked', async () => {
    const record = await compacted({ prevKv: true });
    await settle();
    expect(told(record)).toEqual(['resync difference 20', '~put k4=v12 20', '~put k1=v14 20', '~delete k3 20']);
    const events = record.seen.filter((emitted) => 'kv' in emitted);
    expect(events.map(({ kv: { modRevision } }) => modRevision)).toEqual([12n, 14n, 20n]);
    expect(events.map(({ prevKv }) => prevKv)).toEqual([undefined, undefined, undefined]);
    expect(inspect(events[2])).toContain('isSynthesised: true');
    expect(reads).toMatchObject([{ keysOnly: false, revision: 0, serializable: false }]);
  });

  test('is followed by what comes after it, on a watch of another id', async () => {
    const record = await compacted();
    const server = await stream(2);
    expect(server.creates()).toMatchObject([{ startRevision: 21, watchId: 2n }]);
    server.created();
    server.events([{ revision: 21, key: 'k3' }]);
    await settle();
    expect(told(record).slice(-1)).toEqual(['put k3=v 21']);
    expect(inspect(record.seen.at(-1))).not.toContain('isSynthesised');
  });

  test('takes what was told meanwhile into account', async () => {
    listed = [kv('k1', 3), kv('k2', 4)];
    const record = follow();
    const server = await stream();
    server.created();
    server.events([{ revision: 11, key: 'k3' }]);
    server.events([{ revision: 12, key: 'k1', type: 'delete' }]);
    server.progress(15);
    await settle();
    listed = [kv('k2', 4)];
    revision = 20;
    server.cancel('', 20);
    await settle();
    expect(told(record)).toEqual(['put k3=v 11', 'delete k1 12', 'resync difference 20', '~delete k3 20']);
  });

  test('tells nothing of half a revision twice', async () => {
    const record = follow({ startRevision: 1 });
    const server = await stream();
    server.created();
    server.events(
      [
        { revision: 11, key: 'k1' },
        { revision: 12, key: 'k2' },
      ],
      { fragment: true },
    );
    listed = [kv('k1', 11), kv('k2', 12), kv('k3', 12)];
    revision = 20;
    await settle();
    server.cancel('', 20);
    await settle();
    expect(told(record)).toEqual(['put k1=v 11', 'resync difference 20', '~put k2=v12 20', '~put k3=v12 20']);
  });

  test('may be compacted away once more, between two pages and before the watch stands again', async () => {
    let pages = 0;
    const record = await compacted();
    instead = (call) => {
      if (++pages === 1) reply(call, [kv('k9', 15)], true);
      else if (pages === 2) call.end(11, { message: compactedText });
      return pages <= 2;
    };
    const server = await stream(2);
    expect(told(record)).toHaveLength(4);
    listed = [kv('k1', 14), kv('k4', 25)];
    revision = 30;
    server.cancel('', 30);
    const next = await stream(3);
    expect(told(record).slice(4)).toEqual(['resync difference 30', '~put k4=v25 30', '~delete k2 30']);
    expect(next.creates()).toMatchObject([{ startRevision: 31 }]);
  });

  test('is asked for again when the connection breaks in the middle of the list', async () => {
    const record = await compacted();
    instead = () => {
      if (reads.length === 1) scripted.script.cut();
      return reads.length === 1;
    };
    await stream(2);
    expect(told(record)).toEqual(['resync difference 20', '~put k4=v12 20', '~put k1=v14 20', '~delete k3 20']);
    expect(reads).toHaveLength(2);
  });

  test('ends the watch when the store has lost more than that', async () => {
    const record = await compacted();
    revision = 6;
    await settle();
    expect(record.error).toMatchObject({ code: 'compacted', details: { compactRevision: 20n } });
    expect(record.seen).toEqual([]);
  });

  test('is told of created only once', async () => {
    const record = await compacted({ notifyCreated: true });
    (await stream(2)).created();
    await settle();
    expect(told(record).filter((one) => one.startsWith('created'))).toEqual(['created 10']);
  });

  test.for(['before', 'during'])('does not come between an answer and a question that was asked %s the reading', async (when) => {
    const record = follow();
    let server = await stream();
    server.created();
    let asked = when === 'before' ? record.watch.requestProgress() : undefined;
    if (when === 'before') {
      server = await stream(2);
      server.created();
      await settle();
      expect(server.progressRequests()).toBe(1);
    }
    revision = 20;
    server.cancel('', 20);
    instead = () => true;
    await settle();
    asked ??= record.watch.requestProgress();
    reply(scripted.script.call, []);
    const next = await stream(when === 'before' ? 3 : 2);
    // Neither before the watch stands, nor as if the member at the other end were the same.
    await scripted.runtime.advance(200);
    expect(next.progressRequests()).toBe(0);
    expect(next.creates()).toMatchObject([{ startRevision: 20 }]);
    next.created();
    await settle();
    expect(next.progressRequests()).toBe(1);
    next.streamProgress(25);
    expect(await scripted.runtime.run(asked)).toBe(25n);
  });

  test('is not followed by a watch where nobody follows any more who was told it', async () => {
    listed = [kv('k1', 3)];
    const seen: Emitted[] = [];
    const watch = scripted.client.watch(prefix('k'), { onCompacted: 'relist' });
    watch.pipe(take(2)).subscribe((emitted) => void seen.push(emitted));
    const server = await stream();
    server.created();
    revision = 20;
    listed = [];
    server.cancel('', 20);
    await scripted.runtime.advance(1_000);
    expect(told({ seen })).toEqual(['resync difference 20', '~delete k1 20']);
    expect(scripted.script.streams).toHaveLength(1);
  });

  test('is not read to the end by who has gone, or whose client has', async () => {
    const gone = await compacted();
    instead = () => true;
    await settle();
    expect(scripted.script.call.isEnded).toBe(false);
    gone.unsubscribe();
    expect(scripted.script.call.isEnded).toBe(true);
    await scripted.runtime.run(scripted.client.close());
    expect([gone.isComplete, gone.error, gone.seen]).toEqual([false, undefined, []]);

    scripted = await scriptedClient();
    arrange();
    const closed = await compacted();
    instead = () => true;
    await settle();
    await scripted.runtime.run(scripted.client.close());
    await settle();
    expect([closed.isComplete, closed.error, closed.seen]).toEqual([true, undefined, []]);
  });
});

describe('keys that cannot be known', () => {
  const refused =
    (message: string) =>
    (call: ScriptedCall, { revision: at }: RangeRequest) => {
      if (at > 0) call.end(11, { message });
      return at > 0;
    };

  test('as the watch starts in what is compacted: everything is told, and what it means', async () => {
    instead = refused(compactedText);
    listed = [kv('k2', 4), kv('k1', 2)];
    const record = follow({ startRevision: 3 });
    const server = await stream();
    server.created();
    server.cancel('', 8);
    const next = await stream(2);
    expect(told(record)).toEqual(['resync everything 10', '~put k1=v2 10', '~put k2=v4 10']);
    // From then on they are.
    listed = [kv('k2', 4)];
    revision = 20;
    next.cancel('', 20);
    await settle();
    expect(told(record).slice(3)).toEqual(['resync difference 20', '~delete k1 20']);
  });

  test('and there are none: that is told', async () => {
    instead = refused(compactedText);
    const record = follow({ startRevision: 3 });
    (await stream()).cancel('', 8);
    await settle();
    expect(told(record)).toEqual(['resync everything 10']);
  });

  test('as the watch starts in the future: it waits for it all the same', async () => {
    instead = refused('etcdserver: mvcc: required revision is a future revision');
    const record = follow({ startRevision: 100 });
    const server = await stream();
    expect(server.creates()).toMatchObject([{ startRevision: 100 }]);
    server.created();
    listed = [kv('k1', 2)];
    revision = 120;
    server.cancel('', 120);
    await settle();
    expect(told(record)).toEqual(['resync everything 120', '~put k1=v2 120']);
  });

  test('by a watch that is to tell deletions alone end it', async () => {
    instead = refused(compactedText);
    const record = follow({ startRevision: 3, ignore: 'put' });
    (await stream()).cancel('', 8);
    await settle();
    expect(record.error).toMatchObject({ code: 'compacted', details: { compactRevision: 8n } });
  });
});

describe('a filter', () => {
  test('of puts is applied here, as they say which keys there are', async () => {
    listed = [kv('k1', 3)];
    const record = follow({ ignore: 'put' });
    const server = await stream();
    expect(server.creates()).toMatchObject([{ filters: [] }]);
    server.created();
    server.events([{ revision: 11, key: 'k2' }]);
    server.events([{ revision: 12, key: 'k1', type: 'delete' }]);
    listed = [kv('k3', 13)];
    revision = 20;
    reads = [];
    server.cancel('', 20);
    await settle();
    expect(told(record)).toEqual(['delete k1 12', 'resync difference 20', '~delete k2 20']);
    expect(reads).toMatchObject([{ keysOnly: true }]);
  });

  test('of deletions needs no memory: what was written since is told', async () => {
    const record = await compacted({ ignore: 'delete' });
    await settle();
    expect(told(record)).toEqual(['resync difference 20', '~put k4=v12 20', '~put k1=v14 20']);
  });
});

describe('one who is slow', () => {
  test('holds back what was found, too, and takes it up where it was', async () => {
    const seen: string[] = [];
    listed = [kv('k1', 3)];
    const watch = scripted.client.watch(prefix('k'), { onCompacted: 'relist' });
    watch.subscribe((emitted) => {
      seen.push(shown(emitted));
      if (emitted.type === 'put') watch.pause();
    });
    const server = await stream();
    server.created();
    watch.pause();
    listed = [kv('k2', 12), kv('k3', 13)];
    revision = 20;
    watch.resume();
    server.cancel('', 20);
    watch.pause();
    await settle();
    expect(seen).toEqual([]);
    watch.resume();
    expect(seen).toEqual(['resync difference 20', '~put k2=v12 20']);
    watch.resume();
    expect(seen.slice(2)).toEqual(['~put k3=v13 20']);
    expect(scripted.script.streams).toHaveLength(1);
    watch.resume();
    expect(seen.slice(3)).toEqual(['~delete k1 20']);
    expect((await stream(2)).creates()).toMatchObject([{ startRevision: 21 }]);
  });

  test('may let go while being told', async () => {
    const seen: string[] = [];
    listed = [kv('k1', 3)];
    const watch = scripted.client.watch(prefix('k'), { onCompacted: 'relist' });
    watch.subscribe((emitted) => {
      watch.pause();
      seen.push(shown(emitted));
      watch.resume();
    });
    const server = await stream();
    server.created();
    revision = 20;
    listed = [kv('k2', 12)];
    server.cancel('', 20);
    await settle();
    expect(seen).toEqual(['resync difference 20', '~put k2=v12 20', '~delete k1 20']);
  });

  test('with the last of what was found holds back what comes after it', async () => {
    listed = [kv('k1', 3)];
    const watch = scripted.client.watch(prefix('k'), { onCompacted: 'relist' });
    watch.subscribe(({ type }) => {
      if (type === 'delete') watch.pause();
    });
    const server = await stream();
    server.created();
    revision = 20;
    listed = [];
    server.cancel('', 20);
    expect((await stream(2)).stream.isPaused).toBe(true);
    watch.resume();
    expect(scripted.script.stream.isPaused).toBe(false);
  });

  /** A loop that has not begun to take anything, when what it still wanted is gone. */
  async function slow(options: WatchOptions) {
    const iterator = scripted.client.watch(prefix('k'), { startRevision: 1, onCompacted: 'relist', ...options })[Symbol.asyncIterator]();
    const server = await stream();
    server.created();
    server.events([{ revision: 2, key: 'k1', prev: 'before' }]);
    listed = [kv('k1', 14), kv('k2', 12), kv('k3', 13)];
    revision = 20;
    server.cancel('', 20);
    const next = await stream(2);
    next.created();
    return { iterator, next };
  }

  const taken = async (iterator: AsyncIterator<Emitted, undefined>, count: number): Promise<Emitted[]> => {
    const values: Emitted[] = [];
    while (values.length < count) values.push((await scripted.runtime.run(iterator.next())).value as Emitted);
    return values;
  };

  test('is given a resync whole before it fails, so that it can go on after it', async () => {
    const { iterator, next } = await slow({ overflow: 'fail', bufferedEventsMax: 2 });
    next.events([{ revision: 21, key: 'k1' }]);
    await settle();
    expect((await taken(iterator, 5)).map(shown)).toEqual([
      'put k1=v 2',
      'resync difference 20',
      '~put k2=v12 20',
      '~put k3=v13 20',
      '~put k1=v14 20',
    ]);
    await expect(scripted.runtime.run(iterator.next())).rejects.toMatchObject({ code: 'watch-overflow', details: { revision: 20n } });
  });

  test('is given of each key the last, and whether that is synthesised', async () => {
    const { iterator } = await slow({ overflow: 'conflate', bufferedEventsMax: 5, prevKv: true });
    const values = await taken(iterator, 4);
    expect(values.map(shown)).toEqual(['resync difference 20', '~put k2=v12 20', '~put k3=v13 20', '~put k1=v14 20']);
    expect(values[3]).toMatchObject({ conflated: 1, isSynthesised: true, prevKv: { value: 'before' } });
  });
});

test('a space reads what is synthesised with its codec, and does not say where to go on after one it cannot read', async () => {
  listed = [kv('k/1', 3)];
  const seen: unknown[] = [];
  let error: unknown;
  scripted.client
    .space('k/', json())
    .watch(undefined, { onCompacted: 'relist' })
    .subscribe({
      next: (emitted) => seen.push('event' in emitted ? [emitted.type, emitted.key, emitted.event.isSynthesised] : emitted.type),
      error: (reason: unknown) => {
        error = reason;
      },
    });
  const server = await stream();
  server.created();
  listed = [kv('k/2', 12, '{"n":1}'), kv('k/3', 13, '{')];
  revision = 20;
  server.cancel('', 20);
  await settle();
  expect(seen).toEqual(['resync', ['put', '2', true]]);
  expect(error).toMatchObject({ code: 'invalid-value', details: { key: '3', revision: undefined } });
});

test('a client in order does not take the list of a member that is behind', async () => {
  scripted = await scriptedClient({ ordered: true });
  arrange();
  listed = [kv('k1', 3)];
  const record = follow();
  const server = await stream();
  server.created(0, 20);
  let answers = 0;
  instead = (call) => {
    if (++answers > 1) return false;
    reply(call, []);
    revision = 20;
    listed = [kv('k1', 15)];
    return true;
  };
  server.cancel('', 8);
  await stream(2);
  expect(answers).toBe(2);
  expect(told(record)).toEqual(['resync difference 20', '~put k1=v15 20']);
});

test('a word that is none is refused', () => {
  const onCompacted = 'again' as 'relist';
  expect(() => scripted.client.watch('k', { onCompacted })).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
});
