import type { Disk, DiskFile } from '../disk.ts';
import { CorruptionError, StorageError } from '../storage-error.ts';
import { UnknownRecordError } from './record.ts';
import { Replay } from './replay.ts';
import { headRecordBytes, type Link, type Position, readHead, type SegmentHead, segmentPath, segSeqOfName } from './segment.ts';
import { SegmentReader } from './segment-reader.ts';
import { findLaterBatch, findStart, type ScanEnd, type ScannedBatch, scanSegment } from './segment-scan.ts';

/** A segment the log still consists of. */
export interface LiveSegment {
  readonly segSeq: number;
  /** Log index of the last entry before it. */
  readonly startIndex: number;
  readonly size: number;
}

/** What the files say, without having changed any. */
export interface Survey {
  readonly head: SegmentHead;
  readonly replay: Replay;
  /** Oldest first. */
  readonly live: readonly LiveSegment[];
  /** Files of segments that are not part of the log. */
  readonly voidSegSeqs: readonly number[];
  readonly highestSegSeq: number;
  /** Where the part that is proven durable ends, and what follows it. */
  readonly link: Link;
  readonly start: Position;
  readonly tail: ScannedBatch['records'];
  /** Whether the last batch was torn. */
  readonly isTorn: boolean;
}

interface Segment {
  readonly segSeq: number;
  readonly path: string;
  readonly file: DiskFile;
  readonly size: number;
  /** undefined: the segment was prepared and never used, or its head is damaged. */
  readonly head: SegmentHead | undefined;
}

type StartedSegment = Segment & { readonly head: SegmentHead };

/**
 * Reads the log in `dir` and decides what of it stands. Changes nothing, so that it may be repeated after a crash at any point.
 *
 * @throws CorruptionError where something that was durable once cannot be read.
 * @throws StorageError `format-newer`
 */
export async function surveyLog(disk: Disk, dir: string, appliedIndex: number): Promise<Survey> {
  const names = await disk.list(dir);
  const segSeqs = names
    .map(segSeqOfName)
    .filter((segSeq) => segSeq !== undefined)
    .sort((x, y) => x - y);
  const segments: Segment[] = [];
  try {
    for (const segSeq of segSeqs) segments.push(await openSegment(disk, dir, segSeq));
    return await survey(dir, segments, appliedIndex);
  } catch (error) {
    if (!(error instanceof UnknownRecordError)) throw error;
    throw new StorageError('format-newer', `the log in ${dir} was written by a newer version (record of ${error.message})`, {
      cause: error,
    });
  } finally {
    for (const segment of segments) await segment.file.close();
  }
}

