import { expect, test } from 'vitest';
import { eventually } from './condition.ts';

test('a condition whose first look took all the time is looked at again', async () => {
  let looks = 0;
  const look = async (): Promise<boolean> => {
    if (++looks === 1) await new Promise((resolve) => setTimeout(resolve, 30));
    return looks === 2;
  };
  await eventually('the second look', look, 10);
  expect(looks).toBe(2);
});

test('a condition that never holds is told by name', async () => {
  await expect(eventually('what never comes', () => false, 10)).rejects.toThrow('not within 10 ms: what never comes');
});
