import { Arrivals } from './arrivals.ts';
import type { MemberId, MemberProgress } from './types.ts';

/** Bounds of what is on its way to one member. */
export interface InflightBounds {
  readonly maxInflightAppends: number;
  readonly maxInflightBytes: number;
}

/**
 * What a leader knows of another member, and what it has sent there. Always `matchIndex < nextIndex`.
 *
 * - `probe`: the logs are not known to agree. One append at a time.
 * - `replicate`: they agree. Appends follow each other without waiting for answers, as many as the bounds allow.
 * - `snapshot`: the member needs entries that are compacted. An empty append now and then finds out whether it has got past them, so that no
 *   lost answer or report can leave it here for good.
 *
 * An append may be lost. A paused member's is repeated when it answers a heartbeat of a later beat: not before it is known to be alive, and not
 * more often than heartbeats are sent.
 */
export class Progress {
  readonly member: MemberId;
  readonly arrivals: Arrivals = new Arrivals();
  isVoter: boolean;
  state: MemberProgress['state'] = 'probe';
  /** Highest index known to be durable at the member, and equal to the leader's. Never decreases. */
  matchIndex = 0;
  nextIndex: number;
  /** Up to where the member was told of commits. What told it may be lost: every heartbeat says it again. */
  toldCommit = 0;
  /** Heard from since the last check of the quorum. A new member counts as heard from. */
  isActive = true;
  /** The last round of heartbeats it answered. */
  round = 0;
  /** `snapshot`: the member was given all of it, or a while has passed. If it turns out to be still behind, it needs another. */
  isSnapshotDoubted = false;
  /** `probe`, `snapshot`: an append is on its way. */
  #isPaused = false;
  /** `replicate`: what was sent may be lost, and an empty append shall find out. */
  #isDoubted = false;
  /** Beat in which an append was last sent to find out something. */
  #probedAtBeat = 0;

  // Appends in flight, a ring: their last indexes, and their bytes.
  readonly #bounds: InflightBounds;
  readonly #ends: number[] = [];
  readonly #sizes: number[] = [];
  #first = 0;
  #count = 0;
  #bytes = 0;

  constructor(member: MemberId, isVoter: boolean, nextIndex: number, bounds: InflightBounds) {
    this.member = member;
    this.isVoter = isVoter;
    this.nextIndex = nextIndex;
    this.#bounds = bounds;
  }

  toMemberProgress(): MemberProgress {
    const { member, state, matchIndex, nextIndex, isActive } = this;
    return { member, state, matchIndex, nextIndex, isActive };
  }

  // ---- what is due ----

  /** Whether an append is to be sent now, with entries or, to find out something, without. */
  isAppendDue(lastIndex: number): boolean {
    if (this.state !== 'replicate') return !this.#isPaused;
    return this.#isDoubted || (this.mayCarryEntries && this.nextIndex <= lastIndex);
  }

  /** Whether the member is to be told of commits by themselves: of what it is known to hold, as a heartbeat tells it. */
  isCommitDue(commitIndex: number): boolean {
    return this.state === 'replicate' && Math.min(commitIndex, this.matchIndex) > this.toldCommit;
  }

  /** @returns the commit index that the member may be told without a look at its log: it is told that now. */
  tellCommit(commitIndex: number): number {
    const leaderCommit = Math.min(commitIndex, this.matchIndex);
    this.toldCommit = Math.max(this.toldCommit, leaderCommit);
    return leaderCommit;
  }

  get mayCarryEntries(): boolean {
    if (this.state === 'probe') return true;
    const { maxInflightAppends, maxInflightBytes } = this.#bounds;
    return this.state === 'replicate' && this.#count < maxInflightAppends && (this.#count === 0 || this.#bytes < maxInflightBytes);
  }

  /** An append was sent with the entries up to `end`, of this many bytes; `hasEntries` false: with none. */
  sent(end: number, hasEntries: boolean, bytes: number, commitIndex: number, beat: number): void {
    this.toldCommit = Math.max(this.toldCommit, Math.min(commitIndex, end));
    if (this.state === 'replicate') {
      if (hasEntries) this.#addInflight(end, bytes);
      if (hasEntries) this.nextIndex = end + 1;
      if (this.#isDoubted) this.#probedAtBeat = beat;
      this.#isDoubted = false;
    } else {
      this.pause(beat);
    }
  }

  /** Nothing more until the member answers, or a heartbeat of a later beat than this. */
  pause(beat: number): void {
    this.#isPaused = true;
    this.#probedAtBeat = beat;
  }

  /** The member answered a heartbeat, in this beat of the leader's. What was sent before may be lost if it is not answered by now. */
  answeredHeartbeat(beat: number): void {
    if (this.#probedAtBeat >= beat) return;
    this.#isPaused = false;
    this.#isDoubted = this.state === 'replicate' && this.matchIndex < this.nextIndex - 1;
  }

  // ---- answers ----

  /** The member holds the leader's log up to here. @returns whether that is news. */
  matched(index: number): boolean {
    this.#freeInflight(index);
    if (index <= this.matchIndex) return false;
    this.matchIndex = index;
    this.nextIndex = Math.max(this.nextIndex, index + 1);
    return true;
  }

  becomeProbe(): void {
    this.state = 'probe';
    this.nextIndex = this.matchIndex + 1;
    this.#forget();
  }

  becomeReplicate(): void {
    this.state = 'replicate';
    this.nextIndex = this.matchIndex + 1;
    this.#forget();
  }

  becomeSnapshot(beat: number): void {
    this.state = 'snapshot';
    this.nextIndex = this.matchIndex + 1;
    this.#forget();
    this.pause(beat);
  }

  /** The probe was turned down: the logs can agree up to `index` at most. */
  backTo(index: number): void {
    this.nextIndex = Math.max(Math.min(this.nextIndex - 1, index + 1), this.matchIndex + 1);
    this.#isPaused = false;
  }

  #forget(): void {
    this.isSnapshotDoubted = false;
    this.#isPaused = false;
    this.#isDoubted = false;
    this.#count = 0;
    this.#bytes = 0;
  }

  // ---- in flight ----

  #addInflight(end: number, bytes: number): void {
    const at = (this.#first + this.#count) % this.#bounds.maxInflightAppends;
    this.#ends[at] = end;
    this.#sizes[at] = bytes;
    this.#count += 1;
    this.#bytes += bytes;
  }

  #freeInflight(index: number): void {
    while (this.#count > 0 && this.#ends[this.#first]! <= index) {
      this.#bytes -= this.#sizes[this.#first]!;
      this.#first = (this.#first + 1) % this.#bounds.maxInflightAppends;
      this.#count -= 1;
    }
  }
}
