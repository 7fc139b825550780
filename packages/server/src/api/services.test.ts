import * as protocol from '@conclave/protocol';
import {
  Auth,
  Cluster,
  Compare_CompareTarget,
  Health,
  type Init,
  KV,
  Lease,
  Maintenance,
  type MethodDescriptor,
  type RangeResponse,
  RangeStreamResponse,
  type ServiceDescriptor,
  Watch,
  type WatchResponse,
} from '@conclave/protocol';
import { VirtualRuntime } from '@conclave/testing';
import { type CallEnd, type CallOptions, type ClientStream, loopback, type Routes, StatusError, type StreamReceiver } from '@conclave/wire';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Applied, Applier } from '../apply/apply.ts';
import { entryVersion } from '../apply/entry.ts';
import { LeaseTable } from '../lease/lease-table.ts';
import { MemberTable } from '../membership/member-table.ts';
import { Mvcc } from '../mvcc/mvcc.ts';
import { WatchHub } from '../mvcc/watch/watch-hub.ts';
import type { WatchStream } from '../mvcc/watch/watch-stream.ts';
import { Replica } from '../replica/replica.ts';
import { BufferedStore } from '../storage/backend/buffered-store.ts';
import { MemoryBackend } from '../storage/backend/memory.ts';
import { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { createRoutes } from './routes.ts';

// ---- a member in virtual time -------------------------------------------------------------------------------------------------------

const memberId = 0x8e9e05c52164694dn;
const clusterId = 0xcdf818194e3a8c32n;

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'latin1'));
const text = (raw: Uint8Array): string => Buffer.from(raw).toString('latin1');

interface Outcome<O> {
  readonly end: CallEnd;
  readonly response: O | undefined;
}

/** A stream as a caller sees it. */
class Caller<I, O> {
  readonly received: O[] = [];
  end: CallEnd | undefined;
  readonly #runtime: VirtualRuntime;
  readonly #method: MethodDescriptor<I, O>;
  readonly stream: ClientStream;

  constructor(runtime: VirtualRuntime, method: MethodDescriptor<I, O>, open: (receiver: StreamReceiver) => ClientStream) {
    this.#runtime = runtime;
    this.#method = method;
    this.stream = open({
      onMessage: (raw) => void this.received.push(method.output.decode(raw)),
      onEnd: (end) => {
        this.end = end;
      },
    });
  }

  /** Sends, lets everything happen that follows at once, and gives what came back since the last time. */
  async send(...requests: Init<I>[]): Promise<O[]> {
    for (const request of requests) this.stream.write(this.#method.input.encode(request));
    return this.settle();
  }

  async settle(): Promise<O[]> {
    await this.#runtime.advance(0);
    return this.received.splice(0);
  }
}

class World {
  readonly runtime = new VirtualRuntime({ seed: 5 });
  readonly mvcc: Mvcc;
  readonly leases: LeaseTable;
  readonly applier: Applier;
  readonly members: MemberTable;
  readonly replica: Replica<Applied>;
  readonly routes: Routes;
  readonly leaderGuard: LeaderGuard;
  readonly #hub: WatchHub;
  readonly #net = loopback({ runtime: this.runtime });
  /** What the replica says of itself and the barrier, when the test wants it otherwise. */
  hasLeader = true;
  barrierError: Parameters<Parameters<ServedMember['replica']['readBarrier']>[0]>[0];
  finishCompaction: () => void = () => {};
  /** What a proposal comes to instead of being made. */
  outcome: Applied | undefined;
  openWatchStreams = 0;
  isLearner = false;
  quotaBytes = 0;

