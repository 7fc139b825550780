import {
  AlarmRequest_AlarmAction,
  AlarmType,
  Cluster,
  type Init,
  KV,
  Maintenance,
  type Member,
  type MethodDescriptor,
} from '@conclave/protocol';
import { VirtualRuntime } from '@conclave/testing';
import { SimulatedDisk } from '@conclave/testing/simulation';
import { loopback } from '@conclave/wire';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { firstEntryVersion, entryVersion as newestEntryVersion } from './apply/entry.ts';
import { type ConclaveServer, type ServerOptions, startServer } from './embed.ts';
import { MemoryBackend } from './storage/backend/memory.ts';
import { inProcessPeers } from './transport/in-process.ts';

const encoder = new TextEncoder();
const urlOf = (name: string): string => `http://${name}:2380`;

/** Members of one cluster, in memory and in virtual time. */
class World {
  readonly runtime = new VirtualRuntime({ seed: 11 });
  readonly network = loopback({ runtime: this.runtime });
  readonly peerNetwork = inProcessPeers(this.runtime);
  readonly servers = new Map<string, ConclaveServer>();
  readonly #disks = new Map<string, { readonly disk: SimulatedDisk; readonly backend: MemoryBackend }>();

  /** Founds a cluster of these, or starts members that were added. */
  async start(names: readonly string[], options: (name: string) => ServerOptions = () => ({})): Promise<void> {
    const state = this.servers.size === 0 ? 'new' : 'existing';
    const running = [...new Set([...this.servers.keys(), ...names])];
    const { runtime, network, peerNetwork } = this;
    const initialCluster = Object.fromEntries(running.map((name) => [name, [urlOf(name)]]));
    const started = names.map(async (name) => {
      const config = { name, runtime, network, peerNetwork, peerUrls: [urlOf(name)], initialCluster, initialClusterState: state } as const;
      this.servers.set(name, await startServer({ ...config, ...options(name) }));
    });
    await runtime.run(Promise.all(started));
  }

  /** A data dir that outlives the server. */
  onDisk(name: string): ServerOptions {
    const kept = this.#disks.get(name) ?? { disk: new SimulatedDisk(), backend: new MemoryBackend() };
    this.#disks.set(name, kept);
    return { dataDir: '/data', storage: { disk: kept.disk.mount(), backend: () => kept.backend } };
  }

  lose(name: string): void {
    this.#disks.delete(name);
  }

  async stop(name: string): Promise<void> {
    await this.runtime.run(this.at(name).close());
    this.servers.delete(name);
  }

  /** Asks again and again, in virtual time. */
  async until(holds: () => Promise<boolean>): Promise<void> {
    for (let asked = 0; asked < 100; asked++) {
      if (await holds()) return;
      await this.runtime.advance(100);
    }
    throw new Error('it never came true');
  }

  at(name: string): ConclaveServer {
    const server = this.servers.get(name);
    if (server === undefined) throw new Error(`${name} does not run`);
    return server;
  }

  get leader(): string {
    return [...this.servers.keys()].find((name) => this.at(name).isLeader)!;
  }

  get follower(): string {
    return [...this.servers.keys()].find((name) => !this.at(name).isLeader)!;
  }

  async call<I, O>(name: string, method: MethodDescriptor<I, O>, request: Init<I>): Promise<O | string> {
    const connection = this.network.transport(name);
    const answer = new Promise<O | string>((resolve) => {
      connection.unary(method.path, method.input.encode(request), {}, (end, response) => {
        resolve(response === undefined ? end.message.replace('etcdserver: ', '') : method.output.decode(response));
      });
    });
    return this.runtime.run(answer);
  }

  async ask<I, O extends object>(name: string, method: MethodDescriptor<I, O>, request: Init<I>): Promise<O> {
    const answer = await this.call(name, method, request);
    if (typeof answer === 'string') throw new Error(answer);
    return answer;
  }

  async list(name: string): Promise<Member[]> {
    return (await this.ask(name, Cluster.methods.memberList, { linearizable: true })).members;
  }

