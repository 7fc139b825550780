import {
  AlarmRequest,
  AlarmRequest_AlarmAction,
  AlarmType,
  ClusterVersion,
  CompactionRequest,
  DeleteRangeRequest,
  LeaseGrantRequest,
  LeaseRevokeRequest,
  MemberAddition,
  MemberPromoteRequest,
  MemberPublication,
  MemberRemoveRequest,
  MemberUpdateRequest,
  PutRequest,
  TxnRequest,
} from '@conclave/protocol';
import { type ConfChange, type ConfState, decodeConfChange } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { LeaseTable } from '../lease/lease-table.ts';
import { confStateFrom, lowestId, MemberTable } from '../membership/member-table.ts';
import { Mvcc } from '../mvcc/mvcc.ts';
import { BufferedStore } from '../storage/backend/buffered-store.ts';
import { MemoryBackend } from '../storage/backend/memory.ts';
import { type Applied, Applier } from './apply.ts';
import {
  decodeEntry,
  EntryFormatError,
  encodeEntry,
  entryVersion,
  firstEntryVersion,
  type MembershipKind,
  type RequestKind,
} from './entry.ts';
import { foundCluster } from './founding.ts';
import { agreedVersion } from './member-changes.ts';

const url = (name: string): string => `http://${name}:2380`;

/** One member's state machine, on a store that outlives it. */
class Machine {
  readonly runtime = new VirtualRuntime();
  readonly backend = new MemoryBackend();
  store!: BufferedStore;
  members!: MemberTable;
  applier!: Applier;
  index = 0;

  constructor(version = entryVersion) {
    this.open(version);
  }

  open(version = entryVersion): void {
    const { runtime, backend } = this;
    const fatal = (cause: Error): never => {
      throw cause;
    };
    this.store = new BufferedStore({ backend, runtime, fatal });
    this.members = new MemberTable(this.store);
    this.applier = new Applier({
      store: this.store,
      mvcc: new Mvcc(this.store),
      leases: new LeaseTable(this.store),
      members: this.members,
      entryVersion: version,
    });
    this.index = this.applier.appliedIndex;
  }

  /** As after a crash without a loss. */
  async reopen(version = entryVersion): Promise<void> {
    await this.runtime.run(this.store.flush());
    this.open(version);
  }

  found(...names: string[]): bigint[] {
    const initialCluster = Object.fromEntries(names.map((name) => [name, [url(name)]]));
    const { members, entries } = foundCluster({ name: names[0]!, peerUrls: [url(names[0]!)], initialCluster, clusterToken: 't' });
    for (const { data } of entries) this.applyEntry(data);
    return names.map((name) => members.find((member) => member.name === name)!.id);
  }

  applyEntry(data: Uint8Array): void {
    const change = decodeConfChange(data);
    this.index += 1;
    this.applier.applyMembership(this.index, 1, change, decodeEntry(change.context));
  }

  change(type: ConfChange['type'], id: bigint, kind: MembershipKind, body: Uint8Array): Applied {
    this.index += 1;
    const request = logged(kind, body);
    const before = this.applier.confState;
    const change = { type, member: id, context: encodeEntry(request) };
    const { result, isAccepted } = this.applier.applyMembership(this.index, 1, change, request);
    expect(isAccepted).toBe(result.kind !== 'failed');
    expect(this.applier.confState).toEqual(isAccepted ? changed(before, change) : before);
    return result;
  }

  add(id: bigint, peerUrls: string[], options: { isLearner?: boolean; maxLearners?: number } = {}): string {
    const { isLearner = false, maxLearners = 1 } = options;
    const body = MemberAddition.encode({ member: { id, peerUrls, isLearner }, maxLearners });
    return shown(this.change(isLearner ? 'addLearner' : 'addVoter', id, 'memberAdd', body));
  }

  promote(id: bigint): string {
    return shown(this.change('addVoter', id, 'memberPromote', MemberPromoteRequest.encode({ id })));
  }

  remove(id: bigint): string {
    return shown(this.change('remove', id, 'memberRemove', MemberRemoveRequest.encode({ id })));
  }

  update(id: bigint, peerUrls: string[]): string {
    return shown(this.change('update', id, 'memberUpdate', MemberUpdateRequest.encode({ id, peerUrls })));
  }

