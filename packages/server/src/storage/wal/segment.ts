import { join } from 'node:path';
import { bodyIsIntact, decodeHeader, headerBytes, type NewRecord, type RecordHeader, readNumber, writeNumber } from './record.ts';

/**
 * A batch starts at a multiple of this, so that no flush ever rewrites a block of the file system that holds acknowledged records: whatever a
 * power cut does to the blocks being written, the others were not touched. The disk is asked for whole blocks anyway.
 */
export const blockBytes = 4096;

export function alignToBlock(offset: number): number {
  return Math.ceil(offset / blockBytes) * blockBytes;
}

/** Whose log this is. Ids as etcd computes them. */
export interface Identity {
  readonly clusterId: bigint;
  readonly memberId: bigint;
}

/** A position between two batches: all that what follows depends on. */
export interface Position {
  /** Number of the last batch before; 0 at the start of the log. */
  readonly batchSeq: number;
  readonly recSeq: number;
  /** headCrc of the last record before. */
  readonly crc: number;
  /** Log index and term of the last entry before, or of the snapshot that stands for it. */
  readonly index: number;
  readonly term: number;
}

export const startOfLog: Position = { batchSeq: 0, recSeq: 0, crc: 0, index: 0, term: 0 };

/** Where the log comes from before this segment. What the segment named holds from `offset` on is void. */
export interface Link {
  /** 0: nothing comes before. */
  readonly segSeq: number;
  readonly offset: number;
}

/**
 * The first record of a segment. It says where the segment before ends, which makes the log one chain that is followed from its newest
 * segment backwards: what a crash left behind beside the chain is void, without ever being rewritten.
 */
export interface SegmentHead {
  readonly identity: Identity;
  readonly salt: number;
  readonly link: Link;
  /** Just before this segment. */
  readonly start: Position;
}

const headBodyBytes = 40;

/** `start.batchSeq`, `recSeq` and `crc` go into the header of the record, by way of the writer that stands there. */
export function headRecord(head: SegmentHead): NewRecord {
  const body = Buffer.alloc(headBodyBytes);
  body.writeBigUInt64LE(head.identity.clusterId, 0);
  body.writeBigUInt64LE(head.identity.memberId, 8);
  writeNumber(body, 16, head.link.offset);
  body.writeUInt32LE(head.link.segSeq, 24);
  body.writeUInt32LE(head.salt, 28);
  return { type: 'segmentHead', index: head.start.index, term: head.start.term, body };
}

export function decodeHead(header: RecordHeader, body: Buffer): SegmentHead | undefined {
  if (header.type !== 'segmentHead' || body.length !== headBodyBytes) return undefined;
  return {
    identity: { clusterId: body.readBigUInt64LE(0), memberId: body.readBigUInt64LE(8) },
    salt: body.readUInt32LE(28),
    link: { segSeq: body.readUInt32LE(24), offset: readNumber(body, 16) },
    start: { batchSeq: header.batchSeq - 1, recSeq: header.recSeq - 1, crc: header.prevCrc, index: header.index, term: header.term },
  };
}

/** Bytes to read from the start of a file for {@link readHead}. */
export const headRecordBytes: number = headerBytes + headBodyBytes;

/** The head at the start of a segment's bytes, or undefined when no head of this very segment stands there intact. */
export function readHead(bytes: Buffer, segSeq: number): SegmentHead | undefined {
  const header = decodeHeader(bytes, 0, 0);
  if (header === undefined || header.segSeq !== segSeq) return undefined;
  const body = bytes.subarray(headerBytes, headerBytes + header.length);
  if (body.length !== header.length || !bodyIsIntact(header, body)) return undefined;
  return decodeHead(header, body);
}

export function segmentPath(dir: string, segSeq: number): string {
  return join(dir, `${segSeq.toString(16).padStart(8, '0')}.wal`);
}

/** Under this name a segment is being made; such a file means nothing and may be removed when the log is not open. */
export function unfinishedPath(dir: string, segSeq: number): string {
  return join(dir, `${segSeq.toString(16).padStart(8, '0')}.tmp`);
}

export function isUnfinishedName(name: string): boolean {
  return /^[0-9a-f]{8}\.tmp$/.test(name);
}

export function segSeqOfName(name: string): number | undefined {
  return /^[0-9a-f]{8}\.wal$/.test(name) ? Number.parseInt(name.slice(0, 8), 16) : undefined;
}
