import {
  CompactionRequest,
  Compare_CompareTarget,
  type Init,
  LeaseGrantRequest,
  LeaseRevokeRequest,
  PutRequest,
  type RangeRequest,
  type RequestOp,
  TxnRequest,
  TxnResponse,
} from '@conclave/protocol';
import type { Runtime } from '@conclave/wire';
import { beforeEach, describe, expect, it } from 'vitest';
import { LeaseTable } from '../lease/lease-table.ts';
import { MemberTable } from '../membership/member-table.ts';
import { Mvcc } from '../mvcc/mvcc.ts';
import type { Slicer } from '../mvcc/slicer.ts';
import { BufferedStore } from '../storage/backend/buffered-store.ts';
import { MemoryBackend } from '../storage/backend/memory.ts';
import { type Applied, Applier } from './apply.ts';
import type { RequestKind } from './entry.ts';
import { isReadOnlyTxn, isSerializableTxn } from './txn-plan.ts';

const runtime: Runtime = {
  monotonic: () => 0,
  boot: () => 0,
  wall: () => 0,
  timer: () => ({ cancel() {} }),
  endOfTurn() {},
  random: () => 0,
  log: { debug() {}, info() {}, warn() {}, error() {} },
};

const bytes = (characters: string): Uint8Array => new Uint8Array(Buffer.from(characters, 'latin1'));

let backend: MemoryBackend;
let store: BufferedStore;
let mvcc: Mvcc;
let leases: LeaseTable;
let applier: Applier;
let term: number;

function open(): void {
  store = new BufferedStore({
    backend,
    runtime,
    fatal: (cause) => {
      throw cause;
    },
  });
  mvcc = new Mvcc(store);
  leases = new LeaseTable(store);
  applier = new Applier({ store, mvcc, leases, members: new MemberTable(store) });
}

beforeEach(() => {
  backend = new MemoryBackend();
  term = 1;
  open();
});

function apply(kind: RequestKind, body: Uint8Array, proposedIn = term): Applied {
  const index = applier.appliedIndex + 1;
  return applier.apply(index, term, { kind, body, member: 1n, epoch: 1, counter: index, term: proposedIn, user: '', authRevision: 0 });
}

const put = (name: string, value = '', init: Init<PutRequest> = {}): Applied =>
  apply('put', PutRequest.encode({ key: bytes(name), value: bytes(value), ...init }));
const txn = (init: Init<TxnRequest>): Applied => apply('txn', TxnRequest.encode(init));
const grant = (id: bigint, ttl = 60): Applied => apply('leaseGrant', LeaseGrantRequest.encode({ id, ttl }));
const revoke = (id: bigint, proposedIn = term): Applied => apply('leaseRevoke', LeaseRevokeRequest.encode({ id }), proposedIn);
const compact = (revision: number): Applied => apply('compaction', CompactionRequest.encode({ revision }));

const putOf = (name: string, init: Init<PutRequest> = {}): Init<RequestOp> => ({ requestPut: { key: bytes(name), ...init } });
const rangeOf = (name: string, init: Init<RangeRequest> = {}): Init<RequestOp> => ({ requestRange: { key: bytes(name), ...init } });

const refused = (message: string): object => ({ kind: 'failed', error: { message: `etcdserver: ${message}` } });
const noLease = refused('requested lease not found');
const noKey = refused('key not found');
const isFuture = refused('mvcc: required revision is a future revision');
const isCompacted = refused('mvcc: required revision has been compacted');

