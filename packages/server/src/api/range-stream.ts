import { type RangeRequest, RangeRequest_SortOrder, RangeRequest_SortTarget, type RangeStreamResponse } from '@conclave/protocol';
import { checkRange } from '../apply/check.ts';
import { failure } from '../mvcc/failure.ts';
import { encodeRangeResponse } from '../mvcc/range-response.ts';
import { putVarint, varintSize } from '../mvcc/varint.ts';
import { CallSlicer } from './call-slicer.ts';
import { headerAt } from './header.ts';
import type { ServedMember } from './member.ts';
import { afterBarrier } from './outcome.ts';
import type { ServedStream } from './route.ts';

// Both the field `range_response` of a RangeStreamResponse and the field `kvs` of a RangeResponse are length-delimited.
const rangeResponseTag = 0x0a;
const kvTag = 0x12;

const firstChunkKvs = 10;

/**
 * Answers one range in chunks of one revision: the first of ten keys, the others growing or shrinking towards the size of the largest request.
 * Header, count and `more` come with the last.
 */
export function serveRangeStream(member: ServedMember, stream: ServedStream<RangeRequest, RangeStreamResponse>): void {
  let isAsked = false;
  stream.onMessage((request) => {
    if (isAsked) return;
    isAsked = true;
    check(request);
    const send = (): Promise<void> => new RangeStreaming(member, stream, request).run();
    const sent = request.serializable ? send() : afterBarrier(member, send);
    Promise.resolve(sent).then(
      () => stream.end(),
      (error: unknown) => stream.fail(error),
    );
  });
}

function check(request: RangeRequest): void {
  checkRange(request);
  const { sortOrder, sortTarget, minModRevision, maxModRevision, minCreateRevision, maxCreateRevision } = request;
  // Ascending keys are the order in which it reads anyway.
  if (sortOrder === RangeRequest_SortOrder.DESCEND || sortTarget !== RangeRequest_SortTarget.KEY) throw failure('range-stream-sort');
  if (minModRevision !== 0 || maxModRevision !== 0 || minCreateRevision !== 0 || maxCreateRevision !== 0) {
    throw failure('range-stream-filters');
  }
}

class RangeStreaming {
  readonly #member: ServedMember;
  readonly #stream: ServedStream<RangeRequest, RangeStreamResponse>;
  readonly #request: RangeRequest;
  #wake: () => void = () => {};

  constructor(member: ServedMember, stream: ServedStream<RangeRequest, RangeStreamResponse>, request: RangeRequest) {
    this.#member = member;
    this.#stream = stream;
    this.#request = request;
    stream.onDrain(() => this.#wake());
    stream.onClosed(() => this.#wake());
  }

  async run(): Promise<void> {
    const { mvcc, runtime, limits } = this.#member;
    const { revision } = mvcc;
    const parts = mvcc.rangeParts(this.#request, new CallSlicer(runtime, this.#stream));
    try {
      for (let maxKvs = firstChunkKvs; this.#stream.isOpen; ) {
        const { kvs, end } = await parts.next(maxKvs);
        const response = end === undefined ? encodeKvs(kvs) : encodeRangeResponse(headerAt(this.#member, revision), { kvs, ...end });
        const room = this.#stream.write(wrap(response));
        if (end !== undefined) return;
        if (!room) await this.#drained();
        maxKvs = nextSize(maxKvs, response.length, limits.maxRequestBytes);
      }
    } finally {
      parts.close();
    }
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stream.isOpen) this.#wake = resolve;
      else resolve();
    });
  }
}

/** Keys for the next chunk, so that its size stays between half of the target and the target. */
function nextSize(kvs: number, bytes: number, targetBytes: number): number {
  if (bytes > targetBytes) return Math.max(1, Math.floor(kvs / 2));
  return bytes * 2 <= targetBytes ? kvs * 2 : kvs;
}

/** A RangeResponse with KeyValues and nothing else. */
function encodeKvs(kvs: readonly Uint8Array[]): Uint8Array {
  return concatFields(kvTag, kvs);
}

function wrap(rangeResponse: Uint8Array): Uint8Array {
  return concatFields(rangeResponseTag, [rangeResponse]);
}

function concatFields(tag: number, contents: readonly Uint8Array[]): Uint8Array {
  const size = contents.reduce((sum, { length }) => sum + 1 + varintSize(length) + length, 0);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const content of contents) {
    bytes[at] = tag;
    at = putVarint(bytes, at + 1, content.length);
    bytes.set(content, at);
    at += content.length;
  }
  return bytes;
}
