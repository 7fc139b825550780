import type { HashKVResponse, RangeRequest } from '@conclave/protocol';
import type { Store } from '../storage/backend/store.ts';
import { Compaction } from './compaction.ts';
import { eventOf, type KvEvent, type RevisionEvents } from './event.ts';
import { failure } from './failure.ts';
import { HashRead } from './hash-read.ts';
import { RangeParts } from './range-parts.ts';
import { RangeRead, type RangeResult, versionAt } from './range-read.ts';
import { Revisions } from './revisions.ts';
import { logKey, pastPrefix, readLogKey } from './row.ts';
import type { Slicer } from './slicer.ts';
import { WriteTxn } from './write-txn.ts';

/** A revision held for reads. */
export interface Pin {
  readonly revision: number;
  /** Of history: after a snapshot has replaced it the pin holds nothing. */
  readonly epoch: number;
  /** Idempotent. */
  release(): void;
}

/** How much history one call of {@link Mvcc.eventsFrom} may read: it ends with the revision that reaches either bound. */
export interface CatchUpBounds {
  readonly maxRevisions: number;
  /** Bytes of KeyValues. */
  readonly maxBytes: number;
}

/**
 * The keys with their history, over the tables `log`, `head`, `past` and `meta` of one {@link Store}. DESIGN.md shows the tables at work.
 *
 * Deterministic: what it answers depends only on the writes made through it. It has no clock and does no input or output of its own. Reads are
 * of what was applied, whether or not storage has committed it.
 *
 * Errors are `StatusError`s in etcd's words: `compacted` and `future-revision`.
 */
export class Mvcc {
  readonly #store: Store;
  readonly #revisions: Revisions;
  readonly #compaction: Compaction;
  readonly #listeners = new Set<AppliedListener>();
  readonly #replacedListeners = new Set<(before: number) => void>();

  /** Opens what the store holds. Reads a few rows, whatever the size of the store. */
  constructor(store: Store) {
    this.#store = store;
    const compacted = Compaction.storedRevision(store);
    this.#revisions = new Revisions(currentRevision(store), compacted);
    this.#compaction = new Compaction(store, this.#revisions);
  }

  /** Revision of the last write. A fresh store is at 1; the first write makes 2. Never decreases, restarts included. */
  get revision(): number {
    return this.#revisions.current;
  }

  /** Reads below this revision are refused with `compacted`, reads at it still work. -1 while nothing was ever compacted. */
  get compactRevision(): number {
    return this.#revisions.compacted;
  }

