import type { Entry, HardState } from '@conclave/raft';

/**
 * What the replica needs of the write-ahead log. Implemented by `storage/wal`.
 *
 * Batches become durable in the order they are appended, and `durable` callbacks run in that order. What arrives while a flush is under way
 * goes into the next: one write and one fdatasync for all of it.
 */
export interface Log {
  append(batch: LogBatch, durable: () => void): void;
  /** Entries up to and including `index` are durable elsewhere (the backend) and may be dropped. Never moves backwards. */
  release(index: number): void;
  /** Flushes what was appended, then closes. */
  close(): Promise<void>;
}

export interface LogBatch {
  readonly entries: readonly Entry[];
  readonly hardState: HardState | undefined;
}

/**
 * What to do when the member cannot keep its promises any more (a write or fsync failed, an invariant is broken). The executable exits; an
 * embedded server closes its doors and rejects `failed`. After the call nothing may be acknowledged. Never returns control to the failing path.
 */
export interface Fatal {
  (cause: Error): never;
}
