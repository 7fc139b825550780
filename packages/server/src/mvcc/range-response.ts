import { ResponseHeader } from '@conclave/protocol';
import type { RangeResult } from './range-read.ts';
import { putVarint, varintSize } from './varint.ts';

const headerTag = 0x0a;
const kvTag = 0x12;
const moreTag = 0x18;
const countTag = 0x20;

/**
 * A RangeResponse in its wire form, put together from KeyValues that are in theirs: one allocation and one copy of each, nothing decoded.
 *
 * @param headroom - zero bytes to leave in front, as `MessageType.encode` has it
 */
export function encodeRangeResponse(header: ResponseHeader, result: RangeResult, headroom = 0): Uint8Array {
  const head = encodeHeader(header);
  const moreSize = result.more ? 2 : 0;
  const countSize = result.count === 0 ? 0 : 1 + varintSize(result.count);
  let size = headroom + fieldSize(head) + moreSize + countSize;
  for (const kv of result.kvs) size += fieldSize(kv);
  const bytes = new Uint8Array(size);
  let at = putField(bytes, headroom, headerTag, head);
  for (const kv of result.kvs) at = putField(bytes, at, kvTag, kv);
  if (result.more) {
    bytes[at++] = moreTag;
    bytes[at++] = 1;
  }
  if (countSize > 0) {
    bytes[at++] = countTag;
    putVarint(bytes, at, result.count);
  }
  return bytes;
}

let lastHeader = ResponseHeader.create();
let lastHeaderBytes: Uint8Array = ResponseHeader.encode(lastHeader);

/** Between two writes every read is headed alike. */
function encodeHeader(header: ResponseHeader): Uint8Array {
  const { clusterId, memberId, revision, raftTerm } = header;
  const last = lastHeader;
  if (last.revision !== revision || last.memberId !== memberId || last.clusterId !== clusterId || last.raftTerm !== raftTerm) {
    lastHeader = { clusterId, memberId, revision, raftTerm };
    lastHeaderBytes = ResponseHeader.encode(header);
  }
  return lastHeaderBytes;
}

function fieldSize(contents: Uint8Array): number {
  return 1 + varintSize(contents.length) + contents.length;
}

function putField(bytes: Uint8Array, start: number, tag: number, contents: Uint8Array): number {
  bytes[start] = tag;
  const at = putVarint(bytes, start + 1, contents.length);
  bytes.set(contents, at);
  return at + contents.length;
}
