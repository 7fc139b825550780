// Watches whose history is compacted away while they cannot follow, against every server there is.
import {
  type Client,
  connect,
  del,
  prefix,
  put,
  type WatchCreated,
  type WatchEvent,
  type WatchOptions,
  type WatchProgress,
  type WatchResync,
} from '@conclave/sdk';
import { eventually, type RunningProcess, TcpProxy, testTargets, within } from '@conclave/testkit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

type Emitted = WatchEvent | WatchCreated | WatchProgress | WatchResync;

const targets = testTargets();

const shown = (emitted: Emitted): string => {
  if (emitted.type === 'resync') return `resync ${emitted.scope}`;
  if (!('kv' in emitted)) return emitted.type;
  const { type, key, value, isSynthesised } = emitted;
  return `${isSynthesised ? '~' : ''}${type} ${key}${type === 'put' ? `=${value}` : ''}`;
};

describe.each(targets)('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let proxy: TcpProxy;
  /** Straight to the server. */
  let writer: Client;
  /** Through the proxy. */
  let reader: Client;
  let space = 0;
  let w: ReturnType<Client['namespace']>;
  let r: ReturnType<Client['namespace']>;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    writer = await connect({ endpoints: server.address });
  });

  beforeEach(async () => {
    if (skip !== undefined) return;
    proxy = await TcpProxy.to(server.address);
    reader = await connect({ endpoints: proxy.address });
    w = writer.namespace(`${++space}/`);
    r = reader.namespace(`${space}/`);
  });

  afterEach(async () => {
    await reader?.close();
    await proxy?.[Symbol.asyncDispose]();
  });

  afterAll(async () => {
    await writer?.close();
    await server?.[Symbol.asyncDispose]();
  });

  /** What the store holds: keys, values and where they were written. */
  const listed = async (): Promise<string[]> =>
    (await w.list(prefix('a/'))).kvs.map((kv) => `${kv.key}=${kv.value}@${kv.modRevision}`).sort();

  /** Compacts away all that there was, and says up to where. */
  const forget = async (): Promise<bigint> => {
    const { revision } = await writer.put('elsewhere', '');
    await writer.compact(revision);
    return revision;
  };

  /** Keeps a copy by what a watch tells, from a list on; objects when revisions go back. */
  async function copyOf(options: WatchOptions = {}) {
    const { kvs } = await w.list(prefix('a/'));
    const copy = new Map(kvs.map((kv) => [kv.key, `${kv.value}@${kv.modRevision}`]));
    const seen: Emitted[] = [];
    const record = { seen, error: undefined as unknown, wentBack: false, content: () => [...copy].map(([k, v]) => `${k}=${v}`).sort() };
    let last = 0n;
    r.watch(prefix('a/'), { notifyCreated: true, onCompacted: 'relist', ...options }).subscribe({
      next: (emitted) => {
        seen.push(emitted);
        record.wentBack ||= emitted.revision < last;
        last = emitted.revision;
        if (emitted.type === 'resync' && emitted.scope === 'everything') copy.clear();
        if (emitted.type === 'put') copy.set(emitted.key, `${emitted.value}@${emitted.kv.modRevision}`);
        if (emitted.type === 'delete') copy.delete(emitted.key);
      },
      error: (error: unknown) => {
        record.error = error;
      },
    });
    await eventually('it stands', () => seen.some(({ type }) => type === 'created'));
    return record;
  }

  const isEqual = async ({ content }: { content: () => string[] }): Promise<boolean> => `${content()}` === `${await listed()}`;

  describe.skipIf(skip !== undefined)('a watch that was cut off', () => {
    test('is told once what became of each key, then goes on', async () => {
      for (let n = 0; n < 20; n++) await w.put(`a/${n}`, 'before');
      const record = await copyOf({ prevKv: true });
      // It knows of these from what it is told, not from the start.
      await w.put('a/live', 'came');
      await w.put('a/gone', 'came');
      const { revision: told } = await w.delete('a/gone');
      await eventually('it is told', () => record.seen.at(-1)?.revision === told);
      expect(record.seen.slice(1).map(shown)).toEqual(['put a/live=came', 'put a/gone=came', 'delete a/gone']);

      await proxy.refuse();
      for (let n = 0; n < 5; n++) await w.delete(`a/${n}`);
      await w.put('a/9', 'twice');
      for (let n = 5; n < 10; n++) await w.put(`a/${n}`, 'after');
      await w.delete('a/live');
      await w.delete('a/5');
      await w.put('a/5', 'again');
      await w.txn().then(put('a/new', 'after'), del('a/6')).commit();
      await w.put('a/passing', '');
      await w.delete('a/passing');
      await forget();
      // Of the revision of the reading: a watch that starts there instead of after it tells it again.
      await w.put('a/last', 'after');
      const before = record.seen.length;
      await proxy.accept();
      await eventually('it is equal', () => isEqual(record));
      const { revision: later } = await w.put('a/0', 'later');
      await eventually('it goes on', () => record.seen.at(-1)?.revision === later);

      const after = record.seen.slice(before);
      expect(after.map(shown).sort()).toEqual(
        [
          'resync difference',
          ...[7, 8, 9].map((n) => `~put a/${n}=after`),
          '~put a/5=again',
          '~put a/new=after',
          '~put a/last=after',
          ...[0, 1, 2, 3, 4, 6, 'live'].map((n) => `~delete a/${n}`),
          'put a/0=later',
        ].sort(),
      );
      expect(after.map(shown)[0]).toBe('resync difference');
      expect(after.map(shown).at(-1)).toBe('put a/0=later');
      expect(record.wentBack).toBe(false);
      const resync = after[0] as WatchResync;
      const synthesised = after.filter((emitted): emitted is WatchEvent => 'kv' in emitted && emitted.isSynthesised);
      expect(new Set(synthesised.map(({ revision }) => revision))).toEqual(new Set([resync.revision]));
      expect(synthesised.filter(({ prevKv }) => prevKv !== undefined)).toEqual([]);
      const mods = synthesised.map(({ kv }) => kv.modRevision);
      expect(mods).toEqual([...mods].sort((one, other) => Number(one - other)));
      expect(record.error).toBeUndefined();
    });

    test('of more than a page, again and again, with the connection cut in the middle of the reading and compacted once more', async () => {
      const names = Array.from({ length: 2_300 }, (_, n) => `a/${n}`);
      const writeAll = async (value: string): Promise<void> => {
        for (let at = 0; at < names.length; at += 100)
          await w
            .txn()
            .then(...names.slice(at, at + 100).map((name) => put(name, value)))
            .commit();
      };
      await writeAll('0');
      const record = await copyOf();
      for (let round = 1; round <= 3; round++) {
        await proxy.refuse();
        await writeAll(`${round}`);
        await w.delete(`a/${round}`);
        await forget();
        await proxy.accept();
        // In the middle of some page, and then of the next.
        let cuts = 3;
        proxy.cutEvery(() => (cuts-- > 0 ? 50_000 : Number.POSITIVE_INFINITY));
        // What is read at is gone before it is read.
        for (let n = 0; n < 3; n++) {
          await w.put('a/busy', `${round}.${n}`);
          await forget();
        }
        await eventually('it is equal', () => isEqual(record), 20_000);
        proxy.behave();
      }
      expect(proxy.cuts).toBeGreaterThanOrEqual(3);
      expect(record.seen.filter(({ type }) => type === 'resync').length).toBeGreaterThanOrEqual(3);
      expect(record.wentBack).toBe(false);
      expect(record.error).toBeUndefined();
      // What is told of a key follows on what was told of it.
      const lastOf = new Map<string, bigint>();
      for (const emitted of record.seen) {
        if (!('kv' in emitted)) continue;
        expect(emitted.kv.modRevision).toBeGreaterThan(lastOf.get(emitted.key) ?? 0n);
        lastOf.set(emitted.key, emitted.kv.modRevision);
      }
    });

    test('is not told twice what it was told before the cut', async () => {
      const record = await copyOf();
      const { revision } = await w.put('a/1', 'told');
      await eventually('it is told', () => record.seen.at(-1)?.revision === revision);
      await proxy.refuse();
      await forget();
      await proxy.accept();
      const { revision: later } = await w.put('a/2', 'later');
      await eventually('it goes on', () => record.seen.at(-1)?.revision === later);
      expect(record.seen.map(shown).filter((one) => !one.startsWith('resync'))).toEqual(['created', 'put a/1=told', 'put a/2=later']);
    });

    test('and filters is told no more than it asked for', async () => {
      await w.put('a/kept', '1');
      await w.put('a/gone', '1');
      const puts = await copyOf({ ignore: 'delete' });
      const deletes = await copyOf({ ignore: 'put' });
      await w.put('a/live', '1');
      await eventually('it is told', () => puts.seen.length === 2);
      // Its server tells it of the put all the same, and it has nothing to show for it.
      const { revision } = await w.delete('a/kept');
      await eventually('it is told', () => deletes.seen.at(-1)?.revision === revision);
      await proxy.refuse();
      await w.delete('a/gone');
      await w.delete('a/live');
      await w.put('a/new', '1');
      await forget();
      await proxy.accept();
      for (const { seen } of [puts, deletes]) await eventually('it is told', () => seen.some(({ type }) => type === 'resync'));
      await w.put('a/end', '1');
      await w.delete('a/end');
      await eventually('puts are told', () => puts.seen.map(shown).join().includes('a/end'));
      await eventually('deletions are told', () => deletes.seen.map(shown).join().includes('a/end'));
      expect(puts.seen.map(shown).filter((one) => !one.includes('a/end'))).toEqual([
        'created',
        'put a/live=1',
        'resync difference',
        '~put a/new=1',
      ]);
      expect(deletes.seen.map(shown).filter((one) => !one.includes('a/end'))).toEqual([
        'created',
        'delete a/kept',
        'resync difference',
        '~delete a/gone',
        '~delete a/live',
      ]);
    });

    test('and is on a stream with others, or held back, gets over it like them', async () => {
      await w.put('a/gone', '1');
      const records = await Promise.all([copyOf(), copyOf(), copyOf({ progressNotify: true })]);
      const slow: string[] = [];
      let release = (): void => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      const loop = (async () => {
        for await (const event of r.watch(prefix('a/'), { startRevision: 1, bufferedEventsMax: 2, onCompacted: 'relist' })) {
          slow.push(shown(event));
          await held;
          if (slow.at(-1) === 'put a/end=1') return;
        }
      })();
      await proxy.refuse();
      await w.delete('a/gone');
      for (let n = 0; n < 10; n++) await w.put(`a/${n}`, '1');
      await forget();
      await proxy.accept();
      await Promise.all(records.map((record) => eventually('it is equal', () => isEqual(record))));
      for (const record of records) expect(record.seen.filter(({ type }) => type === 'resync')).toHaveLength(1);
      await w.put('a/end', '1');
      release();
      await within('the end', loop);
      expect(slow.filter((one) => one.includes('a/end'))).toEqual(['put a/end=1']);
      const puts = slow.filter((one) => /put a\/\d/.test(one));
      expect(new Set(puts).size).toBe(10);
      expect(puts).toHaveLength(10);
    });
  });

  describe.skipIf(skip !== undefined)('a watch that starts', () => {
    test('in history that is gone is told everything there is, and so that the rest is gone', async () => {
      await w.put('a/old', '1');
      await w.put('a/gone', '1');
      const { revision } = await w.put('a/1', '1');
      await w.delete('a/gone');
      await forget();
      const seen: string[] = [];
      const watch = r.watch(prefix('a/'), { startRevision: revision, onCompacted: 'relist' });
      watch.subscribe((emitted) => seen.push(shown(emitted)));
      await eventually('all is told', () => seen.length === 3);
      expect(seen).toEqual(['resync everything', '~put a/old=1', '~put a/1=1']);
      // From then on it knows.
      await proxy.refuse();
      await w.delete('a/old');
      await forget();
      await proxy.accept();
      await eventually('the rest is told', () => seen.length === 5);
      expect(seen.slice(3)).toEqual(['resync difference', '~delete a/old']);
    });

    test('where history begins is told it, as without', async () => {
      await w.put('a/1', '1');
      const { revision } = await w.put('a/2', '2');
      await writer.compact(revision);
      const seen: string[] = [];
      r.watch(prefix('a/'), { startRevision: revision, onCompacted: 'relist' }).subscribe((emitted) => seen.push(shown(emitted)));
      await eventually('it is told', () => seen.length === 1);
      expect(seen).toEqual(['put a/2=2']);
    });

    test('after a list tells what became of the keys of the list', async () => {
      await w.put('a/1', '1');
      await w.put('a/2', '2');
      const { revision } = await w.list(prefix('a/'));
      const seen: string[] = [];
      r.watch(prefix('a/'), { startRevision: revision + 1n, notifyCreated: true, onCompacted: 'relist' }).subscribe((emitted) =>
        seen.push(shown(emitted)),
      );
      await eventually('it stands', () => seen.length === 1);
      await proxy.refuse();
      await w.delete('a/1');
      await forget();
      await proxy.accept();
      await eventually('it is told', () => seen.length === 3);
      expect(seen.slice(1)).toEqual(['resync difference', '~delete a/1']);
    });

    test('in the future waits for it', async () => {
      const { revision } = await w.put('a/1', '1');
      const seen: string[] = [];
      r.watch(prefix('a/'), { startRevision: revision + 3n, notifyCreated: true, onCompacted: 'relist' }).subscribe((emitted) =>
        seen.push(shown(emitted)),
      );
      await eventually('it stands', () => seen.length === 1);
      for (let n = 2; n <= 5; n++) await w.put(`a/${n}`, `${n}`);
      await eventually('it is told', () => seen.length === 3);
      expect(seen).toEqual(['created', 'put a/4=4', 'put a/5=5']);
    });
  });
});
