import { dirname, join } from 'node:path';
import type { SnapshotMeta } from '@conclave/raft';
import type { Disk, DiskFile } from '../disk.ts';
import { SnapshotCorruptionError } from '../storage-error.ts';
import { anyChunkBytesMax } from './snapshot-format.ts';
import type { SnapshotPlace, SnapshotPoint, StoredChunk, StoredSnapshotWriter } from './snapshot-place.ts';
import { SnapshotVerifier } from './snapshot-verifier.ts';

/**
 * Received snapshots in a folder: `<index>-<term>.snap` is complete, verified and durable; `<index>-<term>-<id>.part` is on its way in. Numbers are
 * hex of 16 digits. Either is a run of chunks, each behind its length (4 bytes, little endian). What follows the trailer means nothing.
 */
export class SnapshotFiles implements SnapshotPlace {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #clusterId: bigint;

  private constructor(disk: Disk, dir: string, clusterId: bigint) {
    this.#disk = disk;
    this.#dir = dir;
    this.#clusterId = clusterId;
  }

  /**
   * Opens the folder, or makes it, and removes what can be of no use any more: snapshots at or below `appliedIndex`, and complete ones but `awaited`,
   * the one that the log waits for. A part may still be continued.
   */
  static async open(
    disk: Disk,
    dir: string,
    clusterId: bigint,
    appliedIndex: number,
    awaited: SnapshotPoint | undefined,
  ): Promise<SnapshotFiles> {
    await disk.makeDir(dir);
    await disk.syncDir(dirname(dir));
    const files = new SnapshotFiles(disk, dir, clusterId);
    const kept = awaited && nameOf(awaited);
    await files.#remove((name) => name !== kept && (!name.endsWith(part) || (indexOf(name) ?? 0) <= appliedIndex));
    return files;
  }

