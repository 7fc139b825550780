// Sessions against every server there is: what they hold comes back, and moves from process to process without a gap.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { campaign, lock, observe, tryLock } from '@conclave/recipes';
import {
  type Client,
  connect,
  get,
  type HoldState,
  isConclaveError,
  type Middleware,
  prefix,
  put,
  type Session,
  type SessionState,
} from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { eventually, type RunningProcess, TcpProxy, testTargets } from '@conclave/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

const targets = testTargets();

describe.each(targets)('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let client: Client;
  let other: Client;
  let space = 0;
  let mine = '';

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    client = await connect({ endpoints: server.address });
    other = await connect({ endpoints: server.address });
  });
  afterAll(async () => {
    await client?.close();
    await other?.close();
    await server?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    mine = `session/${++space}/`;
  });

  /** What happens to the keys of this test from now on. */
  async function watched(): Promise<{ readonly seen: string[]; stop(): void }> {
    const seen: string[] = [];
    const created = { isThere: false };
    const subscription = other.watch(prefix(mine), { notifyCreated: true }).subscribe((event) => {
      if (event.type === 'created') created.isThere = true;
      else seen.push(`${event.type} ${event.key.slice(mine.length)} ${event.value}`.trim());
    });
    await eventually('the watch stands', () => created.isThere);
    return { seen, stop: () => subscription.unsubscribe() };
  }

  const states = (session: Session): SessionState['state'][] => {
    const seen: SessionState['state'][] = [];
    session.status().subscribe(({ state }) => seen.push(state));
    return seen;
  };

  describe.skipIf(skip !== undefined)('a held key', () => {
    test('is put under the lease, changed, and taken away', async () => {
      await using session = await client.session({ ttlSeconds: 10 });
      const held = session.hold(`${mine}a`, 'one');
      expect(held.state.state).toBe('pending');
      await held.placed();
      expect(held.state).toEqual({ state: 'held' });
      expect(await other.get(`${mine}a`)).toMatchObject({ value: 'one', lease: session.lease.id });
      await held.update('two');
      expect(await other.get(`${mine}a`)).toMatchObject({ value: 'two', lease: session.lease.id, version: 2n });
      await held.release();
      expect(await other.get(`${mine}a`)).toBeUndefined();
      expect(held.state.state).toBe('released');
      await expect(held.update('three')).rejects.toMatchObject({ code: 'hold-released' });
      await expect(held.placed()).rejects.toMatchObject({ code: 'hold-released' });
      expect(session.holds).toEqual([]);
    });

    test('takes many values in a row, and the last stays', async () => {
      await using session = await client.session();
      const held = session.hold(`${mine}a`, '0');
      await Promise.all(Array.from({ length: 50 }, (_, nth) => held.update(`${nth + 1}`)));
      expect((await other.get(`${mine}a`))?.value).toBe('50');
    });

    test('that somebody deletes by hand comes back', async () => {
      await using session = await client.session();
      const held = session.hold(`${mine}a`, 'v');
      await held.placed();
      for (let round = 0; round < 3; round++) {
        const { revision } = await other.delete(`${mine}a`);
        await eventually('it is back', async () => ((await other.get(`${mine}a`))?.createRevision ?? 0n) > revision, 3_000);
      }
      await held.placed();
    });

    test('whose value somebody changes under its lease has its own again', async () => {
      await using session = await client.session();
      const held = session.hold(`${mine}a`, 'one');
      await held.update('two');
      for (const value of ['theirs', 'one']) {
        await other.put(`${mine}a`, value, { ignoreLease: true });
        await eventually('its own is back', async () => (await other.get(`${mine}a`))?.value === 'two', 3_000);
      }
      await held.placed();
    });

    test('that somebody else has is left alone, and put once it is gone', async () => {
      await other.put(`${mine}a`, 'theirs');
      await using session = await client.session();
      const held = session.hold(`${mine}a`, 'ours');
      await expect(held.placed({ deadlineMs: 300 })).rejects.toMatchObject({ code: 'key-taken', outcome: 'not-applied' });
      expect(held.state).toMatchObject({ state: 'taken', kv: { value: 'theirs' } });
      await other.put(`${mine}a`, 'theirs still');
      await eventually('it is told', () => held.state.state === 'taken' && held.state.kv.value === 'theirs still');
      await other.delete(`${mine}a`);
      await held.placed();
      expect((await other.get(`${mine}a`))?.value).toBe('ours');
    });

    test('that somebody writes over is theirs from then on, and is not deleted when it is released', async () => {
      await using session = await client.session();
      const held = session.hold(`${mine}a`, 'ours');
      await held.placed();
      await other.put(`${mine}a`, 'theirs');
      await eventually('it is told', () => held.state.state === 'taken');
      await held.release();
      expect((await other.get(`${mine}a`))?.value).toBe('theirs');
    });

    test('is written over whatever is there, if that was asked for', async () => {
      await other.put(`${mine}a`, 'theirs');
      await using session = await client.session();
      const held = session.hold(`${mine}a`, 'ours', { ifTaken: 'overwrite' });
      await held.placed();
      await other.put(`${mine}a`, 'theirs again');
      await eventually('it is ours', async () => {
        const kv = await other.get(`${mine}a`);
        return kv?.value === 'ours' && kv.lease === session.lease.id;
      });
    });

    test('is held once', async () => {
      await using session = await client.session();
      session.hold(`${mine}a`, 'v');
      expect(() => session.hold(`${mine}a`, 'w')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
      expect(() => session.hold('', 'w')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    });

    test('survives the compaction of what its watch has still to see', async () => {
      await using session = await client.session();
      const held = session.hold(`${mine}a`, 'v');
      await held.placed();
      const { revision } = await other.put(`${mine}b`, 'x');
      await other.compact(revision);
      await other.delete(`${mine}a`);
      await eventually('it is back', async () => (await other.get(`${mine}a`)) !== undefined);
    });

    test('in a namespace, and of any bytes', async () => {
      const bytes = Buffer.from([0xff, 0x00, 0xfe]);
      await using session = await client.namespace(mine).session();
      await session.hold(bytes, bytes).placed();
      const stored = await other.get(Buffer.concat([Buffer.from(mine), bytes]));
      expect(Buffer.from(stored?.valueBytes ?? [])).toEqual(bytes);
      expect(await client.namespace(mine).list(prefix('conclave/session/'), { countOnly: true })).toMatchObject({ count: 1 });
      const { succeeded } = await client.namespace(mine).txn().if(session.guard).then(put('guarded', 'yes')).commit();
      expect(succeeded).toBe(true);
    });
  });

  describe.skipIf(skip !== undefined)('a session', () => {
    test('gives everything back in one revision', async () => {
      const session = await client.session();
      const seen = states(session);
      await Promise.all(['a', 'b'].map((name) => session.hold(mine + name, 'v').placed()));
      const { guard, signal } = session;
      const before = (await other.list(prefix(mine))).revision;
      await session.close();
      await session.close();
      expect(await other.list(prefix(mine))).toMatchObject({ count: 0, revision: before + 1n });
      expect(signal.aborted).toBe(true);
      expect(session.slackMs).toBe(0);
      expect(() => session.lease).toThrow(expect.objectContaining({ code: 'session-closed' }));
      expect(() => session.hold(`${mine}c`, 'v')).toThrow(expect.objectContaining({ code: 'session-closed' }));
      expect(
        await client
          .txn()
          .if(guard)
          .then(put(`${mine}late`, 'x'))
          .commit(),
      ).toMatchObject({ succeeded: false });
      expect(seen).toEqual(['live', 'closed']);
    });

    test('whose lease is revoked is told at once, has another, and holds the same', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const seen = states(session);
      const held = session.hold(`${mine}a`, 'v');
      await held.placed();
      const calls: bigint[] = [];
      const candidate = session.hold(async ({ lease }) => {
        calls.push(lease.id);
        await client.put(`${mine}f/${lease.id}`, 'v', { lease });
        return async () => void (await client.delete(`${mine}f/${lease.id}`));
      });
      await candidate.placed();
      const { guard, signal } = session;
      const before = session.lease.id;
      await other.lease.revoke(before);
      await eventually('it has recovered', () => seen.includes('recovered'));
      expect(seen).toEqual(['live', 'lost', 'recovered', 'live']);
      expect(signal.reason).toMatchObject({ code: 'lease-lost' });
      expect(session.signal.aborted).toBe(false);
      expect(session.lease.id).not.toBe(before);
      expect(await other.get(`${mine}a`)).toMatchObject({ value: 'v', lease: session.lease.id });
      await candidate.placed();
      expect(calls).toEqual([before, session.lease.id]);
      // What is guarded by the lease that was lost never holds again.
      expect(
        (
          await client
            .txn()
            .if(guard)
            .then(put(`${mine}late`, 'x'))
            .commit()
        ).succeeded,
      ).toBe(false);
      await candidate.release();
      expect((await other.list(prefix(`${mine}f/`))).count).toBe(0);
      expect(session.takeLowestSlackMs()).toBe(0);
      expect(session.takeLowestSlackMs()).toBeGreaterThan(0);
    });

    test('whose own key is deleted by hand puts it back, and its guard holds again', async () => {
      await using session = await client.session();
      await other.delete(`conclave/session/${session.lease.id.toString(16)}`);
      await eventually(
        'the guard holds',
        async () =>
          (
            await client
              .txn()
              .if(session.guard)
              .then(put(`${mine}a`, 'x'))
              .commit()
          ).succeeded,
      );
      await session.hold(`${mine}b`, 'v').placed();
    });

    test.each([
      ['and its lease taken off', {}],
      ['and its lease left', { ignoreLease: true }],
    ])('whose own key is written over by hand, %s, writes it again, and its guard holds', async (_, how) => {
      await using session = await client.session();
      const { guard, lease } = session;
      const mark = `conclave/session/${lease.id.toString(16)}`;
      await other.put(mark, 'by hand', how);
      const holds = async (): Promise<boolean> => (await other.txn().if(guard).then(get(mark)).commit()).succeeded;
      await eventually('the guard holds again', holds, 3_000);
      expect((await other.get(mark))?.lease).toBe(lease.id);
      expect(session.lease).toBe(lease);
    });

    test('whose own key is deleted by hand lets nothing stay that is released meanwhile', async () => {
      await using session = await client.session();
      const names = Array.from({ length: 20 }, (_, nth) => `${mine}${nth}`);
      const held = names.map((name) => session.hold(name, 'v'));
      await Promise.all(held.map((one) => one.placed()));
      await other.delete(`conclave/session/${session.lease.id.toString(16)}`);
      await Promise.all(held.map((one) => one.release()));
      expect((await other.list(prefix(mine))).kvs.map((kv) => kv.key)).toEqual([]);
    });

    test('keeps presence and not ownership: a lock on its lease is lost with it, and is not taken again', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const held = await lock(client, `${mine}lock`, { lease: session.lease });
      await session.hold(`${mine}a`, 'v').placed();
      await other.lease.revoke(session.lease.id);
      await eventually('it has recovered', () => session.state.state === 'live' && session.state.incarnation === 2);
      expect(held.isHeld).toBe(false);
      expect(held.signal.reason).toMatchObject({ code: 'lock-lost' });
      expect((await other.list(prefix(`${mine}lock/`))).count).toBe(0);
      expect(await other.get(`${mine}a`)).toBeDefined();
    });

    test('in a process that stood still for longer than it lives is lost when it is looked at', async () => {
      await using session = await client.session({ ttlSeconds: 2 });
      const { signal, lease } = session;
      const fired: string[] = [];
      signal.addEventListener('abort', () => fired.push('abort'));
      // Nothing else of this process runs meanwhile.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, lease.ttlSeconds * 1_000 + 200);
      expect(fired).toEqual([]);
      expect(() => session.guard).toThrow(expect.objectContaining({ code: 'lease-lost' }));
      expect(session.slackMs).toBe(0);
      expect(fired).toEqual(['abort']);
      await eventually('it lives on under another lease', () => session.state.state === 'live' && session.lease.id !== lease.id);
    });

    test('is not granted what cannot be granted', async () => {
      await expect(client.session({ ttlSeconds: 0 })).rejects.toMatchObject({ code: 'invalid-argument' });
      await expect(client.session({ ttlSeconds: 9_000_000_001 })).rejects.toMatchObject({ code: 'lease-ttl-too-large' });
    });

    test('does not wait for a function that does not heed its signal', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const calls: bigint[] = [];
      const stuck = session.hold(({ lease }) => {
        calls.push(lease.id);
        return new Promise(() => {});
      });
      await eventually('it is called', () => calls.length === 1);
      await other.lease.revoke(session.lease.id);
      await eventually('it is called again', () => calls.length === 2);
      await stuck.release();
      expect(stuck.state.state).toBe('released');
    });

    test('keeps its lease when a function tells of another that is gone', async () => {
      await using session = await client.session();
      const seen = states(session);
      const { lease } = session;
      const gone = await client.lease.grant({ ttlSeconds: 30 });
      const { id } = gone;
      await gone.revoke();
      const held = session.hold(async () => {
        await client.put(`${mine}f`, 'x', { lease: id });
        return undefined;
      });
      await expect(held.placed()).rejects.toMatchObject({ code: 'lease-not-found' });
      expect(held.state.state).toBe('failed');
      expect(session.lease).toBe(lease);
      expect(seen).toEqual(['live']);
    });

    test('waits for its next lease when a function tells of its own that is gone', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const seen: HoldState['state'][] = [];
      let isRevoked = false;
      const { id } = session.lease;
      const held = session.hold(async ({ lease }) => {
        if (!isRevoked) await other.lease.revoke(id);
        isRevoked = true;
        await client.put(`${mine}f`, 'x', { lease: lease.id });
        return undefined;
      });
      held.status().subscribe(({ state }) => seen.push(state));
      await held.placed();
      expect(session.lease.id).not.toBe(id);
      expect(seen).not.toContain('failed');
    });

    test('does not lose a key whose function refuses', async () => {
      await using session = await client.session();
      const failing = session.hold(async () => {
        throw new Error('no');
      });
      await expect(failing.placed()).rejects.toThrow('no');
      expect(failing.state.state).toBe('failed');
      await session.hold(`${mine}a`, 'v').placed();
    });

    test('ends with its client', async () => {
      const short = await connect({ endpoints: server.address });
      const session = await short.session();
      const seen = states(session);
      const held = session.hold(`${mine}a`, 'v');
      await short.close();
      expect(seen).toEqual(['live', 'closed']);
      expect(held.state.state).toBe('released');
      expect(session.signal.aborted).toBe(true);
    });
  });

  describe.skipIf(skip !== undefined)('a hand-over', () => {
    test('moves a session to another client; nobody sees a key go', async () => {
      const session = await client.session({ ttlSeconds: 5 });
      await session.hold(`${mine}a`, 'old').placed();
      await session.hold(`${mine}b`, 'kept').placed();
      const { seen, stop } = await watched();
      const { guard, signal } = session;
      const id = session.lease.id;
      const token = JSON.parse(JSON.stringify(await session.handOver()));
      expect(signal.reason).toMatchObject({ code: 'lease-handed-over' });
      expect(session.state.state).toBe('handed-over');
      expect(
        (
          await client
            .txn()
            .if(guard)
            .then(put(`${mine}late`, 'x'))
            .commit()
        ).succeeded,
      ).toBe(false);

      await using successor = await other.session({ from: token });
      expect(successor.lease.id).toBe(id);
      expect(successor.holds).toHaveLength(2);
      const taken = successor.hold(`${mine}a`, 'new');
      await taken.placed();
      expect((await client.get(`${mine}a`))?.value).toBe('new');
      expect(
        (
          await other
            .txn()
            .if(successor.guard)
            .then(put(`${mine}now`, 'x'))
            .commit()
        ).succeeded,
      ).toBe(true);

      await expect(client.session({ from: token })).rejects.toMatchObject({ code: 'session-claimed', outcome: 'not-applied' });
      await expect(session.takeBack()).rejects.toMatchObject({ code: 'session-claimed' });
      await session.close();
      // Longer than it lives unless it is renewed.
      await eventually('it was renewed', async () => (await other.lease.timeToLive(id))?.ttlSeconds === 4, 8_000);
      await eventually('and again', async () => (await other.lease.timeToLive(id))?.ttlSeconds === 3, 8_000);
      await eventually('and again', async () => (await other.lease.timeToLive(id))?.ttlSeconds === 4, 8_000);
      expect(await client.get(`${mine}b`)).toMatchObject({ value: 'kept', version: 1n });
      expect(seen.filter((event) => !event.includes('now'))).toEqual(['put a new']);
      stop();
    });

    test('goes on under another lease there once that one is lost', async () => {
      const session = await client.session({ ttlSeconds: 30 });
      await session.hold(`${mine}a`, 'v').placed();
      await using successor = await other.session({ from: await session.handOver() });
      await client.lease.revoke(successor.lease.id);
      await eventually('it is back', async () => {
        const kv = await client.get(`${mine}a`);
        return kv !== undefined && successor.state.state === 'live' && kv.lease === successor.lease.id;
      });
    });

    test('takes leadership and locks along: the same token, and nobody else in between', async () => {
      const session = await client.session({ ttlSeconds: 30 });
      const leadership = await campaign(client, `${mine}e`, { lease: session.lease, value: 'old' });
      const held = await lock(client, `${mine}l`, { lease: session.lease });
      const tried = await tryLock(client, `${mine}t`, { lease: session.lease });
      const tokens = [leadership.token, held.token, tried?.token];
      const leaders: (string | undefined)[] = [];
      const subscription = observe(other, `${mine}e`).subscribe((leader) => leaders.push(leader?.value));
      const rival = new AbortController();
      const rivals = [
        campaign(other, `${mine}e`, { value: 'rival', signal: rival.signal }),
        lock(other, `${mine}l`, { signal: rival.signal }),
      ].map((one) => one.then(() => 'won').catch(() => 'gave up'));
      await eventually('the rivals wait', async () => (await client.list(prefix(mine), { countOnly: true })).count === 5);

      const token = await session.handOver();
      expect([leadership.isHeld, held.isHeld]).toEqual([false, false]);
      // Leaving their scopes takes nothing from the successor.
      await Promise.all([leadership.resign(), held.release(), tried?.release()]);

      const successor = await other.session({ from: token });
      const again = await campaign(other, `${mine}e`, { lease: successor.lease, value: 'new' });
      const heldAgain = await lock(other, `${mine}l`, { lease: successor.lease });
      const triedAgain = await tryLock(other, `${mine}t`, { lease: successor.lease });
      expect([again.token, heldAgain.token, triedAgain?.token]).toEqual(tokens);
      await expect(campaign(other, `${mine}e`, { lease: successor.lease })).rejects.toMatchObject({ code: 'lease-in-use' });
      await eventually('the new value is seen', () => leaders.includes('new'));
      expect(leaders).toEqual(['old', 'new']);
      rival.abort();
      expect(await Promise.all(rivals)).toEqual(['gave up', 'gave up']);
      subscription.unsubscribe();
      await successor.close();
      expect(again.isHeld).toBe(false);
    });

    test('that nobody takes is taken back; nobody sees a key go', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const held = session.hold(`${mine}a`, 'v');
      await held.placed();
      const { seen, stop } = await watched();
      const seenStates = states(session);
      const id = session.lease.id;
      const token = await session.handOver();
      await expect(session.handOver()).rejects.toMatchObject({ code: 'lease-handed-over' });
      await session.takeBack();
      expect(session.lease.id).toBe(id);
      expect(seenStates).toEqual(['live', 'handed-over', 'recovered', 'live']);
      await held.update('w');
      await expect(other.session({ from: token })).rejects.toMatchObject({ code: 'session-claimed' });
      await expect(session.takeBack()).rejects.toMatchObject({ code: 'invalid-argument' });
      expect(seen).toEqual(['put a w']);
      stop();
    });

    test('that is taken back keeps nothing that was released meanwhile, and nothing of others', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const [first, second, third] = ['a', 'b', 'c'].map((name) => session.hold(`${mine}${name}`, 'v'));
      for (const hold of session.holds) await hold.placed();
      await session.handOver();
      await first?.release();
      await third?.release();
      await other.put(`${mine}c`, 'theirs');
      expect((await other.list(prefix(mine))).count).toBe(3);
      await session.takeBack();
      expect(session.holds).toEqual([second]);
      expect((await other.list(prefix(mine))).kvs.map(({ key, value }) => `${key.slice(mine.length)} ${value}`)).toEqual([
        'b v',
        'c theirs',
      ]);
    });

    test('that nobody takes ends with its client', async () => {
      const far = await connect({ endpoints: server.address });
      const session = await far.session();
      const seen: SessionState['state'][] = [];
      const told = new Promise<void>((complete) => {
        session.status().subscribe({ next: ({ state }) => seen.push(state), complete });
      });
      const token = await session.handOver();
      await far.close();
      await told;
      expect(seen).toEqual(['live', 'handed-over', 'closed']);
      expect(session.state).toMatchObject({ error: { code: 'client-closed' } });
      await expect(session.takeBack()).rejects.toMatchObject({ code: 'session-closed' });
      // It was somebody else's to take already.
      await (await other.session({ from: token })).close();
    });

    test('that fails after its claim can be tried again with the same token', async () => {
      const session = await client.session({ ttlSeconds: 30 });
      await session.hold(`${mine}a`, 'v').placed();
      const { seen, stop } = await watched();
      const { id } = session.lease;
      const token = await session.handOver();
      // What follows the claim, which is the first transaction: its own key, and those of the token.
      for (const refused of ['LeaseTimeToLive 1', 'Txn 2', 'Txn 3']) {
        const calls = new Map<string, number>();
        const middleware: Middleware = ({ method }, next) => {
          const nth = (calls.get(method) ?? 0) + 1;
          calls.set(method, nth);
          if (`${method} ${nth}` === refused) throw new Error('not now');
          return next();
        };
        await using far = await connect({ endpoints: server.address, middleware: [middleware] });
        await expect(far.session({ from: token })).rejects.toMatchObject({ code: 'refused' });
      }
      const successor = await other.session({ from: token });
      expect(successor.lease.id).toBe(id);
      await successor.hold(`${mine}a`, 'w').placed();
      await eventually('it is there', () => seen.length > 0);
      expect(seen).toEqual(['put a w']);
      stop();
      await successor.close();
    });

    test('that nobody takes in time is over, for all', async () => {
      const session = await client.session({ ttlSeconds: 2 });
      await session.hold(`${mine}a`, 'v').placed();
      const token = await session.handOver();
      await eventually('the key is gone', async () => (await other.get(`${mine}a`)) === undefined, 15_000);
      await expect(other.session({ from: token })).rejects.toMatchObject({ code: 'session-expired', outcome: 'not-applied' });
      await expect(session.takeBack()).rejects.toMatchObject({ code: 'session-expired' });
      await session.close();
    }, 20_000);

    test('of many claims at once one is let through', async () => {
      const session = await client.session();
      const token = await session.handOver();
      const claims = await Promise.allSettled(
        Array.from({ length: 8 }, (_, nth) => (nth % 2 === 0 ? client : other).session({ from: token })),
      );
      const won = claims.filter((claim) => claim.status === 'fulfilled');
      expect(won).toHaveLength(1);
      for (const claim of claims) {
        if (claim.status === 'rejected') expect(isConclaveError(claim.reason, 'session-claimed')).toBe(true);
        else await claim.value.close();
      }
    });

    test('whose answers are lost is the same', async () => {
      await using proxy = await TcpProxy.to(server.address);
      await using far = await connect({ endpoints: proxy.address });
      const session = await far.session({ ttlSeconds: 30 });
      await session.hold(`${mine}a`, 'v').placed();
      const { seen, stop } = await watched();
      proxy.loseResponse();
      const token = await session.handOver();
      expect(proxy.cuts).toBe(1);
      proxy.loseResponse();
      await using successor = await far.session({ from: token });
      expect(proxy.cuts).toBe(2);
      await successor.hold(`${mine}a`, 'w').placed();
      await eventually('the value is there', () => seen.length > 0);
      expect(seen).toEqual(['put a w']);
      stop();
    });

    test('goes from process to process', async () => {
      const { seen, stop } = await watched();
      await using first = await worker(server.address, mine, 'first');
      await first.said('held');
      first.tell('hand-over');
      const token = await first.said('token');
      await using second = await worker(server.address, mine, 'second', token);
      await second.said('held');
      await first[Symbol.asyncDispose]();
      await eventually('the second has it', () => seen.length === 2);
      expect(seen).toEqual(['put a first', 'put a second']);
      second.tell('close');
      await eventually('it goes in the end', async () => (await other.get(`${mine}a`)) === undefined);
      stop();
    }, 40_000);

    test('with a token that is none is refused', async () => {
      const token = { lease: 'no', ttlSeconds: 5, keys: [], claim: 'x' };
      await expect(client.session({ from: token })).rejects.toMatchObject({ code: 'invalid-argument' });
      await expect(client.session({ from: { ...token, lease: '1f' } })).rejects.toMatchObject({ code: 'session-expired' });
      await expect(client.session({ from: { ...token, lease: '1f' }, ttlSeconds: 3 })).rejects.toMatchObject({ code: 'invalid-argument' });
    });
  });

  describe.skipIf(skip !== undefined)('an outage', () => {
    test('behind a link that swallows everything is told before the server lets the keys go', async () => {
      await using proxy = await TcpProxy.to(server.address);
      await using far = await connect({ endpoints: proxy.address });
      const session = await far.session({ ttlSeconds: 2 });
      await session.hold(`${mine}a`, 'v').placed();
      const { seen, stop } = await watched();
      const { signal } = session;
      let toldBefore: number | undefined;
      signal.addEventListener('abort', () => {
        toldBefore = seen.length;
      });
      proxy.silence();
      await eventually('the server lets it go', () => seen.length > 0);
      expect(toldBefore).toBe(0);
      proxy.heal();
      await eventually('it is back', () => seen.at(-1) === 'put a v');
      stop();
    }, 30_000);

    test('after another, with hands in between: in the end everything is as declared', async () => {
      const random = new Random(5);
      const below = (bound: number): number => Math.floor(random.next() * bound);
      await using proxy = await TcpProxy.to(server.address);
      await using far = await connect({ endpoints: proxy.address, deadlineMs: 1_000 });
      const session = await far.session({ ttlSeconds: 5 });
      const names = Array.from({ length: 12 }, (_, nth) => `${mine}${nth}`);
      const held = new Map(names.map((name) => [name, session.hold(name, '0')]));
      proxy.cutEvery(() => 100 + below(4_000));
      // How often it is cut follows from how much is sent meanwhile, and that from the machine.
      for (let round = 1; round <= 150 || (proxy.cuts <= 10 && round <= 1_500); round++) {
        const name = names[below(names.length)] as string;
        const hold = held.get(name);
        const what = below(10);
        if (what < 3) await other.delete(name);
        else if (what < 7) hold?.update(`${round}`).catch(() => {});
        else if (what < 9) {
          if (hold !== undefined) await hold.release();
          held.set(name, session.hold(name, `${round}`));
        } else if (session.state.state === 'live') await other.lease.revoke(session.lease.id);
        await new Promise((resolve) => setTimeout(resolve, below(20)));
      }
      expect(proxy.cuts).toBeGreaterThan(10);
      proxy.behave();
      const stored = async (): Promise<string[]> =>
        (await other.list(prefix(mine))).kvs.map((kv) => `${kv.key}=${kv.value}@${kv.lease}`).sort();
      await eventually(
        'all is as declared',
        async () => {
          if (session.state.state !== 'live') return false;
          const { id } = session.lease;
          const declared = [...held].map(([name, hold]) => `${name}=${hold.value}@${id}`).sort();
          return JSON.stringify(await stored()) === JSON.stringify(declared);
        },
        20_000,
      );
      await Promise.all([...held.values()].map((hold) => hold.release()));
      expect(await stored()).toEqual([]);
      await session.close();
    }, 90_000);

    test('longer than the time to live: everything is back within 2 s', async () => {
      await using far = await connect({ endpoints: server.address });
      const sessions = await Promise.all(Array.from({ length: 10 }, () => far.session({ ttlSeconds: 2 })));
      const held = sessions.map((session, nth) => session.hold(`${mine}${nth}`, 'v'));
      await Promise.all(held.map((one) => one.placed()));
      await server.kill();
      await eventually('all are told', () => sessions.every(({ state }) => state.state === 'lost'), 10_000);
      expect(new Set(held.map(({ state }) => state.state))).toEqual(new Set(['pending']));
      await server.restart();
      const backAt = performance.now();
      const isBack = (state: HoldState): boolean => state.state === 'held';
      await eventually('all are held again', () => held.every(({ state }) => isBack(state)), 10_000);
      const tookMs = performance.now() - backAt;
      expect((await other.list(prefix(mine), { deadlineMs: 10_000 })).count).toBe(10);
      expect(tookMs).toBeLessThan(2_000);
      await Promise.all(sessions.map((session) => session.close()));
    }, 60_000);

    test('declared before the server is there, a lazy session holds when it comes', async () => {
      await server.stop();
      const early = await connect({ endpoints: server.address, lazy: true });
      const session = await early.session({ lazy: true });
      expect(session.state.state).toBe('connecting');
      expect(session.slackMs).toBe(0);
      expect(() => session.guard).toThrow(expect.objectContaining({ code: 'lease-lost' }));
      const held = session.hold(`${mine}a`, 'v');
      await expect(held.placed({ deadlineMs: 50 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
      await expect(early.session({ deadlineMs: 100 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
      await server.restart();
      await held.placed({ deadlineMs: 20_000 });
      expect(session.state.state).toBe('live');
      await early.close();
    }, 60_000);
  });
});

/** A process that holds a key, and hands it over when it is told to. */
async function worker(address: string, mine: string, value: string, token?: string): Promise<Worker> {
  const scratch = join('.cache', 'session');
  mkdirSync(scratch, { recursive: true });
  const dir = mkdtempSync(join(scratch, 'run-'));
  writeFileSync(
    join(dir, 'worker.ts'),
    `import { connect } from '@conclave/sdk';
const [address, key, value, token] = process.argv.slice(2);
const client = await connect({ endpoints: address });
const session = await client.session(token === undefined ? { ttlSeconds: 30 } : { from: JSON.parse(token) });
await session.hold(key, value).placed();
const say = (word, more = '') => process.stdout.write(word + ' ' + more + '\\n');
say('held');
process.stdin.on('data', async (data) => {
  if (String(data).startsWith('hand-over')) say('token', JSON.stringify(await session.handOver()));
  else await session.close();
});
`,
  );
  const argv = ['--conditions=@conclave/source', '--import', 'tsx', join(dir, 'worker.ts'), address, `${mine}a`, value];
  const child = spawn(process.execPath, token === undefined ? argv : [...argv, token], { stdio: ['pipe', 'pipe', 'inherit'] });
  return new Worker(child, dir);
}

class Worker implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #dir: string;
  #output = '';

  constructor(child: ChildProcess, dir: string) {
    this.#child = child;
    this.#dir = dir;
    child.stdout?.on('data', (data: Buffer) => {
      this.#output += data.toString();
    });
  }

  tell(word: string): void {
    this.#child.stdin?.write(`${word}\n`);
  }

  async said(word: string): Promise<string> {
    const line = await eventually(`it says ${word}`, () => this.#output.split('\n').find((said) => said.startsWith(`${word} `)), 20_000);
    return line.slice(word.length + 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
