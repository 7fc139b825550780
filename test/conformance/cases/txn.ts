import assert from 'node:assert/strict';
import {
  allKeys,
  type Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  type Init,
  type RequestOp,
  type TxnRequest,
  type WireErrorKey,
} from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, type Context, methods, op } from '../context.ts';

const { EQUAL, GREATER } = Compare_CompareResult;
const { VERSION, MOD, VALUE } = Compare_CompareTarget;

const never: Init<Compare> = { key: bytes('nothing'), target: VERSION, result: GREATER, version: 0 };
const version = (key: string, is: number): Init<Compare> => ({ key: bytes(key), target: VERSION, result: EQUAL, version: is });
const value = (key: string, is: string): Init<Compare> => ({ key: bytes(key), target: VALUE, result: EQUAL, value: bytes(is) });
const interval = (key: string, end: string, more: object = {}): Init<RequestOp> => op.del(key, { rangeEnd: bytes(end), ...more });
const repeated = (count: number, one: (at: number) => Init<RequestOp>): readonly Init<RequestOp>[] =>
  Array.from({ length: count }, (_none, at) => one(at));

/** A txn that is refused and must leave `a` at 1 and take no revision. */
const refused = (name: string, request: Init<TxnRequest> | ((t: Context) => Init<TxnRequest>), error: WireErrorKey): Case => ({
  name: `txn: ${name}`,
  async run(t) {
    await t.write('a=1');
    await t.fails(methods.txn, typeof request === 'function' ? request(t) : request, error);
    assert.deepEqual(await t.all(), ['a=1 c1 m1 v1']);
    assert.equal(await t.put('z', ''), 2, 'a refused txn takes no revision');
  },
});

/** A list of operations that the duplicate-key rule allows, checked in both branches. */
const allowed = (name: string, ...ops: readonly Init<RequestOp>[]): Case => ({
  name: `txn: duplicate keys: ${name} is fine`,
  async run(t) {
    await t.write('a=1');
    await t.ok(methods.txn, { success: ops });
    await t.ok(methods.txn, { compare: [never], failure: ops });
  },
});

/** One that it forbids, in either branch, taken or not. */
const forbidden = (name: string, ...ops: readonly Init<RequestOp>[]): Case => ({
  name: `txn: duplicate keys: ${name} is refused`,
  async run(t) {
    await t.write('a=1');
    await t.fails(methods.txn, { success: ops }, 'duplicate-key');
    await t.fails(methods.txn, { failure: ops }, 'duplicate-key');
    assert.deepEqual(await t.all(), ['a=1 c1 m1 v1']);
  },
});

