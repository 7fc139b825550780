import type { RevisionEvents } from '../event.ts';

/** What watching needs of the store; `Mvcc` has it. */
export interface WatchSource {
  /** Revision of the last write. */
  readonly revision: number;
  /** History below this revision is gone; -1 before the first compaction. */
  readonly compactRevision: number;
  /**
   * What happened from `revision` on, oldest first, whole revisions only, until a bound is reached; at least one revision unless there is none.
   * The bytes are valid until the caller returns to the event loop. Not to be asked for what lies below `compactRevision`.
   */
  eventsFrom(revision: number, bounds: { readonly maxRevisions: number; readonly maxBytes: number }): readonly RevisionEvents[];
  /** The stored KeyValue of `key` as of `revision`; undefined when there was none or that revision was compacted. Bytes as above. */
  kvAt(key: Uint8Array, revision: number): Uint8Array | undefined;
  /** False while history is being replaced by that of a snapshot: nothing of it can be read until {@link onReplaced} calls. */
  readonly isReadable: boolean;
  /** Calls back when history was replaced by a longer one, with the revision that stood before. Returns the unsubscribe function. */
  onReplaced(listener: (before: number) => void): () => void;
  /** Calls back with every revision that is written, when it is the present one. Returns the unsubscribe function. */
  onApplied(listener: (changes: RevisionEvents) => void): () => void;
}
