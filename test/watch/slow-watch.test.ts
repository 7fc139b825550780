import { connect } from '@conclave/sdk';
import { testTargets } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { followSlowly, writeEvents } from './slow-watch.ts';

const count = 20_000;
const megabyte = 1024 * 1024;

describe.each(
  testTargets().map((target) => ({
    ...target,
    title: target.skip === undefined ? target.name : `${target.name} (skipped: ${target.skip})`,
  })),
)('a loop that is slower than its watch, against $title', ({ start, skip }) => {
  test.skipIf(skip !== undefined)(
    'is told all of it, or what is left of it, in order, and takes little memory',
    async () => {
      await using server = await start();
      await using client = await connect({ endpoints: server.address });
      const first = await writeEvents(client, count);
      const paused = await followSlowly(server.address, { first, count, overflow: 'pause' });
      expect(paused).toMatchObject({ told: count, conflated: 0, disorder: 0 });
      expect(paused.growthBytes).toBeLessThan(64 * megabyte);
      const conflated = await followSlowly(server.address, { first, count, overflow: 'conflate' });
      expect(conflated.disorder).toBe(0);
      expect(conflated.told + conflated.conflated).toBe(count);
      expect(conflated.conflated).toBeGreaterThan(0);
      expect(conflated.growthBytes).toBeLessThan(64 * megabyte);
    },
    90_000,
  );
});
