import { encodeRecord, markEndOfBatch, type NewRecord, recordBytes } from './record.ts';
import { alignToBlock, type Position } from './segment.ts';

/**
 * Encodes batches one after the other into one reused buffer, and keeps the numbers and the chain of checksums that run through the log.
 *
 * @example
 * const writer = new BatchWriter(salt, startOfLog);
 * writer.begin(segSeq);
 * writer.add(entryRecord(entry));
 * const bytes = writer.finish(); // whole blocks, valid until the next begin
 */
export class BatchWriter {
  readonly #salt: number;
  #arena: Buffer = Buffer.allocUnsafeSlow(arenaBytes);
  #segSeq = 0;
  #batchSeq: number;
  #recSeq: number;
  #crc: number;
  #length = 0;
  #lastAt = 0;
  #lastSalt = 0;

  constructor(salt: number, position: Position) {
    this.#salt = salt;
    this.#batchSeq = position.batchSeq;
    this.#recSeq = position.recSeq;
    this.#crc = position.crc;
  }

  get batchSeq(): number {
    return this.#batchSeq;
  }
  get recSeq(): number {
    return this.#recSeq;
  }
  get crc(): number {
    return this.#crc;
  }

  begin(segSeq: number): void {
    // One huge batch must not hold on to its buffer for ever.
    if (this.#arena.length > keptArenaBytes) this.#arena = Buffer.allocUnsafeSlow(arenaBytes);
    this.#segSeq = segSeq;
    this.#batchSeq++;
    this.#length = 0;
  }

  add(record: NewRecord): void {
    const at = this.#length;
    this.#reserve(at + recordBytes(record.body.length));
    const salt = record.type === 'segmentHead' ? 0 : this.#salt;
    this.#recSeq++;
    const place = { segSeq: this.#segSeq, batchSeq: this.#batchSeq, recSeq: this.#recSeq, prevCrc: this.#crc, salt };
    this.#crc = encodeRecord(this.#arena, at, record, place);
    this.#lastAt = at;
    this.#lastSalt = salt;
    this.#length = at + recordBytes(record.body.length);
  }

  /** Ends the batch, which must hold a record. The bytes belong to the writer and change with the next `begin`. */
  finish(): Uint8Array {
    if (this.#length === 0) throw new Error('a batch without records');
    const end = alignToBlock(this.#length);
    this.#reserve(end);
    // Not left to chance: behind the batch a recycled segment must show neither old records nor pieces of this buffer's past.
    this.#arena.fill(0, this.#length, end);
    this.#crc = markEndOfBatch(this.#arena, this.#lastAt, this.#lastSalt);
    return this.#arena.subarray(0, end);
  }

  #reserve(length: number): void {
    if (length <= this.#arena.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#arena.length * 2, alignToBlock(length)));
    this.#arena.copy(larger, 0, 0, this.#length);
    this.#arena = larger;
  }
}

const arenaBytes = 64 * 1024;
const keptArenaBytes = 1024 * 1024;
