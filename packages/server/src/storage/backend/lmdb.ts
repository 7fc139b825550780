import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Runtime } from '@conclave/wire';
import { open, type RootDatabase, type RootDatabaseOptions } from 'lmdb';
import { type Backend, type BackendView, type Changes, type Row, type ScanOptions, type Table, tables } from './backend.ts';
import { ChunkPacker } from './chunk-packer.ts';
import { checkLmdbHeader } from './lmdb-header.ts';
import { LmdbTable, readingLmdb } from './lmdb-table.ts';
import { type WriterData, type WriterReply, type WriterRequest, writerProgram } from './lmdb-writer.ts';
import { type Digest, filedKey, sha256 } from './long-keys.ts';

export interface LmdbBackendOptions {
  /** The folder of the database; made if absent. */
  readonly path: string;
  readonly runtime: Runtime;
  /** Address space for the file to begin with. It doubles when needed and limits nothing. Bytes, default 1 GiB. */
  readonly mapBytes?: number;
  /** How long keys are told apart on disk; must stay the same for the life of the database. Default: SHA-256. */
  readonly digest?: Digest;
}

/**
 * The applied state in LMDB: one environment, one named database per table, keys and values as bytes.
 *
 * This thread only reads. A commit is packed here, in slices, and written by a thread of its own in one durable transaction (`lmdb-writer.ts`).
 * Every stored value carries its CRC-32, checked at every read.
 */
export class LmdbBackend implements Backend {
  readonly #path: string;
  readonly #file: string;
  readonly #runtime: Runtime;
  readonly #digest: Digest;
  readonly #options: RootDatabaseOptions;
  readonly #root: RootDatabase<Buffer, Uint8Array>;
  readonly #tables = new Map<Table, LmdbTable>();
  readonly #views = new Set<BackendView>();
  #writer: Worker | undefined;
  #pending: PendingCommit | undefined;
  /** Resolves when no commit is under way. */
  #idle: Promise<void> = Promise.resolve();
  #failure: Error | undefined;
  #isClosed = false;
  #bytesInUse: number | undefined;