  apply(kind: RequestKind, body: Uint8Array): string {
    this.index += 1;
    return shown(this.applier.apply(this.index, 1, logged(kind, body)));
  }

  publish(id: bigint, version = entryVersion, serverVersion = '1.2.3'): string {
    return this.apply(
      'memberPublish',
      MemberPublication.encode({ id, name: 'n', clientUrls: ['http://c'], entryVersion: version, serverVersion }),
    );
  }

  decide(version: string, entries: number): string {
    return this.apply('clusterVersion', ClusterVersion.encode({ version, entryVersion: entries }));
  }
}

function logged(kind: RequestKind, body: Uint8Array) {
  return { kind, body, member: 1n, epoch: 1, counter: 1, term: 1, user: '', authRevision: 0 };
}

/** What raft makes of an accepted change, by ascending id. */
function changed({ voters, learners }: ConfState, { type, member }: ConfChange): ConfState {
  if (type === 'update') return { voters, learners };
  const ascending = (ids: readonly bigint[]): bigint[] => [...ids].sort((one, other) => (one < other ? -1 : 1));
  const without = (ids: readonly bigint[], more: boolean): bigint[] =>
    ascending([...ids.filter((id) => id !== member), ...(more ? [member] : [])]);
  return { voters: without(voters, type === 'addVoter'), learners: without(learners, type === 'addLearner') };
}

function shown(applied: Applied): string {
  return applied.kind === 'failed' ? applied.error.message.replace('etcdserver: ', '') : 'ok';
}

let machine: Machine;
beforeEach(() => {
  machine = new Machine();
});

