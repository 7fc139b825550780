import { LeaseRevokeRequest } from '@conclave/protocol';
import {
  type ConfChange,
  type ConfState,
  decodeConfChange,
  type Entry,
  InvariantError,
  type MemberId,
  type MemberProgress,
  type Message,
  type PeerMessage,
  Raft,
  type Ready,
  type Role,
  type SoftState,
  type StorageAppend,
} from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import { decodeEntry, type MembershipKind, type RequestKind } from '../apply/entry.ts';
import { ApplyQueue } from './apply-queue.ts';
import { LeaseKeeper } from './lease-keeper.ts';
import type { Fatal, LeaseTable, LocalMemory, Log, PeerEvent, PeerMethod, Peers, RecoveredLog, Snapshots, StateMachine } from './ports.ts';
import { Proposals } from './proposals.ts';
import { type BarrierDone, ReadBarriers } from './read-barriers.ts';
import { refusal, refusalBeforeLog } from './refusal.ts';
import { Ticker } from './ticker.ts';

/**
 * @typeParam R what the state machine makes of a request.
 */
export interface ReplicaOptions<R> {
  readonly runtime: Runtime;
  readonly id: MemberId;
  /** The members as of the applied index. */
  readonly confState: ConfState;
  readonly log: Log;
  /** What `log` held when it was opened. */
  readonly recovered: RecoveredLog;
  readonly stateMachine: StateMachine<R>;
  readonly leases: LeaseTable;
  readonly fatal: Fatal;
  /** The way to the other members. Absent: nobody can be reached, and the member can only be alone. */
  readonly peers?: Peers;
  /** Whole states on their way between members. Needed with `peers`. */
  readonly snapshots?: Snapshots;
  /** What this member remembers of itself and its peers. Default: nothing, and this is its first start. */
  readonly memory?: LocalMemory;
  /** Whether this was a member and can never be again, as of the applied index. Default: nobody was. */
  readonly isRemoved?: (id: MemberId) => boolean;
  /** A snapshot took the place of the applied state, and the state machine has read it anew: watchers and whoever else holds copies start over. */
  readonly onRestored?: () => void;
  /** The members are others than before: a change was applied and accepted, or a snapshot restored. */
  readonly onMembership?: () => void;
  /** This member was removed: by an entry it applied, or so a member says. It takes part no more and should be stopped. Told once. */
  readonly onRemoved?: () => void;
  /** Milliseconds between ticks, etcd's `--heartbeat-interval`. Default 100. */
  readonly tickMs?: number;
  /** Ticks without a leader before an election: etcd's `--election-timeout` divided by `tickMs`. Default 10. */
  readonly electionTicks?: number;
  readonly limits?: Partial<ReplicaLimits>;
}

export interface ReplicaLimits {
  /** A larger request is refused with `request-too-large`. Default 1.5 MiB, etcd's `--max-request-bytes`. */
  readonly maxRequestBytes: number;
  /** While more entries than this are committed and not applied, proposals are refused with `too-many-requests`. Default 5000, as in etcd. */
  readonly maxPendingGap: number;
  /**
   * Bytes of entries in the log that wait for their commit; further ones wait before the log. Up to as many bytes may wait there, and what
   * comes then is refused with `too-many-requests`. Default 64 MiB.
   */
  readonly maxUncommittedBytes: number;
  /** Applied entries kept for members that lag behind, at most this many (default 5000, as in etcd) and of at most so many bytes (default 64 MiB). */
  readonly catchUpEntries: number;
  readonly catchUpBytes: number;
}

/** Answers a question of another member. */
export type CallHandler = (body: Uint8Array, from: MemberId) => Promise<Uint8Array>;

/** What raft is told of a change of the members; the rest is in the request. */
export type MembershipChange = Omit<ConfChange, 'context'>;

/** A lease as its keeper sees it. */
export interface LeaseRemaining {
  /** Until it expires; 0 when it has and is not revoked yet. */
  readonly remainingSeconds: number;
  readonly grantedSeconds: number;
}

