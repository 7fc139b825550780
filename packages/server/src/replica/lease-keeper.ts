import type { Runtime, Timer } from '@conclave/wire';
import { DeadlineHeap, type Due } from './deadline-heap.ts';
import type { LeaseListener, LeaseTable } from './ports.ts';
import { refusal } from './refusal.ts';

export interface LeaseKeeperOptions {
  readonly runtime: Runtime;
  readonly table: LeaseTable;
  /**
   * Puts an ordinary LeaseRevoke through the log, in this term or not at all. What it gives is not looked at: the table tells when the lease is gone.
   */
  readonly revoke: (id: bigint, term: number) => Promise<unknown>;
  /** Resolves once this member is sure to lead at this moment, with all that was acknowledged applied; rejects when it cannot be. */
  readonly confirmLeadership: () => Promise<void>;
  readonly electionTimeoutMs: number;
}

/** Revokes under way at once. */
const maxInFlight = 16;
/** On average at most 1000 revokes begin in a second: leases that expire in thousands must not crowd out everything else. */
const revokeSpacingMs = 1;
/** Where more leases than this are counted anew, those that would expire at the same time are spread: fewer in a second than can be revoked in it. */
const pileSize = 1000;
const pileSpacingMs = 1000 / 750;
/** So few countdowns of leases that are gone are not worth the work. */
const deadMax = 500;
/** How long a revoke that failed rests. */
const retryMs = 1000;

/** A lease as the leader counts it down. */
export interface LeaseRemaining {
  /** Whole seconds until it expires; 0 when it has and is not revoked yet. */
  readonly remainingSeconds: number;
  readonly grantedSeconds: number;
}

/** One lease on the leader. */
interface Countdown extends Due {
  readonly id: bigint;
  readonly ttlSeconds: number;
  /** When it expires. Renewing moves it. */
  deadline: number;
  /** Where it stands in the heap: at most `deadline`, except while a failed revoke rests. Renewing does not move it. */
  dueAt: number;
  /** Renewals that came too late: told whether the lease is gone (true), or its countdown is kept here no more. */
  readonly late: ((isRevoked: boolean) => void)[];
}

/** The least TTL a lease is granted, in seconds: one and a half election timeouts, so that a change of leader alone expires none. */
export function minLeaseTtlSeconds(electionTimeoutMs: number): number {
  return Math.ceil((1.5 * electionTimeoutMs) / 1000);
}

/**
 * The time of leases. The replicated table knows how long a lease was granted for; when that runs out is known to the leader alone, in memory,
 * on its monotonic clock. A new leader gives every lease its full TTL again, and an election timeout on top, as it cannot know when the last
 * renewal was (etcd does the same). Expiry is a revoke through the log like a client's, so all members agree on when it happened; one that was
 * proposed in an older term is refused there, or a leader that hung and lost its office would end leases that live.
 */
