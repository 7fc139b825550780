import { describe, expect, it } from 'vitest';
import { type LinkFaults, type Member, ReplicaCluster } from '../../test/replica-cluster.ts';
import type { SnapshotChunk } from './ports.ts';

const rough: LinkFaults = { isCut: false, loss: 0.25, duplication: 0.3, delayMs: [1, 20] };

interface Lagging {
  readonly cluster: ReplicaCluster;
  readonly leader: Member;
  /** Does not run, and needs a snapshot when it does again. */
  readonly id: bigint;
}

/** A member was away while the others wrote, and forgot the entries. */
async function lagging(
  options: { readonly seed?: number; readonly count?: number; readonly bytes?: number; readonly catchUpBytes?: number } = {},
): Promise<Lagging> {
  const { seed = 1, count = 30, bytes = 1, catchUpBytes = 1 << 24 } = options;
  const cluster = await ReplicaCluster.started({ seed, limits: { catchUpEntries: 5, catchUpBytes } });
  const leader = await cluster.leader();
  const { id } = await cluster.follower();
  cluster.crash(id);
  await write(cluster, leader, count, bytes);
  return { cluster, leader, id };
}

let written = 0;

async function write(cluster: ReplicaCluster, leader: Member, count: number, bytes = 1): Promise<void> {
  const puts = Array.from({ length: count }, () => {
    written += 1;
    return cluster.put(leader.id, `${written}`.padEnd(bytes, '.'));
  });
  await cluster.runtime.run(Promise.all(puts));
  // What is applied is written to the state, and the entries are forgotten.
  await cluster.runtime.advance(200);
  written += 1;
  await cluster.runtime.run(cluster.put(leader.id, `${written}`));
}

/** Everything a member told about its snapshots: opened, received, restored... */
const logOf = (member: Member, word: string): string[] => member.snapshots.log.filter((line) => line.startsWith(word));

function watchChunks(cluster: ReplicaCluster): SnapshotChunk[] {
  const chunks: SnapshotChunk[] = [];
  cluster.onPacket = ({ frames }) => {
    for (const frame of frames) if (frame.kind === 'snapshotChunk') chunks.push(frame);
  };
  return chunks;
}

async function catchesUp(cluster: ReplicaCluster, member: Member): Promise<void> {
  await cluster.settle();
  expect(logOf(member, 'restored')).not.toEqual([]);
  for (const other of cluster.members.values()) expect(member.machine.state).toEqual(other.machine.state);
  expect([...cluster.members.values()].flatMap(({ failures }) => failures)).toEqual([]);
}

