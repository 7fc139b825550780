import type { Entry, HardState } from '@conclave/raft';
import type { Runtime, Timer } from '@conclave/wire';
import type { Fatal, Log, LogBatch } from '../../replica/ports.ts';
import type { Disk, DiskFile } from '../disk.ts';
import { BatchWriter } from './batch-writer.ts';
import { entryRecord, hardStateRecord, type SnapshotPoint, snapshotRecord } from './log-record.ts';
import { recordBytes } from './record.ts';
import type { LiveSegment } from './recovery.ts';
import { batchHeadRecord, type Identity, type Position, type SegmentHead, segmentHeadRecord } from './segment.ts';
import { SegmentSupply } from './segment-supply.ts';

/** Sizes of segments in bytes: each is twice the one before, from `first` up to `max`. */
export interface SegmentBytes {
  readonly first: number;
  readonly max: number;
}

/** All a log needs to go on; made by `openWal`. */
export interface WalState {
  readonly disk: Disk;
  readonly dir: string;
  readonly runtime: Runtime;
  readonly fatal: Fatal;
  readonly identity: Identity;
  readonly salt: number;
  readonly segmentBytes: SegmentBytes;
  readonly position: Position;
  readonly hardState: HardState | undefined;
  /** Older segments, oldest first. */
  readonly live: readonly LiveSegment[];
  readonly active: ActiveSegment;
}

export interface ActiveSegment extends LiveSegment {
  readonly file: DiskFile;
  /** Where the next batch goes. */
  readonly offset: number;
}

interface Waiting {
  readonly batch: LogBatch;
  readonly durable: () => void;
}

/**
 * The write-ahead log of one member. Use `openWal` to get one.
 *
 * `append` flushes at once when no flush is under way: the replica makes one batch per turn of the loop, and collecting a second time would
 * only add a turn to every answer. What is appended during a flush, also by `durable` callbacks, goes into the next one together. On a disk that
 * flushes on the calling thread, `durable` therefore runs before `append` returns, unless a callback of an earlier batch is still running.
 *
 * A failed write or flush calls `fatal`. After that no `durable` callback runs any more and `append` throws.
 */
export class Wal implements Log {
  readonly #state: WalState;
  readonly #writer: BatchWriter;
  readonly #supply: SegmentSupply;
  readonly #live: LiveSegment[];
  #active: { readonly segSeq: number; readonly startIndex: number; readonly file: DiskFile; readonly size: number; offset: number };
  #pending: Waiting[] = [];
  #hardState: HardState | undefined;
  /** Index and term of the last entry handed to the disk. */
  #index: number;
  #term: number;
  #released = 0;
  #isFlushing = false;
  #isPumping = false;
  /** Whether batches since the last seal wait for one. */
  #isUnsealed = true;
  #sealTimer: Timer | undefined;
  #lastFlushAt = 0;
  #failure: Error | undefined;
  #isClosed = false;
  #onIdle: (() => void) | undefined;

  constructor(state: WalState) {
    this.#state = state;
    this.#writer = new BatchWriter(state.salt, state.position);
    this.#live = [...state.live];
    this.#active = { ...state.active };
    this.#hardState = state.hardState;
    this.#index = state.position.index;
    this.#term = state.position.term;
    const { disk, dir, runtime } = state;
    this.#supply = new SegmentSupply({ disk, dir, runtime, failed: (error) => this.#fail(error) });
    this.#armSeal();
  }

