import { setMaxListeners } from 'node:events';
import type { Runtime, Timer } from '@conclave/wire';
import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import type { Comparison } from '../kv/comparison.ts';
import type { HeldLease } from '../kv/operation.ts';
import { elapsedMs, type Instant, now } from './instant.ts';

/**
 * - `held`: by the local reckoning, which errs on the early side, the server still has the lease.
 * - `lost`: it may be gone, or is. It never comes back: whatever it guarded must stop.
 * - `revoked`: it was given back here.
 * - `handed-over`: it was given to another process, and lives on there.
 */
export type LeaseState = 'held' | 'lost' | 'revoked' | 'handed-over';

const endCodes = { lost: 'lease-lost', revoked: 'lease-revoked', 'handed-over': 'lease-handed-over' } as const;

/** What a lease asks of its keeper. */
export interface LeaseHolder {
  /** The lease is no longer held. */
  onEnd(lease: Lease, state: Exclude<LeaseState, 'held'>, why: string): void;
  revoke(lease: Lease, options: RequestOptions | undefined): Promise<void>;
}

/** Timers take no more than 2^31-1 ms, and leases may last for centuries: what is due later is looked at every day. */
export const longTimerMs: number = 24 * 3_600 * 1_000;

/**
 * The part of the granted time that is not relied on. It pays for timers that fire late, clocks that tick a little differently, and the work
 * of stopping.
 */
export function marginMs(ttlSeconds: number): number {
  return Math.min(1_000, ttlSeconds * 1_000 * 0.05 + 50);
}

/**
 * A lease that is kept alive until it is revoked, lost, or its client closes.
 *
 * It is judged from the moment its last successful renewal was *sent*, so never later than the server does, on the larger of monotonic and
 * boot time, so that a suspended machine does not think the time stood still. The judgement is made by a timer and again on each use, as a
 * blocked event loop delays timers: a lease that is used after its time reports its loss there and then.
 *
 * @example
 * ```ts
 * await using lease = await client.lease.grant({ ttlSeconds: 10 });
 * await client.put('workers/7', 'alive', { lease });
 * await fetch(job, { signal: lease.signal }); // ends with the lease
 * lease.assertHeld(); // before each further step of what only its holder may do
 * ```
 */
export class Lease implements HeldLease, AsyncDisposable {
  readonly id: bigint;
  /** It was granted to another process, or handed over and taken back: places that stand on it may be there already. */
  readonly isTakenOver: boolean;
  readonly #runtime: Runtime;
  readonly #holder: LeaseHolder;
  readonly #controller = new AbortController();
  #guards: readonly Comparison[] = [];
  #ttlSeconds: number;
  /** When the request was sent whose answer last proved the lease. */
  #provenAt: Instant;
  #state: LeaseState = 'held';
  #timer: Timer | undefined;
  /** @internal Told of each renewal, with what was left before it in milliseconds. */
  onRenewal: ((remainingMs: number) => void) | undefined;

  /** @internal */
  constructor(runtime: Runtime, holder: LeaseHolder, id: bigint, ttlSeconds: number, provenAt: Instant, isTakenOver = false) {
    this.id = id;
    this.isTakenOver = isTakenOver;
    this.#runtime = runtime;
    this.#holder = holder;
    this.#ttlSeconds = ttlSeconds;
    this.#provenAt = provenAt;
    // Whatever the lease guards listens to it, and that may be much.
    setMaxListeners(0, this.#controller.signal);
    this.#setTimer();
  }

  /** The time to live the server last granted, in seconds. It may exceed what was asked for. */
  get ttlSeconds(): number {
    return this.#ttlSeconds;
  }

  /**
   * Conditions that hold exactly while the lease is this process's; none, unless it is the lease of a session, which alone can be handed over.
   * What is written under the lease of a caller carries them, so that nothing of it lands after the hand-over.
   *
   * @example
   * ```ts
   * const { lease } = session;
   * await client.txn().if(...lease.guards, key('claims/7').missing()).then(put('claims/7', 'ours', { lease })).commit();
   * ```
   */
  get guards(): readonly Comparison[] {
    return this.#guards;
  }

  get state(): LeaseState {
    this.#check();
    return this.#state;
  }

  /**
   * Aborted when the lease is no longer held; `reason` is a {@link ConclaveError} with the code `lease-lost`, `lease-revoked` or
   * `lease-handed-over`.
   */
  get signal(): AbortSignal {
    this.#check();
    return this.#controller.signal;
  }

  /**
   * For how much longer the lease can be relied on if no renewal gets through, in milliseconds; 0 once it is not held.
   *
   * @example
   * ```ts
   * if (lease.remaining() < 2_000) console.log('renewals do not get through');
   * ```
   */
  remaining(): number {
    this.#check();
    return this.#state === 'held' ? this.#remainingMs() : 0;
  }

  /**
   * Throws unless the lease is held.
   *
   * @throws ConclaveError `lease-lost`, `lease-revoked`, `lease-handed-over`
   */
  assertHeld(): void {
    this.#check();
    if (this.#state !== 'held') throw this.#controller.signal.reason;
  }

  /**
   * Gives the lease back: the server deletes its keys at once, in one revision. A lease that is gone already is no error, and one that was
   * handed over is left alone. From the call on the lease counts as revoked here, even if the server cannot be reached; then it ends there with
   * its time.
   *
   * @example
   * ```ts
   * await lease.revoke();
   * console.log(lease.state); // revoked
   * ```
   */
  revoke(options?: RequestOptions): Promise<void> {
    return this.#holder.revoke(this, options);
  }

  /** Revokes, and leaves it to time if that fails. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.revoke();
    } catch {
      // Nothing renews it any more, so that it ends by itself; leaving a scope must not fail for that.
    }
  }

  /** @internal It is a session's, and these hold while the session is this process's. */
  guardWith(guards: readonly Comparison[]): void {
    this.#guards = guards;
  }

  /** @internal The answer to the renewal sent at `sentAt` says that the lease lives. */
  prove(sentAt: Instant, ttlSeconds: number): void {
    if (this.state !== 'held') return;
    const remainingMs = this.#remainingMs();
    this.#provenAt = sentAt;
    this.#ttlSeconds = ttlSeconds;
    this.#setTimer();
    this.#check();
    if (this.#state === 'held') this.onRenewal?.(remainingMs);
  }

  /** @internal */
  end(state: Exclude<LeaseState, 'held'>, why: string, cause?: unknown): void {
    if (this.#state !== 'held') return;
    this.#state = state;
    this.#timer?.cancel();
    this.#holder.onEnd(this, state, why);
    const init = { code: endCodes[state], message: `lease ${this.id.toString(16)}: ${why}`, outcome: 'not-applied' } as const;
    this.#controller.abort(new ConclaveError(cause === undefined ? init : { ...init, cause }));
  }

  #check(): void {
    if (this.#state === 'held' && this.#remainingMs() <= 0) this.end('lost', 'no renewal got through in time');
  }

  #remainingMs(): number {
    const trusted = this.#ttlSeconds * 1_000 - marginMs(this.#ttlSeconds);
    return trusted - elapsedMs(this.#provenAt, now(this.#runtime));
  }

  #setTimer(): void {
    this.#timer?.cancel();
    // In whole milliseconds: what is left after rounding could be too little to move a clock.
    const delayMs = Math.ceil(Math.max(0, this.#remainingMs()));
    this.#timer = this.#runtime.timer(Math.min(longTimerMs, delayMs), () => {
      this.#check();
      // A timer may fire a hair early, or be one of many.
      if (this.#state === 'held') this.#setTimer();
    });
  }
}
