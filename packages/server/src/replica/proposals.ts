import type { WireErrorKey } from '@conclave/protocol';
import type { ProposalResult, Raft } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import { encodeEntry, type LoggedRequest, type RequestKind } from '../apply/entry.ts';
import type { MembershipChange } from './options.ts';
import { refusal, refusalBeforeLog } from './refusal.ts';

export interface ProposalsOptions {
  readonly runtime: Runtime;
  readonly member: bigint;
  readonly requestTimeoutMs: number;
  /** Bound of the bytes that wait to enter the log. */
  readonly maxQueuedBytes: number;
  /** In which words a request that came at this instant is told that it took too long. */
  readonly timeoutKey: (since: number) => WireErrorKey;
}

/** What is proposed, but for what the log entry says of this member. */
export interface NewProposal {
  readonly kind: RequestKind;
  readonly body: Uint8Array;
  readonly user: string;
  readonly authRevision: number;
  /** Instant after which it must not enter the log any more. */
  readonly deadline: number;
}

interface Proposal<R> {
  readonly request: NewProposal;
  /** What raft is told, where the request changes the members. */
  readonly change: MembershipChange | undefined;
  /** It went before what had waited for longer. */
  readonly isUrgent: boolean;
  /** Instant at which the caller is told that it took too long, whatever becomes of the request. */
  readonly expiresAt: number;
  readonly resolve: (result: R) => void;
  readonly reject: (error: Error) => void;
  /** The one it entered in. Only a leader of that term can have put it into its log: raft turns down what is forwarded in another. */
  term: number;
  /** Since it entered a snapshot took the place of entries, and it may have been one of them. */
  isCovered: boolean;
}

/** What a queued proposal costs beside its body. */
const overheadBytes = 256;

/**
 * Of the bytes that may wait before the log, the share that a follower has on its way. The leader drops what is too much for it, and a request that is
 * dropped there is lost: so its followers together do not ask for more than it takes.
 */
const forwardedShare = 1 / 4;

type Proposer = Pick<Raft, 'propose' | 'proposeConfChange' | 'term' | 'isLeader'>;

/**
 * The requests this member received: first queued, until raft takes them into the log (or on the way to the leader), then waiting for their
 * own apply here. The step between the two is the point of no return: before it a request can be refused for certain, after it only its entry
 * tells what became of it, and it is never proposed a second time.
 */
export class Proposals<R> {
  readonly #options: ProposalsOptions;
  /** Of this start of the member: entries it wrote in an earlier life answer nobody. */
  readonly #epoch: number;
  #counter = 0;
  /** Oldest first, so also the first to expire. */
  #queue: Proposal<R>[] = [];
  #queuedBytes = 0;
  /** Before all others: few, and decided in the term they name. */
  #urgent: { readonly proposal: Proposal<R>; readonly term: number }[] = [];
  /** Changes of the members, one at a time: raft takes no other before the last one is applied, and a forwarded one would be lost. */
  #changes: Proposal<R>[] = [];
  /** Counter of the one that entered and is not applied. */
  #changeUnderWay: number | undefined;
  #turnExpiresAt: number | undefined;
  /** By counter; oldest first. */
  readonly #waiting: Map<number, Proposal<R>> = new Map();
  #waitingBytes = 0;
  /** Less waits than when the queue was last held back. */
  #hasRoom = false;
  /** Of the last entry applied. */
  #appliedTerm = 0;

  constructor(options: ProposalsOptions) {
    this.#options = options;
    this.#epoch = Math.floor(options.runtime.random() * Number.MAX_SAFE_INTEGER);
  }

  get isIdle(): boolean {
    return this.#queue.length === 0 && this.#waiting.size === 0 && this.#urgent.length === 0 && this.#changes.length === 0;
  }

  add(request: NewProposal): Promise<R> {
    const bytes = request.body.length + overheadBytes;
    if (this.#queue.length > 0 && this.#queuedBytes + bytes > this.#options.maxQueuedBytes) {
      return Promise.reject(refusalBeforeLog('too-many-requests'));
    }
    this.#queuedBytes += bytes;
    return this.#promised(request, undefined, (proposal) => this.#queue.push(proposal));
  }

  addChange(request: NewProposal, change: MembershipChange): Promise<R> {
    return this.#promised(request, change, (proposal) => this.#changes.push(proposal));
  }

