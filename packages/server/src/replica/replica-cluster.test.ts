import { LeaseGrantRequest } from '@conclave/protocol';
import { StatusError } from '@conclave/wire';
import { describe, expect, it } from 'vitest';
import { type Member, ReplicaCluster } from '../../test/replica-cluster.ts';

/** How a promise ended, or 'pending'. */
function watched<T>(promise: Promise<T>): { state: T | StatusError | 'pending' } {
  const box: { state: T | StatusError | 'pending' } = { state: 'pending' };
  promise.then(
    (value) => {
      box.state = value;
    },
    (error: unknown) => {
      box.state = error as StatusError;
    },
  );
  return box;
}

const words = (text: string): unknown => expect.objectContaining({ message: `etcdserver: ${text}` });

function puts(cluster: ReplicaCluster): (readonly string[])[] {
  return [...cluster.members.values()].map(({ machine }) => machine.state.puts);
}

async function putAll(cluster: ReplicaCluster, member: Member, count: number): Promise<void> {
  for (let at = 0; at < count; at++) await cluster.runtime.run(cluster.put(member.id, `${member.id}/${at}`));
}

function read(member: Member): { state: StatusError | 'pending' | readonly string[] } {
  const box: { state: StatusError | 'pending' | readonly string[] } = { state: 'pending' };
  member.replica.readBarrier((error) => {
    box.state = error ?? member.machine.state.puts;
  });
  return box;
}

describe('requests', () => {
  it('are answered by the member that was asked, and applied by all', async () => {
    const cluster = await ReplicaCluster.started();
    const results = await cluster.runtime.run(Promise.all([1n, 2n, 3n].map((id) => cluster.put(id, `from ${id}`))));
    expect(results.every((result) => /^put#\d+$/.test(result))).toBe(true);
    await cluster.settle();
    for (const state of puts(cluster)) expect([...state].sort()).toEqual(['from 1', 'from 2', 'from 3']);
  });

  it('of one turn travel to each member in one packet, with what the sender says of itself', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    await cluster.settle();
    const packets: number[] = [];
    cluster.onPacket = (packet) => {
      if (packet.from !== leader.id) return;
      expect(packet).toMatchObject({ incarnation: 1, durableIndex: 4, commitIndex: 4 });
      packets.push(
        packet.frames.flatMap((frame) => (frame.kind === 'raft' && frame.message.type === 'appendEntries' ? frame.message.entries : []))
          .length,
      );
    };
    for (let at = 0; at < 50; at++) void cluster.put(leader.id, `${at}`);
    await cluster.runtime.advance(0);
    expect(packets).toEqual([50, 50]);
  });

  it('are committed by the others while the disk of the leader is stuck, which goes on with its heartbeats', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    await cluster.settle();
    leader.disk.isStuck = true;
    const put = watched(cluster.put(leader.id, 'a'));
    await cluster.runtime.advance(5000);
    expect(leader.replica.isLeader).toBe(true);
    const others = [...cluster.members.values()].filter(({ id }) => id !== leader.id);
    for (const { machine } of others) expect(machine.state.puts).toEqual(['a']);
    // What is not on its own disk it does not apply.
    expect(put.state).toBe('pending');
    leader.disk.unstick();
    await cluster.runtime.advance(10);
    expect(put.state).toBe('put#5');
  });

  it('that were on their way to a leader which died are told so when the next one has begun, and were not applied', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const others = [...cluster.members.values()].filter(({ id }) => id !== leader.id);
    cluster.crash(leader.id);
    const lost = others.map(({ id }) => watched(cluster.put(id, `lost ${id}`)));
    await cluster.leader();
    await cluster.settle();
    for (const { state } of lost) {
      expect(state).toEqual(words('leader changed'));
      expect((state as StatusError).trailers).toEqual({ 'conclave-outcome': 'not-applied' });
    }
    expect(puts(cluster)).toEqual([[], []]);
  });

  it('whose answer is lost end when their time is over, with their outcome open', async () => {
    const cluster = await ReplicaCluster.started();
    const follower = await cluster.follower();
    cluster.passes = (frame) => frame.kind !== 'raft' || frame.message.type !== 'propose';
    const lost = watched(cluster.put(follower.id, 'lost'));
    await cluster.runtime.advance(6999);
    expect(lost.state).toBe('pending');
    await cluster.runtime.advance(200);
    expect(lost.state).toEqual(words('request timed out'));
    expect((lost.state as StatusError).trailers).toEqual({});
  });

  it('that wait for a leader go to the next one', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    cluster.crash(leader.id);
    const [other] = cluster.members.values();
    await cluster.runtime.runUntil(() => other!.replica.leader === 0n);
    expect(await cluster.runtime.run(cluster.put(other!.id, 'a'))).toMatch(/^put#/);
  });

  it('are told apart from those that never left, when there is no leader for too long', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const [other, another] = [...cluster.members.values()].filter(({ id }) => id !== leader.id);
    cluster.crash(leader.id);
    cluster.crash(another!.id);
    await cluster.runtime.runUntil(() => other!.replica.leader === 0n);
    const put = watched(cluster.put(other!.id, 'a'));
    await cluster.runtime.advance(7100);
    expect(put.state).toEqual(words('request timed out'));
    expect((put.state as StatusError).trailers).toEqual({ 'conclave-outcome': 'not-applied' });
  });
});

