import { replay } from '@conclave/testkit';
import { expect, test } from 'vitest';
import { lawfulHistory } from '../../packages/testkit/src/checkers/lawful-history.ts';

test('a million operations are replayed in seconds', () => {
  const { history } = lawfulHistory(1, { operations: 1_000_000, clients: 16, keys: 500, unknown: 0.01, isPlain: true });
  const before = process.cpuUsage();
  const { findings, truth } = replay(history);
  const seconds = process.cpuUsage(before).user / 1_000_000;
  console.log(`${history.operations.length} operations, ${truth.revision} revisions: ${seconds.toFixed(1)} s of processor time`);
  expect(findings).toEqual([]);
  expect(truth.revision).toBeGreaterThan(400_000);
  expect(seconds).toBeLessThan(20);
});
