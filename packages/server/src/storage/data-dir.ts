import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { syncDirectory } from './node-disk.ts';
import { StorageError } from './storage-error.ts';

/**
 * A member's folder on disk, owned by this process until it is closed.
 *
 * ```
 * FORMAT         which layout this is
 * LOCK           empty; locked while a process uses the folder, and so is FORMAT
 * member/wal/    the log
 * member/state/  the backend
 * member/snap/   snapshots that came in and are not in place yet
 * ```
 */
export interface DataDir {
  readonly path: string;
  /** Where the log belongs. `openWal` makes it. */
  readonly walPath: string;
  /** Where received snapshots belong. Whoever receives the first makes it. */
  readonly snapshotPath: string;
  /** Where the backend belongs. Exists, readable by the owner alone. */
  readonly statePath: string;
  /**
   * After a fatal error: this process may never open the folder again, as what it would read may be in the page cache only. Another process
   * may, once this one has closed it or ended.
   */
  poison(): void;
  /** Gives the folder up. Idempotent. Everything in it must be closed before. */
  close(): Promise<void>;
}

const format = 1;
const formatPattern = /^conclave data format (\d+)\n$/;

/** Folders in use or poisoned here, by real path: not every platform's lock keeps a process from itself. */
const ownedHere = new Map<string, 'open' | 'poisoned'>();

/**
 * Takes possession of a data dir, making it when it does not exist (the folder around it must).
 *
 * The lock is the operating system's: it ends with the process, however that ends, and no file is left behind that a later start would have
 * to guess about. FORMAT is locked too, as somebody may take LOCK for a leftover and remove it; without FORMAT the folder is no data dir.
 *
 * @throws StorageError `data-dir-locked`, `data-dir-unusable`, `format-newer`, `format-unknown`
 *
 * @example
 * const dataDir = await openDataDir('/var/lib/conclave');
 * const { wal, recovered } = await openWal({ disk, dir: dataDir.walPath, ... });
 */
export async function openDataDir(path: string): Promise<DataDir> {
  await makeFolder(path);
  const realPath = await fs.promises.realpath(path);
  refuseSecondUse(path, realPath);
  ownedHere.set(realPath, 'open');
  try {
    const locks = [await lockFile(path, join(realPath, 'LOCK'))];
    try {
      await checkFormat(realPath);
      locks.push(await lockFile(path, join(realPath, 'FORMAT')));
      await makeFolder(join(realPath, 'member'));
      await makeFolder(join(realPath, 'member', 'state'));
      await syncDirectory(join(realPath, 'member'));
      await syncDirectory(realPath);
      await syncDirectory(dirname(realPath));
    } catch (error) {
      for (const lock of locks) await lock.close();
      throw error;
    }
    return new OwnedDataDir(realPath, locks);
  } catch (error) {
    ownedHere.delete(realPath);
    throw error;
  }
}

class OwnedDataDir implements DataDir {
  readonly path: string;
  readonly #locks: readonly fs.promises.FileHandle[];
  #isClosed = false;

  constructor(path: string, locks: readonly fs.promises.FileHandle[]) {
    this.path = path;
    this.#locks = locks;
  }

  get walPath(): string {
    return join(this.path, 'member', 'wal');
  }

  get snapshotPath(): string {
    return join(this.path, 'member', 'snap');
  }

  get statePath(): string {
    return join(this.path, 'member', 'state');
  }

  poison(): void {
    ownedHere.set(this.path, 'poisoned');
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // Closing the files gives the locks up.
    for (const lock of this.#locks) await lock.close();
    if (ownedHere.get(this.path) === 'open') ownedHere.delete(this.path);
  }
}

function refuseSecondUse(path: string, realPath: string): void {
  const use = ownedHere.get(realPath);
  if (use === 'open') throw new StorageError('data-dir-locked', `data dir ${path} is in use by another server of this process`);
  if (use === 'poisoned') {
    throw new StorageError(
      'data-dir-unusable',
      `data dir ${path} saw a fatal error in this process, only another process may open it again`,
    );
  }
}

/** Locks a file of the data dir at `path`, making it when it does not exist. */
async function lockFile(path: string, file: string): Promise<fs.promises.FileHandle> {
  const noFollow = fs.constants.O_NOFOLLOW ?? 0;
  const lock = await fs.promises.open(file, fs.constants.O_RDWR | fs.constants.O_CREAT | noFollow, 0o600).catch((error: unknown) => {
    throw new StorageError('data-dir-unusable', `data dir ${path} cannot be locked: ${messageOf(error)}`, { cause: error });
  });
  try {
    if (tryLock(lock.fd)) return lock;
  } catch (error) {
    await lock.close();
    throw new StorageError('data-dir-unusable', `data dir ${path} cannot be locked: ${messageOf(error)}`, { cause: error });
  }
  await lock.close();
  throw new StorageError('data-dir-locked', `data dir ${path} is in use by another process`);
}

/** Makes a folder for the owner alone, or checks that one that exists is such. */
async function makeFolder(path: string): Promise<void> {
  try {
    await fs.promises.mkdir(path, { mode: 0o700 });
    return;
  } catch (error) {
    if (!isExisting(error)) throw new StorageError('data-dir-unusable', `cannot make ${path}: ${messageOf(error)}`, { cause: error });
  }
  const found = await fs.promises.lstat(path);
  if (found.isSymbolicLink()) throw new StorageError('data-dir-unusable', `${path} is a symbolic link`);
  if (!found.isDirectory()) throw new StorageError('data-dir-unusable', `${path} is not a folder`);
  // Windows has neither owners nor modes of this kind.
  const user = process.geteuid?.();
  if (user === undefined) return;
  if (found.uid !== user) throw new StorageError('data-dir-unusable', `${path} belongs to another user (${found.uid})`);
  const mode = found.mode & 0o777;
  if ((mode & 0o077) !== 0) {
    throw new StorageError(
      'data-dir-unusable',
      `${path} is open to other users (mode ${mode.toString(8)}), expected 700: chmod 700 it first`,
    );
  }
}

/** An empty folder becomes one of this format. A folder with anything else in it and no FORMAT is not ours. */
async function checkFormat(path: string): Promise<void> {
  const file = join(path, 'FORMAT');
  const text = await fs.promises.readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return undefined;
  });
  if (text === undefined) {
    await writeFormat(path, file);
    return;
  }
  const found = Number(formatPattern.exec(text)?.[1]);
  if (Number.isNaN(found)) throw new StorageError('format-unknown', `${file} cannot be understood`);
  if (found > format) {
    throw new StorageError(
      'format-newer',
      `data dir ${path} has format ${found}, and this version knows up to ${format}: use a newer version`,
    );
  }
}

async function writeFormat(path: string, file: string): Promise<void> {
  const unfinished = `${file}.tmp`;
  const others = (await fs.promises.readdir(path)).filter((name) => name !== 'LOCK' && join(path, name) !== unfinished);
  if (others.length > 0) throw new StorageError('format-unknown', `${path} holds other files (${others[0]}) and is no data dir`);
  const handle = await fs.promises.open(unfinished, 'w', 0o600);
  try {
    await handle.writeFile(`conclave data format ${format}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await fs.promises.rename(unfinished, file);
}

function isExisting(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EEXIST';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