export interface ProposeOptions {
  /** Who asks; empty (the default) without authentication. */
  readonly user?: string;
  /** Auth revision at which the permission was checked. Default 0. */
  readonly authRevision?: number;
  /** Instant on `runtime.monotonic()` after which a request that has not entered the log is not proposed any more. Default: never. */
  readonly deadline?: number;
}

const defaultLimits: ReplicaLimits = {
  maxRequestBytes: 1.5 * 1024 * 1024,
  maxPendingGap: 5000,
  maxUncommittedBytes: 64 * 1024 * 1024,
  catchUpEntries: 5000,
  catchUpBytes: 64 * 1024 * 1024,
};
/** Bytes of requests that enter raft, and of entries that are written, at once. A request above it travels alone. */
const maxBatchBytes = 1024 * 1024;
/** Longest stretch of work before the loop gets a turn, unless a single batch takes longer. */
const sliceMs = 2;
/** etcd's: five seconds for a slow disk, and two elections. */
const requestTimeoutBaseMs = 5000;

type State = 'new' | 'running' | 'stopping' | 'stopped';

/** An append under way, and what to release when it is durable. */
interface Write {
  responses: readonly Message[];
}

/**
 * One member at work: it drives raft, and joins it to the log, the state machine and the clients that wait. Written for any number of members;
 * today raft leads only where it is alone.
 *
 * The way of a request: `propose` queues it; at the end of the turn of the loop all queued ones enter raft; what raft then wants written goes
 * to the log as one append; when that is durable, and not before, raft is told, commits, and hands the entries back to be applied; each waiter
 * is answered by its own apply. The contract with raft is in packages/raft/DESIGN.md.
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
  readonly #ticker: Ticker;
  readonly #requestTimeoutMs: number;
  #state: State = 'new';
  #softState: SoftState;
  #isTurnQueued = false;
  #isPumping = false;
  /** The last append handed to the log and not durable yet. */
  #lastWrite: Write | undefined;
  #releasedIndex = 0;
  #stopped: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  /** @throws InvariantError when the log and the state machine cannot belong together: then nothing may be served from them. */
  constructor(options: ReplicaOptions<R>) {
    const { runtime, stateMachine, tickMs = 100, electionTicks = 10 } = options;
    const electionTimeoutMs = tickMs * electionTicks;
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#requestTimeoutMs = requestTimeoutBaseMs + 2 * electionTimeoutMs;
    this.#raft = openRaft(options, electionTicks, this.#limits.maxUncommittedBytes);
    this.#softState = this.#raft.status();
    const requestTimeoutMs = this.#requestTimeoutMs;
    this.#reads = new ReadBarriers({ runtime, requestTimeoutMs });
    this.#proposals = new Proposals({ runtime, member: options.id, requestTimeoutMs, maxQueuedBytes: this.#limits.maxUncommittedBytes });
    this.#applyQueue = new ApplyQueue({
      runtime,
      apply: (entry) => this.#apply(entry),
      onApplied: (index) => this.#onApplied(index),
      room: stateMachine,
      later: (work) => this.#drive(work),
    });
    this.#ticker = new Ticker(runtime, tickMs, () => this.#drive(() => this.#tick()));
    this.leases = new LeaseKeeper({
      runtime,
      table: options.leases,
      revoke: (id) => this.propose('leaseRevoke', LeaseRevokeRequest.encode({ id })),
      confirmLeadership: () => this.#barrier(),
      electionTimeoutMs,
    });
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
    return this.#raft.role === 'leader';
  }
  /** The raft index that etcd's Status shows. */
  get committedIndex(): number {
    return this.#raft.commitIndex;
  }
  get appliedIndex(): number {
    return this.#options.stateMachine.appliedIndex;
  }

  get isLearner(): boolean {
    return this.#raft.role === 'learner';
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
    this.#options.peers?.listen((event) => this.#drive(() => this.#onPeer(event)));
    this.#ticker.start();
    this.#drive(() => this.#campaignAlone());
  }

  /**
   * Puts a request through the log, once, and gives what this member's own apply made of it. Requests of one turn of the loop share a write to
   * the disk.
   *
   * Rejects with StatusError: `request-too-large` and `too-many-requests` (never entered the log), `request-timeout` after 5 s and two election
   * timeouts, `server-stopped`. The last two leave the outcome open, unless the error has the trailer `conclave-outcome: not-applied`.
   */
  propose(kind: RequestKind, body: Uint8Array, options: ProposeOptions = {}): Promise<R> {
    const refused = this.#refuse(body);
    if (refused) return Promise.reject(refused);
    const { user = '', authRevision = 0, deadline = Number.POSITIVE_INFINITY } = options;
    this.#queueTurn();
    return this.#proposals.add({ kind, body, user, authRevision, deadline });
  }

  /**
   * Puts a change of the members through the log, and gives what this member's own apply made of it. As {@link propose}; one that raft does not take
   * yet, because another is not applied or the leader is too new, waits before the log.
   */
  proposeMembership(_change: MembershipChange, _kind: MembershipKind, _body: Uint8Array, _options: ProposeOptions = {}): Promise<R> {
    throw new Error('not yet');
  }

  /**
   * Starts the TTL of a lease anew, wherever the leader is: see {@link LeaseKeeper.renew}.
   *
   * Rejects with StatusError `no-leader`, `leader-changed`, `request-timeout`, `server-stopped`.
   */
  async renewLease(id: bigint): Promise<number> {
    return this.leases.renew(id);
  }

  /** What is left of a lease, by the leader's count; undefined for one that is unknown. Rejects as {@link renewLease} does. */
  async leaseRemaining(id: bigint): Promise<LeaseRemaining | undefined> {
    await this.#barrier();
    const remainingSeconds = this.leases.remainingSeconds(id);
    return remainingSeconds === undefined ? undefined : { remainingSeconds, grantedSeconds: remainingSeconds };
  }

  /**
   * Hands leadership to `target`, and resolves once that leads.
   *
   * Rejects with StatusError `not-leader`, `bad-leader-transferee` (not a voter), `leader-transfer-timeout`, `server-stopped`.
   */
  async transferLeadership(target: MemberId): Promise<void> {
    if (!this.isLeader) throw refusal('not-leader');
    if (target !== this.id) throw refusal('bad-leader-transferee');
  }

  /**
   * Asks another member, once, and gives its answer.
   *
   * Rejects with StatusError: the other's own, `request-timeout`, `request-timeout-connection-lost`, `server-stopped`.
   */
  call(_member: MemberId, _method: PeerMethod, _body: Uint8Array): Promise<Uint8Array> {
    return Promise.reject(refusal('no-leader'));
  }

  /** Answers what other members ask. A StatusError of the wire-error table is told to them as such. One handler for each method. */
  onCall(_method: PeerMethod, _handler: CallHandler): void {}

  #refuse(body: Uint8Array): Error | undefined {
    if (this.#state === 'stopping' || this.#state === 'stopped') return refusalBeforeLog('server-stopped');
    if (body.length > this.#limits.maxRequestBytes) return refusalBeforeLog('request-too-large');
    if (this.committedIndex - this.appliedIndex > this.#limits.maxPendingGap) return refusalBeforeLog('too-many-requests');
    return undefined;
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
   * Refuses new requests, gives those it has taken in up to `graceMs` (default: the request timeout), and closes the log. Reads go on until
   * then. What is still open after the grace ends with `server-stopped`. Idempotent.
   */
  stop(graceMs: number = this.#requestTimeoutMs): Promise<void> {
    this.#stopped ??= this.#stop(graceMs);
    return this.#stopped;
  }

  async #stop(graceMs: number): Promise<void> {
    const wasRunning = this.#state === 'running';
    if (this.#state !== 'stopped') this.#state = 'stopping';
    this.leases.demote();
    if (wasRunning) await this.#idle(graceMs);
    this.#end();
    await this.#options.log.close();
  }

  /** Ends at once: nobody is answered any more. For `fatal` to call where the process goes on. Idempotent. */
  halt(): void {
    this.#end();
  }

  #idle(graceMs: number): Promise<void> {
    if (this.#proposals.isIdle) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.#options.runtime.timer(graceMs, resolve);
      this.#onIdle = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  #end(): void {
    this.#state = 'stopped';
    this.#ticker.stop();
    this.leases.demote();
    this.#proposals.abandon();
    this.#reads.abandon();
    this.#onIdle?.();
  }

  // ---- the loop ---------------------------------------------------------------------------------------------------------------------

  /** Every way into the loop: does the work, and then all that follows from it. From within the loop (a log that is durable at once), only the work. */
  #drive(work: () => void): void {
    if (this.#state === 'stopped') return;
    if (this.#isPumping) {
      work();
      return;
    }
    try {
      work();
      this.#pump();
    } catch (cause) {
      this.#fail(cause instanceof Error ? cause : new Error(String(cause)));
    }
  }

  #fail(cause: Error): void {
    this.#end();
    try {
      this.#options.fatal(cause);
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
        this.#reads.ask(this.#raft);
        if (this.#raft.hasReady()) this.#handle(this.#raft.ready());
        hasMore = this.#state !== 'stopped' && (isBatchFull || this.#raft.hasReady());
      } while (hasMore && runtime.monotonic() < end);
    } finally {
      this.#isPumping = false;
    }
    if (hasMore) this.#queueTurn();
    if (this.#proposals.isIdle) this.#onIdle?.();
  }

  #handle(ready: Ready): void {
    if (ready.softState) this.#onSoftState(ready.softState);
    // Before the own write, so that the members' disks work at the same time (thesis section 10.2.1).
    if (ready.messages.length > 0) this.#send(ready.messages);
    if (ready.append) this.#append(ready.append);
    for (const { context, index } of ready.readStates) this.#reads.confirmed(context, index);
    if (ready.readStates.length > 0) this.#reads.applied(this.appliedIndex);
    if (ready.apply) this.#applyQueue.push(ready.apply.entries);
  }

  #onSoftState(next: SoftState): void {
    const { role, leader, term } = next;
    const hasChangedLeader = leader !== this.#softState.leader || term !== this.#softState.term;
    if (role !== 'leader' || term !== this.#softState.term) this.leases.demote();
    this.#softState = next;
    this.#options.runtime.log.info({ role, leader: leader.toString(16), term }, 'raft state changed');
    if (hasChangedLeader) this.#reads.askAgain(0);
  }

  // Save before send, save before count. What raft promises in `responses` is released by the completion of the write it rests on, never
  // earlier: a vote or an acknowledgement that a crash can take back elects two leaders or loses what a client was told is safe.
  #append({ entries, hardState, responses }: StorageAppend): void {
    if (entries.length === 0 && hardState === undefined) {
      this.#releaseAfterWrites(responses);
      return;
    }
    const write: Write = { responses };
    this.#lastWrite = write;
    this.#options.log.append({ entries, hardState }, () => this.#drive(() => this.#onDurable(write)));
  }

  /** Answers that need no write of their own may rest on one that is under way. */
  #releaseAfterWrites(responses: readonly Message[]): void {
    if (this.#lastWrite === undefined) this.#release(responses);
    else this.#lastWrite.responses = [...this.#lastWrite.responses, ...responses];
  }

  #onDurable(write: Write): void {
    if (this.#lastWrite === write) this.#lastWrite = undefined;
    this.#release(write.responses);
  }

  #release(responses: readonly Message[]): void {
    const outgoing: PeerMessage[] = [];
    for (const response of responses) {
      if (response.type !== 'storageAppendResponse' && 'to' in response && response.to !== this.id) outgoing.push(response);
      else this.#raft.step(response);
    }
    if (outgoing.length > 0) this.#send(outgoing);
  }

  #send(messages: readonly PeerMessage[]): void {
    const { durableIndex, commitIndex } = this.#raft.status();
    for (const to of new Set(messages.map((message) => message.to))) {
      const frames = messages.filter((message) => message.to === to).map((message) => ({ kind: 'raft', message }) as const);
      this.#options.peers?.send({
        from: this.id,
        to,
        incarnation: this.#options.memory?.incarnation ?? 1,
        durableIndex,
        commitIndex,
        frames,
      });
    }
  }

  #onPeer(event: PeerEvent): void {
    if (event.kind === 'unreachable') this.#raft.step({ type: 'unreachable', member: event.member });
    else for (const frame of event.packet.frames) if (frame.kind === 'raft') this.#raft.step(frame.message);
  }

  #apply(entry: Entry): void {
    const { stateMachine } = this.#options;
    const { index, term, data, type } = entry;
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

  /** Where nobody else could lead there is nothing to wait for. Founders stand in the log: they are known only when that is applied. */
  #campaignAlone(): void {
    const { voters } = this.#options.stateMachine.confState;
    if (voters.length === 1 && voters[0] === this.id && this.#raft.role === 'follower') this.#raft.campaign();
  }

  #applyMembership({ index, term, data }: Entry): void {
    const { stateMachine, onMembership } = this.#options;
    const change = decodeConfChange(data);
    const request = decodeEntry(change.context);
    const { result, isAccepted } = stateMachine.applyMembership(index, term, change, request, this.#proposals.isAwaited(request));
    if (isAccepted) {
      this.#raft.applyConfChange(change);
      onMembership?.();
    }
    this.#proposals.applied(request, result);
  }

  #onApplied(index: number): void {
    this.#raft.step({ type: 'storageApplyResponse', index });
    this.#campaignAlone();
    this.#raft.compact(
      this.#options.peers === undefined ? index : this.#raft.catchUpIndex(this.#limits.catchUpEntries, this.#limits.catchUpBytes),
    );
    this.#reads.applied(index);
  }

  #tick(): void {
    this.#raft.tick();
    this.#proposals.expire();
    this.#reads.expire();
    this.#reads.askAgain();
    this.#releaseLog();
  }

  /** The log is needed up to what the state machine has on its own disk. */
  #releaseLog(): void {
    const { durableIndex } = this.#options.stateMachine;
    if (durableIndex <= this.#releasedIndex) return;
    this.#releasedIndex = durableIndex;
    this.#options.log.release(durableIndex);
  }
}