  async receive(snapshot: SnapshotMeta, id: number): Promise<StoredSnapshotWriter> {
    const name = `${baseOf(snapshot)}-${hex(id)}${part}`;
    await this.#remove((other) => other.endsWith(part) && other !== name);
    const path = join(this.#dir, name);
    const isThere = (await this.#disk.list(this.#dir)).includes(name);
    const file = isThere ? await this.#disk.open(path) : await this.#disk.create(path);
    const writer = new PartFile({ disk: this.#disk, dir: this.#dir, name, file, snapshot, clusterId: this.#clusterId });
    if (isThere) await writer.goOn();
    return writer;
  }

  /** @throws SnapshotCorruptionError where the file is missing or cut short; whether the chunks are right is for their reader to find out */
  async *chunks(point: SnapshotPoint): AsyncGenerator<StoredChunk, undefined> {
    const path = join(this.#dir, nameOf(point));
    const file = await this.#disk.open(path).catch((cause: unknown) => {
      throw Object.assign(new SnapshotCorruptionError(path, 0, point.index, 'it cannot be opened'), { cause });
    });
    try {
      for (let at = 0; ; ) {
        const chunk = await readFrame(file, at);
        if (chunk === undefined) throw new SnapshotCorruptionError(path, at, point.index, 'it is cut short');
        yield { offset: at, bytes: chunk };
        at += frameHeadBytes + chunk.length;
      }
    } finally {
      await file.close();
    }
  }

  describe(point: SnapshotPoint): string {
    return join(this.#dir, nameOf(point));
  }

  async removeUpTo(index: number): Promise<void> {
    await this.#remove((name) => (indexOf(name) ?? 0) <= index);
  }

  async #remove(isVoid: (name: string) => boolean): Promise<void> {
    const names = (await this.#disk.list(this.#dir)).filter((name) => (name.endsWith(part) || name.endsWith(whole)) && isVoid(name));
    for (const name of names) await this.#disk.unlink(join(this.#dir, name));
    if (names.length > 0) await this.#disk.syncDir(this.#dir);
  }
}

interface PartFileOptions {
  readonly disk: Disk;
  readonly dir: string;
  readonly name: string;
  readonly file: DiskFile;
  readonly snapshot: SnapshotMeta;
  readonly clusterId: bigint;
}

/** A snapshot on its way in. Every chunk is verified and durable when its write resolves. */
class PartFile implements StoredSnapshotWriter {
  readonly #options: PartFileOptions;
  readonly #verifier: SnapshotVerifier;
  /** End of what was taken. */
  #end = 0;
  /** The writes so far: one after the other. Once one has failed all others do. */
  #writes: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(options: PartFileOptions) {
    this.#options = options;
    this.#verifier = new SnapshotVerifier({ ...options.snapshot, clusterId: options.clusterId });
  }

  get next(): number {
    return this.#verifier.next;
  }

  /** Takes over what an earlier reception left: all chunks up to the first that is not whole. */
  async goOn(): Promise<void> {
    const { file } = this.#options;
    for (let chunk = await readFrame(file, 0); chunk !== undefined && this.#takes(chunk); chunk = await readFrame(file, this.#end)) {
      this.#end += frameHeadBytes + chunk.length;
    }
    // What can be read may not be durable: its writer may have died before its flush.
    await flush(file, this.#end, new Uint8Array(0));
  }

  #takes(chunk: Uint8Array): boolean {
    try {
      this.#verifier.add(chunk);
      return true;
    } catch {
      // A write that was cut off. It is written again from here.
      return false;
    }
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#checkOpen();
    const offset = this.#end;
    this.#verify(() => this.#verifier.add(chunk));
    const frame = framed(chunk);
    this.#end += frame.length;
    this.#writes = this.#writes.then(() => flush(this.#options.file, offset, frame));
    await this.#writes;
  }

  async finish(): Promise<void> {
    this.#checkOpen();
    await this.#writes;
    this.#verify(() => {
      if (!this.#verifier.isComplete) throw new Error('its end is missing');
    });
    await this.close();
    const { disk, dir, name, snapshot } = this.#options;
    // The name is durable before the log says that there is this snapshot.
    await disk.rename(join(dir, name), join(dir, nameOf(snapshot)));
    await disk.syncDir(dir);
  }

  async abandon(): Promise<void> {
    if (this.#isClosed) return;
    await this.close();
    await this.#options.disk.unlink(join(this.#options.dir, this.#options.name));
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#writes.catch(() => {
      // Told to whoever wrote.
    });
    await this.#options.file.close();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new Error('the reception of this snapshot has ended');
  }

  #verify(check: () => void): void {
    const { dir, name, snapshot } = this.#options;
    try {
      check();
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new SnapshotCorruptionError(join(dir, name), this.#end, snapshot.index, reason);
    }
  }
}

const part = '.part';
const whole = '.snap';
const frameHeadBytes = 4;

function framed(chunk: Uint8Array): Uint8Array {
  const frame = Buffer.allocUnsafe(frameHeadBytes + chunk.length);
  frame.writeUInt32LE(chunk.length, 0);
  frame.set(chunk, frameHeadBytes);
  return frame;
}

/** undefined where no whole chunk can stand. */
async function readFrame(file: DiskFile, offset: number): Promise<Uint8Array | undefined> {
  const head = Buffer.from(await file.read(offset, frameHeadBytes));
  if (head.length < frameHeadBytes) return undefined;
  const length = head.readUInt32LE(0);
  if (length === 0 || length > anyChunkBytesMax) return undefined;
  const chunk = await file.read(offset + frameHeadBytes, length);
  return chunk.length < length ? undefined : chunk;
}

function flush(file: DiskFile, offset: number, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush(offset, bytes, (error) => (error === undefined ? resolve() : reject(error)));
  });
}

function nameOf(point: SnapshotPoint): string {
  return `${baseOf(point)}${whole}`;
}

function baseOf({ index, term }: SnapshotPoint): string {
  return `${hex(index)}-${hex(term)}`;
}

function hex(value: number): string {
  return value.toString(16).padStart(16, '0');
}

function indexOf(name: string): number | undefined {
  return /^[0-9a-f]{16}-/.test(name) ? Number.parseInt(name.slice(0, 16), 16) : undefined;
}
