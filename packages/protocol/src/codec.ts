/**
 * The hand-written half of the codec: the types every generated message implements, and the reader and writer the
 * generated code drives. DESIGN.md says why there is a codec of our own.
 *
 * Imports nothing. Knows the protobuf wire format and no message.
 */

/**
 * What a caller may hand to {@link MessageType.encode} and {@link MessageType.create}: any part of the message, at any
 * depth. A field left out, or given as undefined, has its default.
 *
 * @public
 */
export type Init<T> = T extends Uint8Array | bigint | number | string | boolean | undefined
  ? T
  : T extends readonly (infer Element)[]
    ? readonly Init<Element>[]
    : { readonly [Key in keyof T]?: Init<T[Key]> | undefined };

/**
 * Encodes and decodes one kind of message.
 *
 * @public
 */
export interface MessageType<T> {
  /** The full protobuf name, such as `etcdserverpb.PutRequest`. */
  readonly typeName: string;

  /** The whole message, with defaults for what `init` leaves out. Bytes are referred to, not copied. */
  create(init?: Init<T>): T;

  /**
   * The wire form. Its memory is never written again, but small messages share a buffer with others: send the view, not
   * `.buffer`, and do not transfer it. When several members of one oneof are given, the one declared last is written.
   *
   * @param headroom - zero bytes to leave in front of the message, so that a frame header needs no second copy.
   * @throws RangeError for a number or bigint which its field cannot hold.
   */
  encode(message: Init<T>, headroom?: number): Uint8Array;

  /**
   * Reads the wire form. Every field of the result is present.
   *
   * Bytes fields are views of `bytes`: they change when it changes and keep all of it alive. Whoever stores a key or a
   * value for longer than the request must copy it.
   *
   * @throws DecodeError when the bytes are not such a message.
   */
  decode(bytes: Uint8Array): T;
}

/**
 * One remote procedure.
 *
 * @public
 */
export interface MethodDescriptor<I, O, ClientStreaming extends boolean = boolean, ServerStreaming extends boolean = boolean> {
  /** The name on the wire, such as `HashKV`. */
  readonly name: string;
  /** The HTTP/2 path, such as `/etcdserverpb.Maintenance/HashKV`. */
  readonly path: string;
  readonly input: MessageType<I>;
  readonly output: MessageType<O>;
  readonly clientStreaming: ClientStreaming;
  readonly serverStreaming: ServerStreaming;
}

/**
 * A service and its procedures, by their names in camelCase.
 *
 * @public
 */
export interface ServiceDescriptor {
  readonly typeName: string;
  readonly methods: Readonly<Record<string, MethodDescriptor<unknown, unknown>>>;
}

/**
 * The bytes are not a message of the type asked for.
 *
 * @public
 */
export class DecodeError extends Error {
  readonly code = 'malformed-message';
  override readonly name = 'DecodeError';
}

/** The one default of every bytes field. */
export const emptyBytes: Uint8Array = new Uint8Array(0);

/**
 * Messages nested deeper than this are refused: a decoder must not exhaust the stack on a few kilobytes of input. A txn of 128 operations, each
 * in a txn of its own, has 257 levels as a request and two more in what answers it.
 */
const maxDepth = 300;

const maxSafe = Number.MAX_SAFE_INTEGER;
const two32 = 4294967296;

// 64-bit values pass between bigint and two halves through these, which costs no intermediate bigint.
const halves: Uint32Array = new Uint32Array(2);
const signed: BigInt64Array = new BigInt64Array(halves.buffer);
const unsigned: BigUint64Array = new BigUint64Array(halves.buffer);
unsigned[0] = 1n;
const lowHalf: 0 | 1 = halves[0] === 1 ? 0 : 1;
const highHalf: 0 | 1 = lowHalf === 0 ? 1 : 0;

const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const utf8Encoder = new TextEncoder();

// Below this many bytes a loop beats the text decoder's call overhead.
const shortString = 32;

/**
 * A cursor over the wire form of one message.
 *
 * Invariant: 0 <= pos <= limit <= bytes.length, where limit is the end of the innermost message being read. Every method
 * checks against limit before it touches a byte.
 *
 * @internal
 */
