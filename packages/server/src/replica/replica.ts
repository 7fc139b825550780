import { LeaseRevokeRequest } from '@conclave/protocol';
import {
  type ConfState,
  decodeConfChange,
  type Entry,
  InvariantError,
  type MemberId,
  type MemberProgress,
  type Message,
  type PeerMessage,
  type Raft,
  type Ready,
  type Role,
  type SnapshotMeta,
  type SoftState,
  type StorageAppend,
} from '@conclave/raft';
import { decodeEntry, type MembershipKind, type RequestKind } from '../apply/entry.ts';
import { ApplyQueue } from './apply-queue.ts';
import { LeaderQuestions } from './leader-questions.ts';
import { LeadershipTransfer } from './leadership-transfer.ts';
import { LeaseKeeper, type LeaseRemaining } from './lease-keeper.ts';
import { answerLeaseQuestions, remaining, renewal } from './lease-questions.ts';
import { defaultLimits, type MembershipChange, type ProposeOptions, type ReplicaLimits, type ReplicaOptions } from './options.ts';
import { Outbox } from './outbox.ts';
import { type CallHandler, PeerCalls } from './peer-calls.ts';
import { PeerGuard } from './peer-guard.ts';
import type { PeerEvent, PeerFrame, PeerMethod, PeerPacket, Snapshots } from './ports.ts';
import { type NewProposal, Proposals } from './proposals.ts';
import { maxBatchBytes, startRaft } from './raft-start.ts';
import { type BarrierDone, ReadBarriers } from './read-barriers.ts';
import { refusal, refusalBeforeLog } from './refusal.ts';
import { SnapshotReceiver } from './snapshot-receiver.ts';
import { SnapshotTransfers } from './snapshot-transfers.ts';
import { Ticker } from './ticker.ts';
import { timeoutKey } from './timeout-key.ts';
import { type Write, Writes } from './writes.ts';

/** Longest stretch of work before the loop gets a turn, unless a single batch takes longer. */
const sliceMs = 2;
/** etcd's: five seconds for a slow disk, and two elections. */
const requestTimeoutBaseMs = 5000;
/**
 * Election timeouts for which a member that learned of its own removal goes on: whoever has not learned of it may still need its vote, and who asked
 * for it here is still to be answered.
 */
const farewellTimeouts = 2;

/** Each member hears from each other at least this often, in ticks. */
const greetingTicks = 5;

