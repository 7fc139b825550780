// Reads that do not go back, on clusters with a member that is behind.
import { type Client, connect } from '@conclave/sdk';
import { etcdBinary, eventually, launchCluster, testTargets } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const isBuilt = testTargets().find(({ name }) => name === 'conclave-server')?.skip === undefined;

describe.each([
  { kind: 'conclave', skip: !isBuilt, title: isBuilt ? 'conclave-server' : 'conclave-server (skipped: it is not built)' },
  {
    kind: 'etcd',
    skip: etcdBinary('3.5', 'etcd') === undefined,
    title: etcdBinary('3.5', 'etcd') === undefined ? 'etcd 3.5 (skipped: ETCD_BIN_DIR does not hold it)' : 'etcd 3.5',
  },
] as const)('three members of $title', ({ kind, skip }) => {
  test.skipIf(skip)(
    'a client that is ordered never reads from below what it has seen',
    async () => {
      await using cluster = await launchCluster({ kind, hasLinks: true });
      const leader = await cluster.leader();
      const [behind, ...others] = cluster.members.filter(({ name }) => name !== leader.name);
      if (behind === undefined) return expect.unreachable();
      await using writer = await connect({ endpoints: leader.endpoint });
      await writer.put('k', '0');
      await using late = await connect({ endpoints: behind.endpoint });
      await eventually('it has the first', async () => (await late.get('k', { serializable: true }))?.value === '0');
      cluster.links?.partition([behind.name], [leader.name, ...others.map(({ name }) => name)]);
      await writer.put('k', '1');
      const endpoints = [behind.endpoint, leader.endpoint];
      const values = async (client: Client): Promise<(string | undefined)[]> => {
        await eventually(
          'both are ready',
          () =>
            new Promise<boolean>((resolve) => {
              client.status().subscribe((status) => resolve(status.endpoints.every(({ state }) => state === 'ready')));
            }),
        );
        const seen: (string | undefined)[] = [];
        for (let n = 0; n < 20; n++) seen.push((await client.get('k', { serializable: true }))?.value);
        return seen;
      };
      await using plain = await connect({ endpoints });
      expect(new Set((await values(plain)).slice(2))).toEqual(new Set(['0', '1']));
      await using ordered = await connect({ endpoints, ordered: true });
      // The first may still be of before; once it has seen what came then, there is no way back.
      expect(new Set((await values(ordered)).slice(2))).toEqual(new Set(['1']));
      // Whoever knows of nothing newer may read what is old.
      await using alone = await connect({ endpoints: behind.endpoint, ordered: true });
      expect((await alone.get('k', { serializable: true }))?.value).toBe('0');
      cluster.links?.heal();
    },
    60_000,
  );
});