describe('the members', () => {
  it('are the founders at first, each under the id that etcd gives it, and started', () => {
    const ids = machine.found('a', 'b', 'c');
    expect(
      machine.members
        .list()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['a', 'b', 'c']);
    expect(new Set(ids)).toEqual(new Set(machine.applier.confState.voters));
    expect(machine.applier.confState.learners).toEqual([]);
    expect(machine.members.get(ids[1]!)).toMatchObject({ name: 'b', peerUrls: [url('b')], clientUrls: [], isLearner: false });
  });

  it('are refused in the words of etcd what cannot be', () => {
    const [a = 0n] = machine.found('a', 'b', 'c');
    expect(machine.add(a, [url('new')])).toBe('member ID already exist');
    expect(machine.add(77n, [url('new'), url('b')])).toBe('Peer URLs already exists');
    expect(machine.add(77n, [url('d')], { isLearner: true })).toBe('ok');
    expect(machine.add(78n, [url('d')])).toBe('Peer URLs already exists');
    expect(machine.add(78n, [url('e')], { isLearner: true })).toBe('too many learner members in cluster');
    expect(machine.add(78n, [url('e')], { isLearner: true, maxLearners: 2 })).toBe('ok');
    expect(machine.promote(a)).toBe('can only promote a learner member');
    expect(machine.promote(5n)).toBe('member not found');
    expect(machine.remove(5n)).toBe('member not found');
    expect(machine.update(5n, [url('x')])).toBe('member not found');
    expect(machine.update(a, [url('d')])).toBe('Peer URLs already exists');
    expect(machine.update(a, [url('a'), url('a2')])).toBe('ok');
    expect(machine.promote(77n)).toBe('ok');
    expect(machine.promote(77n)).toBe('can only promote a learner member');
    expect(machine.publish(5n)).toBe('member not found');
  });

  it('are never without a voter: the last one stays, though it was not the last when its removal was asked for', () => {
    const [a = 0n, b = 0n] = machine.found('a', 'b');
    expect(machine.add(77n, [url('c')], { isLearner: true })).toBe('ok');
    expect(machine.remove(a)).toBe('ok');
    expect(machine.remove(b)).toBe('re-configuration failed due to not enough started members');
    expect(machine.applier.confState).toEqual({ voters: [b], learners: [77n] });
    expect(machine.remove(77n)).toBe('ok');
  });

  it('never have an id again that was removed, not after a restart either', async () => {
    const [a = 0n, b = 0n] = machine.found('a', 'b', 'c');
    expect(machine.remove(b)).toBe('ok');
    for (const isReopened of [false, true]) {
      if (isReopened) await machine.reopen();
      expect(machine.members.isRemoved(b)).toBe(true);
      expect(machine.members.isRemoved(a)).toBe(false);
      expect(machine.members.get(b)).toBeUndefined();
      expect(machine.add(b, [url('new')])).toBe('member not found');
      expect(machine.add(b, [url('new')], { isLearner: true })).toBe('member not found');
      expect(machine.remove(b)).toBe('member not found');
      expect(machine.promote(b)).toBe('member not found');
      expect(machine.update(b, [url('b')])).toBe('member not found');
      expect(machine.publish(b)).toBe('member not found');
    }
    // Its URLs may serve another.
    expect(machine.add(9n, [url('b')])).toBe('ok');
  });

  it('stay learners when their URLs are changed', () => {
    machine.found('a');
    machine.add(9n, [url('l')], { isLearner: true });
    expect(machine.update(9n, [url('l2')])).toBe('ok');
    expect(machine.members.get(9n)).toMatchObject({ peerUrls: [url('l2')], isLearner: true });
  });

  it('keep what they published when they are promoted or moved', () => {
    machine.found('a');
    machine.add(9n, [url('l')], { isLearner: true });
    expect(machine.members.get(9n)?.name).toBe('');
    expect(machine.publish(9n)).toBe('ok');
    machine.promote(9n);
    machine.update(9n, [url('l2')]);
    expect(machine.members.get(9n)).toEqual({
      id: 9n,
      name: 'n',
      peerUrls: [url('l2')],
      clientUrls: ['http://c'],
      isLearner: false,
      entryVersion,
      serverVersion: '1.2.3',
    });
  });

  it('are answered with everybody there is after the change', () => {
    const [a = 0n] = machine.found('a');
    const body = MemberAddition.encode({ member: { id: 9n, peerUrls: [url('d')] }, maxLearners: 0 });
    const added = machine.change('addVoter', 9n, 'memberAdd', body);
    expect(added).toMatchObject({
      kind: 'memberAdd',
      response: { member: { id: 9n, name: '', peerUrls: [url('d')], isLearner: false }, members: [{ id: 9n }, { id: a, name: 'a' }] },
    });
    const removed = machine.change('remove', 9n, 'memberRemove', MemberRemoveRequest.encode({ id: 9n }));
    expect(removed).toMatchObject({ kind: 'memberRemove', response: { members: [{ id: a }] } });
  });

  it('are the same to a restarted member, and to whoever reads the rows of the backend', async () => {
    machine.found('a', 'b', 'c');
    machine.add(9n, [url('l')], { isLearner: true });
    machine.remove(machine.members.list()[0]!.id);
    const [list, conf] = [machine.members.list(), machine.applier.confState];
    await machine.reopen();
    expect(machine.members.list()).toMatchObject([...list]);
    expect(machine.applier.confState).toEqual(conf);
    expect(confStateFrom(machine.backend.scan('members', lowestId, undefined))).toEqual(conf);
  });

  it('are those of a snapshot that takes the place of the state, and so are the version and the alarms', async () => {
    const raise = AlarmRequest.encode({ action: AlarmRequest_AlarmAction.ACTIVATE, memberId: 1n, alarm: AlarmType.NOSPACE });
    const [a = 0n] = machine.found('a', 'b');
    machine.publish(a);
    machine.remove(machine.members.list().find(({ id }) => id !== a)!.id);
    machine.decide('1.2.0', entryVersion);
    machine.apply('alarm', raise);
    await machine.runtime.run(machine.store.flush());

    const other = new Machine();
    other.found('x', 'y', 'z');
    const told: number[] = [];
    other.members.listen(() => told.push(other.members.list().length));
    const rows = (['members', 'meta'] as const).flatMap((table) =>
      Array.from(machine.backend.scan(table, Uint8Array.of(0), undefined), ({ key, value }) => ({ table, key, value })),
    );
    await other.runtime.run(other.store.replace(machine.index, (commit) => commit({ rows, isReplacement: true })));
    other.applier.reload();
    expect(other.members.list()).toMatchObject([...machine.members.list()]);
    expect(other.applier.confState).toEqual(machine.applier.confState);
    expect(other.members.clusterVersion).toEqual(machine.members.clusterVersion);
    expect(other.applier.alarms.list()).toEqual(machine.applier.alarms.list());
    expect(told).toEqual([1]);
  });

  it('are told to those who listen, after each change', () => {
    const seen: number[] = [];
    machine.members.listen(() => seen.push(machine.members.list().length));
    machine.found('a', 'b');
    machine.remove(machine.members.list()[0]!.id);
    expect(seen).toEqual([1, 2, 1]);
  });

  it('never follow a request that says something else than raft was told', () => {
    machine.found('a', 'b');
    const { id } = machine.members.list()[0]!;
    const body = MemberRemoveRequest.encode({ id });
    expect(() => machine.change('remove', 5n, 'memberRemove', body)).toThrow('a membership change is remove 5 to raft and remove');
    const learner = MemberAddition.encode({ member: { id: 9n, peerUrls: [url('l')], isLearner: true }, maxLearners: 1 });
    expect(() => machine.change('addVoter', 9n, 'memberAdd', learner)).toThrow('is addVoter 9 to raft and addLearner 9');
  });
});

