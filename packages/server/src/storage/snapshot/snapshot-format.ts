import { crc32 } from 'node:zlib';
import type { SnapshotMeta } from '@conclave/raft';
import { type Change, type Table, tables } from '../backend/backend.ts';

/**
 * A snapshot is a sequence of chunks: a header, rows in the order of `tables` and of their keys, a trailer. Each chunk is complete in itself and
 * small enough to travel in one packet. Numbers are little endian.
 *
 *     crc32 of the rest (4) · format (1) · kind (1) · sequence (4) · body
 *
 * The body of the header and of the trailer is JSON; that of rows is, row by row,
 *
 *     table (1) · length of the key (4) · length of the value (4) · key · value
 *
 * The sequence stands in the chunk itself, so that one in a wrong place is recognised although its checksum holds.
 */
export type SnapshotChunk =
  | { readonly kind: 'header'; readonly sequence: number; readonly header: SnapshotHeader }
  | { readonly kind: 'rows'; readonly sequence: number; readonly rows: readonly Change[] }
  | { readonly kind: 'trailer'; readonly sequence: number; readonly trailer: SnapshotTrailer };

/** What a state says of itself. */
export interface StateSummary extends SnapshotMeta {
  readonly revision: number;
  /** -1: never compacted. */
  readonly compactRevision: number;
}

export interface SnapshotHeader extends StateSummary {
  readonly clusterId: bigint;
}

export interface SnapshotTrailer {
  readonly rows: RowCounts;
  /** SHA-256 of all chunks before, hex. */
  readonly checksum: string;
}

type RowCounts = Readonly<Record<SnapshotTable, number>>;
export type SnapshotTable = Exclude<Table, 'local'>;

/** All but what a member remembers for itself. */
export const snapshotTables: readonly SnapshotTable[] = tables.filter((table): table is SnapshotTable => table !== 'local');

/** Of a chunk with more than one row. */
const chunkBytesMax = 256 << 10;
/** A larger one is not believed: no row is as large, as it came through the log. */
export const anyChunkBytesMax: number = 65 << 20;

const format = 1;
const kinds = ['header', 'rows', 'trailer'] as const;
const headBytes = 10;
const rowHeadBytes = 9;

export function headerChunk({ confState, clusterId, ...rest }: SnapshotHeader): Uint8Array {
  const voters = confState.voters.map(hex);
  const learners = confState.learners.map(hex);
  return jsonChunk('header', 0, { ...rest, clusterId: hex(clusterId), voters, learners });
}

export function trailerChunk(sequence: number, trailer: SnapshotTrailer): Uint8Array {
  return jsonChunk('trailer', sequence, trailer);
}

function jsonChunk(kind: 'header' | 'trailer', sequence: number, body: object): Uint8Array {
  const text = Buffer.from(JSON.stringify(body));
  const chunk = Buffer.allocUnsafe(headBytes + text.length);
  text.copy(chunk, headBytes);
  return sealed(chunk, kind, sequence);
}

/** Collects rows for one chunk: as many as fit, or a single larger one. */
export class RowsChunk {
  readonly #sequence: number;
  #bytes: Buffer = Buffer.allocUnsafe(chunkBytesMax);
  #length = headBytes;

  constructor(sequence: number) {
    this.#sequence = sequence;
  }

  get isEmpty(): boolean {
    return this.#length === headBytes;
  }

