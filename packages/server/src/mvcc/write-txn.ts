import { Event_EventType, KeyRange, type RangeRequest } from '@conclave/protocol';
import type { Store } from '../storage/backend/store.ts';
import type { KvEvent, RevisionEvents } from './event.ts';
import { encodeKv, encodeTombstone, fieldsOf, keyOf } from './key-value.ts';
import { RangeRead, type RangeResult } from './range-read.ts';
import type { Revisions } from './revisions.ts';
import { logKey, pastKey, pastValue } from './row.ts';

/**
 * The writes of one entry: at most one new revision, its changes numbered from 0 in the order they are made. Writes are visible to the reads
 * of the same txn at once. There is no rollback: whoever begins a txn has checked before that nothing in it can fail.
 */
export class WriteTxn {
  readonly #store: Store;
  readonly #revisions: Revisions;
  readonly #ended: (changes: RevisionEvents) => void;
  readonly #events: KvEvent[] = [];
  #isOpen = true;

  constructor(store: Store, revisions: Revisions, ended: (changes: RevisionEvents) => void) {
    this.#store = store;
    this.#revisions = revisions;
    this.#ended = ended;
  }

  /** The revision that the txn stands at: the store's, and one more from its first write on. */
  get revision(): number {
    return this.#revisions.current;
  }

  /** The live KeyValue of a key, writes of this txn included. A view of storage. */
  get(key: Uint8Array): Uint8Array | undefined {
    return this.#store.get('head', key);
  }

  /** As `Mvcc.rangeSync`; `revision` 0 sees the writes of this txn. */
  range(request: RangeRequest): RangeResult {
    const read = new RangeRead(this.#store, this.#revisions, request, this.#revisions.resolve(request.revision));
    read.step();
    return read.result();
  }

  /** Writes a key and returns what it was before, a view of storage. Key and value are copied. */
  put(key: Uint8Array, value: Uint8Array, lease: bigint): Uint8Array | undefined {
    const main = this.#change();
    const previous = this.#store.get('head', key);
    const before = previous === undefined ? undefined : fieldsOf(previous);
    const createRevision = before?.createRevision ?? main;
    const kv = encodeKv({ key, value, createRevision, modRevision: main, version: (before?.version ?? 0) + 1, lease });
    const owned = keyOf(kv);
    this.#store.put('head', owned, kv);
    this.#record(main, { type: Event_EventType.PUT, key: owned, kv, modRevision: main, isCreate: createRevision === main });
    return previous;
  }

  /** Deletes every key of the range and returns what they were, in key order; views of storage. Nothing matched: nothing changes. */
  deleteRange(key: Uint8Array, rangeEnd: Uint8Array): readonly Uint8Array[] {
    const found = this.#live(KeyRange.fromWire(key, rangeEnd));
    for (const kv of found) this.#delete(keyOf(kv));
    return found;
  }

  /** Ends the txn and tells what it changed. */
  end(): RevisionEvents {
    if (!this.#isOpen) throw new Error('the txn has ended');
    this.#isOpen = false;
    const changes = { revision: this.#revisions.current, events: this.#events };
    this.#ended(changes);
    return changes;
  }

  #live(range: KeyRange): Uint8Array[] {
    if (range.isEmpty()) return [];
    if (!range.isSingle) return Array.from(this.#store.scan('head', range.start, range.end), (row) => row.value);
    const kv = this.#store.get('head', range.key);
    return kv === undefined ? [] : [kv];
  }

  #delete(key: Uint8Array): void {
    const main = this.#change();
    const kv = encodeTombstone(key, main);
    const owned = keyOf(kv);
    this.#store.delete('head', owned);
    this.#record(main, { type: Event_EventType.DELETE, key: owned, kv, modRevision: main, isCreate: false });
  }

  /** Revision of the next change; the first change of the txn begins a new one. */
  #change(): number {
    if (!this.#isOpen) throw new Error('the txn has ended');
    if (this.#events.length === 0) this.#revisions.advance();
    return this.#revisions.current;
  }

  #record(main: number, event: KvEvent): void {
    const sub = this.#events.length;
    this.#store.put('log', logKey(main, sub), event.kv);
    // A key changed twice in one revision leaves two rows in `log` and one here: the last change is what reads at that revision see.
    this.#store.put('past', pastKey(event.key, main), pastValue(sub, event.type === Event_EventType.DELETE));
    this.#events.push(event);
  }
}
