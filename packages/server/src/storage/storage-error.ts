/**
 * - `data-dir-locked`: another process, or another server of this process, uses the data dir.
 * - `data-dir-unusable`: not a folder, a symbolic link, of another owner, open to others, or poisoned by a fatal error of this process.
 * - `format-newer`: written by a newer version of this software.
 * - `format-unknown`: a file says it is ours but cannot be understood.
 * - `wal-missing`: there is no log here, and none may be made.
 * - `wal-identity-mismatch`: the log belongs to another member or another cluster.
 */
export type StorageErrorCode =
  | 'data-dir-locked'
  | 'data-dir-unusable'
  | 'format-newer'
  | 'format-unknown'
  | 'wal-missing'
  | 'wal-identity-mismatch';

/** Why a member cannot start on this data. Nothing was changed on disk. */
export class StorageError extends Error {
  readonly code: StorageErrorCode;

  constructor(code: StorageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'StorageError';
    this.code = code;
  }
}

/**
 * What the member stored is damaged in a place that was durable once: acknowledged entries or a vote may be gone. The member must not start, as going
 * on without what is missing would lose committed data silently; it is restored from a backup, or re-joins the cluster empty.
 *
 * - `wal-corrupt`: the write-ahead log.
 * - `snapshot-corrupt`: a snapshot from the leader. One that is just coming in is refused, and sent again; one that the log already counts on is lost.
 */
export class CorruptionError extends Error {
  readonly code: 'wal-corrupt' | 'snapshot-corrupt' = 'wal-corrupt';
  readonly file: string;
  readonly offset: number;
  /** The log index that was expected at the damaged place. */
  readonly index: number;

  constructor(file: string, offset: number, index: number, reason: string, what = 'the write-ahead log') {
    super(`${what} is corrupt: ${reason} (file ${file}, offset ${offset}, log index ${index})`);
    this.name = 'CorruptionError';
    this.file = file;
    this.offset = offset;
    this.index = index;
  }
}

export class SnapshotCorruptionError extends CorruptionError {
  override readonly code = 'snapshot-corrupt';

  /** @param index - the last log index that the snapshot covers */
  constructor(file: string, offset: number, index: number, reason: string) {
    super(file, offset, index, reason, 'the snapshot');
  }
}
