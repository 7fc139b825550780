import { createHash } from 'node:crypto';
import type { SnapshotMeta } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { SnapshotReader } from '../../replica/ports.ts';
import type { BackendView } from '../backend/backend.ts';
import { durableIndexKey } from '../backend/buffered-store.ts';
import { compareBytes } from '../backend/bytes.ts';
import { headerChunk, RowsChunk, type SnapshotHeader, type SnapshotTable, snapshotTables, trailerChunk } from './snapshot-format.ts';

export interface StateReaderOptions {
  readonly view: BackendView;
  readonly header: SnapshotHeader;
  readonly id: number;
  readonly runtime: Runtime;
}

/**
 * Reads one commit's state, chunk by chunk. It stays that commit's, whatever is applied meanwhile, because it holds the backend's view: pages that
 * later commits give up are not used again until it is closed, so a reader that nobody drives makes the file grow with every write.
 */
export class StateReader implements SnapshotReader {
  readonly id: number;
  readonly #view: BackendView;
  readonly #header: SnapshotHeader;
  readonly #runtime: Runtime;
  readonly #hash = createHash('sha256');
  readonly #counts = new Map<SnapshotTable, number>(snapshotTables.map((table) => [table, 0]));
  #sequence = 0;
  /** Where reading goes on: a table, and the lowest key in it that is still to be read. */
  #table = 0;
  #key: Uint8Array = lowestKey;
  #isAtEnd = false;

  constructor(options: StateReaderOptions) {
    this.id = options.id;
    this.#view = options.view;
    this.#header = options.header;
    this.#runtime = options.runtime;
  }

  get snapshot(): SnapshotMeta {
    const { index, term, confState } = this.#header;
    return { index, term, confState };
  }

  async next(): Promise<Uint8Array | undefined> {
    if (this.#isAtEnd) return undefined;
    const chunk = this.#sequence === 0 ? headerChunk(this.#header) : ((await this.#rows()) ?? this.#trailer());
    this.#hash.update(chunk);
    this.#sequence++;
    return chunk;
  }

  close(): void {
    this.#view.close();
  }

  /** The next rows; undefined when there are none left. The loop gets its turn every two milliseconds. */
  async #rows(): Promise<Uint8Array | undefined> {
    const chunk = new RowsChunk(this.#sequence);
    while (this.#table < snapshotTables.length) {
      const end = this.#fill(snapshotTables[this.#table]!, chunk);
      if (end === 'full') return chunk.finish();
      if (end === 'spent') await new Promise<void>((resolve) => this.#runtime.endOfTurn(resolve));
    }
    return chunk.isEmpty ? undefined : chunk.finish();
  }

  #fill(table: SnapshotTable, chunk: RowsChunk): 'full' | 'spent' | 'done' {
    const deadline = this.#runtime.monotonic() + sliceMs;
    let rows = 0;
    for (const { key, value } of this.#view.scan(table, this.#key, undefined)) {
      const isDue = ++rows % rowsPerLook === 0 && this.#runtime.monotonic() >= deadline;
      // Which index the rows are of is the header's to say; the receiver must not believe it before it has all of them.
      const isKept = table !== 'meta' || compareBytes(key, durableIndexKey) !== 0;
      if (isDue || (isKept && !chunk.add(table, key, value))) {
        this.#key = new Uint8Array(key);
        return isDue ? 'spent' : 'full';
      }
      if (isKept) this.#counts.set(table, this.#counts.get(table)! + 1);
    }
    this.#table++;
    this.#key = lowestKey;
    return 'done';
  }

  #trailer(): Uint8Array {
    this.#isAtEnd = true;
    const rows = Object.fromEntries(this.#counts) as Record<SnapshotTable, number>;
    return trailerChunk(this.#sequence, { rows, checksum: this.#hash.copy().digest('hex') });
  }
}

const lowestKey = new Uint8Array(0);
const sliceMs = 2;
/** How many rows are read between two looks at the clock. */
const rowsPerLook = 32;