describe('reads', () => {
  it('see what any member acknowledged, on any member', async () => {
    const cluster = await ReplicaCluster.started();
    cluster.faults = { isCut: false, loss: 0, duplication: 0, delayMs: [1, 30] };
    for (let round = 0; round < 20; round++) {
      const writer = BigInt(1 + (round % 3));
      await cluster.runtime.run(cluster.put(writer, `${round}`));
      const reads = [...cluster.members.values()].map(read);
      await cluster.runtime.advance(300);
      for (const { state } of reads) expect(state).toContain(`${round}`);
    }
  });

  it('are not answered by a leader that is cut off, and go ahead on the others', async () => {
    const cluster = await ReplicaCluster.started();
    const old = await cluster.leader();
    cluster.isolate(old.id);
    const stale = read(old);
    const [other] = [...cluster.members.values()].filter(({ id }) => id !== old.id);
    await cluster.runtime.runUntil(() => other!.replica.leader !== old.id && other!.replica.leader !== 0n);
    await cluster.runtime.run(cluster.put(other!.id, 'new'));
    expect(stale.state).toBe('pending');
    cluster.isolate(old.id, false);
    await cluster.runtime.runUntil(() => stale.state !== 'pending');
    expect(stale.state).toEqual(['new']);
  });

  it('are answered however long the way to the leader is', async () => {
    const cluster = await ReplicaCluster.started();
    cluster.faults = { isCut: false, loss: 0, duplication: 0, delayMs: [150, 150] };
    await cluster.runtime.advance(1000);
    await cluster.settle();
    const far = read(await cluster.follower());
    await cluster.runtime.advance(1000);
    expect(far.state).toEqual([]);
  });

  it('whose question or answer is lost are answered with those that come later, or when the question is repeated', async () => {
    const cluster = await ReplicaCluster.started();
    const follower = await cluster.follower();
    let lost = 0;
    cluster.passes = (frame) => {
      const isLost = frame.kind === 'raft' && frame.message.type === 'readIndexResponse' && lost++ === 0;
      return !isLost;
    };
    const first = read(follower);
    await cluster.runtime.advance(100);
    expect(first.state).toBe('pending');
    const second = read(follower);
    await cluster.runtime.advance(100);
    expect([first.state, second.state]).toEqual([[], []]);
    lost = 0;
    const third = read(follower);
    await cluster.runtime.advance(300);
    expect(third.state).toBe('pending');
    await cluster.runtime.advance(500);
    expect(third.state).toEqual([]);
  });

  it('are asked again when the leader changes', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const follower = await cluster.follower();
    cluster.passes = (frame) => frame.kind !== 'raft' || frame.message.type !== 'readIndexResponse';
    const waiting = read(follower);
    await cluster.runtime.advance(10);
    cluster.passes = () => true;
    cluster.crash(leader.id);
    await cluster.settle();
    await cluster.runtime.advance(10);
    expect(waiting.state).toEqual([]);
  });
});

