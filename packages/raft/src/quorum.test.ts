import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { quorumReached, quorumSize, voteResult } from './quorum.ts';

const voters = fc.uniqueArray(fc.bigInt({ min: 1n, max: 9n }), { maxLength: 7 });

describe('a quorum', () => {
  it('is any set that overlaps every other of its size', () => {
    for (let size = 1; size <= 9; size++) {
      const needed = quorumSize(size);
      expect(2 * needed).toBeGreaterThan(size);
      expect(2 * (needed - 1)).toBeLessThanOrEqual(size);
    }
  });

  it('reaches the highest value that enough voters reach, by counting', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { maxLength: 7 }), (reached) => {
        const isReached = (value: number): boolean => reached.filter((each) => each >= value).length >= quorumSize(reached.length);
        const highest = Array.from({ length: 10 }, (_, at) => 9 - at).find(isReached) ?? 0;
        expect(quorumReached([...reached])).toBe(highest);
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
        const canWin = members.length > 0 && granted + missing >= quorumSize(members.length);
        const hasWon = members.length > 0 && granted >= quorumSize(members.length);
        expect(voteResult(members, votes)).toBe(hasWon ? 'won' : canWin ? 'pending' : 'lost');
      }),
    );
  });
});