describe('the cluster version', () => {
  const older = firstEntryVersion;

  it('is agreed on once every member has published what it can', () => {
    const [a = 0n, b = 0n] = machine.found('a', 'b');
    expect(agreedVersion(machine.members)).toBeUndefined();
    machine.publish(a, entryVersion, '3.7.2');
    expect(agreedVersion(machine.members)).toBeUndefined();
    machine.publish(b, older, '3.6.9');
    expect(agreedVersion(machine.members)).toEqual({ version: '3.6.0', entryVersion: older });
    expect(machine.decide('3.6.0', older)).toBe('ok');
    expect(agreedVersion(machine.members)).toBeUndefined();
  });

  it('rises with the lowest member, and never falls', async () => {
    const [a = 0n, b = 0n] = machine.found('a', 'b');
    machine.publish(a, entryVersion, '3.7.2');
    machine.publish(b, older, '3.10.1');
    machine.decide('3.7.0', older);
    expect(machine.applier.allows('put')).toBe(true);
    expect(machine.applier.allows('alarm')).toBe(false);
    machine.publish(b, entryVersion, '3.10.1');
    expect(agreedVersion(machine.members)).toEqual({ version: '3.7.0', entryVersion });
    expect(machine.decide('3.7.0', entryVersion)).toBe('ok');
    expect(machine.applier.allows('alarm')).toBe(true);
    machine.publish(b, older, '3.0.0');
    expect(machine.decide('3.0.0', older)).toBe('not capable');
    await machine.reopen();
    expect(machine.members.clusterVersion).toEqual({ version: '3.7.0', entryVersion });
    expect(machine.applier.allows('alarm')).toBe(true);
  });

  it('is not raised past a member that came after the leader looked', () => {
    const [a = 0n] = machine.found('a');
    machine.publish(a);
    const agreed = agreedVersion(machine.members)!;
    machine.add(9n, [url('d')]);
    expect(machine.decide(agreed.version, agreed.entryVersion)).toBe('not capable');
    expect(machine.applier.allows('alarm')).toBe(false);
    machine.publish(9n);
    expect(machine.decide(agreed.version, agreed.entryVersion)).toBe('ok');
  });

  it('ends a member of an older release before it meets an entry it does not know', async () => {
    const [a = 0n] = machine.found('a');
    machine.publish(a);
    machine.decide('1.2.0', entryVersion);
    await machine.runtime.run(machine.store.flush());
    expect(() => machine.open(older)).toThrow(EntryFormatError);

    const joiner = new Machine(older);
    joiner.found('a');
    joiner.publish(a);
    expect(() => joiner.decide('1.2.0', entryVersion)).toThrow('the cluster has entries up to version 2, this program knows 1');
    expect(() => new Machine(older).apply('alarm', AlarmRequest.encode({}))).toThrow(EntryFormatError);
  });
});