export class Reader {
  pos = 0;
  limit: number;
  private readonly bytes: Uint8Array;
  private depth = 0;
  // The halves of the last varint that did not fit one byte.
  private low = 0;
  private high = 0;
  // Asked for only once a bytes field is met: the runtime keeps small arrays inline until somebody wants their buffer.
  private buffer: ArrayBufferLike | undefined;
  private offset = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.limit = bytes.length;
  }

  /** The next field number and wire type. */
  tag(): number {
    const pos = this.pos;
    if (pos < this.limit) {
      const byte = this.bytes[pos] as number;
      if (byte < 0x80) {
        this.pos = pos + 1;
        if (byte < 8) throw malformed('field number 0');
        return byte;
      }
    }
    this.varint();
    if (this.high !== 0) throw malformed('field number out of range');
    const tag = this.low >>> 0;
    if (tag < 8) throw malformed('field number 0');
    return tag;
  }

  bool(): boolean {
    const pos = this.pos;
    if (pos < this.limit) {
      const byte = this.bytes[pos] as number;
      if (byte < 0x80) {
        this.pos = pos + 1;
        return byte !== 0;
      }
    }
    this.varint();
    return (this.low | this.high) !== 0;
  }

  /** An int32 or enum value: like every protobuf decoder, keeps the low 32 bits of what was sent. */
  int32(): number {
    const pos = this.pos;
    if (pos < this.limit) {
      const byte = this.bytes[pos] as number;
      if (byte < 0x80) {
        this.pos = pos + 1;
        return byte;
      }
    }
    this.varint();
    return this.low | 0;
  }

  uint32(): number {
    return this.int32() >>> 0;
  }

  /**
   * An int64 that counts something. What does not fit a safe integer becomes the nearest that does: real revisions and
   * terms stay far below 2^53, so a comparison with one of them still comes out as the sender meant it.
   */
  int64(): number {
    const pos = this.pos;
    if (pos < this.limit) {
      const byte = this.bytes[pos] as number;
      if (byte < 0x80) {
        this.pos = pos + 1;
        return byte;
      }
    }
    this.varint();
    const high = this.high | 0;
    if (high > 0x1fffff) return maxSafe;
    if (high < -0x200000) return -maxSafe;
    const value = high * two32 + (this.low >>> 0);
    return Math.max(value, -maxSafe);
  }

  /** A uint64 that counts something; saturates like {@link int64}. */
  uint64(): number {
    const pos = this.pos;
    if (pos < this.limit) {
      const byte = this.bytes[pos] as number;
      if (byte < 0x80) {
        this.pos = pos + 1;
        return byte;
      }
    }
    this.varint();
    const high = this.high >>> 0;
    return high > 0x1fffff ? maxSafe : high * two32 + (this.low >>> 0);
  }

  /** An int64 that names something, exact. */
  int64Id(): bigint {
    this.varint();
    if (this.high === 0) return BigInt(this.low >>> 0);
    halves[lowHalf] = this.low;
    halves[highHalf] = this.high;
    return signed[0] as bigint;
  }

  /** A uint64 that names something, exact. */
  uint64Id(): bigint {
    this.varint();
    if (this.high === 0) return BigInt(this.low >>> 0);
    halves[lowHalf] = this.low;
    halves[highHalf] = this.high;
    return unsigned[0] as bigint;
  }

  /** A view of the next bytes field. Always a plain Uint8Array, whatever subclass the input is. */
  view(): Uint8Array {
    const length = this.length();
    if (length === 0) return emptyBytes;
    const start = this.pos;
    this.pos = start + length;
    if (this.buffer === undefined) {
      this.buffer = this.bytes.buffer;
      this.offset = this.bytes.byteOffset;
    }
    return new Uint8Array(this.buffer, this.offset + start, length);
  }

  string(): string {
    const length = this.length();
    if (length === 0) return '';
    const { bytes, pos } = this;
    const end = pos + length;
    this.pos = end;
    if (length <= shortString) {
      let text = '';
      let at = pos;
      for (; at < end; at++) {
        const byte = bytes[at] as number;
        if (byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (at === end) return text;
    }
    try {
      return utf8Decoder.decode(bytes.subarray(pos, end));
    } catch (cause) {
      throw malformed('invalid UTF-8 in a string', cause);
    }
  }

  /** Narrows the reader to the message that starts here; give the result to {@link leave} once it is read. */
  enter(): number {
    const length = this.length();
    if (++this.depth > maxDepth) throw malformed(`more than ${maxDepth} levels of messages`);
    const outer = this.limit;
    this.limit = this.pos + length;
    return outer;
  }

  leave(outer: number): void {
    this.depth--;
    this.limit = outer;
  }

  /** Narrows the reader to a packed list; ends with {@link unpack}. */
  pack(): number {
    const length = this.length();
    const outer = this.limit;
    this.limit = this.pos + length;
    return outer;
  }

  unpack(outer: number): void {
    this.limit = outer;
  }

  /** Steps over a field this version does not know. */
  skip(tag: number): void {
    switch (tag & 7) {
      case 0:
        this.varint();
        return;
      case 1:
        this.advance(8);
        return;
      case 2:
        this.advance(this.length());
        return;
      case 5:
        this.advance(4);
        return;
      default:
        // Groups (3 and 4) never were part of this API, and 6 and 7 are no wire types.
        throw malformed(`wire type ${tag & 7}`);
    }
  }

  /** What to throw when the field is known but not the way it was sent. */
  wrongWireType(tag: number, typeName: string): DecodeError {
    return malformed(`wire type ${tag & 7} for field ${tag >>> 3} of ${typeName}`);
  }

  private advance(count: number): void {
    if (count > this.limit - this.pos) throw malformed('truncated');
    this.pos += count;
  }

  /** The length in front of a string, bytes, or message, known to lie within the limit. */
  private length(): number {
    const pos = this.pos;
    let length: number;
    if (pos < this.limit && (this.bytes[pos] as number) < 0x80) {
      length = this.bytes[pos] as number;
      this.pos = pos + 1;
    } else {
      this.varint();
      if (this.high !== 0) throw malformed('truncated');
      length = this.low >>> 0;
    }
    if (length > this.limit - this.pos) throw malformed('truncated');
    return length;
  }

  /** Any varint, into `low` and `high`. */
  private varint(): void {
    const { bytes, limit } = this;
    let pos = this.pos;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      if (pos >= limit) throw malformed('truncated');
      const byte = bytes[pos++] as number;
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.pos = pos;
        this.low = low;
        this.high = 0;
        return;
      }
    }
    if (pos >= limit) throw malformed('truncated');
    let byte = bytes[pos++] as number;
    low |= (byte & 0x0f) << 28;
    high = (byte & 0x70) >> 4;
    for (let shift = 3; byte >= 0x80; shift += 7) {
      if (pos >= limit) throw malformed('truncated');
      byte = bytes[pos++] as number;
      // The tenth byte has room for the 64th bit and nothing else.
      if (shift === 31 && byte > 1) throw malformed('varint longer than 64 bits');
      high |= (byte & 0x7f) << shift;
    }
    this.pos = pos;
    this.low = low;
    this.high = high;
  }
}

