import type { MemberId, MemberProgress, Raft, Ready, Role, SoftState } from '@conclave/raft';
import type { MembershipKind, RequestKind } from '../apply/entry.ts';
import { EntryPath } from './entry-path.ts';
import { LeaderQuestions } from './leader-questions.ts';
import { LeadershipTransfer } from './leadership-transfer.ts';
import { LeaseKeeper, type LeaseRemaining } from './lease-keeper.ts';
import { answerLeaseQuestions, remaining, renewal } from './lease-questions.ts';
import { Loop } from './loop.ts';
import { defaultLimits, type MembershipChange, type ProposeOptions, type ReplicaOptions } from './options.ts';
import type { CallHandler } from './peer-calls.ts';
import { PeerDoor } from './peer-door.ts';
import type { PeerMethod } from './ports.ts';
import type { Proposals } from './proposals.ts';
import { maxBatchBytes, startRaft } from './raft-start.ts';
import { type BarrierDone, ReadBarriers } from './read-barriers.ts';
import { refusal } from './refusal.ts';
import { Requests } from './requests.ts';
import { Ticker } from './ticker.ts';

/** etcd's: five seconds for a slow disk, and two elections. */
const requestTimeoutBaseMs = 5000;
/**
 * Election timeouts for which a member that learned of its own removal goes on: whoever has not learned of it may still need its vote, and who asked
 * for it here is still to be answered.
 */
const farewellTimeouts = 2;

/**
 * One member at work: it drives raft, and joins it to the log, the state machine, the other members and the clients that wait.
 *
 * The way of a request: `propose` queues it; at the end of the turn of the loop all queued ones enter raft; what raft then wants sent goes to the
 * members, and what it wants written to the log as one append; when that is durable, and not before, raft is told; what a majority holds it commits,
 * and hands back to be applied; each waiter is answered by its own apply, on the member that it asked. The contract with raft is in
 * packages/raft/DESIGN.md.
 *
 * Whatever is thrown in here is a broken promise of the log, the state machine or raft: the member fails, answers nothing more, and says so to
 * `fatal`.
 */