describe('leases', () => {
  const grant = (id: bigint, ttl: number): Uint8Array => LeaseGrantRequest.encode({ id, ttl });

  async function granted(ttl: number): Promise<{ cluster: ReplicaCluster; leader: Member; follower: Member }> {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    await cluster.runtime.run(leader.replica.propose('leaseGrant', grant(7n, ttl)));
    await cluster.settle();
    return { cluster, leader, follower: await cluster.follower() };
  }

  it('are renewed and looked at on any member', async () => {
    const { cluster, leader, follower } = await granted(5);
    const { runtime } = cluster;
    for (let round = 0; round < 5; round++) {
      await runtime.advance(4000);
      const { replica } = round % 2 === 0 ? follower : leader;
      expect((await runtime.run(replica.leaseRemaining(7n)))?.remainingSeconds).toBeLessThanOrEqual(1);
      expect(await runtime.run(replica.renewLease(7n))).toBe(5);
      expect(await runtime.run(replica.leaseRemaining(7n))).toEqual({ remainingSeconds: 4, grantedSeconds: 5 });
    }
    await runtime.advance(5100);
    for (const { machine } of cluster.members.values()) expect(machine.state.leases.size).toBe(0);
    expect(await runtime.run(follower.replica.renewLease(7n))).toBe(0);
    expect(await runtime.run(follower.replica.leaseRemaining(7n))).toBeUndefined();
  });

  it('get their full time and an election timeout from a new leader', async () => {
    const { cluster, leader } = await granted(5);
    const { runtime } = cluster;
    await runtime.advance(4000);
    cluster.crash(leader.id);
    const next = await cluster.leader();
    await cluster.settle();
    await runtime.advance(5900);
    expect(next.machine.state.leases.size).toBe(1);
    await runtime.advance(300);
    expect(next.machine.state.leases.size).toBe(0);
  });

  it('live on when a leader that lost its office wakes up and would revoke them', async () => {
    const { cluster, leader } = await granted(5);
    const { runtime } = cluster;
    cluster.isolate(leader.id);
    const [other] = [...cluster.members.values()].filter(({ id }) => id !== leader.id);
    await runtime.runUntil(() => other!.replica.leader !== leader.id && other!.replica.leader !== 0n);
    for (let round = 0; round < 4; round++) {
      await runtime.advance(3000);
      expect(await runtime.run(other!.replica.renewLease(7n))).toBe(5);
    }
    expect(leader.replica.leases.remainingSeconds(7n)).toBeUndefined();
    cluster.isolate(leader.id, false);
    await cluster.settle();
    await runtime.advance(1000);
    for (const { machine } of cluster.members.values()) expect(machine.state.leases.size).toBe(1);
  });

  it('are renewed by the next leader when the one that was asked dies', async () => {
    const { cluster, leader, follower } = await granted(10);
    cluster.crash(leader.id);
    const renewal = watched(follower.replica.renewLease(7n));
    await cluster.runtime.runUntil(() => renewal.state !== 'pending');
    expect(renewal.state).toBe(10);
  });

  it('are told that there is no leader, when there is none for the request timeout', async () => {
    const { cluster, leader, follower } = await granted(60);
    for (const id of [1n, 2n, 3n]) if (id !== follower.id) cluster.crash(id);
    await cluster.runtime.runUntil(() => follower.replica.leader !== leader.id);
    const renewal = watched(follower.replica.renewLease(7n));
    await cluster.runtime.advance(7200);
    expect(renewal.state).toEqual(words('no leader'));
  });
});