const duplicates: readonly Case[] = [
  forbidden('putting a key twice', op.put('k', '1'), op.put('k', '2')),
  forbidden('putting and deleting a key', op.put('k', '1'), op.del('k')),
  forbidden('deleting and putting a key', op.del('k'), op.put('k', '1')),
  forbidden('a put inside a deleted interval', interval('a', 'z'), op.put('k', '1')),
  forbidden('a put beside a put in a nested txn', op.txn([], [op.put('k', '1')]), op.put('k', '2')),
  forbidden('a put beside a put in the other branch of a nested txn', op.put('k', '1'), op.txn([], [], [op.put('k', '2')])),
  forbidden('the same put in two nested txns', op.txn([], [op.put('k', '1')]), op.txn([], [op.put('k', '2')])),
  forbidden('a put beside a delete in a nested txn', op.txn([], [op.del('k')]), op.put('k', '2')),
  forbidden('a delete beside a put in a nested txn', op.del('k'), op.txn([], [op.put('k', '2')])),
  forbidden('a nested interval over a put beside it', op.put('k', '1'), op.txn([], [], [interval('a', 'z')])),
  forbidden('a conflict inside a nested txn', op.txn([], [op.put('k', '1'), op.put('k', '2')])),
  forbidden('a conflict two levels down', op.txn([], [op.txn([], [op.put('k', '1')])]), op.put('k', '2')),
  allowed('overlapping deletes', op.del('k'), op.del('k'), interval('a', 'z'), interval('b', 'y')),
  allowed('a range over a put', op.put('k', '1'), op.get('k'), op.get('k')),
  allowed('puts of different keys', op.put('k', '1'), op.put('l', '1')),
  allowed('a put just outside a deleted interval', interval('a', 'k'), op.put('k', '1')),
  allowed('a put before the start of a deleted interval', interval('k', 'z'), op.put('j', '1')),
  allowed('a put beside a delete of an interval that is backwards', interval('z', 'a'), op.put('k', '1')),
  allowed('the same key put in both branches of one nested txn', op.txn([], [op.put('k', '1')], [op.put('k', '2')])),
  allowed('a put and a delete of one key in the two branches of a nested txn', op.txn([], [op.put('k', '1')], [op.del('k')])),
  {
    name: 'txn: duplicate keys: a delete without an end does not count, and what comes later in the branch wins',
    async run(t) {
      await t.write('a=1', 'k=1');
      const from = op.del('b', { rangeEnd: new Uint8Array([0]) });
      const { responses } = await t.txn([], [from, op.put('k', '2')]);
      assert.deepEqual(responses[0], { deleted: 1, prevKvs: [] });
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1', 'k=2 c3 m3 v1']);
      await t.txn([], [op.put('k', '3'), from, op.get('k')]);
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1']);
      assert.deepEqual((await t.range({ ...allKeys(), revision: t.base + 3 })).kvs, ['a=1 c1 m1 v1', 'k=2 c3 m3 v1']);
      await t.txn([], [op.put('n', '1'), { requestDeleteRange: allKeys() }, op.put('m', '1')]);
      assert.deepEqual(await t.all(), ['m=1 c5 m5 v1']);
    },
  },
  {
    name: 'txn: duplicate keys: a key put and deleted in one txn leaves no trace but the revision',
    async run(t) {
      const { header } = await t.ok(methods.txn, { success: [op.put('k', '1'), { requestDeleteRange: allKeys() }] });
      assert.equal(t.relative(header?.revision), 1);
      assert.deepEqual(await t.all(), []);
      assert.deepEqual((await t.range({ ...allKeys(), revision: t.base + 1 })).kvs, []);
      await t.write('k=2');
      assert.deepEqual(await t.all(), ['k=2 c2 m2 v1']);
    },
  },
  {
    name: 'txn: duplicate keys: the same key in the success and the failure branch is fine',
    async run(t) {
      assert.equal((await t.txn([], [op.put('k', '1')], [op.put('k', '2')])).succeeded, true);
      assert.deepEqual(await t.all(), ['k=1 c1 m1 v1']);
    },
  },
];

const budget: readonly Case[] = [
  {
    name: 'txn: budget: 128 operations a branch and 128 compares are allowed',
    async run(t) {
      const compare = Array.from({ length: 128 }, () => version('nothing', 0));
      const success = repeated(128, (at) => op.put(`k${at}`, ''));
      const failure = repeated(128, (at) => op.get(`k${at}`));
      assert.equal((await t.ok(methods.txn, { compare, success, failure })).responses.length, 128);
      assert.equal((await t.range({ ...allKeys(), countOnly: true })).count, 128);
    },
  },
  refused('budget: 129 operations in the success branch', { success: repeated(129, (at) => op.get(`k${at}`)) }, 'too-many-operations'),
  refused('budget: 129 operations in the failure branch', { failure: repeated(129, (at) => op.put(`k${at}`, '')) }, 'too-many-operations'),
  refused('budget: 129 compares', { compare: Array.from({ length: 129 }, () => version('a', 1)) }, 'too-many-operations'),
  {
    name: 'txn: budget: a nested txn has what its parent leaves over',
    async run(t) {
      const fits = [
        op.txn(
          [],
          repeated(127, () => op.get('a')),
        ),
      ];
      await t.ok(methods.txn, { success: fits });
      const tooMany = [
        op.txn(
          [],
          repeated(128, () => op.get('a')),
        ),
      ];
      await t.fails(methods.txn, { success: tooMany }, 'too-many-operations');
    },
  },
  {
    name: 'txn: budget: the parent takes the longest of its three lists',
    async run(t) {
      const nested = (count: number): readonly Init<RequestOp>[] => [
        op.txn(
          [],
          repeated(count, () => op.get('a')),
        ),
      ];
      const compare = Array.from({ length: 28 }, () => version('nothing', 0));
      await t.ok(methods.txn, { compare, success: nested(100) });
      await t.fails(methods.txn, { compare, success: nested(101) }, 'too-many-operations');
      await t.fails(methods.txn, { success: nested(101), failure: repeated(28, () => op.get('a')) }, 'too-many-operations');
    },
  },
  {
    name: 'txn: budget: sibling nested txns do not share it',
    async run(t) {
      const nested = op.txn(
        [],
        repeated(126, () => op.get('a')),
      );
      await t.ok(methods.txn, { success: [nested, nested] });
    },
  },
  {
    name: 'txn: budget: max-txn-ops sets it',
    settings: { maxTxnOps: 2 },
    async run(t) {
      await t.ok(methods.txn, { success: repeated(2, () => op.get('a')) });
      await t.fails(methods.txn, { success: repeated(3, () => op.get('a')) }, 'too-many-operations');
      await t.ok(methods.txn, { success: [op.txn([], [op.get('a')])] });
      await t.fails(methods.txn, { success: [op.txn([], [op.txn([], [op.get('a')])])] }, 'too-many-operations');
    },
  },
  refused(
    'budget: too many operations are told before an empty key',
    { compare: Array.from({ length: 129 }, () => ({})) },
    'too-many-operations',
  ),
];

