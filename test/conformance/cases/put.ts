import assert from 'node:assert/strict';
import { allKeys, type Init, type PutRequest, type WireErrorKey } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, methods } from '../context.ts';

/** A put that is refused, whatever the store holds: `a` exists with value 1 and no lease. It must leave no trace. */
const refused = (name: string, request: Init<PutRequest>, error: WireErrorKey): Case => ({
  name: `put: ${name}`,
  async run(t) {
    await t.write('a=1');
    await t.fails(methods.put, request, error);
    assert.deepEqual(await t.all(), ['a=1 c1 m1 v1']);
    assert.equal(await t.put('z', ''), 2, 'a refused put takes no revision');
  },
});

export const putCases: readonly Case[] = [
  {
    name: 'put: creates a key at version 1 with equal create and mod revision',
    async run(t) {
      await t.write('a=1');
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1']);
    },
  },
  {
    name: 'put: raises version and mod revision and keeps the create revision',
    async run(t) {
      await t.write('a=1', 'b=1', 'a=2', 'a=3');
      assert.deepEqual(await t.all(), ['a=3 c1 m4 v3', 'b=1 c2 m2 v1']);
    },
  },
  {
    name: 'put: an equal value still makes a new revision and version',
    async run(t) {
      await t.write('a=1', 'a=1');
      assert.deepEqual(await t.all(), ['a=1 c1 m2 v2']);
    },
  },
  {
    name: 'put: after a delete the key begins anew',
    async run(t) {
      await t.write('a=1', 'a=2', '-a', 'a=3');
      assert.deepEqual(await t.all(), ['a=3 c4 m4 v1']);
    },
  },
  {
    name: 'put: an empty value is a value',
    async run(t) {
      await t.write('a=');
      assert.deepEqual(await t.range({ key: bytes('a') }), { kvs: ['a= c1 m1 v1'], count: 1, more: false });
    },
  },
  {
    name: 'put: prev_kv gives the pair that was replaced',
    async run(t) {
      await t.write('a=1', 'a=2');
      const { prevKv } = await t.ok(methods.put, { key: bytes('a'), value: bytes('3'), prevKv: true });
      assert.equal(prevKv && t.shownKv(prevKv), 'a=2 c1 m2 v2');
    },
  },
  {
    name: 'put: prev_kv of a new key gives nothing',
    async run(t) {
      assert.equal((await t.ok(methods.put, { key: bytes('a'), prevKv: true })).prevKv, undefined);
    },
  },
  {
    name: 'put: without prev_kv nothing is given',
    async run(t) {
      await t.write('a=1');
      assert.equal((await t.ok(methods.put, { key: bytes('a') })).prevKv, undefined);
    },
  },
  {
    name: 'put: prev_kv of a deleted key gives nothing',
    async run(t) {
      await t.write('a=1', '-a');
      assert.equal((await t.ok(methods.put, { key: bytes('a'), prevKv: true })).prevKv, undefined);
    },
  },
  {
    name: 'put: ignore_value keeps the value and counts as a write',
    async run(t) {
      await t.write('a=1');
      await t.ok(methods.put, { key: bytes('a'), ignoreValue: true });
      assert.deepEqual(await t.all(), ['a=1 c1 m2 v2']);
    },
  },
  {
    name: 'put: ignore_value may set a lease',
    async run(t) {
      const lease = await t.grant();
      await t.write('a=1');
      await t.ok(methods.put, { key: bytes('a'), ignoreValue: true, lease });
      assert.deepEqual(await t.all(), [`a=1 c1 m2 v2 l${lease}`]);
    },
  },
  {
    name: 'put: ignore_value without a lease detaches the lease',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      await t.ok(methods.put, { key: bytes('a'), ignoreValue: true });
      assert.deepEqual(await t.all(), ['a=1 c1 m2 v2']);
    },
  },
  {
    name: 'put: ignore_lease keeps the lease',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      await t.ok(methods.put, { key: bytes('a'), value: bytes('2'), ignoreLease: true });
      assert.deepEqual(await t.all(), [`a=2 c1 m2 v2 l${lease}`]);
      assert.deepEqual((await t.ok(methods.leaseTimeToLive, { id: lease, keys: true })).keys.map(String), [String(bytes('a'))]);
    },
  },
  {
    name: 'put: ignore_value and ignore_lease together only touch the key',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      await t.ok(methods.put, { key: bytes('a'), ignoreValue: true, ignoreLease: true });
      assert.deepEqual(await t.all(), [`a=1 c1 m2 v2 l${lease}`]);
    },
  },
  {
    name: 'put: ignore_value with prev_kv gives the pair as it was',
    async run(t) {
      await t.write('a=1');
      const { prevKv } = await t.ok(methods.put, { key: bytes('a'), ignoreValue: true, prevKv: true });
      assert.equal(prevKv && t.shownKv(prevKv), 'a=1 c1 m1 v1');
    },
  },
  {
    name: 'put: without a lease detaches the lease the key had',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      await t.put('a', '2');
      assert.deepEqual(await t.all(), ['a=2 c1 m2 v2']);
      assert.deepEqual((await t.ok(methods.leaseTimeToLive, { id: lease, keys: true })).keys, []);
    },
  },
  {
    name: 'put: with another lease moves the key to it',
    async run(t) {
      const first = await t.grant();
      const second = await t.grant();
      await t.put('a', '1', first);
      await t.put('a', '2', second);
      assert.deepEqual((await t.ok(methods.leaseTimeToLive, { id: first, keys: true })).keys, []);
      assert.equal((await t.ok(methods.leaseTimeToLive, { id: second, keys: true })).keys.length, 1);
      await t.ok(methods.leaseRevoke, { id: first });
      assert.deepEqual(await t.all(), [`a=2 c1 m2 v2 l${second}`]);
    },
  },
  {
    name: 'put: on a key with a lease, prev_kv tells the old lease',
    async run(t) {
      const lease = await t.grant();
      await t.put('a', '1', lease);
      const { prevKv } = await t.ok(methods.put, { key: bytes('a'), prevKv: true });
      assert.equal(prevKv && t.shownKv(prevKv), `a=1 c1 m1 v1 l${lease}`);
    },
  },
  refused('an empty key', { value: bytes('1') }, 'key-empty'),
  refused('ignore_value with a value', { key: bytes('a'), value: bytes('2'), ignoreValue: true }, 'value-provided'),
  refused('ignore_lease with a lease', { key: bytes('a'), lease: 5n, ignoreLease: true }, 'lease-provided'),
  refused('ignore_value on a missing key', { key: bytes('x'), ignoreValue: true }, 'key-not-found'),
  refused('ignore_lease on a missing key', { key: bytes('x'), ignoreLease: true }, 'key-not-found'),
  refused('both ignore flags on a missing key', { key: bytes('x'), ignoreValue: true, ignoreLease: true }, 'key-not-found'),
  refused('an unknown lease', { key: bytes('a'), lease: 0x7eadn }, 'lease-not-found'),
  refused('a negative lease', { key: bytes('a'), lease: -1n }, 'lease-not-found'),
  refused('an empty key is told before a value with ignore_value', { value: bytes('1'), ignoreValue: true }, 'key-empty'),
  refused(
    'a value with ignore_value is told before a lease with ignore_lease',
    { key: bytes('a'), value: bytes('2'), ignoreValue: true, lease: 5n, ignoreLease: true },
    'value-provided',
  ),
  refused('an unknown lease is told before a missing key', { key: bytes('x'), ignoreValue: true, lease: 0x7eadn }, 'lease-not-found'),
  {
    name: 'put: a revoked lease is unknown',
    async run(t) {
      const lease = await t.grant();
      await t.ok(methods.leaseRevoke, { id: lease });
      await t.fails(methods.put, { key: bytes('a'), lease }, 'lease-not-found');
    },
  },
  {
    name: 'put: ignore_value on a deleted key is key not found',
    async run(t) {
      await t.write('a=1', '-a');
      await t.fails(methods.put, { key: bytes('a'), ignoreValue: true }, 'key-not-found');
    },
  },
  {
    name: 'put: a key of one zero byte is an ordinary key',
    async run(t) {
      await t.ok(methods.put, { key: new Uint8Array([0]), value: bytes('1') });
      assert.equal((await t.range(allKeys())).count, 1);
    },
  },
];
