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
  readonly askedAt: number;
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
 * applied they go ahead. Each question has a context of its own, also a repeated one: an answer to an old question says nothing about now.
 */
export class ReadBarriers {
  readonly #options: ReadBarriersOptions;
  #gathered: Waiter[] = [];
  /** By context. */
  readonly #asked: Map<number, Asked> = new Map();
  /** By index, ascending: later questions have no earlier answers. */
  #confirmed: Confirmed[] = [];
  #lastContext = 0;

  constructor(options: ReadBarriersOptions) {
    this.#options = options;
  }

  get hasGathered(): boolean {
    return this.#gathered.length > 0;
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

  /** Asks for what was gathered. Without a leader it stays gathered. */
  ask(raft: Pick<Raft, 'readIndex'>): void {
    if (this.#gathered.length === 0) return;
    const context = this.#lastContext + 1;
    if (!raft.readIndex(contextBytes(context))) return;
    this.#lastContext = context;
    this.#asked.set(context, { waiters: this.#gathered, askedAt: this.#options.runtime.monotonic() });
    this.#gathered = [];
  }

  /** Raft answers. */
  confirmed(contextOfAnswer: Uint8Array, index: number): void {
    const context = contextNumber(contextOfAnswer);
    const asked = this.#asked.get(context);
    if (asked === undefined) return; // Asked again meanwhile, or expired.
    this.#asked.delete(context);
    this.#confirm(index, asked.waiters);
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

  /** What was asked this long ago may never be answered (the default), or the leader changed (0). Gathers it again. */
  askAgain(olderThanMs: number = askAgainMs): void {
    const now = this.#options.runtime.monotonic();
    for (const [context, { waiters, askedAt }] of this.#asked) {
      if (now - askedAt < olderThanMs) break;
      this.#asked.delete(context);
      this.#gathered.push(...waiters);
    }
  }

  expire(): void {
    this.#gathered = this.#expireAmong(this.#gathered, 'request-timeout');
    for (const [context, asked] of this.#asked) {
      asked.waiters = this.#expireAmong(asked.waiters, 'request-timeout');
      if (asked.waiters.length === 0) this.#asked.delete(context);
    }
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
    const waiters = [this.#gathered, ...[...this.#asked.values(), ...this.#confirmed].map((batch) => batch.waiters)].flat();
    this.#gathered = [];
    this.#asked.clear();
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
