import { CorruptionError } from '../storage-error.ts';
import { type LogRecord, parseLogRecord } from './log-record.ts';
import { bodyIsIntact, decodeHeader, headerBytes, type RecordHeader, recordBytes } from './record.ts';
import type { Replay } from './replay.ts';
import { alignToBlock, blockBytes, type Position } from './segment.ts';
import type { SegmentReader } from './segment-reader.ts';

/** A segment to scan and what to expect in it. */
export interface ScanTarget {
  readonly path: string;
  readonly reader: SegmentReader;
  readonly segSeq: number;
  readonly salt: number;
  /** What comes before its first record. */
  readonly start: Position;
  /** The segment counts up to here only. */
  readonly end: number;
}

/** One batch, as far as it could be read. */
export interface ScannedBatch {
  readonly offset: number;
  /** Just before the batch. */
  readonly start: Position;
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
  /** Whether a batch after the first holds anything but a seal. */
  readonly hasContentBehindHead: boolean;
}

/**
 * Follows the chain of records from the start of a segment and gives each to `replay`.
 *
 * @throws CorruptionError when an intact record contradicts those before it.
 */
export async function scanSegment(target: ScanTarget, replay: Replay): Promise<ScanEnd> {
  const scan = new SegmentScan(target, replay);
  while (!scan.isAtEnd && (await scan.step()));
  return scan.result();
}

class SegmentScan {
  readonly #target: ScanTarget;
  readonly #replay: Replay;
  #at = 0;
  #position: Position;
  #firstBatch: ScannedBatch | undefined;
  #batch: ScannedBatch | undefined;
  #hasContentBehindHead = false;

  constructor(target: ScanTarget, replay: Replay) {
    this.#target = target;
    this.#replay = replay;
    this.#position = target.start;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#target.end;
  }

  /** Takes the next record; false when there is none that continues the log. */
  async step(): Promise<boolean> {
    const { reader } = this.#target;
    const head = reader.peek(this.#at, headerBytes) ?? (await reader.read(this.#at, headerBytes));
    const header = head && decodeHeader(head, 0, this.#at === 0 ? 0 : this.#target.salt);
    if (header === undefined || !this.#continues(header)) return false;
    const bodyAt = this.#at + headerBytes;
    const body = reader.peek(bodyAt, header.length) ?? (await reader.read(bodyAt, header.length));
    if (body === undefined || !bodyIsIntact(header, body)) return false;
    this.#accept(header, body);
    return true;
  }

  result(): ScanEnd {
    return {
      offset: this.#at,
      position: this.#position,
      firstBatch: this.#firstBatch,
      lastBatch: this.#batch,
      hasContentBehindHead: this.#hasContentBehindHead,
    };
  }

  #continues(header: RecordHeader): boolean {
    const startsBatch = this.#batch === undefined || this.#batch.isComplete;
    return (
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
    if (record.kind !== 'none') batch.records.push(record);
    if (batch !== this.#firstBatch && record.kind !== 'none') this.#hasContentBehindHead = true;
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
    const head = reader.peek(at, headerBytes) ?? (await reader.read(at, headerBytes));
    const header = head && decodeHeader(head, 0, at === 0 ? 0 : salt);
    if (header !== undefined && header.segSeq === segSeq && header.batchSeq > batchSeq) return at;
  }
  return undefined;
}
