import assert from 'node:assert/strict';
import type { MemberAddResponse } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { type Context, methods } from '../context.ts';

// What a cluster of one member shows of it: a learner that never starts changes no quorum. What needs more is in test/interop/cluster.proof.ts.

const peerUrls = ['http://127.0.0.1:9'];

async function addLearner(t: Context, urls: readonly string[] = peerUrls): Promise<MemberAddResponse> {
  return t.ok(methods.memberAdd, { peerUrls: [...urls], isLearner: true });
}

async function selfOf(t: Context): Promise<bigint> {
  return (await t.ok(methods.status, {})).header?.memberId ?? 0n;
}

const listed: readonly Case[] = [
  {
    name: 'members: the list holds the one member, started and no learner',
    async run(t) {
      const { members: list, header } = await t.ok(methods.memberList, {});
      assert.equal(list.length, 1);
      const [member] = list;
      assert.equal(member?.id, header?.memberId);
      assert.equal(member?.name, 'default');
      assert.equal(member?.isLearner, false);
      assert.equal(member?.peerUrls.length, 1);
    },
  },
  {
    name: 'members: the client URL is the one that was dialled',
    needs: 'socket',
    async run(t) {
      const { members: list } = await t.ok(methods.memberList, {});
      assert.deepEqual(list[0]?.clientUrls, [`http://${t.server.address}`]);
    },
  },
  {
    name: 'members: the linearizable list is the same',
    async run(t) {
      const local = await t.ok(methods.memberList, { linearizable: false });
      const linearizable = await t.ok(methods.memberList, { linearizable: true });
      assert.deepEqual(linearizable.members, local.members);
    },
  },
  {
    name: 'members: a founder leads in term 2, and its name and the cluster version are entries 3 and 4',
    since: '3.5',
    fresh: true,
    async run(t) {
      let at = await t.ok(methods.status, {});
      for (let asked = 0; at.raftIndex < 4 && asked < 1000; asked++) at = await t.ok(methods.status, {});
      assert.deepEqual([at.raftTerm, at.raftIndex], [2, 4]);
    },
  },
];

const added: readonly Case[] = [
  {
    name: 'members: an added learner is told and listed without a name, with its URLs in order',
    fresh: true,
    async run(t) {
      const before = await t.ok(methods.memberList, {});
      const { member, members, header } = await addLearner(t, ['http://127.0.0.1:9', 'http://127.0.0.1:10']);
      const expected = { name: '', peerUrls: ['http://127.0.0.1:10', 'http://127.0.0.1:9'], clientUrls: [], isLearner: true };
      assert.deepEqual(member, { id: member?.id, ...expected });
      assert.notEqual(member.id, 0n);
      assert.deepEqual(header?.revision, 0);
      const all = [...before.members, member].sort((a, b) => (a.id < b.id ? -1 : 1));
      assert.deepEqual(members, all);
      assert.deepEqual((await t.ok(methods.memberList, { linearizable: true })).members, all);
    },
  },
  {
    name: 'members: a learner is no part of the quorum',
    fresh: true,
    async run(t) {
      await addLearner(t);
      await t.write('a=1');
      assert.deepEqual(await t.all(), (await t.range({ key: new TextEncoder().encode('a') })).kvs);
    },
  },
  {
    name: 'members: there is one learner at most',
    fresh: true,
    async run(t) {
      await addLearner(t);
      await t.fails(methods.memberAdd, { peerUrls: ['http://127.0.0.1:10'], isLearner: true }, 'too-many-learners');
    },
  },
  {
    name: 'members: a peer URL belongs to one member',
    fresh: true,
    async run(t) {
      const [self] = (await t.ok(methods.memberList, {})).members;
      const own = self?.peerUrls ?? [];
      await t.fails(methods.memberAdd, { peerUrls: own, isLearner: true }, 'peer-urls-exist');
      await t.fails(methods.memberAdd, { peerUrls: own }, 'peer-urls-exist');
      const { member } = await addLearner(t);
      await t.fails(methods.memberUpdate, { id: member?.id ?? 0n, peerUrls: own }, 'peer-urls-exist');
      await t.ok(methods.memberUpdate, { id: member?.id ?? 0n, peerUrls });
    },
  },
  {
    name: 'members: URLs that are none are refused',
    async run(t) {
      for (const url of ['nonsense', 'ftp://127.0.0.1:9', 'http://127.0.0.1', 'http://127.0.0.1:9/', 'http://127.0.0.1:9/path']) {
        await t.fails(methods.memberAdd, { peerUrls: [url] }, 'member-urls-invalid');
      }
      await t.fails(methods.memberAdd, {}, 'member-urls-invalid');
    },
  },
];

