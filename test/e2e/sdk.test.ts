// What the SDK promises, against every server there is.
import { type Client, type Comparison, connect, del, get, key, list, prefix, put, range, txn } from '@conclave/sdk';
import { eventually, type RunningProcess, testTargets, within } from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const targets = testTargets();

describe.each(targets)('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let root: Client;
  let space = 0;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    root = await connect({ endpoints: server.address });
  });

  afterAll(async () => {
    await root?.close();
    await server?.[Symbol.asyncDispose]();
  });

  /** Keys of its own for each test. */
  const fresh = () => root.namespace(`${++space}/`);

  describe.skipIf(skip !== undefined)('keys', () => {
    test('are written, read, and deleted', async () => {
      const client = fresh();
      expect(await client.get('k')).toBeUndefined();
      const { revision, prevKv } = await client.put('k', 'one', { prevKv: true });
      expect(prevKv).toBeUndefined();
      const again = await client.put('k', 'two', { prevKv: true });
      expect(again.revision).toBe(revision + 1n);
      expect(again.prevKv).toMatchObject({ key: 'k', value: 'one', createRevision: revision, version: 1n });
      expect(await client.get('k')).toMatchObject({
        value: 'two',
        createRevision: revision,
        modRevision: revision + 1n,
        version: 2n,
        lease: 0n,
      });
      expect((await client.get('k', { revision }))?.value).toBe('one');
      const deleted = await client.delete('k', { prevKv: true });
      expect(deleted).toMatchObject({ deleted: 1, revision: revision + 2n });
      expect(deleted.prevKvs[0]?.value).toBe('two');
      expect(await client.delete('k')).toMatchObject({ deleted: 0, revision: revision + 2n });
    });

    test('hold any bytes', async () => {
      const client = fresh();
      const bytes = new Uint8Array(256).map((_, at) => at);
      await client.put(bytes, bytes);
      const stored = await client.get(bytes);
      expect(stored?.keyBytes).toEqual(bytes);
      expect(new Uint8Array(stored?.valueBytes ?? [])).toEqual(bytes);
    });

    test('keep a value or a lease when told to', async () => {
      const client = fresh();
      await expect(client.put('k', '', { ignoreValue: true })).rejects.toMatchObject({ code: 'key-not-found', outcome: 'not-applied' });
      await using lease = await client.lease.grant({ ttlSeconds: 30 });
      await client.put('k', 'v', { lease });
      await client.put('k', 'w', { ignoreLease: true });
      expect(await client.get('k')).toMatchObject({ value: 'w', lease: lease.id });
      await client.put('k', '', { ignoreValue: true });
      expect(await client.get('k')).toMatchObject({ value: 'w', lease: 0n });
    });

    test('are listed by prefix, range, sort and limit', async () => {
      const client = fresh();
      for (const [name, value] of [
        ['b', '3'],
        ['a', '1'],
        ['c', '2'],
      ] as const)
        await client.put(`p/${name}`, value);
      await client.put('q', '');
      const names = async (...args: Parameters<typeof client.list>): Promise<string[]> =>
        (await client.list(...args)).kvs.map((kv) => kv.key);
      expect(await names(prefix('p/'))).toEqual(['p/a', 'p/b', 'p/c']);
      expect(await names(range('p/b', 'q'))).toEqual(['p/b', 'p/c']);
      expect(await names(prefix(''))).toEqual(['p/a', 'p/b', 'p/c', 'q']);
      expect(await names(prefix('p/'), { sort: { by: 'key', order: 'descend' } })).toEqual(['p/c', 'p/b', 'p/a']);
      expect(await names(prefix('p/'), { sort: { by: 'value' }, limit: 2 })).toEqual(['p/a', 'p/c']);
      expect(await names(prefix('p/'), { sort: { by: 'createRevision' }, limit: 1 })).toEqual(['p/b']);
      const cut = await client.list(prefix('p/'), { limit: 2, keysOnly: true });
      expect(cut).toMatchObject({ more: true, count: 3 });
      expect(cut.kvs[0]?.value).toBe('');
      expect(await client.list(prefix('p/'), { countOnly: true })).toMatchObject({ kvs: [], count: 3 });
    });

    test('beyond what is stored are refused', async () => {
      const client = fresh();
      const { revision } = await client.put('k', 'v');
      await expect(client.get('k', { revision: revision + 1_000n })).rejects.toMatchObject({ code: 'future-revision', grpcCode: 11 });
    });
  });

  describe.skipIf(skip !== undefined)('transactions', () => {
    test('do one thing or the other, at one revision', async () => {
      const client = fresh();
      await client.put('stock/42', '1');
      const sale = client
        .txn()
        .if(key('stock/42').value.equals('1'))
        .then(put('stock/42', '0'), put('order/7', 'item 42'))
        .else(get('stock/42'));
      const first = await sale.commit();
      if (!first.succeeded) return expect.unreachable();
      const [stock, order] = first;
      expect(stock.revision).toBe(order.revision);
      expect(stock.revision).toBe(first.revision);
      const second = await sale.commit();
      if (second.succeeded) return expect.unreachable();
      expect(second[0]?.value).toBe('0');
    });

    test('compare everything a key has', async () => {
      const client = fresh();
      await using lease = await client.lease.grant({ ttlSeconds: 30 });
      const { revision } = await client.put('k', 'v', { lease });
      const holds = async (...comparisons: readonly Comparison[]) =>
        (
          await client
            .txn()
            .if(...comparisons)
            .commit()
        ).succeeded;
      const k = key('k');
      expect(await holds(k.value.equals('v'), k.version.equals(1), k.createRevision.equals(revision), k.modRevision.equals(revision))).toBe(
        true,
      );
      expect(await holds(k.lease.equals(lease), k.exists(), key('none').missing(), k.value.lessThan('w'), k.value.greaterThan('u'))).toBe(
        true,
      );
      expect(await holds(k.value.notEquals('v'))).toBe(false);
      expect(await holds(key('none').value.notEquals('v'))).toBe(false);
      expect(await holds(key(prefix('')).modRevision.lessThan(revision + 1n))).toBe(true);
      expect(await holds(key(prefix('')).modRevision.lessThan(revision))).toBe(false);
    });

    test('nest, and each part returns its own', async () => {
      const client = fresh();
      await client.put('a', '1');
      const result = await client
        .txn()
        .if(key('a').exists())
        .then(
          put('b', '2'),
          txn()
            .if(key('b').missing())
            .then(list(prefix('')))
            .else(del('a')),
          get('b'),
        )
        .commit();
      if (!result.succeeded) return expect.unreachable();
      const [, nested, read] = result;
      // Conditions see the store as it was before; reads see what this transaction wrote before them.
      if (!nested.succeeded) return expect.unreachable();
      expect(nested[0].kvs.map((kv) => kv.key)).toEqual(['a', 'b']);
      expect(read?.value).toBe('2');
    });

    test('that contradict themselves are refused', async () => {
      await expect(fresh().txn().then(put('k', '1'), put('k', '2')).commit()).rejects.toMatchObject({
        code: 'duplicate-key',
        outcome: 'not-applied',
      });
    });
  });

  describe.skipIf(skip !== undefined)('watches', () => {
    test('tell puts and deletions with what was there before', async () => {
      const client = fresh();
      const { revision } = await client.put('k', 'one');
      await client.put('k', 'two');
      await client.delete('k');
      const seen: unknown[] = [];
      for await (const event of client.watch('k', { startRevision: revision, prevKv: true })) {
        seen.push([event.type, event.key, event.value, event.revision, event.prevKv?.value, event.isCreation]);
        if (seen.length === 3) break;
      }
      expect(seen).toEqual([
        ['put', 'k', 'one', revision, undefined, true],
        ['put', 'k', 'two', revision + 1n, 'one', false],
        ['delete', 'k', '', revision + 2n, 'two', false],
      ]);
    });

    test('from now see what is written once they stand, and only what they asked for', async () => {
      const client = fresh();
      await client.put('k', 'before');
      const seen: string[] = [];
      let since = 0n;
      const subscription = client.watch(prefix(''), { notifyCreated: true, ignore: 'delete' }).subscribe((event) => {
        if (event.type === 'created') since = event.revision;
        else seen.push(event.value);
      });
      await eventually('the watch stands', () => since > 0n);
      await client.put('k', 'after');
      await client.delete('k');
      await client.put('l', 'last');
      await eventually('the events', () => seen.length === 2);
      expect(seen).toEqual(['after', 'last']);
      subscription.unsubscribe();
    });

    test('by the hundred share a stream', async () => {
      const client = fresh();
      const seen = new Set<number>();
      let standing = 0;
      const subscriptions = Array.from({ length: 200 }, (_, at) =>
        client.watch(`k/${at}`, { notifyCreated: true }).subscribe((event) => {
          if (event.type === 'created') standing++;
          else seen.add(at);
        }),
      );
      await eventually('all stand', () => standing === 200);
      await Promise.all(Array.from({ length: 200 }, (_, at) => client.put(`k/${at}`, 'v')));
      await eventually('all are told', () => seen.size === 200);
      for (const subscription of subscriptions) subscription.unsubscribe();
    });

    test('of a range that holds nothing are refused', async () => {
      const loop = (async () => {
        for await (const event of fresh().watch(range('b', 'a'))) void event;
      })();
      await expect(within('the refusal', loop)).rejects.toMatchObject({ code: 'watch-range-empty' });
    });

    test('held back by a slow loop lose nothing, and do not hold back anything else', async () => {
      const client = fresh();
      const value = 'x'.repeat(1_000);
      const { revision } = await client.put('k', value);
      for (let n = 1; n < 1_000; n += 100)
        await Promise.all(Array.from({ length: Math.min(100, 1_000 - n) }, () => client.put('k', value)));
      const events = client.watch('k', { startRevision: revision, bufferedEventsMax: 10 })[Symbol.asyncIterator]();
      expect((await events.next()).value?.revision).toBe(revision);
      const others = await within('calls beside it', Promise.all(Array.from({ length: 50 }, () => client.get('k'))), 4_000);
      expect(others).toHaveLength(50);
      for (let n = 1n; n < 1_000n; n++) expect((await events.next()).value?.revision).toBe(revision + n);
      await events.return?.();
    });

    test('go on across a restart of the server', async () => {
      const client = fresh();
      const seen: string[] = [];
      let stands = false;
      const subscription = client.watch(prefix(''), { notifyCreated: true }).subscribe((event) => {
        if (event.type === 'created') stands = true;
        else seen.push(event.value);
      });
      await eventually('the watch stands', () => stands);
      await client.put('k', '1');
      await server.restart();
      await client.put('k', '2', { deadlineMs: 20_000 });
      await client.put('k', '3');
      await eventually('all events', () => seen.length === 3, 20_000);
      expect(seen).toEqual(['1', '2', '3']);
      subscription.unsubscribe();
    }, 60_000);

    test('of compacted history say so, and from where on there is some', async () => {
      const client = fresh();
      const { revision } = await client.put('k', '1');
      const { revision: last } = await client.put('k', '2');
      await client.compact(last);
      const loop = (async () => {
        for await (const event of client.watch('k', { startRevision: revision })) void event;
      })();
      await expect(within('the end', loop)).rejects.toMatchObject({ code: 'compacted', details: { compactRevision: last } });
      await expect(client.get('k', { revision })).rejects.toMatchObject({ code: 'compacted' });
      await expect(client.compact(last)).rejects.toMatchObject({ code: 'compacted', outcome: 'not-applied' });
    });
  });

  describe.skipIf(skip !== undefined)('leases', () => {
    test('are kept for as long as they are held, and take their keys along', async () => {
      const client = fresh();
      const lease = await client.lease.grant({ ttlSeconds: 2 });
      await client.put('k', 'v', { lease });
      const granted = performance.now();
      await eventually('longer than it would last by itself', () => performance.now() - granted > 3_500);
      expect(lease.state).toBe('held');
      expect(await client.lease.timeToLive(lease.id, { keys: true })).toMatchObject({ id: lease.id, grantedTtlSeconds: 2, keys: ['k'] });
      expect(await client.lease.list()).toContain(lease.id);
      await lease.revoke();
      expect(await client.get('k')).toBeUndefined();
      expect(await client.lease.timeToLive(lease.id)).toBeUndefined();
      await lease.revoke();
    });

    test('taken away by somebody else are lost within a renewal', async () => {
      const client = fresh();
      const lease = await client.lease.grant({ ttlSeconds: 3 });
      const lost = new Promise<void>((resolve) => lease.signal.addEventListener('abort', () => resolve(), { once: true }));
      await client.lease.revoke(lease.id);
      await within('the loss', lost, 1_500);
      expect(lease.signal.reason).toMatchObject({ code: 'lease-lost' });
    });

    test('that are gone cannot be written under', async () => {
      const client = fresh();
      await expect(client.put('k', 'v', { lease: 123_456n })).rejects.toMatchObject({ code: 'lease-not-found', outcome: 'not-applied' });
    });

    test('that last too long are refused', async () => {
      await expect(fresh().lease.grant({ ttlSeconds: 9_000_000_001 })).rejects.toMatchObject({ code: 'lease-ttl-too-large' });
    });
  });

  describe.skipIf(skip !== undefined)('clients', () => {
    test('in a namespace do not see beyond it', async () => {
      const client = fresh();
      await client.put('a', '1');
      await using other = await connect({ endpoints: server.address, namespace: `${space}/inner/` });
      await other.put('a', '2');
      expect((await other.list(prefix(''))).kvs.map((kv) => [kv.key, kv.value])).toEqual([['a', '2']]);
      expect((await client.get('inner/a'))?.value).toBe('2');
    });

    test('of one process share nothing by accident', async () => {
      await using one = await connect({ endpoints: server.address });
      await using two = await connect({ endpoints: `http://${server.address}` });
      await one.close();
      expect(await two.get('nothing')).toBeUndefined();
      await expect(one.get('nothing')).rejects.toMatchObject({ code: 'client-closed' });
    });
  });
});