describe('a member that needs what is compacted', () => {
  it('is brought a snapshot, tells so, and goes on from there', async () => {
    const { cluster, leader, id } = await lagging();
    const back = cluster.start(id);
    await catchesUp(cluster, back);
    expect(back.told.filter((word) => word !== 'membership')).toEqual([`restored ${leader.machine.appliedIndex}`]);
    await write(cluster, leader, 3);
    await cluster.settle();
    expect(logOf(leader, 'open')).toHaveLength(1);
    expect(logOf(leader, 'close')).toHaveLength(1);
  });

  it('does not look like one whose disk was put back, while the snapshot takes the place of its log', async () => {
    const { cluster, id } = await lagging();
    const shown: number[] = [];
    cluster.onPacket = ({ from, durableIndex }) => {
      if (from === id) shown.push(durableIndex);
    };
    await catchesUp(cluster, cluster.start(id));
    expect(shown.length).toBeGreaterThan(3);
    expect(shown).toEqual(shown.toSorted((a, b) => a - b));
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])('gets it whole over a network that loses, repeats and reorders, seed %i', async (seed) => {
    const { cluster, id } = await lagging({ seed, count: 100 });
    cluster.faults = rough;
    const back = cluster.start(id);
    await catchesUp(cluster, back);
  });

  it('is not overwhelmed: little is under way at any time', async () => {
    const { cluster, id } = await lagging({ count: 60, bytes: 100_000 });
    let [sent, confirmed, most] = [0, 0, 0];
    const ends: number[] = [];
    cluster.onPacket = ({ frames }) => {
      for (const frame of frames) {
        if (frame.kind === 'snapshotChunk') {
          sent += frame.bytes.length;
          ends[frame.sequence] = sent;
        }
        if (frame.kind === 'snapshotAck') confirmed = Math.max(confirmed, ends[frame.next - 1] ?? 0);
        most = Math.max(most, sent - confirmed);
      }
    };
    await catchesUp(cluster, cluster.start(id));
    expect(sent).toBeGreaterThan(5_500_000);
    expect(most).toBeLessThan(2_500_000);
  });

  it('goes on where it was when its connection comes back', async () => {
    const { cluster, leader, id } = await lagging({ count: 60, bytes: 100_000 });
    const chunks = watchChunks(cluster);
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => chunks.length > 15);
    cluster.isolate(id);
    await cluster.runtime.advance(5000);
    cluster.isolate(id, false);
    await catchesUp(cluster, back);
    expect(logOf(leader, 'open')).toHaveLength(1);
    expect(chunks.length).toBeLessThan(100);
  });

  it('gets another one when it has lost what it had', async () => {
    const { cluster, leader, id } = await lagging({ count: 60, bytes: 100_000 });
    const chunks = watchChunks(cluster);
    cluster.start(id);
    await cluster.runtime.runUntil(() => chunks.length > 30);
    cluster.crash(id);
    await cluster.runtime.advance(500);
    await catchesUp(cluster, cluster.start(id));
    expect(logOf(leader, 'open')).toHaveLength(2);
  });

  it('gets it from the next leader when the one that began is gone', async () => {
    const { cluster, leader, id } = await lagging({ count: 60, bytes: 100_000 });
    const chunks = watchChunks(cluster);
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => chunks.length > 15);
    const next = [...cluster.members.values()].find((member) => member.id !== leader.id && member.id !== id)!;
    await cluster.runtime.run(leader.replica.transferLeadership(next.id));
    expect(logOf(leader, 'close')).toHaveLength(1);
    await catchesUp(cluster, back);
    expect(logOf(back, 'received')).toHaveLength(1);
    expect(logOf(next, 'open')).toHaveLength(1);
  });

  it('refuses one that is damaged, and takes the next that is not', async () => {
    const { cluster, id } = await lagging();
    const back = cluster.start(id);
    back.disk.isRotten = true;
    await cluster.runtime.advance(3000);
    expect(logOf(back, 'received')).toEqual([]);
    expect(cluster.errors[0]).toContain('a snapshot is damaged');
    back.disk.isRotten = false;
    await catchesUp(cluster, back);
  });

  it('takes in nothing and serves no read while the state is replaced', async () => {
    const { cluster, leader, id } = await lagging();
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => logOf(back, 'received').length > 0);
    back.disk.isStuck = true;
    const before = back.machine.state;
    let seen: readonly string[] | undefined;
    back.replica.readBarrier(() => {
      seen = back.machine.state.puts;
    });
    await write(cluster, leader, 3);
    await cluster.runtime.advance(1000);
    expect([back.machine.state, seen]).toEqual([before, undefined]);
    back.disk.unstick();
    await catchesUp(cluster, back);
    expect(seen!.length).toBeGreaterThanOrEqual(30);
  });

  it('serves no read of the old state either while that is replaced', async () => {
    const cluster = await ReplicaCluster.started({ limits: { catchUpEntries: 5 } });
    const leader = await cluster.leader();
    const follower = await cluster.follower();
    await write(cluster, leader, 3);
    await cluster.settle();
    // The answer to this read is under way for a while: the old state would satisfy it.
    cluster.link(leader.id, follower.id, { delayMs: [400, 400] });
    const { index } = follower.machine.state;
    const begin = cluster.runtime.monotonic();
    let seen = 0;
    follower.replica.readBarrier(() => {
      seen = follower.machine.state.index;
    });
    await cluster.runtime.advance(20);
    cluster.link(leader.id, follower.id, {});
    cluster.passes = (frame, { to }) => to !== follower.id || frame.kind !== 'raft' || frame.message.type !== 'appendEntries';
    await write(cluster, leader, 30);
    cluster.passes = () => true;
    await cluster.runtime.runUntil(() => logOf(follower, 'received').length > 0);
    follower.disk.isStuck = true;
    expect(cluster.runtime.monotonic() - begin).toBeLessThan(400);
    await cluster.runtime.advance(500);
    expect([follower.machine.state.index, seen]).toEqual([index, 0]);
    follower.disk.unstick();
    await cluster.runtime.runUntil(() => seen > 0);
    expect(seen).toBeGreaterThan(index);
  });

  it('drops what it had still to apply', async () => {
    const cluster = await ReplicaCluster.started({ limits: { catchUpEntries: 5 } });
    const leader = await cluster.leader();
    const follower = await cluster.follower();
    follower.machine.isFull = true;
    await write(cluster, leader, 3);
    cluster.isolate(follower.id);
    await write(cluster, leader, 30);
    cluster.isolate(follower.id, false);
    await cluster.runtime.runUntil(() => logOf(follower, 'restored').length > 0);
    await cluster.runtime.advance(10);
    follower.machine.makeRoom();
    await catchesUp(cluster, follower);
  });

  it('finishes after a crash between the marker in its log and the state in its place', async () => {
    const { cluster, id } = await lagging();
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => back.disk.image.marker !== undefined);
    expect(logOf(back, 'restored')).toEqual([]);
    const { marker, state } = cluster.crash(id);
    expect(state.index).toBeLessThan(marker!.index);
    const again = cluster.start(id);
    expect(again.replica.appliedIndex).toBe(marker!.index);
    await cluster.settle();
    expect(again.failures).toEqual([]);
  });

  it('is confirmed once more when the confirmation is lost', async () => {
    const { cluster, leader, id } = await lagging();
    let lost = 0;
    cluster.passes = (frame, { from }) => {
      if (from !== id || frame.kind !== 'snapshotAck' || frame.next < 30 || lost >= 3) return true;
      lost += 1;
      return false;
    };
    await catchesUp(cluster, cluster.start(id));
    await cluster.runtime.advance(2000);
    expect(lost).toBe(3);
    expect(logOf(leader, 'open')).toHaveLength(1);
    expect(cluster.warnings).toEqual([]);
  });

  it('may get past the gap otherwise: then nothing more is sent', async () => {
    const { cluster, leader, id } = await lagging();
    const chunks = watchChunks(cluster);
    cluster.passes = (frame) => frame.kind !== 'snapshotAck';
    const back = cluster.start(id);
    // The confirmation never comes, but raft's does.
    await cluster.settle();
    await cluster.runtime.advance(1000);
    const { length } = chunks;
    await cluster.runtime.advance(20_000);
    expect(chunks).toHaveLength(length);
    expect(logOf(leader, 'close')).toHaveLength(1);
    expect(back.machine.state).toEqual(leader.machine.state);
  });
});