  constructor() {
    const { runtime } = this;
    const fatal = (cause: Error): never => {
      throw cause;
    };
    const store = new BufferedStore({ backend: new MemoryBackend(), runtime, fatal });
    this.mvcc = new Mvcc(store);
    this.leases = new LeaseTable(store);
    this.members = new MemberTable(store);
    this.members.add({
      id: memberId,
      name: 'one',
      peerUrls: ['http://peer'],
      clientUrls: ['http://client'],
      isLearner: false,
      entryVersion,
      serverVersion: '1',
    });
    this.members.setClusterVersion({ version: '1.0.0', entryVersion });
    store.applied(0);
    this.applier = new Applier({ store, mvcc: this.mvcc, leases: this.leases, members: this.members });
    this.replica = new Replica<Applied>({
      runtime,
      id: memberId,
      log: { append: (_batch, durable) => durable(), release: () => {}, close: () => Promise.resolve() },
      recovered: { hardState: undefined, entries: [] },
      stateMachine: this.applier,
      leases: this.leases,
      fatal,
    });
    const leader = () => (this.hasLeader ? this.replica.leader : 0n);
    const isLearner = () => this.isLearner;
    const observed = {
      get leader() {
        return leader();
      },
      get isLearner() {
        return isLearner();
      },
    };
    this.leaderGuard = new LeaderGuard({ runtime, replica: observed, electionTimeoutMs: 1000 });
    const header = (revision: number) => ({ clusterId, memberId, revision, raftTerm: this.replica.term });
    this.#hub = new WatchHub({ source: this.mvcc, runtime, header });
    this.routes = createRoutes(this.#served(store));
    this.#net.serve('member', this.routes);
    this.replica.start();
  }

  #served(store: BufferedStore): ServedMember {
    const { runtime, mvcc, applier, leases, replica } = this;
    const isLeaderless = (): boolean => !this.hasLeader;
    const barrierError = () => this.barrierError;
    const quotaBytes = () => this.quotaBytes;
    return {
      runtime,
      clusterId,
      memberId,
      replica: {
        leases: replica.leases,
        propose: (kind, body, options) => {
          const { outcome } = this;
          return outcome === undefined ? replica.propose(kind, body, options) : Promise.resolve(outcome);
        },
        proposeMembership: (change, kind, body, options) => replica.proposeMembership(change, kind, body, options),
        progress: () => replica.progress(),
        call: (member, method, body) => replica.call(member, method, body),
        onCall: (method, handler) => replica.onCall(method, handler),
        get isLeader() {
          return replica.isLeader;
        },
        isLearner: false,
        renewLease: (id) => replica.renewLease(id),
        leaseRemaining: (id) => replica.leaseRemaining(id),
        transferLeadership: (target) => replica.transferLeadership(target),
        readBarrier: (done) => {
          if (barrierError() === undefined) replica.readBarrier(done);
          else runtime.endOfTurn(() => done(barrierError()));
        },
        get leader() {
          return isLeaderless() ? 0n : replica.leader;
        },
        get term() {
          return replica.term;
        },
        get committedIndex() {
          return replica.committedIndex;
        },
        get appliedIndex() {
          return replica.appliedIndex;
        },
      },
      mvcc,
      applier,
      leases,
      watches: { open: (write) => this.#openWatches(write) },
      leaderGuard: this.leaderGuard,
      memberTable: this.members,
      connectedSince: () => undefined,
      databaseSize: () => store.size(),
      compactionDone: () =>
        new Promise((resolve) => {
          this.finishCompaction = resolve;
        }),
      limits: {
        maxTxnOps: 128,
        maxRequestBytes: 2000,
        strictReconfigCheck: true,
        maxLearners: 1,
        get quotaBytes() {
          return quotaBytes();
        },
      },
    };
  }

  #openWatches(write: (response: Uint8Array) => boolean): WatchStream {
    const stream = this.#hub.open(write);
    const close = stream.close.bind(stream);
    this.openWatchStreams++;
    stream.close = () => {
      this.openWatchStreams--;
      close();
    };
    return stream;
  }

  /** Makes a unary call; does not wait for its end. */
  start<I, O>(method: MethodDescriptor<I, O>, request: Init<I> | Uint8Array, options: CallOptions = {}): Promise<Outcome<O>> {
    const raw = request instanceof Uint8Array ? request : method.input.encode(request);
    return new Promise((resolve) => {
      this.#net.transport('member').unary(method.path, raw, options, (end, response) => {
        resolve({ end, response: response === undefined ? undefined : method.output.decode(response) });
      });
    });
  }

  call<I, O>(method: MethodDescriptor<I, O>, request: Init<I> | Uint8Array, options: CallOptions = {}): Promise<Outcome<O>> {
    return this.runtime.run(this.start(method, request, options));
  }

  /** The response to a call that has to succeed. */
  async ask<I, O>(method: MethodDescriptor<I, O>, request: Init<I>): Promise<O> {
    const { end, response } = await this.call(method, request);
    expect([end.code, end.message]).toEqual([0, '']);
    return response as O;
  }

  /** Status code and text of a call that has to fail. */
  async refusal<I, O>(method: MethodDescriptor<I, O>, request: Init<I> | Uint8Array, options: CallOptions = {}): Promise<string> {
    const { end } = await this.call(method, request, options);
    return `${end.code} ${end.message}`;
  }

  open<I, O>(method: MethodDescriptor<I, O>, options: CallOptions = {}): Caller<I, O> {
    const connection = this.#net.transport('member');
    return new Caller(this.runtime, method, (receiver) => connection.stream(method.path, options, receiver));
  }

  async put(key: string, value = 'v'): Promise<number> {
    const { header } = await this.ask(KV.methods.put, { key: bytes(key), value: bytes(value) });
    return header!.revision;
  }
}

let world: World;
beforeEach(() => {
  world = new World();
});

const header = (revision: number) => ({ clusterId, memberId, revision, raftTerm: 1 });
const requireLeader = { metadata: { hasleader: 'true' } };

// ---- the table ----------------------------------------------------------------------------------------------------------------------

function isService(value: unknown): value is ServiceDescriptor {
  return typeof value === 'object' && value !== null && 'methods' in value;
}

const exported: readonly unknown[] = Object.values(protocol);
const services = exported.filter(isService);
const methods = services.flatMap((service) => Object.values(service.methods));

