import { StatusCode, wireErrors } from '@conclave/protocol';
import type { CallEnd } from '@conclave/wire';
import { describe, expect, test } from 'vitest';
import { fromCallEnd, fromReason, isRefusedStream, isTransient, outcomeOf } from './from-call-end.ts';

function end(code: number, message = '', extra: { notProcessed?: boolean; trailers?: Record<string, string> } = {}): CallEnd {
  return { code, message, notProcessed: extra.notProcessed ?? false, trailer: (name) => extra.trailers?.[name] };
}

describe('every error in the table', () => {
  test.each(Object.values(wireErrors))('$key keeps its name, text, status and outcome', (row) => {
    expect(fromCallEnd(end(row.code, row.message), true)).toMatchObject({
      code: row.key,
      message: row.message,
      grpcCode: row.code,
      outcome: row.outcome,
    });
  });

  test.each(Object.values(wireErrors))('$key leaves no doubt about a read', (row) => {
    expect(fromCallEnd(end(row.code, row.message), false).outcome).toBe('not-applied');
  });

  test.each(Object.values(wireErrors))('$key is repeated exactly when its class says so', (row) => {
    expect(isTransient(end(row.code, row.message))).toBe(row.retry === 'unavailable' || row.retry === 'other-member');
  });
});

describe('a text that is in no table', () => {
  test.each([
    ['unavailable', StatusCode.UNAVAILABLE, 'unknown'],
    ['deadline-exceeded', StatusCode.DEADLINE_EXCEEDED, 'unknown'],
    ['internal', StatusCode.INTERNAL, 'unknown'],
    ['unknown', StatusCode.UNKNOWN, 'unknown'],
    ['request-canceled', StatusCode.CANCELLED, 'unknown'],
    ['resource-exhausted', StatusCode.RESOURCE_EXHAUSTED, 'unknown'],
    ['unknown', StatusCode.ABORTED, 'unknown'],
    ['invalid-argument', StatusCode.INVALID_ARGUMENT, 'not-applied'],
    ['unimplemented', StatusCode.UNIMPLEMENTED, 'not-applied'],
    ['unauthenticated', StatusCode.UNAUTHENTICATED, 'not-applied'],
    ['permission-denied', StatusCode.PERMISSION_DENIED, 'not-applied'],
  ] as const)('is %s by status %i, outcome of a write %s', (code, status, outcome) => {
    expect(fromCallEnd(end(status, 'words nobody knows'), true)).toMatchObject({ code, outcome, message: 'words nobody knows' });
  });

  test('gets words if it has none', () => {
    expect(fromCallEnd(end(14), false).message).toBe('the call ended with gRPC status 14');
  });
});

describe('the outcome of a write', () => {
  test('is not-applied when the transport proves that no server saw it', () => {
    expect(outcomeOf(end(14, 'connection refused', { notProcessed: true }))).toBe('not-applied');
  });

  test.each(['not-applied', 'applied', 'unknown'] as const)('is %s when the server says so in its trailer', (outcome) => {
    expect(outcomeOf(end(14, 'etcdserver: no leader', { trailers: { 'conclave-outcome': outcome } }))).toBe(outcome);
  });

  test('stays unknown when the trailer says something else', () => {
    expect(outcomeOf(end(14, 'etcdserver: no leader', { trailers: { 'conclave-outcome': 'surely not' } }))).toBe('unknown');
  });
});

test('a cancel reason is recognised in the form in which servers print a status', () => {
  expect(fromReason('rpc error: code = PermissionDenied desc = etcdserver: permission denied').code).toBe('permission-denied');
  expect(fromReason('mvcc: watcher range is empty').code).toBe('watch-range-empty');
});

test.each([
  [false, 14, 'etcdserver: no leader'],
  [false, 14, 'socket hang up'],
  [false, 13, 'Received RST_STREAM'],
  [false, 2, 'who knows'],
  [false, 9, 'etcdserver: rpc not supported for learner'],
  [true, 7, 'etcdserver: permission denied'],
  [true, 12, 'unknown service'],
  [true, 8, 'grpc: received message larger than max (5 vs. 4)'],
])('a stream is refused (%s) when it ends with status %i, %s', (isRefused, code, message) => {
  expect(isRefusedStream(end(code, message))).toBe(isRefused);
});