describe('a refusal', () => {
  it('of a put looks for the lease first, then for the key', () => {
    const init = { lease: 7n, ignoreValue: true };
    expect(put('a', '', init)).toMatchObject(noLease);
    expect(txn({ success: [putOf('a', init)] })).toMatchObject(noLease);
    expect(txn({ success: [putOf('a', { ignoreValue: true })] })).toMatchObject(noKey);
  });

  it('of a txn looks at its operations in their order, and leaves nothing behind', () => {
    put('a');
    const { revision } = mvcc;
    expect(txn({ success: [putOf('b'), putOf('c', { lease: 7n }), rangeOf('a', { revision: 99 })] })).toMatchObject(noLease);
    expect(txn({ success: [putOf('b'), rangeOf('a', { revision: 99 }), putOf('c', { lease: 7n })] })).toMatchObject(isFuture);
    expect(txn({ success: [putOf('b'), rangeOf('a', { revision: 99 })] })).toMatchObject(isFuture);
    expect(txn({ success: [putOf('b'), { requestTxn: { success: [rangeOf('a', { revision: 99 })] } }] })).toMatchObject(isFuture);
    expect(mvcc.revision).toBe(revision);
    expect(mvcc.get(bytes('b'))).toBeUndefined();
  });

  it('does not come from the branch that is not taken', () => {
    const applied = txn({ success: [putOf('b')], failure: [putOf('c', { lease: 7n }), rangeOf('a', { revision: 99 })] });
    expect(applied).toMatchObject({ kind: 'txn', response: { succeeded: true } });
  });

  it('comes before a put that is to keep what the same txn deletes (etcd stops for good)', () => {
    put('x', '1');
    const { revision } = mvcc;
    const applied = txn({
      success: [{ requestDeleteRange: { key: bytes('a'), rangeEnd: bytes('\0') } }, putOf('x', { ignoreValue: true })],
    });
    expect(applied).toMatchObject(noKey);
    expect(mvcc.revision).toBe(revision);
  });
});

describe('a txn', () => {
  it('compares before it writes, in nested txns too', () => {
    const isNew = { key: bytes('a'), version: 0 };
    const applied = txn({ success: [putOf('a'), { requestTxn: { compare: [isNew], success: [putOf('b')], failure: [putOf('c')] } }] });
    expect(applied).toMatchObject({ response: { responses: [{}, { responseTxn: { succeeded: true } }] } });
    expect(mvcc.get(bytes('b'))).toBeDefined();
  });

  it('heads its parts with their revision alone, and nested txns with nothing', () => {
    put('a', '1');
    const applied = txn({ success: [rangeOf('a'), putOf('b'), rangeOf('b'), { requestTxn: { success: [rangeOf('b')] } }] });
    const response = applied.kind === 'txn' ? applied.response : TxnResponse.create();
    const parts = response.responses;
    expect(response.header).toMatchObject({ revision: 3, memberId: 0n });
    expect(parts[0]?.responseRange?.header?.revision).toBe(2);
    expect(parts[1]?.responsePut?.header?.revision).toBe(3);
    expect(parts[2]?.responseRange).toMatchObject({ header: { revision: 3 }, count: 1 });
    expect(parts[3]?.responseTxn).toMatchObject({ header: { revision: 0 }, responses: [{ responseRange: { header: { revision: 3 } } }] });
  });

  it('reads at an old revision as the log says, not as far as this member has compacted (etcd 18667)', () => {
    put('a', '1');
    put('a', '2');
    put('a', '3');
    compact(3);
    const old = (): Applied => txn({ success: [rangeOf('a', { revision: 2 }), putOf('b')] });
    const at = (): Applied => txn({ success: [rangeOf('a', { revision: 3 })] });
    const before = [old(), at()];
    while (!applier.compactStep(1));
    expect(before[0]).toMatchObject(isCompacted);
    expect(before[1]).toMatchObject({ response: { responses: [{ responseRange: { kvs: [{ value: bytes('2') }] } }] } });
    expect([old(), at()]).toEqual(before);
  });

  it('takes a negative revision for an old one', () => {
    expect(txn({ success: [rangeOf('a', { revision: -1 })] })).toMatchObject({ kind: 'txn' });
    expect(txn({ success: [rangeOf('a', { revision: -2 })] })).toMatchObject(isCompacted);
    compact(0);
    expect(txn({ success: [rangeOf('a', { revision: -1 })] })).toMatchObject(isCompacted);
  });
});