  /** Copies the row. False: it does not fit any more. */
  add(table: SnapshotTable, key: Uint8Array, value: Uint8Array): boolean {
    const end = this.#length + rowHeadBytes + key.length + value.length;
    if (end > this.#bytes.length) {
      if (!this.isEmpty) return false;
      const larger = Buffer.allocUnsafe(end);
      this.#bytes = larger;
    }
    const bytes = this.#bytes;
    bytes[this.#length] = tables.indexOf(table);
    bytes.writeUInt32LE(key.length, this.#length + 1);
    bytes.writeUInt32LE(value.length, this.#length + 5);
    bytes.set(key, this.#length + rowHeadBytes);
    bytes.set(value, this.#length + rowHeadBytes + key.length);
    this.#length = end;
    return true;
  }

  finish(): Uint8Array {
    const { length } = this.#bytes;
    // The rest of a buffer is not to be kept alive by a small chunk.
    const chunk = this.#length * 2 > length ? this.#bytes.subarray(0, this.#length) : Buffer.from(this.#bytes.subarray(0, this.#length));
    return sealed(chunk, 'rows', this.#sequence);
  }
}

function sealed(chunk: Buffer, kind: SnapshotChunk['kind'], sequence: number): Uint8Array {
  chunk[4] = format;
  chunk[5] = kinds.indexOf(kind);
  chunk.writeUInt32LE(sequence, 6);
  chunk.writeUInt32LE(crc32(chunk.subarray(4)), 0);
  return chunk;
}

/** The rows are views of the chunk. @throws Error that says what is wrong with it */
export function decodeChunk(bytes: Uint8Array): SnapshotChunk {
  const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (chunk.length < headBytes) throw new Error(`a chunk of ${chunk.length} bytes`);
  if (crc32(chunk.subarray(4)) !== chunk.readUInt32LE(0)) throw new Error('the checksum of a chunk does not match');
  if (chunk[4] !== format) throw new Error(`a chunk has format ${chunk[4]}, and this version knows ${format}`);
  const kind = kinds[chunk[5]!];
  const sequence = chunk.readUInt32LE(6);
  const body = chunk.subarray(headBytes);
  switch (kind) {
    case 'header':
      return { kind, sequence, header: decodeHeader(body) };
    case 'rows':
      return { kind, sequence, rows: decodeRows(body) };
    case 'trailer':
      return { kind, sequence, trailer: decodeTrailer(body) };
    default:
      throw new Error(`a chunk of unknown kind ${chunk[5]}`);
  }
}

function decodeRows(body: Buffer): readonly Change[] {
  const rows: Change[] = [];
  for (let at = 0; at < body.length; ) {
    const keyAt = at + rowHeadBytes;
    if (keyAt > body.length) throw new Error('a row is cut short');
    const table = tables[body[at]!];
    if (table === undefined || table === 'local') throw new Error(`a row of table ${body[at]}`);
    const valueAt = keyAt + body.readUInt32LE(at + 1);
    const end = valueAt + body.readUInt32LE(at + 5);
    if (valueAt === keyAt || end > body.length) throw new Error('a row is cut short');
    rows.push({ table, key: body.subarray(keyAt, valueAt), value: body.subarray(valueAt, end) });
    at = end;
  }
  return rows;
}

function decodeHeader(body: Buffer): SnapshotHeader {
  const fields = fieldsOf(body);
  return {
    clusterId: idIn(fields['clusterId']),
    index: numberIn(fields['index']),
    term: numberIn(fields['term']),
    confState: { voters: idsIn(fields['voters']), learners: idsIn(fields['learners']) },
    revision: numberIn(fields['revision']),
    compactRevision: numberIn(fields['compactRevision']),
  };
}

function decodeTrailer(body: Buffer): SnapshotTrailer {
  const { rows, checksum } = fieldsOf(body);
  if (!isRecord(rows) || typeof checksum !== 'string') throw new Error('the trailer cannot be understood');
  const counts = Object.fromEntries(snapshotTables.map((table) => [table, numberIn(rows[table])]));
  return { rows: counts as RowCounts, checksum };
}

function fieldsOf(body: Buffer): Readonly<Record<string, unknown>> {
  const fields: unknown = JSON.parse(body.toString());
  if (!isRecord(fields)) throw new Error('a chunk holds no object');
  return fields;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

function numberIn(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < -1)
    throw new Error(`not a number of a snapshot: ${String(value)}`);
  return value;
}

function idIn(value: unknown): bigint {
  if (typeof value !== 'string' || !/^[0-9a-f]{1,16}$/.test(value)) throw new Error(`not an id: ${String(value)}`);
  return BigInt(`0x${value}`);
}

function idsIn(value: unknown): bigint[] {
  if (!Array.isArray(value)) throw new Error('not a list of ids');
  return value.map(idIn);
}

function hex(id: bigint): string {
  return BigInt.asUintN(64, id).toString(16);
}
