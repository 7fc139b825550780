import assert from 'node:assert/strict';
import { allKeys, type LeaseKeepAliveRequest, type LeaseKeepAliveResponse } from '@conclave/protocol';
import type { RawStream } from '@conclave/testkit';
import type { Case } from '../case.ts';
import { bytes, type Context, methods, op } from '../context.ts';

/** What a grant with that TTL answers. */
const granted = (name: string, asked: number, ttl: number): Case => ({
  name: `lease: grant: ${name}`,
  async run(t) {
    const response = await t.ok(methods.leaseGrant, { ttl: asked });
    assert.equal(response.ttl, ttl);
    assert.ok(response.id > 0n && response.id < 1n << 63n, 'a chosen id is a positive int63');
    const { grantedTtl } = await t.ok(methods.leaseTimeToLive, { id: response.id });
    assert.equal(grantedTtl, ttl);
  },
});

const grants: readonly Case[] = [
  granted('tells the id and the TTL', 60, 60),
  granted('a TTL of 0 is raised to the minimum', 0, 2),
  granted('a TTL of 1 is raised to the minimum', 1, 2),
  granted('a negative TTL is raised to the minimum', -5, 2),
  granted('a TTL of 2 is the minimum', 2, 2),
  granted('the largest TTL', 9_000_000_000, 9_000_000_000),
  {
    name: 'lease: grant: a TTL beyond the largest is refused',
    async run(t) {
      await t.fails(methods.leaseGrant, { ttl: 9_000_000_001 }, 'lease-ttl-too-large');
      await t.fails(methods.leaseGrant, { ttl: Number.MAX_SAFE_INTEGER }, 'lease-ttl-too-large');
      assert.deepEqual((await t.ok(methods.leaseLeases, {})).leases, []);
    },
  },
  {
    name: 'lease: grant: an id may be chosen',
    async run(t) {
      assert.equal((await t.ok(methods.leaseGrant, { ttl: 60, id: 4711n })).id, 4711n);
      assert.equal((await t.ok(methods.leaseGrant, { ttl: 60, id: (1n << 63n) - 1n })).id, (1n << 63n) - 1n);
    },
  },
  {
    name: 'lease: grant: a negative id is taken as it is',
    async run(t) {
      assert.equal((await t.ok(methods.leaseGrant, { ttl: 60, id: -3n })).id, -3n);
      await t.put('a', '1', -3n);
      assert.deepEqual(await t.all(), ['a=1 c1 m1 v1 l-3']);
      await t.ok(methods.leaseRevoke, { id: -3n });
      assert.deepEqual(await t.all(), []);
    },
  },
  {
    name: 'lease: grant: an id in use is refused',
    async run(t) {
      await t.grant(60, 4711n);
      await t.fails(methods.leaseGrant, { ttl: 60, id: 4711n }, 'lease-exists');
    },
  },
  {
    name: 'lease: grant: a TTL too large is told before an id in use',
    async run(t) {
      await t.grant(60, 4711n);
      await t.fails(methods.leaseGrant, { ttl: 9_000_000_001, id: 4711n }, 'lease-ttl-too-large');
    },
  },
  {
    name: 'lease: grant: the id of a revoked lease may be used again',
    async run(t) {
      await t.grant(60, 4711n);
      await t.ok(methods.leaseRevoke, { id: 4711n });
      assert.equal(await t.grant(60, 4711n), 4711n);
    },
  },
  {
    name: 'lease: grant: chosen ids differ',
    async run(t) {
      const ids = await Promise.all(Array.from({ length: 50 }, () => t.grant()));
      assert.equal(new Set(ids).size, 50);
    },
  },
  {
    name: 'lease: grant, revoke without keys and timetolive take no revision',
    async run(t) {
      const id = await t.grant();
      await t.ok(methods.leaseTimeToLive, { id });
      assert.equal(t.relative((await t.ok(methods.leaseRevoke, { id })).header?.revision), 0);
      assert.equal(await t.put('a', '1'), 1);
    },
  },
];

