import { ResponseHeader } from '@conclave/protocol';
import type { RangeResult } from './range-read.ts';
import type { Slicer } from './slicer.ts';
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
  const response = new ResponseBytes(header, result, headroom);
  response.put(result.kvs.length);
  return response.bytes;
}

// How many KeyValues are put in between two questions whether the slice is spent.
const kvsPerCheck = 256;

/** The same in slices: of a million KeyValues it would keep heartbeats waiting. `result` must not refer to storage. */
export async function encodeRangeResponseSliced(header: ResponseHeader, result: RangeResult, slicer: Slicer): Promise<Uint8Array> {
  const response = new ResponseBytes(header, result, 0);
  for (;;) {
    response.put(kvsPerCheck);
    if (response.isComplete) return response.bytes;
    if (slicer.isSpent()) await slicer.nextSlice();
  }
}

class ResponseBytes {
  readonly bytes: Uint8Array;
  readonly #kvs: readonly Uint8Array[];
  #at: number;
  #next = 0;

  constructor(header: ResponseHeader, result: RangeResult, headroom: number) {
    const head = encodeHeader(header);
    const tail = encodeTail(result);
    let size = headroom + fieldSize(head) + tail.length;
    for (const kv of result.kvs) size += fieldSize(kv);
    this.bytes = new Uint8Array(size);
    this.bytes.set(tail, size - tail.length);
    this.#kvs = result.kvs;
    this.#at = putField(this.bytes, headroom, headerTag, head);
  }

  get isComplete(): boolean {
    return this.#next === this.#kvs.length;
  }

  /** The next KeyValues, at most so many. */
  put(count: number): void {
    const end = Math.min(this.#kvs.length, this.#next + count);
    for (; this.#next < end; this.#next++) this.#at = putField(this.bytes, this.#at, kvTag, this.#kvs[this.#next] as Uint8Array);
  }
}

/** The fields after the KeyValues, absent where they have their default. */
function encodeTail({ more, count }: RangeResult): Uint8Array {
  const tail = new Uint8Array((more ? 2 : 0) + (count === 0 ? 0 : 1 + varintSize(count)));
  let at = 0;
  if (more) {
    tail[at++] = moreTag;
    tail[at++] = 1;
  }
  if (count > 0) {
    tail[at++] = countTag;
    putVarint(tail, at, count);
  }
  return tail;
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
