import assert from 'node:assert/strict';
import { allKeys } from '@conclave/protocol';
import { type Case, physicalToo } from '../case.ts';
import { bytes, type Context, methods, op } from '../context.ts';

const compact = (t: Context, relative: number, physical = false): Promise<unknown> =>
  t.ok(methods.compact, { revision: t.base + relative, physical });
const at = (t: Context, relative: number): { key: Uint8Array; rangeEnd: Uint8Array; revision: number } => ({
  ...allKeys(),
  revision: t.base + relative,
});

const both = (name: string, run: (t: Context, physical: boolean) => Promise<void>): readonly Case[] =>
  physicalToo({ name: `compact: ${name}`, run });

export const compactCases: readonly Case[] = [
  ...both('reads at the compacted revision and above work, below it they are refused', async (t, physical) => {
    await t.write('a=1', 'a=2', 'a=3', 'a=4');
    await compact(t, 3, physical);
    await t.fails(methods.range, at(t, 1), 'compacted');
    await t.fails(methods.range, at(t, 2), 'compacted');
    assert.deepEqual((await t.range(at(t, 3))).kvs, ['a=3 c1 m3 v3']);
    assert.deepEqual((await t.range(at(t, 4))).kvs, ['a=4 c1 m4 v4']);
    assert.deepEqual(await t.all(), ['a=4 c1 m4 v4']);
  }),
  ...both('keeps the latest version of every live key at the compacted revision', async (t, physical) => {
    await t.write('a=1', 'b=1', 'c=1', 'a=2', '-b', 'd=1');
    await compact(t, 6, physical);
    assert.deepEqual((await t.range(at(t, 6))).kvs, ['a=2 c1 m4 v2', 'c=1 c3 m3 v1', 'd=1 c6 m6 v1']);
  }),
  ...both('of the current revision keeps the current state', async (t, physical) => {
    await t.write('a=1', 'b=1', '-a');
    await compact(t, 3, physical);
    assert.deepEqual(await t.all(), ['b=1 c2 m2 v1']);
    await t.write('a=2');
    assert.deepEqual(await t.all(), ['a=2 c4 m4 v1', 'b=1 c2 m2 v1']);
  }),
  ...both('at a tombstone leaves the key deleted and its new life whole', async (t, physical) => {
    await t.write('a=1', '-a', 'a=2', '-a');
    await compact(t, 2, physical);
    assert.deepEqual((await t.range(at(t, 2))).kvs, []);
    assert.deepEqual((await t.range(at(t, 3))).kvs, ['a=2 c3 m3 v1']);
    assert.deepEqual((await t.range(at(t, 4))).kvs, []);
  }),
  ...both('a second time with the same revision is refused', async (t, physical) => {
    await t.write('a=1', 'a=2');
    await compact(t, 2, physical);
    await t.fails(methods.compact, { revision: t.base + 2, physical }, 'compacted');
  }),
  ...both('below the compacted revision is refused', async (t, physical) => {
    await t.write('a=1', 'a=2');
    await compact(t, 2, physical);
    await t.fails(methods.compact, { revision: t.base + 1, physical }, 'compacted');
  }),
  ...both('beyond the current revision is refused', async (t, physical) => {
    await t.write('a=1');
    await t.fails(methods.compact, { revision: t.base + 2, physical }, 'future-revision');
    assert.deepEqual((await t.range(at(t, 1))).kvs, ['a=1 c1 m1 v1']);
  }),
  ...both('again and again in steps of one', async (t, physical) => {
    await t.write('a=1', 'a=2', 'b=1', 'a=3', '-b');
    for (let revision = 1; revision <= 5; revision++) await compact(t, revision, physical);
    assert.deepEqual(await t.all(), ['a=3 c1 m4 v3']);
    await t.fails(methods.range, at(t, 4), 'compacted');
  }),
  {
    name: 'compact: takes no revision',
    async run(t) {
      await t.write('a=1');
      const { header } = await t.ok(methods.compact, { revision: t.base + 1 });
      assert.equal(t.relative(header?.revision), 1);
      assert.equal(await t.put('a', '2'), 2);
    },
  },
  {
    name: 'compact: revision 0 on a store that was compacted is refused',
    async run(t) {
      await t.write('a=1');
      await compact(t, 1);
      await t.fails(methods.compact, {}, 'compacted');
    },
  },
  {
    name: 'compact: a negative revision is refused as compacted',
    async run(t) {
      await t.write('a=1');
      await compact(t, 1);
      await t.fails(methods.compact, { revision: -1 }, 'compacted');
    },
  },
  {
    name: 'compact: revision 0 on a fresh store is refused as compacted only where something was compacted',
    fresh: true,
    async run(t) {
      await t.write('a=1');
      const { code, message } = await t.call(methods.compact, { revision: 0 });
      assert.deepEqual([code, message], [0, '']);
    },
  },
  {
    name: 'compact: a serializable read below it is refused as well',
    async run(t) {
      await t.write('a=1', 'a=2');
      await compact(t, 2);
      await t.fails(methods.range, { ...at(t, 1), serializable: true }, 'compacted');
    },
  },
  {
    name: 'compact: count_only, keys_only and missing keys below it are refused as well',
    async run(t) {
      await t.write('a=1', 'a=2');
      await compact(t, 2);
      await t.fails(methods.range, { ...at(t, 1), countOnly: true }, 'compacted');
      await t.fails(methods.range, { ...at(t, 1), keysOnly: true }, 'compacted');
      await t.fails(methods.range, { key: bytes('x'), revision: t.base + 1 }, 'compacted');
    },
  },
  {
    name: 'compact: a txn with a range below it is refused, and undone',
    async run(t) {
      await t.write('a=1', 'a=2');
      await compact(t, 2);
      await t.fails(methods.txn, { success: [op.put('b', '1'), op.get('a', { revision: t.base + 1 })] }, 'compacted');
      await t.fails(methods.txn, { success: [op.get('a', { revision: t.base + 1 })] }, 'compacted');
      assert.deepEqual(await t.all(), ['a=2 c1 m2 v2']);
    },
  },
  {
    name: 'compact: a txn with a range at it works',
    async run(t) {
      await t.write('a=1', 'a=2', 'a=3');
      await compact(t, 2);
      const { responses } = await t.txn([], [op.get('a', { revision: t.base + 2 })]);
      assert.deepEqual(responses[0]?.range?.kvs, ['a=2 c1 m2 v2']);
    },
  },
  {
    name: 'compact: HashKV tells the compacted revision, and refuses to hash below it',
    async run(t) {
      await t.write('a=1', 'a=2', 'a=3');
      await compact(t, 2);
      assert.equal(t.relative((await t.ok(methods.hashKv, {})).compactRevision), 2);
      await t.fails(methods.hashKv, { revision: t.base + 1 }, 'compacted');
      await t.fails(methods.hashKv, { revision: t.base + 9 }, 'future-revision');
    },
  },
  {
    name: 'compact: writes that go on meanwhile are not lost',
    needs: 'commits',
    async run(t) {
      for (let at = 0; at < 50; at++) await t.put(`k${at % 10}`, `${at}`);
      const writes = Array.from({ length: 20 }, (_none, at) => t.put(`k${at % 10}`, `new${at}`));
      await compact(t, 50, true);
      await Promise.all(writes);
      assert.equal((await t.range(allKeys())).count, 10);
      assert.equal(await t.put('z', ''), 71);
    },
  },
];