/** Raft begins where the state machine is: what that holds needs no entries any more. */
function openRaft<R>(options: ReplicaOptions<R>, electionTimeoutTicks: number, maxUncommittedBytes: number): Raft {
  const { id, runtime, confState, recovered, stateMachine } = options;
  checkRecovered(recovered, stateMachine);
  const { appliedIndex, appliedTerm } = stateMachine;
  return new Raft({
    id,
    incarnation: options.memory?.incarnation ?? 1,
    electionTimeoutTicks,
    heartbeatTicks: 1,
    preVote: true,
    checkQuorum: true,
    maxUncommittedBytes,
    maxEntriesPerAppendBytes: maxBatchBytes,
    maxInflightAppends: 256,
    maxInflightBytes: 8 * maxBatchBytes,
    electionTimeoutJitter: () => runtime.random(),
    initial: {
      hardState: recovered.hardState,
      confState,
      compacted: { index: appliedIndex, term: appliedTerm },
      entries: recovered.entries.filter((entry) => entry.index > appliedIndex),
      appliedIndex,
    },
  });
}

/** The log and the state machine were written together: entries went to the log first, and were kept until the machine had them. */
function checkRecovered<R>(recovered: RecoveredLog, stateMachine: StateMachine<R>): void {
  const { hardState, entries } = recovered;
  const { appliedIndex, appliedTerm } = stateMachine;
  const [first, last] = [entries[0], entries.at(-1)];
  const at = entries.find((entry) => entry.index === appliedIndex);
  const state = `the state machine is at ${appliedTerm}/${appliedIndex}`;
  if ((hardState?.term ?? 0) < appliedTerm) throw new InvariantError(`${state} and the log's term is ${hardState?.term ?? 'missing'}`);
  if (first && first.index > appliedIndex + 1) throw new InvariantError(`${state} and the log begins at ${first.index}`);
  if (last && last.index < appliedIndex) throw new InvariantError(`${state} and the log ends at ${last.index}`);
  if (at && at.term !== appliedTerm) throw new InvariantError(`${state} and the log has term ${at.term} there`);
}
