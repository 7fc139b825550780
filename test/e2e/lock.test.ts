import { type Lock, lock, tryLock } from '@conclave/recipes';
import { allKeys, type Client, connect, isConclaveError, prefix, put } from '@conclave/sdk';
import { eventually, type RunningProcess, TcpProxy, testTargets } from '@conclave/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

describe.each(testTargets())('lock() on $name', ({ name, skip, start }) => {
  if (skip !== undefined) {
    it.skip(`is not run: ${name}: ${skip}`, () => undefined);
    return;
  }

  let server: RunningProcess;
  let client: Client;
  let names = 0;
  let mine = '';

  beforeAll(async () => {
    server = await start();
    client = await connect({ endpoints: server.address });
  });
  afterAll(async () => {
    await client?.close();
    await server?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    mine = `lock/${++names}`;
  });

  const waiting = async (count: number): Promise<void> => {
    await eventually(`${count} contenders`, async () => (await client.list(prefix(`${mine}/`))).count === count);
  };

  /** No key of the queue and no lease is left: what a contender that gave up owes to everybody else. */
  const nothingLeft = async (leasesBefore: number): Promise<void> => {
    await eventually('nothing is left behind', async () => {
      const { count } = await client.list(prefix(`${mine}/`));
      return count === 0 && (await client.lease.list()).length === leasesBefore;
    });
  };

  it('lets one holder in at a time, in the order in which they came, each with a higher token', async () => {
    const first = await lock(client, mine);
    const tokens: bigint[] = [first.token];
    const order: number[] = [];
    let inside = 0;
    const others: Promise<void>[] = [];
    for (let at = 0; at < 8; at++) {
      others.push(
        lock(client, mine, {}, async (held) => {
          inside += 1;
          expect(inside).toBe(1);
          order.push(at);
          tokens.push(held.token);
          await client.get('anything');
          inside -= 1;
        }),
      );
      await waiting(at + 2);
    }
    await first.release();
    await Promise.all(others);
    expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(tokens).toEqual([...tokens].sort((a, b) => (a < b ? -1 : 1)));
    await nothingLeft(0);
  });

  it('takes a free lock with tryLock, and gives up at once when it is held', async () => {
    const held = await tryLock(client, mine);
    expect(held?.isHeld).toBe(true);
    expect(await tryLock(client, mine)).toBeUndefined();
    await held?.release();
    const again = await tryLock(client, mine);
    expect(again).toBeDefined();
    await again?.release();
    await nothingLeft(0);
  });

  it('is not kept waiting by a lock whose name only begins the same', async () => {
    await using longer = await lock(client, `${mine}x`);
    await using held = await lock(client, mine, { timeoutMs: 5_000 });
    expect(held.isHeld && longer.isHeld).toBe(true);
  });

  it('gives up after timeoutMs with lock-timeout and leaves nothing behind', async () => {
    await using held = await lock(client, mine);
    await expect(lock(client, mine, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'lock-timeout', outcome: 'not-applied' });
    expect((await client.list(prefix(`${mine}/`))).count).toBe(1);
    expect((await client.lease.list()).length).toBe(1);
    expect(held.isHeld).toBe(true);
  });

  it('gives up when the signal aborts, at every moment of its way, and leaves nothing behind', async () => {
    const held = await lock(client, mine);
    const reason = new Error('enough');
    for (let afterTurns = 0; afterTurns < 40; afterTurns++) {
      const controller = new AbortController();
      const attempt = lock(client, mine, { signal: controller.signal });
      attempt.catch(() => undefined);
      for (let turn = 0; turn < afterTurns; turn++) await new Promise((resolve) => setImmediate(resolve));
      controller.abort(reason);
      await expect(attempt).rejects.toMatchObject({ code: 'cancelled', cause: reason });
    }
    await held.release();
    await nothingLeft(0);
  });

  it('leaves no key behind on a lease of the caller either', async () => {
    const held = await lock(client, mine);
    for (let afterTurns = 0; afterTurns < 20; afterTurns++) {
      await using lease = await client.lease.grant({ ttlSeconds: 30 });
      const controller = new AbortController();
      const attempt = lock(client, mine, { signal: controller.signal, lease });
      attempt.catch(() => undefined);
      for (let turn = 0; turn < afterTurns; turn++) await new Promise((resolve) => setImmediate(resolve));
      controller.abort();
      await expect(attempt).rejects.toMatchObject({ code: 'cancelled' });
      expect((await client.list(prefix(`${mine}/`))).count).toBe(1);
    }
    await held.release();
  });

  it('passes the lock on when a waiter in the middle gives up', async () => {
    const held = await lock(client, mine);
    const controller = new AbortController();
    const middle = lock(client, mine, { signal: controller.signal });
    middle.catch(() => undefined);
    await waiting(2);
    const last = lock(client, mine);
    await waiting(3);
    controller.abort();
    await expect(middle).rejects.toMatchObject({ code: 'cancelled' });
    await held.release();
    await (await last).release();
  });

  it('rejects a waiter within a second when its lease is revoked', async () => {
    await using held = await lock(client, mine);
    const lease = await client.lease.grant({ ttlSeconds: 30 });
    const waiter = lock(client, mine, { lease });
    waiter.catch(() => undefined);
    await waiting(2);
    const revokedAt = performance.now();
    await using other = await connect({ endpoints: server.address });
    await other.lease.revoke(lease.id);
    await expect(waiter).rejects.toMatchObject({ code: 'lock-lost' });
    expect(performance.now() - revokedAt).toBeLessThan(1_000);
    expect(held.isHeld).toBe(true);
  });

  it('tells the holder when its key is deleted, and refuses its guarded writes', async () => {
    const held = await lock(client, mine);
    const { guard, signal } = held;
    await client.delete(held.key);
    await eventually('the signal', () => signal.aborted);
    expect(signal.reason).toMatchObject({ code: 'lock-lost' });
    expect(held.isHeld).toBe(false);
    expect(() => held.token).toThrow(expect.objectContaining({ code: 'lock-lost' }));
    const late = await client.txn().if(guard).then(put('late', 'write')).commit();
    expect(late.succeeded).toBe(false);
    await nothingLeft(0);
  });

  it('tells the loss before the server lets the next one in, with the connection gone silent', async () => {
    await using proxy = await TcpProxy.to(server.address);
    await using far = await connect({ endpoints: proxy.address });
    const held = await lock(far, mine, { ttlSeconds: 2 });
    let lostAt = Number.POSITIVE_INFINITY;
    held.signal.addEventListener('abort', () => {
      lostAt = performance.now();
    });
    proxy.silence();
    await using next = await lock(client, mine);
    expect(next.isHeld).toBe(true);
    expect(lostAt).toBeLessThan(performance.now());
    expect(isConclaveError(held.signal.reason, 'lock-lost')).toBe(true);
  });

  it('tells the loss on use when the event loop was blocked past the lease', async () => {
    const held = await lock(client, mine, { ttlSeconds: 2 });
    const until = performance.now() + 4_500;
    while (performance.now() < until);
    expect(() => held.token).toThrow(expect.objectContaining({ code: 'lock-lost' }));
    expect(() => held.guard).toThrow(expect.objectContaining({ code: 'lock-lost' }));
    expect(held.signal.aborted).toBe(true);
  });

  it.each([1, 2, 3])('takes its place once when answer %i on the way is lost', async (nth) => {
    const leasesBefore = (await client.lease.list()).length;
    await using proxy = await TcpProxy.to(server.address);
    await using far = await connect({ endpoints: proxy.address });
    proxy.loseResponse(nth);
    const held = await lock(far, mine);
    expect((await client.list(prefix(`${mine}/`))).count).toBe(1);
    expect((await client.get(held.key))?.createRevision).toBe(held.token);
    await held.release();
    await nothingLeft(leasesBefore);
  });

  it('stands on a lease of the caller, once for each name', async () => {
    await using lease = await client.lease.grant({ ttlSeconds: 10 });
    const held = await lock(client, mine, { lease });
    await expect(lock(client, mine, { lease })).rejects.toMatchObject({ code: 'lease-in-use' });
    const other = await lock(client, `${mine}-other`, { lease });
    await Promise.all([held.release(), other.release()]);
    expect(lease.state).toBe('held');
    expect((await client.list(prefix(`${mine}/`))).count).toBe(0);
  });

  it('gives one of two that ask at once on one lease the place, also when an answer is lost', async () => {
    await using proxy = await TcpProxy.to(server.address);
    await using far = await connect({ endpoints: proxy.address });
    const lease = await far.lease.grant({ ttlSeconds: 10 });
    proxy.loseResponse(1);
    const both = await Promise.allSettled([lock(far, mine, { lease }), lock(far, mine, { lease })]);
    expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(both[1]).toMatchObject({ reason: { code: 'lease-in-use' } });
    await lease.revoke();
    await expect(lock(client, mine, { lease, ttlSeconds: 5 })).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('gives back the result of a body, and rejects if the lock was lost while it ran', async () => {
    expect(await lock(client, mine, {}, async () => 42)).toBe(42);
    const lost = lock(client, mine, {}, async (held: Lock) => {
      await client.delete(held.key);
      await eventually('the loss', () => !held.isHeld);
      return 'too late';
    });
    await expect(lost).rejects.toMatchObject({ code: 'lock-lost' });
    await expect(lock(client, mine, {}, () => Promise.reject(new Error('the body failed')))).rejects.toThrow('the body failed');
    await nothingLeft(0);
  });

  it('works within a namespace', async () => {
    const space = client.namespace(`space-${names}/`);
    const held = await lock(space, 'job');
    expect((await client.list(prefix(`space-${names}/job/`))).count).toBe(1);
    await held.release();
  });

  it('refuses an empty name', async () => {
    await expect(lock(client, '')).rejects.toMatchObject({ code: 'invalid-argument' });
    expect((await client.list(allKeys(), { countOnly: true })).count).toBeGreaterThanOrEqual(0);
  });
});