describe('leadership', () => {
  it('moves to the voter that was named', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const follower = await cluster.follower();
    await cluster.runtime.run(leader.replica.transferLeadership(follower.id));
    expect(follower.replica.isLeader).toBe(true);
    await expect(leader.replica.transferLeadership(follower.id)).rejects.toEqual(words('not leader'));
    await expect(follower.replica.transferLeadership(99n)).rejects.toEqual(words('bad leader transferee'));
    await cluster.runtime.run(follower.replica.transferLeadership(follower.id));
  });

  it('stays where it is when the target cannot be reached, and requests go on', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const follower = await cluster.follower();
    cluster.isolate(follower.id);
    const moved = watched(leader.replica.transferLeadership(follower.id));
    const put = watched(cluster.put(leader.id, 'a'));
    await cluster.runtime.runUntil(() => moved.state !== 'pending');
    expect(moved.state).toEqual(words('request timed out, leader transfer took too long'));
    await cluster.runtime.advance(200);
    expect(put.state).toMatch(/^put#/);
  });

  it('is handed over by a leader that is stopped, within some round trips', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    await putAll(cluster, leader, 3);
    const waiting = watched(cluster.put(leader.id, 'last'));
    const begin = cluster.runtime.monotonic();
    await cluster.stop(leader.id);
    expect(waiting.state).toMatch(/^put#/);
    const next = [...cluster.members.values()].find(({ replica }) => replica.isLeader);
    expect(next).toBeDefined();
    expect(cluster.runtime.monotonic() - begin).toBeLessThan(200);
  });

  it('is handed over also by a leader that has just counted who it hears from', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    cluster.faults = { isCut: false, loss: 0, duplication: 0, delayMs: [40, 40] };
    await cluster.runtime.runUntil(() => leader.replica.progress().every(({ isActive }) => !isActive));
    await cluster.stop(leader.id);
    expect((await cluster.leader()).replica.term).toBe(leader.replica.term);
  });
});

