import type { WireErrorKey } from '@conclave/protocol';
import type { Raft } from '@conclave/raft';
import type { Runtime, StatusError } from '@conclave/wire';
import { refusal } from './refusal.ts';

/** Told that reads may go ahead, or why not. */
export type BarrierDone = (error: StatusError | undefined) => void;

interface Waiter {
  readonly done: BarrierDone;
  /** Instant at which it is told that it took too long. */
  readonly expiresAt: number;
}

/** Reads of one turn of the loop: raft was asked for all of them at once. */
interface Asked {
  waiters: Waiter[];
  /** Of the first question that asked for them. */
  readonly context: number;
}

/** Reads that may see the state once `index` is applied. */
interface Confirmed {
  waiters: Waiter[];
  readonly index: number;
}

export interface ReadBarriersOptions {
  readonly runtime: Runtime;
  readonly requestTimeoutMs: number;
}

/** After this long without an answer a read index is asked for again: the message may be lost, or its leader gone. */
const askAgainMs = 500;

/**
 * Linearizable reads (thesis section 6.4): those of one turn are gathered, raft is asked for the read index once, and when that index is
 * applied they go ahead. Each question has a context of its own, also a repeated one, and its answer holds for all reads that came before the
 * question: so an answer that is longer on its way than a question waits for its repetition is as good.
 */
export class ReadBarriers {
  readonly #options: ReadBarriersOptions;
  #gathered: Waiter[] = [];
  /** By context, ascending. */
  #asked: Asked[] = [];
  /** By index, ascending: later questions have no earlier answers. */
  #confirmed: Confirmed[] = [];
  #lastContext = 0;
  #lastAskedAt = Number.NEGATIVE_INFINITY;
  /** Answers to questions up to here are those of an earlier leader. */
  #voidContext = 0;
  #isRepeatDue = false;

  constructor(options: ReadBarriersOptions) {
    this.#options = options;
  }

  /** Adds a read to those of this turn. */
  gather(done: BarrierDone): void {
    this.#gathered.push(this.#waiter(done));
  }

  /** Adds a read whose index is known already. */
  await(index: number, done: BarrierDone): void {
    this.#confirm(index, [this.#waiter(done)]);
  }

  #waiter(done: BarrierDone): Waiter {
    return { done, expiresAt: this.#options.runtime.monotonic() + this.#options.requestTimeoutMs };
  }

  /** Asks for what was gathered, or once more for what was asked. Without a leader it stays to be asked. */
  ask(raft: Pick<Raft, 'readIndex'>): void {
    if (this.#gathered.length === 0 && !this.#isRepeatDue) return;
    const context = this.#lastContext + 1;
    if (!raft.readIndex(contextBytes(context))) return;
    this.#lastContext = context;
    this.#lastAskedAt = this.#options.runtime.monotonic();
    this.#isRepeatDue = false;
    if (this.#gathered.length === 0) return;
    this.#asked.push({ waiters: this.#gathered, context });
    this.#gathered = [];
  }

  /** Raft answers. */
  confirmed(contextOfAnswer: Uint8Array, index: number): void {
    const context = contextNumber(contextOfAnswer);
    if (context <= this.#voidContext) return;
    let answered = 0;
    while (answered < this.#asked.length && this.#asked[answered]!.context <= context) answered += 1;
    for (const { waiters } of this.#asked.splice(0, answered)) this.#confirm(index, waiters);
  }

  #confirm(index: number, waiters: readonly Waiter[]): void {
    const last = this.#confirmed.at(-1);
    if (last !== undefined && last.index >= index) last.waiters.push(...waiters);
    else this.#confirmed.push({ index, waiters: [...waiters] });
  }

  /** The state machine is at `index`. */
  applied(index: number): void {
    let ready = 0;
    while (ready < this.#confirmed.length && this.#confirmed[ready]!.index <= index) ready += 1;
    if (ready === 0) return;
    for (const { waiters } of this.#confirmed.splice(0, ready)) this.#finish(waiters, undefined);
  }

  /** A question of long ago may never be answered: it is to be put again, unless another was put since. */
  askAgain(): void {
    const { runtime } = this.#options;
    this.#isRepeatDue = this.#asked.length > 0 && runtime.monotonic() - this.#lastAskedAt >= askAgainMs;
  }

  /** What was asked is to be asked of another leader, and what the old one still says counts no more. */
  leaderChanged(): void {
    this.#voidContext = this.#lastContext;
    this.#gathered = [...this.#asked.flatMap(({ waiters }) => waiters), ...this.#gathered];
    this.#asked = [];
    this.#isRepeatDue = false;
  }

  expire(): void {
    this.#gathered = this.#expireAmong(this.#gathered, 'request-timeout');
    for (const asked of this.#asked) asked.waiters = this.#expireAmong(asked.waiters, 'request-timeout');
    this.#asked = this.#asked.filter(({ waiters }) => waiters.length > 0);
    for (const confirmed of this.#confirmed) confirmed.waiters = this.#expireAmong(confirmed.waiters, 'request-timeout-applied-index');
  }

  #expireAmong(waiters: Waiter[], key: WireErrorKey): Waiter[] {
    const now = this.#options.runtime.monotonic();
    const expired = waiters.filter((waiter) => waiter.expiresAt <= now);
    if (expired.length === 0) return waiters;
    this.#finish(expired, refusal(key));
    return waiters.filter((waiter) => waiter.expiresAt > now);
  }

  /** The member stops. */
  abandon(): void {
    const waiters = [this.#gathered, ...[...this.#asked, ...this.#confirmed].map((batch) => batch.waiters)].flat();
    this.#gathered = [];
    this.#asked = [];
    this.#confirmed = [];
    this.#finish(waiters, refusal('server-stopped'));
  }

  /** A reader's defect is not the member's: it must not end the loop that called it. */
  #finish(waiters: readonly Waiter[], error: StatusError | undefined): void {
    for (const { done } of waiters) {
      try {
        done(error);
      } catch (cause) {
        this.#options.runtime.log.error({ cause }, 'a read failed in its callback');
      }
    }
  }
}

function contextBytes(context: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, context);
  return bytes;
}

function contextNumber(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat64(0);
}
