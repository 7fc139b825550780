import type { SnapshotMeta } from '@conclave/raft';
import type { SnapshotWriter } from '../../replica/ports.ts';

/** The last entry that a snapshot covers. */
export type SnapshotPoint = Pick<SnapshotMeta, 'index' | 'term'>;

export interface StoredSnapshotWriter extends SnapshotWriter {
  /** Lets go of it as it is. Idempotent, and without effect after `finish` and `abandon`. */
  close(): Promise<void>;
}

export interface StoredChunk {
  readonly bytes: Uint8Array;
  /** Where it stands. */
  readonly offset: number;
}

/** Where received snapshots are until the applied state holds them. */
export interface SnapshotPlace {
  receive(snapshot: SnapshotMeta, id: number): Promise<StoredSnapshotWriter>;
  /** The chunks of a finished one, in their order; it may go on behind the trailer. */
  chunks(point: SnapshotPoint): AsyncIterable<StoredChunk>;
  /** For messages. */
  describe(point: SnapshotPoint): string;
  /** Removes what the applied state has by now, finished or not. */
  removeUpTo(index: number): Promise<void>;
}
