import assert from 'node:assert/strict';
import type { Case } from '../case.ts';
import { bytes, methods, op } from '../context.ts';

export const headerCases: readonly Case[] = [
  {
    name: 'header: a fresh store is at revision 1 and the first write makes 2',
    fresh: true,
    async run(t) {
      assert.equal((await t.ok(methods.range, { key: bytes('a') })).header?.revision, 1);
      assert.equal((await t.ok(methods.put, { key: bytes('a') })).header?.revision, 2);
    },
  },
  {
    name: 'header: put, range, delete, txn and compact carry one cluster id, one member id, the raft term and the revision',
    async run(t) {
      const headers = [
        (await t.ok(methods.put, { key: bytes('a') })).header,
        (await t.ok(methods.range, { key: bytes('a') })).header,
        (await t.ok(methods.deleteRange, { key: bytes('a') })).header,
        (await t.ok(methods.txn, {})).header,
        (await t.ok(methods.compact, { revision: t.base + 1 })).header,
      ];
      assert.deepEqual(
        headers.map((header) => t.relative(header?.revision)),
        [1, 1, 2, 2, 2],
      );
      for (const header of headers) {
        assert.notEqual(header?.clusterId, 0n);
        assert.equal(header?.clusterId, headers[0]?.clusterId);
        assert.notEqual(header?.memberId, 0n);
        assert.equal(header?.memberId, headers[0]?.memberId);
        assert.ok((header?.raftTerm ?? 0) > 0);
        assert.equal(header?.raftTerm, headers[0]?.raftTerm);
      }
    },
  },
  {
    name: 'header: the answers of Lease, Status and Alarm carry all four fields',
    since: '3.5',
    async run(t) {
      const id = await t.grant();
      const headers = [
        (await t.ok(methods.leaseTimeToLive, { id })).header,
        (await t.ok(methods.leaseLeases, {})).header,
        (await t.ok(methods.leaseRevoke, { id })).header,
        (await t.ok(methods.leaseGrant, { ttl: 10 })).header,
        (await t.ok(methods.status, {})).header,
        (await t.ok(methods.alarm, {})).header,
      ];
      for (const header of headers) {
        assert.equal(t.relative(header?.revision), 0);
        assert.ok(header !== undefined && header.clusterId !== 0n && header.memberId !== 0n && header.raftTerm > 0);
      }
    },
  },
  {
    name: 'header: MemberList fills the ids and the term and leaves the revision at 0',
    async run(t) {
      const { header } = await t.ok(methods.memberList, {});
      assert.ok(header !== undefined && header.clusterId !== 0n && header.memberId !== 0n && header.raftTerm > 0);
      assert.equal(header.revision, 0);
    },
  },
  {
    name: 'header: a read of an old revision still tells the current revision',
    async run(t) {
      await t.write('a=1', 'a=2', 'a=3');
      const { header } = await t.ok(methods.range, { key: bytes('a'), revision: t.base + 1 });
      assert.equal(t.relative(header?.revision), 3);
    },
  },
  {
    name: 'header: the header of a keepalive carries all four fields',
    async run(t) {
      const id = await t.grant();
      using stream = t.client.stream(methods.leaseKeepAlive);
      stream.send({ id });
      const { header } = await stream.next();
      assert.equal(t.relative(header?.revision), 0);
      assert.ok(header !== undefined && header.clusterId !== 0n && header.memberId !== 0n && header.raftTerm > 0);
    },
  },
  {
    name: 'header: sub-responses of a txn carry the revision only, a nested txn response an empty header',
    async run(t) {
      const { responses } = await t.ok(methods.txn, {
        success: [op.del('b'), op.put('a', '1'), op.get('a'), op.del('b'), op.txn([], [op.get('a')])],
      });
      const only = { clusterId: 0n, memberId: 0n, raftTerm: 0 };
      assert.deepEqual(responses[0]?.responseDeleteRange?.header, { ...only, revision: t.base }, 'a delete of nothing before any write');
      assert.deepEqual(responses[1]?.responsePut?.header, { ...only, revision: t.base + 1 });
      assert.deepEqual(responses[2]?.responseRange?.header, { ...only, revision: t.base + 1 });
      assert.deepEqual(responses[3]?.responseDeleteRange?.header, { ...only, revision: t.base + 1 }, 'a delete of nothing after a write');
      assert.deepEqual(responses[4]?.responseTxn?.header, { ...only, revision: 0 });
      assert.deepEqual(responses[4]?.responseTxn?.responses[0]?.responseRange?.header, { ...only, revision: t.base + 1 });
    },
  },
  {
    name: 'header: a txn of ranges only carries the current revision in its sub-responses',
    async run(t) {
      await t.write('a=1');
      const { header, responses } = await t.ok(methods.txn, { success: [op.get('a')] });
      assert.equal(t.relative(header?.revision), 1);
      assert.equal(t.relative(responses[0]?.responseRange?.header?.revision), 1);
    },
  },
  {
    name: 'header: the revision grows by exactly one for each write and by none for a read',
    async run(t) {
      assert.equal(await t.put('a', '1'), 1);
      await t.all();
      assert.equal(await t.put('a', '1'), 2);
      assert.equal(await t.put('b', '1'), 3);
    },
  },
];
