import type { ProposalResult, Raft } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import { encodeEntry, type LoggedRequest, type RequestKind } from '../apply/entry.ts';
import { refusal, refusalBeforeLog } from './refusal.ts';

export interface ProposalsOptions {
  readonly runtime: Runtime;
  readonly member: bigint;
  readonly requestTimeoutMs: number;
  /** Bound of the bytes that wait to enter the log. */
  readonly maxQueuedBytes: number;
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
  /** Instant at which the caller is told that it took too long, whatever becomes of the request. */
  readonly expiresAt: number;
  readonly resolve: (result: R) => void;
  readonly reject: (error: Error) => void;
}

/** What a queued proposal costs beside its body. */
const overheadBytes = 256;

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
  #turnExpiresAt: number | undefined;
  /** By counter; oldest first. */
  readonly #waiting: Map<number, Proposal<R>> = new Map();

  constructor(options: ProposalsOptions) {
    this.#options = options;
    this.#epoch = Math.floor(options.runtime.random() * Number.MAX_SAFE_INTEGER);
  }

  get isIdle(): boolean {
    return this.#queue.length === 0 && this.#waiting.size === 0;
  }

  get hasQueued(): boolean {
    return this.#queue.length > 0;
  }

  add(request: NewProposal): Promise<R> {
    const bytes = request.body.length + overheadBytes;
    if (this.#queue.length > 0 && this.#queuedBytes + bytes > this.#options.maxQueuedBytes) {
      return Promise.reject(refusalBeforeLog('too-many-requests'));
    }
    this.#queuedBytes += bytes;
    // Those of one turn of the loop came at the same time.
    this.#turnExpiresAt ??= this.#options.runtime.monotonic() + this.#options.requestTimeoutMs;
    const expiresAt = this.#turnExpiresAt;
    return new Promise((resolve, reject) => {
      this.#queue.push({ request, expiresAt, resolve, reject });
    });
  }

  /**
   * Hands the queue to raft, as far as it takes it: what is dropped (no leader, too much uncommitted) stays and is tried again.
   * @returns whether it stopped at `maxBytes`, and more can enter at once.
   */
  enter(raft: Pick<Raft, 'propose' | 'term'>, maxBytes: number): boolean {
    this.#turnExpiresAt = undefined;
    if (this.#queue.length === 0) return false;
    const now = this.#options.runtime.monotonic();
    let [taken, takenBytes, isDropped] = [0, 0, false];
    for (const proposal of this.#queue) {
      const bytes = proposal.request.body.length + overheadBytes;
      if (taken > 0 && takenBytes + bytes > maxBytes) break;
      if (proposal.request.deadline <= now) proposal.reject(refusalBeforeLog('request-timeout'));
      else isDropped = this.#propose(raft, proposal).status === 'dropped';
      if (isDropped) break;
      taken += 1;
      takenBytes += bytes;
    }
    this.#queuedBytes -= takenBytes;
    this.#queue = taken === this.#queue.length ? [] : this.#queue.slice(taken);
    return !isDropped && this.#queue.length > 0;
  }

  #propose(raft: Pick<Raft, 'propose' | 'term'>, proposal: Proposal<R>): ProposalResult {
    const { kind, body, user, authRevision } = proposal.request;
    const counter = this.#counter + 1;
    const entry = { kind, member: this.#options.member, epoch: this.#epoch, counter, term: raft.term, user, authRevision, body };
    const result = raft.propose(encodeEntry(entry));
    if (result.status === 'dropped') return result;
    this.#counter = counter;
    this.#waiting.set(counter, proposal);
    return result;
  }

  /** Whether somebody here still waits for what is made of the request. */
  isAwaited(request: LoggedRequest): boolean {
    return this.#isOwn(request) && this.#waiting.has(request.counter);
  }

  /** An entry was applied: whoever waits for it here is answered. */
  applied(request: LoggedRequest, result: R): void {
    if (!this.#isOwn(request)) return;
    const proposal = this.#waiting.get(request.counter);
    if (proposal === undefined) return; // It had expired.
    this.#waiting.delete(request.counter);
    proposal.resolve(result);
  }

  /** Proposed by this member, since it was started. */
  #isOwn(request: LoggedRequest): boolean {
    return request.member === this.#options.member && request.epoch === this.#epoch;
  }

  /** Tells those who have waited too long. What is in the log may still be applied. */
  expire(): void {
    const now = this.#options.runtime.monotonic();
    const firstLive = this.#queue.findIndex((proposal) => proposal.expiresAt > now);
    const expired = this.#queue.splice(0, firstLive < 0 ? this.#queue.length : firstLive);
    for (const proposal of expired) {
      this.#queuedBytes -= proposal.request.body.length + overheadBytes;
      proposal.reject(refusalBeforeLog('request-timeout'));
    }
    for (const [counter, proposal] of this.#waiting) {
      if (proposal.expiresAt > now) break;
      this.#waiting.delete(counter);
      proposal.reject(refusal('request-timeout'));
    }
  }

  /** The member stops: nothing more will be answered. */
  abandon(): void {
    const [queued, waiting] = [this.#queue, [...this.#waiting.values()]];
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#waiting.clear();
    for (const proposal of queued) proposal.reject(refusalBeforeLog('server-stopped'));
    for (const proposal of waiting) proposal.reject(refusal('server-stopped'));
  }
}
