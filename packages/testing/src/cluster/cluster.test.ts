import { campaign, leader, lock } from '@conclave/recipes';
import { isConclaveError, key, prefix, put } from '@conclave/sdk';
import { describe, expect, test } from 'vitest';
import { cluster, type TestCluster } from '../index.ts';

/** What a run shows of itself, with its times. */
async function story(seed: number): Promise<readonly string[]> {
  const told: string[] = [];
  await using c = await cluster({ size: 3, seed, delayMs: [1, 9] });
  const tell = (what: string): void => void told.push(`${c.runtime.monotonic()} ${what}`);
  await c.run(async () => {
    const client = await c.client();
    tell(`leader ${await c.leader()}`);
    client.watch(prefix('a/')).subscribe((event) => tell(`${event.key} ${event.value} ${event.revision}`));
    await c.advance(100);
    for (let n = 0; n < 5; n++) await client.put(`a/${n}`, `${n}`);
    const lease = await client.lease.grant({ ttlSeconds: 5 });
    tell(`lease ${lease.id}`);
    c.crash(await c.leader());
    await client.put('a/after', 'x').catch((error: unknown) => tell(String(error)));
    tell(`leader ${await c.leader()}`);
    await c.restart();
  });
  return told;
}

describe('a cluster in virtual time', () => {
  test('the same seed gives the same run, another seed another', async () => {
    const first = await story(11);
    expect(await story(11)).toEqual(first);
    expect(await story(12)).not.toEqual(first);
  });

  test('one member starts in a moment and serves', async () => {
    // The first one loads what there is to load.
    await (await cluster()).close();
    const started = performance.now();
    await using c = await cluster();
    expect(performance.now() - started).toBeLessThan(1_000);
    const client = await c.client();
    await c.run(client.put('a', '1'));
    expect((await c.run(client.get('a')))?.value).toBe('1');
  });

  test('an hour takes a moment', async () => {
    await using c = await cluster();
    const client = await c.client();
    const lease = await c.run(client.lease.grant({ ttlSeconds: 10 }));
    const before = c.runtime.monotonic();
    await c.advance(3_600_000);
    expect(c.runtime.monotonic() - before).toBe(3_600_000);
    expect(lease.state).toBe('held');
  });

  test('what runs at the same time is moved together', async () => {
    await using c = await cluster();
    const client = await c.client();
    const slow = c.run(async () => {
      await c.advance(5_000);
      return c.runtime.monotonic();
    });
    const quick = c.run(() => client.put('a', '1'));
    const [end] = await Promise.all([slow, quick]);
    expect(end).toBeGreaterThanOrEqual(5_000);
  });

  test('each work has its own time, also within other work', async () => {
    await using c = await cluster();
    const waited = await c.run(async () => {
      const start = c.runtime.monotonic();
      await expect(c.until(() => false, { deadlineMs: 500 })).rejects.toThrow('did not settle within 500 ms');
      return c.runtime.monotonic() - start;
    });
    expect(waited).toBe(500);
    await c.run(() => c.advance(100), { deadlineMs: 100 });
  });

  test('work beside other work that does not end, or ends first, goes on', { timeout: 2_000 }, async () => {
    await using c = await cluster();
    const after = (ms: number) => () => new Promise<string>((resolve) => void c.runtime.timer(ms, () => resolve(`after ${ms}`)));
    const hanging = c.run(new Promise(() => undefined), { deadlineMs: 100 });
    const beside = c.run(after(200));
    await expect(hanging).rejects.toThrow('did not settle within 100 ms');
    expect(await beside).toBe('after 200');
    expect(await Promise.all([c.run(after(50), { deadlineMs: 100 }), c.run(after(300))])).toEqual(['after 50', 'after 300']);
  });

  test('a cluster that is closed says so, to whoever waits and whoever comes', async () => {
    const c = await cluster();
    const waiting = c.run(new Promise(() => undefined));
    await Promise.all([expect(waiting).rejects.toThrow('the cluster is closed'), c.close()]);
    await expect(c.client()).rejects.toThrow('the cluster is closed');
    await expect(c.restart()).rejects.toThrow('the cluster is closed');
    await expect(c.advance(10)).rejects.toThrow('the cluster is closed');
    await c.close();
  });

  test('what does not end within its time is told, and what is run after it is not held up by it', async () => {
    await using c = await cluster();
    await expect(c.run(new Promise(() => undefined), { deadlineMs: 1_000 })).rejects.toThrow(
      'what was run did not settle within 1000 ms of virtual time',
    );
    await expect(c.until(() => false, { deadlineMs: 500 })).rejects.toThrow('did not settle within 500 ms');
    expect(await c.run(async () => 'done')).toBe('done');
    await expect(
      c.run(() => {
        throw new Error('at once');
      }),
    ).rejects.toThrow('at once');
  });

  test.each([
    [{ size: 0 }, 'a cluster has 1 to 7 members, not 0'],
    [{ seed: 0.5 }, 'a seed is a whole number, not 0.5'],
    [{ delayMs: [5, 1] as const }, 'delayMs must be'],
    [{ delayMs: [0, Number.POSITIVE_INFINITY] as const }, 'delayMs must be'],
    [{ delayMs: [Number.NaN, 1] as const }, 'delayMs must be'],
    [{ delayMs: 5 as never }, 'delayMs must be'],
    [{ electionMs: 0 }, 'election-timeout'],
    [{ heartbeatMs: Number.NaN }, 'heartbeatMs must be a number, not NaN'],
    [{ maxTxnOps: Number.NaN }, 'maxTxnOps must be a number, not NaN'],
    [{ electionMs: '1000' as never, heartbeatMs: '10' as never }, 'heartbeatMs must be a number, not 10'],
    [{ preVote: 'no' as never }, 'preVote must be a boolean, not no'],
  ])('refuses %o', async (options, message) => {
    await expect(cluster(options)).rejects.toThrow(message);
  });

  test('restarts a member that is named twice once, and none that stands still', async () => {
    await using c = await cluster({ size: 3 });
    await c.restart(1, 1);
    c.pause(1);
    await expect(c.restart(1)).rejects.toThrow('m1 stands still');
    c.crash(1);
    await c.restart(1);
    const client = await c.client({ members: [1] });
    await c.run(client.put('a', '1'));
  });

  test('refuses members and clients that are not of it', async () => {
    await using c = await cluster();
    await using other = await cluster();
    const stranger = await other.client();
    expect(() => c.crash(2)).toThrow('there is no member 2: they are 1 to 1');
    expect(() => c.pause(stranger)).toThrow('this client is none of this cluster');
    expect(() => c.partition([1], [1])).toThrow('both sides');
    expect(() => c.partition([], [1])).toThrow('two sides');
    await expect(c.moveLeader()).rejects.toThrow('there is no other member that could lead');
    const client = await c.client();
    expect(() => c.partition([1], [client], { isOneWay: true })).toThrow('between members only');
    expect(() => c.disconnect(1 as never)).toThrow('only clients have connections');
    expect(() => c.disconnect(stranger)).toThrow('this client is none of this cluster');
    for (const party of [1, client]) expect(() => c.stepWall(party, Number.NaN)).toThrow('by a number of milliseconds, not NaN');
    await expect(c.advance(Number.NaN)).rejects.toThrow('time moves forward only');
    await expect(c.advance(Number.POSITIVE_INFINITY)).rejects.toThrow('a timer needs a finite delay');
    await expect(c.moveLeader(7)).rejects.toThrow('there is no member 7');
    await expect(c.client({ members: [1.5] })).rejects.toThrow('there is no member 1.5');
  });
});