describe('the routes', () => {
  test('hold every procedure of every service of the protocol, in the kind it has there', () => {
    expect(services).toHaveLength(9);
    expect(methods.length).toBeGreaterThan(45);
    const { routes } = world;
    expect([...routes.keys()].sort()).toEqual(methods.map(({ path }) => path).sort());
    for (const { path, clientStreaming, serverStreaming } of methods) {
      expect(routes.get(path)?.kind, path).toBe(clientStreaming || serverStreaming ? 'stream' : 'unary');
    }
  });

  test('answer Unimplemented, by name, exactly for what is not offered yet', async () => {
    const missing: string[] = [];
    for (const method of methods) {
      const caller = world.open(method);
      await caller.send(method.input.encode({}) as never).catch(() => undefined);
      if (caller.end?.code === 12) {
        expect(caller.end.message).toBe(`${method.path} is not implemented by this server`);
        missing.push(method.path.slice(1));
      }
      caller.stream.cancel();
      await world.runtime.advance(0);
    }
    expect(missing).toMatchInlineSnapshot(`
      [
        "etcdserverpb.Auth/AuthEnable",
        "etcdserverpb.Auth/AuthDisable",
        "etcdserverpb.Auth/UserAdd",
        "etcdserverpb.Auth/UserGet",
        "etcdserverpb.Auth/UserDelete",
        "etcdserverpb.Auth/UserChangePassword",
        "etcdserverpb.Auth/UserGrantRole",
        "etcdserverpb.Auth/UserRevokeRole",
        "etcdserverpb.Auth/RoleAdd",
        "etcdserverpb.Auth/RoleGet",
        "etcdserverpb.Auth/RoleDelete",
        "etcdserverpb.Auth/RoleGrantPermission",
        "etcdserverpb.Auth/RoleRevokePermission",
        "etcdserverpb.Maintenance/Defragment",
        "etcdserverpb.Maintenance/Hash",
        "etcdserverpb.Maintenance/Snapshot",
        "etcdserverpb.Maintenance/Downgrade",
        "v3electionpb.Election/Campaign",
        "v3electionpb.Election/Proclaim",
        "v3electionpb.Election/Leader",
        "v3electionpb.Election/Observe",
        "v3electionpb.Election/Resign",
        "v3lockpb.Lock/Lock",
        "v3lockpb.Lock/Unlock",
      ]
    `);
  });

  test('a request that does not decode is answered Internal', async () => {
    const { end } = await world.call(KV.methods.range, Uint8Array.of(0x0a, 5, 1));
    expect(end.code).toBe(13);
    expect(end.message).toMatch(/^grpc: error unmarshalling request: /);
  });
});

// ---- KV -----------------------------------------------------------------------------------------------------------------------------