describe('the log', () => {
  it('is kept behind a snapshot that is on its way', async () => {
    const { cluster, leader, id } = await lagging({ count: 40, bytes: 100_000 });
    const chunks = watchChunks(cluster);
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => chunks.length > 2);
    cluster.isolate(id);
    await write(cluster, leader, 50);
    cluster.isolate(id, false);
    await catchesUp(cluster, back);
    expect(logOf(leader, 'open')).toHaveLength(1);
  });

  it('is kept behind a snapshot that has arrived, until its receiver has put it in place', async () => {
    const { cluster, leader, id } = await lagging();
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => logOf(back, 'received').length > 0);
    back.disk.isStuck = true;
    for (let round = 0; round < 5; round++) await write(cluster, leader, 10);
    expect(logOf(leader, 'close')).toHaveLength(1);
    back.disk.unstick();
    await catchesUp(cluster, back);
    expect(logOf(leader, 'open')).toHaveLength(1);
  });

  it('is not kept for ever: when too much is written meanwhile the snapshot starts over', async () => {
    const { cluster, leader, id } = await lagging({ count: 40, bytes: 100_000, catchUpBytes: 100_000 });
    const chunks = watchChunks(cluster);
    const back = cluster.start(id);
    await cluster.runtime.runUntil(() => chunks.length > 2);
    cluster.isolate(id);
    await write(cluster, leader, 10, 100_000);
    expect(logOf(leader, 'close')).toHaveLength(1);
    cluster.isolate(id, false);
    await catchesUp(cluster, back);
    expect(logOf(leader, 'open').length).toBeGreaterThan(1);
  });

  it('is read for two members at a time, and the others wait', async () => {
    const { cluster, leader } = await lagging({ count: 20, bytes: 100_000 });
    const learners = [11n, 12n, 13n, 14n];
    for (const member of learners) await cluster.runtime.run(cluster.change(leader.id, { type: 'addLearner', member }));
    for (const member of learners) cluster.start(member);
    let most = 0;
    const count = (): boolean => {
      most = Math.max(most, logOf(leader, 'open').length - logOf(leader, 'close').length);
      return learners.every((member) => logOf(cluster.member(member), 'restored').length > 0);
    };
    await cluster.runtime.runUntil(count);
    expect(most).toBe(2);
    await cluster.settle();
  });

  it('has what a member that lags a little needs, also after a restart', async () => {
    const cluster = await ReplicaCluster.started({ limits: { catchUpEntries: 5 } });
    const leader = await cluster.leader();
    await write(cluster, leader, 20);
    const { id } = await cluster.follower();
    cluster.crash(id);
    await cluster.runtime.run(cluster.put(leader.id, 'a'));
    await cluster.runtime.run(cluster.put(leader.id, 'b'));
    for (const other of [1n, 2n, 3n]) {
      if (other === id) continue;
      cluster.crash(other);
      cluster.start(other);
    }
    await cluster.leader();
    const back = cluster.start(id);
    await cluster.settle();
    expect(logOf(back, 'received')).toEqual([]);
    expect(back.machine.state.puts).toContain('b');
  });
});
