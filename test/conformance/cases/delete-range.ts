import assert from 'node:assert/strict';
import { allKeys, type DeleteRangeRequest, type Init } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, methods } from '../context.ts';

const zero = new Uint8Array([0]);

/** One delete on the keys a, b, c and d, and the keys it leaves. */
const row = (name: string, request: Init<DeleteRangeRequest>, left: string): Case => ({
  name: `delete: ${name}`,
  async run(t) {
    await t.write('a=1', 'b=1', 'c=1', 'd=1');
    const { deleted, prevKvs, header } = await t.ok(methods.deleteRange, request);
    const kvs = await t.all();
    assert.equal(kvs.map((kv) => kv[0]).join(''), left);
    assert.equal(deleted, 4 - left.length);
    assert.deepEqual(prevKvs, []);
    assert.equal(t.relative(header?.revision), left.length === 4 ? 4 : 5);
  },
});

export const deleteRangeCases: readonly Case[] = [
  row('one key', { key: bytes('b') }, 'acd'),
  row('a missing key deletes nothing and takes no revision', { key: bytes('x') }, 'abcd'),
  row('an interval', { key: bytes('b'), rangeEnd: bytes('d') }, 'ad'),
  row('an interval without keys', { key: bytes('bb'), rangeEnd: bytes('c') }, 'abcd'),
  row('an interval whose end equals its start', { key: bytes('b'), rangeEnd: bytes('b') }, 'abcd'),
  row('an interval whose end lies before its start', { key: bytes('c'), rangeEnd: bytes('a') }, 'abcd'),
  row('a range end of one zero byte deletes from the start on', { key: bytes('c'), rangeEnd: zero }, 'ab'),
  row('every key in one revision', allKeys(), ''),
  {
    name: 'delete: prev_kv gives the deleted pairs in key order',
    async run(t) {
      await t.write('c=1', 'a=1', 'b=1', 'a=2');
      const { deleted, prevKvs } = await t.ok(methods.deleteRange, { key: bytes('a'), rangeEnd: bytes('c'), prevKv: true });
      assert.equal(deleted, 2);
      assert.deepEqual(
        prevKvs.map((kv) => t.shownKv(kv)),
        ['a=2 c2 m4 v2', 'b=1 c3 m3 v1'],
      );
    },
  },
  {
    name: 'delete: prev_kv of nothing is empty',
    async run(t) {
      const { deleted, prevKvs } = await t.ok(methods.deleteRange, { key: bytes('a'), prevKv: true });
      assert.deepEqual([deleted, prevKvs], [0, []]);
    },
  },
  {
    name: 'delete: a second delete finds nothing',
    async run(t) {
      await t.write('a=1');
      assert.equal((await t.ok(methods.deleteRange, { key: bytes('a') })).deleted, 1);
      const { deleted, header } = await t.ok(methods.deleteRange, { key: bytes('a') });
      assert.deepEqual([deleted, t.relative(header?.revision)], [0, 2]);
    },
  },
  {
    name: 'delete: detaches the key from its lease',
    async run(t) {
      const id = await t.grant();
      await t.put('a', '1', id);
      await t.ok(methods.deleteRange, { key: bytes('a') });
      assert.deepEqual((await t.ok(methods.leaseTimeToLive, { id, keys: true })).keys, []);
      await t.put('a', '2');
      await t.ok(methods.leaseRevoke, { id });
      assert.deepEqual(await t.all(), ['a=2 c3 m3 v1']);
    },
  },
  {
    name: 'delete: an empty key is refused',
    async run(t) {
      await t.fails(methods.deleteRange, {}, 'key-empty');
      await t.fails(methods.deleteRange, { rangeEnd: bytes('z') }, 'key-empty');
    },
  },
  {
    name: 'delete: history stays readable',
    async run(t) {
      await t.write('a=1', 'b=1');
      await t.ok(methods.deleteRange, allKeys());
      assert.deepEqual((await t.range({ ...allKeys(), revision: t.base + 2 })).kvs, ['a=1 c1 m1 v1', 'b=1 c2 m2 v1']);
    },
  },
];