const revokes: readonly Case[] = [
  {
    name: 'lease: revoke: deletes the attached keys in one revision',
    async run(t) {
      const id = await t.grant();
      await t.put('b', '1', id);
      await t.put('a', '1', id);
      await t.put('c', '1');
      assert.equal(t.relative((await t.ok(methods.leaseRevoke, { id })).header?.revision), 4);
      assert.deepEqual(await t.all(), ['c=1 c3 m3 v1']);
    },
  },
  {
    name: 'lease: revoke: its deletes are one response of a watch, in key order',
    async run(t) {
      const id = await t.grant();
      for (const key of ['b', 'c', 'a', 'aa']) await t.put(key, '1', id);
      using watch = t.watch();
      await watch.create({ ...allKeys(), prevKv: true });
      await t.ok(methods.leaseRevoke, { id });
      const { events } = await watch.next();
      assert.deepEqual(
        events.map((event) => t.shownEvent(event)),
        [
          `DELETE a= c0 m5 v0 <- a=1 c3 m3 v1 l${id}`,
          `DELETE aa= c0 m5 v0 <- aa=1 c4 m4 v1 l${id}`,
          `DELETE b= c0 m5 v0 <- b=1 c1 m1 v1 l${id}`,
          `DELETE c= c0 m5 v0 <- c=1 c2 m2 v1 l${id}`,
        ],
      );
    },
  },
  {
    name: 'lease: revoke: an unknown lease is refused',
    async run(t) {
      await t.fails(methods.leaseRevoke, { id: 0x7eadn }, 'lease-not-found');
      await t.fails(methods.leaseRevoke, {}, 'lease-not-found');
    },
  },
  {
    name: 'lease: revoke: twice is refused the second time',
    async run(t) {
      const id = await t.grant();
      await t.ok(methods.leaseRevoke, { id });
      await t.fails(methods.leaseRevoke, { id }, 'lease-not-found');
    },
  },
  {
    name: 'lease: revoke: keys that moved to another lease or were deleted stay as they are',
    async run(t) {
      const id = await t.grant();
      const other = await t.grant();
      await t.put('a', '1', id);
      await t.put('b', '1', id);
      await t.put('c', '1', id);
      await t.put('a', '2', other);
      await t.put('b', '2');
      await t.write('-c');
      assert.equal(t.relative((await t.ok(methods.leaseRevoke, { id })).header?.revision), 6);
      assert.deepEqual(await t.all(), [`a=2 c1 m4 v2 l${other}`, 'b=2 c2 m5 v2']);
    },
  },
  {
    name: 'lease: revoke: the keys are readable at the revision before',
    async run(t) {
      const id = await t.grant();
      await t.put('a', '1', id);
      await t.ok(methods.leaseRevoke, { id });
      assert.deepEqual((await t.range({ key: bytes('a'), revision: t.base + 1 })).kvs, [`a=1 c1 m1 v1 l${id}`]);
    },
  },
  {
    name: 'lease: revoke: a new lease with the old id does not own the keys of the first',
    async run(t) {
      await t.grant(60, 4711n);
      await t.put('a', '1', 4711n);
      await t.ok(methods.leaseRevoke, { id: 4711n });
      await t.grant(60, 4711n);
      assert.deepEqual((await t.ok(methods.leaseTimeToLive, { id: 4711n, keys: true })).keys, []);
    },
  },
];

const lists: readonly Case[] = [
  {
    name: 'lease: timetolive: tells the granted and the remaining TTL and no keys',
    async run(t) {
      const id = await t.grant(60);
      await t.put('a', '1', id);
      const { header, ttl, ...rest } = await t.ok(methods.leaseTimeToLive, { id });
      assert.deepEqual(rest, { id, grantedTtl: 60, keys: [] });
      assert.ok(ttl >= 57 && ttl <= 60, `${ttl} s remain`);
      assert.equal(t.relative(header?.revision), 1);
    },
  },
  {
    name: 'lease: timetolive: keys lists the attached keys',
    async run(t) {
      const id = await t.grant();
      for (const key of ['b', 'a', 'c']) await t.put(key, '1', id);
      await t.write('-c');
      const { keys } = await t.ok(methods.leaseTimeToLive, { id, keys: true });
      assert.deepEqual(keys.map((key) => Buffer.from(key).toString()).sort(), ['a', 'b']);
    },
  },
  {
    name: 'lease: timetolive: of an unknown lease is -1 and no error',
    async run(t) {
      const { header, ...rest } = await t.ok(methods.leaseTimeToLive, { id: 0x7eadn, keys: true });
      assert.deepEqual(rest, { id: 0x7eadn, ttl: -1, grantedTtl: 0, keys: [] });
      assert.equal(t.relative(header?.revision), 0);
    },
  },
  {
    name: 'lease: timetolive: of a revoked lease is -1',
    async run(t) {
      const id = await t.grant();
      await t.ok(methods.leaseRevoke, { id });
      assert.equal((await t.ok(methods.leaseTimeToLive, { id })).ttl, -1);
    },
  },
  {
    name: 'lease: leases: lists the ids of all leases',
    async run(t) {
      assert.deepEqual((await t.ok(methods.leaseLeases, {})).leases, []);
      const ids = [await t.grant(100), await t.grant(50), await t.grant(75)];
      await t.ok(methods.leaseRevoke, { id: ids[1] ?? 0n });
      const { leases } = await t.ok(methods.leaseLeases, {});
      assert.deepEqual(new Set(leases.map(({ id }) => id)), new Set([ids[0], ids[2]]));
    },
  },
  {
    name: 'lease: leases: the one that expires first comes first',
    async run(t) {
      const ids = [await t.grant(100), await t.grant(50), await t.grant(75)];
      const { leases } = await t.ok(methods.leaseLeases, {});
      assert.deepEqual(
        leases.map(({ id }) => id),
        [ids[1], ids[2], ids[0]],
      );
    },
  },
];

const open = (t: Context): RawStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse> => t.client.stream(methods.leaseKeepAlive);