describe('a txn that only reads', () => {
  const patient: Slicer = { isSpent: () => false, nextSlice: () => Promise.resolve() };
  const request = (init: Init<TxnRequest>): TxnRequest => TxnRequest.create(init);

  it('is told from others', () => {
    expect(isReadOnlyTxn(request({ compare: [{ key: bytes('a') }], success: [rangeOf('a')], failure: [rangeOf('b')] }))).toBe(true);
    expect(isReadOnlyTxn(request({}))).toBe(true);
    expect(isReadOnlyTxn(request({ success: [rangeOf('a')], failure: [putOf('a')] }))).toBe(false);
    expect(isReadOnlyTxn(request({ success: [{ requestTxn: { success: [rangeOf('a')] } }] }))).toBe(false);
    expect(isSerializableTxn(request({ success: [rangeOf('a', { serializable: true })], failure: [rangeOf('a')] }))).toBe(false);
    expect(isSerializableTxn(request({ success: [rangeOf('a', { serializable: true })] }))).toBe(true);
    expect(isSerializableTxn(request({}))).toBe(true);
  });

  it('answers as it would from the log', async () => {
    put('a', '1');
    put('b', '2');
    for (const init of [
      { compare: [{ key: bytes('a'), version: 1 }], success: [rangeOf('a', { rangeEnd: bytes('z') }), rangeOf('b', { revision: 2 })] },
      { compare: [{ key: bytes('a'), version: 2 }], failure: [rangeOf('b')] },
      {},
    ]) {
      expect({ kind: 'txn', response: await applier.readTxn(request(init), patient) }).toEqual(txn(init));
    }
    await expect(applier.readTxn(request({ success: [rangeOf('a', { revision: 99 })] }), patient)).rejects.toMatchObject({ code: 11 });
    await expect(applier.readTxn(request({ success: [rangeOf('a', { revision: -2 })] }), patient)).rejects.toMatchObject({ code: 11 });
  });

  it('sees one revision from its first compare to its last range, whatever is written and compacted meanwhile', async () => {
    for (let at = 0; at < 100; at++) put(`k${100 + at}`, '1');
    const everything = { rangeEnd: bytes('z') };
    const init = {
      compare: [{ key: bytes('k'), ...everything, version: 1 }],
      success: [rangeOf('k', everything), rangeOf('k', everything)],
    };
    const { revision } = mvcc;
    const response = await applier.readTxn(request(init), {
      isSpent: () => true,
      nextSlice: async () => {
        put('k100', '2');
        compact(mvcc.revision);
        applier.compactStep(1000);
      },
    });
    expect(response).toMatchObject({ succeeded: true, header: { revision } });
    for (const { responseRange } of response.responses) {
      expect(responseRange).toMatchObject({ count: 100, header: { revision } });
      expect(responseRange?.kvs[0]).toMatchObject({ version: 1 });
    }
  });
});

describe('a lease', () => {
  it('is granted once, with a TTL within bounds and an id that names one', () => {
    expect(grant(5n, 60)).toMatchObject({ response: { id: 5n, ttl: 60, header: { revision: 1 } } });
    expect(grant(5n, 9_000_000_001)).toMatchObject(refused('too large lease TTL'));
    expect(grant(5n)).toMatchObject(refused('lease already exists'));
    expect(grant(-7n, 9_000_000_000)).toMatchObject({ response: { id: -7n, ttl: 9_000_000_000 } });
    expect(grant(8n, -1)).toMatchObject({ response: { ttl: 1 } });
    expect(grant(0n)).toMatchObject(noLease);
    expect(leases.ids()).toEqual([5n, 8n, -7n]);
  });

  it('takes its keys with it, in order and in one revision', () => {
    grant(5n);
    grant(6n);
    for (const name of ['c', 'a', 'b', 'd']) put(name, '', { lease: 5n });
    put('d', '', { lease: 6n });
    put('c', '', { ignoreLease: true });
    const before = mvcc.revision;
    const told: string[] = [];
    mvcc.onApplied(({ events }) => told.push(...events.map((event) => Buffer.from(event.key).toString())));
    expect(revoke(5n)).toMatchObject({ response: { header: { revision: before + 1 } } });
    expect(told).toEqual(['a', 'b', 'c']);
    expect(revoke(5n)).toMatchObject(noLease);
    expect(put('e', '', { lease: 5n })).toMatchObject(noLease);
    expect(leases.keysOf(6n)).toEqual([bytes('d')]);
  });

  it('without keys leaves the revision as it is', () => {
    grant(5n);
    put('a', '', { lease: 5n });
    put('a');
    const { revision } = mvcc;
    expect(revoke(5n)).toMatchObject({ response: { header: { revision } } });
    expect(mvcc.get(bytes('a'))).toBeDefined();
  });

  it('is not ended by a revoke from an earlier term (etcd 15247: a stuck leader ended renewed leases)', () => {
    grant(5n);
    term = 2;
    expect(revoke(5n, 1)).toMatchObject(refused('leader changed'));
    expect(leases.has(5n)).toBe(true);
    expect(revoke(5n, 2)).toMatchObject({ kind: 'leaseRevoke' });
  });

  it('tells the listener what came and went', () => {
    const told: string[] = [];
    leases.listen({ granted: (id, ttl) => told.push(`granted ${id} ${ttl}`), revoked: (id) => told.push(`revoked ${id}`) });
    grant(5n, 60);
    grant(5n, 70);
    revoke(5n);
    revoke(5n);
    expect(told).toEqual(['granted 5 60', 'revoked 5']);
  });
});

