// Sessions in virtual time: leases that are lost here and live there, fights over a key, history that is compacted away.
import { type Client, prefix, put, type SessionState } from '@conclave/sdk';
import { cluster, type TestCluster } from '@conclave/testing';
import { afterEach, beforeEach, expect, test } from 'vitest';

let c: TestCluster;
let client: Client;
let other: Client;

beforeEach(async () => {
  c = await cluster({ delayMs: [1, 5] });
  client = await c.client();
  other = await c.client();
});
afterEach(async () => {
  await c.close();
});

test('a lease that is lost here and lives there gives its keys to the next without a gap, and is revoked with the rest', async () => {
  await c.run(async () => {
    const session = await client.session({ ttlSeconds: 30 });
    const held = session.hold('k/a', 'v');
    await held.placed();
    const { lease } = session;
    await client.put('k/attached', 'x', { lease });
    const seen: string[] = [];
    other.watch('k/a').subscribe((event) => seen.push(event.type));
    await c.advance(100);
    let stateThen: string | undefined;
    session.status().subscribe(({ state }) => {
      if (state === 'recovered') stateThen = held.state.state;
    });
    // By its clock alone, long before the server's: what a leader elected anew, who starts each lease afresh, makes of a late renewal.
    (lease as unknown as { end(state: 'lost', why: string): void }).end('lost', 'the test says so');
    await c.until(() => stateThen !== undefined);
    expect(stateThen).toBe('held');
    expect(await other.get('k/a')).toMatchObject({ lease: session.lease.id });
    await c.advance(100);
    expect(seen).toEqual(['put']);
    expect(await other.get('k/attached')).toBeUndefined();
    expect(await other.lease.timeToLive(lease.id)).toBeUndefined();
  });
});

test('taken back, its word is another: what was under way before finds none of its own', async () => {
  await c.run(async () => {
    await using session = await client.session({ ttlSeconds: 30 });
    const { guard } = session;
    const holds = async (): Promise<boolean> => (await client.txn().if(guard).then(put('late', 'x')).commit()).succeeded;
    expect(await holds()).toBe(true);
    await session.handOver();
    expect(await holds()).toBe(false);
    await session.takeBack();
    await c.advance(100);
    expect(await holds()).toBe(false);
    expect((await client.txn().if(session.guard).then(put('now', 'x')).commit()).succeeded).toBe(true);
  });
});

test('a successor does not take for its own what somebody else had written over', async () => {
  await c.run(async () => {
    const session = await client.session({ ttlSeconds: 30 });
    const held = session.hold('k', 'ours');
    await held.placed();
    await other.put('k', 'theirs');
    await c.until(() => held.state.state === 'taken');
    await using successor = await other.session({ from: await session.handOver() });
    expect(successor.holds).toEqual([]);
    const again = successor.hold('k', 'ours again');
    await c.until(() => again.state.state === 'taken');
    expect((await client.get('k'))?.value).toBe('theirs');
  });
});

test('two that overwrite each other do so ever more slowly, and what is asked for is done at once', async () => {
  await c.run(async () => {
    const sessions = await Promise.all([client, other].map((one) => one.session()));
    const fighters = sessions.map((session, nth) => session.hold('k', `${nth}`, { ifTaken: 'overwrite' }));
    await c.advance(10_000);
    const version = (await client.get('k'))?.version ?? 0n;
    expect(version).toBeGreaterThan(4n);
    expect(version).toBeLessThan(60n);
    await fighters[1]?.release();
    await fighters[0]?.update('mine');
    await c.advance(2_000);
    expect((await client.get('k'))?.value).toBe('mine');
    await Promise.all(sessions.map((session) => session.close()));
  });
});

test('a key that was deleted in history that is compacted away meanwhile is put back', async () => {
  await c.run(async () => {
    await using session = await client.session({ ttlSeconds: 60 });
    const states: SessionState['state'][] = [];
    session.status().subscribe(({ state }) => states.push(state));
    const held = session.hold('k', 'v');
    await held.placed();
    c.isolate(client);
    await other.delete('k');
    await other.put('more', 'x');
    await c.compact();
    await c.advance(20_000);
    c.heal();
    await c.until(async () => (await other.get('k'))?.value === 'v');
    expect(states).not.toContain('lost');
    await c.until(() => held.state.state === 'held');
    // And it is watched again.
    await other.delete('k');
    await c.until(async () => (await other.get('k'))?.value === 'v');
  });
});

test('a successor that cannot reach the store, and a cluster that is elected anew, leave the session with one of the two', async () => {
  await c.run(async () => {
    const session = await client.session({ ttlSeconds: 10 });
    await session.hold('k/a', 'old').placed();
    const token = await session.handOver();
    c.isolate(other);
    const claim = other.session({ from: token, deadlineMs: 2_000 });
    await expect(claim).rejects.toMatchObject({ code: expect.stringMatching(/deadline-exceeded|unavailable/) });
    await session.takeBack();
    c.heal();
    await c.advance(5_000);
    await expect(other.session({ from: token })).rejects.toMatchObject({ code: 'session-claimed' });
    c.crash(await c.leader());
    await c.restart();
    await c.advance(60_000);
    expect(session.state.state).toBe('live');
    expect((await other.list(prefix('k/'))).kvs.map(({ key, value }) => `${key} ${value}`)).toEqual(['k/a old']);
    await session.close();
    expect((await other.list(prefix('k/'))).count).toBe(0);
  });
});
