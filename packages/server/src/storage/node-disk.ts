import * as fs from 'node:fs';
import type { Disk, DiskCallback, DiskFile } from './disk.ts';
import { FlushWorker } from './flush-worker.ts';

/**
 * Where a flush runs. `inline`: on the calling thread, which waits for the disk; a cluster of one member has nothing else to do meanwhile,
 * and saves two thread hops. `worker`: on a thread of its own, for members whose peers must be heard during a slow flush. Never on libuv's
 * pool, where a few password hashes in front of it would delay it by a second.
 */
export type FlushMode = 'inline' | 'worker';

export interface NodeDiskOptions {
  readonly flush: FlushMode;
}

/** The file system of this machine. */
export class NodeDisk implements Disk {
  #mode: FlushMode;
  #worker: FlushWorker | undefined;

  constructor(options: NodeDiskOptions) {
    this.#mode = options.flush;
    if (options.flush === 'worker') this.#worker = new FlushWorker();
  }

  /** For flushes from now on. */
  setFlush(mode: FlushMode): void {
    this.#mode = mode;
    if (mode === 'worker') this.#worker ??= new FlushWorker();
  }

  async makeDir(path: string): Promise<void> {
    await fs.promises.mkdir(path, { mode: 0o700 }).catch(unlessCode('EEXIST'));
  }

  async list(path: string): Promise<readonly string[]> {
    return await fs.promises.readdir(path);
  }

  async create(path: string): Promise<DiskFile> {
    return this.#openFile(path, fs.constants.O_CREAT | fs.constants.O_EXCL);
  }

  async open(path: string): Promise<DiskFile> {
    return this.#openFile(path, 0);
  }

  async rename(from: string, to: string): Promise<void> {
    await fs.promises.rename(from, to);
  }

  async unlink(path: string): Promise<void> {
    await fs.promises.unlink(path);
  }

  async syncDir(path: string): Promise<void> {
    await syncDirectory(path);
  }

  /** Ends the worker, if there is one. Every file must be closed before. */
  async close(): Promise<void> {
    await this.#worker?.close();
  }

  async #openFile(path: string, flags: number): Promise<DiskFile> {
    const noFollow = fs.constants.O_NOFOLLOW ?? 0;
    const handle = await fs.promises.open(path, fs.constants.O_RDWR | noFollow | flags, 0o600);
    return new NodeFile(handle, (offset, bytes, done) => this.#flush(handle.fd, offset, bytes, done));
  }

  #flush(fd: number, offset: number, bytes: Uint8Array, done: DiskCallback): void {
    if (this.#mode === 'worker' && this.#worker !== undefined) this.#worker.flush(fd, offset, bytes, done);
    else done(flushInline(fd, offset, bytes));
  }
}

class NodeFile implements DiskFile {
  readonly #handle: fs.promises.FileHandle;
  readonly flush: DiskFile['flush'];

  constructor(handle: fs.promises.FileHandle, flush: DiskFile['flush']) {
    this.#handle = handle;
    this.flush = flush;
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await this.#handle.read(bytes, filled, length - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  }

  async fillZero(length: number): Promise<void> {
    const zeroes = Buffer.alloc(Math.min(length, fillStepBytes));
    for (let at = 0; at < length; at += zeroes.length) {
      const step = Math.min(zeroes.length, length - at);
      let written = 0;
      while (written < step) written += (await this.#handle.write(zeroes, written, step - written, at + written)).bytesWritten;
      // Each step is flushed by itself: 64 MiB of dirty pages flushed at once would stand in the way of every other flush of this disk.
      await this.#handle.datasync();
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

const fillStepBytes = 1024 * 1024;

function flushInline(fd: number, offset: number, bytes: Uint8Array): Error | undefined {
  try {
    let written = 0;
    while (written < bytes.length) written += fs.writeSync(fd, bytes, written, bytes.length - written, offset + written);
    fs.fdatasyncSync(fd);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Makes the names in a folder durable. Windows cannot open a folder for this; there a rename is durable by itself (the journal of NTFS). */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await fs.promises.open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function unlessCode(code: string): (error: NodeJS.ErrnoException) => void {
  return (error) => {
    if (error.code !== code) throw error;
  };
}
