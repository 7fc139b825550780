import { connect } from '@conclave/sdk';
import { type ConclaveCluster, startCluster } from '@conclave/server';
import { ScratchDir } from '@conclave/testkit';
import { describe, expect, it } from 'vitest';

/** Elections are quick: a test waits for several. */
const quick = { heartbeatMs: 20, electionMs: 200 } as const;

function client(cluster: ConclaveCluster, names: readonly string[] = cluster.endpoints) {
  return connect({ endpoints: names, transport: cluster.network.transport });
}

describe('startCluster', () => {
  it('runs three members that hold the same, and any of them answers', async () => {
    await using cluster = await startCluster(quick);
    expect(cluster.endpoints).toEqual(['m1', 'm2', 'm3']);
    await using writer = await client(cluster, ['m1']);
    const { revision } = await writer.put('greeting', 'hello');
    for (const name of cluster.endpoints) {
      await using reader = await client(cluster, [name]);
      expect(await reader.get('greeting')).toMatchObject({ value: 'hello', modRevision: revision });
      await reader.put(`from/${name}`, name);
    }
    expect((await writer.list('from/m2')).count).toBe(1);
    expect(new Set(cluster.members.map(({ clusterId }) => clusterId)).size).toBe(1);
    expect(cluster.members.filter(({ isLeader }) => isLeader)).toHaveLength(1);
  });

  it('goes on without the member that led, and takes it back with what it missed', async () => {
    using dir = new ScratchDir('cluster');
    await using cluster = await startCluster({ ...quick, dataDir: dir.path });
    await using writer = await client(cluster);
    await writer.put('before', '1');
    const first = await cluster.leader();
    await cluster.stop(first.name);
    await writer.put('meanwhile', '2');
    expect((await cluster.leader()).name).not.toBe(first.name);
    await cluster.start(first.name);
    await using back = await client(cluster, [first.name]);
    expect([(await back.get('before'))?.value, (await back.get('meanwhile'))?.value]).toEqual(['1', '2']);
  });

  it('starts again, all of it, with all it held', async () => {
    using dir = new ScratchDir('cluster');
    {
      await using cluster = await startCluster({ ...quick, dataDir: dir.path });
      await using writer = await client(cluster);
      await writer.put('kept', 'yes');
    }
    await using cluster = await startCluster({ ...quick, dataDir: dir.path });
    await using reader = await client(cluster);
    expect((await reader.get('kept'))?.value).toBe('yes');
  });

  it('serves on sockets when asked to', async () => {
    await using cluster = await startCluster({ ...quick, size: 1, listen: true });
    await using writer = await connect({ endpoints: cluster.endpoints });
    await writer.put('a', 'b');
    expect((await writer.get('a'))?.value).toBe('b');
  });

  it('says what cannot be', async () => {
    await expect(startCluster({ size: 0 })).rejects.toThrow('a cluster has 1 to 7 members, got 0');
    await using cluster = await startCluster({ ...quick, size: 1 });
    await expect(cluster.start('m1')).rejects.toThrow('member m1 runs');
    await expect(cluster.start('m9')).rejects.toThrow('there is no member m9');
    await cluster.stop('m1');
    await expect(cluster.stop('m1')).rejects.toThrow('member m1 does not run');
    await expect(cluster.start('m1')).rejects.toThrow('cannot come back without what it promised');
  });
});
