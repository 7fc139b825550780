import fc from 'fast-check';
import { expect, test } from 'vitest';
import { IntervalTree } from './interval-tree.ts';

const end = fc.option(fc.string({ minLength: 1, maxLength: 2, unit: fc.constantFrom('a', 'b', 'c', 'd') }), { nil: undefined, freq: 4 });
const point = fc.string({ maxLength: 3, unit: fc.constantFrom('a', 'b', 'c', 'd', '\0', '\xff') });
const command = fc.record({ op: fc.constantFrom('set', 'set', 'delete'), start: point, end });

test('finds exactly the intervals that hold a key, whatever was added and removed before', () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), fc.array(point, { minLength: 1, maxLength: 8 }), (commands, points) => {
      const tree = new IntervalTree<string>();
      const model = new Map<string, { start: string; end: string | undefined }>();
      for (const { op, start, end } of commands) {
        if (end !== undefined && end <= start) continue;
        const name = JSON.stringify([start, end ?? null]);
        if (op === 'set') {
          tree.set(start, end, name);
          model.set(name, { start, end });
        } else {
          tree.delete(start, end);
          model.delete(name);
        }
        expect(tree.get(start, end)).toBe(model.has(name) ? name : undefined);
      }
      for (const key of points) {
        const found: string[] = [];
        tree.stab(key, (name) => found.push(name));
        const wanted = [...model].filter(([, range]) => range.start <= key && (range.end === undefined || key < range.end));
        expect(found.sort()).toEqual(wanted.map(([name]) => name).sort());
      }
    }),
    { numRuns: 500 },
  );
});

test('a question about a key in none of many intervals looks at few of them', () => {
  const tree = new IntervalTree<number>();
  const name = (n: number): string => String(n).padStart(8, '0');
  for (let n = 0; n < 100_000; n++) tree.set(name(n * 2), name(n * 2 + 1), n);
  const found: number[] = [];
  const before = performance.now();
  for (let n = 0; n < 10_000; n++) tree.stab(name(n * 2 + 1), (value) => found.push(value));
  const elapsed = performance.now() - before;
  expect(found).toEqual([]);
  // A walk over all of them would take minutes.
  expect(elapsed).toBeLessThan(2000);
});