describe('the applied index', () => {
  it('commits with what the entries did, term included (etcd 13766: the index was saved apart)', async () => {
    term = 3;
    grant(5n);
    put('a', '1', { lease: 5n });
    await store.flush();
    term = 4;
    put('a', '2');
    revoke(5n);
    const lost = { index: applier.appliedIndex, term: applier.appliedTerm };
    open();
    expect([lost.index, applier.appliedIndex, applier.durableIndex]).toEqual([4, 2, 2]);
    expect([lost.term, applier.appliedTerm]).toEqual([4, 3]);
    expect([mvcc.revision, leases.has(5n), leases.keysOf(5n)]).toEqual([2, true, [bytes('a')]]);
    term = 4;
    expect(put('a', '2')).toMatchObject({ response: { header: { revision: 3 } } });
  });

  it('moves with entries that hold no request', async () => {
    applier.applyEmpty(1, 2);
    term = 2;
    put('a');
    await store.flush();
    open();
    expect([applier.appliedIndex, applier.appliedTerm, mvcc.revision]).toEqual([2, 2, 2]);
  });

  it('does not read what a txn asks for when nobody waits for it, and changes the same', () => {
    put('a', '1');
    const request: Init<TxnRequest> = {
      compare: [{ key: bytes('a'), rangeEnd: bytes('\0'), target: Compare_CompareTarget.VERSION, version: 1 }],
      success: [putOf('b'), rangeOf('\0', { rangeEnd: bytes('\0') }), { requestTxn: { success: [rangeOf('a'), putOf('c')] } }],
    };
    const body = TxnRequest.encode(request);
    const entry = { kind: 'txn' as const, body, member: 1n, epoch: 1, counter: 2, term: 1, user: '', authRevision: 0 };
    const applied = applier.apply(2, 1, entry, false);
    const empty = { kvs: [], count: 0 };
    expect(applied).toMatchObject({
      response: {
        succeeded: true,
        responses: [
          { responsePut: {} },
          { responseRange: empty },
          { responseTxn: { responses: [{ responseRange: empty }, { responsePut: {} }] } },
        ],
      },
    });
    expect([mvcc.revision, mvcc.get(bytes('b')) !== undefined, mvcc.get(bytes('c')) !== undefined]).toEqual([3, true, true]);
    expect(txn({ success: [rangeOf('a'), rangeOf('a', { revision: 9 })] })).toMatchObject({ kind: 'failed' });
  });

  it('takes entries one by one, in terms that do not decrease, and stops at anything else', () => {
    term = 2;
    put('a');
    const entry = { kind: 'put' as const, body: bytes(''), member: 1n, epoch: 1, counter: 1, term: 2, user: '', authRevision: 0 };
    expect(() => applier.apply(3, 2, entry)).toThrow('entry 3 after entry 1');
    expect(() => applier.applyEmpty(1, 2)).toThrow('entry 1 after entry 1');
    expect(() => applier.applyEmpty(2, 1)).toThrow('of term 1 after term 2');
  });
});