const checks: readonly Case[] = [
  refused('an empty operation', { success: [{}] }, 'key-not-found'),
  refused('an empty operation in the branch not taken', { failure: [{}] }, 'key-not-found'),
  refused('an empty operation in a nested txn', { success: [op.txn([], [{}])] }, 'key-not-found'),
  refused('a compare without a key', { compare: [{ target: VERSION, version: 1 }] }, 'key-empty'),
  refused('a compare without a key in a nested txn', { success: [op.txn([{}], [])] }, 'key-empty'),
  refused('a range without a key', { success: [{ requestRange: {} }] }, 'key-empty'),
  refused('a put without a key', { success: [{ requestPut: {} }] }, 'key-empty'),
  refused('a delete without a key', { failure: [{ requestDeleteRange: {} }] }, 'key-empty'),
  refused('a put with ignore_value and a value', { success: [op.put('a', '2', { ignoreValue: true })] }, 'value-provided'),
  refused('a put with ignore_lease and a lease', { success: [op.put('a', '2', { ignoreLease: true, lease: 5n })] }, 'lease-provided'),
  refused('a put without a key in a nested txn', { success: [op.txn([], [], [{ requestPut: {} }])] }, 'key-empty'),
  refused(
    'a put with ignore_value and a value two levels down',
    { failure: [op.txn([], [op.txn([], [op.put('a', '2', { ignoreValue: true })])])] },
    'value-provided',
  ),
  refused('a compare without a key is told before a bad operation', { compare: [{}], success: [{}] }, 'key-empty'),
  refused('the success branch is checked before the failure branch', { success: [{ requestPut: {} }], failure: [{}] }, 'key-empty'),
  refused('a bad operation is told before a duplicate key', { success: [op.put('k', '1'), op.put('k', '2'), {}] }, 'key-not-found'),
  { ...refused('a range with an unknown sort order', { success: [op.get('a', { sortOrder: 7 })] }, 'invalid-sort-option'), since: '3.6' },
];

