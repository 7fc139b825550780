import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Runtime } from '@conclave/wire';
import { storedTerm } from './apply/apply.ts';
import { confStateFrom, lowestId } from './membership/member-table.ts';
import { Compaction } from './mvcc/compaction.ts';
import { currentRevision } from './mvcc/mvcc.ts';
import type { Fatal, LocalMemory, Log, RecoveredLog, Snapshots } from './replica/ports.ts';
import type { Backend, Changes } from './storage/backend/backend.ts';
import { BufferedStore, defaultBounds, durableIndexOf, type StoreBounds } from './storage/backend/buffered-store.ts';
import { LmdbBackend } from './storage/backend/lmdb.ts';
import { MemoryBackend } from './storage/backend/memory.ts';
import { openDataDir } from './storage/data-dir.ts';
import type { Disk } from './storage/disk.ts';
import { countStart, StoredLocalMemory } from './storage/local-memory.ts';
import { NodeDisk } from './storage/node-disk.ts';
import { type Restoration, restorationUnderWay, restoreState, type Summarize } from './storage/snapshot/restore.ts';
import { SnapshotFiles } from './storage/snapshot/snapshot-files.ts';
import { SnapshotMemory } from './storage/snapshot/snapshot-memory.ts';
import { StateSnapshots } from './storage/snapshot/state-snapshots.ts';
import { SnapshotCorruptionError, StorageError } from './storage/storage-error.ts';
import { MemoryLog } from './storage/wal/memory-log.ts';
import { type OpenedWal, openWal, type RecoveredWal } from './storage/wal/open.ts';
import type { Identity } from './storage/wal/segment.ts';
import type { SegmentBytes } from './storage/wal/wal.ts';

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
  /** How large the files of the log are. */
  readonly segmentBytes?: SegmentBytes;
}

/** All that a member keeps, opened: the log and the applied state, which belong together. */
export interface MemberStorage {
  readonly identity: Identity;
  readonly log: Log;
  readonly recovered: RecoveredLog;
  readonly store: BufferedStore;
  readonly snapshots: Snapshots;
  readonly memory: LocalMemory;
  /** To be told when the member gets its first peer or loses its last. */
  setHasPeers(hasPeers: boolean): void;
  /** Flushes what is applied and closes everything but the log, which its user has closed before. */
  close(): Promise<void>;
}

export function openMemberStorage(options: MemberStorageOptions): Promise<MemberStorage> {
  return options.dataDir === undefined ? inMemory(options) : onDisk(options, options.dataDir);
}

async function inMemory(options: MemberStorageOptions): Promise<MemberStorage> {
  const { runtime } = options;
  const backend = openBackend(options, () => new MemoryBackend());
  const incarnation = await countStart(backend);
  const store = openStore(options, backend);
  const identity = await options.founder();
  const { clusterId } = identity;
  const place = new SnapshotMemory(clusterId);
  const snapshots = new StateSnapshots({ runtime, clusterId, store, backend, place, summarize, batchBytes: batchBytesOf(options) });
  return {
    identity,
    log: new MemoryLog(),
    recovered: { hardState: undefined, entries: [] },
    store,
    snapshots,
    memory: new StoredLocalMemory(store, incarnation),
    setHasPeers: () => undefined,
    async close() {
      await snapshots.close();
      await store.close();
    },
  };
}

