import assert from 'node:assert/strict';
import { allKeys, type Init, type RangeRequest, RangeRequest_SortOrder, RangeRequest_SortTarget } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, type Context, methods, type ShownRange } from '../context.ts';

/** Four keys whose orders by key, version, create revision, mod revision and value all differ and hold no tie. */
async function fill(t: Context): Promise<void> {
  await t.write('c=0', 'a=0', 'd=0', 'b=z', 'd=1', 'd=2', 'd=k', 'c=1', 'c=b', 'a=m');
}

const shown: Record<string, string> = {
  a: 'a=m c2 m10 v2',
  b: 'b=z c4 m4 v1',
  c: 'c=b c1 m9 v3',
  d: 'd=k c3 m7 v4',
};

/** `keys` as one word, a letter a key. */
const expected = (keys: string, more = false, count = 4): ShownRange => ({ kvs: Array.from(keys, (key) => shown[key] ?? ''), more, count });

const { NONE, ASCEND, DESCEND } = RangeRequest_SortOrder;
const { KEY, VERSION, CREATE, MOD, VALUE } = RangeRequest_SortTarget;

const sorts: readonly (readonly [target: string, targetValue: number, order: string, orderValue: number, all: string, cut: string])[] = [
  ['KEY', KEY, 'NONE', NONE, 'abcd', 'ab'],
  ['KEY', KEY, 'ASCEND', ASCEND, 'abcd', 'ab'],
  ['KEY', KEY, 'DESCEND', DESCEND, 'dcba', 'dc'],
  ['VERSION', VERSION, 'NONE', NONE, 'bacd', 'ba'],
  ['VERSION', VERSION, 'ASCEND', ASCEND, 'bacd', 'ba'],
  ['VERSION', VERSION, 'DESCEND', DESCEND, 'dcab', 'dc'],
  ['CREATE', CREATE, 'NONE', NONE, 'cadb', 'ca'],
  ['CREATE', CREATE, 'ASCEND', ASCEND, 'cadb', 'ca'],
  ['CREATE', CREATE, 'DESCEND', DESCEND, 'bdac', 'bd'],
  ['MOD', MOD, 'NONE', NONE, 'bdca', 'bc'],
  ['MOD', MOD, 'ASCEND', ASCEND, 'bdca', 'bd'],
  ['MOD', MOD, 'DESCEND', DESCEND, 'acdb', 'ac'],
  ['VALUE', VALUE, 'NONE', NONE, 'cdab', 'ca'],
  ['VALUE', VALUE, 'ASCEND', ASCEND, 'cdab', 'cd'],
  ['VALUE', VALUE, 'DESCEND', DESCEND, 'badc', 'ba'],
];

const sorted: readonly Case[] = sorts.flatMap(([target, sortTarget, order, sortOrder, all, cut]) => [
  {
    name: `range: sorts by ${target} with order ${order}`,
    async run(t) {
      await fill(t);
      assert.deepEqual(await t.range({ ...allKeys(), sortTarget, sortOrder }), expected(all));
    },
  },
  {
    name: `range: sorts by ${target} with order ${order} and limit 2`,
    async run(t) {
      await fill(t);
      assert.deepEqual(await t.range({ ...allKeys(), sortTarget, sortOrder, limit: 2 }), expected(cut, true));
    },
  },
]);

/** One request on the four keys and what it gives. */
const row = (name: string, request: Init<RangeRequest>, keys: string, more?: boolean, count?: number): Case => ({
  name: `range: ${name}`,
  async run(t) {
    await fill(t);
    assert.deepEqual(await t.range(request), expected(keys, more, count));
  },
});

/** The same where the request needs revisions. */
const rowAt = (
  name: string,
  request: (at: (relative: number) => number) => Init<RangeRequest>,
  keys: string,
  more?: boolean,
  count?: number,
): Case => ({
  name: `range: ${name}`,
  async run(t) {
    await fill(t);
    assert.deepEqual(await t.range(request((relative) => t.base + relative)), expected(keys, more, count));
  },
});

const zero = new Uint8Array([0]);