async function openSegment(disk: Disk, dir: string, segSeq: number): Promise<Segment> {
  const path = segmentPath(dir, segSeq);
  const file = await disk.open(path);
  try {
    const size = await file.size();
    const start = await file.read(0, Math.min(size, headRecordBytes));
    const head = readHead(Buffer.from(start.buffer, start.byteOffset, start.byteLength), segSeq);
    return { segSeq, path, file, size, head };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function survey(dir: string, segments: readonly Segment[], appliedIndex: number): Promise<Survey> {
  const newest = segments.findLast(isStarted);
  if (newest === undefined) throw new CorruptionError(dir, 0, appliedIndex + 1, 'no segment has an intact head');
  const { chain, replay, end } = await readChain(dir, segments, newest, appliedIndex);
  await refuseLaterBatches(segments, newest, end, replay.index + 1);
  const reason = replay.verify();
  if (reason !== undefined) throw new CorruptionError(newest.path, end.offset, replay.index + 1, reason);
  const cut = cutBehindProven(newest, end);
  const live = cut.link.segSeq === newest.segSeq ? chain : chain.slice(0, -1);
  return {
    head: newest.head,
    replay,
    live: live.map(({ segSeq, size, head }) => ({ segSeq, size, startIndex: head.start.index })),
    voidSegSeqs: segments.filter((segment) => !live.some(({ segSeq }) => segSeq === segment.segSeq)).map(({ segSeq }) => segSeq),
    highestSegSeq: segments.at(-1)?.segSeq ?? 0,
    ...cut,
    isTorn: end.lastBatch?.isComplete === false,
  };
}

/** Reads the newest segment, and those before it as far as entries above the applied index may stand in them. */
async function readChain(
  dir: string,
  segments: readonly Segment[],
  newest: StartedSegment,
  appliedIndex: number,
): Promise<{ chain: StartedSegment[]; replay: Replay; end: ScanEnd }> {
  const chain = [newest];
  for (let first = newest; first.head.link.segSeq !== 0 && first.head.start.index > appliedIndex; chain.unshift(first)) {
    first = segmentBefore(dir, segments, first);
  }
  return { chain, ...(await readForward(chain, appliedIndex)) };
}

function segmentBefore(dir: string, segments: readonly Segment[], segment: StartedSegment): StartedSegment {
  const { segSeq } = segment.head.link;
  const before = segments.find((candidate) => candidate.segSeq === segSeq);
  const index = segment.head.start.index;
  if (before === undefined) throw new CorruptionError(segmentPath(dir, segSeq), 0, index, 'a segment that is still needed is missing');
  if (!isStarted(before)) throw new CorruptionError(before.path, 0, index, 'the head of a segment that is still needed is damaged');
  return before;
}

async function readForward(chain: readonly StartedSegment[], appliedIndex: number): Promise<{ replay: Replay; end: ScanEnd }> {
  const replay = new Replay(appliedIndex);
  let end: ScanEnd | undefined;
  for (const [at, segment] of chain.entries()) {
    const next = chain[at + 1]?.head;
    const { path, segSeq, head, size, file } = segment;
    const bounds = { segSeq, salt: head.salt, end: next?.link.offset ?? size };
    const from = at === 0 ? await findStart(new SegmentReader(file, size, probeBytes), bounds, head, appliedIndex) : head;
    if (at === 0) replay.startAt(from.start.index, from.start.term);
    end = await scanSegment({ ...bounds, path, from, reader: new SegmentReader(file, size) }, replay);
    if (next !== undefined) refuseGap(path, end, next, replay.index + 1);
  }
  return { replay, end: end! };
}

const probeBytes = 64 * 1024;

/** A later segment stands on this one: it was durable up to the place where the later one goes on. */
function refuseGap(path: string, end: ScanEnd, next: SegmentHead, index: number): void {
  const { position, offset } = end;
  const isWhole = offset === next.link.offset && position.recSeq === next.start.recSeq && position.crc === next.start.crc;
  if (!isWhole) throw new CorruptionError(path, offset, index, 'a later segment goes on from a place that cannot be reached');
}

/**
 * What follows the last good record is torn, and may be cut, only if it belongs to the last batch ever begun. A record of any later batch,
 * here or in a segment that was prepared to be the next, proves the contrary.
 */
async function refuseLaterBatches(segments: readonly Segment[], newest: StartedSegment, end: ScanEnd, index: number): Promise<void> {
  const isInBatch = end.lastBatch?.isComplete === false;
  const suspect = end.position.batchSeq + (isInBatch ? 0 : 1);
  for (const segment of segments.filter(({ segSeq }) => segSeq >= newest.segSeq)) {
    const from = segment === newest ? end.offset : 0;
    const found = await findLaterBatch(new SegmentReader(segment.file, segment.size), from, segment.segSeq, newest.head.salt, suspect);
    if (found === undefined) continue;
    const reason = `batch ${suspect} cannot be read, and was durable: a later one stands at offset ${found} of ${segment.path}`;
    throw new CorruptionError(newest.path, end.offset, index, reason);
  }
}

/**
 * The last batch may be in the page cache only, and must be written once more before anything is promised on it. It is cut off here and goes
 * into a new segment. Where the newest segment holds nothing but its first batch, it is replaced as a whole.
 */
function cutBehindProven(newest: StartedSegment, end: ScanEnd): { link: Link; start: Position; tail: ScannedBatch['records'] } {
  const { firstBatch, lastBatch, hasContentBehindFirst } = end;
  const isOneBatch = firstBatch?.offset === 0 && !hasContentBehindFirst;
  if (isOneBatch || lastBatch === undefined) {
    return { link: newest.head.link, start: newest.head.start, tail: firstBatch?.records ?? [] };
  }
  return { link: { segSeq: newest.segSeq, offset: lastBatch.offset }, start: lastBatch.start, tail: lastBatch.records };
}

function isStarted(segment: Segment): segment is StartedSegment {
  return segment.head !== undefined;
}
