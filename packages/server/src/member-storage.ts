import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Runtime } from '@conclave/wire';
import type { Fatal, LocalMemory, Log, RecoveredLog, Snapshots } from './replica/ports.ts';
import type { Backend } from './storage/backend/backend.ts';
import { BufferedStore, type StoreBounds } from './storage/backend/buffered-store.ts';
import { LmdbBackend } from './storage/backend/lmdb.ts';
import { MemoryBackend } from './storage/backend/memory.ts';
import { openDataDir } from './storage/data-dir.ts';
import type { Disk } from './storage/disk.ts';
import { countStart, StoredLocalMemory } from './storage/local-memory.ts';
import { NodeDisk } from './storage/node-disk.ts';
import { StateSnapshots } from './storage/snapshot/state-snapshots.ts';
import { StorageError } from './storage/storage-error.ts';
import { MemoryLog } from './storage/wal/memory-log.ts';
import { type OpenedWal, openWal } from './storage/wal/open.ts';
import type { Identity } from './storage/wal/segment.ts';

export interface MemberStorageOptions {
  readonly runtime: Runtime;
  readonly fatal: Fatal;
  /** Absent: everything in memory. */
  readonly dataDir: string | undefined;
  /** Asked who this member is when it has never been before. */
  readonly founder: () => Promise<Identity>;
  /** Whether the member has peers, who must be heard while the disk is slow. Default: false. */
  readonly hasPeers?: boolean;
  readonly ports: StoragePorts;
}

/** Where tests put something between the member and its storage. */
export interface StoragePorts {
  /** The log's disk. With it the data dir is a path on that disk and nothing is locked. */
  readonly disk?: Disk;
  /** Gives the backend to use, given how to make the usual one. */
  readonly backend?: (usual: () => Backend) => Backend;
  /** How much applied state may wait for the backend, and how long. */
  readonly bounds?: Partial<StoreBounds>;
}

/** All that a member keeps, opened: the log and the applied state, which belong together. */
export interface MemberStorage {
  readonly identity: Identity;
  readonly log: Log;
  readonly recovered: RecoveredLog;
  readonly store: BufferedStore;
  readonly snapshots: Snapshots;
  readonly memory: LocalMemory;
  /** Flushes what is applied and closes everything but the log, which its user has closed before. */
  close(): Promise<void>;
}

export function openMemberStorage(options: MemberStorageOptions): Promise<MemberStorage> {
  return options.dataDir === undefined ? inMemory(options) : onDisk(options, options.dataDir);
}

async function inMemory(options: MemberStorageOptions): Promise<MemberStorage> {
  const backend = openBackend(options, () => new MemoryBackend());
  const incarnation = await countStart(backend);
  const store = openStore(options, backend);
  return {
    identity: await options.founder(),
    log: new MemoryLog(),
    recovered: { hardState: undefined, entries: [] },
    store,
    snapshots: new StateSnapshots(),
    memory: new StoredLocalMemory(store, incarnation),
    close: () => store.close(),
  };
}

async function onDisk(options: MemberStorageOptions, path: string): Promise<MemberStorage> {
  const place =
    options.ports.disk === undefined ? await ownedPlace(path, options.hasPeers ?? false) : await portPlace(path, options.ports.disk);
  const fatal: Fatal = (cause) => {
    place.poison();
    return options.fatal(cause);
  };
  const owned = { ...options, fatal };
  let store: BufferedStore | undefined;
  const close = async (): Promise<void> => {
    await store?.close();
    await place.close();
  };
  try {
    const backend = openBackend(owned, () => new LmdbBackend({ path: place.statePath, runtime: options.runtime }));
    const opened = openStore(owned, backend);
    store = opened;
    const incarnation = await countStart(backend);
    const { wal, recovered } = await openLog(owned, place.disk, place.walPath, opened.durableIndex);
    return {
      identity: recovered.identity,
      log: wal,
      recovered,
      store: opened,
      snapshots: new StateSnapshots(),
      memory: new StoredLocalMemory(opened, incarnation),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Where on which disk. */
interface Place {
  readonly disk: Disk;
  readonly walPath: string;
  readonly statePath: string;
  poison(): void;
  close(): Promise<void>;
}

async function ownedPlace(path: string, hasPeers: boolean): Promise<Place> {
  await mkdir(dirname(resolve(path)), { recursive: true, mode: 0o700 });
  const dataDir = await openDataDir(path);
  const disk = new NodeDisk({ flush: hasPeers ? 'worker' : 'inline' });
  return {
    disk,
    walPath: dataDir.walPath,
    statePath: dataDir.statePath,
    poison: () => dataDir.poison(),
    async close() {
      await disk.close();
      await dataDir.close();
    },
  };
}

/** The disk is the test's, and so are its folders. */
async function portPlace(path: string, disk: Disk): Promise<Place> {
  await disk.makeDir(path);
  // Else a power cut could take the folder away, with all that is durable in it.
  await disk.syncDir(dirname(path));
  return {
    disk,
    walPath: join(path, 'wal'),
    statePath: join(path, 'state'),
    poison: () => undefined,
    close: () => Promise.resolve(),
  };
}

function openBackend({ ports }: MemberStorageOptions, usual: () => Backend): Backend {
  return ports.backend?.(usual) ?? usual();
}

function openStore({ runtime, fatal, ports }: MemberStorageOptions, backend: Backend): BufferedStore {
  return new BufferedStore({ backend, runtime, fatal, bounds: ports.bounds ?? {} });
}

/** The log knows whose it is. Only where there is none may this member be what it was told to be. */
async function openLog(
  { runtime, fatal, founder }: MemberStorageOptions,
  disk: Disk,
  dir: string,
  appliedIndex: number,
): Promise<OpenedWal> {
  const open = (identity: Identity | undefined): Promise<OpenedWal> => openWal({ disk, dir, runtime, fatal, identity, appliedIndex });
  try {
    return await open(undefined);
  } catch (error) {
    if (!(error instanceof StorageError) || error.code !== 'wal-missing') throw error;
    return await open(await founder());
  }
}
