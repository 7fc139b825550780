// The defects measured in the client that this one replaces, as tests: through a TCP proxy that goes wrong, against every server there is.
import { lock, tryLock } from '@conclave/recipes';
import { type Client, connect, isConclaveError, key, prefix, put } from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { eventually, type RunningProcess, TcpProxy, testTargets, within } from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

describe.each(testTargets())('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let direct: Client;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    direct = await connect({ endpoints: server.address });
  });

  afterAll(async () => {
    await direct?.close();
    await server?.[Symbol.asyncDispose]();
  });

  const events = 2_000;
  let written: Promise<{ readonly first: bigint; readonly events: number }> | undefined;

  /** So many writes in a row and nothing between them, made once. */
  function history(): Promise<{ readonly first: bigint; readonly events: number }> {
    written ??= (async () => {
      const { revision } = await direct.put('history/first', '');
      for (let n = 1; n < events; n += 100) {
        const rest = Math.min(100, events - n);
        await Promise.all(Array.from({ length: rest }, (_, at) => direct.put(`history/${n + at}`, 'x'.repeat(100))));
      }
      return { first: revision, events };
    })();
    return written;
  }

  /** A proxy in front of the server, and a client behind it. */
  async function faulty(): Promise<{ proxy: TcpProxy; client: Client } & AsyncDisposable> {
    const proxy = await TcpProxy.to(server.address);
    const client = await connect({ endpoints: proxy.address });
    return {
      proxy,
      client,
      async [Symbol.asyncDispose]() {
        await client.close();
        await proxy[Symbol.asyncDispose]();
      },
    };
  }

  describe.skipIf(skip !== undefined)('a watch loses nothing and repeats nothing', () => {
    // Up to more than the largest answer of a catch-up, so that there is progress, and often far less, so that it is hard-won.
    const budgets = (seed: number, most: number): (() => number) => {
      const random = new Random(seed);
      return () => 1 + Math.floor(random.next() ** 3 * most);
    };

    test.each([1, 2, 3, 4])(
      'when the connection is cut anywhere while it catches up (%i)',
      async (seed) => {
        const { first, events } = await history();
        await using faults = await faulty();
        const { proxy, client } = faults;
        proxy.cutEvery(budgets(seed, 250_000));
        const revisions: bigint[] = [];
        const loop = (async () => {
          for await (const event of client.watch(prefix('history/'), { startRevision: first }))
            if (revisions.push(event.revision) === events) return;
        })();
        await within('all events', loop, 60_000);
        expect(proxy.cuts).toBeGreaterThan(0);
        expect(revisions).toEqual(Array.from({ length: events }, (_, at) => first + BigInt(at)));
      },
      90_000,
    );

    test('when the connection is cut again and again during live delivery', async () => {
      await using faults = await faulty();
      const { proxy, client } = faults;
      const observed: string[] = [];
      let isReady = false;
      const subscription = client.watch(prefix('live/'), { notifyCreated: true }).subscribe((event) => {
        if (event.type === 'created') isReady = true;
        else observed.push(event.value);
      });
      await eventually('the watch stands', () => isReady);
      proxy.cutEvery(budgets(5, 60_000));
      // Writes go on until there were cuts enough, however fast they are against the reconnecting watch.
      const cuts = 8;
      let writes = 0;
      for (; writes < 1_500 || (proxy.cuts < cuts && writes < 50_000); writes += 10) {
        await Promise.all(Array.from({ length: 10 }, (_, at) => direct.put(`live/${at}`, `${writes + at}`)));
      }
      await eventually('all events', () => observed.length >= writes, 30_000).finally(() => subscription.unsubscribe());
      expect(proxy.cuts).toBeGreaterThanOrEqual(cuts);
      // Each key's own values came in order, and the last one is what the store holds.
      const { kvs } = await direct.list(prefix('live/'));
      for (let at = 0; at < 10; at++) {
        const own = observed.filter((text) => Number(text) % 10 === at).map(Number);
        expect(own).toEqual(Array.from({ length: writes / 10 }, (_, n) => n * 10 + at));
        expect(kvs.find((kv) => kv.key === `live/${at}`)?.value).toBe(`${writes - 10 + at}`);
      }
    }, 60_000);
  });

  test.skipIf(skip !== undefined)('a write whose answer is lost is applied once, and its outcome is unknown', async () => {
    await using faults = await faulty();
    const { proxy, client } = faults;
    for (let n = 0; n < 20; n++) {
      await client.get('warm-up');
      proxy.loseResponse();
      const error = await client.put(`once/${n}`, 'v').catch((reason: unknown) => reason);
      expect(error).toMatchObject({ outcome: 'unknown' });
      await eventually('the write is there', async () => (await direct.get(`once/${n}`)) !== undefined);
      expect((await direct.get(`once/${n}`))?.version).toBe(1n);
    }
    expect(proxy.cuts).toBe(20);
  });

  test.skipIf(skip !== undefined)('a transaction whose answer is lost is never said to have failed its condition', async () => {
    await using faults = await faulty();
    const { proxy, client } = faults;
    for (let n = 0; n < 20; n++) {
      await client.get('warm-up');
      proxy.loseResponse();
      const name = `create/${n}`;
      const answer = await client
        .txn()
        .if(key(name).missing())
        .then(put(name, 'mine'))
        .commit()
        .catch((reason: unknown) => reason);
      expect(answer).toMatchObject({ outcome: 'unknown' });
      await eventually('it was applied', async () => (await direct.get(name))?.value === 'mine');
    }
  });

  test.skipIf(skip !== undefined)('a read whose answer is lost is simply repeated', async () => {
    await using faults = await faulty();
    const { proxy, client } = faults;
    await direct.put('read', 'me');
    for (let n = 0; n < 20; n++) {
      proxy.loseResponse();
      expect((await client.get('read'))?.value).toBe('me');
    }
    expect(proxy.cuts).toBe(20);
  });

  test.skipIf(skip !== undefined)('reads go on when one of two endpoints falls silent', async () => {
    await using quiet = await TcpProxy.to(server.address);
    await using fine = await TcpProxy.to(server.address);
    await using client = await connect({ endpoints: [quiet.address, fine.address] });
    await direct.put('read', 'me');
    await eventually('both are ready', () => quiet.accepted > 0 && fine.accepted > 0);
    quiet.silence();
    const started = performance.now();
    const reads = await Promise.all(Array.from({ length: 40 }, () => client.get('read')));
    expect(reads.map((kv) => kv?.value)).toEqual(Array.from({ length: 40 }, () => 'me'));
    expect(performance.now() - started).toBeLessThan(4_800);
  });

  test.skipIf(skip !== undefined)('a counter of conditional writes is right, whatever is lost', async () => {
    await using faults = await faulty();
    const { proxy, client } = faults;
    await direct.put('counter', '0');
    let certain = 0;
    let doubtful = 0;
    for (let n = 0; n < 60; n++) {
      if (n % 3 === 0) proxy.loseResponse(2);
      try {
        const stored = await client.get('counter');
        const next = put('counter', String(Number(stored?.value) + 1));
        const { succeeded } = await client
          .txn()
          .if(key('counter').modRevision.equals(stored?.modRevision ?? 0))
          .then(next)
          .commit();
        if (succeeded) certain++;
      } catch (error) {
        if (!isConclaveError(error) || error.outcome !== 'unknown') throw error;
        doubtful++;
      }
    }
    const total = Number((await direct.get('counter'))?.value);
    expect(doubtful).toBeGreaterThan(0);
    expect(total).toBeGreaterThanOrEqual(certain);
    expect(total).toBeLessThanOrEqual(certain + doubtful);
  });

  test.skipIf(skip !== undefined).each([2, 5])(
    'the loss of a lease of %i s is told before the server lets it go',
    async (ttlSeconds) => {
      await using faults = await faulty();
      const { proxy, client } = faults;
      const lease = await client.lease.grant({ ttlSeconds });
      await client.put(`leased/${ttlSeconds}`, 'v', { lease });
      await within('a renewal', new Promise((resolve) => setTimeout(resolve, lease.ttlSeconds * 400)), 10_000);
      expect(lease.state).toBe('held');
      proxy.silence();
      const lost = new Promise<void>((resolve) => lease.signal.addEventListener('abort', () => resolve(), { once: true }));
      await within('the loss', lost, lease.ttlSeconds * 1_000 + 500);
      const still = await direct.lease.timeToLive(lease.id);
      expect(still?.ttlSeconds).toBeGreaterThanOrEqual(0);
      expect(await direct.get(`leased/${ttlSeconds}`)).toBeDefined();
      expect(lease.signal.reason).toMatchObject({ code: 'lease-lost' });
    },
    30_000,
  );

  test.skipIf(skip !== undefined)('a lock waits for the holders of other programs, whatever is lost on the way', async () => {
    await using faults = await faulty();
    const { proxy, client } = faults;
    for (let nth = 1; nth <= 4; nth++) {
      const name = `lock/${nth}`;
      // As etcd's own Go mutex, and so etcdctl lock, writes it.
      await using foreign = await direct.lease.grant({ ttlSeconds: 30 });
      const theirs = `${name}/${foreign.id.toString(16)}`;
      await direct.put(theirs, '', { lease: foreign });
      expect(await tryLock(client, name)).toBeUndefined();
      await expect(lock(client, name, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'lock-timeout' });
      proxy.loseResponse(nth);
      const waiting = lock(client, name);
      await eventually('it waits', async () => (await direct.list(prefix(`${name}/`))).count === 2);
      expect((await direct.get(theirs))?.version).toBe(1n);
      const { revision } = await direct.delete(theirs);
      const held = await within('the lock', waiting, 10_000);
      expect(held.token).toBeLessThan(revision);
      expect((await direct.get(held.key))?.createRevision).toBe(held.token);
      // And its loss is told.
      await direct.delete(held.key);
      await eventually('the loss', () => !held.isHeld);
      expect(held.signal.reason).toMatchObject({ code: 'lock-lost' });
    }
  });
});
