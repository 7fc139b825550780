import { CorruptionError } from '../storage-error.ts';
import { type LogRecord, parseLogRecord } from './log-record.ts';
import { bodyIsIntact, decodeHeader, headerBytes, type RecordHeader, recordBytes } from './record.ts';
import type { Replay } from './replay.ts';
import { alignToBlock, type BatchHead, blockBytes, decodeBatchHead, type Position } from './segment.ts';
import type { SegmentReader } from './segment-reader.ts';

/** A segment to scan and what to expect in it. */
export interface ScanTarget {
  readonly path: string;
  readonly reader: SegmentReader;
  readonly segSeq: number;
  readonly salt: number;
  /** The batch to start with, and what comes before it. */
  readonly from: BatchHead;
  /** The segment counts up to here only. */
  readonly end: number;
}

/** One batch, as far as it could be read. */
export interface ScannedBatch {
  readonly offset: number;
  /** Just before the batch. */
  readonly start: Position;
  /** Without its head. */
  readonly records: LogRecord[];
  /** False when the scan ended inside it. */
  isComplete: boolean;
}

/** Where a scan ended, because the segment did or because no record that continues the log stands there. */
export interface ScanEnd {
  readonly offset: number;
  /** Just after the last good record. */
  readonly position: Position;
  readonly firstBatch: ScannedBatch | undefined;
  readonly lastBatch: ScannedBatch | undefined;
  /** Whether a batch other than the first is not empty. */
  readonly hasContentBehindFirst: boolean;
}

/**
 * Follows the chain of records from one batch of a segment on and gives each to `replay`.
 *
 * @throws CorruptionError when an intact record contradicts those before it.
 */
export async function scanSegment(target: ScanTarget, replay: Replay): Promise<ScanEnd> {
  const scan = new SegmentScan(target, replay);
  for (;;) {
    const missing = scan.run();
    if (missing === undefined || !(await target.reader.load(missing.at, missing.length))) return scan.result();
  }
}

interface MissingBytes {
  readonly at: number;
  readonly length: number;
}

class SegmentScan {
  readonly #target: ScanTarget;
  readonly #replay: Replay;
  #at: number;
  #position: Position;
  #firstBatch: ScannedBatch | undefined;
  #batch: ScannedBatch | undefined;
  #hasContentBehindFirst = false;

  constructor(target: ScanTarget, replay: Replay) {
    this.#target = target;
    this.#replay = replay;
    this.#at = target.from.offset;
    this.#position = target.from.start;
  }

  /** Goes on until the log ends, or until bytes are missing that the reader must load first. */
  run(): MissingBytes | undefined {
    while (this.#at < this.#target.end) {
      const missing = this.#step();
      if (missing === 'end') return undefined;
      if (missing !== undefined) return missing;
    }
    return undefined;
  }

