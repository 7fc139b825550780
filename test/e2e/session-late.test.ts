// What a process that handed its session over still had on its way in the network: none of it may land once the successor goes on.
import { Compare_CompareTarget as CompareTarget, KV, TxnRequest, TxnResponse } from '@conclave/protocol';
import { campaign, type Lock, lock, tryLock } from '@conclave/recipes';
import { type Client, connect, del, get, key, type Lease, type Namespace, prefix, put, type Session } from '@conclave/sdk';
import { eventually, type RunningProcess, testTargets } from '@conclave/testkit';
import { type CallEnd, type Connection, systemRuntime, type Transport } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

/** A network that keeps a transaction to itself until it is told to pass it on. */
class SlowNetwork {
  #keeps: ((request: TxnRequest) => boolean) | undefined;
  #kept: ((meanwhile: () => Promise<void>) => Promise<boolean>) | undefined;
  #fail: ((end: CallEnd) => void) | undefined;
  /** Every transaction that it was given. */
  readonly sent: TxnRequest[] = [];

  readonly transport: Transport = (address) => {
    const connection = grpcTransport({ runtime: systemRuntime() })(address);
    const unary: Connection['unary'] = (path, request, options, done) => {
      if (path !== KV.methods.txn.path) return connection.unary(path, request, options, done);
      const txn = TxnRequest.decode(request);
      this.sent.push(txn);
      if (this.#keeps?.(txn) !== true) return connection.unary(path, request, options, done);
      this.#keeps = undefined;
      let isOver = false;
      const end: typeof done = (...answer) => {
        if (!isOver) done(...answer);
        isOver = true;
      };
      this.#fail = (why) => end(why, undefined);
      this.#kept = (meanwhile) =>
        new Promise((resolve, reject) => {
          connection.unary(path, request, {}, async (why, response) => {
            await meanwhile();
            end(why, response);
            if (response === undefined) reject(new Error(`the late transaction was answered ${why.code}: ${why.message}`));
            else resolve(TxnResponse.decode(response).succeeded);
          });
        });
      // What is on its way cannot be called back.
      return { cancel: () => end({ code: 1, message: '', trailer: () => undefined, notProcessed: false }, undefined) };
    };
    return new Proxy(connection, { get: (target, name) => (name === 'unary' ? unary : bound(target, name)) });
  };

  /** From now on it keeps the `nth` transaction that writes or deletes this key when its conditions hold. */
  keep(ofKey: string, nth = 1): void {
    let left = nth;
    this.#keeps = ({ success }) =>
      success.some(({ requestPut, requestDeleteRange }) => textOf(requestPut?.key ?? requestDeleteRange?.key) === ofKey) && --left === 0;
  }

  async untilKept(): Promise<void> {
    await eventually('the transaction is on its way', () => this.#kept !== undefined);
  }

  /** Its sender is told that the connection broke. */
  lose(): void {
    this.#fail?.({ code: 14, message: 'the connection broke', trailer: () => undefined, notProcessed: false });
  }

  /** Its sender is told that it may not. */
  refuse(): void {
    this.#fail?.({ code: 7, message: 'etcdserver: permission denied', trailer: () => undefined, notProcessed: false });
  }

  /** Passes on what it kept. Whether its conditions held. `meanwhile`: what happens before the sender is told. */
  async pass(meanwhile = async (): Promise<void> => {}): Promise<boolean> {
    if (this.#kept === undefined) throw new Error('nothing was kept');
    return await this.#kept(meanwhile);
  }
}

function bound(target: Connection, name: string | symbol): unknown {
  const value: unknown = Reflect.get(target, name);
  return typeof value === 'function' ? value.bind(target) : value;
}

const textOf = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString();

describe.each(testTargets())('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let network: SlowNetwork;
  let client: Client;
  let other: Client;
  let space = 0;
  let mine = '';

  beforeAll(async () => {
    if (skip === undefined) server = await start();
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    if (skip !== undefined) return;
    mine = `late/${++space}/`;
    network = new SlowNetwork();
    client = await connect({ endpoints: server.address, transport: network.transport });
    other = await connect({ endpoints: server.address });
  });
  afterEach(async () => {
    await client?.close();
    await other?.close();
  });

  /** The successor of a session of `client`. */
  const handOver = async (session: Session): Promise<Session> => other.session({ from: await session.handOver() });

  describe.skipIf(skip !== undefined).each([
    ['in the namespace of the session', ''],
    ['in another namespace', 'jobs/'],
  ])('a recipe %s', (_, within) => {
    /** A session, and where the recipes run before and after a hand-over. */
    const opened = async (by = client): Promise<{ readonly session: Session; readonly here: Namespace; readonly there: Namespace }> => ({
      session: await by.session({ ttlSeconds: 30 }),
      here: client.namespace(within),
      there: other.namespace(within),
    });

    test.each(['late', 'late, and lost to its sender'])('whose release is %s takes nothing from the successor', async (how) => {
      const { session, here, there } = await opened();
      const held = await lock(here, `${mine}l`, { lease: session.lease });
      const { token } = held;
      network.keep(`${within}${held.key}`);
      const released = held.release();
      await network.untilKept();
      await using successor = await handOver(session);
      const again = await lock(there, `${mine}l`, { lease: successor.lease });
      expect(again.token).toBe(token);
      if (how !== 'late') network.lose();
      expect(await network.pass()).toBe(false);
      await released;
      expect((await there.get(again.key))?.createRevision).toBe(token);
      expect(again.isHeld).toBe(true);
      await again.release();
      expect(await there.get(again.key)).toBeUndefined();
    });

    test('whose proclamation is late leaves the value to the successor', async () => {
      const { session, here, there } = await opened();
      const leadership = await campaign(here, `${mine}e`, { lease: session.lease, value: 'old' });
      network.keep(`${within}${leadership.key}`);
      const proclaimed = leadership.proclaim('late').catch((error: unknown) => error);
      await network.untilKept();
      await using successor = await handOver(session);
      const again = await campaign(there, `${mine}e`, { lease: successor.lease, value: 'new' });
      expect(await network.pass()).toBe(false);
      expect(await proclaimed).toMatchObject({
        code: 'leadership-lost',
        outcome: 'not-applied',
        cause: { code: 'lease-handed-over' },
      });
      expect((await there.get(again.key))?.value).toBe('new');
      await again.proclaim('newer');
      expect((await there.get(again.key))?.value).toBe('newer');
    });

    test('whose resignation is late leaves the successor its leadership', async () => {
      const { session, here, there } = await opened();
      const leadership = await campaign(here, `${mine}e`, { lease: session.lease });
      network.keep(`${within}${leadership.key}`);
      const resigned = leadership.resign();
      await network.untilKept();
      await using successor = await handOver(session);
      const again = await campaign(there, `${mine}e`, { lease: successor.lease });
      expect(await network.pass()).toBe(false);
      await resigned;
      expect((await there.get(again.key))?.createRevision).toBe(again.token);
    });

    test.each(['lock', 'tryLock'])('whose %s is late queues for nobody', async (which) => {
      const { session, here, there } = await opened();
      const own = `${mine}l/${session.lease.id.toString(16)}`;
      network.keep(`${within}${own}`);
      const asked = (which === 'lock' ? lock : tryLock)(here, `${mine}l`, { lease: session.lease }).catch((error: unknown) => error);
      await network.untilKept();
      await using successor = await handOver(session);
      expect(await network.pass()).toBe(false);
      expect(await asked).toMatchObject({ code: 'lock-lost', cause: { code: 'lease-handed-over' } });
      expect((await there.list(prefix(mine))).count).toBe(0);
      await using again = await lock(there, `${mine}l`, { lease: successor.lease });
      expect(again.isHeld).toBe(true);
    });

    test('whose value is late, of a place that was taken over itself, leaves the value to the next', async () => {
      const { session: first, here, there } = await opened(other);
      await campaign(there, `${mine}e`, { lease: first.lease, value: 'first' });
      const second = await client.session({ from: await first.handOver() });
      const own = `${mine}e/${second.lease.id.toString(16)}`;
      // Found in place, the value is not written by the transaction that looked.
      network.keep(`${within}${own}`, 2);
      const asked = campaign(here, `${mine}e`, { lease: second.lease, value: 'late' }).catch((error: unknown) => error);
      await network.untilKept();
      await using third = await handOver(second);
      await campaign(there, `${mine}e`, { lease: third.lease, value: 'third' });
      expect(await network.pass()).toBe(false);
      expect(await asked).toMatchObject({ code: 'leadership-lost', cause: { code: 'lease-handed-over' } });
      expect((await there.get(own))?.value).toBe('third');
    });

    test('whose guard comes late with a write of its user does not hold', async () => {
      const { session, here, there } = await opened();
      const held = await lock(here, `${mine}l`, { lease: session.lease });
      const { guard } = held;
      const write = (by: string): Promise<{ readonly succeeded: boolean }> =>
        here
          .txn()
          .if(guard)
          .then(put(`${mine}written`, by))
          .commit();
      expect((await write('the lock')).succeeded).toBe(true);
      network.keep(`${within}${mine}written`);
      const written = write('late');
      await network.untilKept();
      await using successor = await handOver(session);
      const again: Lock = await lock(there, `${mine}l`, { lease: successor.lease });
      expect(await network.pass()).toBe(false);
      expect((await written).succeeded).toBe(false);
      const result = await there
        .txn()
        .if(again.guard)
        .then(put(`${mine}written`, 'the successor'))
        .else(get(again.key))
        .commit();
      expect(result.succeeded).toBe(true);
      await expect(there.stm(async (tx) => tx.put(`${mine}written`, 'too late'), { guards: [guard] })).rejects.toMatchObject({
        code: 'guard-failed',
      });
    });

    test('that is taken back finds none of what was on its way', async () => {
      const { session, here } = await opened();
      const held = await lock(here, `${mine}l`, { lease: session.lease });
      network.keep(`${within}${held.key}`);
      const released = held.release();
      await network.untilKept();
      await session.handOver();
      await session.takeBack();
      const again = await lock(here, `${mine}l`, { lease: session.lease });
      expect(await network.pass()).toBe(false);
      await released;
      expect((await here.get(again.key))?.createRevision).toBe(again.token);
      await session.close();
    });
  });

  describe.skipIf(skip !== undefined)('a place', () => {
    test('is written to once the key of its session is there again, and is told apart from one that is gone', async () => {
      const session = await client.session({ ttlSeconds: 30 });
      const { lease } = session;
      const leadership = await campaign(client, `${mine}e`, { lease });
      const held = await lock(client, `${mine}l`, { lease });
      const mark = `conclave/session/${lease.id.toString(16)}`;
      network.keep(mark);
      await other.delete(mark);
      await network.untilKept();
      await expect(leadership.proclaim('x')).rejects.toMatchObject({ code: 'guard-failed', outcome: 'not-applied' });
      expect(leadership.isHeld).toBe(true);
      const released = held.release();
      const tried = tryLock(client, `${mine}t`, { lease });
      const locked = lock(client, `${mine}m`, { lease });
      expect(await network.pass()).toBe(true);
      await released;
      expect((await tried)?.isHeld).toBe(true);
      expect((await locked).isHeld).toBe(true);
      expect(await other.get(held.key)).toBeUndefined();
      await leadership.proclaim('y');
      await other.delete(leadership.key);
      await expect(leadership.proclaim('z')).rejects.toMatchObject({ code: 'leadership-lost' });
      await session.close();
    });

    test('is left to the call that has it by another that gives up', async () => {
      const first = await client.session({ ttlSeconds: 30 });
      const ask = (lease: Lease, signal?: AbortSignal): Promise<Lock> => lock(client.namespace('jobs/'), `${mine}l`, { lease, signal });
      await ask(first.lease);
      await using session = await client.session({ from: await first.handOver() });
      const own = `jobs/${mine}l/${session.lease.id.toString(16)}`;
      network.keep(own);
      const controller = new AbortController();
      const givenUp = expect(ask(session.lease, controller.signal)).rejects.toMatchObject({ code: 'cancelled' });
      await network.untilKept();
      const held = await ask(session.lease);
      controller.abort();
      expect(await network.pass()).toBe(false);
      await givenUp;
      expect((await other.get(own))?.createRevision).toBe(held.token);
      expect(held.isHeld).toBe(true);
    });

    test('is not waited for, and lost, once the key of its session can never be put again', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const { lease } = session;
      const held = session.hold(`${mine}a`, 'v');
      await held.placed();
      const locked = await lock(client, `${mine}l`, { lease });
      const mark = `conclave/session/${lease.id.toString(16)}`;
      network.keep(mark);
      await other.delete(mark);
      await network.untilKept();
      const released = locked.release();
      const waiting = expect(lock(client, `${mine}m`, { lease })).rejects.toMatchObject({
        code: 'lock-lost',
        cause: { code: 'lease-lost', cause: { code: 'permission-denied' } },
      });
      network.refuse();
      await waiting;
      await released;
      await eventually('there is another lease', () => session.state.state === 'live' && session.lease !== lease);
      await held.placed();
      await eventually('all of the other is gone', async () => (await other.get(locked.key)) === undefined);
      expect((await other.get(`${mine}a`))?.lease).toBe(session.lease.id);
    });

    test('that the old process waited for keeps its position; one that nobody goes on with is seen by the successor, and dropped', async () => {
      await using first = await lock(other, `${mine}l`);
      const session = await client.session({ ttlSeconds: 30 });
      const { lease } = session;
      const waiting = [`${mine}l`, `${mine}m`].map((name) => lock(client, name, { lease }));
      const ended = Promise.allSettled(waiting);
      await waiting[1];
      await eventually('it waits', async () => (await other.list(prefix(`${mine}l/`))).count === 2);
      const later = lock(other, `${mine}l`);
      const next = lock(other, `${mine}m`);
      await eventually('others wait', async () => (await other.list(prefix(mine))).count === 5);
      await using successor = await handOver(session);
      expect((await ended)[0]).toMatchObject({ status: 'rejected', reason: { code: 'lock-lost', cause: { code: 'lease-handed-over' } } });
      const again = lock(other, `${mine}l`, { lease: successor.lease });
      await first.release();
      await using second = await again;
      expect(second.isHeld).toBe(true);
      const came = await other.lease.timeToLive(successor.lease.id, { keys: true });
      expect(came?.keys.filter((one) => one.startsWith(mine)).sort()).toEqual([second.key, `${mine}m/${lease.id.toString(16)}`]);
      const { succeeded } = await other
        .txn()
        .if(successor.guard)
        .then(del(`${mine}m/${lease.id.toString(16)}`))
        .commit();
      expect(succeeded).toBe(true);
      await (await next).release();
      await second.release();
      await (await later).release();
    });

    test.each(['queues again once the key of its session is there', 'is gone on with by a successor'])(
      "that %s is one call's, by whatever namespace object it came",
      async (how) => {
        let session = await client.session({ ttlSeconds: 30 });
        const ask = (signal?: AbortSignal): Promise<Lock> => lock(client.namespace('jobs/'), `${mine}l`, { lease: session.lease, signal });
        const mark = `conclave/session/${session.lease.id.toString(16)}`;
        const isMissing = how.startsWith('queues');
        if (isMissing) {
          network.keep(mark);
          await other.delete(mark);
          await network.untilKept();
        } else {
          await ask();
          session = await client.session({ from: await session.handOver() });
        }
        const asked = Promise.allSettled([ask(), ask()]);
        if (isMissing) await network.pass();
        const answers = await asked;
        const won = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
        expect(won).toHaveLength(1);
        expect(answers.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'lease-in-use' } });
        expect((await other.get(`jobs/${won[0]?.key}`))?.createRevision).toBe(won[0]?.token);
        await won[0]?.release();
        await (await ask()).release();
        await session.close();
      },
    );

    test('on any other lease is asked for, written to and given back as ever', async () => {
      const lease = await client.lease.grant({ ttlSeconds: 30 });
      expect(lease.guards).toEqual([]);
      const own = `${mine}e/${lease.id.toString(16)}`;
      const leadership = await campaign(client, `${mine}e`, { lease });
      await leadership.proclaim('x');
      await leadership.resign();
      const sent = network.sent.map(({ compare }) => compare.map((one) => [textOf(one.key), one.target]));
      expect(sent).toEqual([[[own, CompareTarget.VERSION]], [[own, CompareTarget.CREATE]], [[own, CompareTarget.CREATE]]]);
      await lease.revoke();
    });
  });

