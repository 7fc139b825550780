import type { Backend, Change, Changes } from '../backend/backend.ts';
import { durableIndexKey, durableIndexOf, encodeIndex } from '../backend/buffered-store.ts';
import { SnapshotCorruptionError } from '../storage-error.ts';
import type { StateSummary } from './snapshot-format.ts';
import type { SnapshotPlace, SnapshotPoint } from './snapshot-place.ts';
import { isSameConfiguration, SnapshotVerifier } from './snapshot-verifier.ts';

/** What a state says of itself, read from its rows. */
export type Summarize = (state: Pick<Backend, 'get' | 'scan'>) => Omit<StateSummary, 'index'>;

export interface RestoreOptions {
  readonly place: SnapshotPlace;
  readonly point: SnapshotPoint;
  readonly clusterId: bigint;
  /** Read while rows are replaced, to find out what has become of them. */
  readonly backend: Pick<Backend, 'get' | 'scan'>;
  readonly commit: (changes: Changes) => Promise<void>;
  readonly summarize: Summarize;
  /** Rows are committed when there are this many bytes of them. */
  readonly batchBytes: number;
}

/**
 * Puts the rows of a finished snapshot in place of the applied state, in transactions of a bounded size.
 *
 * The first one empties all tables, the durable index among them, and says in its place which snapshot is being restored; the last one takes that
 * out and writes the snapshot's index. A crash between the two leaves neither the old state nor the new one, and says so
 * ({@link restorationUnderWay}): the next start finds the snapshot's marker in the log and begins again. Until the snapshot was read once from
 * end to end, nothing is touched.
 */
export async function restoreState(options: RestoreOptions): Promise<void> {
  const { place, point, clusterId, backend, commit, summarize, batchBytes } = options;
  const { header } = await read(place, point, clusterId, async () => {});
  const from = restorationUnderWay(backend)?.from ?? durableIndexOf(backend);
  const mark: Change = { table: 'meta', key: restorationKey, value: encodeRestoration({ from, ...point }) };
  await commit({ isReplacement: true, rows: [mark] });
  const batch = new Batch(commit, batchBytes);
  await read(place, point, clusterId, (rows, bytes) => batch.add(rows, bytes));
  await batch.commit();
  if (!isSame(summarize(backend), header)) {
    throw new SnapshotCorruptionError(place.describe(point), 0, point.index, 'its rows are not what its header says');
  }
  await commit({
    rows: [
      { table: 'meta', key: restorationKey, value: undefined },
      { table: 'meta', key: durableIndexKey, value: encodeIndex(point.index) },
    ],
  });
}

/** Reads a finished snapshot from end to end, and checks it once more on the way: what is on a disk may rot. */
async function read(
  place: SnapshotPlace,
  point: SnapshotPoint,
  clusterId: bigint,
  take: (rows: readonly Change[], bytes: number) => Promise<void>,
): Promise<SnapshotVerifier> {
  const verifier = new SnapshotVerifier({ index: point.index, term: point.term, clusterId });
  let end = 0;
  for await (const { offset, bytes } of place.chunks(point)) {
    const chunk = check(place, point, offset, () => verifier.add(bytes));
    if (chunk.kind === 'rows') await take(chunk.rows, bytes.length);
    end = offset + bytes.length;
    if (verifier.isComplete) return verifier;
  }
  throw new SnapshotCorruptionError(place.describe(point), end, point.index, 'its end is missing');
}

function check<T>(place: SnapshotPlace, point: SnapshotPoint, offset: number, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SnapshotCorruptionError(place.describe(point), offset, point.index, reason);
  }
}

/** Rows on their way to the backend: a transaction for some megabytes of them. */
class Batch {
  readonly #commit: (changes: Changes) => Promise<void>;
  readonly #bytesMax: number;
  #rows: Change[] = [];
  #bytes = 0;

  constructor(commit: (changes: Changes) => Promise<void>, bytesMax: number) {
    this.#commit = commit;
    this.#bytesMax = bytesMax;
  }

  async add(rows: readonly Change[], bytes: number): Promise<void> {
    for (const row of rows) this.#rows.push(row);
    this.#bytes += bytes;
    if (this.#bytes >= this.#bytesMax) await this.commit();
  }

  async commit(): Promise<void> {
    const rows = this.#rows;
    this.#rows = [];
    this.#bytes = 0;
    if (rows.length > 0) await this.#commit({ rows });
  }
}

function isSame(found: Omit<StateSummary, 'index'>, claimed: Omit<StateSummary, 'index'>): boolean {
  return (
    found.term === claimed.term &&
    found.revision === claimed.revision &&
    found.compactRevision === claimed.compactRevision &&
    isSameConfiguration(found.confState, claimed.confState)
  );
}

// ---- the mark that a restoration is under way ------------------------------------------------------------------------------------------

export interface Restoration extends SnapshotPoint {
  /** The durable index before it began: the log was released up to there and no further. */
  readonly from: number;
}

const restorationKey = new TextEncoder().encode('restoration');

/** undefined: the backend holds a whole state. */
export function restorationUnderWay(backend: Pick<Backend, 'get'>): Restoration | undefined {
  const row = backend.get('meta', restorationKey);
  if (row === undefined) return undefined;
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  return { from: Number(view.getBigUint64(0)), index: Number(view.getBigUint64(8)), term: Number(view.getBigUint64(16)) };
}

function encodeRestoration({ from, index, term }: Restoration): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  for (const [at, value] of [from, index, term].entries()) view.setBigUint64(8 * at, BigInt(value));
  return bytes;
}
