// Transactions that are marked: done once whatever is lost, and the answer of a repeat is that of the first run.
import {
  allKeys,
  type Client,
  type Comparison,
  connect,
  del,
  fromKey,
  get,
  isConclaveError,
  key,
  type ListOptions,
  list,
  type Namespace,
  type Operation,
  prefix,
  put,
  range,
  type Target,
  type TxnOutcome,
  txn,
} from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { eventually, type RunningProcess, TcpProxy, testTargets } from '@conclave/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

const targets = testTargets();

/** Transactions of every shape over a few keys. */
class TxnMaker {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  operations(depth: number): Operation[] {
    return Array.from({ length: 1 + this.#below(4) }, () => this.#operation(depth));
  }

  key(): string {
    return 'abcdef'[this.#below(6)] as string;
  }

  conditions(): Comparison[] {
    return this.#below(3) === 0 ? [] : [this.#below(2) === 0 ? key(this.key()).exists() : key(this.key()).version.lessThan(2)];
  }

  #operation(depth: number): Operation {
    const kind = this.#below(depth > 0 ? 6 : 5);
    if (kind === 0) return put(this.key(), `${this.#below(100)}`, { prevKv: this.#below(2) === 0 });
    if (kind === 1) return get(this.key());
    if (kind === 2) return del(this.#target(), { prevKv: this.#below(2) === 0 });
    if (kind < 5) return list(this.#target(), this.#listOptions());
    return txn()
      .if(...this.conditions())
      .then(...this.operations(depth - 1))
      .else(...this.operations(depth - 1));
  }

  #target(): Target {
    const kind = this.#below(4);
    if (kind === 0) return this.key();
    if (kind === 1) return fromKey(this.key());
    return kind === 2 ? range(this.key(), 'g') : prefix('');
  }

  #listOptions(): ListOptions {
    return {
      limit: this.#below(4),
      // By key, as servers give what is equal by another order in any order.
      sort: { by: 'key', order: this.#below(2) === 0 ? 'ascend' : 'descend' },
      keysOnly: this.#below(3) === 0,
      countOnly: this.#below(6) === 0,
    };
  }

  #below(bound: number): number {
    return Math.floor(this.#random.next() * bound);
  }
}

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

  /** What tells two results apart: a KeyValue is compared by what it holds. */
  const told = (result: unknown): unknown =>
    JSON.parse(JSON.stringify(result, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value)));

  describe.skipIf(skip !== undefined)('a transaction that is marked', () => {
    test('gives a repeat the answer of the first run, operation by operation, whatever was written since', async () => {
      for (const name of ['a', 'b', 'c', 'd1', 'd2', 'e']) await client.put(name, `old ${name}`);
      const marked = client
        .txn()
        .if(key('a').value.equals('old a'))
        .then(
          list(prefix(''), { limit: 2 }),
          del('nothing'),
          get('a'),
          put('a', 'new a', { prevKv: true }),
          get('a'),
          del(prefix('d'), { prevKv: true }),
          del(range('d2', 'e')),
          list(prefix('d')),
          get('e', { revision: (await client.get('e'))?.modRevision }),
          txn()
            .if(key('b').value.equals('new b'))
            .then(put('b', 'never'))
            .else(
              put('b', 'new b', { prevKv: true }),
              get('c'),
              txn()
                .then(list(fromKey('b'), { sort: { by: 'value' }, keysOnly: true }))
                .else(get('a')),
            ),
          list(fromKey('c'), { countOnly: true }),
          list(allKeys(), { limit: 4, sort: { by: 'modRevision', order: 'descend' } }),
          list(allKeys(), { limit: 3 }),
          list(allKeys()),
        )
        .else(get('a'))
        .once('first');
      const first = await marked.commit();
      expect(first.succeeded).toBe(true);
      await client.delete(prefix('a'));
      await client.put('b', 'later');
      await client.put('d1', 'again');
      const again = await marked.commit();
      expect(told(again)).toEqual(told(first));
      expect(told([again.succeeded, again.revision, again.responses])).toEqual(told([first.succeeded, first.revision, first.responses]));
      expect((await client.get('b'))?.value).toBe('later');
    });

    test('of any shape gives a repeat the answer of the first run, or says why it cannot', async () => {
      const make = new TxnMaker(4);
      let same = 0;
      let unavailable = 0;
      for (let n = 0; n < 150; n++) {
        const marked = client
          .txn()
          .if(...make.conditions())
          .then(...make.operations(2))
          .else(...make.operations(1))
          .once(`${n}`);
        const first = await marked.commit().catch((error: unknown) => error);
        await client.put(make.key(), 'since');
        await client.delete(make.key());
        const again = await marked.commit().catch((error: unknown) => error);
        if (isConclaveError(first)) {
          // It contradicts itself, and is refused whenever it is sent.
          expect([first.code, again]).toMatchObject(['duplicate-key', { code: 'duplicate-key' }]);
        } else if (isConclaveError(again, 'result-unavailable')) {
          expect(again.message).toContain('between two writes');
          expect(again.details).toMatchObject({ succeeded: (first as TxnOutcome<boolean, unknown>).succeeded });
          unavailable++;
        } else {
          expect(told(again)).toEqual(told(first));
          same++;
        }
      }
      expect(same).toBeGreaterThan(50);
      expect(unavailable).toBeLessThan(same);
    }, 60_000);

    test('gives a repeat the answer of the first run when its conditions did not hold, even if they would now', async () => {
      await client.put('a', 'old');
      const marked = client
        .txn()
        .if(key('a').value.equals('new'))
        .then(put('a', 'never'))
        .else(get('a'), list(prefix('')))
        .once('first');
      const first = await marked.commit();
      if (first.succeeded) return expect.unreachable();
      expect(first[0]?.value).toBe('old');
      await client.put('a', 'new');
      const again = await marked.commit();
      expect(told(again)).toEqual(told(first));
      expect((await client.get('a'))?.value).toBe('new');
    });

    test('is told apart by its id, and is gone when its time is up', async () => {
      const count = (id: string) => client.txn().then(put('k', 'v')).once(id, { ttlSeconds: 1 }).commit();
      await count('one');
      const first = await count('two');
      expect(await count('two')).toEqual(first);
      expect((await client.get('k'))?.version).toBe(2n);
      expect((await client.list(prefix('conclave/once/'))).kvs.map((kv) => [kv.key, kv.value])).toEqual([
        ['conclave/once/txn/one', expect.stringMatching(/^1 [0-9a-f]{32}$/)],
        ['conclave/once/txn/two', expect.stringMatching(/^1 [0-9a-f]{32}$/)],
      ]);
      await eventually('the marks are gone', async () => (await client.list(prefix('conclave/once/'))).count === 0, 15_000);
      await count('two');
      expect((await client.get('k'))?.version).toBe(3n);
    });

    test('under the id of another does nothing, and says so', async () => {
      const first = await client.txn().if(key('a').missing()).then(put('a', '1')).once('id').commit();
      const others = [
        client.txn().if(key('a').missing()).then(put('a', '2')).once('id'),
        client.txn().if(key('b').missing()).then(put('a', '1')).once('id'),
        client.txn().then(put('a', '1')).once('id'),
        client.txn().if(key('a').missing()).then(put('a', '1')).else(get('a')).once('id'),
        client
          .txn()
          .if(key('a').missing())
          .then(put('a', '1'), txn().then(put('c', '1')))
          .once('id'),
      ];
      for (const other of others)
        await expect(other.commit()).rejects.toMatchObject({
          code: 'once-mismatch',
          outcome: 'not-applied',
          details: { succeeded: true, revision: first.revision },
        });
      expect((await client.list(allKeys())).count).toBe(2);
    });

    test('is the same one in another process, whose keys go under another lease', async () => {
      const commit = async (): Promise<bigint> => {
        const lease = await client.lease.grant({ ttlSeconds: 30 });
        const operations = [put('a', '1', { lease }), txn().then(put('b', '1', { lease }))] as const;
        const { revision } = await client
          .txn()
          .then(...operations)
          .once('id')
          .commit();
        return revision;
      };
      const revision = await commit();
      expect(await commit()).toBe(revision);
    });

    test('says what it did even when what it read is compacted away', async () => {
      await client.put('k', 'old');
      const writing = client.txn().then(put('k', 'new')).once('writes');
      const reading = client.txn().then(put('k', 'newer'), get('k')).once('reads');
      const first = await writing.commit();
      const { revision } = await reading.commit();
      await client.compact((await client.put('other', '')).revision);
      expect(await writing.commit()).toEqual(first);
      await expect(reading.commit()).rejects.toMatchObject({
        code: 'result-unavailable',
        outcome: 'applied',
        details: { succeeded: true, revision },
      });
    });

    test('says that it was done when it read a range between two writes to it', async () => {
      const marked = client
        .txn()
        .then(put('k1', ''), list(prefix('k')), put('k2', ''))
        .once('id');
      const { revision } = await marked.commit();
      await expect(marked.commit()).rejects.toMatchObject({ code: 'result-unavailable', details: { succeeded: true, revision } });
    });

    test('is marked anew when somebody takes the lease of the marks away', async () => {
      await client.txn().then(put('k', '1')).once('one').commit();
      const { lease = 0n } = (await client.get('conclave/once/txn/one')) ?? {};
      await client.lease.revoke(lease);
      await client.txn().then(put('k', '2')).once('two').commit();
      expect(await client.get('k')).toMatchObject({ value: '2', version: 2n });
      const refused = client
        .txn()
        .then(put('k', '3', { lease: 4_711n }))
        .once('three')
        .commit();
      await expect(refused).rejects.toMatchObject({ code: 'lease-not-found', outcome: 'not-applied' });
    });

    test('is refused as a whole, without a mark, when it contradicts itself', async () => {
      const refused = client.txn().then(put('k', '1'), put('k', '2')).once('id').commit();
      await expect(refused).rejects.toMatchObject({ code: 'duplicate-key', outcome: 'not-applied' });
      expect((await client.list(prefix(''))).count).toBe(0);
    });

    test('is done once and answered truly, a hundred times, when answers are lost', async () => {
      await using proxy = await TcpProxy.to(server.address);
      await using faulty = await connect({ endpoints: proxy.address, namespace: `${space}/`, deadlineMs: 20_000 });
      await faulty.txn().once('warm-up').commit();
      for (let n = 0; n < 100; n++) {
        const name = `once/${n}`;
        const holds = n % 4 !== 0;
        if (!holds) await client.put(name, 'taken');
        proxy.loseResponse(1 + (n % 2));
        const result = await faulty
          .txn()
          .if(key(name).missing())
          .then(put(name, 'mine'), get(name))
          .else(get(name), put(`${name}/refused`, ''))
          .once(`id ${n}`)
          .commit();
        const stored = await client.get(name);
        expect(stored?.version).toBe(1n);
        expect(result.succeeded).toBe(holds);
        if (result.succeeded) {
          expect(result.revision).toBe(stored?.modRevision);
          expect(result[1]).toMatchObject({ value: 'mine', modRevision: result.revision });
        } else {
          expect(result[0]).toMatchObject({ value: 'taken' });
          expect(await client.get(`${name}/refused`)).toMatchObject({ version: 1n, modRevision: result.revision });
        }
      }
      proxy.behave();
      expect(proxy.cuts).toBeGreaterThanOrEqual(50);
    }, 60_000);
  });
});