  // Not asynchronous: a promise for each of millions of records would be most of the work.
  #step(): MissingBytes | 'end' | undefined {
    const { reader, salt } = this.#target;
    const head = reader.peek(this.#at, headerBytes);
    if (head === undefined) return { at: this.#at, length: headerBytes };
    const header = decodeHeader(head, 0, this.#at === 0 ? 0 : salt);
    if (header === undefined || !this.#continues(header)) return 'end';
    const body = reader.peek(this.#at + headerBytes, header.length);
    // From the header on: it is read again with the body.
    if (body === undefined) return { at: this.#at, length: headerBytes + header.length };
    if (!bodyIsIntact(header, body)) return 'end';
    this.#accept(header, body);
    return undefined;
  }

  result(): ScanEnd {
    return {
      offset: this.#at,
      position: this.#position,
      firstBatch: this.#firstBatch,
      lastBatch: this.#batch,
      hasContentBehindFirst: this.#hasContentBehindFirst,
    };
  }

  #continues(header: RecordHeader): boolean {
    const startsBatch = this.#batch === undefined || this.#batch.isComplete;
    const isHead = header.type === 'segmentHead' || header.type === 'batchHead';
    return (
      isHead === startsBatch &&
      header.segSeq === this.#target.segSeq &&
      header.recSeq === this.#position.recSeq + 1 &&
      header.batchSeq === this.#position.batchSeq + (startsBatch ? 1 : 0) &&
      header.prevCrc === this.#position.crc
    );
  }

  #accept(header: RecordHeader, body: Buffer): void {
    const record = parseLogRecord(header, body);
    if (record === undefined) throw this.#contradiction('a record is intact and makes no sense');
    const reason = this.#replay.apply(record);
    if (reason !== undefined) throw this.#contradiction(reason);
    const batch = this.#batch === undefined || this.#batch.isComplete ? this.#startBatch() : this.#batch;
    if (record.kind !== 'head') {
      batch.records.push(record);
      if (batch !== this.#firstBatch) this.#hasContentBehindFirst = true;
    }
    batch.isComplete = header.endsBatch;
    const { index, term } = this.#replay;
    this.#position = { batchSeq: header.batchSeq, recSeq: header.recSeq, crc: header.headCrc, index, term };
    const end = this.#at + recordBytes(header.length);
    this.#at = header.endsBatch ? alignToBlock(end) : end;
  }

  #startBatch(): ScannedBatch {
    const batch: ScannedBatch = { offset: this.#at, start: this.#position, records: [], isComplete: false };
    this.#firstBatch ??= batch;
    this.#batch = batch;
    return batch;
  }

  #contradiction(reason: string): CorruptionError {
    return new CorruptionError(this.#target.path, this.#at, this.#replay.index + 1, reason);
  }
}

/**
 * Looks behind a place where the log seems to end for a record of a batch after `batchSeq`. As a batch is written only once the one before it
 * is durable, such a record proves that `batchSeq` was whole once. Batches start at blocks, so only those are looked at.
 */
export async function findLaterBatch(
  reader: SegmentReader,
  from: number,
  segSeq: number,
  salt: number,
  batchSeq: number,
): Promise<number | undefined> {
  for (let at = alignToBlock(from); at + headerBytes <= reader.size; at += blockBytes) {
    if (reader.peek(at, headerBytes) === undefined && !(await reader.load(at, headerBytes))) return undefined;
    const header = decodeHeader(reader.peek(at, headerBytes)!, 0, at === 0 ? 0 : salt);
    if (header !== undefined && header.segSeq === segSeq && header.batchSeq > batchSeq) return at;
  }
  return undefined;
}

/**
 * A batch to start reading at: one that stands behind no entry above `appliedIndex`, as late in the segment as a few probes find one. What is
 * before it is applied. `first` is the head of the segment, which is always such a batch.
 */
export async function findStart(
  reader: SegmentReader,
  segment: { readonly segSeq: number; readonly salt: number; readonly end: number },
  first: BatchHead,
  appliedIndex: number,
): Promise<BatchHead> {
  let best = first;
  let low = 0;
  let high = Math.floor(segment.end / blockBytes);
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    const found = await findHead(reader, segment, middle, Math.min(high, middle + probeBlocks));
    if (found !== undefined && found.start.index <= appliedIndex) {
      best = found;
      low = Math.floor(found.offset / blockBytes);
    } else high = middle;
  }
  return best;
}

/** Blocks to look through for the next head: those of a large batch have none. Too few cost time, never correctness. */
const probeBlocks = 64;

async function findHead(
  reader: SegmentReader,
  { segSeq, salt }: { readonly segSeq: number; readonly salt: number },
  from: number,
  to: number,
): Promise<BatchHead | undefined> {
  for (let block = from; block < to; block++) {
    const at = block * blockBytes;
    const length = Math.min(blockBytes, reader.size - at);
    if (reader.peek(at, length) === undefined && !(await reader.load(at, length))) return undefined;
    const bytes = reader.peek(at, length)!;
    const header = decodeHeader(bytes, 0, salt);
    if (header?.type !== 'batchHead' || header.segSeq !== segSeq) continue;
    const body = bytes.subarray(headerBytes, headerBytes + header.length);
    const head = bodyIsIntact(header, body) ? decodeBatchHead(header, body) : undefined;
    if (head?.offset === at) return head;
  }
  return undefined;
}
