import type { SnapshotMeta } from '@conclave/raft';
import type { SnapshotWriter } from '../../replica/ports.ts';

/** The last entry that a snapshot covers. */
export type SnapshotPoint = Pick<SnapshotMeta, 'index' | 'term'>;

export interface StoredSnapshotWriter extends SnapshotWriter {
  /** Lets go of it as it is. Idempotent, and without effect after `finish` and `abandon`. */
  close(): Promise<void>;
}

/** Where received snapshots are until the applied state holds them. */
export interface SnapshotPlace {
  receive(snapshot: SnapshotMeta, id: number): Promise<StoredSnapshotWriter>;
  /** The chunks of a finished one, in their order; it may go on behind the trailer. */
  chunks(point: SnapshotPoint): AsyncIterable<Uint8Array>;
  /** For messages. */
  describe(point: SnapshotPoint): string;
  /** Removes what the applied state has by now, finished or not. */
  removeUpTo(index: number): Promise<void>;
}
