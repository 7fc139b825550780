import { expect, test } from 'vitest';
import { said } from './vitest-summary.ts';

test('a test that took too long says so: its stack does not', () => {
  const stack = 'Error: STACK_TRACE_ERROR\n    at a.test.ts:2:1';
  expect(said({ message: 'Test timed out in 200ms.', stack })).toEqual(['Error: Test timed out in 200ms.\n    at a.test.ts:2:1']);
});

test('an error is told with its causes, and one that is none as it is', () => {
  const inner = { message: 'why', stack: 'TypeError: why\n    at b.ts:1:1' };
  expect(said({ message: 'outer', stack: 'Error: outer\n    at a.ts:1:1', cause: inner })).toEqual([
    'Error: outer\n    at a.ts:1:1',
    '[cause]: TypeError: why\n    at b.ts:1:1',
  ]);
  expect(said({ message: 'just text' })).toEqual(['Error: just text']);
});
