import type { MemberId } from './types.ts';

/** Smallest number of voters of which any two sets overlap. */
export function quorumSize(voters: readonly MemberId[]): number {
  return Math.floor(voters.length / 2) + 1;
}

/** Highest index that a quorum of the voters holds. `matchIndex` gives what each is known to hold durably, 0 when nothing is known. */
export function quorumIndex(voters: readonly MemberId[], matchIndex: (voter: MemberId) => number): number {
  if (voters.length === 0) return 0;
  if (voters.length === 1) return matchIndex(voters[0]!);
  const descending = voters.map(matchIndex).sort((a, b) => b - a);
  return descending[quorumSize(voters) - 1]!;
}

export type VoteResult = 'won' | 'lost' | 'pending';

/** Lost as soon as the voters that have not answered cannot make a quorum any more. Votes of others than voters do not count. */
export function voteResult(voters: readonly MemberId[], votes: ReadonlyMap<MemberId, boolean>): VoteResult {
  const needed = quorumSize(voters);
  const granted = voters.filter((voter) => votes.get(voter) === true).length;
  const refused = voters.filter((voter) => votes.get(voter) === false).length;
  if (voters.length > 0 && granted >= needed) return 'won';
  return voters.length - refused < needed ? 'lost' : 'pending';
}
