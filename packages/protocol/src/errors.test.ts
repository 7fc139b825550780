import { describe, expect, test } from 'vitest';
import { findWireError, StatusCode, type WireErrorKey, wireErrors } from './index.ts';

const rows = Object.entries(wireErrors);

test.each(rows)('%s is found again by what is sent', (key, row) => {
  expect(row.key).toBe(key);
  expect(key).toMatch(/^[a-z]+(-[a-z]+)*$/);
  expect(findWireError(row.code, row.message)).toBe(row);
  expect(findWireError(undefined, row.message)).toBe(row);
});

test('no two rows share a text', () => {
  expect(new Set(rows.map(([, row]) => row.message)).size).toBe(rows.length);
});

test('a known text is recognised whatever code it came with', () => {
  expect(findWireError(StatusCode.FAILED_PRECONDITION, wireErrors['not-enough-started-members'].message)?.key).toBe(
    'not-enough-started-members',
  );
  expect(findWireError(StatusCode.RESOURCE_EXHAUSTED, 'etcdserver: too many requests')?.key).toBe('too-many-requests');
});

test('a text that could be anybody’s needs its own code', () => {
  expect(findWireError(StatusCode.INTERNAL, 'election: no leader')).toBeUndefined();
});

test('a printed status is recognised, as watch cancel reasons carry it', () => {
  const reason = 'rpc error: code = PermissionDenied desc = etcdserver: permission denied';
  expect(findWireError(undefined, reason)?.key).toBe('permission-denied');
});

test.each([
  ['an unknown text', 'etcdserver: something new'],
  ['no text', ''],
  ['the name of an object property', 'constructor'],
  ['a text with something added', 'etcdserver: key not found '],
])('%s is not recognised', (_name, message) => {
  expect(findWireError(StatusCode.UNKNOWN, message)).toBeUndefined();
});

describe('what a client may conclude', () => {
  test.each(rows)('%s has the outcome its code allows', (_key, row) => {
    const uncertain: readonly number[] = [StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED, StatusCode.DATA_LOSS];
    if (uncertain.includes(row.code)) expect(row.outcome).toBe('unknown');
    const definite: readonly number[] = [
      StatusCode.INVALID_ARGUMENT,
      StatusCode.OUT_OF_RANGE,
      StatusCode.NOT_FOUND,
      StatusCode.FAILED_PRECONDITION,
      StatusCode.PERMISSION_DENIED,
      StatusCode.UNAUTHENTICATED,
      StatusCode.UNIMPLEMENTED,
    ];
    if (definite.includes(row.code)) expect(row.outcome).toBe('not-applied');
    if (row.retry === 'reauthenticate' || row.retry === 'other-member') expect(row.outcome).toBe('not-applied');
  });

  test.each<[WireErrorKey, string, string]>([
    ['too-many-requests', 'unavailable', 'not-applied'],
    ['no-space', 'never', 'unknown'],
    ['not-enough-started-members', 'never', 'not-applied'],
    ['leader-transfer-timeout', 'unavailable', 'unknown'],
    ['auth-revision-old', 'reauthenticate', 'not-applied'],
    ['not-leader', 'other-member', 'not-applied'],
  ])('%s: retry %s, outcome %s', (key, retry, outcome) => {
    expect(wireErrors[key]).toMatchObject({ retry, outcome });
  });
});
