import { type ConfState, decodeConfChange, type Entry, InvariantError, type MemberId, type Raft, type SnapshotMeta } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import { decodeEntry } from '../apply/entry.ts';
import { ApplyQueue } from './apply-queue.ts';
import type { StateMachine } from './ports.ts';
import type { Proposals } from './proposals.ts';

export interface ApplyingOptions<R> {
  readonly runtime: Runtime;
  readonly self: MemberId;
  readonly raft: Pick<Raft, 'step' | 'applyConfChange'>;
  readonly stateMachine: StateMachine<R>;
  readonly proposals: Proposals<R>;
  /** An entry was applied, of this many bytes. */
  readonly onEntry: (bytes: number) => void;
  /** The first entry of a leader was applied: all that earlier ones committed is. */
  readonly onTerm: (term: number) => void;
  readonly onMembership: () => void;
  readonly onSelfRemoved: () => void;
  /** Told once for each slice of work. */
  readonly onApplied: () => void;
  /** Runs `work` in the replica's loop. */
  readonly later: (work: () => void) => void;
}

/** Committed entries on their way into the state machine, and the answers to those who wait for them. */
export class Applying<R> {
  readonly #options: ApplyingOptions<R>;
  readonly #queue: ApplyQueue;

  constructor(options: ApplyingOptions<R>) {
    this.#options = options;
    const { runtime, raft, stateMachine, onApplied, later } = options;
    this.#queue = new ApplyQueue({
      runtime,
      apply: (entry) => this.#apply(entry),
      onApplied: (index) => {
        raft.step({ type: 'storageApplyResponse', index });
        onApplied();
      },
      room: stateMachine,
      later,
    });
  }

  push(entries: readonly Entry[]): void {
    this.#queue.push(entries);
  }

  /** A snapshot takes the place of what waits. */
  clear(): void {
    this.#queue.clear();
  }

  /** It has done so. */
  restored({ index, confState }: SnapshotMeta): void {
    const { stateMachine, proposals } = this.#options;
    stateMachine.reload();
    if (stateMachine.appliedIndex !== index) {
      throw new InvariantError(`the state machine is at ${stateMachine.appliedIndex} after a snapshot of ${index}`);
    }
    this.#checkConfState(confState);
    proposals.covered();
  }

  #apply(entry: Entry): void {
    const { stateMachine, proposals, onEntry, onTerm } = this.#options;
    const { index, term, data, type } = entry;
    proposals.begins(term);
    onEntry(data.length);
    if (type === 'confChange') {
      this.#applyMembership(entry);
    } else if (data.length > 0) {
      const request = decodeEntry(data);
      proposals.applied(request, stateMachine.apply(index, term, request, proposals.isAwaited(request)));
    } else {
      stateMachine.applyEmpty(index, term);
      onTerm(term);
    }
  }

  #applyMembership({ index, term, data }: Entry): void {
    const { self, raft, stateMachine, proposals, onMembership, onSelfRemoved } = this.#options;
    const change = decodeConfChange(data);
    const request = decodeEntry(change.context);
    const { result, isAccepted } = stateMachine.applyMembership(index, term, change, request, proposals.isAwaited(request));
    if (isAccepted) {
      this.#checkConfState(raft.applyConfChange(change));
      onMembership();
      if (change.type === 'remove' && change.member === self) onSelfRemoved();
    }
    proposals.applied(request, result);
  }

  /** Quorums are counted by raft's configuration, and it restarts with the state machine's: they must never differ (etcd issue 20967). */
  #checkConfState(confState: ConfState): void {
    const { stateMachine } = this.#options;
    if (isSameConfState(stateMachine.confState, confState)) return;
    throw new InvariantError(`raft and the state machine disagree about the members at ${stateMachine.appliedIndex}`);
  }
}

function isSameConfState(a: ConfState, b: ConfState): boolean {
  const isSame = (ours: readonly MemberId[], theirs: readonly MemberId[]): boolean =>
    ours.length === theirs.length && ours.every((member) => theirs.includes(member));
  return isSame(a.voters, b.voters) && isSame(a.learners, b.learners);
}