describe('KV', () => {
  const { range, rangeStream, put, deleteRange, txn, compact } = KV.methods;
  const key = bytes('a');

  test('headers name the cluster, the member, its term and the present revision', async () => {
    expect((await world.ask(range, { key })).header).toEqual(header(1));
    expect((await world.ask(put, { key })).header).toEqual(header(2));
    expect((await world.ask(put, { key })).header).toEqual(header(3));
    expect((await world.ask(range, { key, revision: 2 })).header).toEqual(header(3));
    expect((await world.ask(deleteRange, { key: bytes('none') })).header).toEqual(header(3));
    expect((await world.ask(compact, { revision: 2 })).header).toEqual(header(3));
    expect((await world.ask(txn, {})).header).toEqual(header(3));
  });

  test('sub-responses of a txn have the revision alone, that of a nested txn not even it', async () => {
    const { header: outer, responses } = await world.ask(txn, {
      success: [
        { requestPut: { key, value: bytes('1') } },
        { requestRange: { key } },
        { requestTxn: { success: [{ requestRange: { key } }] } },
      ],
    });
    const only = (revision: number) => ({ clusterId: 0n, memberId: 0n, revision, raftTerm: 0 });
    expect(outer).toEqual(header(2));
    expect(responses[0]?.responsePut?.header).toEqual(only(2));
    expect(responses[1]?.responseRange?.header).toEqual(only(2));
    expect(text(responses[1]!.responseRange!.kvs[0]!.value)).toBe('1');
    expect(responses[2]?.responseTxn?.header).toEqual(only(0));
  });

  test.each([
    ['a range without key', range, { sortOrder: 9, revision: 99 }, '3 etcdserver: key is not provided'],
    ['a range sorted in no known way', range, { key, sortOrder: 9, revision: 99 }, '3 etcdserver: invalid sort option'],
    ['a range of the future', range, { key, revision: 99 }, '11 etcdserver: mvcc: required revision is a future revision'],
    ['a put without key', put, { value: key, ignoreValue: true }, '3 etcdserver: key is not provided'],
    ['a value to be ignored', put, { key, value: key, ignoreValue: true, ignoreLease: true, lease: 5n }, '3 etcdserver: value is provided'],
    ['a lease to be ignored', put, { key, ignoreValue: true, ignoreLease: true, lease: 5n }, '3 etcdserver: lease is provided'],
    ['a value to keep of no key', put, { key, ignoreValue: true }, '3 etcdserver: key not found'],
    ['a lease that is not there', put, { key, ignoreValue: true, lease: 5n }, '5 etcdserver: requested lease not found'],
    ['a delete without key', deleteRange, {}, '3 etcdserver: key is not provided'],
    ['a compaction of the future', compact, { revision: 99 }, '11 etcdserver: mvcc: required revision is a future revision'],
    ['a txn operation without content', txn, { success: [{}] }, '3 etcdserver: key not found'],
    ['a txn condition without key', txn, { compare: [{}] }, '3 etcdserver: key is not provided'],
    ['129 conditions', txn, { compare: Array.from({ length: 129 }, () => ({})) }, '3 etcdserver: too many operations in txn request'],
    [
      'a key put twice',
      txn,
      { failure: [{ requestPut: { key } }, { requestPut: { key } }] },
      '3 etcdserver: duplicate key given in txn request',
    ],
    [
      'a range of the past in a txn',
      txn,
      { success: [{ requestRange: { key, revision: -1 } }] },
      '11 etcdserver: mvcc: required revision has been compacted',
    ],
  ] as const)('%s is refused in the words of etcd', async (_name, method, request, words) => {
    if (words.includes('compacted')) {
      await world.put('a');
      await world.ask(compact, { revision: 2 });
    }
    expect(await world.refusal(method as MethodDescriptor<unknown, unknown>, request)).toBe(words);
  });

  test('a request above the limit is refused, and surely not applied', async () => {
    const { end } = await world.call(put, { key, value: new Uint8Array(1.5 * 1024 * 1024) });
    expect([end.code, end.message]).toEqual([3, 'etcdserver: request is too large']);
    expect((await world.ask(range, { key })).count).toBe(0);
  });

  test('a linearizable read fails where the barrier does, a serializable one does not ask', async () => {
    await world.put('a');
    world.barrierError = new StatusError(14, 'etcdserver: request timed out');
    expect(await world.refusal(range, { key })).toBe('14 etcdserver: request timed out');
    expect(await world.refusal(txn, { success: [{ requestRange: { key } }] })).toBe('14 etcdserver: request timed out');
    expect((await world.ask(range, { key, serializable: true })).count).toBe(1);
    expect((await world.ask(txn, { success: [{ requestRange: { key, serializable: true } }] })).succeeded).toBe(true);
    // No read at all counts as all reads serializable, as in etcd.
    const compare = [{ key, target: Compare_CompareTarget.VERSION, version: 1 }];
    expect((await world.ask(txn, { compare })).succeeded).toBe(true);
    expect((await world.call(txn, { success: [{ requestTxn: {} }] })).end.code).toBe(0);
  });

  test('reads that only look stay out of the log', async () => {
    const { appliedIndex } = world.replica;
    await world.ask(range, { key });
    await world.ask(txn, { success: [{ requestRange: { key } }], failure: [{ requestRange: { key } }] });
    expect(world.replica.appliedIndex).toBe(appliedIndex);
  });

  test('a physical compaction is answered when storage is rid of what it took out', async () => {
    await world.put('a');
    let isAnswered = false;
    const compacted = world.start(compact, { revision: 2, physical: true }).then((outcome) => {
      isAnswered = true;
      return outcome;
    });
    await world.runtime.advance(1000);
    expect(isAnswered).toBe(false);
    world.finishCompaction();
    expect((await world.runtime.run(compacted)).end.code).toBe(0);
  });

  test('without a leader a caller that asks for one is refused and told that nothing was applied', async () => {
    world.hasLeader = false;
    const { end } = await world.call(put, { key }, requireLeader);
    expect([end.code, end.message, end.trailer('conclave-outcome')]).toEqual([14, 'etcdserver: no leader', 'not-applied']);
    expect((await world.ask(range, { key, serializable: true })).count).toBe(0);
    expect((await world.call(put, { key }, { metadata: { hasleader: 'false' } })).end.code).toBe(0);
  });

  test('a refusal at apply is certain, and says so where its status would leave it open', async () => {
    world.outcome = { kind: 'failed', error: new StatusError(14, 'etcdserver: leader changed') };
    const { end } = await world.call(put, { key });
    expect([end.code, end.message, end.trailer('conclave-outcome')]).toEqual([14, 'etcdserver: leader changed', 'not-applied']);
    world.outcome = { kind: 'failed', error: new StatusError(5, 'etcdserver: requested lease not found') };
    expect((await world.call(put, { key })).end.trailer('conclave-outcome')).toBeUndefined();
  });

  describe('RangeStream', () => {
    async function chunks(request: Init<Parameters<typeof rangeStream.input.create>[0]>) {
      const caller = world.open(rangeStream);
      caller.stream.write(rangeStream.input.encode(request as never));
      caller.stream.halfClose();
      await world.runtime.runUntil(() => caller.end !== undefined);
      return { end: caller.end!, parts: caller.received.map(({ rangeResponse }) => rangeResponse as RangeResponse) };
    }
    const all = { key: bytes('\0'), rangeEnd: bytes('\0') };

    test('gives ten keys first, then larger or smaller chunks, and the totals with the last', async () => {
      for (let n = 0; n < 100; n++) await world.put(`k${String(n).padStart(3, '0')}`, 'x'.repeat(n < 50 ? 10 : 100));
      const { end, parts } = await chunks(all);
      expect(end.code).toBe(0);
      expect(parts.map(({ kvs }) => kvs.length)).toEqual([10, 20, 40, 20, 10, 0]);
      expect(parts.flatMap(({ kvs }) => kvs).map((kv) => text(kv.key))).toEqual(
        Array.from({ length: 100 }, (_, n) => `k${String(n).padStart(3, '0')}`),
      );
      for (const part of parts.slice(0, -1)) expect([part.header, part.count, part.more]).toEqual([undefined, 0, false]);
      expect(parts.at(-1)).toMatchObject({ header: header(101), count: 100, more: false });
    });

    test('keeps its revision while writes go on', async () => {
      for (let n = 0; n < 40; n++) await world.put(`k${n}`);
      const caller = world.open(rangeStream);
      caller.stream.pause();
      caller.stream.write(rangeStream.input.encode({ ...all, keysOnly: true }));
      await world.runtime.advance(0);
      await world.ask(deleteRange, all);
      caller.stream.resume();
      await world.runtime.runUntil(() => caller.end !== undefined);
      const kvs = caller.received.flatMap(({ rangeResponse }) => rangeResponse!.kvs);
      expect(kvs).toHaveLength(40);
      expect(kvs.every(({ value }) => value.length === 0)).toBe(true);
      expect(caller.received.at(-1)?.rangeResponse?.header?.revision).toBe(41);
    });

    test('reads no further than its caller, and gives up with it', async () => {
      for (let n = 0; n < 100; n++) await world.put(`k${n}`, 'x'.repeat(1500));
      const caller = world.open(rangeStream);
      caller.stream.pause();
      caller.stream.write(rangeStream.input.encode(all));
      await world.runtime.advance(0);
      await world.ask(compact, { revision: await world.put('k0') });
      // Compaction takes nothing out while the read under way may need it.
      const compactsAway = () => [1, 2, 3, 4].some(() => world.mvcc.compactStep(1_000_000));
      expect(compactsAway()).toBe(false);
      caller.stream.cancel();
      await world.runtime.advance(0);
      expect(compactsAway()).toBe(true);
    });

    test('honours limit and count_only', async () => {
      for (let n = 0; n < 15; n++) await world.put(`k${String(n).padStart(2, '0')}`);
      const limited = await chunks({ ...all, limit: 12 });
      expect(limited.parts.map(({ kvs }) => kvs.length)).toEqual([10, 2]);
      expect(limited.parts.at(-1)).toMatchObject({ count: 15, more: true });
      const counted = await chunks({ ...all, countOnly: true });
      expect(counted.parts).toMatchObject([{ kvs: [], count: 15, more: false, header: header(16) }]);
    });

    test('refuses what it does not support', async () => {
      const words = async (request: object) => {
        const { end } = await chunks(request);
        return `${end.code} ${end.message}`;
      };
      expect(await words({})).toBe('3 etcdserver: key is not provided');
      expect(await words({ ...all, sortOrder: 2 })).toBe('12 RangeStream does not support custom sort orders');
      expect(await words({ ...all, sortTarget: 1 })).toBe('12 RangeStream does not support custom sort orders');
      expect(await words({ ...all, minModRevision: 1 })).toBe('12 RangeStream does not support revision filters');
      expect(await words({ ...all, revision: 9 })).toBe('11 etcdserver: mvcc: required revision is a future revision');
    });

    test('a message is a RangeStreamResponse', () => {
      expect(RangeStreamResponse.decode(new Uint8Array(0)).rangeResponse).toBeUndefined();
    });
  });
});

