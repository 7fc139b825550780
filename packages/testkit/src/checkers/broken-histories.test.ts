import { Random } from '@conclave/testing';
import { describe, expect, test } from 'vitest';
import { type Breakage, brokenAnswers, brokenWatches } from './breakages.ts';
import { checkHistory } from './check-history.ts';
import { crimes, lawfulHistory } from './lawful-history.ts';

/** In how many histories the breakage had a place, and was seen. */
function detection(breakage: Breakage): { readonly broken: number; readonly missed: readonly number[] } {
  const missed: number[] = [];
  let broken = 0;
  for (let seed = 0; seed < 20; seed++) {
    const { history, model } = lawfulHistory(seed, { operations: 250, watches: 8 });
    const changed = breakage(history, new Random(seed), model);
    if (changed === undefined) continue;
    broken++;
    if (checkHistory(changed, { settledRevision: model.revision }).length === 0) missed.push(seed);
  }
  return { broken, missed };
}

describe.each(Object.entries({ ...brokenAnswers, ...brokenWatches }))('%s', (_name, breakage) => {
  test('is found every time', () => {
    const { broken, missed } = detection(breakage);
    expect(missed).toEqual([]);
    expect(broken).toBeGreaterThan(4);
  });
});

describe.each(crimes)('a cluster that %s', (crime) => {
  test('is found out every time', () => {
    const missed: number[] = [];
    let broken = 0;
    for (let seed = 0; seed < 20; seed++) {
      const { history, model, isBroken } = lawfulHistory(seed, { operations: 400, crime, unknown: crime.includes('unknown') ? 0.05 : 0 });
      if (!isBroken) continue;
      broken++;
      if (checkHistory(history, { settledRevision: model.revision }).length === 0) missed.push(seed);
    }
    expect(missed).toEqual([]);
    expect(broken).toBeGreaterThan(4);
  });
});