const ranges: readonly Case[] = [
  row('a single key', { key: bytes('b') }, 'b', false, 1),
  row('a missing key is an empty answer, not an error', { key: bytes('x') }, '', false, 0),
  row('an interval holds its start and not its end', { key: bytes('a'), rangeEnd: bytes('c') }, 'ab', false, 2),
  row('an interval that starts between keys', { key: bytes('aa'), rangeEnd: bytes('cz') }, 'bc', false, 2),
  row('an interval whose end equals its start is empty', { key: bytes('b'), rangeEnd: bytes('b') }, '', false, 0),
  row('an interval whose end lies before its start is empty', { key: bytes('c'), rangeEnd: bytes('a') }, '', false, 0),
  row('a range end of one zero byte reads every key from the start on', { key: bytes('b'), rangeEnd: zero }, 'bcd', false, 3),
  row('a zero byte as both ends reads every key', { key: zero, rangeEnd: zero }, 'abcd'),
  row('a zero byte as the key alone is just that key', { key: zero }, '', false, 0),
  row('a range end of two zero bytes is an ordinary bound', { key: bytes('a'), rangeEnd: new Uint8Array([0, 0]) }, '', false, 0),
  row('limit cuts and says more', { ...allKeys(), limit: 3 }, 'abc', true),
  row('limit equal to the number of keys does not say more', { ...allKeys(), limit: 4 }, 'abcd'),
  row('limit beyond the number of keys does not say more', { ...allKeys(), limit: 100 }, 'abcd'),
  row('limit 1', { ...allKeys(), limit: 1 }, 'a', true),
  row('a negative limit is no limit', { ...allKeys(), limit: -1 }, 'abcd'),
  row('limit with descending keys cuts after sorting', { ...allKeys(), limit: 1, sortOrder: DESCEND }, 'd', true),
  row('count_only gives the count and no keys', { ...allKeys(), countOnly: true }, ''),
  row('count_only ignores limit and does not say more', { ...allKeys(), countOnly: true, limit: 2 }, ''),
  row('count_only of one key', { key: bytes('a'), countOnly: true }, '', false, 1),
  row('count_only of a missing key', { key: bytes('x'), countOnly: true }, '', false, 0),
  row('serializable gives the same answer on a single member', { ...allKeys(), serializable: true }, 'abcd'),
  row('a negative revision reads the latest', { ...allKeys(), revision: -5 }, 'abcd'),
  rowAt(
    'min_mod_revision keeps keys modified at it or later, and count ignores it',
    (at) => ({ ...allKeys(), minModRevision: at(9) }),
    'ac',
  ),
  rowAt('max_mod_revision keeps keys modified at it or before', (at) => ({ ...allKeys(), maxModRevision: at(7) }), 'bd'),
  rowAt('min_create_revision keeps keys created at it or later', (at) => ({ ...allKeys(), minCreateRevision: at(3) }), 'bd'),
  rowAt('max_create_revision keeps keys created at it or before', (at) => ({ ...allKeys(), maxCreateRevision: at(2) }), 'ac'),
  rowAt('a filter that excludes all still tells the count', (at) => ({ ...allKeys(), minModRevision: at(100) }), ''),
  rowAt('filters work together', (at) => ({ ...allKeys(), minModRevision: at(5), maxModRevision: at(9), minCreateRevision: at(2) }), 'd'),
  rowAt('limit applies after the filter and says more', (at) => ({ ...allKeys(), minModRevision: at(7), limit: 2 }), 'ac', true),
  rowAt('limit that the filter has already met does not say more', (at) => ({ ...allKeys(), minModRevision: at(9), limit: 2 }), 'ac'),
  rowAt(
    'filter, sort and limit apply in this order',
    (at) => ({ ...allKeys(), maxModRevision: at(9), sortTarget: CREATE, sortOrder: DESCEND, limit: 2 }),
    'bd',
    true,
  ),
  rowAt(
    'a filter with a sort target and order NONE sorts the whole range',
    (at) => ({ ...allKeys(), maxModRevision: at(9), sortTarget: MOD, limit: 2 }),
    'bd',
    true,
  ),
  rowAt('a filter on one key', (at) => ({ key: bytes('a'), minModRevision: at(11) }), '', false, 1),
  rowAt('count_only ignores filters', (at) => ({ ...allKeys(), countOnly: true, minModRevision: at(9) }), ''),
];

