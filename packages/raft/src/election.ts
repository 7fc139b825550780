import type { Member } from './member.ts';
import { type VoteResult, voteResult } from './quorum.ts';
import { type MemberId, noMember, type PeerMessage, type RequestVote, type RequestVoteResponse } from './types.ts';

/** Voting, on both sides. */
export class Election {
  readonly #member: Member;
  /** Who answered what in the present campaign. */
  readonly #votes: Map<MemberId, boolean> = new Map();

  constructor(member: Member) {
    this.#member = member;
  }

  // ---- campaigning ----

  /** A change of membership that is committed and not applied hides who the voters are. */
  get mayCampaign(): boolean {
    const { isVoter, log } = this.#member;
    return isVoter && !log.isRestoring && !log.hasConfChange(log.appliedIndex, log.committedIndex);
  }

  /** Forgets who voted. */
  reset(): void {
    this.#votes.clear();
  }

  ask(type: RequestVote['type'], term: number, leadershipTransfer: boolean): void {
    const { id, conf, log, messages } = this.#member;
    const { lastIndex: lastLogIndex, lastTerm: lastLogTerm } = log;
    for (const to of conf.voters) {
      if (to !== id) messages.push({ type, from: id, to, term, lastLogIndex, lastLogTerm, leadershipTransfer, ...this.#commit });
    }
  }

  /** The own vote counts like any other: when it is durable. Before that, a crash could have it cast again for somebody else. */
  voteForItself(): void {
    const { id, afterDurable } = this.#member;
    afterDurable.push({ type: 'requestVoteResponse', ...this.#member.envelope(id), granted: true, ...this.#commit });
  }

  /** An answer counts once. */
  count(voter: MemberId, granted: boolean): VoteResult {
    if (!this.#votes.has(voter)) this.#votes.set(voter, granted);
    return voteResult(this.#member.conf.voters, this.#votes);
  }

  // ---- voting ----

  /** Also a learner answers, and who is in no configuration: its own may be the older one. */
  grants(request: RequestVote): boolean {
    const { term, vote, leader, log } = this.#member;
    const isFree = (vote === noMember && leader === noMember) || vote === request.from;
    const isOpen = request.type === 'requestPreVote' && request.term > term;
    return (isFree || isOpen) && log.isUpToDate(request.lastLogIndex, request.lastLogTerm);
  }

  /** A granted pre-vote carries the term it was asked for; any other answer ours, so that who is behind learns of it. */
  answer(request: RequestVote, granted: boolean): void {
    const { id, term, afterDurable } = this.#member;
    const type: RequestVoteResponse['type'] = request.type === 'requestPreVote' ? 'requestPreVoteResponse' : 'requestVoteResponse';
    afterDurable.push({ type, from: id, to: request.from, term: granted ? request.term : term, granted, ...this.#commit });
  }

  // ---- what is told beside ----

  get #commit(): { readonly commitIndex: number; readonly commitTerm: number } {
    const { log } = this.#member;
    return { commitIndex: log.committedIndex, commitTerm: log.termAt(log.committedIndex)! };
  }

  /**
   * What is committed is so for ever: this holds for messages of any term. Not of a granted pre-vote, which does not say in what term its sender is.
   * @returns whether that is news
   */
  learnCommit(message: RequestVote | RequestVoteResponse): boolean {
    if (message.type === 'requestPreVoteResponse' && message.granted) return false;
    const { log } = this.#member;
    const { commitIndex, commitTerm } = message;
    if (commitIndex <= log.committedIndex || log.termAt(commitIndex) !== commitTerm) return false;
    log.commitTo(commitIndex);
    return true;
  }
}

export function isVoting(message: PeerMessage): message is RequestVote | RequestVoteResponse {
  switch (message.type) {
    case 'requestVote':
    case 'requestPreVote':
    case 'requestVoteResponse':
    case 'requestPreVoteResponse':
      return true;
    default:
      return false;
  }
}
