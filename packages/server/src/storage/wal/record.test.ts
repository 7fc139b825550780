import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { BatchWriter } from './batch-writer.ts';
import { entryRecord, hardStateRecord, parseLogRecord, snapshotRecord } from './log-record.ts';
import { bodyIsIntact, decodeHeader, encodeRecord, headerBytes, maxBodyBytes, noBody, recordBytes, UnknownRecordError } from './record.ts';
import { batchHeadRecord, readHead, type SegmentHead, segmentHeadRecord, startOfLog } from './segment.ts';

const place = { segSeq: 7, batchSeq: 2 ** 40 + 1, recSeq: 2 ** 53 - 1, prevCrc: 0xdead_beef, salt: 99 };

function encode(type: 'entry' | 'hardState' = 'entry', body: Uint8Array = Buffer.from('body')): Buffer {
  const bytes = Buffer.alloc(recordBytes(body.length), 0xaa);
  encodeRecord(bytes, 0, { type, index: 2 ** 33, term: 5, body }, place);
  return bytes;
}

describe('a record', () => {
  test('is laid out as documented', () => {
    const bytes = encode();
    expect(bytes.toString('latin1', 0, 2)).toBe('CW');
    expect([bytes[2], bytes[3], bytes.readUInt32LE(4), bytes.readUInt32LE(8)]).toEqual([1, 3, 4, 7]);
    const numbers = [12, 20, 28, 36].map((at) => bytes.readBigUInt64LE(at));
    expect(numbers).toEqual([2n ** 40n + 1n, 2n ** 53n - 1n, 2n ** 33n, 5n]);
    expect(bytes.readUInt32LE(44)).toBe(0xdead_beef);
    expect(bytes.readUInt32LE(48)).toBe(crc32('body'));
    expect(bytes.readUInt32LE(52)).toBe(crc32(bytes.subarray(0, 52), 99));
    expect(bytes.toString('latin1', 56)).toBe('body\0\0\0\0');
    expect(bytes.length).toBe(64);
  });

  test('is read back as it was written', () => {
    const bytes = encode();
    const header = decodeHeader(bytes, 0, 99);
    expect(header).toMatchObject({ type: 'entry', endsBatch: false, length: 4, index: 2 ** 33, term: 5, segSeq: 7, prevCrc: 0xdead_beef });
    expect(header).toMatchObject({ batchSeq: place.batchSeq, recSeq: place.recSeq });
    expect(bodyIsIntact(header!, bytes.subarray(56, 60))).toBe(true);
  });

  test('with any bit of its header or body flipped is not taken for intact', () => {
    const bytes = encode();
    for (let bit = 0; bit < 60 * 8; bit++) {
      const damaged = Buffer.from(bytes);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      const header = decodeHeader(damaged, 0, 99);
      expect(header !== undefined && bodyIsIntact(header, damaged.subarray(56, 60)), `bit ${bit}`).toBe(false);
    }
  });

  test('of another log is not taken for ours', () => {
    expect(decodeHeader(encode(), 0, 98)).toBeUndefined();
  });

  test('cut anywhere in its header is not read', () => {
    const bytes = encode();
    for (let length = 0; length < headerBytes; length++) expect(decodeHeader(bytes.subarray(0, length), 0, 99)).toBeUndefined();
  });

  test('of an unknown version or type with an intact checksum is told apart from damage', () => {
    for (const [at, value] of [
      [2, 2],
      [3, 0x3f],
    ] as const) {
      const bytes = encode();
      bytes[at] = value;
      bytes.writeUInt32LE(crc32(bytes.subarray(0, 52), 99), 52);
      expect(() => decodeHeader(bytes, 0, 99)).toThrow(UnknownRecordError);
    }
  });

  test('that claims more than any record may hold is not believed', () => {
    const bytes = encode();
    bytes.writeUInt32LE(maxBodyBytes + 1, 4);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 52), 99), 52);
    expect(decodeHeader(bytes, 0, 99)).toBeUndefined();
  });

  test('is refused when it cannot be written whole', () => {
    const huge = Buffer.alloc(0);
    Object.defineProperty(huge, 'length', { value: maxBodyBytes + 1 });
    expect(() => encodeRecord(Buffer.alloc(64), 0, { type: 'entry', index: 1, term: 1, body: huge }, place)).toThrow(RangeError);
    for (const index of [-1, 0.5, 2 ** 53]) {
      expect(() => encodeRecord(Buffer.alloc(64), 0, { type: 'entry', index, term: 1, body: noBody }, place)).toThrow(RangeError);
    }
  });
});