export const rangeCases: readonly Case[] = [
  ...sorted,
  ...ranges,
  {
    name: 'range: keys_only leaves the values out and keeps the rest',
    async run(t) {
      await fill(t);
      const { kvs } = await t.range({ ...allKeys(), keysOnly: true });
      assert.deepEqual(kvs, ['a= c2 m10 v2', 'b= c4 m4 v1', 'c= c1 m9 v3', 'd= c3 m7 v4']);
    },
  },
  {
    name: 'range: keys_only still sorts by value',
    async run(t) {
      await fill(t);
      const { kvs } = await t.range({ ...allKeys(), keysOnly: true, sortTarget: VALUE, sortOrder: ASCEND });
      assert.deepEqual(kvs, ['c= c1 m9 v3', 'd= c3 m7 v4', 'a= c2 m10 v2', 'b= c4 m4 v1']);
    },
  },
  {
    name: 'range: keys_only keeps the lease',
    until: '3.6',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      assert.deepEqual((await t.range({ key: bytes('a'), keysOnly: true })).kvs, [`a= c1 m1 v1 l${lease}`]);
    },
  },
  {
    name: 'range: keys_only leaves the lease out as well',
    since: '3.7',
    async run(t) {
      await t.put('a', '1', await t.grant());
      assert.deepEqual((await t.range({ key: bytes('a'), keysOnly: true })).kvs, ['a= c1 m1 v1']);
    },
  },
  {
    name: 'range: keys_only sorted by value keeps the lease',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      const { kvs } = await t.range({ ...allKeys(), keysOnly: true, sortTarget: VALUE, sortOrder: ASCEND });
      assert.deepEqual(kvs, [`a= c1 m1 v1 l${lease}`]);
    },
  },
  {
    name: 'range: an old revision shows keys as they were then, deleted ones included',
    async run(t) {
      await t.write('a=1', 'b=1', 'a=2', '-b', 'c=1');
      const at = async (relative: number): Promise<readonly string[]> => (await t.range({ ...allKeys(), revision: t.base + relative })).kvs;
      assert.deepEqual(await at(1), ['a=1 c1 m1 v1']);
      assert.deepEqual(await at(2), ['a=1 c1 m1 v1', 'b=1 c2 m2 v1']);
      assert.deepEqual(await at(3), ['a=2 c1 m3 v2', 'b=1 c2 m2 v1']);
      assert.deepEqual(await at(4), ['a=2 c1 m3 v2']);
      assert.deepEqual(await at(5), ['a=2 c1 m3 v2', 'c=1 c5 m5 v1']);
    },
  },
  {
    name: 'range: an old revision with count_only counts the keys of then',
    async run(t) {
      await t.write('a=1', 'b=1', '-a', '-b');
      assert.equal((await t.range({ ...allKeys(), countOnly: true, revision: t.base + 2 })).count, 2);
      assert.equal((await t.range({ ...allKeys(), countOnly: true, revision: t.base + 3 })).count, 1);
      assert.equal((await t.range({ ...allKeys(), countOnly: true })).count, 0);
    },
  },
  {
    name: 'range: an old revision with limit and order',
    async run(t) {
      await t.write('a=1', 'b=1', 'c=1', '-b', 'd=1');
      const answer = await t.range({ ...allKeys(), revision: t.base + 3, limit: 2, sortOrder: DESCEND });
      assert.deepEqual(answer, { kvs: ['c=1 c3 m3 v1', 'b=1 c2 m2 v1'], count: 3, more: true });
    },
  },
  {
    name: 'range: the current revision may be asked for by number',
    async run(t) {
      await t.write('a=1');
      assert.deepEqual((await t.range({ key: bytes('a'), revision: t.base + 1 })).kvs, ['a=1 c1 m1 v1']);
    },
  },
  {
    name: 'range: a revision before the key existed is empty',
    async run(t) {
      await t.write('a=1', 'b=1');
      assert.deepEqual(await t.range({ key: bytes('b'), revision: t.base + 1 }), { kvs: [], count: 0, more: false });
    },
  },
  {
    name: 'range: a future revision is refused',
    async run(t) {
      await t.write('a=1');
      await t.fails(methods.range, { key: bytes('a'), revision: t.base + 2 }, 'future-revision');
    },
  },
  {
    name: 'range: a future revision is refused to a serializable read as well',
    async run(t) {
      await t.fails(methods.range, { key: bytes('a'), revision: t.base + 1, serializable: true }, 'future-revision');
    },
  },
  {
    name: 'range: a future revision is refused to count_only as well',
    async run(t) {
      await t.fails(methods.range, { key: bytes('a'), revision: t.base + 1, countOnly: true }, 'future-revision');
    },
  },
  {
    name: 'range: the largest 64-bit revision is a future revision',
    async run(t) {
      await t.fails(methods.range, { key: bytes('a'), revision: Number.MAX_SAFE_INTEGER }, 'future-revision');
    },
  },
  {
    name: 'range: a missing key is refused',
    async run(t) {
      await t.fails(methods.range, {}, 'key-empty');
    },
  },
  {
    name: 'range: a missing key is refused even with a range end',
    async run(t) {
      await t.fails(methods.range, { rangeEnd: bytes('z') }, 'key-empty');
    },
  },
  {
    name: 'range: a missing key is refused before a future revision',
    async run(t) {
      await t.fails(methods.range, { revision: t.base + 100 }, 'key-empty');
    },
  },
  {
    name: 'range: an unknown sort order is refused',
    since: '3.6',
    async run(t) {
      await t.fails(methods.range, { key: bytes('a'), sortOrder: 3 }, 'invalid-sort-option');
    },
  },
  {
    name: 'range: an unknown sort target is refused',
    since: '3.6',
    async run(t) {
      await t.fails(methods.range, { key: bytes('a'), sortTarget: 5 }, 'invalid-sort-option');
    },
  },
  {
    name: 'range: a missing key is refused before an unknown sort order',
    since: '3.6',
    async run(t) {
      await t.fails(methods.range, { sortOrder: 9 }, 'key-empty');
    },
  },
  {
    name: 'range: a negative sort order is refused',
    since: '3.6',
    async run(t) {
      await t.fails(methods.range, { key: bytes('a'), sortOrder: -1 }, 'invalid-sort-option');
    },
  },
  {
    name: 'range: keys are ordered bytewise, prefixes first',
    async run(t) {
      const keys = [
        new Uint8Array([1]),
        new Uint8Array([1, 0]),
        new Uint8Array([1, 1]),
        new Uint8Array([0x7f]),
        new Uint8Array([0x80]),
        new Uint8Array([0xff, 0xff]),
      ];
      for (const key of [...keys].reverse()) await t.ok(methods.put, { key });
      const { kvs } = await t.ok(methods.range, allKeys());
      assert.deepEqual(
        kvs.map(({ key }) => [...key]),
        keys.map((key) => [...key]),
      );
    },
  },
  {
    name: 'range: a key may be any bytes, and so may a value',
    async run(t) {
      const any = new Uint8Array(256).map((_byte, at) => at);
      await t.ok(methods.put, { key: any, value: any });
      const { kvs } = await t.ok(methods.range, { key: any });
      assert.deepEqual([...(kvs[0]?.key ?? [])], [...any]);
      assert.deepEqual([...(kvs[0]?.value ?? [])], [...any]);
    },
  },
  {
    name: 'range: the prefix 0xff reads to the end of the keyspace',
    async run(t) {
      await t.ok(methods.put, { key: new Uint8Array([0xfe]) });
      await t.ok(methods.put, { key: new Uint8Array([0xff]) });
      await t.ok(methods.put, { key: new Uint8Array([0xff, 0xff, 0xff]) });
      assert.equal((await t.range({ key: new Uint8Array([0xff]), rangeEnd: zero })).count, 2);
    },
  },
  {
    name: 'range: ten thousand keys come in one answer, in order',
    async run(t) {
      const name = (at: number): string => `k${`${at}`.padStart(5, '0')}`;
      for (let from = 0; from < 10_000; from += 125) {
        await t.ok(methods.txn, {
          success: Array.from({ length: 125 }, (_none, at) => ({ requestPut: { key: bytes(name(from + at)), value: bytes('v') } })),
        });
      }
      const { kvs, count } = await t.ok(methods.range, allKeys());
      assert.equal(count, 10_000);
      assert.ok(kvs.every(({ key }, at) => Buffer.from(key).toString() === name(at)));
    },
  },
];