const changed: readonly Case[] = [
  {
    name: 'members: an unknown member can be neither removed nor updated nor promoted',
    async run(t) {
      await t.fails(methods.memberRemove, { id: 0xbadn }, 'member-not-found');
      await t.fails(methods.memberUpdate, { id: 0xbadn, peerUrls }, 'member-not-found');
      await t.fails(methods.memberPromote, { id: 0xbadn }, 'member-not-found');
    },
  },
  {
    name: 'members: new URLs are taken as they are given',
    fresh: true,
    async run(t) {
      const { member } = await addLearner(t);
      const urls = ['http://127.0.0.1:11', 'http://127.0.0.1:10'];
      const { members, header } = await t.ok(methods.memberUpdate, { id: member?.id ?? 0n, peerUrls: urls });
      assert.deepEqual(members.find(({ id }) => id === member?.id)?.peerUrls, urls);
      assert.equal(header?.revision, 0);
    },
  },
  {
    name: 'members: a learner stays one when its URLs change',
    since: '3.6.12',
    fresh: true,
    async run(t) {
      const { member } = await addLearner(t);
      const { members } = await t.ok(methods.memberUpdate, { id: member?.id ?? 0n, peerUrls: ['http://127.0.0.1:10'] });
      assert.equal(members.find(({ id }) => id === member?.id)?.isLearner, true);
    },
  },
  {
    name: 'members: a learner that lags is not promoted, and a voter not either',
    fresh: true,
    async run(t) {
      const { member } = await addLearner(t);
      await t.fails(methods.memberPromote, { id: member?.id ?? 0n }, 'learner-not-ready');
      await t.fails(methods.memberPromote, { id: await selfOf(t) }, 'member-not-learner');
    },
  },
  {
    name: 'members: a removed member is gone for ever, and its URL may serve another',
    // etcd 3.4 sometimes answers that it took too long.
    since: '3.5',
    fresh: true,
    async run(t) {
      const { member } = await addLearner(t);
      const id = member?.id ?? 0n;
      const { members, header } = await t.ok(methods.memberRemove, { id });
      assert.deepEqual(members, (await t.ok(methods.memberList, {})).members);
      assert.deepEqual([members.length, header?.revision], [1, 0]);
      await t.fails(methods.memberRemove, { id }, 'member-not-found');
      await t.fails(methods.memberUpdate, { id, peerUrls }, 'member-not-found');
      // Within the same second the id would be the same one, which is refused. Asking again at once is no way out: etcd answers a change that comes
      // while another is under way only when its caller gives up.
      const removedIn = wallSeconds();
      while (wallSeconds() === removedIn) await new Promise((resolve) => setTimeout(resolve, 20));
      const again = await t.call(methods.memberAdd, { peerUrls, isLearner: true });
      assert.equal(again.code, 0);
      assert.notEqual(again.response?.member?.id, id);
    },
  },
  {
    name: 'members: the last voter cannot be removed',
    fresh: true,
    async run(t) {
      const id = await selfOf(t);
      await t.fails(methods.memberRemove, { id }, 'not-enough-started-members');
      await addLearner(t);
      await t.fails(methods.memberRemove, { id }, 'not-enough-started-members');
      await t.write('a=1');
    },
  },
];

const wallSeconds = (): number => Math.floor(Date.now() / 1000);

export const membershipCases: readonly Case[] = [...listed, ...added, ...changed];
