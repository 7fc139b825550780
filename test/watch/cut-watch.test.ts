import { testTargets } from '@conclave/testkit';
import { expect, test } from 'vitest';
import { type Cuts, followHistories } from './cut-watch.ts';

// The long form is in cut-watch.proof.ts.
const count = 1_000;
const kinds: readonly Cuts[] = [
  // Before the first message is through, in the midst of one, and between many.
  { every: 17, times: 2 },
  { every: 1_009, times: 5 },
  { every: 32_003, times: 50 },
];

const targets = testTargets();

test.for(targets)(
  'a watch that is cut everywhere loses nothing and repeats nothing, catching up and live, against $title',
  { timeout: 90_000 },
  async ({ start, skip }, context) => {
    if (skip !== undefined) context.skip(skip);
    await using server = await start();
    for (const { written, watches } of await followHistories(server.address, kinds, count)) {
      for (const { revisions, cuts } of watches) {
        expect(revisions).toEqual(written);
        expect(cuts).toBeGreaterThan(0);
      }
    }
  },
);