  describe.skipIf(skip !== undefined)('a held key', () => {
    test.each(['before it', 'between it and its answer'])(
      'that somebody writes to %s, under its lease, has its own value in the end',
      async (when) => {
        await using session = await client.session({ ttlSeconds: 30 });
        const held = session.hold(`${mine}a`, 'one');
        await held.placed();
        const seen: string[] = [];
        const subscription = client
          .watch(`${mine}a`, { notifyCreated: true })
          .subscribe((event) => seen.push(event.type === 'created' ? 'created' : event.value));
        await eventually('the watch stands', () => seen.includes('created'));
        const theirs = async (): Promise<void> => {
          await other.put(`${mine}a`, 'theirs', { ignoreLease: true });
          await eventually('it is told', () => seen.includes('theirs'));
          await client.get(`${mine}a`);
        };
        // The first finds it in place, the second changes it.
        network.keep(`${mine}a`, 2);
        const updated = held.update('two');
        await network.untilKept();
        if (when === 'before it') await theirs();
        await network.pass(when === 'before it' ? undefined : theirs);
        await updated;
        await eventually('it is its own', async () => (await other.get(`${mine}a`))?.value === 'two');
        subscription.unsubscribe();
      },
    );
  });

  describe.skipIf(skip !== undefined)('an offer', () => {
    test('that never got through is taken back, and finds nothing when it comes late', async () => {
      await using session = await client.session({ ttlSeconds: 30 });
      const held = session.hold(`${mine}a`, 'v');
      await held.placed();
      const { id } = session.lease;
      network.keep(`conclave/session/${id.toString(16)}`);
      const controller = new AbortController();
      const offered = expect(session.handOver({ signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled' });
      await network.untilKept();
      controller.abort();
      await offered;
      await session.takeBack();
      expect(session.lease.id).toBe(id);
      expect(await network.pass()).toBe(false);
      await held.update('w');
      expect((await other.get(`${mine}a`))?.value).toBe('w');
    });
  });

  describe.skipIf(skip !== undefined)('the guard of a session', () => {
    test('holds in any namespace, and in none after a hand-over', async () => {
      const home = client.namespace('home/');
      const session = await home.session({ ttlSeconds: 30 });
      const { guard } = session;
      const held = async (): Promise<boolean[]> => {
        const everywhere = [client, home, client.namespace('away/'), other];
        const results = await Promise.all(everywhere.map((one) => one.txn().if(guard).then(get('any')).commit()));
        return results.map(({ succeeded }) => succeeded);
      };
      expect(await held()).toEqual([true, true, true, true]);
      await using successor = await other.namespace('home/').session({ from: await session.handOver() });
      expect(await held()).toEqual([false, false, false, false]);
      expect((await client.txn().if(successor.guard, key('any').missing()).then(get('any')).commit()).succeeded).toBe(true);
    });
  });
});
