/**
 * The disk as the durable parts of a member see it. Nothing above this port opens a file by itself, so that the same code runs on a simulated
 * disk that loses, tears and scrambles whatever was not flushed.
 *
 * Rules of the port:
 * - Data is durable only after `flush` or `fillZero` completed; a name only after `syncDir` of its folder completed.
 * - A write or a flush that failed leaves the file in an unknown state, and trying again proves nothing: kernels mark the pages clean all the
 *   same. Whoever gets such an error stops, and never retries on the same file.
 * - Errors carry the system's `code` (ENOENT, EEXIST, EIO, ENOSPC, ...).
 * - The hot call (`flush`) is completion-based and may complete before it returns; everything else is off the hot way and gives promises.
 *
 * Paths are absolute, with the separator of the platform.
 */
export interface Disk {
  /** Makes one folder, readable by the owner alone. It is no error when it exists. */
  makeDir(path: string): Promise<void>;
  /** Names in a folder, in no particular order. ENOENT when it does not exist. */
  list(path: string): Promise<readonly string[]>;
  /** Makes an empty file, readable by the owner alone. EEXIST when the name is taken. */
  create(path: string): Promise<DiskFile>;
  /** Opens an existing file for reading and writing. ENOENT when it does not exist. Never follows a symbolic link. */
  open(path: string): Promise<DiskFile>;
  /** Renames within one folder, atomically; replaces a file of that name. */
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Makes the names in this folder durable: what was created, renamed or unlinked in it. */
  syncDir(path: string): Promise<void>;
}

/** `error` is undefined on success. */
export type DiskCallback = (error: Error | undefined) => void;

export interface DiskFile {
  size(): Promise<number>;
  /** Up to `length` bytes from `offset`; fewer only at the end of the file. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /**
   * Writes all of `bytes` at `offset`, growing the file where needed, then fdatasync. `done` runs once, when the bytes are durable or the
   * attempt failed; it may run before `flush` returns. `bytes` must not change until then. One flush of a file at a time.
   */
  flush(offset: number, bytes: Uint8Array, done: DiskCallback): void;
  /**
   * Writes zeroes over bytes 0 to `length` and makes them durable, in steps small enough to hold up neither the caller's thread nor
   * the flushes of other files. For files nobody waits for yet.
   */
  fillZero(length: number): Promise<void>;
  close(): Promise<void>;
}
