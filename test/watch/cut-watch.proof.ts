import { testTargets } from '@conclave/testkit';
import { expect, test } from 'vitest';
import { type Cuts, followHistories } from './cut-watch.ts';

const count = 4_000;
const distances = [1, 9, 33, 101, 257, 499, 1_009, 2_003, 4_001, 8_009, 16_001, 32_003, 64_007, 128_021];
const kinds: readonly Cuts[] = [1, 5, 50].flatMap((times) => distances.map((every) => ({ every, times })));

test.each(testTargets().filter(({ skip }) => skip === undefined))(
  'watches that are cut at every so many bytes, 1 to 50 times, lose nothing and repeat nothing, against $name',
  async ({ start, name }) => {
    await using server = await start();
    for (const { written, watches } of await followHistories(server.address, kinds, count)) {
      const cuts = watches.reduce((sum, watch) => sum + watch.cuts, 0);
      console.log(`${name}: ${watches.length} watches of ${written.length} events, ${cuts} cuts`);
      for (const { revisions } of watches) expect(revisions).toEqual(written);
      expect(cuts).toBeGreaterThan(kinds.length);
    }
  },
);
