/** Bytes before every message: a flag (1: compressed) and the length, 32 bits big endian. */
export const prefixLength = 5;

const firstPiece = 16 * 1024;

/**
 * Cuts a stream of bytes into gRPC messages. One buffer per message: it grows as bytes arrive, so that what a peer announces costs nothing until
 * it is sent, and how small the pieces are does not matter. The refusal's text is gRPC's.
 */
export class MessageAssembler {
  readonly #maxBytes: number;
  readonly #prefix: Buffer = Buffer.alloc(prefixLength);
  #prefixFill = 0;
  #message: Buffer | undefined;
  #fill = 0;
  #end = 0;

  /** @param maxBytes the longest message taken, without its prefix, as it is on the wire. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The messages completed by `data`, each with its prefix. Throws when one is announced that is longer than allowed. */
  write(data: Buffer): Buffer[] {
    const whole: Buffer[] = [];
    let at = 0;
    while (at < data.length) {
      at = this.#message === undefined ? this.#takePrefix(data, at) : this.#takeBody(this.#message, data, at);
      if (this.#message !== undefined && this.#fill === this.#end) {
        whole.push(this.#message.subarray(0, this.#end));
        this.#message = undefined;
      }
    }
    return whole;
  }

  /** True in the middle of a message: a stream that ends now is cut short. */
  get isPartial(): boolean {
    return this.#prefixFill > 0 || this.#message !== undefined;
  }

  #takePrefix(data: Buffer, at: number): number {
    const taken = data.copy(this.#prefix, this.#prefixFill, at, at + prefixLength - this.#prefixFill);
    this.#prefixFill += taken;
    if (this.#prefixFill === prefixLength) this.#begin();
    return at + taken;
  }

  #begin(): void {
    const length = this.#prefix.readUInt32BE(1);
    if (length > this.#maxBytes) throw new Error(`grpc: received message larger than max (${length} vs. ${this.#maxBytes})`);
    this.#end = prefixLength + length;
    this.#message = Buffer.allocUnsafe(Math.min(this.#end, firstPiece));
    this.#prefix.copy(this.#message);
    this.#fill = prefixLength;
    this.#prefixFill = 0;
  }

  #takeBody(message: Buffer, data: Buffer, at: number): number {
    const wanted = Math.min(this.#end - this.#fill, data.length - at);
    const room = this.#fill + wanted <= message.length ? message : this.#grow(message, this.#fill + wanted);
    data.copy(room, this.#fill, at, at + wanted);
    this.#fill += wanted;
    return at + wanted;
  }

  #grow(message: Buffer, least: number): Buffer {
    const larger = Buffer.allocUnsafe(Math.min(this.#end, Math.max(least, message.length * 2)));
    message.copy(larger, 0, 0, this.#fill);
    this.#message = larger;
    return larger;
  }
}
