import assert from 'node:assert/strict';
import { compareBytes, prefixEnd } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, type Context, methods } from '../context.ts';

/** Keys of one length that differ in their last byte only. */
function keysOf(length: number): readonly Uint8Array[] {
  return [1, 2, 3].map((last) => {
    const key = new Uint8Array(length).fill(0x6b);
    key[length - 1] = last;
    return key;
  });
}

/** A prefix of all keys of all lengths here. */
const shared = new Uint8Array(64).fill(0x6b);
const under = { key: shared, rangeEnd: prefixEnd(shared) };

const lengths: readonly (readonly [name: string, length: number])[] = [
  ['1,977 B', 1977],
  ['1,978 B', 1978],
  ['1,979 B', 1979],
  ['32 KiB', 32 * 1024],
  ['1 MiB', 1024 * 1024],
];

async function keysUnder(t: Context, revision = 0): Promise<readonly Uint8Array[]> {
  const { kvs } = await t.ok(methods.range, { ...under, revision });
  return kvs.map(({ key }) => key);
}

function same(actual: readonly Uint8Array[], expected: readonly Uint8Array[]): void {
  assert.equal(actual.length, expected.length);
  for (const [at, key] of actual.entries())
    assert.ok(Buffer.from(key).equals(Buffer.from(expected[at] ?? [])), `key ${at} of ${actual.length}`);
}

const oneLength: readonly Case[] = lengths.flatMap(([name, length]): Case[] => [
  {
    name: `long keys: ${name}: put, overwrite, read, delete, history`,
    async run(t) {
      const [first, second, third] = keysOf(length);
      assert.ok(first && second && third);
      for (const key of [third, first, second]) await t.ok(methods.put, { key, value: bytes('1') });
      await t.ok(methods.put, { key: second, value: bytes('2') });
      same(await keysUnder(t), [first, second, third]);
      const { kvs } = await t.ok(methods.range, { key: second });
      assert.deepEqual(
        kvs.map((kv) => [kv.createRevision - t.base, kv.modRevision - t.base, kv.version, String(kv.value)]),
        [[3, 4, 2, String(bytes('2'))]],
      );
      const { deleted, prevKvs } = await t.ok(methods.deleteRange, { key: first, prevKv: true });
      assert.equal(deleted, 1);
      same(
        prevKvs.map(({ key }) => key),
        [first],
      );
      same(await keysUnder(t), [second, third]);
      same(await keysUnder(t, t.base + 3), [first, second, third]);
      same(await keysUnder(t, t.base + 1), [third]);
      // Two keys of a megabyte are more than a request may hold.
      if (length < 512 * 1024) assert.equal((await t.range({ key: second, rangeEnd: third })).count, 1);
    },
  },
  {
    name: `long keys: ${name}: watch, lease, txn and compaction`,
    async run(t) {
      const [first, second] = keysOf(length);
      assert.ok(first && second);
      const id = await t.grant();
      using watch = t.watch();
      await watch.create({ ...under, prevKv: true });
      await t.ok(methods.put, { key: first, value: bytes('1'), lease: id });
      await t
        .ok(
          methods.txn,
          {
            compare: [{ key: first, target: 0, result: 0, version: 1 }],
            success: [{ requestPut: { key: second, value: bytes('1'), lease: id } }, { requestRange: { key: first, keysOnly: true } }],
          },
          { timeoutMs: 20_000 },
        )
        .catch((error: unknown) => {
          // Three keys of a megabyte are no request any more.
          if (length < 512 * 1024) throw error;
        });
      const held = (await t.ok(methods.leaseTimeToLive, { id, keys: true })).keys;
      await t.ok(methods.compact, { revision: t.base + 1 });
      await t.ok(methods.leaseRevoke, { id });
      same(await keysUnder(t), []);
      const events: Uint8Array[] = [];
      while (events.length < 2 * held.length) events.push(...(await watch.next()).events.map(({ kv }) => kv?.key ?? new Uint8Array()));
      same(events, [...held.toSorted(compareBytes), ...held.toSorted(compareBytes)]);
    },
  },
]);

export const longKeyCases: readonly Case[] = [
  ...oneLength,
  {
    name: 'long keys: all lengths under one prefix stay in bytewise order',
    async run(t) {
      const keys = lengths.flatMap(([, length]) => [...keysOf(length)]);
      for (const key of [...keys].reverse()) await t.ok(methods.put, { key, value: bytes(`${key.length}`) });
      const sorted = keys.toSorted(compareBytes);
      same(await keysUnder(t), sorted);
      const { kvs, count, more } = await t.ok(methods.range, { ...under, limit: 7 });
      same(
        kvs.map(({ key }) => key),
        sorted.slice(0, 7),
      );
      assert.deepEqual([count, more], [keys.length, true]);
      const descending = await t.ok(methods.range, { ...under, sortOrder: 2, limit: 4 });
      same(
        descending.kvs.map(({ key }) => key),
        sorted.toReversed().slice(0, 4),
      );
    },
  },
  {
    name: 'long keys: bounds of a range fall between long keys that differ late',
    async run(t) {
      const [first, second, third] = keysOf(4000);
      assert.ok(first && second && third);
      for (const key of [first, second, third]) await t.ok(methods.put, { key });
      const between = Buffer.concat([first, new Uint8Array([0])]);
      assert.equal((await t.range({ key: between, rangeEnd: third })).count, 1);
      assert.equal((await t.range({ key: first, rangeEnd: between })).count, 1);
      assert.equal((await t.ok(methods.deleteRange, { key: between, rangeEnd: prefixEnd(shared) })).deleted, 2);
      same(await keysUnder(t), [first]);
    },
  },
  {
    name: 'long keys: a long key and its own prefixes are different keys',
    async run(t) {
      const key = new Uint8Array(5000).fill(0x6b);
      const keys = [64, 1978, 1979, 4999, 5000].map((length) => key.slice(0, length));
      for (const one of keys) await t.ok(methods.put, { key: one, value: bytes(`${one.length}`) });
      same(await keysUnder(t), keys);
      for (const one of keys) {
        const { kvs } = await t.ok(methods.range, { key: one });
        assert.deepEqual(
          kvs.map(({ value }) => Buffer.from(value).toString()),
          [`${one.length}`],
        );
      }
    },
  },
];
