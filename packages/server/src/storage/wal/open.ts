import { basename, dirname, join } from 'node:path';
import type { Entry, HardState } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { Fatal } from '../../replica/ports.ts';
import type { Disk, DiskFile } from '../disk.ts';
import { CorruptionError, StorageError } from '../storage-error.ts';
import { BatchWriter } from './batch-writer.ts';
import { entryRecord, type LogRecord, type SnapshotPoint, snapshotRecord } from './log-record.ts';
import type { NewRecord } from './record.ts';
import { type Survey, surveyLog } from './recovery.ts';
import {
  alignToBlock,
  type Identity,
  isUnfinishedName,
  type SegmentHead,
  segmentHeadRecord,
  segmentPath,
  startOfLog,
  unfinishedPath,
} from './segment.ts';
import { type ActiveSegment, type SegmentBytes, Wal, type WalState } from './wal.ts';

export interface OpenWalOptions {
  readonly disk: Disk;
  /** The folder of the log. It is made when it does not exist; the folder around it must exist. */
  readonly dir: string;
  readonly runtime: Runtime;
  readonly fatal: Fatal;
  /** Whose log this is. undefined: whoever's it is, but there must be one. */
  readonly identity: Identity | undefined;
  /**
   * Up to where the backend holds, durably, what the entries did; 0 for an empty one. At least as high as any index released before. The
   * backend must never commit an index that is not durable in the log.
   */
  readonly appliedIndex: number;
  /** Default 1 MiB to 64 MiB. Whole blocks of 4 KiB. */
  readonly segmentBytes?: SegmentBytes;
}

/** What the log holds. */
export interface RecoveredWal {
  readonly identity: Identity;
  /** undefined: none was ever written. */
  readonly hardState: HardState | undefined;
  /** Those above the applied index. */
  readonly entries: readonly Entry[];
  /** Index of the first of `entries`, or the one it would have. */
  readonly firstIndex: number;
  /** A snapshot above the applied index whose install did not finish: to be finished before anything else. */
  readonly snapshot: SnapshotPoint | undefined;
}

export interface OpenedWal {
  readonly wal: Wal;
  readonly recovered: RecoveredWal;
}

const defaultSegmentBytes: SegmentBytes = { first: 1024 * 1024, max: 64 * 1024 * 1024 };

/**
 * Opens the log, or makes it. When it returns, everything it gives back is durable: what was merely visible (a process may have died between its
 * write and its flush) has been written once more, to a new segment, and flushed.
 *
 * Opening never changes a file of the log, it adds one; a crash in the middle leaves what was there.
 *
 * @throws CorruptionError `wal-corrupt` where something durable was lost: the member must not start.
 * @throws StorageError `wal-missing`, `wal-identity-mismatch`, `format-newer`
 *
 * @example
 * const { wal, recovered } = await openWal({ disk, dir, runtime, fatal, identity, appliedIndex: backend.appliedIndex });
 * wal.append({ entries, hardState }, () => acknowledge());
 */
export async function openWal(options: OpenWalOptions): Promise<OpenedWal> {
  const { disk, dir } = options;
  return (await exists(disk, dir)) ? reopen(options) : create(options);
}

async function create(options: OpenWalOptions): Promise<OpenedWal> {
  const { disk, dir, identity, appliedIndex } = options;
  if (appliedIndex > 0)
    throw new CorruptionError(dir, 0, appliedIndex, `there is none, although the applied state is at index ${appliedIndex}`);
  if (identity === undefined) throw new StorageError('wal-missing', `there is no log in ${dir}`);
  const unfinished = `${dir}.tmp`;
  await disk.makeDir(unfinished);
  await removeAll(disk, unfinished, await disk.list(unfinished));
  const link = { segSeq: 0, offset: 0 };
  const head: SegmentHead = { offset: 0, start: startOfLog, hardState: undefined, identity, salt: newSalt(options.runtime), link };
  const file = await disk.create(segmentPath(unfinished, firstSegSeq));
  const begun = await beginSegment(options, file, firstSegSeq, head, []);
  await disk.syncDir(unfinished);
  await disk.rename(unfinished, dir);
  await disk.syncDir(dirname(dir));
  const recovered = { identity, hardState: undefined, entries: [], firstIndex: 1, snapshot: undefined };
  return { wal: new Wal({ ...begun, hardState: undefined, live: [] }), recovered };
}