const state: readonly Case[] = [
  refused(
    'an unknown lease undoes the whole txn',
    { success: [op.put('a', '2'), op.put('b', '1', { lease: 0x7eadn })] },
    'lease-not-found',
  ),
  refused(
    'ignore_value on a missing key undoes the whole txn',
    { success: [op.put('a', '2'), op.put('b', '', { ignoreValue: true })] },
    'key-not-found',
  ),
  refused(
    'ignore_lease on a missing key undoes the whole txn',
    { success: [op.put('b', '1', { ignoreLease: true }), op.put('a', '2')] },
    'key-not-found',
  ),
  refused(
    'a future revision in a range undoes the whole txn',
    (t) => ({ success: [op.put('a', '2'), op.get('a', { revision: t.base + 9 })] }),
    'future-revision',
  ),
  refused(
    'the revision the txn itself will make is a future revision',
    (t) => ({ success: [op.put('a', '2'), op.get('a', { revision: t.base + 2 })] }),
    'future-revision',
  ),
  refused(
    'a failing nested txn undoes the whole txn',
    { success: [op.put('a', '2'), op.txn([], [op.put('b', '1', { lease: 0x7eadn })])] },
    'lease-not-found',
  ),
  {
    ...refused(
      'an unknown lease is told before a missing key',
      { success: [op.put('x', '', { ignoreValue: true, lease: 0x7eadn })] },
      'lease-not-found',
    ),
    since: '3.7',
  },
  {
    ...refused(
      'the first operation in error is told',
      (t) => ({ success: [op.get('a', { revision: t.base + 9 }), op.put('b', '1', { lease: 0x7eadn })] }),
      'future-revision',
    ),
    since: '3.6',
  },
  refused(
    'operations in error are told in order',
    (t) => ({ success: [op.put('b', '1', { lease: 0x7eadn }), op.get('a', { revision: t.base + 9 })] }),
    'lease-not-found',
  ),
  refused('a future revision in a txn of ranges only', (t) => ({ success: [op.get('a', { revision: t.base + 9 })] }), 'future-revision'),
  {
    name: 'txn: once the store was compacted, a negative revision in a range counts as compacted',
    async run(t) {
      await t.write('a=1');
      await t.ok(methods.compact, { revision: t.base + 1 });
      await t.fails(methods.txn, { success: [op.put('a', '2'), op.get('a', { revision: -1 })] }, 'compacted');
      await t.fails(methods.txn, { success: [op.get('a', { revision: -1 })] }, 'compacted');
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1']);
    },
  },
  {
    name: 'txn: on a store never compacted, revision -1 in a range reads the latest and -2 counts as compacted',
    fresh: true,
    async run(t) {
      await t.write('a=1');
      assert.deepEqual((await t.txn([], [op.get('a', { revision: -1 })])).responses[0]?.range?.kvs, ['a=1 c1 m1 v1']);
      await t.fails(methods.txn, { success: [op.get('a', { revision: -2 })] }, 'compacted');
    },
  },
  {
    name: 'txn: errors of state in the branch not taken do not matter',
    async run(t) {
      const bad = [op.put('b', '1', { lease: 0x7eadn }), op.put('c', '', { ignoreValue: true }), op.get('a', { revision: t.base + 100 })];
      assert.equal((await t.txn([], [op.put('a', '1')], bad)).succeeded, true);
      assert.equal((await t.txn([never], bad, [op.put('a', '2')])).succeeded, false);
      assert.deepEqual(await t.all(), ['a=2 c1 m2 v2']);
    },
  },
  {
    name: 'txn: ignore_value on a key put earlier in the same txn is refused, as only the state before counts',
    async run(t) {
      await t.fails(methods.txn, { success: [op.put('a', '1'), op.txn([], [op.put('b', '', { ignoreValue: true })])] }, 'key-not-found');
      assert.deepEqual(await t.all(), []);
    },
  },
  {
    name: 'txn: an old revision reads history, beside writes too',
    async run(t) {
      await t.write('a=1', 'a=2');
      const { responses } = await t.txn([], [op.put('b', '1'), op.get('a', { revision: t.base + 1 }), op.get('a')]);
      assert.deepEqual(responses[1]?.range?.kvs, ['a=1 c1 m1 v1']);
      assert.deepEqual(responses[2]?.range?.kvs, ['a=2 c1 m2 v2']);
    },
  },
];

