// What views promise, against every server there is, over connections that break.
import {
  allKeys,
  type Client,
  connect,
  fromKey,
  isConclaveError,
  key,
  prefix,
  put,
  range,
  type View,
  type ViewChange,
  type ViewResync,
} from '@conclave/sdk';
import { etcdBinary, eventually, launchCluster, type RunningProcess, TcpProxy, testTargets, within } from '@conclave/testkit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

const targets = testTargets();

/** What a view holds, in key order. */
const contentOf = (view: View): string[] => [...view.values()].map((kv) => `${kv.key}=${kv.value}@${kv.modRevision}`).sort();

const shown = (change: ViewChange | ViewResync): string =>
  change.type === 'resync'
    ? 'resync'
    : `${change.type} ${(change.kv ?? change.old).key} ${change.old?.value ?? '-'}>${change.kv?.value ?? '-'}`;

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

  const listed = async (target = prefix('a/')): Promise<string[]> =>
    (await w.list(target)).kvs.map((kv) => `${kv.key}=${kv.value}@${kv.modRevision}`).sort();

  describe.skipIf(skip !== undefined)('a view', () => {
    test('holds what the store holds, and follows it', async () => {
      await w.put('a/1', 'one');
      await w.put('b/1', 'not in it');
      await using view = await r.view(prefix('a/'));
      expect(view.state).toEqual({ state: 'synced' });
      expect(view.get('a/1')).toMatchObject({ key: 'a/1', value: 'one', version: 1n });
      expect(view.get('a/2')).toBeUndefined();
      expect(view.size).toBe(1);
      const seen: string[] = [];
      view.changes().subscribe((change) => seen.push(shown(change)));
      await w.put('a/2', 'two');
      await w.put('a/1', 'uno');
      const { revision } = await w.delete('a/2');
      await view.reach({ atLeast: revision });
      expect(seen).toEqual(['added a/2 ->two', 'changed a/1 one>uno', 'removed a/2 two>-']);
      expect(contentOf(view)).toEqual(await listed());
      expect(view.revision).toBe(revision);
      expect(() => view.get('b/1')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    });

    test('of more than a page holds them all, of one revision', async () => {
      const names = Array.from({ length: 2_500 }, (_, at) => `a/${at}`);
      while (names.length > 0) {
        await w
          .txn()
          .then(...names.splice(0, 100).map((name) => put(name, 'v')))
          .commit();
      }
      let writes = 0;
      const writing = (async () => {
        for (; writes < 50; writes++) await w.put(`a/${writes}`, 'w');
      })();
      await using view = await r.view(prefix('a/'));
      expect(view.size).toBe(2_500);
      expect([...view.values()].filter(({ modRevision }) => modRevision > view.revision)).toEqual([]);
      await writing;
      await view.reach({ maxStaleMs: 0 });
      expect(contentOf(view)).toEqual(await listed());
    });

    test('of a key, of all keys, of a range, and of what only exists later', async () => {
      for (const [target, inside] of [
        ['k', 'k'],
        [allKeys(), 'x'],
        [range('c', 'e'), 'd'],
        [fromKey('y'), 'z'],
      ] as const) {
        await using view = await r.view(target);
        const { revision } = await w.put(inside, 'v');
        expect(await view.get(inside, { atLeast: revision })).toMatchObject({ value: 'v', modRevision: revision });
      }
    });

    test('that was cut off goes on where it was, told stale and synced again', async () => {
      await w.put('a/1', 'one');
      await w.put('a/2', 'two');
      await using view = await r.view(prefix('a/'));
      const states: string[] = [];
      const seen: string[] = [];
      view.status().subscribe((status) => states.push(status.state === 'stale' ? status.reason : status.state));
      view.changes().subscribe((change) => seen.push(shown(change)));
      await proxy.refuse();
      await eventually('stale', () => view.state.state === 'stale');
      await w.put('a/3', 'three');
      await w.delete('a/1');
      expect(view.get('a/1')?.value).toBe('one');
      await proxy.accept();
      await eventually('synced', () => view.state.state === 'synced');
      expect(contentOf(view)).toEqual(await listed());
      expect(seen).toEqual(['added a/3 ->three', 'removed a/1 one>-']);
      expect(states).toEqual(['synced', 'disconnected', 'synced']);
    });

    test('that was cut off while nothing happened learns so', async () => {
      await w.put('a/1', 'one');
      await using view = await r.view(prefix('a/'));
      for (let n = 0; n < 3; n++) {
        proxy.cut();
        await eventually('stale', () => view.state.state === 'stale');
        await eventually('synced', () => view.state.state === 'synced', 3_000);
      }
    });

    test('whose server falls silent is told stale, and goes on when it speaks again', async () => {
      await using view = await r.view(prefix('a/'), { staleAfterMs: 1_000 });
      proxy.silence();
      await eventually('stale', () => view.state.state === 'stale' && view.state.reason === 'silent');
      await w.put('a/1', 'one');
      proxy.heal();
      await eventually('synced', () => view.state.state === 'synced');
      expect(contentOf(view)).toEqual(await listed());
    });

    test('whose history was compacted while it was cut off ends equal, deletions told, with one notice', async () => {
      for (let n = 0; n < 20; n++) await w.put(`a/${n}`, 'before');
      await using view = await r.view(prefix('a/'), { indexes: { value: (kv) => kv.value } });
      const states: string[] = [];
      const seen: (ViewChange | ViewResync)[] = [];
      view.status().subscribe((status) => states.push(status.state === 'stale' ? status.reason : status.state));
      view.changes().subscribe((change) => seen.push(change));
      await proxy.refuse();
      await eventually('stale', () => view.state.state === 'stale');
      for (let n = 0; n < 5; n++) await w.delete(`a/${n}`);
      for (let n = 5; n < 10; n++) await w.put(`a/${n}`, 'after');
      await w.put('a/new', 'after');
      await w.put('a/passing', '');
      const { revision } = await w.delete('a/passing');
      await writer.compact(revision);
      await proxy.accept();
      await eventually('synced', () => view.state.state === 'synced');
      expect(contentOf(view)).toEqual(await listed());
      expect(view.by('value', 'before')).toHaveLength(10);
      expect(view.by('value', 'after')).toHaveLength(6);
      expect(seen[0]).toMatchObject({ type: 'resync', revision: view.revision });
      expect(seen.filter(({ type }) => type === 'resync')).toHaveLength(1);
      const told = seen
        .slice(1)
        .map((change) => shown(change))
        .sort();
      const removed = Array.from({ length: 5 }, (_, n) => `removed a/${n} before>-`);
      const changed = Array.from({ length: 5 }, (_, n) => `changed a/${n + 5} before>after`);
      expect(told).toEqual([...removed, ...changed, 'added a/new ->after'].sort());
      expect(states).toEqual(['synced', 'disconnected', 'compacted', 'synced']);
      const { revision: later } = await w.put('a/0', 'again');
      expect(await view.get('a/0', { atLeast: later })).toMatchObject({ value: 'again' });
    });

    test('whose connection is cut again and again while much is written ends equal, and told every change once', async () => {
      await using view = await r.view(prefix('a/'));
      const model = new Map<string, string>();
      view.changes().subscribe((change) => {
        if (change.type === 'resync') throw new Error('nothing was compacted');
        const { key: name } = change.kv ?? change.old;
        expect(model.get(name)).toBe(change.old?.value);
        if (change.kv === undefined) model.delete(name);
        else model.set(name, change.kv.value);
      });
      let budget = 500;
      proxy.cutEvery(() => {
        budget += 137;
        return budget;
      });
      for (let n = 0; n < 300 || proxy.cuts < 8; n++) {
        if (n % 7 === 3) await w.delete(`a/${(n * 5) % 40}`);
        else await w.put(`a/${(n * 3) % 40}`, `${n}`);
      }
      proxy.behave();
      await view.reach({ maxStaleMs: 0, deadlineMs: 20_000 });
      expect(contentOf(view)).toEqual(await listed());
      expect(new Map([...view.values()].map((kv) => [kv.key, kv.value]))).toEqual(model);
    });

    test('shows a write that was made before it is asked, also one that is not among its keys', async () => {
      await using view = await r.view(prefix('a/'));
      for (let n = 0; n < 10; n++) {
        await w.put('a/k', `${n}`);
        expect((await view.get('a/k', { maxStaleMs: 0 }))?.value).toBe(`${n}`);
        const { revision } = await w.put('elsewhere', `${n}`);
        expect(await view.reach({ atLeast: revision })).toBeGreaterThanOrEqual(revision);
      }
    });

    test('asked for a revision that is not there yet waits for it, at most as long as it may', async () => {
      await using view = await r.view(prefix('a/'));
      const { revision } = await w.put('a/k', 'now');
      await expect(view.get('a/k', { atLeast: revision + 1_000n, deadlineMs: 200 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
      const controller = new AbortController();
      const waiting = view.get('a/k', { atLeast: revision + 1_000n, signal: controller.signal });
      controller.abort();
      await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
      const coming = view.get('a/k', { atLeast: revision + 1n });
      await w.put('b/other', 'v');
      expect((await within('the read', coming))?.value).toBe('now');
    });

    test('ends with its client, and with itself', async () => {
      const view = await r.view(prefix('a/'));
      const other = await r.view(prefix('b/'));
      let ends = 0;
      view.changes().subscribe({ complete: () => ends++ });
      view.status().subscribe({ complete: () => ends++ });
      const waiting = expect(view.reach({ atLeast: 1n << 40n })).rejects.toMatchObject({ code: 'view-closed' });
      await view.close();
      await waiting;
      expect(ends).toBe(2);
      expect(view.state).toEqual({ state: 'closed' });
      expect(() => view.get('a/k')).toThrow(expect.objectContaining({ code: 'view-closed' }));
      expect(other.state).toEqual({ state: 'synced' });
      await reader.close();
      expect(other.state).toEqual({ state: 'closed' });
      await expect(r.view('k')).rejects.toMatchObject({ code: 'client-closed' });
    });
  });

  describe.skipIf(skip !== undefined)('a view of several targets', () => {
    test('shows all of them at one revision, whatever is written and cut', async () => {
      const names = ['a/x', 'b/x', 'c'];
      const writeAll = (n: number) =>
        w
          .txn()
          .if(key('never').missing())
          .then(...names.map((name) => put(name, `${n}`)))
          .commit();
      await writeAll(0);
      await using view = await r.view([prefix('a/'), prefix('b/'), 'c']);
      const cuts: string[][] = [];
      view.changes().subscribe(() => cuts.push(names.map((name) => view.get(name)?.value ?? '')));
      let budget = 800;
      proxy.cutEvery(() => (budget += 211));
      let last = 0;
      for (let n = 1; n <= 100 || proxy.cuts < 4; n++) {
        last = n;
        await writeAll(n);
        // Between them one range alone moves.
        await w.put('a/y', `${n}`);
      }
      proxy.behave();
      await view.reach({ maxStaleMs: 0, deadlineMs: 20_000 });
      expect(names.map((name) => view.get(name)?.value)).toEqual([`${last}`, `${last}`, `${last}`]);
      for (const cut of cuts) expect(new Set(cut).size).toBe(1);
      expect(cuts.length).toBeGreaterThanOrEqual(4 * last);
    });

    test('tells a change of one of them without waiting for anything to happen to the others', async () => {
      await using view = await r.view([prefix('a/'), prefix('b/')]);
      const seen: string[] = [];
      view.changes().subscribe((change) => seen.push(shown(change)));
      for (let n = 0; n < 5; n++) {
        await w.put('a/k', `${n}`);
        await eventually('the change', () => seen.length === n + 1, 2_000);
      }
    });

    test('relists all of them at once when the history of one is gone', async () => {
      await w.put('a/1', 'v');
      await w.put('b/1', 'v');
      await using view = await r.view([prefix('a/'), prefix('b/')]);
      const seen: string[] = [];
      view.changes().subscribe((change) => seen.push(shown(change)));
      await proxy.refuse();
      await eventually('stale', () => view.state.state === 'stale');
      await w.delete('a/1');
      const { revision } = await w.put('b/2', 'v');
      await writer.compact(revision);
      await proxy.accept();
      await eventually('synced', () => view.state.state === 'synced');
      expect(seen).toEqual(['resync', 'removed a/1 v>-', 'added b/2 ->v']);
    });
  });
});

const clusters = [
  { kind: 'conclave', skip: targets[0]?.skip },
  { kind: 'etcd', skip: etcdBinary('3.5', 'etcd') === undefined ? 'ETCD_BIN_DIR does not hold it' : undefined },
] as const;

describe.each(clusters)('on a cluster of $kind', ({ kind, skip }) => {
  test.skipIf(skip !== undefined)(
    'a view goes on when the leader is lost',
    async () => {
      await using cluster = await launchCluster({ kind });
      await using client = await connect({ endpoints: cluster.endpoints });
      await using view = await client.view([prefix('a/'), prefix('b/')]);
      const model = new Map<string, string>();
      view.changes().subscribe((change) => {
        if (change.type === 'resync') throw new Error('nothing was compacted');
        const { key: name } = change.kv ?? change.old;
        expect(model.get(name)).toBe(change.old?.value);
        if (change.kv === undefined) model.delete(name);
        else model.set(name, change.kv.value);
      });
      await (await cluster.leader()).kill();
      for (let n = 0; n < 30; n++) {
        await client.put(`${n % 2 === 0 ? 'a' : 'b'}/${n % 10}`, `${n}`, { deadlineMs: 20_000 }).catch(ignoreUnknown);
      }
      await view.reach({ maxStaleMs: 0, deadlineMs: 20_000 });
      const { kvs } = await client.list(allKeys());
      expect(new Map(kvs.map((kv) => [kv.key, kv.value]))).toEqual(model);
      expect(new Map([...view.values()].map((kv) => [kv.key, kv.value]))).toEqual(model);
    },
    60_000,
  );
});

/** A write that was lost with a member may have been made. */
function ignoreUnknown(error: unknown): void {
  if (!isConclaveError(error) || error.outcome !== 'unknown') throw error;
}
