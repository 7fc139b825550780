import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Arrivals } from './arrivals.ts';

describe('numbered messages', () => {
  it('are new once, in whatever order and however often they come', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 900 })), (numbers) => {
        const arrivals = new Arrivals();
        const taken = numbers.filter((number) => arrivals.isNew(1, number));
        expect(taken).toEqual([...new Set(numbers)]);
      }),
    );
  });

  it('are new again in the next life of their sender, and not any more in an earlier one', () => {
    const arrivals = new Arrivals();
    const answers = [arrivals.isNew(1, 5), arrivals.isNew(3, 5), arrivals.isNew(3, 5), arrivals.isNew(1, 6), arrivals.isNew(2, 6)];
    expect(answers).toEqual([true, true, false, false, false]);
  });

  it('are never new twice, however long it goes on', () => {
    const arrivals = new Arrivals();
    for (let number = 1; number <= 10_000; number++) {
      const again = Math.max(1, number - (number % 3000));
      if (!arrivals.isNew(1, number)) expect.fail(`${number} is not new`);
      if (arrivals.isNew(1, again)) expect.fail(`${again} is new again`);
    }
  });
});
