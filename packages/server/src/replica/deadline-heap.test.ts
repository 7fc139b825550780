import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeadlineHeap } from './deadline-heap.ts';

describe('a deadline heap', () => {
  it('gives what a sorted list would, in any order of pushes and pops', () => {
    const commands = fc.array(fc.oneof(fc.nat(50), fc.constant('pop' as const)), { maxLength: 200 });
    fc.assert(
      fc.property(commands, (list) => {
        const heap = new DeadlineHeap<{ dueAt: number }>();
        const model: number[] = [];
        for (const command of list) {
          if (command === 'pop') expect(heap.pop()?.dueAt).toBe(model.shift());
          else {
            heap.push({ dueAt: command });
            model.push(command);
            model.sort((a, b) => a - b);
          }
          expect(heap.peek()?.dueAt).toBe(model[0]);
        }
      }),
    );
  });

  it('is empty once cleared', () => {
    const heap = new DeadlineHeap();
    heap.push({ dueAt: 1 });
    heap.clear();
    expect(heap.peek()).toBeUndefined();
  });
});