describe('troubles of members', () => {
  test('what was acknowledged survives the crash of all, and they come back together', async () => {
    await using c = await cluster({ size: 3 });
    const client = await c.client();
    await c.run(client.put('a', '1'));
    for (const number of [1, 2, 3]) c.crash(number);
    await c.advance(1_000);
    await c.restart();
    expect((await c.run(client.get('a')))?.value).toBe('1');
  });

  test('a member that runs is restarted as an operator would', async () => {
    await using c = await cluster();
    const client = await c.client();
    await c.run(client.put('a', '1'));
    await c.restart(1);
    expect((await c.run(client.get('a')))?.value).toBe('1');
  });

  test('a minority cannot write, and the majority goes on', async () => {
    await using c = await cluster({ size: 3 });
    const left = await c.client({ members: [1], deadlineMs: 2_000 });
    const right = await c.client({ members: [2, 3] });
    c.partition([1], [2, 3]);
    await c.run(async () => {
      await c.advance(3_000);
      await expect(left.put('a', 'left')).rejects.toSatisfy((error) => isConclaveError(error));
      await right.put('a', 'right');
      c.heal();
      await c.until(async () => (await left.get('a'))?.value === 'right');
    });
  });

  test('a partition in one direction: whoever is not heard by the others loses its office', async () => {
    await using c = await cluster({ size: 3 });
    const old = await c.leader();
    const others = [1, 2, 3].filter((number) => number !== old);
    const client = await c.client({ members: [old] });
    const leaderToIt = async (): Promise<bigint> => (await c.run(client.maintenance.at(`m${old}`).status())).leader ?? 0n;
    c.partition([old], others, { isOneWay: true });
    await c.advance(5_000);
    expect(await c.leader()).not.toBe(old);
    // It hears the others, and so who leads now.
    expect(await leaderToIt()).not.toBe(0n);
    c.partition(others, [old], { isOneWay: true });
    await c.advance(5_000);
    expect(await leaderToIt()).toBe(0n);
  });

  test('leadership goes to whom it is given, and away from who stands still', async () => {
    await using c = await cluster({ size: 3 });
    const first = await c.leader();
    const second = await c.moveLeader();
    expect(second).not.toBe(first);
    expect(await c.moveLeader(first)).toBe(first);
    c.pause(first);
    const third = await c.leader();
    expect(third).not.toBe(first);
    c.resume(first);
    await c.advance(2_000);
    expect(await c.leader()).toBe(third);
  });

  test('an isolated member is cut off from whoever comes later, too', async () => {
    await using c = await cluster({ size: 3 });
    c.isolate(2);
    const connecting = c.client({ members: [2], deadlineMs: 1_000 });
    await expect(connecting).rejects.toMatchObject({ code: 'unavailable' });
    c.heal();
    const client = await c.client({ members: [2] });
    await c.run(client.put('a', '1'));
  });

  test('an isolated member is no leader for long', async () => {
    await using c = await cluster({ size: 3 });
    const first = await c.leader();
    c.isolate(first);
    await c.advance(3_000);
    expect(await c.leader()).not.toBe(first);
  });
});

