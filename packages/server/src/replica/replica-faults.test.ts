import { describe, expect, it } from 'vitest';
import { ReplicaCluster } from '../../test/replica-cluster.ts';

/** Puts under faults, drawn from the seed: then all is well again, and everything that was acknowledged is there, once, everywhere. */
async function ordeal(seed: number, steps: number): Promise<ReplicaCluster> {
  const cluster = await ReplicaCluster.started({ size: 3, seed, limits: { catchUpEntries: 5 } });
  const { runtime } = cluster;
  const chance = (probability: number): boolean => runtime.random() < probability;
  const acknowledged: string[] = [];
  /** What a linearizable read should have seen. */
  const missed: string[] = [];
  const ids = [1n, 2n, 3n];
  const down = new Set<bigint>();
  const any = (): bigint => ids[Math.floor(runtime.random() * ids.length)]!;
  let count = 0;
  for (let step = 0; step < steps; step++) {
    for (const id of ids) {
      if (down.has(id) || chance(0.5)) continue;
      count += 1;
      const name = `${count}`;
      cluster.put(id, name).then(
        () => acknowledged.push(name),
        () => undefined,
      );
    }
    for (const id of ids) {
      if (down.has(id) || chance(0.9)) continue;
      const { replica, machine } = cluster.member(id);
      const known = acknowledged.length;
      replica.readBarrier((error) => {
        if (error === undefined) missed.push(...acknowledged.slice(0, known).filter((name) => !machine.state.puts.includes(name)));
      });
    }
    const one = any();
    if (down.has(one) && chance(0.5)) {
      down.delete(one);
      cluster.start(one);
    } else if (!down.has(one) && chance(0.1)) {
      down.add(one);
      cluster.crash(one);
    }
    if (chance(0.1)) cluster.link(any(), any(), { isCut: chance(0.5) });
    if (chance(0.05)) cluster.heal();
    if (chance(0.1)) {
      const delayMs = [1, chance(0.3) ? 200 : 5] as const;
      cluster.faults = { isCut: false, loss: chance(0.5) ? 0.2 : 0, duplication: chance(0.5) ? 0.3 : 0, delayMs };
    }
    await runtime.advance(Math.floor(runtime.random() * 200));
  }
  cluster.heal();
  for (const id of down) cluster.start(id);
  // What was on its way to a leader that is none may be lost once more.
  await runtime.advance(10_000);
  await runtime.run(cluster.put(1n, 'after'));
  await cluster.settle();
  const [first, ...others] = [...cluster.members.values()].map(({ machine }) => machine.state);
  for (const other of others) expect(other).toEqual(first);
  expect(new Set(first!.puts).size).toBe(first!.puts.length);
  expect(acknowledged.filter((name) => !first!.puts.includes(name))).toEqual([]);
  expect(missed).toEqual([]);
  expect(acknowledged.length).toBeGreaterThan(steps / 4);
  for (const { failures } of cluster.members.values()) expect(failures).toEqual([]);
  expect(cluster.errors).toEqual([]);
  return cluster;
}

describe('crashes, cuts, loss, repetition and reordering', () => {
  it.each(Array.from({ length: Number(process.env['REPLICA_SEEDS'] ?? 20) }, (_, at) => at + 1))(
    'lose nothing and repeat nothing, seed %i',
    async (seed) => {
      await ordeal(seed, 200);
    },
  );
});
