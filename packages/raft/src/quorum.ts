import type { MemberId } from './types.ts';

/** Smallest number of voters of which any two sets overlap. */
export function quorumSize(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

/** The highest value that a quorum reaches; 0 without voters. @param reached one value for each voter. Sorted in place. */
export function quorumReached(reached: number[]): number {
  // At most a handful, and mostly in order already.
  for (let at = 1; at < reached.length; at++) {
    const value = reached[at]!;
    let to = at;
    for (; to > 0 && reached[to - 1]! < value; to--) reached[to] = reached[to - 1]!;
    reached[to] = value;
  }
  return reached[quorumSize(reached.length) - 1] ?? 0;
}

export type VoteResult = 'won' | 'lost' | 'pending';

/** Lost as soon as the voters that have not answered cannot make a quorum any more. Votes of others than voters do not count. */
export function voteResult(voters: readonly MemberId[], votes: ReadonlyMap<MemberId, boolean>): VoteResult {
  const needed = quorumSize(voters.length);
  const granted = voters.filter((voter) => votes.get(voter) === true).length;
  const refused = voters.filter((voter) => votes.get(voter) === false).length;
  if (voters.length > 0 && granted >= needed) return 'won';
  return voters.length - refused < needed ? 'lost' : 'pending';
}
