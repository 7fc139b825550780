import { LeaseRevokeRequest } from '@conclave/protocol';
import type { MemberId, Raft } from '@conclave/raft';
import type { MembershipKind, RequestKind } from '../apply/entry.ts';
import type { Loop } from './loop.ts';
import type { MembershipChange, ProposeOptions, ReplicaLimits, ReplicaOptions } from './options.ts';
import { type NewProposal, Proposals } from './proposals.ts';
import { refusalBeforeLog } from './refusal.ts';
import { timeoutKey } from './timeout-key.ts';

export interface RequestsOptions<R> {
  readonly replica: ReplicaOptions<R>;
  readonly limits: ReplicaLimits;
  readonly raft: Raft;
  readonly loop: Loop;
  readonly electionTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** When this member last began to lead; -Infinity: never. */
  readonly ledSince: () => number;
  /** Nothing new is taken any more. */
  readonly isStopping: () => boolean;
}

/** What this member is asked to put through the log: refused at once, or queued to enter raft at the end of the turn. */
export class Requests<R> {
  readonly proposals: Proposals<R>;
  readonly #options: RequestsOptions<R>;

  constructor(options: RequestsOptions<R>) {
    const { replica, limits, requestTimeoutMs } = options;
    this.#options = options;
    this.proposals = new Proposals<R>({
      runtime: replica.runtime,
      member: replica.id,
      requestTimeoutMs,
      maxQueuedBytes: limits.maxUncommittedBytes,
      timeoutKey: (since) => this.#timeoutKey(since),
    });
  }

  propose(kind: RequestKind, body: Uint8Array, options: ProposeOptions): Promise<R> {
    const refused = this.#refuse(kind, body);
    if (refused) return Promise.reject(refused);
    this.#options.loop.queueTurn();
    return this.proposals.add(newProposal(kind, body, options));
  }

  proposeMembership(change: MembershipChange, kind: MembershipKind, body: Uint8Array, options: ProposeOptions): Promise<R> {
    const refused = this.#refuse(kind, body);
    if (refused) return Promise.reject(refused);
    this.#options.loop.queueTurn();
    return this.proposals.addChange(newProposal(kind, body, options), change);
  }

  /** Ahead of what clients ask, and in this term or not at all: who leads in the next counts the lease from anew. */
  revokeExpired(id: bigint, term: number): Promise<R> {
    this.#options.loop.queueTurn();
    return this.proposals.addUrgent(newProposal('leaseRevoke', LeaseRevokeRequest.encode({ id }), {}), term);
  }

  #refuse(kind: RequestKind, body: Uint8Array): Error | undefined {
    const { replica, limits, raft, isStopping } = this.#options;
    const { stateMachine } = replica;
    if (isStopping()) return refusalBeforeLog('server-stopped');
    if (body.length > limits.maxRequestBytes) return refusalBeforeLog('request-too-large');
    if (stateMachine.allows?.(kind) === false) return refusalBeforeLog('not-capable');
    if (raft.commitIndex - stateMachine.appliedIndex > limits.maxPendingGap) return refusalBeforeLog('too-many-requests');
    return undefined;
  }

  #timeoutKey(since: number): ReturnType<typeof timeoutKey> {
    const { replica, raft, electionTimeoutMs, ledSince } = this.#options;
    const { id: self, peers } = replica;
    const { leader, confState } = raft;
    const connectedSince = peers?.connectedSince && ((member: MemberId) => peers.connectedSince?.(member));
    return timeoutKey({ since, ledSince: ledSince(), electionTimeoutMs, self, leader, voters: confState.voters, connectedSince });
  }
}

function newProposal(kind: RequestKind, body: Uint8Array, options: ProposeOptions): NewProposal {
  const { user = '', authRevision = 0, deadline = Number.POSITIVE_INFINITY } = options;
  return { kind, body, user, authRevision, deadline };
}
