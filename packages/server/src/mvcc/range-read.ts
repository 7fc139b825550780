import { compareBytes, KeyRange, type RangeRequest, RangeRequest_SortOrder, RangeRequest_SortTarget } from '@conclave/protocol';
import type { Row } from '../storage/backend/backend.ts';
import type { Store } from '../storage/backend/store.ts';
import { fieldsOf, keyOf, valueIn, withoutValue, withoutValueAndLease } from './key-value.ts';
import type { Revisions } from './revisions.ts';
import {
  isPastOf,
  isPastTombstone,
  keyOfPrefix,
  logKey,
  pastAfter,
  pastAt,
  pastMainOf,
  pastPrefix,
  pastPrefixOf,
  pastStart,
  pastSubOf,
} from './row.ts';
import type { Slicer } from './slicer.ts';

/** What a range read found. */
export interface RangeResult {
  /** KeyValues in their wire form. They may be views of storage: encode or copy them before returning to the event loop. */
  readonly kvs: readonly Uint8Array[];
  /** Keys in the range at that revision, whatever the limit and the filters. */
  readonly count: number;
  /** The limit cut the result. */
  readonly more: boolean;
}

// How often a slicer is asked, in rows: asking costs about as much as a row.
const rowsPerCheck = 32;
// Bytes that take about as long to read and copy as a row does otherwise.
const bytesPerRow = 8192;
// Versions of one key to step over before seeking past them instead.
const stepsBeforeSeek = 8;

/**
 * One read of a range at a revision that stays the same however long the read takes.
 *
 * While the store stands at that revision the rows come from `head`; once it has moved on, the read goes on through `past` from the key after
 * the last one seen, where keys deleted since are still found. The caller keeps the revision pinned between steps.
 */
export class RangeRead {
  readonly revision: number;
  readonly #store: Store;
  readonly #revisions: Revisions;
  readonly #epoch: number;
  readonly #request: RangeRequest;
  /** Undefined for a read of one key. */
  readonly #range: KeyRange | undefined;
  /** KeyValues still to collect; what lies beyond them is only counted. */
  #wanted: number;
  #kvs: Uint8Array[] = [];
  /** Those before this position are copies, not views. */
  #owned = 0;
  #count = 0;
  /** The last key seen; the next step continues after it. */
  #last: Uint8Array | undefined;

  /** @param revision - already resolved, or pinned */
  constructor(store: Store, revisions: Revisions, request: RangeRequest, revision: number) {
    this.#store = store;
    this.#revisions = revisions;
    this.#epoch = revisions.epoch;
    this.#request = request;
    this.#range = request.rangeEnd.length === 0 ? undefined : KeyRange.fromWire(request.key, request.rangeEnd);
    this.revision = revision;
    this.#wanted = wantedOf(request);
  }

