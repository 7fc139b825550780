import { crc32 } from 'node:zlib';
import { type BinaryWriter, PeerFormatError } from './binary.ts';

/*
 * What a connection between members carries, in both directions: frames.
 *
 *   u32 LE  length of the body
 *   u32 LE  CRC-32 of the body, begun with the length
 *   ..      body
 *
 * A frame without a body is a pulse: a sign of life, and nothing else.
 */

const headBytes = 8;

/** A frame as parts to be written one after the other. Long byte strings of the body are parts by themselves, and not copied. */
export function frameParts(writer: BinaryWriter, writeBody: (writer: BinaryWriter) => void): Uint8Array[] {
  const head = writer.hole(headBytes);
  let parts: Uint8Array[];
  try {
    writeBody(writer);
  } finally {
    // Also when the body could not be written: it must not stand before the next one.
    parts = writer.take();
  }
  let length = -headBytes;
  for (const part of parts) length += part.length;
  let crc = length;
  // The head is the first part, or its beginning.
  for (const [at, part] of parts.entries()) crc = crc32(at === 0 ? part.subarray(headBytes) : part, crc);
  head.writeUInt32LE(length, 0);
  head.writeUInt32LE(crc, 4);
  return parts;
}

/** The pulse. */
export const pulse: Uint8Array = new Uint8Array(headBytes);

/** Puts frames together from what a socket gives. */
export class FrameReader {
  /** Of a body that is still to come. */
  maxBytes: number;
  readonly #onFrame: (body: Uint8Array) => void;
  /** A head that was cut: its bytes so far. */
  readonly #head: Buffer = Buffer.alloc(headBytes);
  #headLength = 0;
  /** A body that was cut: room for all of it, how much is there, and the checksum of that. */
  #body: Buffer | undefined;
  #bodyLength = 0;
  #bodyCrc = 0;

  /** @param onFrame is given every body, empty for a pulse; a view of what was read, or the body's own buffer */
  constructor(maxBytes: number, onFrame: (body: Uint8Array) => void) {
    this.maxBytes = maxBytes;
    this.#onFrame = onFrame;
  }

  /** @throws PeerFormatError for what are no frames: nothing that follows can be read then */
  feed(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#body !== undefined) at = this.#fillBody(this.#body, chunk, at);
      else if (this.#headLength > 0 || chunk.length - at < headBytes) at = this.#fillHead(chunk, at);
      else at = this.#begin(chunk, at, chunk, at + headBytes);
    }
  }

  #fillHead(chunk: Buffer, at: number): number {
    const taken = chunk.copy(this.#head, this.#headLength, at);
    this.#headLength += taken;
    if (this.#headLength < headBytes) return at + taken;
    this.#headLength = 0;
    return this.#begin(this.#head, 0, chunk, at + taken);
  }

  /** The body of the head at `headAt` follows in `chunk` at `at`. */
  #begin(head: Buffer, headAt: number, chunk: Buffer, at: number): number {
    const length = head.readUInt32LE(headAt);
    if (length > this.maxBytes) throw new PeerFormatError(`a frame of ${length} bytes, at most ${this.maxBytes} are taken`);
    const end = at + length;
    if (end <= chunk.length) {
      const body = chunk.subarray(at, end);
      this.#finish(body, length === 0 ? 0 : crc32(body, length), head.readUInt32LE(headAt + 4));
      return end;
    }
    if (head !== this.#head) head.copy(this.#head, 0, headAt, headAt + headBytes);
    this.#body = Buffer.allocUnsafeSlow(length);
    this.#bodyLength = 0;
    this.#bodyCrc = length;
    return at < chunk.length ? this.#fillBody(this.#body, chunk, at) : at;
  }

  #fillBody(body: Buffer, chunk: Buffer, at: number): number {
    const taken = chunk.copy(body, this.#bodyLength, at);
    this.#bodyLength += taken;
    this.#bodyCrc = crc32(chunk.subarray(at, at + taken), this.#bodyCrc);
    if (this.#bodyLength === body.length) {
      this.#body = undefined;
      this.#finish(body, this.#bodyCrc, this.#head.readUInt32LE(4));
    }
    return at + taken;
  }

  #finish(body: Buffer, crc: number, expected: number): void {
    if (crc !== expected) throw new PeerFormatError('the checksum of a frame does not match');
    this.#onFrame(body);
  }
}
