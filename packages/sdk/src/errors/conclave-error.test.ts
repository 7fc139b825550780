import { expect, test } from 'vitest';
import { ConclaveError, invalidArgument, isConclaveError } from './conclave-error.ts';

test('an error tells its code, its outcome and its cause', () => {
  const cause = new Error('below');
  const error = new ConclaveError({ code: 'unavailable', message: 'gone', outcome: 'unknown', cause, grpcCode: 14 });
  expect(error).toMatchObject({ name: 'ConclaveError', code: 'unavailable', message: 'gone', outcome: 'unknown', cause, grpcCode: 14 });
  expect(error).toBeInstanceOf(Error);
});

test('an error is recognised, with and without its code', () => {
  const error = invalidArgument('no');
  expect(isConclaveError(error)).toBe(true);
  expect(isConclaveError(error, 'invalid-argument')).toBe(true);
  expect(isConclaveError(error, 'compacted')).toBe(false);
});

test.each([undefined, null, 'text', {}, new Error('other'), { code: 'compacted' }])('%o is not one of ours', (value) => {
  expect(isConclaveError(value)).toBe(false);
});

test('an error of another copy of the package is recognised by its brand', () => {
  const foreign = Object.defineProperty(Object.assign(new Error('elsewhere'), { code: 'compacted' }), Symbol.for('@conclave/error'), {
    value: true,
  });
  expect(isConclaveError(foreign, 'compacted')).toBe(true);
});
