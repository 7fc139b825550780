import { expect, test } from 'vitest';
import { checkHistory } from './check-history.ts';
import { showFinding } from './finding.ts';
import { lawfulHistory } from './lawful-history.ts';

test.each([true, false])('nothing is found in lawful histories, with a witness: %s', (hasWitness) => {
  for (let seed = 0; seed < 60; seed++) {
    const { history, model } = lawfulHistory(seed, { operations: 400, hasWitness });
    const found = checkHistory(history, { settledRevision: model.revision });
    expect(found.map(showFinding), `seed ${seed}`).toEqual([]);
  }
});