  /** Goes before what clients asked for, and into the log in this term or not at all. */
  addUrgent(request: NewProposal, term: number): Promise<R> {
    return this.#promised(request, undefined, (proposal) => this.#urgent.push({ proposal, term }), true);
  }

  #promised(
    request: NewProposal,
    change: MembershipChange | undefined,
    queue: (proposal: Proposal<R>) => void,
    isUrgent = false,
  ): Promise<R> {
    // Those of one turn of the loop came at the same time.
    this.#turnExpiresAt ??= this.#options.runtime.monotonic() + this.#options.requestTimeoutMs;
    const expiresAt = this.#turnExpiresAt;
    return new Promise((resolve, reject) => {
      queue({ request, change, isUrgent, expiresAt, resolve, reject, term: 0, isCovered: false });
    });
  }

  /**
   * Hands over to raft what waits, as far as it takes it: what is dropped (no leader, too much uncommitted) stays and is tried again.
   * @returns whether it stopped at `maxBytes`, and more can enter at once.
   */
  enter(raft: Proposer, maxBytes: number): boolean {
    this.#turnExpiresAt = undefined;
    this.#hasRoom = false;
    if (this.#changes.length > 0) this.#enterChange(raft);
    if (this.#urgent.length > 0) this.#enterUrgent(raft);
    return this.#queue.length > 0 && this.#enterQueue(raft, maxBytes);
  }

  /** Whether what was held back may enter now. */
  get mayEnter(): boolean {
    return this.#hasRoom && this.#queue.length > 0;
  }

  #enterQueue(raft: Proposer, maxBytes: number): boolean {
    const now = this.#options.runtime.monotonic();
    let [taken, takenBytes, isDropped] = [0, 0, false];
    const maxWaitingBytes = raft.isLeader ? Number.POSITIVE_INFINITY : this.#options.maxQueuedBytes * forwardedShare;
    for (const proposal of this.#queue) {
      const bytes = bytesOf(proposal);
      if (taken > 0 && takenBytes + bytes > maxBytes) break;
      const isTooMuch = this.#waitingBytes > 0 && this.#waitingBytes + bytes > maxWaitingBytes;
      isDropped = isTooMuch || !this.#enterOne(raft, proposal, now);
      if (isDropped) break;
      taken += 1;
      takenBytes += bytes;
    }
    this.#queuedBytes -= takenBytes;
    this.#queue = taken === this.#queue.length ? [] : this.#queue.slice(taken);
    return !isDropped && this.#queue.length > 0;
  }

  #enterUrgent(raft: Proposer): void {
    const now = this.#options.runtime.monotonic();
    const stay = this.#urgent.filter(({ proposal, term }) => {
      if (term === raft.term) return !this.#enterOne(raft, proposal, now);
      proposal.reject(refusalBeforeLog('leader-changed'));
      return false;
    });
    this.#urgent = stay;
  }

  #enterChange(raft: Proposer): void {
    if (this.#changeUnderWay !== undefined) return;
    if (this.#enterOne(raft, this.#changes[0]!, this.#options.runtime.monotonic())) this.#changes.shift();
  }

  /** @returns whether it waits before the log no more. */
  #enterOne(raft: Proposer, proposal: Proposal<R>, now: number): boolean {
    if (proposal.request.deadline <= now) {
      proposal.reject(refusalBeforeLog('request-timeout'));
      return true;
    }
    return this.#propose(raft, proposal).status !== 'dropped';
  }

  #propose(raft: Proposer, proposal: Proposal<R>): ProposalResult {
    const { kind, body, user, authRevision } = proposal.request;
    const counter = this.#counter + 1;
    const entry = encodeEntry({
      kind,
      member: this.#options.member,
      epoch: this.#epoch,
      counter,
      term: raft.term,
      user,
      authRevision,
      body,
    });
    const { change } = proposal;
    const result = change === undefined ? raft.propose(entry) : raft.proposeConfChange({ ...change, context: entry });
    if (result.status === 'dropped') return result;
    this.#counter = counter;
    proposal.term = raft.term;
    this.#waiting.set(counter, proposal);
    this.#waitingBytes += bytesOf(proposal);
    if (change !== undefined) this.#changeUnderWay = counter;
    return result;
  }

  /** Whether somebody here still waits for what is made of the request. */
  isAwaited(request: LoggedRequest): boolean {
    return this.#isOwn(request) && this.#waiting.has(request.counter);
  }

  /**
   * An entry of this term is about to be applied. Terms only rise along the log: what was proposed in an earlier one and has not been applied by now
   * never will be, and its caller may ask again. So a change of leader costs a caller the election, and not its patience.
   */
  begins(term: number): void {
    if (term <= this.#appliedTerm) return;
    this.#appliedTerm = term;
    for (const [counter, proposal] of this.#waiting) {
      if (proposal.term >= term) break;
      this.#forget(counter, proposal);
      proposal.reject(proposal.isCovered ? refusal('leader-changed') : refusalBeforeLog('leader-changed'));
    }
  }

  /** A snapshot was put in the place of entries that nobody here saw: what became of those that wait cannot be told any more. */
  covered(): void {
    for (const proposal of this.#waiting.values()) proposal.isCovered = true;
  }

  /** An entry was applied: whoever waits for it here is answered. */
  applied(request: LoggedRequest, result: R): void {
    if (!this.#isOwn(request)) return;
    const proposal = this.#waiting.get(request.counter);
    if (proposal === undefined) return; // It had expired.
    this.#forget(request.counter, proposal);
    proposal.resolve(result);
  }

  /** It waits no more. */
  #forget(counter: number, proposal: Proposal<R>): void {
    this.#waiting.delete(counter);
    this.#waitingBytes -= bytesOf(proposal);
    this.#hasRoom = true;
    if (counter === this.#changeUnderWay) this.#changeUnderWay = undefined;
  }

  /** Proposed by this member, since it was started. */
  #isOwn(request: LoggedRequest): boolean {
    return request.member === this.#options.member && request.epoch === this.#epoch;
  }

  /** Tells those who have waited too long. What is in the log may still be applied. */
  expire(): void {
    const now = this.#options.runtime.monotonic();
    for (const proposal of takeExpired(this.#queue, now)) {
      this.#queuedBytes -= bytesOf(proposal);
      this.#tellBeforeLog(proposal);
    }
    for (const proposal of takeExpired(this.#changes, now)) this.#tellBeforeLog(proposal);
    for (const [counter, proposal] of this.#waiting) {
      if (proposal.expiresAt <= now) this.#expire(counter, proposal);
      // It came later than those that it went before.
      else if (!proposal.isUrgent) break;
    }
    // It may have waited longer before the log than those that entered before it.
    const change = this.#changeUnderWay === undefined ? undefined : this.#waiting.get(this.#changeUnderWay);
    if (change !== undefined && change.expiresAt <= now) this.#expire(this.#changeUnderWay!, change);
  }

  #expire(counter: number, proposal: Proposal<R>): void {
    this.#forget(counter, proposal);
    proposal.reject(refusal(this.#timeoutKey(proposal)));
  }

  #tellBeforeLog(proposal: Proposal<R>): void {
    proposal.reject(refusalBeforeLog(this.#timeoutKey(proposal)));
  }

  #timeoutKey({ expiresAt }: Proposal<R>): WireErrorKey {
    return this.#options.timeoutKey(expiresAt - this.#options.requestTimeoutMs);
  }

  /** The member stops: nothing more will be answered. */
  abandon(): void {
    const queued = [...this.#urgent.map(({ proposal }) => proposal), ...this.#changes, ...this.#queue];
    const waiting = [...this.#waiting.values()];
    this.#urgent = [];
    this.#changes = [];
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#waiting.clear();
    this.#waitingBytes = 0;
    for (const proposal of queued) proposal.reject(refusalBeforeLog('server-stopped'));
    for (const proposal of waiting) proposal.reject(refusal('server-stopped'));
  }
}

function bytesOf({ request }: { readonly request: NewProposal }): number {
  return request.body.length + overheadBytes;
}

/** Takes out of a queue, oldest first, what has expired. */
function takeExpired<P extends { readonly expiresAt: number }>(queue: P[], now: number): P[] {
  const firstLive = queue.findIndex((proposal) => proposal.expiresAt > now);
  return queue.splice(0, firstLive < 0 ? queue.length : firstLive);
}