// ---- Watch --------------------------------------------------------------------------------------------------------------------------

describe('Watch', () => {
  const { watch } = Watch.methods;
  const key = bytes('a');

  const inShort = (response: WatchResponse): string =>
    [
      `${response.watchId}/${response.header?.revision}`,
      response.created ? 'created' : '',
      response.canceled ? 'canceled' : '',
      response.compactRevision > 0 ? String(response.compactRevision) : '',
      response.cancelReason,
      ...response.events.map(({ kv }) => `${text(kv!.key)}@${kv!.modRevision}`),
    ]
      .filter((part) => part !== '')
      .join(' ');

  async function say(caller: Caller<protocol.WatchRequest, WatchResponse>, ...requests: Init<protocol.WatchRequest>[]): Promise<string[]> {
    return (await caller.send(...requests)).map(inShort);
  }

  test('is created, told, canceled and forgotten in the words of etcd', async () => {
    await world.put('a');
    const caller = world.open(watch);
    expect(await say(caller, { createRequest: { key } })).toEqual(['0/2 created']);
    expect(await say(caller, { createRequest: { key, watchId: 5n } })).toEqual(['5/2 created']);
    expect(await say(caller, { createRequest: { key, watchId: 5n } })).toEqual([
      '-1/2 created canceled mvcc: duplicate watch ID provided on the WatchStream',
    ]);
    expect(await say(caller, { createRequest: { key: bytes('b'), rangeEnd: key } })).toEqual([
      '-1/2 created canceled mvcc: watcher range is empty',
    ]);
    expect(await say(caller, { createRequest: { key, startRevision: -1 } })).toEqual([
      '-1/2 created canceled etcdserver: mvcc: required revision has been compacted',
    ]);
    expect(await say(caller, {})).toEqual([]);
    expect(await say(caller, { progressRequest: {} })).toEqual(['-1/2']);
    expect(await say(caller, { cancelRequest: { watchId: 5n } })).toEqual(['5/2 canceled']);
    expect(await say(caller, { cancelRequest: { watchId: 5n } })).toEqual([]);
    await world.put('a');
    expect((await caller.settle()).map(inShort)).toEqual(['0/3 a@3']);
    expect(caller.end).toBeUndefined();
  });

  test('an event has the fields and the header that etcd gives it', async () => {
    const caller = world.open(watch);
    await caller.send({ createRequest: { key, prevKv: true } });
    await world.put('a', 'one');
    await world.put('a', 'two');
    const [, second] = await caller.settle();
    expect(second).toMatchObject({
      header: header(3),
      watchId: 0n,
      events: [
        {
          type: 0,
          kv: { key, value: bytes('two'), createRevision: 2, modRevision: 3, version: 2 },
          prevKv: { key, value: bytes('one'), createRevision: 2, modRevision: 2, version: 1 },
        },
      ],
    });
  });

  test('history comes after the reply, compacted history is told', async () => {
    for (let n = 0; n < 4; n++) await world.put('a');
    const caller = world.open(watch);
    expect(await say(caller, { createRequest: { key, startRevision: 4 } })).toEqual(['0/5 created', '0/5 a@4 a@5']);
    await world.ask(KV.methods.compact, { revision: 5 });
    expect(await say(caller, { createRequest: { key, startRevision: 4 } })).toEqual(['1/5 created', '1/0 canceled 5']);
  });

  test('stays open when the caller sends no more', async () => {
    const caller = world.open(watch);
    await caller.send({ createRequest: { key } });
    caller.stream.halfClose();
    await world.put('a');
    expect((await caller.settle()).map(inShort)).toEqual(['0/2 a@2']);
    expect(caller.end).toBeUndefined();
  });

  test('ends with Internal on a message that does not decode, and then costs nothing more', async () => {
    const caller = world.open(watch);
    await caller.send({ createRequest: { key } });
    caller.stream.write(Uint8Array.of(0x0a, 5, 1));
    await caller.settle();
    expect(caller.end?.code).toBe(13);
    expect(world.openWatchStreams).toBe(0);
  });

  test('a caller that is gone leaves nothing behind', async () => {
    const caller = world.open(watch);
    await caller.send({ createRequest: { key } });
    expect(world.openWatchStreams).toBe(1);
    caller.stream.cancel();
    await caller.settle();
    expect(world.openWatchStreams).toBe(0);
  });

  test('a caller that wants a leader is refused without one, and let go when there is none for three election timeouts', async () => {
    const caller = world.open(watch, requireLeader);
    const careless = world.open(watch);
    await say(caller, { createRequest: { key } });
    await say(careless, { createRequest: { key } });
    await world.runtime.advance(10_000);
    world.hasLeader = false;
    await world.runtime.advance(2000);
    world.hasLeader = true;
    await world.runtime.advance(1000);
    world.hasLeader = false;
    await world.runtime.advance(2000);
    expect(caller.end).toBeUndefined();
    await world.runtime.advance(1000);
    expect([caller.end?.code, caller.end?.message]).toEqual([14, 'etcdserver: no leader']);
    expect(careless.end).toBeUndefined();
    const late = world.open(watch, requireLeader);
    await say(late, { createRequest: { key } });
    expect([late.end?.code, late.end?.message]).toEqual([14, 'etcdserver: no leader']);
  });

  test('once the guard is stopped no timer of its is left', async () => {
    await world.open(watch, requireLeader).settle();
    const armed = world.runtime.pendingTimers;
    world.leaderGuard.stop();
    expect(world.runtime.pendingTimers).toBe(armed - 1);
  });

  test('a caller that does not read gets everything once it does', async () => {
    const caller = world.open(watch);
    await caller.send({ createRequest: { key } });
    caller.stream.pause();
    for (let n = 0; n < 50; n++) await world.put('a', 'x'.repeat(1000));
    caller.stream.resume();
    const revisions = (await caller.settle()).flatMap(({ events }) => events.map(({ kv }) => kv!.modRevision));
    expect(revisions).toEqual(Array.from({ length: 50 }, (_, n) => n + 2));
  });

  test('a caller that asks and asks and does not read is held back', async () => {
    const caller = world.open(watch);
    caller.stream.pause();
    const request = watch.input.encode({ createRequest: { key } });
    let taken = 0;
    for (let round = 0; round < 40; round++) {
      for (let n = 0; n < 1000 && caller.stream.write(request); n++) taken++;
      await world.runtime.advance(0);
    }
    const before = taken;
    for (let n = 0; n < 1000 && caller.stream.write(request); n++) taken++;
    await world.runtime.advance(0);
    expect(taken).toBe(before);
    caller.stream.resume();
    await world.runtime.advance(0);
    expect(caller.received.length).toBeGreaterThanOrEqual(before);
  });
});

