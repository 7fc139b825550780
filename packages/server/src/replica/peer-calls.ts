import { findWireError, StatusCode, type WireErrorKey, wireErrors } from '@conclave/protocol';
import type { MemberId } from '@conclave/raft';
import { type Runtime, StatusError } from '@conclave/wire';
import type { PeerAnswer, PeerCall, PeerMethod } from './ports.ts';
import { refusal } from './refusal.ts';

/** Answers a question of another member. A StatusError in etcd's words reaches the asker as it is. */
export type CallHandler = (body: Uint8Array, from: MemberId) => Promise<Uint8Array>;

export interface PeerCallsOptions {
  readonly runtime: Runtime;
  readonly send: (to: MemberId, frame: PeerCall | PeerAnswer) => void;
  /** Runs `work`, and sends what it had to say. */
  readonly later: (work: () => void) => void;
}

interface Asked {
  readonly member: MemberId;
  readonly expiresAt: number;
  /** Only the leader can answer: whoever is none any more need not be waited for. */
  readonly isForLeader: boolean;
  readonly resolve: (body: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

/** Of each member: a question that comes twice within this many is answered once. */
const rememberedCalls = 4096;

/** Questions between members. One is sent once; where that or its answer is lost, the asker is told when its time is over. */
export class PeerCalls {
  readonly #options: PeerCallsOptions;
  readonly #handlers: Map<PeerMethod, CallHandler> = new Map();
  readonly #asked: Map<number, Asked> = new Map();
  readonly #seen: Map<MemberId, Set<number>> = new Map();
  /** Begins anywhere: answers to questions of an earlier life find nobody. */
  #lastId: number;
  #isStopped = false;

  constructor(options: PeerCallsOptions) {
    this.#options = options;
    this.#lastId = Math.floor(options.runtime.random() * 2 ** 48);
  }

  handle(method: PeerMethod, handler: CallHandler): void {
    if (this.#handlers.has(method)) throw new Error(`${method} has a handler`);
    this.#handlers.set(method, handler);
  }

  ask(
    member: MemberId,
    method: PeerMethod,
    body: Uint8Array,
    options: { readonly timeoutMs: number; readonly isForLeader: boolean },
  ): Promise<Uint8Array> {
    const { runtime, send, later } = this.#options;
    const { timeoutMs, isForLeader } = options;
    if (this.#isStopped) return Promise.reject(refusal('server-stopped'));
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { member, expiresAt: runtime.monotonic() + timeoutMs, isForLeader, resolve, reject });
      later(() => send(member, { kind: 'call', id, method, body }));
    });
  }

  // ---- what comes in ----

  called(from: MemberId, call: PeerCall): void {
    if (!this.#isNew(from, call.id)) return;
    const handler = this.#handlers.get(call.method);
    const answered = handler === undefined ? Promise.reject(refusal('not-capable')) : handler(call.body, from);
    answered.then(
      (body) => this.#answer(from, { kind: 'answer', id: call.id, error: '', body }),
      (error: unknown) => this.#answer(from, { kind: 'answer', id: call.id, error: this.#nameOf(error, call.method), body: noBytes }),
    );
  }

  #isNew(from: MemberId, id: number): boolean {
    const seen = this.#seen.get(from) ?? new Set();
    if (seen.has(id)) return false;
    if (seen.size >= rememberedCalls) seen.delete(seen.keys().next().value!);
    seen.add(id);
    this.#seen.set(from, seen);
    return true;
  }

  #answer(to: MemberId, answer: PeerAnswer): void {
    this.#options.later(() => this.#options.send(to, answer));
  }

  #nameOf(error: unknown, method: PeerMethod): string {
    const known = error instanceof StatusError ? findWireError(error.code, error.message) : undefined;
    if (known !== undefined) return known.key;
    this.#options.runtime.log.error({ method, error: String(error) }, 'a question of another member could not be answered');
    return String(error);
  }

  answered(from: MemberId, { id, error, body }: PeerAnswer): void {
    const asked = this.#asked.get(id);
    if (asked === undefined || asked.member !== from) return; // Told meanwhile that it took too long.
    this.#asked.delete(id);
    if (error === '') asked.resolve(body);
    else asked.reject(error in wireErrors ? refusal(error as WireErrorKey) : new StatusError(StatusCode.INTERNAL, error));
  }

  // ---- what does not ----

  /** What was sent to this member, or is on its way back, may be lost. */
  unreachable(member: MemberId): void {
    this.#reject('request-timeout-connection-lost', (asked) => asked.member === member);
  }

  /** Another member leads, or none. */
  leaderChanged(): void {
    this.#reject('leader-changed', (asked) => asked.isForLeader);
  }

  expire(): void {
    const now = this.#options.runtime.monotonic();
    this.#reject('request-timeout', (asked) => asked.expiresAt <= now);
  }

  /** The member stops. */
  abandon(): void {
    this.#isStopped = true;
    this.#reject('server-stopped', () => true);
  }

  #reject(key: WireErrorKey, isMeant: (asked: Asked) => boolean): void {
    for (const [id, asked] of this.#asked) {
      if (!isMeant(asked)) continue;
      this.#asked.delete(id);
      asked.reject(refusal(key));
    }
  }
}

const noBytes = new Uint8Array(0);