  /** @throws StateCorruptionError ('state-corrupt') when there is a file that cannot be such a database. */
  constructor(options: LmdbBackendOptions) {
    this.#path = options.path;
    this.#file = join(options.path, 'data.mdb');
    this.#runtime = options.runtime;
    this.#digest = options.digest ?? sha256;
    this.#options = { ...environment, mapSize: options.mapBytes ?? 1 << 30 };
    checkLmdbHeader(this.#file);
    const isNew = !existsSync(this.#file);
    mkdirSync(this.#path, { recursive: true, mode: 0o700 });
    this.#root = readingLmdb(() => open<Buffer, Uint8Array>(this.#path, this.#options));
    this.#openTables();
    // The engine syncs the file and not the folder that names it: without this a power cut could take the whole file away.
    if (isNew) for (const folder of [this.#path, dirname(this.#path)]) syncFolder(folder);
  }

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    return this.#table(table).get(key);
  }

  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options: ScanOptions = {}): Iterable<Row> {
    return this.#table(table).scan(start, end, options);
  }

  count(table: Table): number {
    return this.#table(table).stats().rows;
  }

  async commit(changes: Changes): Promise<void> {
    this.#checkIdle();
    const writer = this.#startedWriter();
    const done = new Promise<void>((resolve, reject) => {
      this.#pending = { resolve, reject };
    });
    this.#idle = done.catch(() => {
      // Told to whoever asked for the commit; here only its end matters.
    });
    // An idle writer does not keep the process alive, one that somebody waits for does.
    writer.ref();
    if (changes.isReplacement) writer.postMessage({ kind: 'clear' } satisfies WriterRequest);
    this.#sendChunks(writer, new ChunkPacker(changes.rows, (key) => filedKey(key, this.#digest)));
    await done;
  }

  view(): BackendView {
    const transaction = this.#root.useReadTransaction();
    const within = new Map(Array.from(this.#tables, ([name, table]) => [name, table.in(transaction)]));
    let isOpen = true;
    const table = (name: Table): LmdbTable => {
      if (!isOpen) throw new Error('the view is closed');
      return within.get(name)!;
    };
    const view: BackendView = {
      get: (name, key) => table(name).get(key),
      scan: (name, start, end, options = {}) => table(name).scan(start, end, options),
      close: () => {
        if (!isOpen) return;
        isOpen = false;
        this.#views.delete(view);
        transaction.done();
      },
    };
    this.#views.add(view);
    return view;
  }

  size(): { readonly total: number; readonly inUse: number } {
    this.#bytesInUse ??= this.#measureBytesInUse();
    const [file, inUse] = [this.#file, this.#bytesInUse];
    // Every put asks for what is in use; the file is asked only when its size is wanted.
    return {
      get total() {
        return statSync(file).size;
      },
      inUse,
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const view of this.#views) view.close();
    await this.#idle;
    await this.#stopWriter();
    await this.#root.close();
  }

  #openTables(): void {
    try {
      for (const name of tables) {
        const store = readingLmdb(() => this.#root.openDB<Buffer, Uint8Array>({ name, ...encodings }));
        this.#tables.set(name, new LmdbTable(`${this.#file}: table ${name}`, store, this.#digest));
      }
    } catch (error) {
      void this.#root.close();
      throw error;
    }
  }

  #table(table: Table): LmdbTable {
    return this.#tables.get(table)!;
  }

  #checkIdle(): void {
    if (this.#isClosed) throw new Error('the backend is closed');
    // What the file holds after a failed commit is not known: the kernel may have dropped pages it could not write.
    if (this.#failure !== undefined) throw new Error('an earlier commit has failed', { cause: this.#failure });
    if (this.#pending !== undefined) throw new Error('a commit is under way');
    for (const [name, table] of this.#tables) {
      if (table.openScans > 0)
        throw new Error(`a scan of ${name} was neither consumed nor returned: it would pin all pages freed from now on`);
    }
  }

  /** One slice a turn, all of them one transaction: the writer begins it when it has the last. */
  #sendChunks(writer: Worker, packer: ChunkPacker): void {
    if (this.#pending === undefined) return;
    try {
      const chunk = packer.next();
      const request: WriterRequest = { kind: 'chunk', chunk, isLast: packer.isDone };
      writer.postMessage(request, [chunk]);
      if (!packer.isDone) this.#runtime.endOfTurn(() => this.#sendChunks(writer, packer));
    } catch (cause) {
      this.#settle(new Error('the changes could not be handed to the writer', { cause }));
    }
  }

  #startedWriter(): Worker {
    if (this.#writer !== undefined) return this.#writer;
    const workerData: WriterData = { requireFrom: import.meta.url, path: this.#path, root: this.#options, table: encodings, tables };
    // Flags of this process (loaders, inspectors) are not the writer's.
    const writer = new Worker(`(${writerProgram.toString()})()`, { eval: true, workerData, execArgv: [], name: 'lmdb-writer' });
    writer.on('message', (reply: WriterReply) => this.#settle(reply.error === undefined ? undefined : this.#commitError(reply.error)));
    writer.on('error', (cause) => this.#settle(new Error('the LMDB writer failed', { cause })));
    writer.on('exit', () => this.#settle(new Error('the LMDB writer has exited')));
    this.#writer = writer;
    return writer;
  }

  /** The engine calls a full disk an error of the device: the file system is asked which of the two it was. */
  #commitError(message: string): Error {
    const { bavail, bsize } = statfsSync(this.#path);
    const isFull = bavail * bsize < fullBelowBytes;
    return isFull ? Object.assign(new Error(`${message} (the disk is full)`), { code: 'ENOSPC' }) : new Error(message);
  }

  #settle(error: Error | undefined): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    this.#failure = error;
    this.#writer?.unref();
    this.#bytesInUse = undefined;
    // This turn may have begun to read before the commit: what is read from now on must see it.
    this.#root.resetReadTxn();
    if (error === undefined) pending.resolve();
    else pending.reject(error);
  }

  async #stopWriter(): Promise<void> {
    const writer = this.#writer;
    if (writer === undefined) return;
    writer.ref();
    const exit = new Promise((resolve) => writer.once('exit', resolve));
    const request: WriterRequest = { kind: 'close' };
    writer.postMessage(request);
    await exit;
  }

  #measureBytesInUse(): number {
    const { pageSize, root, free } = this.#root.getStats() as EnvironmentStats;
    let bytes = headerPages * pageSize;
    for (const tree of [root, free]) bytes += (tree.treeBranchPageCount + tree.treeLeafPageCount + tree.overflowPages) * pageSize;
    for (const table of this.#tables.values()) bytes += table.stats().bytes;
    return bytes;
  }
}

const encodings = { keyEncoding: 'binary', encoding: 'binary' } as const;

/**
 * The only options the environment is ever opened with. `overlappingSync` would resolve commits before they are durable and trusts the page cache
 * after a crash; `noSync`, `noMetaSync` and `useWritemap` give up durability or protection from stray writes, and stay off.
 */
const environment = {
  ...encodings,
  // Without this a folder with a dot in its name would be taken for a file.
  noSubdir: false,
  maxDbs: tables.length,
  overlappingSync: false,
  noSync: false,
  noMetaSync: false,
  useWritemap: false,
  permissionsMode: 0o600,
  // How many free pages a transaction looks through. With the default of 50,000 a large and scattered free list costs every commit 0.2-0.4 s.
  maxFreeSpaceToLoad: 10_000,
};

const headerPages = 2;

/** As much may have become free between the failed write and the question: a segment of the log that found no room is taken back. */
const fullBelowBytes = 64 * 1024 * 1024;

interface PendingCommit {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface PageCounts {
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

interface EnvironmentStats {
  readonly pageSize: number;
  readonly root: PageCounts;
  readonly free: PageCounts;
}

function syncFolder(folder: string): void {
  // Windows does not open folders; there the file system journals names itself.
  if (process.platform === 'win32') return;
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