// ---- Lease --------------------------------------------------------------------------------------------------------------------------

describe('Lease', () => {
  const { leaseGrant, leaseRevoke, leaseKeepAlive, leaseTimeToLive, leaseLeases } = Lease.methods;

  test('an id of 0 is chosen by the server: positive, and never one in use', async () => {
    const granted = await world.ask(leaseGrant, { ttl: 10 });
    expect(granted.id > 0n && granted.id < 2n ** 63n).toBe(true);
    expect(granted).toMatchObject({ header: header(1), ttl: 10, error: '' });
    expect((await world.ask(leaseGrant, { ttl: 10 })).id).not.toBe(granted.id);
  });

  test('a TTL is raised to the least, and refused above the greatest before anything else is looked at', async () => {
    for (const [id, ttl] of [
      [1n, 0],
      [2n, -5],
      [3n, 1],
    ] as const)
      expect((await world.ask(leaseGrant, { id, ttl })).ttl).toBe(2);
    expect((await world.ask(leaseGrant, { id: 4n, ttl: 9_000_000_000 })).ttl).toBe(9_000_000_000);
    expect(await world.refusal(leaseGrant, { id: 4n, ttl: 9_000_000_001 })).toBe('11 etcdserver: too large lease TTL');
    expect(await world.refusal(leaseGrant, { id: 4n, ttl: 5 })).toBe('9 etcdserver: lease already exists');
    expect((await world.ask(leaseGrant, { id: -7n, ttl: 5 })).id).toBe(-7n);
  });

  test('revoking takes the keys along; what is not there is not found', async () => {
    await world.ask(leaseGrant, { id: 7n, ttl: 5 });
    await world.ask(KV.methods.put, { key: bytes('a'), lease: 7n });
    expect(await world.ask(leaseRevoke, { id: 7n })).toEqual({ header: header(3) });
    expect((await world.ask(KV.methods.range, { key: bytes('a') })).count).toBe(0);
    expect(await world.refusal(leaseRevoke, { id: 7n })).toBe('5 etcdserver: requested lease not found');
  });

  test('TimeToLive tells what is left, and -1 of a lease that is not there', async () => {
    await world.ask(leaseGrant, { id: 7n, ttl: 100 });
    for (const key of ['b', 'a']) await world.ask(KV.methods.put, { key: bytes(key), lease: 7n });
    await world.runtime.advance(1500);
    expect(await world.ask(leaseTimeToLive, { id: 7n })).toEqual({ header: header(3), id: 7n, ttl: 98, grantedTtl: 100, keys: [] });
    expect((await world.ask(leaseTimeToLive, { id: 7n, keys: true })).keys).toEqual([bytes('a'), bytes('b')]);
    expect(await world.ask(leaseTimeToLive, { id: 8n, keys: true })).toEqual({
      header: header(3),
      id: 8n,
      ttl: -1,
      grantedTtl: 0,
      keys: [],
    });
  });

  test('Leases lists what expires first at its beginning', async () => {
    for (const [id, ttl] of [
      [1n, 50],
      [2n, 5],
      [3n, 20],
    ] as const)
      await world.ask(leaseGrant, { id, ttl });
    expect(await world.ask(leaseLeases, {})).toEqual({ header: header(1), leases: [{ id: 2n }, { id: 3n }, { id: 1n }] });
  });

  test('a lease that is kept alive lives, one that is not expires with its keys', async () => {
    for (const id of [1n, 2n]) {
      await world.ask(leaseGrant, { id, ttl: 3 });
      await world.ask(KV.methods.put, { key: bytes(`of ${id}`), lease: id });
    }
    const caller = world.open(leaseKeepAlive);
    for (let second = 0; second < 8; second++) {
      expect(await caller.send({ id: 1n })).toMatchObject([{ id: 1n, ttl: 3 }]);
      await world.runtime.advance(1000);
    }
    const { kvs } = await world.ask(KV.methods.range, { key: bytes('\0'), rangeEnd: bytes('\0') });
    expect(kvs.map((kv) => text(kv.key))).toEqual(['of 1']);
    expect(await caller.send({ id: 2n })).toMatchObject([{ id: 2n, ttl: 0 }]);
  });

  test('each request is answered, in order, and the end of requests ends the stream', async () => {
    await world.ask(leaseGrant, { id: 7n, ttl: 5 });
    const caller = world.open(leaseKeepAlive);
    for (const id of [7n, 99n, 0n, 7n]) caller.stream.write(leaseKeepAlive.input.encode({ id }));
    caller.stream.halfClose();
    const replies = await caller.settle();
    expect(replies.map(({ id, ttl }) => [id, ttl])).toEqual([
      [7n, 5],
      [99n, 0],
      [0n, 0],
      [7n, 5],
    ]);
    expect(replies[0]?.header).toEqual(header(1));
    expect(caller.end?.code).toBe(0);
  });

  test('the header is of the moment before the renewal', async () => {
    await world.ask(leaseGrant, { id: 7n, ttl: 3 });
    await world.ask(KV.methods.put, { key: bytes('a'), lease: 7n });
    const caller = world.open(leaseKeepAlive);
    await world.runtime.advance(0);
    // Expired and not revoked yet: the renewal waits for the revoke, which makes revision 3.
    const renewed = new Promise<void>((resolve) => {
      world.runtime.timer(3000, () => {
        caller.stream.write(leaseKeepAlive.input.encode({ id: 7n }));
        resolve();
      });
    });
    await world.runtime.advance(4000);
    await renewed;
    expect(world.mvcc.revision).toBe(3);
    expect(caller.received).toMatchObject([{ ttl: 0, id: 7n }]);
    expect(caller.received[0]!.header!.revision).toBeLessThanOrEqual(3);
  });
});

