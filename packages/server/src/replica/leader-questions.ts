import { findWireError, type WireErrorKey } from '@conclave/protocol';
import { type MemberId, noMember } from '@conclave/raft';
import { type Runtime, StatusError } from '@conclave/wire';
import type { PeerCalls } from './peer-calls.ts';
import type { PeerMethod } from './ports.ts';
import { refusal } from './refusal.ts';

export interface LeaderQuestionsOptions {
  readonly runtime: Runtime;
  readonly self: MemberId;
  /** `noMember` while none is known. */
  readonly leader: () => MemberId;
  readonly calls: PeerCalls;
  readonly requestTimeoutMs: number;
  /** How long one leader is waited for before it is asked again. */
  readonly attemptMs: number;
}

/** A question that may be put twice: asking changes nothing, or nothing more the second time. */
export interface LeaderQuestion<T> {
  readonly method: PeerMethod;
  readonly body: Uint8Array;
  /** Answers it where this member leads. Rejects with `no-leader` or `not-leader` when it does not after all. */
  readonly answer: () => Promise<T>;
  readonly decode: (body: Uint8Array) => T;
}

/** What says that the leader may be another one by now, or that nobody knows what became of the question. */
const passing: ReadonlySet<WireErrorKey> = new Set<WireErrorKey>([
  'no-leader',
  'not-leader',
  'leader-changed',
  'request-timeout',
  'request-timeout-connection-lost',
]);

/**
 * Questions that only the leader can answer, put to whoever leads, and put again when that changes, until the request timeout. The words at its end are
 * etcd's: `no-leader` when there is none, else `request-timeout`.
 */
export class LeaderQuestions {
  readonly #options: LeaderQuestionsOptions;
  #waiting: (() => void)[] = [];
  #isStopped = false;

  constructor(options: LeaderQuestionsOptions) {
    this.#options = options;
  }

  async ask<T>(question: LeaderQuestion<T>): Promise<T> {
    const { runtime, leader, requestTimeoutMs } = this.#options;
    const deadline = runtime.monotonic() + requestTimeoutMs;
    for (;;) {
      if (this.#isStopped) throw refusal('server-stopped');
      const asked = leader();
      if (asked !== noMember) {
        try {
          return await this.#attempt(question, asked);
        } catch (error) {
          if (!isPassing(error)) throw error;
        }
      }
      if (runtime.monotonic() >= deadline) throw refusal(leader() === noMember ? 'no-leader' : 'request-timeout');
      // While another leads already there is nothing to wait for.
      if (asked === leader() || leader() === noMember) await this.#news();
    }
  }

  async #attempt<T>({ method, body, answer, decode }: LeaderQuestion<T>, leader: MemberId): Promise<T> {
    const { self, calls, attemptMs } = this.#options;
    if (leader === self) return await answer();
    return decode(await calls.ask(leader, method, body, { timeoutMs: attemptMs, isForLeader: true }));
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  /** Time has passed, or another member leads. */
  wake(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  stop(): void {
    this.#isStopped = true;
    this.wake();
  }
}

function isPassing(error: unknown): boolean {
  const key = error instanceof StatusError ? findWireError(error.code, error.message)?.key : undefined;
  return key !== undefined && passing.has(key);
}