async function reopen(options: OpenWalOptions): Promise<OpenedWal> {
  const { disk, dir, appliedIndex } = options;
  const survey = await surveyLog(disk, dir, appliedIndex);
  const { identity } = survey.head;
  refuseOther(dir, identity, options.identity);
  const { hardState, entries, snapshot } = survey.replay;
  if (survey.isTorn)
    options.runtime.log.warn({ dir, index: survey.replay.index }, 'the last write to the log was torn and has been cut off');
  const active = await continueLog(options, survey);
  await removeVoid(options, survey);
  const firstIndex = entries[0]?.index ?? Math.max(appliedIndex, snapshot?.index ?? 0) + 1;
  return { wal: new Wal({ ...active, hardState, live: survey.live }), recovered: { identity, hardState, entries, firstIndex, snapshot } };
}

function refuseOther(dir: string, found: Identity, expected: Identity | undefined): void {
  if (expected === undefined) return;
  if (found.clusterId === expected.clusterId && found.memberId === expected.memberId) return;
  const name = ({ clusterId, memberId }: Identity): string => `member ${memberId.toString(16)} of cluster ${clusterId.toString(16)}`;
  throw new StorageError('wal-identity-mismatch', `the log in ${dir} is that of ${name(found)}, not of ${name(expected)}`);
}

/** The first batch of the new segment repeats everything that is not proven durable. Its head holds the newest hard state already. */
async function continueLog(options: OpenWalOptions, survey: Survey): Promise<Omit<WalState, 'hardState' | 'live'>> {
  const { disk, dir } = options;
  const { link, start, tail, replay } = survey;
  const { identity, salt } = survey.head;
  const segSeq = survey.highestSegSeq + 1;
  const unfinished = unfinishedPath(dir, segSeq);
  await removeAll(disk, dir, (await disk.list(dir)).filter(isUnfinishedName));
  const records = tail.map(recordOf).filter((record) => record !== undefined);
  const file = await disk.create(unfinished);
  const begun = await beginSegment(options, file, segSeq, { offset: 0, identity, salt, link, start, hardState: replay.hardState }, records);
  await disk.rename(unfinished, segmentPath(dir, segSeq));
  await disk.syncDir(dir);
  return { ...begun, position: { ...begun.position, index: replay.index, term: replay.term } };
}

// The hard states of the batch are left out: the newest one stands in the head.
function recordOf(record: LogRecord): NewRecord | undefined {
  if (record.kind === 'entry') return entryRecord(record.entry);
  return record.kind === 'snapshot' ? snapshotRecord(record.snapshot) : undefined;
}

async function beginSegment(
  options: OpenWalOptions,
  file: DiskFile,
  segSeq: number,
  head: SegmentHead,
  records: readonly NewRecord[],
): Promise<Omit<WalState, 'hardState' | 'live'>> {
  const { disk, dir, runtime, fatal, segmentBytes = defaultSegmentBytes } = options;
  const size = alignToBlock(segmentBytes.first);
  const writer = new BatchWriter(head.salt, head.start);
  writer.begin(segSeq);
  writer.add(segmentHeadRecord(head));
  for (const record of records) writer.add(record);
  const bytes = writer.finish();
  await file.fillZero(size);
  await flush(file, bytes);
  const { batchSeq, recSeq, crc } = writer;
  const { identity, salt, start } = head;
  const active: ActiveSegment = { segSeq, file, size, offset: bytes.length, startIndex: start.index };
  return { disk, dir, runtime, fatal, identity, salt, segmentBytes, active, position: { ...start, batchSeq, recSeq, crc } };
}

function flush(file: DiskFile, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush(0, bytes, (error) => (error === undefined ? resolve() : reject(error)));
  });
}

/** Only after the new segment is durable: until then they may be the log. */
async function removeVoid({ disk, dir }: OpenWalOptions, survey: Survey): Promise<void> {
  await removeAll(
    disk,
    dir,
    survey.voidSegSeqs.map((segSeq) => basename(segmentPath(dir, segSeq))),
  );
}

async function removeAll(disk: Disk, dir: string, names: readonly string[]): Promise<void> {
  for (const name of names) await disk.unlink(join(dir, name));
}

async function exists(disk: Disk, dir: string): Promise<boolean> {
  return (await disk.list(dirname(dir))).includes(basename(dir));
}

const firstSegSeq = 1;

function newSalt(runtime: Runtime): number {
  return Math.floor(runtime.random() * 0x1_0000_0000);
}