describe('members', () => {
  it('are added as learners, brought up to date, and promoted', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    await putAll(cluster, leader, 5);
    expect(await cluster.runtime.run(cluster.change((await cluster.follower()).id, { type: 'addLearner', member: 4n }))).toMatch(
      /^addLearner#/,
    );
    const joiner = cluster.start(4n);
    await cluster.settle();
    expect(joiner.replica.isLearner).toBe(true);
    expect(joiner.machine.state).toEqual(leader.machine.state);
    expect(joiner.told).toContain('membership');
    await cluster.runtime.run(cluster.change(4n, { type: 'addVoter', member: 4n }));
    await cluster.settle();
    expect(joiner.replica.role).toBe('follower');
    expect(leader.machine.state.confState).toEqual({ voters: [1n, 2n, 3n, 4n], learners: [] });
  });

  it('may be changed by several at once: one change waits for the other', async () => {
    const cluster = await ReplicaCluster.started();
    for (const { id } of [await cluster.leader(), await cluster.follower()]) {
      const first = id * 100n;
      const changes = [0n, 1n, 2n].map((at) => cluster.change(id, { type: 'addLearner', member: first + at }));
      const results = await cluster.runtime.run(Promise.all(changes));
      expect(results.every((result) => result.startsWith('addLearner#'))).toBe(true);
    }
  });

  it('that are refused when applied change nothing', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    await cluster.runtime.run(cluster.change(leader.id, { type: 'addLearner', member: 4n }));
    expect(await cluster.runtime.run(cluster.change(leader.id, { type: 'addLearner', member: 4n }))).toBe('refused');
    expect(leader.told.filter((word) => word === 'membership')).toHaveLength(4);
  });

  it('leave when they have applied their own removal, and the others go on', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const follower = await cluster.follower();
    expect(await cluster.runtime.run(cluster.change(leader.id, { type: 'remove', member: follower.id }))).toMatch(/^remove#/);
    await cluster.runtime.runUntil(() => follower.told.includes('removed'));
    expect(follower.machine.state.removed).toEqual([follower.id]);
    await cluster.stop(follower.id);
    await putAll(cluster, leader, 3);
    await cluster.settle();
  });

  it('lead until their own removal is known to the others', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    expect(await cluster.runtime.run(cluster.change(leader.id, { type: 'remove', member: leader.id }))).toMatch(/^remove#/);
    await cluster.runtime.runUntil(() => leader.told.includes('removed'));
    expect(leader.replica.isLeader).toBe(false);
    await cluster.stop(leader.id);
    const next = await cluster.leader();
    expect(next.machine.state.confState.voters).not.toContain(leader.id);
    await putAll(cluster, next, 3);
    await cluster.settle();
  });

  it('that were removed while they were away learn it from any member, and disturb nobody', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const { id } = await cluster.follower();
    cluster.crash(id);
    await cluster.runtime.run(cluster.change(leader.id, { type: 'remove', member: id }));
    await cluster.settle();
    const { term } = leader.replica;
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => back.told.includes('removed'));
    await cluster.runtime.advance(5000);
    expect(back.told.filter((word) => word !== 'membership')).toEqual(['removed']);
    expect([leader.replica.isLeader, leader.replica.term]).toEqual([true, term]);
    await expect(back.replica.propose('put', new Uint8Array(1))).rejects.toEqual(words('server stopped'));
  });

  it('that are left alone lead at once', async () => {
    const cluster = await ReplicaCluster.started({ size: 2 });
    const leader = await cluster.leader();
    const other = leader.id === 1n ? 2n : 1n;
    await cluster.runtime.run(cluster.change(leader.id, { type: 'remove', member: leader.id }));
    await cluster.runtime.runUntil(() => cluster.member(other).replica.isLeader, { deadlineMs: 300 });
  });
});

describe('questions between members', () => {
  const body = new Uint8Array([1, 2, 3]);

  it('are answered by the member that was asked, in its own words where it refuses', async () => {
    const cluster = await ReplicaCluster.started();
    const { replica } = cluster.member(2n);
    replica.onCall('hashKv', (question, from) => Promise.resolve(new Uint8Array([...question, Number(from)])));
    const refused = new StatusError(9, 'etcdserver: can only promote a learner member which is in sync with leader');
    replica.onCall('memberPromote', () => Promise.reject(refused));
    const asker = cluster.member(1n).replica;
    expect(await cluster.runtime.run(asker.call(2n, 'hashKv', body))).toEqual(new Uint8Array([1, 2, 3, 1]));
    const promotion = watched(asker.call(2n, 'memberPromote', body));
    await cluster.runtime.advance(10);
    expect(promotion.state).toEqual(words('can only promote a learner member which is in sync with leader'));
  });

  it('are answered once, however often they come', async () => {
    const cluster = await ReplicaCluster.started();
    cluster.faults = { isCut: false, loss: 0, duplication: 1, delayMs: [1, 20] };
    let count = 0;
    cluster.member(2n).replica.onCall('hashKv', () => {
      count += 1;
      return Promise.resolve(body);
    });
    await cluster.runtime.run(cluster.member(1n).replica.call(2n, 'hashKv', body));
    await cluster.runtime.advance(100);
    expect(count).toBe(1);
  });

  it('end in time when nobody answers', async () => {
    const cluster = await ReplicaCluster.started();
    cluster.isolate(2n);
    const asked = watched(cluster.member(1n).replica.call(2n, 'hashKv', body));
    await cluster.runtime.advance(7200);
    expect(asked.state).toEqual(words('request timed out'));
  });
});

