import { describe, expect, it } from 'vitest';
import { ReplicaCluster } from '../../test/replica-cluster.ts';

describe('three members', () => {
  it('elect one of them, and all apply what any was asked', async () => {
    const cluster = await ReplicaCluster.started();
    const { runtime } = cluster;
    const results = await runtime.run(Promise.all([1n, 2n, 3n].map((id) => cluster.put(id, `from ${id}`))));
    expect(results.every((result) => /^put#\d+$/.test(result))).toBe(true);
    await cluster.settle();
    for (const { machine } of cluster.members.values()) expect([...machine.state.puts].sort()).toEqual(['from 1', 'from 2', 'from 3']);
  });
});