async function onDisk(options: MemberStorageOptions, path: string): Promise<MemberStorage> {
  const { ports, runtime } = options;
  const place = ports.disk === undefined ? await ownedPlace(path, options.hasPeers ?? false) : await portPlace(path, ports.disk);
  const fatal: Fatal = (cause) => {
    place.poison();
    return options.fatal(cause);
  };
  let opened: { close(): Promise<void> } | undefined;
  const close = async (): Promise<void> => {
    await opened?.close();
    await place.close();
  };
  try {
    const backend = openBackend(options, () => new LmdbBackend({ path: place.statePath, runtime }));
    opened = backend;
    const member = await openInPlace({ ...options, fatal }, place, backend);
    opened = member;
    return { ...member, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openInPlace(options: MemberStorageOptions, place: Place, backend: Backend): Promise<MemberStorage> {
  const { runtime } = options;
  const { disk, walPath, snapshotPath } = place;
  const incarnation = await countStart(backend);
  const restoration = restorationUnderWay(backend);
  const appliedIndex = restoration?.from ?? durableIndexOf(backend);
  const { wal, recovered } = await openLog(options, disk, walPath, appliedIndex);
  try {
    const { identity, snapshot } = recovered;
    const { clusterId } = identity;
    const batchBytes = batchBytesOf(options);
    const files = await SnapshotFiles.open(disk, snapshotPath, clusterId, appliedIndex, snapshot);
    if (restoration !== undefined) checkRestorable(restoration, snapshot, files);
    if (snapshot !== undefined) {
      runtime.log.warn({ index: snapshot.index }, 'a snapshot was received and is not in place: it is put there now');
      const commit = (changes: Changes): Promise<void> => backend.commit(changes);
      await restoreState({ place: files, point: snapshot, clusterId, backend, commit, summarize, batchBytes });
      await files.removeUpTo(snapshot.index);
    }
    const store = openStore(options, backend);
    const snapshots = new StateSnapshots({ runtime, clusterId, store, backend, place: files, summarize, batchBytes });
    return {
      identity,
      log: wal,
      recovered,
      store,
      snapshots,
      memory: new StoredLocalMemory(store, incarnation),
      setHasPeers: (hasPeers) => place.setHasPeers(hasPeers),
      async close() {
        await snapshots.close();
        await store.close();
      },
    };
  } catch (error) {
    await wal.close();
    throw error;
  }
}

/** A state that is half one and half another can only be finished by what the log says stands in its place. */
function checkRestorable({ index, from }: Restoration, snapshot: RecoveredWal['snapshot'], files: SnapshotFiles): void {
  if (snapshot !== undefined && snapshot.index >= index) return;
  const reason = `the applied state was being replaced by it, from index ${from} on, and the log does not know of it`;
  throw new SnapshotCorruptionError(files.describe({ index, term: 0 }), 0, index, reason);
}

/** What a restoration commits at once is what apply would. */
function batchBytesOf({ ports }: MemberStorageOptions): number {
  return ports.bounds?.flushBytes ?? defaultBounds.flushBytes;
}

const summarize: Summarize = (state) => ({
  term: storedTerm(state),
  confState: confStateFrom(state.scan('members', lowestId, undefined)),
  revision: currentRevision(state),
  compactRevision: Compaction.storedRevision(state),
});

/** Where on which disk. */
interface Place {
  readonly disk: Disk;
  readonly walPath: string;
  readonly statePath: string;
  readonly snapshotPath: string;
  setHasPeers(hasPeers: boolean): void;
  poison(): void;
  close(): Promise<void>;
}

async function ownedPlace(path: string, hasPeers: boolean): Promise<Place> {
  await mkdir(dirname(resolve(path)), { recursive: true, mode: 0o700 });
  const dataDir = await openDataDir(path);
  const disk = new NodeDisk({ flush: flushMode(hasPeers) });
  return {
    disk,
    walPath: dataDir.walPath,
    statePath: dataDir.statePath,
    snapshotPath: dataDir.snapshotPath,
    setHasPeers: (now) => disk.setFlush(flushMode(now)),
    poison: () => dataDir.poison(),
    async close() {
      await disk.close();
      await dataDir.close();
    },
  };
}

/** Peers must be heard while the disk is slow; a member alone has nothing else to do meanwhile, and saves two thread hops. */
function flushMode(hasPeers: boolean): 'inline' | 'worker' {
  return hasPeers ? 'worker' : 'inline';
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
    snapshotPath: join(path, 'snap'),
    setHasPeers: () => undefined,
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
  { runtime, fatal, founder, ports }: MemberStorageOptions,
  disk: Disk,
  dir: string,
  appliedIndex: number,
): Promise<OpenedWal> {
  const sizes = ports.segmentBytes === undefined ? {} : { segmentBytes: ports.segmentBytes };
  const open = (identity: Identity | undefined): Promise<OpenedWal> =>
    openWal({ disk, dir, runtime, fatal, identity, appliedIndex, ...sizes });
  try {
    return await open(undefined);
  } catch (error) {
    if (!(error instanceof StorageError) || error.code !== 'wal-missing') throw error;
    return await open(await founder());
  }
}