  /** A snapshot's rows have taken the place of those in the store: what was read from them is read anew. Reads under way end with an error. */
  reload(): void {
    const before = this.#revisions.current;
    this.#revisions.replace(currentRevision(this.#store), Compaction.storedRevision(this.#store));
    this.#compaction.reload();
    for (const listener of this.#replacedListeners) listener(before);
  }

  // ---- reads ------------------------------------------------------------------------------------------------------------------------

  /**
   * Reads a range at `request.revision` (0 and below: the latest), yielding to the loop as `slicer` says. The revision is fixed when the call
   * is made: writes and compactions that come in between do not show.
   *
   * Small reads are answered at once and without a promise; their KeyValues may be views of storage, so encode or copy them before returning
   * to the event loop. KeyValues that come by promise are the caller's.
   *
   * @param pin - reads at its revision, whatever the request's says
   * @throws StatusError `compacted` or `future-revision`; never by way of the promise, which rejects only as `slicer.nextSlice` does.
   */
  range(request: RangeRequest, slicer: Slicer, pin?: Pin): RangeResult | Promise<RangeResult> {
    const read = this.#open(request, pin);
    return read.step(slicer) ? read.result() : this.#finish(read, slicer);
  }

  /** The same without yielding: for ranges within an applied txn, and for small ones. */
  rangeSync(request: RangeRequest): RangeResult {
    const read = this.#open(request, undefined);
    read.step();
    return read.result();
  }

  /**
   * Reads a range in parts, all at the same revision: for answers too large to hold at once. Orders, targets and filters are not honoured.
   *
   * @throws StatusError `compacted` or `future-revision`
   */
  rangeParts(request: RangeRequest, slicer: Slicer): RangeParts {
    const read = this.#open(request, undefined);
    return new RangeParts(read, slicer, this.#revisions.pin(read.revision));
  }

  /** The live KeyValue of a key in its wire form, a view of storage; undefined when the key does not exist. */
  get(key: Uint8Array): Uint8Array | undefined {
    return this.#store.get('head', key);
  }

  /**
   * Holds a revision (0: the present one) for several reads that must see the same: they stay possible, whatever is compacted meanwhile, until
   * it is released. Held too long it keeps compaction from freeing space.
   *
   * @throws StatusError `compacted` or `future-revision`
   */
  pin(revision: number): Pin {
    const resolved = this.#revisions.resolve(revision);
    return { revision: resolved, epoch: this.#revisions.epoch, release: this.#revisions.pin(resolved) };
  }

  // ---- what watches need ------------------------------------------------------------------------------------------------------------

  /**
   * Calls back at the end of every txn that wrote something, with all its events, when `revision` is already the new one and before the entry
   * is marked as applied. The listener must not write. Returns the unsubscribe function.
   */
  onApplied(listener: AppliedListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** False while a snapshot's rows take the place of the store's: nothing can be read then. */
  get isReadable(): boolean {
    return this.#store.isReadable;
  }

  /** Calls back from inside {@link reload}, with the revision that stood before. Returns the unsubscribe function. */
  onReplaced(listener: (before: number) => void): () => void {
    this.#replacedListeners.add(listener);
    return () => this.#replacedListeners.delete(listener);
  }

  /**
   * History from `startRevision` on (inclusive), whole revisions in order, until the bounds are reached or the present is: then the next call
   * starts one above the last revision it got. At least one revision comes unless there is none. Events may be views of storage: encode or copy
   * them before returning to the event loop.
   *
   * @throws StatusError `compacted` when `startRevision` is below the compact revision. A start at it still gets every event.
   */
  eventsFrom(startRevision: number, bounds: CatchUpBounds): readonly RevisionEvents[] {
    if (startRevision < this.#revisions.compacted) throw failure('compacted');
    const groups: { revision: number; events: KvEvent[] }[] = [];
    let bytes = 0;
    for (const { key, value } of this.#store.scan('log', logKey(Math.max(0, startRevision), 0), undefined)) {
      const { main } = readLogKey(key);
      const group = groups.at(-1);
      if (group?.revision === main) {
        group.events.push(eventOf(value));
      } else {
        if (groups.length >= bounds.maxRevisions || bytes >= bounds.maxBytes) break;
        groups.push({ revision: main, events: [eventOf(value)] });
      }
      bytes += value.length;
    }
    return groups;
  }

  /**
   * The KeyValue of a key at a revision in its wire form, a view of storage: with `event.modRevision - 1`, what an event replaced. Undefined when
   * the key did not exist then, and when that revision is compacted.
   */
  kvAt(key: Uint8Array, revision: number): Uint8Array | undefined {
    if (revision < 1 || revision < this.#revisions.compacted) return undefined;
    return versionAt(this.#store, pastPrefix(key), revision);
  }

  // ---- writes: apply only -----------------------------------------------------------------------------------------------------------

  /** Begins the writes of an entry. They must be made, and the txn ended, without returning to the event loop. */
  begin(): WriteTxn {
    return new WriteTxn(this.#store, this.#revisions, (changes) => this.#publish(changes));
  }

  /**
   * Refuses reads below `revision` from now on, and leaves the rows they would have needed to {@link compactStep}.
   *
   * @throws StatusError `compacted` when `revision` is not above the present compact revision, `future-revision` when it is above the current.
   */
  compact(revision: number): void {
    this.#compaction.schedule(revision);
  }

  /** Whether storage holds nothing any more that compaction is to take out. */
  get isCompacted(): boolean {
    return this.#compaction.isDone;
  }

  /**
   * Takes out some of what compaction left, passing at most `maxRows` changes; to be called again, with pauses, until it returns true. While a
   * read under way needs what would go, nothing is done and false returned. What it writes becomes durable with the next `Store.applied`.
   */
  compactStep(maxRows: number): boolean {
    return this.#compaction.step(maxRows);
  }

  // ---- integrity --------------------------------------------------------------------------------------------------------------------

  /**
   * A checksum of the history up to `revision` (0: the current) that a read could still ask for. Members that applied the same entries give the
   * same, however far each has come with taking out what was compacted.
   *
   * @throws StatusError `compacted` or `future-revision`, before anything is read.
   */
  hashKv(revision: number, slicer: Slicer): Promise<Pick<HashKVResponse, 'hash' | 'compactRevision' | 'hashRevision'>> {
    return new HashRead(this.#store, this.#revisions, this.#compaction, revision).run(slicer);
  }

  #open(request: RangeRequest, pin: Pin | undefined): RangeRead {
    if (pin !== undefined) this.#revisions.checkEpoch(pin.epoch);
    const revision = pin?.revision ?? this.#revisions.resolve(request.revision);
    return new RangeRead(this.#store, this.#revisions, request, revision);
  }

  async #finish(read: RangeRead, slicer: Slicer): Promise<RangeResult> {
    const unpin = this.#revisions.pin(read.revision);
    try {
      do {
        read.keep();
        await slicer.nextSlice();
      } while (!read.step(slicer));
      read.keep();
      return read.result();
    } finally {
      unpin();
    }
  }

  #publish(changes: RevisionEvents): void {
    if (changes.events.length === 0) return;
    for (const listener of this.#listeners) listener(changes);
  }
}

export type AppliedListener = (changes: RevisionEvents) => void;

/**
 * The revision is that of the last row in `log`, and stands nowhere else, so that the two cannot disagree: compaction takes out neither the last
 * version of a live key nor a deletion at the compact revision, and so never the last row.
 */
export function currentRevision(store: Pick<Store, 'scan'>): number {
  for (const row of store.scan('log', logKey(0, 0), undefined, { reverse: true, limit: 1 })) return readLogKey(row.key).main;
  return 1;
}