  append(batch: LogBatch, durable: () => void): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isClosed) throw new Error('append to a closed log');
    this.#pending.push({ batch, durable });
    this.#pump();
    this.#throwFailure();
  }

  release(index: number): void {
    if (index <= this.#released || this.#failure !== undefined || this.#isClosed) return;
    this.#released = index;
    this.#dropReleased();
  }

  /** Flushes what was appended, seals the log, closes. After a failure it only closes; either way it resolves. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#sealTimer?.cancel();
    this.#pump();
    await this.#idle();
    if (this.#isUnsealed) this.#seal();
    await this.#idle();
    await this.#supply.close();
    await this.#active.file.close();
  }

  #idle(): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#isFlushing && !this.#isPumping) resolve();
      else this.#onIdle = resolve;
    });
  }

  // Not recursive: on a disk that completes at once, flushes would nest as deep as callbacks append.
  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#pending.length > 0 && !this.#isFlushing && this.#failure === undefined) this.#flushPending();
    } finally {
      this.#isPumping = false;
    }
    if (!this.#isFlushing) this.#onIdle?.();
  }

  #flushPending(): void {
    const flushed = this.#pending;
    this.#pending = [];
    try {
      this.#begin(flushed);
      for (const { batch } of flushed) this.#encode(batch);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#isUnsealed = true;
    this.#flush(() => {
      for (const { durable } of flushed) durable();
    });
  }

  /** Starts a batch, in the next segment when this one is full and the next one ready. Until it is, this one grows. */
  #begin(flushed: readonly Waiting[]): void {
    const { offset, size, segSeq, startIndex } = this.#active;
    const next = offset + encodedBytes(flushed) > size ? this.#supply.take() : undefined;
    if (next === undefined) {
      this.#beginBatch();
      return;
    }
    const { identity, salt } = this.#state;
    const head: SegmentHead = { offset: 0, start: this.#position(), hardState: this.#hardState, identity, salt, link: { segSeq, offset } };
    this.#writer.begin(next.segSeq);
    this.#writer.add(segmentHeadRecord(head));
    this.#closeInBackground(this.#active.file);
    this.#live.push({ segSeq, startIndex, size: Math.max(size, offset) });
    this.#active = { ...next, startIndex: this.#index, offset: 0 };
  }

  #beginBatch(): void {
    const { segSeq, offset } = this.#active;
    const head = { offset, start: this.#position(), hardState: this.#hardState };
    this.#writer.begin(segSeq);
    this.#writer.add(batchHeadRecord(head));
  }

  #position(): Position {
    const { batchSeq, recSeq, crc } = this.#writer;
    return { batchSeq, recSeq, crc, index: this.#index, term: this.#term };
  }

  // Entries before the hard state: its commit index may count on them.
  #encode(batch: LogBatch): void {
    if (batch.snapshot !== undefined) this.#encodeSnapshot(batch.snapshot);
    for (const entry of batch.entries) this.#encodeEntry(entry);
    if (batch.hardState !== undefined) this.#encodeHardState(batch.hardState);
  }

  #encodeSnapshot(snapshot: SnapshotPoint): void {
    if (snapshot.index <= this.#released) throw new Error(`snapshot ${snapshot.index} appended, and ${this.#released} is released`);
    this.#writer.add(snapshotRecord(snapshot));
    this.#index = snapshot.index;
    this.#term = snapshot.term;
  }

  #encodeEntry(entry: Entry): void {
    const { index, term } = entry;
    if (index > this.#index + 1 || index <= this.#released)
      throw new Error(`entry ${index} appended behind ${this.#index}, released ${this.#released}`);
    if (index === this.#index + 1 && term < this.#term)
      throw new Error(`entry ${index} of term ${term} appended behind term ${this.#term}`);
    this.#writer.add(entryRecord(entry));
    this.#index = index;
    this.#term = term;
  }

  #encodeHardState(hardState: HardState): void {
    const before = this.#hardState?.term ?? 0;
    if (hardState.term < before) throw new Error(`hard state of term ${hardState.term} appended behind term ${before}`);
    this.#writer.add(hardStateRecord(hardState));
    this.#hardState = hardState;
  }

  #flush(durable: () => void): void {
    const bytes = this.#writer.finish();
    const active = this.#active;
    this.#isFlushing = true;
    active.file.flush(active.offset, bytes, (error) => {
      if (this.#failure !== undefined) return;
      this.#isFlushing = false;
      if (error !== undefined) {
        this.#fail(error);
        return;
      }
      active.offset += bytes.length;
      this.#afterFlush();
      // Appends made by these callbacks wait until all of them have run: batches become durable in order, and are told in order.
      const isOutermost = !this.#isPumping;
      this.#isPumping = true;
      try {
        durable();
      } finally {
        if (isOutermost) this.#isPumping = false;
      }
      if (isOutermost) this.#pump();
    });
  }

  #afterFlush(): void {
    this.#lastFlushAt = this.#state.runtime.monotonic();
    this.#armSeal();
    const { offset, size, segSeq } = this.#active;
    if (offset * 4 >= size) this.#supply.prepare(segSeq + 1, this.#nextSize());
    this.#dropReleased();
  }

  #nextSize(): number {
    return Math.min(this.#active.size * 2, this.#state.segmentBytes.max);
  }

  /**
   * Whole segments only: one is needed as long as an entry above the released index may stand in it. And not before the first flush of the
   * active segment, which repeats the hard state, is durable.
   */
  #dropReleased(): void {
    if (this.#active.offset === 0) return;
    for (;;) {
      const next = this.#live[1] ?? this.#active;
      const oldest = this.#live[0];
      if (oldest === undefined || next.startIndex > this.#released) return;
      this.#live.shift();
      this.#supply.recycle(oldest, this.#nextSize());
    }
  }

  // An empty batch behind the last one proves that one durable: damage in it can then be told from a torn write.
  #armSeal(): void {
    if (this.#sealTimer !== undefined || !this.#isUnsealed || this.#isClosed) return;
    this.#sealTimer = this.#state.runtime.timer(sealAfterMs, () => this.#sealWhenIdle(), { background: true });
  }

  #sealWhenIdle(): void {
    this.#sealTimer = undefined;
    const isIdle = !this.#isFlushing && this.#state.runtime.monotonic() - this.#lastFlushAt >= sealAfterMs;
    if (isIdle) this.#seal();
    else this.#armSeal();
  }

  #seal(): void {
    if (this.#failure !== undefined || this.#isFlushing) return;
    this.#isUnsealed = false;
    this.#beginBatch();
    this.#flush(() => {});
  }

  #closeInBackground(file: DiskFile): void {
    file.close().catch((error: unknown) => this.#fail(error));
  }

  /** Ends everything. Returns even where `fatal` throws: what called us may be the disk or a timer. `append` throws it to its caller. */
  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    const cause = error instanceof Error ? error : new Error(String(error));
    this.#failure = cause;
    this.#pending = [];
    this.#isFlushing = false;
    this.#sealTimer?.cancel();
    this.#onIdle?.();
    try {
      this.#state.fatal(cause);
    } catch (thrown) {
      this.#failure = thrown instanceof Error ? thrown : cause;
    }
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

const sealAfterMs = 50;
/** Of a batch, at most. */
const headBytes = 128;

function encodedBytes(waiting: readonly Waiting[]): number {
  let total = headBytes;
  for (const { batch } of waiting) {
    for (const entry of batch.entries) total += recordBytes(entry.data.length);
    total += recordBytes(8) + recordBytes(0);
  }
  return total;
}
