import { connect, prefix } from '@conclave/sdk';
import { eventually, testTargets } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { followSlowly, writeEvents } from './slow-watch.ts';

const count = 20_000;
const megabyte = 1024 * 1024;

describe.each(testTargets())('a loop that is slower than its watch, against $title', ({ start, skip }) => {
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

  test.skipIf(skip !== undefined)(
    'holds nobody else back',
    async () => {
      await using server = await start();
      await using client = await connect({ endpoints: server.address });
      const first = await writeEvents(client, count);
      // More than a connection may hold unread, many times over. Whole, as etcd would take long to cut it.
      const loops = Array.from({ length: 8 }, () =>
        client.watch(prefix('slow/'), { startRevision: first, bufferedEventsMax: 10, fragment: false })[Symbol.asyncIterator](),
      );
      for (const loop of loops) await loop.next();
      const seen: string[] = [];
      await using other = client.watch('other', { startRevision: first });
      other.subscribe(({ value }) => seen.push(value));
      for (let n = 0; n < 50; n++) await client.put('other', `${n}`);
      await eventually('the events of the other', () => seen.length === 50);
      const rest = await Promise.all(
        loops.map(async (loop, at) => {
          let told = 1;
          while (at < 2 && told < count && (await loop.next()).done !== true) told++;
          await loop.return?.();
          return told;
        }),
      );
      expect(rest.slice(0, 2)).toEqual([count, count]);
    },
    90_000,
  );
});
