import type { RaftConfig } from './config.ts';
import type { RaftLog } from './log.ts';
import { type ConfState, type MemberId, noMember, type PeerMessage, type ReadState } from './types.ts';

/**
 * One member's position in Raft, and what it has to say: shared by the parts that it plays (voter, follower, leader). Only Raft changes the
 * position.
 */
export class Member {
  readonly config: RaftConfig;
  readonly id: MemberId;
  readonly log: RaftLog;
  /** As of the applied index. */
  conf: ConfState;
  term: number;
  /** Whom this member voted for in `term`. Counts once the hard state that says so is durable. */
  vote: MemberId;
  leader: MemberId = noMember;

  messages: PeerMessage[] = [];
  /** Messages that promise something which is not on disk yet. */
  afterDurable: PeerMessage[] = [];
  readStates: ReadState[] = [];

  constructor(config: RaftConfig, log: RaftLog, term: number, vote: MemberId) {
    this.config = config;
    this.id = config.id;
    this.log = log;
    this.conf = config.initial.confState;
    this.term = term;
    this.vote = vote;
  }

  get isVoter(): boolean {
    return this.conf.voters.includes(this.id);
  }

  get isSoleVoter(): boolean {
    return this.conf.voters.length === 1 && this.isVoter;
  }

  envelope(to: MemberId): { readonly from: MemberId; readonly to: MemberId; readonly term: number } {
    return { from: this.id, to, term: this.term };
  }
}
