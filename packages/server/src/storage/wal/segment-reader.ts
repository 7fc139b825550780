import type { DiskFile } from '../disk.ts';

/** Reads a segment through one window, so that most records are had without going to the disk. */
export class SegmentReader {
  readonly #file: DiskFile;
  /** Bytes in the file. Nothing is ever allocated for what a damaged length claims beyond it. */
  readonly size: number;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;

  constructor(file: DiskFile, size: number) {
    this.#file = file;
    this.size = size;
  }

  /** A view of exactly the bytes asked for when the window holds them. */
  peek(at: number, length: number): Buffer | undefined {
    const from = at - this.#windowAt;
    return from >= 0 && from + length <= this.#window.length ? this.#window.subarray(from, from + length) : undefined;
  }

  /** A view of the bytes asked for, or undefined when the file ends before. Valid until the next read. */
  async read(at: number, length: number): Promise<Buffer | undefined> {
    if (at + length > this.size) return undefined;
    const bytes = await this.#file.read(at, Math.min(this.size - at, Math.max(length, windowBytes)));
    this.#window = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#windowAt = at;
    return this.peek(at, length);
  }
}

const windowBytes = 1024 * 1024;
