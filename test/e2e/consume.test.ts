// Consumers with a durable cursor, against every server there is: killed wherever it hurts, each event takes effect once.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Client,
  type ConsumeBody,
  type ConsumeOptions,
  connect,
  type Delivery,
  del,
  key,
  type Metrics,
  type Namespace,
  type Operation,
  prefix,
  put,
} from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { eventually, type RunningProcess, TcpProxy, testTargets, within } from '@conclave/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

const targets = testTargets();

const ignore = (): void => {};
const unmeasured: Omit<Metrics, 'watchEvents'> = {
  callEnded: ignore,
  callRepeated: ignore,
  watchesResumed: ignore,
  viewResynced: ignore,
  leaseRenewed: ignore,
  leaseLost: ignore,
  endpointChanged: ignore,
  observe: () => ignore,
};

const shown = (delivery: Delivery): string =>
  delivery.type === 'resync'
    ? `${delivery.reason}: ${delivery.kvs.map((kv) => `${kv.key}=${kv.value}`).join(' ')}`
    : delivery.events.map(({ type, key, value }) => `${type} ${key} ${value}`.trim()).join(', ');

describe.each(targets)('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let root: Client;
  let client: Namespace;
  let space = 0;
  /** How many the client was told. */
  let events = 0;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    const watchEvents = (count: number): void => {
      events += count;
    };
    root = await connect({ endpoints: server.address, metrics: { ...unmeasured, watchEvents } });
  });
  afterAll(async () => {
    await root?.close();
    await server?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    client = root?.namespace(`consume/${++space}/`);
  });

  /** A run that can be stopped, and what it was given. */
  function running(options: Partial<ConsumeOptions> = {}, body?: ConsumeBody) {
    const controller = new AbortController();
    const given: string[] = [];
    const done = client.consume(prefix('in/'), { cursor: 'cursor', signal: controller.signal, ...options }, (delivery, signal) => {
      given.push(shown(delivery));
      return body?.(delivery, signal);
    });
    done.catch(() => {});
    const stop = async (): Promise<void> => {
      controller.abort();
      await within('the end', done);
    };
    return { given, done, stop };
  }

  const cursor = async (): Promise<bigint> => BigInt(((await client.get('cursor'))?.value ?? '0').split(' ')[0] ?? '0');

  describe.skipIf(skip !== undefined)('a consumer', () => {
    test('begins with what is there, is told each change, and goes on where it was', async () => {
      await client.put('in/a', '1');
      const first = running();
      await eventually('it has begun', () => first.given.length === 1);
      await client.put('in/a', '2');
      await client.txn().then(put('in/b', '1'), del('in/a')).commit();
      await eventually('it has seen both', () => first.given.length === 3);
      await first.stop();
      await client.put('in/c', '1');
      const { revision } = await client.put('in/c', '2');
      const second = running();
      await eventually('it has come to the end', async () => (await cursor()) === revision);
      await second.stop();
      expect(first.given[0]).toBe('started: in/a=1');
      expect(first.given[1]).toBe('put in/a 2');
      expect(first.given[2]?.split(', ').sort()).toEqual(['delete in/a', 'put in/b 1']);
      expect(second.given).toEqual(['put in/c 1', 'put in/c 2']);
    });

    test('begins with what happens from now on, if that was asked for, even if nothing does before it stops', async () => {
      await client.put('in/a', '1');
      const first = running({ start: 'now' });
      await eventually('it has a cursor', async () => (await cursor()) > 0n);
      await first.stop();
      await client.put('in/a', '2');
      const second = running({ start: 'now' });
      await eventually('it is told', () => second.given.length === 1);
      await second.stop();
      expect(first.given).toEqual([]);
      expect(second.given).toEqual(['put in/a 2']);
    });

    test('is given as many events at once as it wants, in whole revisions', async () => {
      const first = running({ start: 'now' });
      await eventually('it has a cursor', async () => (await cursor()) > 0n);
      await first.stop();
      for (let nth = 0; nth < 7; nth++) await client.put(`in/${nth}`, '');
      await client
        .txn()
        .then(...Array.from({ length: 5 }, (_, nth) => put(`in/t${nth}`, '')))
        .commit();
      let isOpen = false;
      const before = events;
      const second = running({ eventsMax: 3 }, async () => {
        await eventually('all wait', () => isOpen);
        return undefined;
      });
      await eventually('it has begun', () => second.given.length === 1);
      await client.put('in/last', '');
      // A fresh watch brings history in batches.
      await eventually('all of it is there', () => events === before + 13);
      isOpen = true;
      await eventually('it is at its end', () => second.given.at(-1)?.endsWith('put in/last') === true);
      await second.stop();
      const sizes = second.given.map((one) => one.split(', ').length);
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(13);
      expect(Math.max(...sizes)).toBe(5);
      expect(sizes.filter((size) => size === 5)).toHaveLength(1);
    });

    test('that missed history which was compacted away is told so, and given what there is', async () => {
      await client.put('in/kept', '1');
      await client.put('in/gone', '1');
      const first = running();
      await eventually('it has begun', () => first.given.length === 1);
      await first.stop();
      await client.delete('in/gone');
      await client.put('in/kept', '2');
      const { revision } = await client.put('in/new', '1');
      await client.compact(revision);
      const second = running();
      await eventually('it is told', () => second.given.length === 1);
      await client.put('in/new', '2');
      await eventually('it goes on', () => second.given.length === 2);
      await second.stop();
      expect(second.given).toEqual(['compacted: in/kept=2 in/new=1', 'put in/new 2']);
    });

    test('does not write the effect of what its body failed at', async () => {
      await client.put('in/a', '1');
      const first = running({}, () => {
        throw new Error('no');
      });
      await expect(first.done).rejects.toThrow('no');
      const second = running({}, () => Array.from({ length: 200 }, (_, nth) => put(`out/${nth}`, '')));
      await expect(second.done).rejects.toMatchObject({ code: 'too-many-operations', outcome: 'not-applied' });
      expect((await client.list(prefix('out/'))).count).toBe(0);
      const third = running();
      await eventually('it is given it again', () => third.given.length === 1);
      await third.stop();
      expect(third.given).toEqual(['started: in/a=1']);
    });

    test('ends when another uses its cursor, or its guard does not hold', async () => {
      const first = running();
      await eventually('it has a cursor', async () => (await cursor()) > 0n);
      const second = running();
      await client.put('in/a', '1');
      const ended = await Promise.race([first.done, second.done].map((done) => done.catch((error: unknown) => error)));
      expect(ended).toMatchObject({ code: 'cursor-moved', outcome: 'not-applied' });
      await Promise.allSettled([first.stop(), second.stop()]);
      await client.put('in/a', '2');
      const guarded = running({ guards: [key('permit').exists()] }, () => [put('out', 'x')]);
      await expect(guarded.done).rejects.toMatchObject({ code: 'guard-failed' });
      expect(await client.get('out')).toBeUndefined();
    });

    test('is refused what makes no sense', async () => {
      const body = (): undefined => undefined;
      await expect(client.consume(prefix('in/'), { cursor: 'in/cursor' }, body)).rejects.toMatchObject({ code: 'invalid-argument' });
      await expect(client.consume(prefix('in/'), { cursor: 'c', eventsMax: 0 }, body)).rejects.toMatchObject({ code: 'invalid-argument' });
      await client.put('not-a-cursor', 'x');
      await expect(client.consume(prefix('in/'), { cursor: 'not-a-cursor' }, body)).rejects.toMatchObject({ code: 'invalid-argument' });
      const aborted = client.consume(prefix('in/'), { cursor: 'c', signal: AbortSignal.abort() }, body);
      await expect(aborted).resolves.toBeUndefined();
    });

    test('ends with its client', async () => {
      const short = await connect({ endpoints: server.address, namespace: `consume/${space}/` });
      const done = short.consume(prefix('in/'), { cursor: 'cursor' }, () => undefined);
      const ended = expect(done).rejects.toMatchObject({ code: 'client-closed' });
      await eventually('it has a cursor', async () => (await cursor()) > 0n);
      await short.close();
      await ended;
    });
  });

  describe.skipIf(skip !== undefined)('every event takes effect once', () => {
    /** Counts the events of each key: an effect that is done twice, or not at all, shows. */
    const counting =
      (store: Namespace): ConsumeBody =>
      async (delivery) => {
        const operations: Operation[] = [];
        const events = delivery.type === 'events' ? delivery.events : [];
        for (const event of events) {
          const name = `out/${event.key}`;
          operations.push(put(name, `${Number((await store.get(name))?.value ?? '0') + 1}`));
        }
        return operations;
      };

    const write = async (count: number): Promise<Map<string, number>> => {
      const random = new Random(7);
      const expected = new Map<string, number>();
      for (let nth = 0; nth < count; nth++) {
        const name = `in/${Math.floor(random.next() * 10)}`;
        await client.put(name, `${nth}`);
        expected.set(`out/${name}`, (expected.get(`out/${name}`) ?? 0) + 1);
      }
      return expected;
    };

    const lastWritten = async (): Promise<bigint> => {
      const { kvs } = await client.list(prefix('in/'), { sort: { by: 'modRevision', order: 'descend' }, limit: 1 });
      return kvs[0]?.modRevision ?? 0n;
    };

    const counted = async (): Promise<Map<string, number>> =>
      new Map((await client.list(prefix('out/'))).kvs.map((kv) => [kv.key, Number(kv.value)]));

    test('while the consumer is cut off from the server, its answers are lost, and it is ended again and again', async () => {
      const began = running({ start: 'now' });
      await eventually('it has a cursor', async () => (await cursor()) > 0n);
      await began.stop();
      const expected = await write(200);
      const random = new Random(11);
      let runs = 0;
      await using proxy = await TcpProxy.to(server.address);
      const last = await lastWritten();
      while ((await cursor()) < last) {
        runs++;
        expect(runs).toBeLessThan(400);
        await using faulty = await connect({ endpoints: proxy.address, namespace: `consume/${space}/`, deadlineMs: 1_000 });
        const left = Math.floor(random.next() * 12);
        let deliveries = 0;
        let fall: (() => void) | undefined;
        const fell = new Promise<void>((resolve) => {
          fall = resolve;
        });
        const count = counting(faulty);
        proxy.loseResponse(1 + Math.floor(random.next() * 30));
        const done = faulty.consume(prefix('in/'), { cursor: 'cursor' }, async (delivery, signal) => {
          const operations = await count(delivery, signal);
          // Falls at some moment about the writing: before it is sent, while it is under way, or after.
          if (++deliveries > left) setTimeout(() => fall?.(), Math.floor(random.next() * 4));
          return operations;
        });
        const ended = done.catch(() => {});
        await Promise.race([fell, ended, eventually('it is done', async () => (await cursor()) >= last)]);
        await faulty.close();
        await ended;
        proxy.behave();
      }
      expect(runs).toBeGreaterThan(12);
      expect(proxy.cuts).toBeGreaterThan(6);
      expect(await counted()).toEqual(expected);
    }, 120_000);

    test('while the process is killed again and again', async () => {
      const began = running({ start: 'now' });
      await eventually('it has a cursor', async () => (await cursor()) > 0n);
      await began.stop();
      const scratch = join('.cache', 'consume');
      mkdirSync(scratch, { recursive: true });
      const dir = mkdtempSync(join(scratch, 'run-'));
      try {
        writeFileSync(join(dir, 'consumer.ts'), consumerProgram);
        const expected = await write(250);
        const last = await lastWritten();
        let kills = 0;
        for (let before = await cursor(); before < last; before = await cursor()) {
          expect(kills).toBeLessThan(20);
          const argv = ['--conditions=@conclave/source', '--import', 'tsx', join(dir, 'consumer.ts'), server.address, `consume/${space}/`];
          const child = spawn(process.execPath, argv, { stdio: 'inherit' });
          const exited = new Promise((resolve) => child.once('exit', resolve));
          try {
            await eventually('it gets on', async () => (await cursor()) >= before + 40n || (await cursor()) >= last, 30_000);
          } finally {
            if (child.kill('SIGKILL')) kills++;
            await exited;
          }
        }
        expect(kills).toBeGreaterThan(2);
        expect(await counted()).toEqual(expected);
      } finally {
        rmSync(dir, { recursive: true, force: true });
      }
    }, 120_000);
  });
});

const consumerProgram = `import { connect, prefix, put } from '@conclave/sdk';
const [address, namespace] = process.argv.slice(2);
const client = await connect({ endpoints: address, namespace });
await client.consume(prefix('in/'), { cursor: 'cursor' }, async (delivery) => {
  const operations = [];
  for (const { key } of delivery.events) {
    const stored = await client.get('out/' + key);
    operations.push(put('out/' + key, String(Number(stored?.value ?? '0') + 1)));
  }
  return operations;
});
`;