// ---- the rest -----------------------------------------------------------------------------------------------------------------------

test('MemberList has a header without revision', async () => {
  await world.put('a');
  const expected = {
    header: header(0),
    members: [{ id: memberId, name: 'one', peerUrls: ['http://peer'], clientUrls: ['http://client'], isLearner: false }],
  };
  expect(await world.ask(Cluster.methods.memberList, {})).toEqual(expected);
  expect(await world.ask(Cluster.methods.memberList, { linearizable: true })).toEqual(expected);
});

test('Status speaks of this member, and of a leader that is missing', async () => {
  await world.put('a');
  const status = await world.ask(Maintenance.methods.status, {});
  expect(status).toMatchObject({
    header: header(2),
    version: protocol.etcdApiVersion,
    storageVersion: protocol.etcdClusterVersion,
    leader: memberId,
    raftTerm: 1,
    raftIndex: world.replica.committedIndex,
    raftAppliedIndex: world.replica.appliedIndex,
    errors: [],
    isLearner: false,
    downgradeInfo: { enabled: false, targetVersion: '' },
  });
  expect(status.dbSize).toBeGreaterThan(0);
  expect(status.dbSizeInUse).toBeGreaterThan(0);
  world.hasLeader = false;
  expect(await world.ask(Maintenance.methods.status, {})).toMatchObject({ leader: 0n, errors: ['etcdserver: no leader'] });
});

