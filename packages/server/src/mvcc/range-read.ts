import { compareBytes, KeyRange, type RangeRequest, RangeRequest_SortOrder, RangeRequest_SortTarget } from '@conclave/protocol';
import type { Store } from '../storage/backend/store.ts';
import { fieldsOf, keyOf, valueIn, withoutValue } from './key-value.ts';
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
  readonly #request: RangeRequest;
  readonly #range: KeyRange;
  /** KeyValues still needed; what lies beyond them is only counted. */
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
    this.#request = request;
    this.#range = KeyRange.fromWire(request.key, request.rangeEnd);
    this.revision = revision;
    this.#wanted = wantedOf(request);
  }

  /** Reads on. True when the range was read to its end; false when the slice was spent before. */
  step(slicer?: Slicer): boolean {
    if (this.#range.isSingle) return this.#readKey();
    if (this.#range.isEmpty()) return true;
    return this.revision === this.#revisions.current ? this.#stepHead(slicer) : this.#stepPast(slicer);
  }

  /** Makes what was read so far independent of storage. To be called before returning to the event loop. */
  keep(): void {
    for (; this.#owned < this.#kvs.length; this.#owned++) this.#kvs[this.#owned] = (this.#kvs[this.#owned] as Uint8Array).slice();
  }

  result(): RangeResult {
    const request = this.#request;
    let kvs = sorted(this.#kvs, request);
    const more = request.limit > 0 && kvs.length > request.limit;
    if (more) kvs = kvs.slice(0, request.limit);
    if (request.keysOnly) kvs = kvs.map(withoutValue);
    return { kvs, count: this.#count, more };
  }

  #readKey(): boolean {
    const { key } = this.#range;
    const kv =
      this.revision === this.#revisions.current ? this.#store.get('head', key) : versionAt(this.#store, pastPrefix(key), this.revision);
    if (kv !== undefined) this.#take(kv);
    return true;
  }

  #stepHead(slicer: Slicer | undefined): boolean {
    const start = this.#last === undefined ? this.#range.start : successor(this.#last);
    let rows = 0;
    for (const row of this.#store.scan('head', start, this.#range.end)) {
      this.#take(row.value);
      if (++rows % rowsPerCheck === 0 && slicer?.isSpent()) {
        this.#last = row.key.slice();
        return false;
      }
    }
    return true;
  }

  #stepPast(slicer: Slicer | undefined): boolean {
    const end = this.#range.end === undefined ? undefined : pastStart(this.#range.end);
    let from: Uint8Array | undefined = this.#last === undefined ? pastStart(this.#range.start) : pastAfter(pastPrefix(this.#last));
    while (from !== undefined) {
      const scan = new PastScan(this.#store, this.revision, from, end);
      const spent = scan.run(
        (kv) => this.#take(kv),
        () => this.#wanted > 0,
        slicer,
      );
      if (spent) {
        this.#last = keyOfPrefix(scan.prefix as Uint8Array).slice();
        return false;
      }
      from = scan.next;
    }
    return true;
  }

  #take(kv: Uint8Array | undefined): void {
    this.#count++;
    if (kv === undefined || this.#wanted <= 0 || !passes(kv, this.#request)) return;
    this.#wanted--;
    this.#kvs.push(kv);
  }
}

/** One run over `past` rows in order, up to where seeking is cheaper than stepping. */
class PastScan {
  /** The key whose rows were seen last. */
  prefix: Uint8Array | undefined;
  /** Where to go on with a new scan; undefined when there is nothing left. */
  next: Uint8Array | undefined;
  readonly #store: Store;
  readonly #revision: number;
  readonly #from: Uint8Array;
  readonly #end: Uint8Array | undefined;

  constructor(store: Store, revision: number, from: Uint8Array, end: Uint8Array | undefined) {
    this.#store = store;
    this.#revision = revision;
    this.#from = from;
    this.#end = end;
  }

  /** Takes the live version of each key. True when the slicer ended it. */
  run(take: (kv: Uint8Array | undefined) => void, wantsKv: () => boolean, slicer: Slicer | undefined): boolean {
    let settled = false;
    let steps = 0;
    let keys = 0;
    for (const row of this.#store.scan('past', this.#from, this.#end)) {
      if (this.prefix === undefined || !isPastOf(row.key, this.prefix)) {
        if (settled && ++keys % rowsPerCheck === 0 && slicer?.isSpent()) return true;
        this.prefix = pastPrefixOf(row.key);
        settled = false;
        steps = 0;
      }
      if (!settled && pastMainOf(row.key) <= this.#revision) {
        settled = true;
        steps = 0;
        if (!isPastTombstone(row.value)) take(wantsKv() ? liveVersion(this.#store, row.key, row.value) : undefined);
      } else if (++steps > stepsBeforeSeek) {
        this.next = settled ? pastAfter(this.prefix) : pastAt(this.prefix, this.#revision);
        return false;
      }
    }
    return false;
  }
}

/** The KeyValue of the key at a revision; undefined when it did not exist then. */
export function versionAt(store: Store, prefix: Uint8Array, revision: number): Uint8Array | undefined {
  for (const row of store.scan('past', pastAt(prefix, revision), pastAfter(prefix), { limit: 1 })) {
    return isPastTombstone(row.value) ? undefined : liveVersion(store, row.key, row.value);
  }
  return undefined;
}

function liveVersion(store: Store, pastRow: Uint8Array, value: Uint8Array): Uint8Array {
  const main = pastMainOf(pastRow);
  const kv = store.get('log', logKey(main, pastSubOf(value)));
  if (kv === undefined) throw new Error(`no row in log at revision ${main}, which past refers to`);
  return kv;
}

/** KeyValues to collect: with an order or a filter the whole range, else one more than the limit so as to know whether it cut. */
function wantedOf(request: RangeRequest): number {
  if (request.countOnly) return 0;
  if (request.limit <= 0 || request.sortOrder !== RangeRequest_SortOrder.NONE || hasFilter(request)) return Number.POSITIVE_INFINITY;
  return request.limit + 1;
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
