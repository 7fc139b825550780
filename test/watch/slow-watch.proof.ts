import { connect } from '@conclave/sdk';
import { testTargets } from '@conclave/testkit';
import { expect, test } from 'vitest';
import { followSlowly, writeEvents } from './slow-watch.ts';

const count = 1_000_000;
const growthMax = 64 * 1024 * 1024;

test.each(testTargets().filter(({ skip, name }) => skip === undefined && name !== 'etcd 3.4'))(
  'a slow loop over a watch of a million events loses none and takes at most 64 MB, against $name',
  async ({ start, name }) => {
    await using server = await start();
    await using client = await connect({ endpoints: server.address });
    const first = await writeEvents(client, count);
    const report = await followSlowly(server.address, { first, count, overflow: 'pause' });
    console.log(
      `${name}: ${report.told} events in ${report.seconds.toFixed(0)} s, memory grew by ${(report.growthBytes / 2 ** 20).toFixed(1)} MB`,
    );
    expect(report).toMatchObject({ told: count, disorder: 0 });
    expect(report.growthBytes).toBeLessThanOrEqual(growthMax);
  },
);
