import { crc32 } from 'node:zlib';

/**
 * One record of the log: a header of 56 bytes, the body, zeroes up to a multiple of 8. All numbers little endian.
 *
 * | at | bytes | field    |                                                                              |
 * |----|-------|----------|------------------------------------------------------------------------------|
 * |  0 |     2 | magic    | `CW`                                                                         |
 * |  2 |     1 | version  | 1                                                                            |
 * |  3 |     1 | type     | see {@link recordTypes}; the highest bit is set on the last record of a batch |
 * |  4 |     4 | length   | of the body                                                                  |
 * |  8 |     4 | segSeq   | number of the segment this was written to                                    |
 * | 12 |     8 | batchSeq | number of the batch: one batch, one write, one fdatasync                     |
 * | 20 |     8 | recSeq   | number of the record                                                         |
 * | 28 |     8 | index    | log index; of the last entry before in a head, of the commit in a hard state  |
 * | 36 |     8 | term     |                                                                              |
 * | 44 |     4 | prevCrc  | headCrc of the record before                                                 |
 * | 48 |     4 | bodyCrc  |                                                                              |
 * | 52 |     4 | headCrc  | of bytes 0 to 52, seeded with the salt of this log                           |
 *
 * The header names the one place this record belongs to, so that a sector that was written elsewhere, or that kept what a recycled segment
 * held before, is recognised although its checksums hold. The header has a checksum of its own, so that a reader finds its way again behind
 * damage. The salt keeps a record that a client stored as a value from being taken for one of ours.
 */
export interface RecordHeader {
  readonly type: RecordType;
  readonly endsBatch: boolean;
  readonly length: number;
  readonly segSeq: number;
  readonly batchSeq: number;
  readonly recSeq: number;
  readonly index: number;
  readonly term: number;
  readonly prevCrc: number;
  readonly bodyCrc: number;
  readonly headCrc: number;
}

/** What a caller says of a record; the rest of the header is the writer's. */
export interface NewRecord {
  readonly type: RecordType;
  readonly index: number;
  readonly term: number;
  readonly body: Uint8Array;
}

/** A batch starts with a head: the first one of a segment with a segmentHead, every other with a batchHead. */
type RecordType = 'segmentHead' | 'batchHead' | 'entry' | 'confChange' | 'hardState' | 'snapshot';

/** Numbers on disk. Never reused. */
const recordTypes: Readonly<Record<RecordType, number>> = {
  segmentHead: 1,
  batchHead: 2,
  entry: 3,
  confChange: 4,
  hardState: 5,
  snapshot: 6,
};
const typeOfNumber: ReadonlyMap<number, RecordType> = new Map(
  Object.entries(recordTypes).map(([name, number]) => [number, name as RecordType]),
);

export const headerBytes = 56;
/** A body above this is neither written nor believed: far above any request, and it bounds what a damaged length can make us allocate. */
export const maxBodyBytes: number = 64 * 1024 * 1024;
export const noBody: Uint8Array = new Uint8Array(0);

const magic = 0x5743; // 'CW'
const version = 1;
const endsBatchBit = 0x80;

/** Bytes a record takes, padding included. */
export function recordBytes(bodyLength: number): number {
  return (headerBytes + bodyLength + 7) & ~7;
}

/** A valid header of a version or a type this software does not know. */
export class UnknownRecordError extends Error {}

/**
 * Reads the header at `at`, or gives undefined where no intact one stands. The segment head is written with salt 0, as it carries the salt.
 *
 * @throws UnknownRecordError when the header is intact but of an unknown version or type: a newer software wrote it.
 */
export function decodeHeader(bytes: Buffer, at: number, salt: number): RecordHeader | undefined {
  if (at + headerBytes > bytes.length || bytes.readUInt16LE(at) !== magic) return undefined;
  const headCrc = bytes.readUInt32LE(at + 52);
  if (crc32(bytes.subarray(at, at + 52), salt) !== headCrc) return undefined;
  if (bytes[at + 2] !== version) throw new UnknownRecordError(`version ${bytes[at + 2]}`);
  const typeByte = bytes[at + 3]!;
  const type = typeOfNumber.get(typeByte & ~endsBatchBit);
  if (type === undefined) throw new UnknownRecordError(`type ${typeByte & ~endsBatchBit}`);
  const length = bytes.readUInt32LE(at + 4);
  if (length > maxBodyBytes) return undefined;
  return {
    type,
    endsBatch: (typeByte & endsBatchBit) !== 0,
    length,
    segSeq: bytes.readUInt32LE(at + 8),
    batchSeq: readNumber(bytes, at + 12),
    recSeq: readNumber(bytes, at + 20),
    index: readNumber(bytes, at + 28),
    term: readNumber(bytes, at + 36),
    prevCrc: bytes.readUInt32LE(at + 44),
    bodyCrc: bytes.readUInt32LE(at + 48),
    headCrc,
  };
}

/** Everything the writer adds to a {@link NewRecord}. */
export interface RecordPlace {
  readonly segSeq: number;
  readonly batchSeq: number;
  readonly recSeq: number;
  readonly prevCrc: number;
  readonly salt: number;
}

/** Writes header, body and padding at `at`, which has room for {@link recordBytes}. Returns the header's checksum. */
export function encodeRecord(bytes: Buffer, at: number, record: NewRecord, place: RecordPlace): number {
  const { body } = record;
  if (body.length > maxBodyBytes) throw new RangeError(`a log record of ${body.length} bytes exceeds ${maxBodyBytes}`);
  bytes.writeUInt16LE(magic, at);
  bytes[at + 2] = version;
  bytes[at + 3] = recordTypes[record.type];
  bytes.writeUInt32LE(body.length, at + 4);
  bytes.writeUInt32LE(place.segSeq, at + 8);
  writeNumber(bytes, at + 12, place.batchSeq);
  writeNumber(bytes, at + 20, place.recSeq);
  writeNumber(bytes, at + 28, record.index);
  writeNumber(bytes, at + 36, record.term);
  bytes.writeUInt32LE(place.prevCrc, at + 44);
  bytes.set(body, at + headerBytes);
  bytes.fill(0, at + headerBytes + body.length, at + recordBytes(body.length));
  bytes.writeUInt32LE(crc32(body), at + 48);
  return sealHeader(bytes, at, place.salt);
}

/** Marks a record written before as the last of its batch. Returns the header's new checksum. */
export function markEndOfBatch(bytes: Buffer, at: number, salt: number): number {
  bytes[at + 3]! |= endsBatchBit;
  return sealHeader(bytes, at, salt);
}

export function bodyIsIntact(header: RecordHeader, body: Uint8Array): boolean {
  return crc32(body) === header.bodyCrc;
}

function sealHeader(bytes: Buffer, at: number, salt: number): number {
  const headCrc = crc32(bytes.subarray(at, at + 52), salt);
  bytes.writeUInt32LE(headCrc, at + 52);
  return headCrc;
}

/** Above 2^53-1 this gives a number that is not a safe integer; callers compare with expected values or check. */
export function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}

export function writeNumber(bytes: Buffer, at: number, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`not a number of the log: ${value}`);
  bytes.writeUInt32LE(value % 0x1_0000_0000, at);
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}