/** Waits, by asking, until the server has let the lease expire. */
async function untilGone(t: Context, id: bigint): Promise<void> {
  const deadline = performance.now() + 12_000;
  while ((await t.ok(methods.leaseTimeToLive, { id })).ttl !== -1) {
    assert.ok(performance.now() < deadline, 'the lease expires');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const keepAlives: readonly Case[] = [
  {
    name: 'lease: keepalive: answers every request, in order, with the granted TTL',
    async run(t) {
      const first = await t.grant(60);
      const second = await t.grant(30);
      using stream = open(t);
      stream.send({ id: first });
      stream.send({ id: second });
      stream.send({ id: first });
      const answers = [await stream.next(), await stream.next(), await stream.next()];
      assert.deepEqual(
        answers.map(({ id, ttl }) => [id, ttl]),
        [
          [first, 60],
          [second, 30],
          [first, 60],
        ],
      );
    },
  },
  {
    name: 'lease: keepalive: of an unknown lease answers a TTL of 0 and the stream goes on',
    async run(t) {
      const id = await t.grant();
      using stream = open(t);
      stream.send({ id: 0x7eadn });
      stream.send({ id });
      const answers = [await stream.next(), await stream.next()];
      assert.deepEqual(
        answers.map((answer) => [answer.id, answer.ttl]),
        [
          [0x7eadn, 0],
          [id, 60],
        ],
      );
    },
  },
  {
    name: 'lease: keepalive: of a revoked lease answers a TTL of 0',
    async run(t) {
      const id = await t.grant();
      using stream = open(t);
      stream.send({ id });
      assert.equal((await stream.next()).ttl, 60);
      await t.ok(methods.leaseRevoke, { id });
      stream.send({ id });
      assert.equal((await stream.next()).ttl, 0);
    },
  },
  {
    name: 'lease: keepalive: half-closing the stream ends it with OK after the last answer',
    async run(t) {
      const id = await t.grant();
      using stream = open(t);
      stream.send({ id });
      stream.halfClose();
      assert.equal((await stream.next()).ttl, 60);
      assert.equal((await stream.ended).code, 0);
    },
  },
  {
    name: 'lease: keepalive: takes no revision and keeps the attached keys',
    async run(t) {
      const id = await t.grant();
      await t.put('a', '1', id);
      using stream = open(t);
      stream.send({ id });
      assert.equal(t.relative((await stream.next()).header?.revision), 1);
      assert.deepEqual(await t.all(), [`a=1 c1 m1 v1 l${id}`]);
    },
  },
  {
    name: 'lease: keepalive: keeps a lease past its first TTL',
    async run(t) {
      const id = await t.grant(2);
      await t.put('a', '1', id);
      using stream = open(t);
      const began = performance.now();
      while (performance.now() - began < 3000) {
        stream.send({ id });
        assert.equal((await stream.next()).ttl, 2);
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      assert.deepEqual(await t.all(), [`a=1 c1 m1 v1 l${id}`]);
    },
  },
];

const expiry: readonly Case[] = [
  {
    name: 'lease: expiry: not before the TTL, and it deletes the keys in one revision that watchers see',
    async run(t) {
      const began = performance.now();
      const id = await t.grant(2);
      await t.put('b', '1', id);
      await t.put('a', '1', id);
      using watch = t.watch();
      await watch.create(allKeys());
      const { events, header } = await watch.next(12_000);
      assert.ok(performance.now() - began >= 2000, 'the lease lived its TTL');
      assert.deepEqual(
        events.map((event) => t.shownEvent(event)),
        ['DELETE a= c0 m3 v0', 'DELETE b= c0 m3 v0'],
      );
      assert.equal(t.relative(header?.revision), 3);
      assert.equal((await t.ok(methods.leaseTimeToLive, { id })).ttl, -1);
    },
  },
  {
    name: 'lease: expiry: takes what is attached then, by put or by txn, nothing else, and no revision where nothing is attached',
    async run(t) {
      const [bare, detached, inTxn] = [await t.grant(2), await t.grant(2), await t.grant(2)];
      await t.put('a', '1', detached);
      await t.put('a', '2');
      await t.txn([], [op.put('b', '1', { lease: inTxn }), op.txn([], [op.put('c', '1', { lease: inTxn })]), op.put('d', '1')]);
      for (const id of [bare, detached, inTxn]) await untilGone(t, id);
      assert.deepEqual(await t.all(), ['a=2 c1 m2 v2', 'd=1 c3 m3 v1']);
      assert.equal(await t.put('z', ''), 5, 'one revision for one lease with keys');
      await t.fails(methods.put, { key: bytes('a'), lease: bare }, 'lease-not-found');
      await t.fails(methods.leaseRevoke, { id: bare }, 'lease-not-found');
      assert.deepEqual((await t.ok(methods.leaseLeases, {})).leases, []);
      using stream = open(t);
      stream.send({ id: bare });
      assert.equal((await stream.next()).ttl, 0);
    },
  },
];

export const leaseCases: readonly Case[] = [...grants, ...revokes, ...lists, ...keepAlives, ...expiry];
