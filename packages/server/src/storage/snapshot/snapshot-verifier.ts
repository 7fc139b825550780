import { createHash } from 'node:crypto';
import type { ConfState, SnapshotMeta } from '@conclave/raft';
import {
  decodeChunk,
  type SnapshotChunk,
  type SnapshotHeader,
  type SnapshotTable,
  type SnapshotTrailer,
  snapshotTables,
} from './snapshot-format.ts';

/** What a snapshot must be of. Without a configuration: whichever it has. */
export type Expected = Pick<SnapshotMeta, 'index' | 'term'> & { readonly clusterId: bigint; readonly confState?: ConfState };

/** Takes the chunks of a snapshot in their order, and knows at the end whether it is whole. */
export class SnapshotVerifier {
  readonly #expected: Expected;
  readonly #hash = createHash('sha256');
  readonly #counts = new Map<SnapshotTable, number>(snapshotTables.map((table) => [table, 0]));
  #next = 0;
  #header: SnapshotHeader | undefined;
  #isComplete = false;

  constructor(expected: Expected) {
    this.#expected = expected;
  }

  /** Sequence of the next chunk. */
  get next(): number {
    return this.#next;
  }

  /** The trailer was there, and agrees with all that came before it. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  get header(): SnapshotHeader {
    if (this.#header === undefined) throw new Error('a snapshot begins with its header');
    return this.#header;
  }

  /** @throws Error that says what is wrong; then nothing was taken. */
  add(bytes: Uint8Array): SnapshotChunk {
    const chunk = decodeChunk(bytes);
    if (chunk.sequence !== this.#next || this.#isComplete)
      throw new Error(`chunk ${chunk.sequence} stands where ${this.#next} was expected`);
    if ((chunk.kind === 'header') !== (this.#next === 0)) throw new Error('a snapshot begins with its header');
    if (chunk.kind === 'header') this.#checkHeader(chunk.header);
    if (chunk.kind === 'trailer') this.#checkTrailer(chunk.trailer);
    if (chunk.kind === 'rows') this.#count(chunk.rows.map(({ table }) => table as SnapshotTable));
    this.#hash.update(bytes);
    this.#next++;
    return chunk;
  }

  #checkHeader(header: SnapshotHeader): void {
    const { clusterId, index, term, confState } = this.#expected;
    if (header.clusterId !== clusterId) throw new Error(`it is of cluster ${header.clusterId.toString(16)}`);
    if (header.index !== index || header.term !== term) throw new Error(`it is of index ${header.index} and term ${header.term}`);
    if (confState !== undefined && !isSameConfiguration(confState, header.confState)) throw new Error('it has another configuration');
    this.#header = header;
  }

  #count(rowTables: readonly SnapshotTable[]): void {
    for (const table of rowTables) this.#counts.set(table, this.#counts.get(table)! + 1);
  }

  #checkTrailer({ rows, checksum }: SnapshotTrailer): void {
    for (const [table, count] of this.#counts) {
      if (rows[table] !== count) throw new Error(`it has ${count} rows of table ${table}, and ${rows[table]} were sent`);
    }
    if (this.#hash.copy().digest('hex') !== checksum) throw new Error('its checksum does not match');
    this.#isComplete = true;
  }
}

export function isSameConfiguration(a: ConfState, b: ConfState): boolean {
  return shown(a) === shown(b);
}

function shown({ voters, learners }: ConfState): string {
  const list = (ids: readonly bigint[]): string =>
    ids
      .map((id) => id.toString(16).padStart(16, '0'))
      .sort()
      .join(' ');
  return `${list(voters)} / ${list(learners)}`;
}