function malformed(what: string, cause?: unknown): DecodeError {
  return new DecodeError(`malformed message: ${what}`, cause === undefined ? undefined : { cause });
}

const initialSize = 4096;
// A writer that once carried a snapshot chunk or a huge range must not hold on to that memory for ever.
const keptSizeMax = 1 << 20;
// Below this many bytes a loop beats a call of `set`.
const shortCopy = 32;

// Small results are cut from a common slab: an ArrayBuffer for each would cost more than encoding the message does.
// Slabs are never reused, so a result stays what it is for as long as anybody holds it.
const slabSize = 16384;
const slabShareMax = 2048;
let slab = new ArrayBuffer(slabSize);
let slabUsed = 0;

function allocate(length: number): Uint8Array {
  if (length > slabShareMax) return new Uint8Array(length);
  if (slabUsed + length > slabSize) {
    slab = new ArrayBuffer(slabSize);
    slabUsed = 0;
  }
  const start = slabUsed;
  slabUsed = start + length;
  return new Uint8Array(slab, start, length);
}

/**
 * Writes one message from its end to its start, so that the length of a nested message is known by the time its prefix
 * is due and nothing has to be measured beforehand or moved afterwards. Values therefore come before their tags, and
 * fields and list elements in reverse order.
 *
 * @internal
 */
export class Writer {
  private bytes: Uint8Array = new Uint8Array(initialSize);
  private pos: number = initialSize;

  /** Bytes written so far; the difference of two sizes is the length of what came between. */
  size(): number {
    return this.bytes.length - this.pos;
  }

  /** The message, with `headroom` zero bytes before it. Leaves the writer empty. */
  finish(headroom: number): Uint8Array {
    const { bytes, pos } = this;
    const length = bytes.length - pos;
    const result = allocate(headroom + length);
    if (length < shortCopy) for (let at = 0; at < length; at++) result[headroom + at] = bytes[pos + at] as number;
    else result.set(bytes.subarray(pos), headroom);
    return result;
  }

  reset(): void {
    if (this.bytes.length > keptSizeMax) this.bytes = new Uint8Array(initialSize);
    this.pos = this.bytes.length;
  }

  /** A value below 2^31 that is not negative: tags, lengths, small numbers. */
  small(value: number): void {
    if (this.pos < 5) this.grow(5);
    const bytes = this.bytes;
    if (value < 0x80) {
      bytes[--this.pos] = value;
    } else if (value < 0x4000) {
      const pos = this.pos - 2;
      bytes[pos] = (value & 0x7f) | 0x80;
      bytes[pos + 1] = value >>> 7;
      this.pos = pos;
    } else {
      const size = value < 0x200000 ? 3 : value < 0x10000000 ? 4 : 5;
      let pos = this.pos - size;
      this.pos = pos;
      for (let rest = value; ; rest >>>= 7) {
        if (rest < 0x80) {
          bytes[pos] = rest;
          return;
        }
        bytes[pos++] = (rest & 0x7f) | 0x80;
      }
    }
  }

