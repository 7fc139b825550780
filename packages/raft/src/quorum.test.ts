import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { quorumIndex, quorumSize, voteResult } from './quorum.ts';

const voters = fc.uniqueArray(fc.bigInt({ min: 1n, max: 9n }), { maxLength: 7 });

describe('a quorum', () => {
  it('is any set that overlaps every other of its size', () => {
    for (let size = 1; size <= 9; size++) {
      const members = Array.from({ length: size }, (_, at) => BigInt(at + 1));
      const needed = quorumSize(members);
      expect(2 * needed).toBeGreaterThan(size);
      expect(2 * (needed - 1)).toBeLessThanOrEqual(size);
    }
  });

  it('holds the highest index that enough voters hold, by counting', () => {
    fc.assert(
      fc.property(voters, fc.array(fc.nat(9), { minLength: 10, maxLength: 10 }), (members, matches) => {
        const matchIndex = (voter: bigint): number => matches[Number(voter)]!;
        const isHeld = (index: number): boolean => members.filter((voter) => matchIndex(voter) >= index).length >= quorumSize(members);
        const highest = Array.from({ length: 10 }, (_, at) => 9 - at).find(isHeld) ?? 0;
        expect(quorumIndex(members, matchIndex)).toBe(members.length === 0 ? 0 : highest);
      }),
    );
  });

  it('decides a vote as soon as no missing answer could change it', () => {
    const answers = fc.dictionary(fc.nat(9).map(String), fc.boolean());
    fc.assert(
      fc.property(voters, answers, (members, record) => {
        const votes = new Map(Object.entries(record).map(([voter, granted]) => [BigInt(voter), granted]));
        const missing = members.filter((voter) => !votes.has(voter)).length;
        const granted = members.filter((voter) => votes.get(voter)).length;
        const canWin = members.length > 0 && granted + missing >= quorumSize(members);
        const hasWon = members.length > 0 && granted >= quorumSize(members);
        expect(voteResult(members, votes)).toBe(hasWon ? 'won' : canWin ? 'pending' : 'lost');
      }),
    );
  });
});