export const txnCases: readonly Case[] = [
  {
    name: 'txn: an empty txn succeeds and takes no revision',
    async run(t) {
      const response = await t.ok(methods.txn, {});
      assert.deepEqual([response.succeeded, response.responses, t.relative(response.header?.revision)], [true, [], 0]);
    },
  },
  {
    name: 'txn: runs the success branch when the compares hold',
    async run(t) {
      await t.write('a=1');
      const answer = await t.txn([value('a', '1')], [op.put('a', '2')], [op.put('a', '3')]);
      assert.deepEqual(answer, { succeeded: true, responses: [{ put: '' }] });
      assert.deepEqual(await t.all(), ['a=2 c1 m2 v2']);
    },
  },
  {
    name: 'txn: runs the failure branch when they do not',
    async run(t) {
      await t.write('a=1');
      const answer = await t.txn([value('a', '9')], [op.put('a', '2')], [op.put('a', '3')]);
      assert.deepEqual(answer, { succeeded: false, responses: [{ put: '' }] });
      assert.deepEqual(await t.all(), ['a=3 c1 m2 v2']);
    },
  },
  {
    name: 'txn: all writes of a txn share one revision',
    async run(t) {
      const { header } = await t.ok(methods.txn, { success: [op.put('a', '1'), op.put('b', '1'), op.del('c'), op.put('d', '1')] });
      assert.equal(t.relative(header?.revision), 1);
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1', 'b=1 c1 m1 v1', 'd=1 c1 m1 v1']);
    },
  },
  {
    name: 'txn: a branch whose deletes find nothing takes no revision',
    async run(t) {
      const { header, responses } = await t.ok(methods.txn, { success: [op.del('a'), interval('b', 'z')] });
      assert.equal(t.relative(header?.revision), 0);
      assert.deepEqual(
        responses.map((one) => one.responseDeleteRange?.deleted),
        [0, 0],
      );
    },
  },
  {
    name: 'txn: an empty branch takes no revision though the other writes',
    async run(t) {
      const { header, succeeded } = await t.ok(methods.txn, { compare: [never], success: [op.put('a', '1')] });
      assert.deepEqual([succeeded, t.relative(header?.revision)], [false, 0]);
    },
  },
  {
    name: 'txn: ranges see the earlier writes of their branch and not the later ones',
    async run(t) {
      await t.write('a=1');
      const { responses } = await t.txn([], [op.get('b'), op.put('b', '1'), op.get('b'), op.del('a'), op.get('a')]);
      assert.deepEqual(responses[0]?.range, { kvs: [], count: 0, more: false });
      assert.deepEqual(responses[2]?.range, { kvs: ['b=1 c2 m2 v1'], count: 1, more: false });
      assert.deepEqual(responses[4]?.range, { kvs: [], count: 0, more: false });
    },
  },
  {
    name: 'txn: a range over several keys merges earlier writes with the store, in key order',
    async run(t) {
      await t.write('a=1', 'c=1', 'e=1');
      const { responses } = await t.txn(
        [],
        [op.put('b', '2'), op.put('c', '2'), op.del('e'), op.put('f', '2'), { requestRange: allKeys() }],
      );
      assert.deepEqual(responses[4]?.range?.kvs, ['a=1 c1 m1 v1', 'b=2 c4 m4 v1', 'c=2 c2 m4 v2', 'f=2 c4 m4 v1']);
    },
  },
  {
    name: 'txn: a range inside a txn takes limit, sort, count_only and filters',
    async run(t) {
      await t.write('a=3', 'b=1', 'c=2');
      const { responses } = await t.txn(
        [],
        [
          { requestRange: { ...allKeys(), limit: 2 } },
          { requestRange: { ...allKeys(), sortTarget: 4, sortOrder: 2 } },
          { requestRange: { ...allKeys(), countOnly: true } },
          { requestRange: { ...allKeys(), minModRevision: t.base + 2 } },
        ],
      );
      assert.deepEqual(
        responses.map((one) => [one.range?.kvs.map((kv) => kv[0]).join(''), one.range?.count, one.range?.more]),
        [
          ['ab', 3, true],
          ['acb', 3, false],
          ['', 3, false],
          ['bc', 3, false],
        ],
      );
    },
  },
  {
    name: 'txn: put with prev_kv and delete with prev_kv give what was there before',
    async run(t) {
      await t.write('a=1', 'b=1', 'c=1');
      const { responses } = await t.txn(
        [],
        [op.put('a', '2', { prevKv: true }), interval('b', 'd', { prevKv: true }), op.put('n', '1', { prevKv: true })],
      );
      assert.deepEqual(responses, [{ put: 'a=1 c1 m1 v1' }, { deleted: 2, prevKvs: ['b=1 c2 m2 v1', 'c=1 c3 m3 v1'] }, { put: '' }]);
    },
  },
  {
    name: 'txn: overlapping deletes count each key once',
    async run(t) {
      await t.write('a=1', 'b=1', 'c=1');
      const { responses } = await t.txn([], [op.del('b', { prevKv: true }), interval('a', 'z', { prevKv: true }), op.del('b')]);
      assert.deepEqual(responses, [
        { deleted: 1, prevKvs: ['b=1 c2 m2 v1'] },
        { deleted: 2, prevKvs: ['a=1 c1 m1 v1', 'c=1 c3 m3 v1'] },
        { deleted: 0, prevKvs: [] },
      ]);
    },
  },
  {
    name: 'txn: ignore_value and ignore_lease work inside a txn',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      await t.txn([], [op.put('a', '', { ignoreValue: true, ignoreLease: true })]);
      assert.deepEqual(await t.all(), [`a=1 c1 m2 v2 l${lease}`]);
      await t.txn([], [op.put('a', '2', { ignoreLease: true })]);
      assert.deepEqual(await t.all(), [`a=2 c1 m3 v3 l${lease}`]);
    },
  },
  {
    name: 'txn: puts attach to leases',
    async run(t) {
      const id = await t.grant();
      await t.txn([], [op.put('a', '1', { lease: id }), op.put('b', '1', { lease: id })]);
      assert.equal((await t.ok(methods.leaseTimeToLive, { id, keys: true })).keys.length, 2);
      await t.txn([], [op.del('a'), op.put('b', '2')]);
      assert.deepEqual((await t.ok(methods.leaseTimeToLive, { id, keys: true })).keys, []);
    },
  },
  {
    name: 'txn: nested: the inner compare decides the inner branch',
    async run(t) {
      await t.write('a=1');
      const answer = await t.txn([value('a', '1')], [op.txn([value('a', '2')], [op.put('b', 'yes')], [op.put('b', 'no')])]);
      assert.deepEqual(answer, { succeeded: true, responses: [{ txn: { succeeded: false, responses: [{ put: '' }] } }] });
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1', 'b=no c2 m2 v1']);
    },
  },
  {
    name: 'txn: nested: compares see the state before any write of the whole txn',
    async run(t) {
      const { responses } = await t.txn([], [op.put('a', '1'), op.txn([version('a', 1)], [], [])]);
      assert.equal(responses[1]?.txn?.succeeded, false);
    },
  },
  {
    name: 'txn: nested: ranges see the writes before them, the outer ones too',
    async run(t) {
      const { responses } = await t.txn([], [op.put('a', '1'), op.txn([], [op.get('a'), op.put('b', '1')]), op.get('b')]);
      assert.deepEqual(responses[1]?.txn?.responses[0]?.range?.kvs, ['a=1 c1 m1 v1']);
      assert.deepEqual(responses[2]?.range?.kvs, ['b=1 c1 m1 v1']);
    },
  },
  {
    name: 'txn: nested: several levels and siblings keep their branches apart',
    async run(t) {
      await t.write('a=1');
      const yes = value('a', '1');
      const answer = await t.txn(
        [yes],
        [
          op.txn([yes], [op.txn([never], [op.put('x', '1')], [op.put('y', '1')])]),
          op.txn([never], [op.put('z', '1')], [op.txn([yes], [op.get('a')])]),
        ],
      );
      assert.deepEqual(answer, {
        succeeded: true,
        responses: [
          { txn: { succeeded: true, responses: [{ txn: { succeeded: false, responses: [{ put: '' }] } }] } },
          {
            txn: {
              succeeded: false,
              responses: [{ txn: { succeeded: true, responses: [{ range: { kvs: ['a=1 c1 m1 v1'], count: 1, more: false } }] } }],
            },
          },
        ],
      });
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1', 'y=1 c2 m2 v1']);
    },
  },
  {
    name: 'txn: nested: an empty nested txn answers that it succeeded',
    async run(t) {
      assert.deepEqual(await t.txn([], [op.txn([], [])]), { succeeded: true, responses: [{ txn: { succeeded: true, responses: [] } }] });
    },
  },
  {
    name: 'txn: nested: a nested txn of ranges only takes no revision',
    async run(t) {
      await t.write('a=1');
      const { header } = await t.ok(methods.txn, { success: [op.txn([], [op.get('a')])] });
      assert.equal(t.relative(header?.revision), 1);
    },
  },
  {
    name: 'txn: a compare on the mod revision swaps once',
    async run(t) {
      const at = await t.put('a', '1');
      const swap = (to: string): Promise<{ succeeded: boolean }> =>
        t.txn([{ key: bytes('a'), target: MOD, result: EQUAL, modRevision: t.base + at }], [op.put('a', to)]);
      const won = await Promise.all(['2', '3', '4', '5'].map((to) => swap(to)));
      assert.equal(won.filter(({ succeeded }) => succeeded).length, 1);
      assert.equal((await t.all())[0]?.endsWith('m2 v2'), true);
    },
  },
  {
    name: 'txn: of serializable ranges only answers as well',
    async run(t) {
      await t.write('a=1');
      const { responses } = await t.txn([value('a', '1')], [op.get('a', { serializable: true })]);
      assert.deepEqual(responses[0]?.range?.kvs, ['a=1 c1 m1 v1']);
    },
  },
  {
    name: 'txn: keys_only inside a txn leaves the value out',
    async run(t) {
      await t.write('a=1');
      const { responses } = await t.txn([], [op.get('a', { keysOnly: true }), op.put('b', '1'), op.get('b', { keysOnly: true })]);
      assert.deepEqual(responses[0]?.range?.kvs, ['a= c1 m1 v1']);
      assert.deepEqual(responses[2]?.range?.kvs, ['b= c2 m2 v1']);
    },
  },
  ...duplicates,
  ...budget,
  ...checks,
  ...state,
];
