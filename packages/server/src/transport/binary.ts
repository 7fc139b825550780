/** The numbers, ids and byte strings that peer packets are made of, and the bounds that hold when they come from a network. */

/** Bytes from a peer that make no packet. The connection they came over is not to be trusted any further; the member is unharmed. */
export class PeerFormatError extends Error {
  readonly code = 'peer-format';

  constructor(message: string) {
    super(message);
    this.name = 'PeerFormatError';
  }
}

/** Of 2^53-1. */
const varintBytesMax = 8;
const slabBytes = 64 * 1024;
/** From here on byte strings are not copied but become parts of their own. */
const sharedBytesMin = 16 * 1024;
const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Writes forward, each byte once. Small things are cut from slabs that are never used twice, so what was taken may be read at any time later. Long
 * byte strings are handed on as they are: whoever gives one must not change it afterwards.
 */
export class BinaryWriter {
  #parts: Uint8Array[] = [];
  #slab: Buffer = Buffer.alloc(0);
  /** What is written to the slab and not yet a part. */
  #start = 0;
  #end = 0;

  /** A place in what is written, filled in by the caller later. */
  hole(length: number): Buffer {
    this.#reserve(length);
    this.#end += length;
    return this.#slab.subarray(this.#end - length, this.#end);
  }

  byte(value: number): void {
    this.#reserve(1);
    this.#slab[this.#end++] = value;
  }

  flag(value: boolean): void {
    this.byte(value ? 1 : 0);
  }

  /** 0 to 2^53-1, as a varint. */
  number(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} does not fit a 53-bit field`);
    this.#reserve(varintBytesMax);
    let rest = value;
    for (; rest >= 0x80000000; rest = Math.floor(rest / 0x80)) this.#slab[this.#end++] = (rest % 0x80) | 0x80;
    for (; rest >= 0x80; rest >>>= 7) this.#slab[this.#end++] = (rest & 0x7f) | 0x80;
    this.#slab[this.#end++] = rest;
  }

  /** How many things follow. */
  count(max: number, value: number): void {
    if (value > max) throw new RangeError(`a packet has room for ${max} of them, not for ${value}`);
    this.number(value);
  }

  /** 64 bits. */
  id(value: bigint): void {
    this.#reserve(8);
    this.#end = this.#slab.writeBigUInt64LE(value, this.#end);
  }

  /** With its length before it. */
  data(value: Uint8Array): void {
    this.number(value.length);
    if (value.length >= sharedBytesMin) {
      this.#endPart();
      this.#parts.push(value);
      return;
    }
    this.#reserve(value.length);
    this.#slab.set(value, this.#end);
    this.#end += value.length;
  }

  /** UTF-8, with its length before it. */
  text(value: string): void {
    this.data(value === '' ? noBytes : textEncoder.encode(value));
  }

  /** What was written since the last time, in order. */
  take(): Uint8Array[] {
    this.#endPart();
    const parts = this.#parts;
    this.#parts = [];
    return parts;
  }

  #endPart(): void {
    if (this.#end > this.#start) this.#parts.push(this.#slab.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }

  #reserve(length: number): void {
    if (this.#end + length <= this.#slab.length) return;
    this.#endPart();
    this.#slab = Buffer.allocUnsafeSlow(slabBytes);
    this.#start = 0;
    this.#end = 0;
  }
}

const noBytes: Uint8Array = new Uint8Array(0);

/** Reads forward. Every method throws {@link PeerFormatError} for what cannot be; none reserves memory that the bytes do not back. */
export class BinaryReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  byte(): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw new PeerFormatError('a packet ends too early');
    this.#at += 1;
    return value;
  }

  flag(): boolean {
    const value = this.byte();
    if (value > 1) throw new PeerFormatError(`${value} is no truth value`);
    return value === 1;
  }

  number(): number {
    let value = 0;
    let scale = 1;
    for (let length = 1; length <= varintBytesMax; length += 1) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw new PeerFormatError('a number exceeds 2^53-1');
        return value;
      }
      scale *= 0x80;
    }
    throw new PeerFormatError('a number exceeds 2^53-1');
  }

  id(): bigint {
    this.#need(8);
    this.#at += 8;
    return this.#bytes.readBigUInt64LE(this.#at - 8);
  }

  /** A view of the packet. */
  data(): Uint8Array {
    const length = this.number();
    this.#need(length);
    const start = this.#at;
    this.#at += length;
    return new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + start, length);
  }

  text(): string {
    const bytes = this.data();
    if (bytes.length === 0) return '';
    try {
      return textDecoder.decode(bytes);
    } catch (cause) {
      throw new PeerFormatError(`text that is not UTF-8: ${String(cause)}`);
    }
  }

  /** As many as the count before them says, at most `max`. Room is made one by one: a count that lies ends at the end of the packet. */
  list<T>(max: number, item: () => T): T[] {
    const count = this.number();
    if (count > max) throw new PeerFormatError(`a list of ${count} is longer than ${max}`);
    const items: T[] = [];
    for (let left = count; left > 0; left -= 1) items.push(item());
    return items;
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw new PeerFormatError(`${this.#bytes.length - this.#at} bytes follow a packet`);
  }

  #need(length: number): void {
    if (this.#at + length > this.#bytes.length) throw new PeerFormatError('a packet ends too early');
  }
}
