import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Preference, turnOf } from './preference.ts';
import type { Slot } from './slot.ts';

const slots = (...addresses: string[]): Slot[] => addresses.map((address) => ({ address }) as Slot);
const turn = (given: Readonly<Record<string, Preference>>): string[] =>
  turnOf(slots(...Object.keys(given)), new Map(Object.entries(given))).map(({ address }) => address);

test('only those of the best priority take turns', () => {
  expect(turn({ a: { priority: 20, weight: 1 }, b: { priority: 10, weight: 1 }, c: { priority: 10, weight: 1 } })).toEqual(['b', 'c']);
});

test('shares follow the weights, and are spread over the turn', () => {
  expect(turn({ a: { priority: 0, weight: 60 }, b: { priority: 0, weight: 20 } })).toEqual(['a', 'a', 'b', 'a']);
});

test('without weights all have the same share', () => {
  expect(turn({ a: { priority: 0, weight: 0 }, b: { priority: 0, weight: 0 } })).toEqual(['a', 'b']);
});

test('one of weight 0 beside others is chosen seldom', () => {
  const order = turn({ a: { priority: 0, weight: 0 }, b: { priority: 0, weight: 1_000 } });
  expect(order.filter((address) => address === 'a')).toHaveLength(1);
  expect(order.length).toBeGreaterThan(10);
});

test('without preferences all take turns as they are', () => {
  const all = slots('a', 'b');
  expect(turnOf(all, undefined)).toBe(all);
});

test('whatever the weights, everybody of the best priority is in a turn, which is not long', () => {
  const preference = fc.record({ priority: fc.integer({ min: 0, max: 3 }), weight: fc.integer({ min: 0, max: 65_535 }) });
  fc.assert(
    fc.property(fc.array(preference, { minLength: 1, maxLength: 9 }), (list) => {
      const given = Object.fromEntries(list.map((one, at) => [`s${at}`, one]));
      const best = Math.min(...list.map(({ priority }) => priority));
      const expected = list.flatMap(({ priority }, at) => (priority === best ? [`s${at}`] : []));
      const order = turn(given);
      expect([...new Set(order)].sort()).toEqual(expected.sort());
      expect(order.length).toBeLessThanOrEqual(64 + 9);
    }),
  );
});
