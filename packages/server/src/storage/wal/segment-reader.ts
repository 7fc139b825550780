import type { DiskFile } from '../disk.ts';

/** Reads a segment through one window, so that most records are had without going to the disk. */
export class SegmentReader {
  readonly #file: DiskFile;
  /** Bytes in the file. Nothing is ever allocated for what a damaged length claims beyond it. */
  readonly size: number;
  readonly #windowBytes: number;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;

  constructor(file: DiskFile, size: number, windowBytes: number = 1024 * 1024) {
    this.#file = file;
    this.size = size;
    this.#windowBytes = windowBytes;
  }

  /** A view of exactly the bytes asked for, or undefined when they are not in the window. It stays valid: windows are never reused. */
  peek(at: number, length: number): Buffer | undefined {
    const from = at - this.#windowAt;
    return from >= 0 && from + length <= this.#window.length ? this.#window.subarray(from, from + length) : undefined;
  }

  /** Moves the window so that it holds the bytes asked for; false when the file ends before. */
  async load(at: number, length: number): Promise<boolean> {
    if (at + length > this.size) return false;
    const bytes = await this.#file.read(at, Math.min(this.size - at, Math.max(length, this.#windowBytes)));
    this.#window = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#windowAt = at;
    return bytes.length >= length;
  }
}
