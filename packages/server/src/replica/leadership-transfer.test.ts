import type { MemberProgress } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import { describe, expect, it } from 'vitest';
import { LeadershipTransfer } from './leadership-transfer.ts';

type Told = Pick<MemberProgress, 'member' | 'matchIndex'> & Partial<MemberProgress>;

function bestOf(others: readonly Told[], voters = [1n, 2n, 3n, 4n]): bigint | undefined {
  const progress = others.map(
    (other): MemberProgress => ({ state: 'replicate', nextIndex: other.matchIndex + 1, isActive: true, ...other }),
  );
  const raft = { status: () => ({ progress, confState: { voters, learners: [] } }) } as never;
  return new LeadershipTransfer({ runtime: new VirtualRuntime(), self: 1n, raft, timeoutMs: 1000 }).bestTarget;
}

describe('who is to lead next', () => {
  it('is the voter that lags least', () => {
    const others = [
      { member: 2n, matchIndex: 5 },
      { member: 3n, matchIndex: 9 },
      { member: 4n, matchIndex: 7 },
    ];
    expect(bestOf(others)).toBe(3n);
    expect(bestOf(others, [1n, 2n, 4n])).toBe(4n);
  });

  it('is one that is there, and any that was where nobody was heard of since the last look', () => {
    expect(
      bestOf([
        { member: 2n, matchIndex: 5 },
        { member: 3n, matchIndex: 9, isActive: false },
      ]),
    ).toBe(2n);
    expect(
      bestOf([
        { member: 2n, matchIndex: 5, isActive: false },
        { member: 3n, matchIndex: 9, isActive: false },
      ]),
    ).toBe(3n);
  });

  it('is nobody where nobody follows', () => {
    expect(bestOf([{ member: 2n, matchIndex: 5, state: 'probe' }])).toBeUndefined();
    expect(bestOf([])).toBeUndefined();
  });
});
