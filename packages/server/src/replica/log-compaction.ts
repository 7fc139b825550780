import type { Raft } from '@conclave/raft';
import type { Log, StateMachine } from './ports.ts';
import type { SnapshotTransfers } from './snapshot-transfers.ts';

export interface LogCompactionOptions {
  readonly log: Pick<Log, 'release'>;
  readonly raft: Pick<Raft, 'compact' | 'catchUpIndex' | 'appliedIndex'>;
  readonly stateMachine: Pick<StateMachine<never>, 'durableIndex'>;
  /** Absent where nobody is brought any. */
  readonly transfers: Pick<SnapshotTransfers, 'neededIndex' | 'giveUpBelow'> | undefined;
  /** Whether there is anybody who may lag behind. */
  readonly hasPeers: boolean;
  readonly catchUpEntries: number;
  readonly catchUpBytes: number;
}

/** What is kept behind a snapshot that is on its way, in times of what is kept for members that lag a little. */
const transferFactor = 4;

/**
 * Forgets entries. On disk, those that the state machine has on its own. In memory, those before: but not what a member that lags a little may need,
 * nor what follows a snapshot that is on its way, as long as that is not too much.
 */
export class LogCompaction {
  readonly #options: LogCompactionOptions;
  #releasedIndex = 0;
  /** Applied since entries were last forgotten. */
  #entries = 0;
  #bytes = 0;

  constructor(options: LogCompactionOptions) {
    this.#options = options;
  }

  applied(bytes: number): void {
    this.#entries += 1;
    this.#bytes += bytes;
  }

  /** In memory. Now and then, as forgetting costs the same for one entry as for many. */
  compact(): void {
    const { raft, stateMachine, transfers, hasPeers, catchUpEntries, catchUpBytes } = this.#options;
    if (!hasPeers) {
      raft.compact(raft.appliedIndex);
      return;
    }
    if (this.#entries < catchUpEntries / 8 && this.#bytes < catchUpBytes / 8) return;
    this.#entries = 0;
    this.#bytes = 0;
    transfers?.giveUpBelow(raft.catchUpIndex(Number.MAX_SAFE_INTEGER, transferFactor * catchUpBytes));
    const index = raft.catchUpIndex(catchUpEntries, catchUpBytes);
    // Never beyond what a state that is read now would hold.
    raft.compact(Math.min(index, stateMachine.durableIndex, transfers?.neededIndex ?? index));
  }

  /** On disk. */
  release(): void {
    const { log, stateMachine } = this.#options;
    const { durableIndex } = stateMachine;
    if (durableIndex <= this.#releasedIndex) return;
    this.#releasedIndex = durableIndex;
    log.release(durableIndex);
  }
}
