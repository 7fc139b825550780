import type { Row, ScanOptions, Table } from './backend.ts';

/**
 * The applied state as the layers above see it: what is applied but not yet committed, merged over the backend. Writes are visible to reads at
 * once; they reach the disk later, in the order they were made, each flush as one transaction.
 *
 * Two ordered in-memory generations lie over the backend: one is filled by apply, the other is being flushed. A read merges the three and the
 * newer wins. A generation is dropped only once its commit has resolved. Both are bounded in bytes: `isFull` tells apply to wait.
 */
export interface Store {
  get(table: Table, key: Uint8Array): Uint8Array | undefined;
  /**
   * As `Backend.scan`, over the merge; lazy. Consume without returning to the event loop and without writing meanwhile. The rows and what they
   * refer to stay as they are until the caller returns to the event loop, also when their keys are written after the scan.
   */
  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options?: ScanOptions): Iterable<Row>;
  /** Key and value are kept, not copied: nobody may write into the arrays afterwards. */
  put(table: Table, key: Uint8Array, value: Uint8Array): void;
  delete(table: Table, key: Uint8Array): void;
  /**
   * Marks the end of an entry's changes: everything written so far belongs to entries up to `index`. A flush takes whole entries only, so that the
   * applied index and the data it produced commit in the same transaction.
   */
  applied(index: number): void;
  /**
   * Highest index whose changes are durable in the backend: the log may be released up to here. Right after opening it is the index to continue
   * from, 0 for a new store.
   */
  readonly durableIndex: number;
  /** True while both generations are at their bound, and while the rows are replaced. Apply must wait for `onRoom`. */
  readonly isFull: boolean;
  /** Calls back once, when `isFull` next becomes false. */
  onRoom(listener: () => void): void;
  /**
   * After all rows were replaced by those of a snapshot: `reload` reads them anew, and they may be read and written again. From the beginning of the
   * replacement until then reads are refused (`request-timeout-applied-index`, etcd's word for a state that is not there yet), writes are an
   * error, and `isFull` is true. Without a replacement it does nothing.
   */
  reopen(reload: () => void): void;
  /** False from the beginning of a replacement until {@link reopen}. */
  readonly isReadable: boolean;
  /** Commits everything applied so far; resolves when it is durable, rejects when a commit failed. */
  flush(): Promise<void>;
  size(): { readonly total: number; readonly inUse: number };
  /** Flushes and closes. */
  close(): Promise<void>;
}