describe('troubles of clients', () => {
  test('one that is cut off loses its lease before the server lets it go', async () => {
    await using c = await cluster();
    const [holder, other] = [await c.client(), await c.client()];
    const lease = await c.run(holder.lease.grant({ ttlSeconds: 5 }));
    await c.run(holder.put('a', '1', { lease }));
    c.isolate(holder);
    await c.until(() => lease.state === 'lost');
    expect(await c.run(other.get('a'))).toBeDefined();
    await c.advance(3_000);
    expect(await c.run(other.get('a'))).toBeUndefined();
  });

  test('one that stood still tells the loss at the first look', async () => {
    await using c = await cluster();
    const client = await c.client();
    const lease = await c.run(client.lease.grant({ ttlSeconds: 5 }));
    c.pause(client);
    await c.advance(60_000);
    expect(lease.state).toBe('lost');
    c.resume(client);
    await c.run(client.put('a', '1'));
  });

  test('a step of the wall clock loses no lease', async () => {
    await using c = await cluster();
    const client = await c.client();
    const lease = await c.run(client.lease.grant({ ttlSeconds: 5 }));
    for (const ms of [3_600_000, -7_200_000]) {
      c.stepWall(client, ms);
      c.stepWall(1, -ms);
      await c.advance(6_000);
      expect(lease.state).toBe('held');
    }
  });

  test('the lock of a dead one goes to the next', async () => {
    await using c = await cluster({ size: 3 });
    const [first, second] = [await c.client(), await c.client()];
    const held = await c.run(lock(first, 'jobs', { ttlSeconds: 5 }));
    const waiting = lock(second, 'jobs');
    await c.advance(1_000);
    c.crash(first);
    const next = await c.run(waiting);
    expect(next.isHeld).toBe(true);
    expect(next.key).not.toBe(held.key);
  });

  test('a lease expires when it is told to, and its holder learns of it', async () => {
    await using c = await cluster({ size: 3 });
    const client = await c.client();
    const lease = await c.run(client.lease.grant({ ttlSeconds: 60 }));
    await c.run(client.put('a', '1', { lease }));
    await c.expireLease(lease);
    expect(await c.run(client.get('a'))).toBeUndefined();
    await c.until(() => lease.state === 'lost');
    await expect(c.expireLease(lease.id)).resolves.toBeUndefined();
  });

  test('a lock and an election are taken away by their names', async () => {
    await using c = await cluster();
    const [first, second] = [await c.client({ namespace: 'app/' }), await c.client({ namespace: 'app/' })];
    const held = await c.run(lock(first, 'jobs'));
    const waiting = lock(second, 'jobs');
    await c.advance(100);
    await c.evict('app/jobs');
    const next = await c.run(waiting);
    await c.until(() => !held.isHeld);
    expect(held.signal.reason).toMatchObject({ code: 'lock-lost' });
    expect(next.token).toBeGreaterThan(0n);
    const leadership = await c.run(campaign(first, 'chief', { value: 'first' }));
    expect((await c.run(leader(second, 'chief')))?.value).toBe('first');
    await c.evict('app/chief');
    await c.until(() => !leadership.isHeld);
    await expect(c.evict('nobody')).rejects.toThrow('nobody has the lock or election nobody');
  });

  test('a watch that was cut off meets the compaction, and a view gets over it', async () => {
    await using c = await cluster();
    const [reader, writer] = [await c.client(), await c.client()];
    const { revision } = await c.run(writer.put('a/1', 'x'));
    const view = await c.run(reader.view(prefix('a/')));
    const changes: string[] = [];
    view.changes().subscribe((change) => changes.push(change.type));
    const errors: unknown[] = [];
    reader.watch(prefix('a/'), { startRevision: revision }).subscribe({ error: (error: unknown) => errors.push(error) });
    await c.advance(100);
    c.isolate(reader);
    c.disconnect(reader);
    await c.run(async () => {
      for (const value of ['y', 'z']) await writer.put('a/1', value);
      await writer.delete('a/1');
      await writer.put('a/2', 'new');
    });
    expect(await c.compact()).toBe(revision + 4n);
    c.heal();
    await c.until(() => view.get('a/2') !== undefined && errors.length > 0, { deadlineMs: 120_000 });
    expect(errors).toEqual([expect.objectContaining({ code: 'compacted' })]);
    expect(changes).toEqual(['resync', 'removed', 'added']);
    await expect(c.compact(revision)).rejects.toMatchObject({ code: 'compacted' });
  });

  test('partitions between a client and a member are of that client alone', async () => {
    await using c = await cluster({ size: 3 });
    const [cut, free] = [await c.client({ members: [1], deadlineMs: 1_000 }), await c.client({ members: [1] })];
    c.partition([cut], [1]);
    await c.run(async () => {
      await free.put('a', '1');
      await expect(cut.get('a')).rejects.toMatchObject({ outcome: 'not-applied' });
    });
    c.heal();
    expect((await c.run(cut.get('a')))?.value).toBe('1');
  });
});

test('a write whose connection breaks is in doubt, and the next one gets through', async () => {
  await using c = await cluster();
  const client = await c.client();
  const writing = client.put('a', '1');
  // Sent, and not answered yet.
  await c.advance(1);
  c.disconnect(client);
  await expect(c.run(writing)).rejects.toMatchObject({ outcome: 'unknown' });
  await c.run(client.put('a', '2'));
});

test('a guard holds exactly as long as the lock', async () => {
  await using c: TestCluster = await cluster();
  const client = await c.client();
  await c.run(async () => {
    const held = await lock(client, 'jobs');
    const { guard } = held;
    const write = (): Promise<{ succeeded: boolean }> => client.txn().if(guard).then(put('report', 'done')).commit();
    expect((await write()).succeeded).toBe(true);
    await c.evict('jobs');
    expect((await write()).succeeded).toBe(false);
    expect(await client.txn().if(key('report').exists()).then().commit()).toMatchObject({ succeeded: true });
  });
});
