import { expect, test } from 'vitest';
import type { Hold } from '../history.ts';
import { checkHashes } from './hashes.ts';
import { checkFencing, checkHolds } from './holds.ts';

const hold = (holder: string, token: number, from: number, until?: number): Hold => ({
  name: 'jobs',
  holder,
  token,
  asked: from - 1,
  from,
  ...(until !== undefined && { until }),
});

const rules = (holds: readonly Hold[]): string[] => checkHolds(holds).map((finding) => finding.rule);

test('one holder after the other is right, also at one instant, and so is another lock meanwhile', () => {
  const holds = [hold('a', 2, 10, 20), hold('b', 5, 20, 30), hold('c', 9, 40)];
  expect(rules([...holds, { ...hold('d', 3, 12, 50), name: 'other' }])).toEqual([]);
});

test('two who hold at one time are found, whoever was written down first', () => {
  expect(rules([hold('b', 5, 15, 30), hold('a', 2, 10, 20)])).toEqual(['exclusion']);
});

test('who holds during a long hold of another is found, however many came between', () => {
  expect(rules([hold('a', 2, 10, 100), hold('b', 5, 20, 30), hold('c', 6, 40, 50)])).toEqual(['exclusion', 'exclusion']);
});

test('who never gave up holds until the end', () => {
  expect(rules([hold('a', 2, 10), hold('b', 5, 1000, 1001)])).toEqual(['exclusion']);
});

test('a token that goes back, and one that comes twice, are found', () => {
  expect(rules([hold('a', 5, 10, 20), hold('b', 4, 30, 40)])).toEqual(['token-order']);
  expect(rules([hold('a', 5, 10, 20), hold('b', 5, 30, 40)])).toEqual(['token-unique']);
});

test('a resource that takes an old token after a new one is found', () => {
  const write = (token: number, time: number): { name: string; token: number; time: number } => ({ name: 'store', token, time });
  expect(checkFencing([write(2, 1), write(2, 2), write(5, 3), { ...write(1, 4), name: 'other' }])).toEqual([]);
  expect(checkFencing([write(5, 1), write(2, 2)])).toMatchObject([{ rule: 'fencing' }]);
});

test('hashes are compared where revision and compaction are equal', () => {
  const sample = (
    member: string,
    revision: number,
    compactRevision: number,
    hash: number,
  ): Parameters<typeof checkHashes>[0] extends Iterable<infer S> ? S : never => ({
    member,
    revision,
    compactRevision,
    hash,
  });
  expect(checkHashes([sample('a', 9, 3, 1), sample('b', 9, 3, 1), sample('a', 9, 4, 2), sample('b', 10, 3, 3)])).toEqual([]);
  expect(checkHashes([sample('a', 9, 3, 1), sample('b', 9, 3, 2)])).toMatchObject([{ rule: 'equal-hashes' }]);
});