describe('a member whose disk was put back', () => {
  interface PutBack {
    readonly cluster: ReplicaCluster;
    readonly leader: Member;
    readonly other: Member;
    readonly back: Member;
  }

  /** A follower loses five puts, with the leader it had or (`isNewLeader`) with another. */
  async function putBack(restarts: number, isNewLeader = true): Promise<PutBack> {
    const cluster = await ReplicaCluster.started();
    const old = await cluster.leader();
    const { id, disk } = await cluster.follower();
    await putAll(cluster, old, 5);
    await cluster.settle();
    const image = disk.image;
    for (let count = 0; count < restarts; count++) {
      cluster.crash(id);
      cluster.start(id);
      await cluster.settle();
    }
    for (let count = 0; count < 5; count++) await cluster.runtime.run(cluster.put(old.id, `lost ${count}`));
    await cluster.settle();
    await cluster.runtime.advance(3000);
    cluster.crash(id);
    const follower = await cluster.follower();
    if (isNewLeader) await cluster.runtime.run(old.replica.transferLeadership(follower.id));
    await cluster.runtime.advance(3000);
    cluster.putBack(id, image);
    const [leader, other] = isNewLeader ? [follower, old] : [old, follower];
    return { cluster, leader, other, back: cluster.start(id) };
  }

  // With no restart in between it comes back with a count that nobody has seen, with one the same as before, with more with a lower one.
  it.each([0, 1, 3])('gets no append and is not counted, after %i starts since', async (restarts) => {
    const { cluster, leader, other, back } = await putBack(restarts);
    const { term } = leader.replica;
    await cluster.runtime.advance(10_000);
    expect(back.machine.state.puts).not.toContain('lost 0');
    expect([leader.replica.isLeader, leader.replica.term]).toEqual([true, term]);
    expect(new Set(cluster.errors).size).toBe(1);
    expect(cluster.errors[0]).toContain('came back with less than it had');
    const sent: bigint[] = [];
    cluster.onPacket = ({ to }) => sent.push(to);
    await cluster.runtime.advance(3000);
    expect(sent).not.toContain(back.id);
    // The other member is lost: what is left is no majority.
    cluster.crash(other.id);
    const put = watched(cluster.put(leader.id, 'not safe'));
    await cluster.runtime.advance(7200);
    expect(put.state).toEqual(words('request timed out'));
  });

  it('is known again by members that were started since', async () => {
    const { cluster, leader, other, back } = await putBack(1);
    for (const { id } of [leader, other]) {
      cluster.crash(id);
      cluster.start(id);
    }
    await cluster.runtime.advance(10_000);
    expect(back.machine.state.puts).not.toContain('lost 0');
    expect((await cluster.leader()).id).not.toBe(back.id);
  });

  it('is known by the leader it had', async () => {
    const { cluster, leader, back } = await putBack(0, false);
    await cluster.runtime.advance(10_000);
    expect(back.machine.state.puts).not.toContain('lost 0');
    expect(leader.replica.progress().find(({ member }) => member === back.id)?.isActive).toBe(false);
    expect(new Set(cluster.errors).size).toBe(1);
  });

  it('learns that it was removed, though nothing else is sent to it', async () => {
    const { cluster, leader, back } = await putBack(1);
    await cluster.runtime.advance(5000);
    await cluster.runtime.run(cluster.change(leader.id, { type: 'remove', member: back.id }));
    await cluster.runtime.advance(10_000);
    expect(back.told).toContain('removed');
  });

  it('is welcome with all it had', async () => {
    const cluster = await ReplicaCluster.started();
    const leader = await cluster.leader();
    const { id } = await cluster.follower();
    for (let count = 0; count < 5; count++) {
      await putAll(cluster, leader, 2);
      cluster.crash(id);
      await cluster.runtime.advance(3000);
      cluster.start(id);
      await cluster.settle();
    }
    expect(cluster.errors).toEqual([]);
  });
});
