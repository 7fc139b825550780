import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from '@conclave/sdk';
import { type ConclaveCluster, startCluster } from '@conclave/server';
import { eventually, ScratchDir } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { expect, test } from 'vitest';

/** Elections are quick, and next to nothing is kept for who lags. */
const settings = { heartbeatMs: 20, electionMs: 200, snapshotCatchUpEntries: 5 } as const;

function client(cluster: ConclaveCluster, names: readonly string[] = cluster.endpoints) {
  return connect({ endpoints: names, transport: cluster.network.transport });
}

test('a member that lags too far is brought the state on real disks, and goes on from there', async () => {
  using dir = new ScratchDir('snapshot');
  const said: string[] = [];
  const note = (_: object, sentence: string): void => void said.push(sentence);
  const runtime = systemRuntime({ debug: note, info: note, warn: note, error: note });
  await using cluster = await startCluster({ ...settings, runtime, dataDir: dir.path });
  await using writer = await client(cluster);
  await writer.put('before', '1');
  const leader = await cluster.leader();
  const lagging = cluster.members.find(({ name }) => name !== leader.name)!.name;
  await cluster.stop(lagging);
  await using others = await client(cluster);
  for (let i = 0; i < 60; i++) await others.put(`key${i % 20}`, `${i} `.padEnd(60_000, 'v'));
  await others.delete('before');
  const { revision } = await others.put('last', 'one');
  await others.compact(revision - 10n);
  await cluster.start(lagging);
  await eventually('the snapshot', () => said.some((sentence) => sentence === 'receiving a snapshot'));
  await using back = await client(cluster, [lagging]);
  expect((await back.get('last'))?.value).toBe('one');
  expect(await back.get('before')).toBeUndefined();
  expect((await back.get('key7'))?.value).toBe('47 '.padEnd(60_000, 'v'));
  await expect(back.get('key7', { revision: revision - 20n })).rejects.toThrow('compacted');
  expect(readdirSync(join(dir.path, lagging, 'member', 'snap'))).toEqual([]);
  // And it counts: without one of the others it is needed.
  await cluster.stop(cluster.members.find(({ name }) => name !== lagging && name !== leader.name)!.name);
  await using two = await client(cluster);
  await two.put('after', '2');
  expect((await two.get('after'))?.value).toBe('2');
});
