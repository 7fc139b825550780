import type { Store } from '../storage/backend/store.ts';
import { fieldsOf, isTombstone, keyOf } from './key-value.ts';
import { neverCompacted, type Revisions } from './revisions.ts';
import { logKey, type Position, pastAfter, pastAt, pastMainOf, pastPrefix, pastSubOf, readLogKey } from './row.ts';

const ascii = new TextEncoder();
const compactedRow = ascii.encode('compactRevision');
const cursorRow = ascii.encode('compactCursor');

// Rows may hold values of a megabyte and more: a step ends after this many bytes whatever the rows.
const bytesPerStep = 1 << 20;

/** A row of `log` as compaction passes it. `version` is 0 for a deletion. */
interface Passed extends Position {
  readonly prefix: Uint8Array;
  readonly version: number;
}

/**
 * Takes out of storage what no read may ask for any more.
 *
 * The log decides the compact revision; from that entry on, reads below it are refused on every member. The rows go later, in bounded steps
 * at each member's own pace, and no answer depends on how far a member has come: each version of a key goes when a newer one at or before
 * the compact revision has been passed, a deletion when it lies below that revision. Everything at the compact revision itself stays, so
 * that a watch may still begin there.
 *
 * The cursor into `log` is stored in the same transaction as the deletions it accounts for: a restart resumes, whatever was lost.
 */
export class Compaction {
  readonly #store: Store;
  readonly #revisions: Revisions;
  /** Rows of `log` before it are done with; undefined while nothing is left to do. */
  #cursor: Uint8Array | undefined;

  constructor(store: Store, revisions: Revisions) {
    this.#store = store;
    this.#revisions = revisions;
    this.#cursor = this.#storedCursor();
  }

  /** History was replaced beneath, and with it how far its compaction had come. */
  reload(): void {
    this.#cursor = this.#storedCursor();
  }

  /** The compact revision as stored. */
  static storedRevision(store: Pick<Store, 'get'>): number {
    const row = store.get('meta', compactedRow);
    return row === undefined ? neverCompacted : readLogKey(row).main;
  }

  get isDone(): boolean {
    return this.#cursor === undefined;
  }

  /** @throws StatusError `compacted` at or below the present compact revision, `future-revision` beyond the current one. */
  schedule(revision: number): void {
    const before = Math.max(0, this.#revisions.compacted);
    this.#revisions.compact(revision);
    this.#store.put('meta', compactedRow, logKey(revision, 0));
    // What the last compaction kept for standing at its own revision is looked at again, also when that one is still under way.
    const cursorMain = this.#cursor === undefined ? before : readLogKey(this.#cursor).main;
    this.#moveTo(logKey(cursorMain, 0));
  }

  /**
   * Deals with at most `maxRows` rows of `log`. True when nothing is left to do. False also, with nothing done, while a read under way needs
   * what would go.
   */
  step(maxRows: number): boolean {
    if (this.#cursor === undefined) return true;
    const target = this.#revisions.compacted;
    if (this.#revisions.isPinnedBelow(target)) return false;
    const rows = this.#collect(this.#cursor, target, maxRows);
    for (const row of rows) this.#pass(row, target);
    const last = rows.at(-1);
    if (last === undefined) {
      this.#cursor = undefined;
      this.#store.delete('meta', cursorRow);
      return true;
    }
    this.#moveTo(logKey(last.main, last.sub + 1));
    return false;
  }

  /** The next rows to pass. What they need is taken out of them first, because nothing may be written while storage is scanned. */
  #collect(cursor: Uint8Array, target: number, maxRows: number): Passed[] {
    const rows: Passed[] = [];
    let bytes = 0;
    for (const { key, value } of this.#store.scan('log', cursor, logKey(target + 1, 0), { limit: maxRows })) {
      const version = isTombstone(value) ? 0 : fieldsOf(value).version;
      rows.push({ ...readLogKey(key), prefix: pastPrefix(keyOf(value)), version });
      bytes += value.length;
      if (bytes >= bytesPerStep) break;
    }
    return rows;
  }

  #pass({ main, sub, prefix, version }: Passed, target: number): void {
    const isLastOfRevision = this.#subAt(prefix, main, version) === sub;
    if (main === target || (isLastOfRevision && version > 0)) return;
    this.#store.delete('log', logKey(main, sub));
    if (isLastOfRevision) this.#store.delete('past', pastAt(prefix, main));
  }

  /**
   * Takes out the version of a key before `main`, and returns the sub-revision of its last change at `main`.
   *
   * There is at most one to take out, because each goes when the next is passed; and none before the first version of an incarnation: the
   * deletion before that was passed earlier, also when it stood at the previous compact revision, because the cursor went back to there.
   */
  #subAt(prefix: Uint8Array, main: number, version: number): number {
    const limit = version === 1 ? 1 : 2;
    const [newest, older] = this.#store.scan('past', pastAt(prefix, main), pastAfter(prefix), { limit });
    if (newest === undefined || pastMainOf(newest.key) !== main) throw new Error(`no row in past for revision ${main}, which log holds`);
    if (older !== undefined) {
      this.#store.delete('log', logKey(pastMainOf(older.key), pastSubOf(older.value)));
      this.#store.delete('past', new Uint8Array(older.key));
    }
    return pastSubOf(newest.value);
  }

  /**
   * Whether a row of `log` outlives the compaction that was decided, also while that is under way: the question is put to the logical state,
   * so that every member answers alike.
   */
  survives(position: Uint8Array, kv: Uint8Array, compacted: number): boolean {
    const { main, sub } = readLogKey(position);
    if (main >= compacted) return true;
    if (isTombstone(kv)) return false;
    const prefix = pastPrefix(keyOf(kv));
    const [newest] = this.#store.scan('past', pastAt(prefix, compacted), pastAfter(prefix), { limit: 1 });
    if (newest === undefined) throw new Error(`no row in past for revision ${main}, which log holds`);
    return pastMainOf(newest.key) === main && pastSubOf(newest.value) === sub;
  }

  #storedCursor(): Uint8Array | undefined {
    const cursor = this.#store.get('meta', cursorRow);
    return cursor && new Uint8Array(cursor);
  }

  #moveTo(cursor: Uint8Array): void {
    this.#cursor = cursor;
    this.#store.put('meta', cursorRow, cursor);
  }
}
