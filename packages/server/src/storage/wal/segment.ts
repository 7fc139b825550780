import { join } from 'node:path';
import type { HardState } from '@conclave/raft';
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
 * The first record of a batch. It repeats what recovery must know to start reading here, so that the part of a segment whose entries are all
 * applied need not be read. The offset is the batch's own: a head that was written to the wrong place is no place to start.
 */
export interface BatchHead {
  readonly offset: number;
  /** Just before this batch. */
  readonly start: Position;
  /** Just before this batch; undefined when none was ever written. */
  readonly hardState: HardState | undefined;
}

/**
 * The first record of a segment. It says where the segment before ends, which makes the log one chain that is followed from its newest
 * segment backwards: what a crash left behind beside the chain is void, without ever being rewritten.
 */
export interface SegmentHead extends BatchHead {
  readonly offset: 0;
  readonly identity: Identity;
  readonly salt: number;
  readonly link: Link;
}

const batchHeadBytes = 32;
const segmentHeadBytes = 64;

/** `start.batchSeq`, `recSeq` and `crc` go into the header of the record, by way of the writer that stands there. */
export function batchHeadRecord(head: BatchHead): NewRecord {
  const body = Buffer.alloc(batchHeadBytes);
  writeBatchHead(body, head);
  return { type: 'batchHead', index: head.start.index, term: head.start.term, body };
}

export function segmentHeadRecord(head: SegmentHead): NewRecord {
  const body = Buffer.alloc(segmentHeadBytes);
  writeBatchHead(body, head);
  body.writeBigUInt64LE(head.identity.clusterId, 32);
  body.writeBigUInt64LE(head.identity.memberId, 40);
  writeNumber(body, 48, head.link.offset);
  body.writeUInt32LE(head.link.segSeq, 56);
  body.writeUInt32LE(head.salt, 60);
  return { type: 'segmentHead', index: head.start.index, term: head.start.term, body };
}

function writeBatchHead(body: Buffer, { offset, hardState = noHardState }: BatchHead): void {
  writeNumber(body, 0, offset);
  writeNumber(body, 8, hardState.term);
  body.writeBigUInt64LE(hardState.vote, 16);
  writeNumber(body, 24, hardState.commit);
}

const noHardState: HardState = { term: 0, vote: 0n, commit: 0 };

/** The head in a record of either type, or undefined when the record is of another, or makes no sense. */
export function decodeBatchHead(header: RecordHeader, body: Buffer): BatchHead | undefined {
  if (body.length !== (header.type === 'segmentHead' ? segmentHeadBytes : batchHeadBytes)) return undefined;
  if (header.type !== 'segmentHead' && header.type !== 'batchHead') return undefined;
  const hardState = { term: readNumber(body, 8), vote: body.readBigUInt64LE(16), commit: readNumber(body, 24) };
  const isNone = hardState.term === 0 && hardState.vote === 0n && hardState.commit === 0;
  return {
    offset: readNumber(body, 0),
    start: { batchSeq: header.batchSeq - 1, recSeq: header.recSeq - 1, crc: header.prevCrc, index: header.index, term: header.term },
    hardState: isNone ? undefined : hardState,
  };
}

function decodeSegmentHead(header: RecordHeader, body: Buffer): SegmentHead | undefined {
  const head = header.type === 'segmentHead' ? decodeBatchHead(header, body) : undefined;
  if (head?.offset !== 0) return undefined;
  return {
    ...head,
    offset: 0,
    identity: { clusterId: body.readBigUInt64LE(32), memberId: body.readBigUInt64LE(40) },
    link: { segSeq: body.readUInt32LE(56), offset: readNumber(body, 48) },
    salt: body.readUInt32LE(60),
  };
}

/** Bytes to read from the start of a file for {@link readHead}. */
export const headRecordBytes: number = headerBytes + segmentHeadBytes;

/** The head at the start of a segment's bytes, or undefined when no head of this very segment stands there intact. */
export function readHead(bytes: Buffer, segSeq: number): SegmentHead | undefined {
  const header = decodeHeader(bytes, 0, 0);
  if (header === undefined || header.segSeq !== segSeq) return undefined;
  const body = bytes.subarray(headerBytes, headerBytes + header.length);
  if (body.length !== header.length || !bodyIsIntact(header, body)) return undefined;
  return decodeSegmentHead(header, body);
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
