// Software transactions against every server there is: alone, and against each other.
import { type Client, connect, type Isolation, isConclaveError, key, type Namespace, prefix, type StmTransaction } from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { type RunningProcess, TcpProxy, testTargets } from '@conclave/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

const targets = testTargets();

const isolations: readonly Isolation[] = ['serializableSnapshot', 'serializable', 'repeatableReads', 'readCommitted'];

describe.each(targets)('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let root: Client;
  let client: Namespace;
  let space = 0;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    root = await connect({ endpoints: server.address });
  });

  beforeEach(() => {
    client = root?.namespace(`${++space}/`);
  });

  afterAll(async () => {
    await root?.close();
    await server?.[Symbol.asyncDispose]();
  });

  /** Runs the body; `meanwhile` happens during its first run, after the body has read `a` and before it goes on. */
  async function disturbed(isolation: Isolation, meanwhile: () => Promise<unknown>, body: (tx: StmTransaction) => Promise<unknown>) {
    let runs = 0;
    const result = await client.stm(
      async (tx) => {
        runs++;
        await tx.get('a');
        if (runs === 1) await meanwhile();
        return await body(tx);
      },
      { isolation },
    );
    return { runs, result };
  }

  describe.skipIf(skip !== undefined)('a software transaction', () => {
    test('sees what it wrote, and writes all of it at one revision', async () => {
      await client.put('old', 'x');
      await using lease = await client.lease.grant({ ttlSeconds: 30 });
      const before = await client.get('old');
      await client.stm(async (tx) => {
        expect(await tx.get('new')).toBeUndefined();
        expect(await tx.modRevision('new')).toBe(0n);
        tx.put('new', 'first');
        tx.put('new', Buffer.from('second'), { lease });
        expect(await tx.get('new')).toBe('second');
        expect(new Uint8Array((await tx.getBytes('new')) ?? [])).toEqual(new Uint8Array(Buffer.from('second')));
        tx.delete('old');
        expect(await tx.get('old')).toBeUndefined();
        expect(await tx.modRevision('old')).toBe(before?.modRevision);
        tx.put('other', '');
      });
      const { kvs } = await client.list(prefix(''));
      expect(kvs.map((kv) => [kv.key, kv.value, kv.lease])).toEqual([
        ['new', 'second', lease.id],
        ['other', '', 0n],
      ]);
      expect(kvs[0]?.modRevision).toBe(kvs[1]?.modRevision);
    });

    test('that fails writes nothing', async () => {
      const failing = client.stm((tx) => {
        tx.put('k', 'v');
        throw new Error('no');
      });
      await expect(failing).rejects.toThrow('no');
      expect(await client.get('k')).toBeUndefined();
    });

    test.each(isolations)('with %s is repeated when what it read was changed, if that matters to it', async (isolation) => {
      await client.put('a', '1');
      const { runs } = await disturbed(
        isolation,
        () => client.put('a', '2'),
        async (tx) => tx.put('copy', (await tx.get('a')) ?? ''),
      );
      expect(runs).toBe(isolation === 'readCommitted' ? 1 : 2);
      expect((await client.get('copy'))?.value).toBe(isolation === 'readCommitted' ? '1' : '2');
    });

    test.each(isolations)('with %s is repeated when what it only writes was changed, if that matters to it', async (isolation) => {
      const { runs } = await disturbed(
        isolation,
        () => client.put('b', 'theirs'),
        async (tx) => tx.put('b', 'ours'),
      );
      expect(runs).toBe(isolation === 'serializableSnapshot' ? 2 : 1);
      expect((await client.get('b'))?.value).toBe('ours');
    });

    test.each(isolations)('with %s sees keys as of one revision, if it is one that does', async (isolation) => {
      await client.put('a', '1');
      await client.put('b', '1');
      const { runs, result } = await disturbed(
        isolation,
        async () => {
          await client.stm((tx) => {
            tx.put('a', '2');
            tx.put('b', '2');
          });
        },
        async (tx) => [await tx.get('a'), await tx.get('b')],
      );
      const isOneRevision = isolation === 'serializableSnapshot' || isolation === 'serializable';
      expect(result).toEqual(isOneRevision ? ['1', '1'] : isolation === 'repeatableReads' ? ['2', '2'] : ['1', '2']);
      expect(runs).toBe(isolation === 'repeatableReads' ? 2 : 1);
    });

    test('writes nothing under a guard that does not hold, and is not repeated for it', async () => {
      const { revision } = await client.put('lock', 'mine');
      await client.put('a', '1');
      const guards = [key('lock').createRevision.equals(revision)];
      let runs = 0;
      const write = () =>
        client.stm(
          async (tx) => {
            runs++;
            tx.put('b', (await tx.get('a')) ?? '');
            if (runs === 1) await client.put('a', '2');
          },
          { guards },
        );
      await write();
      expect(runs).toBe(2);
      expect((await client.get('b'))?.value).toBe('2');
      await client.delete('lock');
      await client.delete('b');
      await expect(write()).rejects.toMatchObject({ code: 'guard-failed', outcome: 'not-applied' });
      expect(runs).toBe(3);
      expect(await client.get('b')).toBeUndefined();
      await expect(client.stm((tx) => tx.get('a'), { guards })).rejects.toMatchObject({ code: 'guard-failed' });
    });

    test('goes on when the revision it reads at is compacted away', async () => {
      await client.put('a', '1');
      const { runs, result } = await disturbed(
        'serializable',
        async () => client.compact((await client.put('a', '2')).revision),
        async (tx) => [await tx.get('a'), await tx.get('b')],
      );
      expect([runs, result]).toEqual([2, ['2', undefined]]);
    });

    test.each(['serializableSnapshot', 'serializable', 'repeatableReads'] as const)(
      'with %s keeps the sum of all accounts, however many transfer at once',
      async (isolation) => {
        const accounts = Array.from({ length: 6 }, (_, at) => `account/${at}`);
        await Promise.all(accounts.map((account) => client.put(account, '100')));
        const total = async (tx: StmTransaction): Promise<number> => {
          const balances = await Promise.all(accounts.map((account) => tx.get(account)));
          return balances.reduce((sum, balance) => sum + Number(balance), 0);
        };
        let transfers = 0;
        const worker = async (seed: number): Promise<void> => {
          const random = new Random(seed);
          const any = (): string => accounts[Math.floor(random.next() * accounts.length)] as string;
          for (let n = 0; n < 20; n++) {
            const [from, to, amount] = [any(), any(), 1 + Math.floor(random.next() * 40)];
            await client.stm(
              async (tx) => {
                const balance = Number(await tx.get(from));
                if (balance < amount) return;
                tx.put(from, String(balance - amount));
                tx.put(to, String(Number(await tx.get(to)) + amount));
              },
              { isolation, deadlineMs: 20_000 },
            );
            transfers++;
            if (n % 5 === 0) expect(await client.stm(total, { isolation, deadlineMs: 20_000 })).toBe(600);
          }
        };
        await Promise.all(Array.from({ length: 8 }, (_, at) => worker(at + 1)));
        expect(transfers).toBe(160);
        const { kvs } = await client.list(prefix('account/'));
        expect(kvs.reduce((sum, kv) => sum + Number(kv.value), 0)).toBe(600);
        expect(kvs.every((kv) => Number(kv.value) >= 0)).toBe(true);
      },
      60_000,
    );

    test('whose answer is lost is done once, and in doubt', async () => {
      await using proxy = await TcpProxy.to(server.address);
      await using faulty = await connect({ endpoints: proxy.address, namespace: `${space}/` });
      await client.put('counter', '0');
      let certain = 0;
      let doubtful = 0;
      for (let n = 0; n < 40; n++) {
        if (n % 2 === 0) proxy.loseResponse(2);
        try {
          await faulty.stm(async (tx) => tx.put('counter', String(Number(await tx.get('counter')) + 1)));
          certain++;
        } catch (error) {
          if (!isConclaveError(error) || error.outcome !== 'unknown') throw error;
          doubtful++;
        }
      }
      proxy.behave();
      expect(doubtful).toBeGreaterThan(10);
      const counter = Number((await client.get('counter'))?.value);
      expect(counter).toBeGreaterThanOrEqual(certain);
      expect(counter).toBeLessThanOrEqual(certain + doubtful);
    }, 60_000);
  });
});