export class Replica<R> {
  /** Counts leases down while this member leads. */
  readonly leases: LeaseKeeper;
  readonly #options: ReplicaOptions<R>;
  readonly #requestTimeoutMs: number;
  readonly #raft: Raft;
  readonly #loop: Loop;
  readonly #requests: Requests<R>;
  readonly #proposals: Proposals<R>;
  readonly #reads: ReadBarriers;
  readonly #entries: EntryPath<R>;
  readonly #door: PeerDoor<R>;
  readonly #questions: LeaderQuestions;
  readonly #transfer: LeadershipTransfer;
  readonly #ticker: Ticker;
  #softState: SoftState;
  /** When this member last began to lead. */
  #ledSince = Number.NEGATIVE_INFINITY;
  /** Until this member, removed, leaves; undefined: it stays. */
  #farewellTicks: number | undefined;
  #hasLeft = false;
  #stopped: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  /** @throws InvariantError when the log and the state machine cannot belong together: then nothing may be served from them. */
  constructor(options: ReplicaOptions<R>) {
    const { runtime, id: self, leases, fatal, tickMs = 100, electionTicks = 10 } = options;
    const electionTimeoutMs = tickMs * electionTicks;
    const requestTimeoutMs = requestTimeoutBaseMs + 2 * electionTimeoutMs;
    const limits = { ...defaultLimits, ...options.limits };
    const raft = startRaft(options);
    this.#options = options;
    this.#requestTimeoutMs = requestTimeoutMs;
    this.#raft = raft;
    this.#softState = { role: raft.role, leader: raft.leader, term: raft.term };
    const loop = new Loop({ runtime, fatal, round: () => this.#round(), onRest: () => this.#rest(), onEnd: () => this.#end() });
    this.#loop = loop;

    const door = new PeerDoor({ replica: options, raft, loop, electionTicks, onRemoved: () => this.#sayFarewell() });
    const { calls, transfers } = door;
    this.#door = door;
    const requests = new Requests<R>({
      replica: options,
      limits,
      raft,
      loop,
      electionTimeoutMs,
      requestTimeoutMs,
      ledSince: () => this.#ledSince,
      isStopping: () => this.#isStopping,
    });
    const { proposals } = requests;
    this.#requests = requests;
    this.#proposals = proposals;
    this.#reads = new ReadBarriers({ runtime, requestTimeoutMs });
    this.#entries = new EntryPath<R>({
      replica: options,
      limits,
      raft,
      loop,
      proposals,
      transfers,
      send: (message) => door.send([message]),
      onTerm: (term) => this.#onTerm(term),
      onSelfRemoved: () => this.#sayFarewell(),
      onApplied: () => this.#onApplied(),
    });

    const leader = (): MemberId => raft.leader;
    this.#questions = new LeaderQuestions({ runtime, self, leader, calls, requestTimeoutMs, attemptMs: electionTimeoutMs });
    this.#transfer = new LeadershipTransfer({ runtime, self, raft, timeoutMs: requestTimeoutMs });
    const onTick = (): void => loop.drive(() => this.#tick());
    this.#ticker = new Ticker({ runtime, intervalMs: tickMs, toleratedMs: electionTimeoutMs / 2, onTick });
    this.leases = new LeaseKeeper({
      runtime,
      table: leases,
      revoke: (lease, term) => requests.revokeExpired(lease, term),
      confirmLeadership: () => this.#confirmLeadership(),
      electionTimeoutMs,
    });
    answerLeaseQuestions(calls, this.leases);
  }

  // ---- status -----------------------------------------------------------------------------------------------------------------------

  get id(): MemberId {
    return this.#options.id;
  }
  get term(): number {
    return this.#raft.term;
  }
  /** 0n while none is known. */
  get leader(): MemberId {
    return this.#raft.leader;
  }
  get role(): Role {
    return this.#raft.role;
  }
  get isLeader(): boolean {
    return this.#raft.isLeader;
  }
  get isLearner(): boolean {
    return this.#raft.role === 'learner';
  }
  /** The raft index that etcd's Status shows. */
  get committedIndex(): number {
    return this.#raft.commitIndex;
  }
  get appliedIndex(): number {
    return this.#options.stateMachine.appliedIndex;
  }
  /** Of the other members, by ascending id. Empty where this member does not lead. */
  progress(): readonly MemberProgress[] {
    return this.#raft.status().progress;
  }

  // ---- what the doors ask -----------------------------------------------------------------------------------------------------------

  /** Begins to take part. The only voter campaigns at once: nobody else could lead, so there is nothing to wait for. */
  start(): void {
    this.#loop.start();
    this.#door.open();
    this.#ticker.start();
    this.#loop.drive(() => {
      if (this.#options.isRemoved?.(this.id) === true) this.#leave();
      this.#campaignAlone();
    });
  }

  /**
   * Puts a request through the log, once, and gives what this member's own apply made of it. Requests of one turn of the loop share a write to
   * the disk.
   *
   * Rejects with StatusError: `request-too-large`, `too-many-requests` and `not-capable` (never entered the log), `leader-changed` (lost with its
   * leader), `request-timeout` (or what etcd says instead where it has an idea why) after 5 s and two election timeouts, `server-stopped`. The last
   * three leave the outcome open, unless the error has the trailer `conclave-outcome: not-applied`.
   */
  propose(kind: RequestKind, body: Uint8Array, options: ProposeOptions = {}): Promise<R> {
    return this.#requests.propose(kind, body, options);
  }

  /**
   * Puts a change of the members through the log, and gives what this member's own apply made of it. Rejects as {@link propose} does. One that raft
   * does not take yet, because another is not applied or the leader is too new, waits before the log.
   */
  proposeMembership(change: MembershipChange, kind: MembershipKind, body: Uint8Array, options: ProposeOptions = {}): Promise<R> {
    return this.#requests.proposeMembership(change, kind, body, options);
  }

  get #isStopping(): boolean {
    return this.#stopped !== undefined || this.#hasLeft || this.#loop.hasEnded;
  }

  /**
   * Calls `done` once everything that was acknowledged by any member before this call is applied here: reads of the state machine which `done`
   * makes at once are linearizable. Calls it with a StatusError (`request-timeout`, `request-timeout-applied-index`, `server-stopped`) when
   * that cannot be known in time. May call back before it returns: a member that leads alone knows without asking anybody.
   */
  readBarrier(done: BarrierDone): void {
    if (this.#loop.hasEnded) {
      done(refusal('server-stopped'));
      return;
    }
    const index = this.#raft.soleReadIndex;
    if (index === undefined) {
      this.#reads.gather(done);
      this.#loop.queueTurn();
    } else if (this.appliedIndex >= index) {
      done(undefined);
    } else {
      this.#reads.await(index, done);
    }
  }

  /** What raft has taken in is acted upon at the end of the turn: until then only raft knows that it leads no more. */
  #confirmLeadership(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.readBarrier((error) => {
        if (error !== undefined) reject(error);
        else if (this.isLeader) resolve();
        else reject(refusal('no-leader'));
      });
    });
  }

  /**
   * Starts the TTL of a lease anew, wherever the leader is: see {@link LeaseKeeper.renew}.
   *
   * Rejects with StatusError `no-leader` when there was none for the request timeout, `request-timeout`, `server-stopped`.
   */
  renewLease(id: bigint): Promise<number> {
    return this.#questions.ask(renewal(this.leases, id));
  }

  /** What is left of a lease, by the leader's count; undefined for one that is unknown. Rejects as {@link renewLease} does. */
  leaseRemaining(id: bigint): Promise<LeaseRemaining | undefined> {
    return this.#questions.ask(remaining(this.leases, id));
  }

  /**
   * Hands leadership to `target`, and resolves once that leads.
   *
   * Rejects with StatusError `not-leader`, `bad-leader-transferee` (not a voter), `leader-transfer-timeout`, `server-stopped`.
   */
  transferLeadership(target: MemberId): Promise<void> {
    this.#loop.queueTurn();
    return this.#transfer.to(target);
  }

  /**
   * Asks another member, once, and gives its answer.
   *
   * Rejects with StatusError: the other's own, `request-timeout`, `request-timeout-connection-lost`, `server-stopped`.
   */
  call(member: MemberId, method: PeerMethod, body: Uint8Array): Promise<Uint8Array> {
    return this.#door.calls.ask(member, method, body, { timeoutMs: this.#requestTimeoutMs, isForLeader: false });
  }

  /** Answers what other members ask by {@link call}. One handler for each method. */
  onCall(method: PeerMethod, handler: CallHandler): void {
    this.#door.calls.handle(method, handler);
  }

  // ---- stopping ---------------------------------------------------------------------------------------------------------------------

  /**
   * Refuses new requests, hands leadership to another member, gives those it has taken in up to `graceMs` (default: the request timeout), and
   * closes the log. Reads go on until then. What is still open after the grace ends with `server-stopped`. Idempotent.
   */
  stop(graceMs: number = this.#requestTimeoutMs): Promise<void> {
    this.#stopped ??= this.#stop(graceMs);
    return this.#stopped;
  }

  async #stop(graceMs: number): Promise<void> {
    this.leases.demote();
    if (!this.#loop.isNew && !this.#loop.hasEnded && !this.#hasLeft) {
      let endGrace = (): void => undefined;
      const grace = new Promise<void>((resolve) => {
        const timer = this.#options.runtime.timer(graceMs, resolve);
        endGrace = () => timer.cancel();
      });
      await Promise.race([grace, this.#handOver().then(() => this.#idle())]);
      endGrace();
    }
    this.#loop.end();
    await this.#entries.restored;
    await this.#options.log.close();
  }

  /** So that the others need not wait for an election timeout. Raft gives up after one. */
  async #handOver(): Promise<void> {
    const target = this.#transfer.bestTarget;
    if (target === undefined) return;
    await this.transferLeadership(target).catch((cause: unknown) => {
      this.#options.runtime.log.warn({ target: target.toString(16), cause }, 'stopping without having handed over leadership');
    });
  }

  #idle(): Promise<void> {
    if (this.#proposals.isIdle) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  /** Ends at once: nobody is answered any more. For `fatal` to call where the process goes on. Idempotent. */
  halt(): void {
    this.#loop.end();
  }

  #end(): void {
    this.#ticker.stop();
    this.leases.demote();
    this.#proposals.abandon();
    this.#reads.abandon();
    this.#door.end();
    this.#questions.stop();
    this.#transfer.abandon();
    this.#onIdle?.();
  }

  #sayFarewell(): void {
    this.#farewellTicks ??= farewellTimeouts * (this.#options.electionTicks ?? 10);
  }

  /** This member is none any more. */
  #leave(): void {
    if (this.#hasLeft) return;
    this.#hasLeft = true;
    this.#door.close();
    this.#options.runtime.log.warn({ member: this.id.toString(16) }, 'this member was removed from the cluster');
    this.#options.onRemoved?.();
  }

  // ---- the loop ---------------------------------------------------------------------------------------------------------------------

  #round(): boolean {
    const { term, leader } = this.#raft;
    const isBatchFull = this.#proposals.enter(this.#raft, maxBatchBytes);
    const isNewLeader = leader !== this.#softState.leader || term !== this.#softState.term;
    // The news would only have the question put again.
    if (!isNewLeader) this.#reads.ask(this.#raft);
    if (this.#raft.hasReady()) this.#handle(this.#raft.ready());
    return isBatchFull || isNewLeader || this.#proposals.mayEnter || this.#raft.hasReady();
  }

  #rest(): void {
    this.#door.flush();
    if (this.#proposals.isIdle) this.#onIdle?.();
  }

  #handle({ softState, messages, append, apply, readStates, snapshotsFor }: Ready): void {
    if (softState) this.#onSoftState(softState);
    this.#door.send(messages);
    // What others shall write leaves before the own write, so that the members' disks work at the same time (thesis section 10.2.1).
    this.#door.flush();
    if (snapshotsFor.length > 0) this.#door.transfers?.begin(snapshotsFor, this.#options.stateMachine.durableIndex);
    if (append) this.#entries.append(append);
    for (const { context, index } of readStates) this.#reads.confirmed(context, index);
    if (readStates.length > 0) this.#releaseReads();
    if (apply) this.#entries.apply(apply.entries);
  }

  #onSoftState(next: SoftState): void {
    const { role, leader, term } = next;
    const { runtime } = this.#options;
    const before = this.#softState;
    this.#softState = next;
    runtime.log.info({ role, leader: leader.toString(16), term }, 'raft state changed');
    if (role !== 'leader' || term !== before.term) {
      this.leases.demote();
      this.#door.transfers?.end();
    }
    if (role === 'leader') this.#ledSince = runtime.monotonic();
    if (leader === before.leader && term === before.term) return;
    // An answer that is under way may be of a leader that was deposed before it was asked: the question is put again.
    this.#reads.leaderChanged();
    this.#door.calls.leaderChanged();
    this.#questions.wake();
    this.#transfer.look();
  }

  /** All that earlier leaders committed is applied, grants and revokes of leases included. */
  #onTerm(term: number): void {
    if (this.isLeader && term === this.term && !this.#isStopping) this.leases.promote(term);
  }

  #onApplied(): void {
    this.#campaignAlone();
    this.#releaseReads();
  }

  #releaseReads(): void {
    if (!this.#entries.isRestoring) this.#reads.applied(this.appliedIndex);
  }

  /** Where nobody else could lead there is nothing to wait for. Founders stand in the log: they are known only when that is applied. */
  #campaignAlone(): void {
    const { voters } = this.#raft.confState;
    if (voters.length === 1 && voters[0] === this.id && this.#raft.role === 'follower') this.#raft.campaign();
  }

  #tick(): void {
    if (!this.#hasLeft) this.#raft.tick();
    this.#door.tick();
    this.#proposals.expire();
    this.#reads.expire();
    this.#reads.askAgain();
    this.#questions.wake();
    this.#transfer.look();
    this.#entries.tick();
    if (this.#farewellTicks === undefined) return;
    this.#farewellTicks -= 1;
    if (this.#farewellTicks <= 0) this.#leave();
  }
}