  async close(): Promise<void> {
    await this.runtime.run(Promise.all([...this.servers.values()].map((server) => server.close())));
  }
}

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.close());

const { memberAdd, memberPromote, memberRemove, memberUpdate } = Cluster.methods;

describe('a cluster', () => {
  it('is founded by its members, and every one lists all of them', async () => {
    await world.start(['a', 'b', 'c']);
    const lists = [await world.list('a'), await world.list('b'), await world.list('c')];
    expect(lists[0]!.map(({ name }) => name).sort()).toEqual(['a', 'b', 'c']);
    expect(lists[1]).toEqual(lists[0]);
    expect(lists[2]).toEqual(lists[0]);
  });

  it.each(['leader', 'follower'] as const)('takes a learner, promotes it and lets a member go, asked at a %s', async (role) => {
    await world.start(['a', 'b', 'c']);
    const door = world[role];
    await world.ask(door, KV.methods.put, { key: encoder.encode('before'), value: encoder.encode('1') });
    const { member } = await world.ask(door, memberAdd, { peerUrls: [urlOf('d')], isLearner: true });
    const id = member!.id;
    expect(await world.call(door, memberPromote, { id })).toBe('can only promote a learner member which is in sync with leader');
    await world.start(['d']);
    expect(world.at('d').memberId).toBe(id);
    expect((await world.ask('d', KV.methods.range, { key: encoder.encode('before'), serializable: true })).kvs).toHaveLength(1);
    expect(await world.call('d', KV.methods.range, { key: encoder.encode('before') })).toBe('rpc not supported for learner');
    const promoted = await world.ask(door, memberPromote, { id });
    expect(promoted.members.find((each) => each.id === id)).toMatchObject({ name: 'd', isLearner: false });
    expect((await world.ask('d', KV.methods.range, { key: encoder.encode('before') })).kvs).toHaveLength(1);

    const gone = [...world.servers.keys()].find((name) => name !== door && name !== 'd')!;
    const removed = await world.ask(door, memberRemove, { id: world.at(gone).memberId });
    expect(removed.members).toHaveLength(3);
    await expect(world.runtime.run(world.at(gone).failed)).rejects.toThrow('has been permanently removed from the cluster');
    await world.ask('d', KV.methods.put, { key: encoder.encode('after'), value: encoder.encode('1') });
    expect(await world.call(door, memberRemove, { id: world.at(gone).memberId })).toBe('member not found');
  });

  it('goes on when its leader removes itself, which is told so first', async () => {
    await world.start(['a', 'b', 'c']);
    const { leader, follower } = world;
    const { memberId, failed } = world.at(leader);
    const { members } = await world.ask(leader, memberRemove, { id: memberId });
    expect(members).toHaveLength(2);
    await expect(world.runtime.run(failed)).rejects.toThrow(`member ${memberId.toString(16)} has been permanently removed`);
    await world.ask(follower, KV.methods.put, { key: encoder.encode('a'), value: encoder.encode('1') });
    expect(await world.list(follower)).toHaveLength(2);
  });

  it('moves a member to other URLs and changes nothing else of it', async () => {
    await world.start(['a', 'b']);
    const { memberId } = world.at('b');
    const before = (await world.list('a')).find(({ id }) => id === memberId)!;
    await world.ask('a', memberUpdate, { id: memberId, peerUrls: ['http://b:2381', 'http://b:2380'] });
    const after = (await world.list('b')).find(({ id }) => id === memberId)!;
    expect(after).toEqual({ ...before, peerUrls: ['http://b:2381', 'http://b:2380'] });
    expect(await world.call('a', memberUpdate, { id: memberId, peerUrls: [] })).toBe('given member URLs are invalid');
    expect(await world.call('a', memberUpdate, { id: memberId, peerUrls: ['nonsense'] })).toBe('given member URLs are invalid');
    expect(await world.call('a', memberUpdate, { id: memberId, peerUrls: [urlOf('a')] })).toBe('Peer URLs already exists');
  });

  it('grows from one member to three', async () => {
    await world.start(['a']);
    for (const name of ['b', 'c']) {
      const { member } = await world.ask('a', memberAdd, { peerUrls: [urlOf(name)] });
      await world.start([name]);
      expect(world.at(name).memberId).toBe(member!.id);
    }
    expect((await world.list('c')).map(({ name }) => name).sort()).toEqual(['a', 'b', 'c']);
    const { leader } = await world.ask('b', Maintenance.methods.status, {});
    expect(leader).toBe(world.at('a').memberId);
  });

  it('raises no entry of a version that one of its members does not know, until that one is of a newer release', async () => {
    const raise = { action: AlarmRequest_AlarmAction.ACTIVATE, alarm: AlarmType.NOSPACE, memberId: 1n };
    const options = (name: string, entryVersion: number): ServerOptions => ({ ...world.onDisk(name), entryVersion });
    await world.start(['a', 'b', 'c'], (name) => options(name, name === 'c' ? firstEntryVersion : newestEntryVersion));
    for (const name of ['a', 'b', 'c']) expect(await world.call(name, Maintenance.methods.alarm, raise)).toBe('not capable');
    await world.ask('c', KV.methods.put, { key: encoder.encode('a'), value: encoder.encode('1') });

    await world.stop('c');
    await world.start(['c'], (name) => options(name, newestEntryVersion));
    await world.until(async () => typeof (await world.call('a', Maintenance.methods.alarm, raise)) !== 'string');
    expect(await world.call('c', KV.methods.put, { key: encoder.encode('a') })).toBe('mvcc: database space exceeded');

    // And the way back is barred, before it could meet what it does not know.
    await world.stop('c');
    await expect(world.start(['c'], (name) => options(name, firstEntryVersion))).rejects.toThrow(
      'the cluster has entries up to version 2, this program knows 1',
    );
  });

  it.each([
    ['the log', 5000],
    ['a snapshot', 5],
  ])('refuses a joiner of an older release than its entries ask for, brought by %s', async (_, snapshotCatchUpEntries) => {
    const raise = { alarm: AlarmType.NOSPACE, memberId: 1n };
    await world.start(['a', 'b', 'c'], () => ({ snapshotCatchUpEntries }));
    await world.until(
      async () =>
        typeof (await world.call('a', Maintenance.methods.alarm, { ...raise, action: AlarmRequest_AlarmAction.ACTIVATE })) !== 'string',
    );
    await world.ask('a', Maintenance.methods.alarm, { ...raise, action: AlarmRequest_AlarmAction.DEACTIVATE });
    for (let count = 0; count < 120; count++)
      await world.ask('a', KV.methods.put, { key: encoder.encode('a'), value: new Uint8Array(20_000) });
    await world.ask('a', memberAdd, { peerUrls: [urlOf('d')], isLearner: true });
    await expect(world.start(['d'], () => ({ snapshotCatchUpEntries, entryVersion: firstEntryVersion }))).rejects.toThrow(
      'the cluster has entries up to version 2, this program knows 1',
    );
  });

  it('tells a member that was removed while it was down, when it starts again', async () => {
    await world.start(['a', 'b', 'c'], (name) => world.onDisk(name));
    const { memberId } = world.at('c');
    await world.stop('c');
    await world.ask('a', memberRemove, { id: memberId });
    for (const _ of ['told by the others', 'known by itself']) {
      await expect(world.start(['c'], (name) => world.onDisk(name))).rejects.toThrow('has been permanently removed from the cluster');
    }
    await world.ask('b', KV.methods.put, { key: encoder.encode('a'), value: encoder.encode('1') });
  });

  it('does not let a founder that lost its data dir found the cluster once more', async () => {
    const options = (name: string): ServerOptions => ({ ...world.onDisk(name), advertise: [`http://${name}:2379`] });
    await world.start(['a', 'b', 'c'], options);
    await world.stop('c');
    world.lose('c');
    const again = world.start(['c'], (name) => ({ ...options(name), initialClusterState: 'new' }));
    await expect(again).rejects.toThrow('has already been bootstrapped');
  });

  it('does not take a joiner that describes another cluster', async () => {
    await world.start(['a', 'b', 'c']);
    await expect(world.start(['d'])).rejects.toThrow('member count is unequal');
  });
});
