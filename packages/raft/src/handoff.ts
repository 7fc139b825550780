import type { Member } from './member.ts';
import type { HardState, MemberId, PeerMessage, Role, SoftState, StorageAppend, StorageAppendResponse } from './types.ts';

/** What the host has been given of a member's state, and what it has not: each piece of work is handed out once. */
export class Handoff {
  readonly #member: Member;
  #term: number;
  #vote: MemberId;
  #softState: SoftState;

  /** @param hardState what storage held at the start. */
  constructor(member: Member, hardState: HardState, role: Role) {
    this.#member = member;
    this.#term = hardState.term;
    this.#vote = hardState.vote;
    this.#softState = { role, leader: member.leader, term: member.term };
  }

  hasWork(role: Role): boolean {
    const { messages, readStates, afterDurable, log } = this.#member;
    return (
      messages.length > 0 ||
      readStates.length > 0 ||
      afterDurable.length > 0 ||
      log.handedIndex < log.lastIndex ||
      log.hasSnapshot ||
      log.owesCommit ||
      log.hasUnapplied ||
      this.#hasNewHardState ||
      this.#hasNewSoftState(role)
    );
  }

  takeAppend(): StorageAppend | undefined {
    const { log, afterDurable, config } = this.#member;
    const snapshot = log.takeSnapshot();
    const entries = log.takeUnwritten(config.maxEntriesPerAppendBytes);
    const isWorthARecord = entries.length > 0 || snapshot !== undefined || this.#hasNewHardState || log.owesCommit;
    const hardState = isWorthARecord ? this.#takeHardState() : undefined;
    const responses: (PeerMessage | StorageAppendResponse)[] = hardState ? [log.began(hardState.commit, snapshot)] : [];
    // While entries are left, what they promise waits for the append that holds the last of them.
    if (log.handedIndex === log.lastIndex && afterDurable.length > 0) {
      responses.push(...afterDurable);
      this.#member.afterDurable = [];
    }
    if (!hardState && responses.length === 0) return undefined;
    return { entries, hardState, snapshot, responses };
  }

  /**
   * The commit index is cut to what storage has been given, and has on disk when it has this record: a restart that finds it beyond the end of its
   * log then knows that entries were lost.
   */
  #takeHardState(): HardState {
    const { term, vote, log } = this.#member;
    this.#term = term;
    this.#vote = vote;
    return { term, vote, commit: Math.min(log.committedIndex, log.handedIndex) };
  }

  get #hasNewHardState(): boolean {
    return this.#term !== this.#member.term || this.#vote !== this.#member.vote;
  }

  #hasNewSoftState(role: Role): boolean {
    return this.#softState.role !== role || this.#softState.leader !== this.#member.leader || this.#softState.term !== this.#member.term;
  }

  takeSoftState(role: Role): SoftState | undefined {
    if (!this.#hasNewSoftState(role)) return undefined;
    const { leader, term } = this.#member;
    this.#softState = { role, leader, term };
    return this.#softState;
  }
}