  /** Reads on. True when the range was read to its end; false when the slice was spent before, or `room` KeyValues were collected. */
  step(slicer?: Slicer, room: number = Number.POSITIVE_INFINITY): boolean {
    this.#revisions.checkEpoch(this.#epoch);
    if (this.#range === undefined) return this.#readKey();
    if (this.#range.isEmpty()) return true;
    const pause = new Pause(slicer, () => this.holds(room));
    return this.revision === this.#revisions.current ? this.#stepHead(this.#range, pause) : this.#stepPast(this.#range, pause);
  }

  /** Makes what was read so far independent of storage. To be called before returning to the event loop. */
  keep(): void {
    for (; this.#owned < this.#kvs.length; this.#owned++) this.#kvs[this.#owned] = new Uint8Array(this.#kvs[this.#owned] as Uint8Array);
  }

  /** Whether as many KeyValues were collected. */
  holds(kvs: number): boolean {
    return this.#kvs.length >= kvs;
  }

  /** What was collected, and leaves the read without it: for a read that is answered in parts, in key order and without filters. */
  part(): Uint8Array[] {
    const kvs = asAsked(this.#kvs, this.#request);
    this.#kvs = [];
    this.#owned = 0;
    return kvs;
  }

  /** After the last step. */
  result(): RangeResult {
    const request = this.#request;
    const matched = isCutEarly(request) ? this.#count : this.#kvs.length;
    let kvs = sorted(this.#kvs, request);
    if (request.limit > 0 && kvs.length > request.limit) kvs = kvs.slice(0, request.limit);
    return { kvs: asAsked(kvs, request), count: this.#count, more: !request.countOnly && request.limit > 0 && matched > request.limit };
  }

  #readKey(): boolean {
    const { key } = this.#request;
    const isCurrent = this.revision === this.#revisions.current;
    const kv = isCurrent ? this.#store.get('head', key) : versionAt(this.#store, pastPrefix(key), this.revision);
    if (kv !== undefined) this.#take(kv);
    return true;
  }

  #stepHead(range: KeyRange, pause: Pause): boolean {
    // What is left to be counted only, a limit's rest above all, is read without its values.
    for (;;) {
      const keysOnly = this.#wanted <= 0;
      const start = this.#last === undefined ? range.start : successor(this.#last);
      if (this.#scanHead(start, range.end, keysOnly, pause)) return true;
      if (keysOnly || this.#wanted > 0 || pause.isOver) return false;
    }
  }

  /** True at the end of the range; false when it is time to pause, or to go on without values. */
  #scanHead(start: Uint8Array, end: Uint8Array | undefined, keysOnly: boolean, pause: Pause): boolean {
    for (const row of this.#store.scan('head', start, end, { keysOnly })) {
      this.#take(row.value);
      if (!pause.isDue(row.value.length) && (keysOnly || this.#wanted > 0)) continue;
      this.#last = new Uint8Array(row.key);
      return false;
    }
    return true;
  }

  #stepPast(range: KeyRange, pause: Pause): boolean {
    const end = range.end === undefined ? undefined : pastStart(range.end);
    let from: Uint8Array | undefined = this.#last === undefined ? pastStart(range.start) : pastAfter(pastPrefix(this.#last));
    while (from !== undefined) {
      const scan = new PastScan(this.#store, this.revision, pause);
      if (!scan.run(from, end, (row) => this.#takePast(row))) {
        this.#last = keyOfPrefix(scan.prefix);
        return false;
      }
      from = scan.next;
    }
    return true;
  }

  #takePast(row: Row): number {
    const kv = this.#wanted > 0 ? liveVersion(this.#store, row) : undefined;
    this.#take(kv);
    return kv?.length ?? 0;
  }

  #take(kv: Uint8Array | undefined): void {
    this.#count++;
    if (kv === undefined || this.#wanted <= 0 || !passes(kv, this.#request)) return;
    this.#wanted--;
    this.#kvs.push(kv);
  }
}

/** keys_only leaves the lease out too, except where the read was sorted by value: so it is since etcd 3.7. */
function asAsked(kvs: Uint8Array[], { keysOnly, sortTarget }: RangeRequest): Uint8Array[] {
  if (!keysOnly) return kvs;
  return kvs.map(sortTarget === RangeRequest_SortTarget.VALUE ? withoutValue : withoutValueAndLease);
}

/** When a read has to stop for now. */
class Pause {
  readonly #slicer: Slicer | undefined;
  readonly #isFull: () => boolean;
  /** Since the slicer was asked, in rows. */
  #work = 0;

  constructor(slicer: Slicer | undefined, isFull: () => boolean) {
    this.#slicer = slicer;
    this.#isFull = isFull;
  }

  /** The last answer was that it is due. */
  isOver = false;

  /** Asked after every row, with the bytes it brought. */
  isDue(bytes: number): boolean {
    this.isOver = this.#isFull() || this.#isSpent(bytes);
    return this.isOver;
  }

  #isSpent(bytes: number): boolean {
    this.#work += 1 + bytes / bytesPerRow;
    if (this.#slicer === undefined || this.#work < rowsPerCheck) return false;
    this.#work = 0;
    return this.#slicer.isSpent();
  }
}

/** One run over `past` rows in order, up to where seeking is cheaper than stepping. */
class PastScan {
  /** The key whose rows were seen last. */
  prefix: Uint8Array = new Uint8Array(0);
  /** Where to go on with a new scan; undefined when there is nothing left. */
  next: Uint8Array | undefined;
  readonly #store: Store;
  readonly #revision: number;
  readonly #pause: Pause;

  constructor(store: Store, revision: number, pause: Pause) {
    this.#store = store;
    this.#revision = revision;
    this.#pause = pause;
  }

  /** Gives the row of each key that was live to `take`, which says how many bytes that brought. False when it paused, with all rows of `prefix` dealt with. */
  run(from: Uint8Array, end: Uint8Array | undefined, take: (row: Row) => number): boolean {
    // The version that counts was seen; older ones of the key follow.
    let isSettled = false;
    let steps = 0;
    for (const row of this.#store.scan('past', from, end)) {
      if (!isPastOf(row.key, this.prefix)) {
        this.prefix = pastPrefixOf(row.key);
        isSettled = false;
        steps = 0;
      }
      if (isSettled || pastMainOf(row.key) > this.#revision) {
        if (++steps <= stepsBeforeSeek) continue;
        this.next = isSettled ? pastAfter(this.prefix) : pastAt(this.prefix, this.#revision);
        return true;
      }
      isSettled = true;
      steps = 0;
      const bytes = isPastTombstone(row.value) ? 0 : take(row);
      if (this.#pause.isDue(bytes)) return false;
    }
    return true;
  }
}

/** The KeyValue of the key at a revision; undefined when it did not exist then. */
export function versionAt(store: Store, prefix: Uint8Array, revision: number): Uint8Array | undefined {
  for (const row of store.scan('past', pastAt(prefix, revision), pastAfter(prefix), { limit: 1 })) {
    return isPastTombstone(row.value) ? undefined : liveVersion(store, row);
  }
  return undefined;
}

function liveVersion(store: Store, pastRow: Row): Uint8Array {
  const main = pastMainOf(pastRow.key);
  const kv = store.get('log', logKey(main, pastSubOf(pastRow.value)));
  if (kv === undefined) throw new Error(`no row in log at revision ${main}, which past refers to`);
  return kv;
}

/** KeyValues to collect. A target other than the key is sorted after the cut when no order was asked for, among one more than the limit. */
function wantedOf(request: RangeRequest): number {
  if (request.countOnly) return 0;
  if (request.limit <= 0 || !isCutEarly(request)) return Number.POSITIVE_INFINITY;
  return request.sortTarget === RangeRequest_SortTarget.KEY ? request.limit : request.limit + 1;
}

/** Whether the limit cuts the range as scanned: with an order or a filter it cuts what these leave. */
function isCutEarly(request: RangeRequest): boolean {
  return request.sortOrder === RangeRequest_SortOrder.NONE && !hasFilter(request);
}

function hasFilter(request: RangeRequest): boolean {
  return request.minModRevision !== 0 || request.maxModRevision !== 0 || request.minCreateRevision !== 0 || request.maxCreateRevision !== 0;
}

function passes(kv: Uint8Array, request: RangeRequest): boolean {
  if (!hasFilter(request)) return true;
  const { modRevision, createRevision } = fieldsOf(kv);
  return (
    (request.minModRevision === 0 || modRevision >= request.minModRevision) &&
    (request.maxModRevision === 0 || modRevision <= request.maxModRevision) &&
    (request.minCreateRevision === 0 || createRevision >= request.minCreateRevision) &&
    (request.maxCreateRevision === 0 || createRevision <= request.maxCreateRevision)
  );
}

/** A target other than the key is sorted ascending even when no order was asked for. */
function sorted(kvs: Uint8Array[], request: RangeRequest): Uint8Array[] {
  const { sortTarget, sortOrder } = request;
  const isByKey = sortTarget === RangeRequest_SortTarget.KEY;
  if (isByKey && sortOrder !== RangeRequest_SortOrder.DESCEND) return kvs;
  if (isByKey) return kvs.toReversed();
  const compare = comparatorOf(sortTarget);
  return kvs.sort(sortOrder === RangeRequest_SortOrder.DESCEND ? (a, b) => compare(b, a) : compare);
}

function comparatorOf(target: number): (a: Uint8Array, b: Uint8Array) => number {
  switch (target) {
    case RangeRequest_SortTarget.VERSION:
      return (a, b) => fieldsOf(a).version - fieldsOf(b).version;
    case RangeRequest_SortTarget.CREATE:
      return (a, b) => fieldsOf(a).createRevision - fieldsOf(b).createRevision;
    case RangeRequest_SortTarget.MOD:
      return (a, b) => fieldsOf(a).modRevision - fieldsOf(b).modRevision;
    case RangeRequest_SortTarget.VALUE:
      return (a, b) => compareBytes(valueIn(a), valueIn(b));
    default:
      return (a, b) => compareBytes(keyOf(a), keyOf(b));
  }
}

function successor(key: Uint8Array): Uint8Array {
  const next = new Uint8Array(key.length + 1);
  next.set(key);
  return next;
}
