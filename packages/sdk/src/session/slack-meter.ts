import type { Runtime, Timer } from '@conclave/wire';
import { type Lease, longTimerMs } from '../lease/lease.ts';

/** Told when too little is left of a lease because a renewal is overdue, and when one got through after that. */
export interface RiskListener {
  onRisk(slackMs: number): void;
  onRelief(): void;
}

/** Watches how much is left of the leases of a session, one after the other. */
export class SlackMeter {
  readonly #runtime: Runtime;
  readonly #listener: RiskListener;
  #lease: Lease | undefined;
  #lowestMs = Number.POSITIVE_INFINITY;
  #isAtRisk = false;
  #timer: Timer | undefined;

  constructor(runtime: Runtime, listener: RiskListener) {
    this.#runtime = runtime;
    this.#listener = listener;
  }

  /** What is left now; 0 without a lease. */
  get slackMs(): number {
    return this.#lease?.remaining() ?? 0;
  }

  follow(lease: Lease): void {
    this.#lease = lease;
    this.#isAtRisk = false;
    lease.onRenewal = (remainingMs) => this.#onRenewal(remainingMs);
    this.#setTimer();
  }

  /** The lease is over. */
  stop(): void {
    this.#timer?.cancel();
    this.#lease = undefined;
    this.#lowestMs = 0;
  }

  /** The lowest since this was asked last. */
  takeLowestMs(): number {
    const lowestMs = Math.min(this.#lowestMs, this.slackMs);
    this.#lowestMs = Number.POSITIVE_INFINITY;
    return lowestMs;
  }

  #onRenewal(remainingMs: number): void {
    this.#lowestMs = Math.min(this.#lowestMs, remainingMs);
    this.#setTimer();
    if (!this.#isAtRisk) return;
    this.#isAtRisk = false;
    this.#listener.onRelief();
  }

  /** A renewal goes out after each third of the time to live: with a third left, two have failed, or one takes very long. */
  #setTimer(): void {
    this.#timer?.cancel();
    const lease = this.#lease;
    if (lease === undefined) return;
    const leftMs = lease.remaining() - (lease.ttlSeconds * 1_000) / 3;
    this.#timer = this.#runtime.timer(Math.min(longTimerMs, Math.max(1, Math.ceil(leftMs))), () => this.#look(lease), { background: true });
  }

  #look(lease: Lease): void {
    const slackMs = lease.remaining();
    if (this.#lease !== lease || this.#isAtRisk) return;
    if (slackMs > (lease.ttlSeconds * 1_000) / 3) {
      this.#setTimer();
      return;
    }
    this.#isAtRisk = true;
    this.#listener.onRisk(slackMs);
  }
}
