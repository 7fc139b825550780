import type { Entry, PeerMessage, Raft, StorageAppend } from '@conclave/raft';
import { AppendQueue } from './append-queue.ts';
import { Applying } from './applying.ts';
import { LogCompaction } from './log-compaction.ts';
import type { Loop } from './loop.ts';
import type { ReplicaLimits, ReplicaOptions } from './options.ts';
import type { Proposals } from './proposals.ts';
import type { SnapshotTransfers } from './snapshot-transfers.ts';

export interface EntryPathOptions<R> {
  readonly replica: ReplicaOptions<R>;
  readonly limits: ReplicaLimits;
  readonly raft: Raft;
  readonly loop: Loop;
  readonly proposals: Proposals<R>;
  readonly transfers: SnapshotTransfers | undefined;
  readonly send: (message: PeerMessage) => void;
  /** The first entry of a leader was applied: all that earlier ones committed is. */
  readonly onTerm: (term: number) => void;
  readonly onSelfRemoved: () => void;
  /** Applied further, one by one or by a snapshot: told once for each slice of work. */
  readonly onApplied: () => void;
}

/** The way of entries at this member: written to the log, applied, forgotten; and of the snapshots that take their place. */
export class EntryPath<R> {
  readonly #appends: AppendQueue;
  readonly #applying: Applying<R>;
  readonly #compaction: LogCompaction;

  constructor(options: EntryPathOptions<R>) {
    const { replica, limits, raft, loop, proposals, transfers, send, onTerm, onSelfRemoved, onApplied } = options;
    const { runtime, id: self, log, stateMachine, peers, snapshots, onRestored, onMembership = () => undefined } = replica;
    const { drive: later } = loop;
    const compaction = new LogCompaction({ ...limits, log, raft, stateMachine, transfers, hasPeers: peers !== undefined });
    this.#compaction = compaction;
    const applying = new Applying<R>({
      runtime,
      self,
      raft,
      stateMachine,
      proposals,
      onEntry: (bytes) => compaction.applied(bytes),
      onTerm,
      onMembership,
      onSelfRemoved,
      onApplied: () => {
        compaction.compact();
        onApplied();
      },
      later,
    });
    this.#applying = applying;
    this.#appends = new AppendQueue({
      self,
      log,
      raft,
      snapshots,
      send,
      onSnapshot: () => applying.clear(),
      onRestored: (snapshot) => {
        applying.restored(snapshot);
        onRestored?.();
        onMembership();
        onApplied();
      },
      later,
      fail: (cause) => loop.fail(cause),
    });
  }

  /** Whether a snapshot is being put in the place of the applied state: nothing may be read. */
  get isRestoring(): boolean {
    return this.#appends.isRestoring;
  }

  /** Resolves when nothing is being put in place any more. */
  get restored(): Promise<void> {
    return this.#appends.restored;
  }

  append(append: StorageAppend): void {
    this.#appends.append(append);
  }

  apply(entries: readonly Entry[]): void {
    this.#applying.push(entries);
  }

  tick(): void {
    if (!this.isRestoring) this.#compaction.release();
  }
}