  bool(value: boolean): void {
    this.small(value ? 1 : 0);
  }

  int32(value: number): void {
    if ((value | 0) !== value) throw outOfRange(value, 'int32');
    if (value >= 0) this.small(value);
    else this.long(value, -1);
  }

  uint32(value: number): void {
    if (value >>> 0 !== value) throw outOfRange(value, 'uint32');
    if (value < 0x80000000) this.small(value);
    else this.long(value, 0);
  }

  int64(value: number): void {
    if (value >= 0 && (value | 0) === value) {
      this.small(value);
      return;
    }
    if (!Number.isSafeInteger(value)) throw outOfRange(value, 'int64 within the safe integers');
    this.long(value, Math.floor(value / two32));
  }

  uint64(value: number): void {
    if (value >= 0 && (value | 0) === value) {
      this.small(value);
      return;
    }
    if (!Number.isSafeInteger(value) || value < 0) throw outOfRange(value, 'uint64 within the safe integers');
    this.long(value, Math.floor(value / two32));
  }

  int64Id(value: bigint): void {
    signed[0] = value;
    if (signed[0] !== value) throw outOfRange(value, 'int64');
    this.long(halves[lowHalf] as number, halves[highHalf] as number);
  }

  uint64Id(value: bigint): void {
    unsigned[0] = value;
    if (unsigned[0] !== value) throw outOfRange(value, 'uint64');
    this.long(halves[lowHalf] as number, halves[highHalf] as number);
  }

  /** The contents of a bytes field and their length. */
  view(value: Uint8Array): void {
    const length = value.length;
    if (this.pos < length) this.grow(length);
    this.pos -= length;
    if (length < shortCopy) {
      const { bytes, pos } = this;
      for (let at = 0; at < length; at++) bytes[pos + at] = value[at] as number;
    } else {
      this.bytes.set(value, this.pos);
    }
    this.small(length);
  }

  /** The UTF-8 of a string and its length; a lone surrogate is written as U+FFFD. */
  string(value: string): void {
    const length = value.length;
    if (length > shortString) {
      this.view(utf8Encoder.encode(value));
      return;
    }
    if (this.pos < length) this.grow(length);
    const bytes = this.bytes;
    const start = this.pos - length;
    for (let at = 0; at < length; at++) {
      const unit = value.charCodeAt(at);
      if (unit >= 0x80) {
        this.view(utf8Encoder.encode(value));
        return;
      }
      bytes[start + at] = unit;
    }
    this.pos = start;
    this.small(length);
  }

  /** A varint given as two halves, of which only the low 32 bits each count. */
  private long(low: number, high: number): void {
    let lo = low >>> 0;
    let hi = high >>> 0;
    if (hi === 0 && lo < 0x80000000) {
      this.small(lo);
      return;
    }
    let size = 5;
    if (hi > 0x7) for (let rest = hi >>> 3; rest !== 0; rest >>>= 7) size++;
    if (this.pos < size) this.grow(size);
    const bytes = this.bytes;
    let pos = this.pos - size;
    this.pos = pos;
    for (; size > 1; size--) {
      bytes[pos++] = (lo & 0x7f) | 0x80;
      lo = ((lo >>> 7) | (hi << 25)) >>> 0;
      hi >>>= 7;
    }
    bytes[pos] = lo;
  }

  private grow(needed: number): void {
    const used = this.size();
    let length = this.bytes.length * 2;
    while (length - used < needed) length *= 2;
    const larger = new Uint8Array(length);
    larger.set(this.bytes.subarray(this.pos), length - used);
    this.bytes = larger;
    this.pos = length - used;
  }
}

function outOfRange(value: number | bigint, kind: string): RangeError {
  return new RangeError(`${value} is not an ${kind}`);
}

// Encoding is synchronous, so one writer serves the process. It is taken out while in use: should a getter on a message
// encode another message, that one gets a writer of its own.
let idle: Writer | undefined;

/**
 * Encodes with the shared writer.
 *
 * @internal
 */
export function encodeWith<T>(write: (writer: Writer, message: Init<T>) => void, message: Init<T>, headroom = 0): Uint8Array {
  const writer = idle ?? new Writer();
  idle = undefined;
  try {
    write(writer, message);
    return writer.finish(headroom);
  } finally {
    writer.reset();
    idle = writer;
  }
}
