import type { Runtime } from '@conclave/wire';
import type { Disk, DiskFile } from '../disk.ts';
import { segmentPath, unfinishedPath } from './segment.ts';

/** A segment file under its own name, written over once and durable, that no record was written to. */
export interface BlankSegment {
  readonly segSeq: number;
  readonly file: DiskFile;
  readonly size: number;
}

/** A segment the log has no use for any more. */
export interface UsedSegment {
  readonly segSeq: number;
  readonly size: number;
}

export interface SegmentSupplyOptions {
  readonly disk: Disk;
  readonly dir: string;
  readonly runtime: Runtime;
  /** A write failed for another reason than a full disk. */
  readonly failed: (error: Error) => void;
}

/**
 * Prepares the next segment ahead of its use, beside the log and never in its way: an old one under a new name, or a new file filled with
 * zeroes. Both cost a flush less than a growing file does, as the file system has nothing to note in its journal.
 *
 * A full disk is no error here: the log goes on in the segment it has, which then grows, until that fails.
 */
export class SegmentSupply {
  readonly #options: SegmentSupplyOptions;
  readonly #used: UsedSegment[] = [];
  #ready: BlankSegment | undefined;
  #preparing: Promise<void> | undefined;
  #removals: Promise<void> = Promise.resolve();
  #notBefore = 0;
  #isClosed = false;

  constructor(options: SegmentSupplyOptions) {
    this.#options = options;
  }

  /** The blank segment, if it is ready: the caller owns it from now on. */
  take(): BlankSegment | undefined {
    const ready = this.#ready;
    this.#ready = undefined;
    return ready;
  }

  get isReady(): boolean {
    return this.#ready !== undefined;
  }

  /** Starts making segment `segSeq` of `size` bytes, unless one is ready or being made. */
  prepare(segSeq: number, size: number): void {
    if (this.#isClosed || this.#ready !== undefined || this.#preparing !== undefined) return;
    if (this.#options.runtime.monotonic() < this.#notBefore) return;
    this.#preparing = this.#make(segSeq, size)
      .catch((error: unknown) => this.#refused(error))
      .finally(() => {
        this.#preparing = undefined;
      });
  }

  /** Takes over the file of a segment nobody needs any more: to be used again, or removed. `size` is what a new one would have. */
  recycle(segment: UsedSegment, size: number): void {
    if (segment.size >= size && this.#used.length < maxUsed) this.#used.push(segment);
    else this.#remove(segment.segSeq);
  }

  /** Waits for what is under way. A blank segment stays on disk; the next open removes it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#preparing;
    await this.#removals;
    await this.#ready?.file.close();
    this.#ready = undefined;
  }

  async #make(segSeq: number, size: number): Promise<void> {
    const { disk, dir } = this.#options;
    const used = this.#used.shift();
    const { file, length } = used === undefined ? await this.#fill(segSeq, size) : await this.#rename(used, segSeq);
    // Before its first use: records in a file whose name is lost in a power cut are lost as well.
    await disk.syncDir(dir);
    this.#ready = { segSeq, file, size: length };
  }

  async #fill(segSeq: number, size: number): Promise<{ file: DiskFile; length: number }> {
    const { disk, dir } = this.#options;
    const unfinished = unfinishedPath(dir, segSeq);
    const file = await disk.create(unfinished);
    try {
      await file.fillZero(size);
      await disk.rename(unfinished, segmentPath(dir, segSeq));
    } catch (error) {
      await file.close();
      await disk.unlink(unfinished);
      throw error;
    }
    return { file, length: size };
  }

  async #rename(used: UsedSegment, segSeq: number): Promise<{ file: DiskFile; length: number }> {
    const { disk, dir } = this.#options;
    const path = segmentPath(dir, segSeq);
    await disk.rename(segmentPath(dir, used.segSeq), path);
    return { file: await disk.open(path), length: used.size };
  }

  #remove(segSeq: number): void {
    const { disk, dir } = this.#options;
    const path = segmentPath(dir, segSeq);
    this.#removals = this.#removals.then(() => disk.unlink(path)).catch((error: unknown) => this.#refused(error));
  }

  #refused(error: unknown): void {
    const { runtime, failed } = this.#options;
    const cause = error instanceof Error ? error : new Error(String(error));
    if (!('code' in cause) || cause.code !== 'ENOSPC') {
      failed(cause);
      return;
    }
    this.#notBefore = runtime.monotonic() + retryMs;
    runtime.log.warn({ error: cause.message }, 'no room to prepare the next segment of the log');
  }
}

/** How long to wait after the disk was full. */
const retryMs = 1000;

/** Old segments kept for later; more than the log uses up while one is prepared would only hold disk space. */
const maxUsed = 2;