describe('alarms', () => {
  const { GET, ACTIVATE, DEACTIVATE } = AlarmRequest_AlarmAction;
  const { NONE, NOSPACE, CORRUPT } = AlarmType;
  const ask = (action: number, memberId: bigint, alarm: number) => {
    machine.index += 1;
    const body = AlarmRequest.encode({ action, memberId, alarm });
    const applied = machine.applier.apply(machine.index, 1, logged('alarm', body));
    return applied.kind === 'alarm' ? applied.response.alarms : [];
  };

  it('are raised and ended by type and member, and answered as etcd does', async () => {
    expect(ask(ACTIVATE, 5n, NOSPACE)).toEqual([{ memberId: 5n, alarm: NOSPACE }]);
    expect(ask(ACTIVATE, 5n, NOSPACE)).toEqual([{ memberId: 5n, alarm: NOSPACE }]);
    expect(ask(ACTIVATE, 4n, NOSPACE)).toEqual([{ memberId: 4n, alarm: NOSPACE }]);
    expect(ask(ACTIVATE, 4n, NONE)).toEqual([]);
    expect(ask(ACTIVATE, 4n, 9)).toEqual([]);
    expect(ask(7, 4n, NOSPACE)).toEqual([]);
    expect(ask(GET, 0n, CORRUPT)).toEqual([]);
    await machine.reopen();
    expect(ask(GET, 0n, NONE)).toEqual([
      { memberId: 4n, alarm: NOSPACE },
      { memberId: 5n, alarm: NOSPACE },
    ]);
    expect(ask(DEACTIVATE, 5n, NOSPACE)).toEqual([{ memberId: 5n, alarm: NOSPACE }]);
    expect(ask(DEACTIVATE, 5n, NOSPACE)).toEqual([]);
    expect(ask(DEACTIVATE, 4n, NONE)).toEqual([]);
    expect(machine.applier.alarms.has(NOSPACE)).toBe(true);
    ask(DEACTIVATE, 4n, NOSPACE);
    expect(machine.applier.alarms.has(NOSPACE)).toBe(false);
  });

  const put = { requestPut: { key: Uint8Array.of(1), value: Uint8Array.of(2) } };
  const range = { requestRange: { key: Uint8Array.of(1) } };
  const requests: readonly [string, RequestKind, Uint8Array, underNoSpace: string, underCorrupt: string][] = [
    ['a put', 'put', PutRequest.encode(put.requestPut), 'no space', 'corrupt'],
    ['a deletion', 'deleteRange', DeleteRangeRequest.encode({ key: Uint8Array.of(1) }), 'ok', 'corrupt'],
    ['a txn that puts', 'txn', TxnRequest.encode({ success: [put] }), 'no space', 'corrupt'],
    ['a txn that would put', 'txn', TxnRequest.encode({ failure: [put] }), 'no space', 'corrupt'],
    ['a txn that puts deep inside', 'txn', TxnRequest.encode({ success: [{ requestTxn: { success: [put] } }] }), 'no space', 'corrupt'],
    [
      'a txn that reads and deletes',
      'txn',
      TxnRequest.encode({ success: [range, { requestDeleteRange: { key: Uint8Array.of(1) } }] }),
      'ok',
      'corrupt',
    ],
    ['a compaction', 'compaction', CompactionRequest.encode({ revision: 1 }), 'mvcc: required revision has been compacted', 'corrupt'],
    ['a lease', 'leaseGrant', LeaseGrantRequest.encode({ id: 7n, ttl: 10 }), 'no space', 'corrupt'],
    ['the end of a lease', 'leaseRevoke', LeaseRevokeRequest.encode({ id: 8n }), 'requested lease not found', 'corrupt'],
  ];
  const texts: Readonly<Record<string, string>> = { 'no space': 'mvcc: database space exceeded', corrupt: 'corrupt cluster' };

  it.each(requests)('stand against %s, or do not', (_, kind, body, underNoSpace, underCorrupt) => {
    const before = machine.apply(kind, body);
    expect(before).not.toMatch(/space|corrupt/);
    ask(ACTIVATE, 5n, NOSPACE);
    expect(machine.apply(kind, body)).toBe(texts[underNoSpace] ?? underNoSpace);
    ask(ACTIVATE, 5n, CORRUPT);
    expect(machine.apply(kind, body)).toBe(texts[underCorrupt] ?? underCorrupt);
    ask(DEACTIVATE, 5n, NOSPACE);
    ask(DEACTIVATE, 5n, CORRUPT);
    expect(machine.apply(kind, body)).not.toMatch(/space|corrupt/);
  });
});
