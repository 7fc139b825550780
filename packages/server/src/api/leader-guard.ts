import type { Runtime, StatusError, Timer } from '@conclave/wire';
import { refusal } from '../replica/refusal.ts';

/** A call that wants to end when the cluster has lost its leader. */
export interface GuardedCall {
  fail(error: StatusError): void;
  onClosed(listener: () => void): void;
}

export interface LeaderGuardOptions {
  readonly runtime: Runtime;
  readonly replica: { readonly leader: bigint; readonly isLearner: boolean };
  readonly electionTimeoutMs: number;
}

/** A stream is ended after this many election timeouts without a leader, like etcd's. */
const patienceTimeouts = 3;

/**
 * Ends the streams that asked for a leader when there has been none for three election timeouts. Without it a stream to a member that is cut off
 * from the others would stay open and silent for ever.
 */
export class LeaderGuard {
  readonly #options: LeaderGuardOptions;
  readonly #calls = new Set<GuardedCall>();
  #timer: Timer | undefined;
  #leaderless = 0;

  constructor(options: LeaderGuardOptions) {
    this.#options = options;
  }

  get hasLeader(): boolean {
    return this.#options.replica.leader !== 0n;
  }

  get isLearner(): boolean {
    return this.#options.replica.isLearner;
  }

  watch(call: GuardedCall): void {
    this.#calls.add(call);
    call.onClosed(() => this.#forget(call));
    if (this.#timer === undefined) this.#arm();
  }

  /** Looks no more. The streams are somebody else's to end. */
  stop(): void {
    for (const call of this.#calls) this.#forget(call);
  }

  #arm(): void {
    const { runtime, electionTimeoutMs } = this.#options;
    this.#timer = runtime.timer(electionTimeoutMs, () => this.#look(), { background: true });
  }

  #look(): void {
    this.#arm();
    this.#leaderless = this.hasLeader ? 0 : this.#leaderless + 1;
    if (this.#leaderless < patienceTimeouts) return;
    for (const call of this.#calls) call.fail(refusal('no-leader'));
  }

  #forget(call: GuardedCall): void {
    this.#calls.delete(call);
    if (this.#calls.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#leaderless = 0;
  }
}