type State = 'new' | 'running' | 'stopping' | 'stopped';

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
  readonly #limits: ReplicaLimits;
  readonly #raft: Raft;
  readonly #proposals: Proposals<R>;
  readonly #reads: ReadBarriers;
  readonly #applyQueue: ApplyQueue;
  readonly #writes: Writes;
  readonly #outbox: Outbox;
  readonly #guard: PeerGuard;
  readonly #calls: PeerCalls;
  readonly #questions: LeaderQuestions;
  readonly #transfer: LeadershipTransfer;
  /** Absent where there are no snapshots to be had. */
  readonly #snapshotsOut: SnapshotTransfers | undefined;
  readonly #snapshotsIn: SnapshotReceiver | undefined;
  readonly #ticker: Ticker;
  readonly #electionTimeoutMs: number;
  readonly #requestTimeoutMs: number;
  #state: State = 'new';
  #softState: SoftState;
  /** When this member last began to lead. */
  #ledSince = Number.NEGATIVE_INFINITY;
  #isTurnQueued = false;
  #isPumping = false;
  /** Snapshots handed out by raft that are not in the place of the applied state yet: nothing is applied and nothing read meanwhile. */
  #restoring = 0;
  #restored: Promise<void> = Promise.resolve();
  #releasedIndex = 0;
  /** Applied since entries were last forgotten. */
  #newEntries = 0;
  #newBytes = 0;
  #ticks = 0;
  /** Until this member, removed, leaves; undefined: it stays. */
  #farewellTicks: number | undefined;
  #hasLeft = false;
  #stopped: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  /** @throws InvariantError when the log and the state machine cannot belong together: then nothing may be served from them. */
  constructor(options: ReplicaOptions<R>) {
    const { runtime, id, stateMachine, peers, snapshots, memory, tickMs = 100, electionTicks = 10 } = options;
    const electionTimeoutMs = tickMs * electionTicks;
    const requestTimeoutMs = requestTimeoutBaseMs + 2 * electionTimeoutMs;
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#electionTimeoutMs = electionTimeoutMs;
    this.#requestTimeoutMs = requestTimeoutMs;
    const raft = startRaft(options);
    this.#raft = raft;
    this.#softState = { role: raft.role, leader: raft.leader, term: raft.term };
    const later = (work: () => void): void => this.#drive(work);
    const send = (to: MemberId, frame: PeerFrame): void => this.#outbox.add(to, frame);
    const maxQueuedBytes = this.#limits.maxUncommittedBytes;
    this.#reads = new ReadBarriers({ runtime, requestTimeoutMs });
    this.#proposals = new Proposals({
      runtime,
      member: id,
      requestTimeoutMs,
      maxQueuedBytes,
      timeoutKey: (since) => this.#timeoutKey(since),
    });
    this.#applyQueue = new ApplyQueue({
      runtime,
      apply: (entry) => this.#apply(entry),
      onApplied: (index) => this.#onApplied(index),
      room: stateMachine,
      later,
    });
    this.#writes = new Writes((responses) => this.#release(responses));
    this.#guard = new PeerGuard({ runtime, memory, lateMs: 2 * electionTimeoutMs });
    this.#outbox = new Outbox({
      peers: peers ?? { send: () => undefined },
      vitals: () => ({ from: id, incarnation: memory?.incarnation ?? 1, durableIndex: raft.durableIndex, commitIndex: raft.commitIndex }),
      isRefused: (member) => this.#guard.isRefused(member),
    });
    this.#calls = new PeerCalls({ runtime, send, later });
    this.#questions = new LeaderQuestions({
      runtime,
      self: id,
      leader: () => raft.leader,
      calls: this.#calls,
      requestTimeoutMs,
      attemptMs: electionTimeoutMs,
    });
    this.#transfer = new LeadershipTransfer({ runtime, self: id, raft, timeoutMs: requestTimeoutMs });
    if (snapshots !== undefined) {
      this.#snapshotsOut = new SnapshotTransfers({ runtime, snapshots, raft, send, later, electionTicks });
      this.#snapshotsIn = new SnapshotReceiver({ runtime, self: id, snapshots, raft, send, later });
    }
    this.#ticker = new Ticker(runtime, tickMs, () => this.#drive(() => this.#tick()));
    this.leases = new LeaseKeeper({
      runtime,
      table: options.leases,
      revoke: (lease) => this.#revokeExpired(lease),
      confirmLeadership: () => this.#barrier(),
      electionTimeoutMs,
    });
    answerLeaseQuestions(this.#calls, this.leases);
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
    if (this.#state !== 'new') throw new Error('a replica is started once');
    this.#state = 'running';
    this.#options.peers?.listen((event) => this.#receive(event));
    this.#ticker.start();
    this.#drive(() => {
      if (this.#isRemoved(this.id)) this.#leave();
      else this.#greet();
      this.#campaignAlone();
    });
  }

  /**
   * Puts a request through the log, once, and gives what this member's own apply made of it. Requests of one turn of the loop share a write to
   * the disk.
   *
   * Rejects with StatusError: `request-too-large` and `too-many-requests` (never entered the log), `request-timeout` (or what etcd says instead where
   * it has an idea why) after 5 s and two election timeouts, `server-stopped`. The last two leave the outcome open, unless the error has the trailer
   * `conclave-outcome: not-applied`.
   */
  propose(kind: RequestKind, body: Uint8Array, options: ProposeOptions = {}): Promise<R> {
    const refused = this.#refuse(kind, body);
    if (refused) return Promise.reject(refused);
    this.#queueTurn();
    return this.#proposals.add(newProposal(kind, body, options));
  }

  /**
   * Puts a change of the members through the log, and gives what this member's own apply made of it. Rejects as {@link propose} does. One that raft
   * does not take yet, because another is not applied or the leader is too new, waits before the log.
   */
  proposeMembership(change: MembershipChange, kind: MembershipKind, body: Uint8Array, options: ProposeOptions = {}): Promise<R> {
    const refused = this.#refuse(kind, body);
    if (refused) return Promise.reject(refused);
    this.#queueTurn();
    return this.#proposals.addChange(newProposal(kind, body, options), change);
  }

  #refuse(kind: RequestKind, body: Uint8Array): Error | undefined {
    if (this.#state === 'stopping' || this.#state === 'stopped' || this.#hasLeft) return refusalBeforeLog('server-stopped');
    if (body.length > this.#limits.maxRequestBytes) return refusalBeforeLog('request-too-large');
    if (this.#options.stateMachine.allows?.(kind) === false) return refusalBeforeLog('not-capable');
    if (this.committedIndex - this.appliedIndex > this.#limits.maxPendingGap) return refusalBeforeLog('too-many-requests');
    return undefined;
  }

  /** Ahead of what clients ask, and in this term or not at all: who leads in the next counts the lease from anew. */
  #revokeExpired(id: bigint): Promise<unknown> {
    this.#queueTurn();
    return this.#proposals.addUrgent(newProposal('leaseRevoke', LeaseRevokeRequest.encode({ id }), {}), this.term);
  }

  #timeoutKey(since: number): ReturnType<typeof timeoutKey> {
    const { peers } = this.#options;
    return timeoutKey({
      since,
      ledSince: this.#ledSince,
      electionTimeoutMs: this.#electionTimeoutMs,
      self: this.id,
      leader: this.leader,
      voters: this.#raft.confState.voters,
      connectedSince: peers?.connectedSince && ((member) => peers.connectedSince?.(member)),
    });
  }

  /**
   * Calls `done` once everything that was acknowledged by any member before this call is applied here: reads of the state machine which `done`
   * makes at once are linearizable. Calls it with a StatusError (`request-timeout`, `request-timeout-applied-index`, `server-stopped`) when
   * that cannot be known in time. May call back before it returns: a member that leads alone knows without asking anybody.
   */
  readBarrier(done: BarrierDone): void {
    if (this.#state === 'stopped') {
      done(refusal('server-stopped'));
      return;
    }
    const index = this.#raft.soleReadIndex;
    if (index === undefined) {
      this.#reads.gather(done);
      this.#queueTurn();
    } else if (this.appliedIndex >= index) {
      done(undefined);
    } else {
      this.#reads.await(index, done);
    }
  }

  #barrier(): Promise<void> {
    return new Promise((resolve, reject) => this.readBarrier((error) => (error ? reject(error) : resolve())));
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
    this.#queueTurn();
    return this.#transfer.to(target);
  }

  /**
   * Asks another member, once, and gives its answer.
   *
   * Rejects with StatusError: the other's own, `request-timeout`, `request-timeout-connection-lost`, `server-stopped`.
   */
  call(member: MemberId, method: PeerMethod, body: Uint8Array): Promise<Uint8Array> {
    return this.#calls.ask(member, method, body, { timeoutMs: this.#requestTimeoutMs, isForLeader: false });
  }

  /** Answers what other members ask by {@link call}. One handler for each method. */
  onCall(method: PeerMethod, handler: CallHandler): void {
    this.#calls.handle(method, handler);
  }

  // ---- stopping ---------------------------------------------------------------------------------------------------------------------

  /**
   * Hands leadership to another member, refuses new requests, gives those it has taken in up to `graceMs` (default: the request timeout), and
   * closes the log. Reads go on until then. What is still open after the grace ends with `server-stopped`. Idempotent.
   */
  stop(graceMs: number = this.#requestTimeoutMs): Promise<void> {
    this.#stopped ??= this.#stop(graceMs);
    return this.#stopped;
  }

  async #stop(graceMs: number): Promise<void> {
    const isWaitedFor = this.#state === 'running' && !this.#hasLeft;
    if (this.#state !== 'stopped') this.#state = 'stopping';
    this.leases.demote();
    if (isWaitedFor) {
      const grace = this.#grace(graceMs);
      await Promise.race([grace.over, this.#handOver().then(() => this.#idle())]);
      grace.cancel();
    }
    this.#end();
    await this.#restored;
    await this.#options.log.close();
  }

  #grace(ms: number): { readonly over: Promise<void>; cancel(): void } {
    let cancel = (): void => undefined;
    const over = new Promise<void>((resolve) => {
      const timer = this.#options.runtime.timer(ms, resolve);
      cancel = () => timer.cancel();
    });
    return { over, cancel };
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
    this.#end();
  }

  #end(): void {
    this.#state = 'stopped';
    this.#ticker.stop();
    this.leases.demote();
    this.#proposals.abandon();
    this.#reads.abandon();
    this.#calls.abandon();
    this.#questions.stop();
    this.#transfer.abandon();
    this.#snapshotsOut?.end();
    this.#snapshotsIn?.end();
    this.#onIdle?.();
  }

  #sayFarewell(): void {
    this.#farewellTicks ??= farewellTimeouts * (this.#options.electionTicks ?? 10);
  }

  /** This member is none any more. */
  #leave(): void {
    if (this.#hasLeft) return;
    this.#hasLeft = true;
    this.#options.runtime.log.warn({ member: this.id.toString(16) }, 'this member was removed from the cluster');
    this.#options.onRemoved?.();
  }

  #isRemoved(member: MemberId): boolean {
    return this.#options.isRemoved?.(member) ?? false;
  }

  // ---- the loop ---------------------------------------------------------------------------------------------------------------------

  /** Every way into the loop: does the work, and then all that follows from it. From within the loop (a log that is durable at once), only the work. */
  #drive(work: () => void): void {
    if (this.#state === 'stopped') return;
    if (this.#isPumping || this.#state === 'new') {
      work();
      return;
    }
    try {
      work();
      this.#pump();
    } catch (cause) {
      this.#fail(cause);
    }
  }

  #fail(cause: unknown): void {
    if (this.#state === 'stopped') return;
    this.#end();
    try {
      this.#options.fatal(cause instanceof Error ? cause : new Error(String(cause)));
    } catch {
      // Where the process goes on, `fatal` throws to unwind whoever called it. This is the top of the stack, and the cause has been told.
    }
  }

  #queueTurn(): void {
    if (this.#isTurnQueued || this.#state === 'new') return;
    this.#isTurnQueued = true;
    this.#options.runtime.endOfTurn(() => {
      this.#isTurnQueued = false;
      this.#drive(() => {});
    });
  }

  /** Does what there is to do until nothing is, or the loop needs its turn. */
  #pump(): void {
    const { runtime } = this.#options;
    const end = runtime.monotonic() + sliceMs;
    let hasMore: boolean;
    this.#isPumping = true;
    try {
      do {
        const isBatchFull = this.#proposals.enter(this.#raft, maxBatchBytes);
        const isNewLeader = this.#raft.leader !== this.#softState.leader || this.#raft.term !== this.#softState.term;
        // The news would only have the question put again.
        if (!isNewLeader) this.#reads.ask(this.#raft);
        if (this.#raft.hasReady()) this.#handle(this.#raft.ready());
        hasMore = this.#state !== 'stopped' && (isBatchFull || isNewLeader || this.#raft.hasReady());
      } while (hasMore && runtime.monotonic() < end);
      this.#outbox.flush();
    } finally {
      this.#isPumping = false;
    }
    if (hasMore) this.#queueTurn();
    if (this.#proposals.isIdle) this.#onIdle?.();
  }

  #handle(ready: Ready): void {
    if (ready.softState) this.#onSoftState(ready.softState);
    this.#outbox.addMessages(ready.messages);
    // What others shall write leaves before the own write, so that the members' disks work at the same time (thesis section 10.2.1).
    this.#outbox.flush();
    if (ready.snapshotsFor.length > 0) this.#snapshotsOut?.begin(ready.snapshotsFor, this.#options.stateMachine.durableIndex);
    if (ready.append) this.#append(ready.append);
    for (const { context, index } of ready.readStates) this.#reads.confirmed(context, index);
    if (ready.readStates.length > 0) this.#releaseReads();
    if (ready.apply) this.#applyQueue.push(ready.apply.entries);
  }

  #onSoftState(next: SoftState): void {
    const { role, leader, term } = next;
    const isSameTerm = term === this.#softState.term;
    const hasChangedLeader = leader !== this.#softState.leader || !isSameTerm;
    if (role !== 'leader' || !isSameTerm) {
      this.leases.demote();
      this.#snapshotsOut?.end();
    }
    if (role === 'leader' && (this.#softState.role !== 'leader' || !isSameTerm)) this.#ledSince = this.#options.runtime.monotonic();
    this.#softState = next;
    this.#options.runtime.log.info({ role, leader: leader.toString(16), term }, 'raft state changed');
    if (!hasChangedLeader) return;
    // An answer that is under way may be of a leader that was deposed before it was asked: the question is put again.
    this.#reads.askAgain(0);
    this.#calls.leaderChanged();
    this.#questions.wake();
    this.#transfer.look();
  }

  // ---- the log ----------------------------------------------------------------------------------------------------------------------

  #append({ entries, hardState, snapshot, responses }: StorageAppend): void {
    if (entries.length === 0 && hardState === undefined && snapshot === undefined) {
      this.#writes.afterAll(responses);
      return;
    }
    const write = this.#writes.begin(responses);
    if (snapshot === undefined) {
      this.#options.log.append({ entries, hardState }, () => this.#drive(() => this.#writes.done(write)));
      return;
    }
    const { snapshots } = this.#options;
    if (snapshots === undefined) throw new InvariantError('raft took a snapshot, and there are none');
    this.#restoring += 1;
    this.#applyQueue.clear();
    const { index, term } = snapshot;
    this.#options.log.append({ entries, hardState, snapshot: { index, term } }, () => this.#restore(snapshots, snapshot, write));
  }

  /** The log says by now that the snapshot is in the place of what was before it: a crash from here on is finished at the next start. */
  #restore(snapshots: Snapshots, snapshot: SnapshotMeta, write: Write): void {
    this.#restored = this.#restored
      .then(() => snapshots.restore(snapshot))
      .then(
        () => this.#drive(() => this.#onRestored(snapshot, write)),
        (cause: unknown) => this.#fail(cause),
      );
  }

  #onRestored({ index }: SnapshotMeta, write: Write): void {
    const { stateMachine, onRestored, onMembership, runtime } = this.#options;
    stateMachine.reload();
    if (this.appliedIndex !== index) throw new InvariantError(`the state is at ${this.appliedIndex} after a snapshot of ${index}`);
    runtime.log.info({ index }, 'a snapshot took the place of the applied state');
    this.#restoring -= 1;
    this.#proposals.covered();
    onRestored?.();
    onMembership?.();
    this.#writes.done(write);
    this.#checkConfState();
    this.#releaseReads();
  }

  #release(responses: readonly Message[]): void {
    for (const response of responses) {
      if (isForPeer(response) && response.to !== this.id) this.#outbox.add(response.to, { kind: 'raft', message: response });
      else this.#raft.step(response);
    }
  }

  /** The log is needed up to what the state machine has on its own disk. */
  #releaseLog(): void {
    const { durableIndex } = this.#options.stateMachine;
    if (this.#restoring > 0 || durableIndex <= this.#releasedIndex) return;
    this.#releasedIndex = durableIndex;
    this.#options.log.release(durableIndex);
  }

  /**
   * Forgets entries in memory: not those that a member which lags a little may need, nor what follows a snapshot that is on its way, as long as that
   * is not too much. Now and then, as forgetting costs the same for one entry as for many.
   */
  #compact(): void {
    const { peers, stateMachine } = this.#options;
    const { catchUpEntries, catchUpBytes } = this.#limits;
    if (peers !== undefined && this.#newEntries < catchUpEntries / 8 && this.#newBytes < catchUpBytes / 8) return;
    this.#newEntries = 0;
    this.#newBytes = 0;
    if (peers === undefined) {
      this.#raft.compact(this.appliedIndex);
      return;
    }
    this.#snapshotsOut?.giveUpBelow(this.#raft.catchUpIndex(Number.MAX_SAFE_INTEGER, 4 * catchUpBytes));
    const index = this.#raft.catchUpIndex(catchUpEntries, catchUpBytes);
    // Never beyond what a state that is read now would hold.
    this.#raft.compact(Math.min(index, stateMachine.durableIndex, this.#snapshotsOut?.neededIndex ?? index));
  }

  // ---- applying ---------------------------------------------------------------------------------------------------------------------

  #apply(entry: Entry): void {
    const { stateMachine } = this.#options;
    const { index, term, data, type } = entry;
    this.#proposals.begins(term);
    this.#newEntries += 1;
    this.#newBytes += data.length;
    if (type === 'confChange') {
      this.#applyMembership(entry);
      return;
    }
    if (data.length > 0) {
      const request = decodeEntry(data);
      this.#proposals.applied(request, stateMachine.apply(index, term, request, this.#proposals.isAwaited(request)));
      return;
    }
    stateMachine.applyEmpty(index, term);
    // Now all that earlier leaders committed is applied, grants and revokes included.
    if (this.isLeader && term === this.term && this.#state === 'running') this.leases.promote();
  }

  #applyMembership({ index, term, data }: Entry): void {
    const { stateMachine, onMembership } = this.#options;
    const change = decodeConfChange(data);
    const request = decodeEntry(change.context);
    const { result, isAccepted } = stateMachine.applyMembership(index, term, change, request, this.#proposals.isAwaited(request));
    if (isAccepted) {
      this.#raft.applyConfChange(change);
      this.#checkConfState();
      onMembership?.();
      if (change.type === 'remove' && change.member === this.id)
        this.#farewellTicks = farewellTimeouts * (this.#options.electionTicks ?? 10);
    }
    this.#proposals.applied(request, result);
  }

  /** Quorums are counted by raft's configuration, and it restarts with the state machine's: they must never differ (etcd issue 20967). */
  #checkConfState(): void {
    const { confState } = this.#options.stateMachine;
    if (isSameConfState(confState, this.#raft.confState)) return;
    throw new InvariantError(`raft and the state machine disagree about the members at ${this.appliedIndex}`);
  }

  #onApplied(index: number): void {
    this.#raft.step({ type: 'storageApplyResponse', index });
    this.#campaignAlone();
    this.#compact();
    this.#releaseReads();
  }

  #releaseReads(): void {
    if (this.#restoring === 0) this.#reads.applied(this.appliedIndex);
  }

  /** Where nobody else could lead there is nothing to wait for. Founders stand in the log: they are known only when that is applied. */
  #campaignAlone(): void {
    const { voters } = this.#raft.confState;
    if (voters.length === 1 && voters[0] === this.id && this.#raft.role === 'follower') this.#raft.campaign();
  }

  // ---- the other members ------------------------------------------------------------------------------------------------------------

  /** Takes in what came; what follows from it is done at the end of the turn, for all that came in it. */
  #receive(event: PeerEvent): void {
    if (this.#state === 'stopped' || this.#hasLeft) return;
    try {
      if (event.kind === 'packet') {
        this.#onPacket(event.packet);
      } else {
        this.#raft.step({ type: 'unreachable', member: event.member });
        this.#calls.unreachable(event.member);
      }
    } catch (cause) {
      this.#fail(cause);
    }
    this.#queueTurn();
  }

  #onPacket(packet: PeerPacket): void {
    const { from, to, frames } = packet;
    if (to !== this.id) return;
    if (this.#isRemoved(from)) this.#outbox.add(from, { kind: 'removed' });
    else if (this.#guard.admits(packet)) for (const frame of frames) this.#onFrame(from, frame);
  }

  #onFrame(from: MemberId, frame: PeerFrame): void {
    switch (frame.kind) {
      case 'raft':
        if (frame.message.from === from) this.#raft.step(frame.message);
        break;
      case 'snapshotChunk':
        this.#snapshotsIn?.received(from, frame);
        break;
      case 'snapshotAck':
        this.#snapshotsOut?.acknowledged(from, frame);
        break;
      case 'call':
        this.#calls.called(from, frame);
        break;
      case 'answer':
        this.#calls.answered(from, frame);
        break;
      case 'removed':
        this.#sayFarewell();
        break;
    }
  }

  /** Followers have nothing to say to each other. Without this they would not notice that one came back with less than it had. */
  #greet(): void {
    const { voters, learners } = this.#raft.confState;
    for (const member of [...voters, ...learners]) if (member !== this.id) this.#outbox.greet(member);
  }

  #tick(): void {
    if (!this.#hasLeft) this.#raft.tick();
    if (!this.#hasLeft && this.#ticks % greetingTicks === 0) this.#greet();
    this.#ticks += 1;
    this.#proposals.expire();
    this.#reads.expire();
    this.#reads.askAgain();
    this.#calls.expire();
    this.#questions.wake();
    this.#transfer.look();
    this.#snapshotsOut?.tick(this.#options.stateMachine.durableIndex);
    this.#guard.tick();
    this.#releaseLog();
    if (this.#farewellTicks === undefined) return;
    this.#farewellTicks -= 1;
    if (this.#farewellTicks <= 0) this.#leave();
  }
}

function newProposal(kind: RequestKind, body: Uint8Array, options: ProposeOptions): NewProposal {
  const { user = '', authRevision = 0, deadline = Number.POSITIVE_INFINITY } = options;
  return { kind, body, user, authRevision, deadline };
}

function isForPeer(response: Message): response is PeerMessage {
  return 'to' in response;
}

function isSameConfState(a: ConfState, b: ConfState): boolean {
  const isSame = (ours: readonly MemberId[], theirs: readonly MemberId[]): boolean =>
    ours.length === theirs.length && ours.every((member) => theirs.includes(member));
  return isSame(a.voters, b.voters) && isSame(a.learners, b.learners);
}