test('alarms: none stand at first, one that is raised is told until it is ended, and unknown ones are not raised', async () => {
  const { alarm, status } = Maintenance.methods;
  for (const request of [{}, { alarm: 1 }, { action: 2 }, { action: 2, alarm: 1 }, { action: 1 }, { action: 9 }, { action: 1, alarm: 9 }]) {
    expect(await world.ask(alarm, request)).toEqual({ header: header(1), alarms: [] });
  }
  const raised = { header: header(1), alarms: [{ memberId: 7n, alarm: 1 }] };
  expect(await world.ask(alarm, { action: 1, memberId: 7n, alarm: 1 })).toEqual(raised);
  expect(await world.ask(alarm, {})).toEqual(raised);
  expect((await world.ask(status, {})).errors).toEqual(['memberID:7 alarm:NOSPACE ']);
  expect(await world.ask(alarm, { action: 2, memberId: 7n, alarm: 1 })).toEqual(raised);
  expect(await world.ask(alarm, {})).toEqual({ header: header(1), alarms: [] });
});

test('at its quota a member refuses what would grow, and says NOSPACE for itself; what frees room is let through', async () => {
  const { put, deleteRange, txn, range } = KV.methods;
  const key = Uint8Array.of(97);
  const full = '8 etcdserver: mvcc: database space exceeded';
  await world.put('a');
  world.quotaBytes = 1;
  expect(await world.refusal(put, { key, value: key })).toBe(full);
  expect(await world.ask(Maintenance.methods.alarm, {})).toMatchObject({ alarms: [{ memberId, alarm: 1 }] });
  // From here on the alarm decides, not the quota of the member that is asked.
  world.quotaBytes = 0;
  expect(await world.refusal(put, { key, value: key })).toBe(full);
  expect(await world.refusal(txn, { failure: [{ requestPut: { key } }] })).toBe(full);
  expect(await world.refusal(Lease.methods.leaseGrant, { ttl: 10 })).toBe(full);
  await world.ask(txn, { success: [{ requestDeleteRange: { key } }] });
  await world.ask(deleteRange, { key });
  await world.ask(range, { key });
  await world.ask(Maintenance.methods.alarm, { action: 2, memberId, alarm: 1 });
  await world.ask(put, { key, value: key });
});

test('a learner serves its status and what it holds, and nothing else', async () => {
  world.isLearner = true;
  const key = Uint8Array.of(97);
  const refused = '9 etcdserver: rpc not supported for learner';
  expect(await world.refusal(KV.methods.put, { key })).toBe(refused);
  expect(await world.refusal(KV.methods.range, { key })).toBe(refused);
  expect(await world.refusal(Cluster.methods.memberList, {})).toBe(refused);
  await world.ask(KV.methods.range, { key, serializable: true });
  await world.ask(Maintenance.methods.status, {});
});

test('HashKV tells what it hashed, and refuses the future', async () => {
  await world.put('a');
  await world.put('a');
  const { hashKv } = Maintenance.methods;
  const whole = await world.ask(hashKv, {});
  expect(whole).toMatchObject({ header: header(3), hashRevision: 3 });
  const older = await world.ask(hashKv, { revision: 2 });
  expect(older).toMatchObject({ header: header(3), hashRevision: 2 });
  expect(older.hash).not.toBe(whole.hash);
  expect(await world.refusal(hashKv, { revision: 9 })).toBe('11 etcdserver: mvcc: required revision is a future revision');
});

test('Auth is that of a server without users', async () => {
  const { authStatus, userList, roleList, authenticate } = Auth.methods;
  expect(await world.ask(authStatus, {})).toEqual({ header: header(1), enabled: false, authRevision: 1 });
  expect(await world.ask(userList, {})).toEqual({ header: header(1), users: [] });
  expect(await world.ask(roleList, {})).toEqual({ header: header(1), roles: [] });
  expect(await world.refusal(authenticate, { name: 'a', password: 'b' })).toBe('9 etcdserver: authentication is not enabled');
});

test('health is known of the server as a whole', async () => {
  expect(await world.ask(Health.methods.check, {})).toEqual({ status: 1 });
  expect(await world.refusal(Health.methods.check, { service: 'etcdserverpb.KV' })).toBe('5 unknown service');
  const watched = world.open(Health.methods.watch);
  expect(await watched.send({})).toEqual([{ status: 1 }]);
  const unknown = world.open(Health.methods.watch);
  expect(await unknown.send({ service: 'x' })).toEqual([{ status: 3 }]);
  expect([watched.end, unknown.end]).toEqual([undefined, undefined]);
});