describe('a batch', () => {
  test('fills whole blocks, chains its records, and marks the last one', () => {
    const writer = new BatchWriter(5, startOfLog);
    writer.begin(3);
    const entry = { index: 1, term: 1, type: 'normal', data: Buffer.alloc(5_000, 'x') } as const;
    for (const record of [entryRecord(entry), hardStateRecord({ term: 1, vote: 2n ** 64n - 1n, commit: 1 })]) writer.add(record);
    const bytes = Buffer.from(writer.finish());
    expect(bytes.length).toBe(8192);
    const first = decodeHeader(bytes, 0, 5)!;
    const second = decodeHeader(bytes, recordBytes(5_000), 5)!;
    expect([first.endsBatch, second.endsBatch]).toEqual([false, true]);
    expect([first.batchSeq, first.recSeq, second.batchSeq, second.recSeq]).toEqual([1, 1, 1, 2]);
    expect(second.prevCrc).toBe(first.headCrc);
    expect(writer.crc).toBe(second.headCrc);
    const end = recordBytes(5_000) + recordBytes(8);
    expect(bytes.subarray(end).every((byte) => byte === 0)).toBe(true);
    writer.begin(3);
    writer.add(batchHeadRecord({ offset: 8192, start: startOfLog, hardState: undefined }));
    expect(decodeHeader(Buffer.from(writer.finish()), 0, 5)).toMatchObject({
      batchSeq: 2,
      recSeq: 3,
      prevCrc: second.headCrc,
      endsBatch: true,
    });
  });

  test('carries what raft means through and back', () => {
    const confChange = { index: 4, term: 2, type: 'confChange', data: new TextEncoder().encode('add') } as const;
    const hardState = { term: 3, vote: 2n ** 63n, commit: 4 };
    const start = { batchSeq: place.batchSeq - 1, recSeq: place.recSeq - 1, crc: place.prevCrc, index: 40, term: 5 };
    const head = { offset: 2 ** 33, start, hardState };
    for (const [record, parsed] of [
      [entryRecord(confChange), { kind: 'entry', entry: confChange }],
      [hardStateRecord(hardState), { kind: 'hardState', hardState }],
      [snapshotRecord({ index: 9, term: 3 }), { kind: 'snapshot', snapshot: { index: 9, term: 3 } }],
      [batchHeadRecord(head), { kind: 'head', head }],
      [batchHeadRecord({ ...head, hardState: undefined }), { kind: 'head', head: { ...head, hardState: undefined } }],
    ] as const) {
      const bytes = Buffer.alloc(recordBytes(record.body.length));
      encodeRecord(bytes, 0, record, place);
      expect(parseLogRecord(decodeHeader(bytes, 0, 99)!, bytes.subarray(56, 56 + record.body.length))).toEqual(parsed);
    }
  });
});

test('the head of a segment is found in that segment only', () => {
  const start = { batchSeq: 10, recSeq: 20, crc: 30, index: 40, term: 5 };
  const head: SegmentHead = {
    offset: 0,
    start,
    hardState: { term: 5, vote: 1n, commit: 39 },
    identity: { clusterId: 1n, memberId: 2n ** 64n - 1n },
    salt: 77,
    link: { segSeq: 6, offset: 2 ** 33 },
  };
  const writer = new BatchWriter(77, start);
  writer.begin(7);
  writer.add(segmentHeadRecord(head));
  const bytes = Buffer.from(writer.finish());
  expect(readHead(bytes, 7)).toEqual(head);
  expect(readHead(bytes, 8)).toBeUndefined();
  expect(readHead(bytes.subarray(0, 90), 7)).toBeUndefined();
});