export class LeaseKeeper implements LeaseListener {
  readonly #options: LeaseKeeperOptions;
  readonly #countdowns: Map<bigint, Countdown> = new Map();
  /** Each countdown once, unless it is expired and waits in `#expired` or for its revoke. */
  readonly #heap: DeadlineHeap<Countdown> = new DeadlineHeap();
  /** Expired, first come first revoked; those before `#begunCount` are begun. */
  #expired: Countdown[] = [];
  #begunCount = 0;
  #inFlight = 0;
  /** Revokes may begin from this instant on; it runs ahead of time by what was begun. */
  #pace = 0;
  #isPrimary = false;
  /** The one in which this member leads: it may have ended before anybody tells so here. */
  #term = 0;
  #timer: Timer | undefined;
  #timerDue = Number.POSITIVE_INFINITY;

  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    options.table.listen(this);
  }

  /** Least TTL of a lease in seconds; a smaller request is raised to it before it is proposed. */
  get minTtlSeconds(): number {
    return minLeaseTtlSeconds(this.#options.electionTimeoutMs);
  }

  // ---- what clients ask ----

  /**
   * Starts the TTL of a lease anew. Gives the TTL in seconds, or 0 for a lease that is unknown or has expired; where an expired one is not
   * revoked yet, only when it is, so that nobody who is told 0 still finds its keys. Rejects with `no-leader` when this member does not lead
   * any more, and as the read barrier does.
   */
  async renew(id: bigint): Promise<number> {
    await this.#options.confirmLeadership();
    if (!this.#isPrimary) throw refusal('no-leader');
    const countdown = this.#countdowns.get(id);
    if (countdown === undefined) return 0;
    const now = this.#options.runtime.monotonic();
    if (countdown.deadline <= now) return this.#afterRevoke(countdown);
    countdown.deadline = now + countdown.ttlSeconds * 1000;
    return countdown.ttlSeconds;
  }

  async #afterRevoke(countdown: Countdown): Promise<number> {
    const isRevoked = await new Promise<boolean>((resolve) => {
      countdown.late.push(resolve);
    });
    if (!isRevoked) throw refusal('no-leader');
    return 0;
  }

  /** What is left of a lease; undefined for one that is unknown. Rejects as {@link renew} does. */
  async remaining(id: bigint): Promise<LeaseRemaining | undefined> {
    await this.#options.confirmLeadership();
    if (!this.#isPrimary) throw refusal('no-leader');
    const remainingSeconds = this.remainingSeconds(id);
    if (remainingSeconds === undefined) return undefined;
    return { remainingSeconds, grantedSeconds: this.#countdowns.get(id)!.ttlSeconds };
  }

  /** {@link remaining} as this member knows it at this moment, which is nothing where it does not lead. */
  remainingSeconds(id: bigint): number | undefined {
    const countdown = this.#countdowns.get(id);
    if (countdown === undefined) return undefined;
    return Math.max(0, Math.floor((countdown.deadline - this.#options.runtime.monotonic()) / 1000));
  }

  // ---- what the replica tells ----

  /** This member leads in `term`, and has applied everything that earlier leaders committed. */
  promote(term: number): void {
    if (this.#isPrimary) this.demote();
    this.#isPrimary = true;
    this.#term = term;
    this.#pace = 0;
    const { runtime, table, electionTimeoutMs } = this.#options;
    const leases: { readonly id: bigint; readonly ttlSeconds: number }[] = [];
    table.forEach((id, ttlSeconds) => {
      leases.push({ id, ttlSeconds });
    });
    leases.sort((a, b) => a.ttlSeconds - b.ttlSeconds);
    const begin = runtime.monotonic() + electionTimeoutMs;
    let earliest = 0;
    for (const { id, ttlSeconds } of leases) {
      const deadline = Math.max(begin + ttlSeconds * 1000, earliest);
      this.#add(id, ttlSeconds, deadline);
      if (leases.length > pileSize) earliest = deadline + pileSpacingMs;
    }
    this.#arm();
  }

  /** This member leads no more, or stops. */
  demote(): void {
    this.#isPrimary = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#timerDue = Number.POSITIVE_INFINITY;
    const late = [...this.#countdowns.values()].flatMap((countdown) => countdown.late);
    this.#countdowns.clear();
    this.#heap.clear();
    this.#expired = [];
    this.#begunCount = 0;
    for (const wake of late) wake(false);
  }

  granted(id: bigint, ttlSeconds: number): void {
    if (!this.#isPrimary) return;
    this.#add(id, ttlSeconds, this.#options.runtime.monotonic() + ttlSeconds * 1000);
    this.#arm();
  }

  revoked(id: bigint): void {
    const countdown = this.#countdowns.get(id);
    if (countdown === undefined) return;
    this.#countdowns.delete(id);
    // Those of revoked leases stay in the heap until they are due, which may be long: not when they are most of it.
    if (this.#heap.size > 2 * this.#countdowns.size + deadMax) this.#heap.retain((item) => this.#countdowns.get(item.id) === item);
    for (const wake of countdown.late) wake(true);
  }

  #add(id: bigint, ttlSeconds: number, deadline: number): void {
    const countdown: Countdown = { id, ttlSeconds, deadline, dueAt: deadline, late: [] };
    this.#countdowns.set(id, countdown);
    this.#heap.push(countdown);
  }

  // ---- expiry ----

  /** Sets the timer to the next thing to do, if that comes before what it is set to. */
  #arm(): void {
    const dueAt = Math.min(this.#heap.peek()?.dueAt ?? Number.POSITIVE_INFINITY, this.#nextRevokeAt());
    if (dueAt >= this.#timerDue) return;
    this.#timer?.cancel();
    this.#timerDue = dueAt;
    const delay = Math.min(Math.max(0, dueAt - this.#options.runtime.monotonic()), maxTimerMs);
    // What keeps the process alive is the replica's ticker.
    this.#timer = this.#options.runtime.timer(delay, () => this.#onTimer(), { background: true });
  }

  #nextRevokeAt(): number {
    return this.#begunCount < this.#expired.length && this.#inFlight < maxInFlight ? this.#pace : Number.POSITIVE_INFINITY;
  }

  #onTimer(): void {
    this.#timer = undefined;
    this.#timerDue = Number.POSITIVE_INFINITY;
    this.#collectExpired();
    this.#revokeExpired();
    this.#arm();
  }

  #collectExpired(): void {
    const now = this.#options.runtime.monotonic();
    for (let top = this.#heap.peek(); top !== undefined && top.dueAt <= now; top = this.#heap.peek()) {
      this.#heap.pop();
      if (this.#countdowns.get(top.id) !== top) continue; // Revoked meanwhile.
      if (top.deadline <= now) {
        this.#expired.push(top);
      } else {
        top.dueAt = top.deadline; // Renewed meanwhile.
        this.#heap.push(top);
      }
    }
  }

  #revokeExpired(): void {
    const now = this.#options.runtime.monotonic();
    while (this.#begunCount < this.#expired.length && this.#inFlight < maxInFlight && this.#pace <= now) {
      const countdown = this.#expired[this.#begunCount]!;
      this.#begunCount += 1;
      if (this.#countdowns.get(countdown.id) !== countdown) continue; // Revoked meanwhile.
      // What was not used in the past is not saved up, beyond what may be in flight at once.
      this.#pace = Math.max(this.#pace, now - maxInFlight * revokeSpacingMs) + revokeSpacingMs;
      this.#revoke(countdown);
    }
    if (this.#begunCount < this.#expired.length) return;
    this.#expired = [];
    this.#begunCount = 0;
  }

  #revoke(countdown: Countdown): void {
    const { runtime, revoke } = this.#options;
    this.#inFlight += 1;
    const settled = (): void => {
      this.#inFlight -= 1;
      if (this.#countdowns.get(countdown.id) === countdown) {
        countdown.dueAt = runtime.monotonic() + retryMs;
        this.#heap.push(countdown);
      }
      if (!this.#isPrimary) return;
      this.#revokeExpired();
      this.#arm();
    };
    revoke(countdown.id, this.#term).then(settled, (cause: unknown) => {
      runtime.log.warn({ lease: countdown.id.toString(16), cause }, 'an expired lease could not be revoked, trying again');
      settled();
    });
  }
}

/** The longest delay a timer of every platform can take. Waking early is harmless. */
const maxTimerMs = 2 ** 31 - 1;
