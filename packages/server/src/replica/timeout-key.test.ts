import { describe, expect, it } from 'vitest';
import { type TimedOut, timeoutKey } from './timeout-key.ts';

const base: TimedOut = {
  since: 10_000,
  ledSince: Number.NEGATIVE_INFINITY,
  electionTimeoutMs: 1000,
  self: 1n,
  leader: 2n,
  voters: [1n, 2n, 3n],
  connectedSince: () => 5000,
};

describe('a request that took too long is told', () => {
  it('nothing more where there is nothing more to say', () => {
    expect(timeoutKey(base)).toBe('request-timeout');
    expect(timeoutKey({ ...base, leader: 0n, connectedSince: () => undefined })).toBe('request-timeout');
    expect(timeoutKey({ ...base, connectedSince: undefined })).toBe('request-timeout');
    expect(timeoutKey({ ...base, leader: 1n, ledSince: 9000 })).toBe('request-timeout');
  });

  it('that the leader before may have failed, where it came less than two election timeouts before this member led', () => {
    expect(timeoutKey({ ...base, leader: 1n, ledSince: 11_500 })).toBe('request-timeout-leader-failure');
    expect(timeoutKey({ ...base, leader: 1n, ledSince: 12_500 })).toBe('request-timeout');
  });

  it('that a connection may have been lost, where the leader or its majority was not connected all the time', () => {
    expect(timeoutKey({ ...base, connectedSince: () => undefined })).toBe('request-timeout-connection-lost');
    expect(timeoutKey({ ...base, connectedSince: () => 10_500 })).toBe('request-timeout-connection-lost');
    expect(timeoutKey({ ...base, leader: 1n, connectedSince: () => undefined })).toBe('request-timeout-connection-lost');
    const oneOfTwo = (member: bigint): number | undefined => (member === 2n ? 5000 : undefined);
    expect(timeoutKey({ ...base, leader: 1n, connectedSince: oneOfTwo })).toBe('request-timeout');
  });
});
