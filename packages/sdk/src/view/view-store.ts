import { type Event, Event_EventType as EventType, type KeyValue as WireKeyValue } from '@conclave/protocol';
import type { KeyPrefix } from '../kv/key-range.ts';
import { KeyValue } from '../kv/key-value.ts';
import { listDifference } from '../kv/list-difference.ts';
import { idOf } from '../kv/text.ts';
import type { ViewChange } from './view-change.ts';
import type { IndexFunction } from './view-options.ts';

/** What a view holds: keys by their ids, and by each index. */
export class ViewStore {
  readonly #prefix: KeyPrefix;
  readonly #kvs = new Map<string, KeyValue>();
  readonly #indexes = new Map<string, Index>();

  constructor(prefix: KeyPrefix, indexes: Readonly<Record<string, IndexFunction>>) {
    this.#prefix = prefix;
    for (const [name, valuesOf] of Object.entries(indexes)) this.#indexes.set(name, new Index(valuesOf));
  }

  get size(): number {
    return this.#kvs.size;
  }

  get(key: Uint8Array): KeyValue | undefined {
    return this.#kvs.get(idOf(key));
  }

  values(): IterableIterator<KeyValue> {
    return this.#kvs.values();
  }

  /** Undefined: there is no such index. */
  by(index: string, value: string): readonly KeyValue[] | undefined {
    return this.#indexes.get(index)?.get(value);
  }

  /** The change that an event makes. Undefined: none, of a key that was never there. */
  apply(event: Event): ViewChange | undefined {
    const wire = event.kv as WireKeyValue;
    const revision = BigInt(wire.modRevision);
    return event.type === EventType.DELETE ? this.#remove(idOf(wire.key), revision) : this.#put(wire, revision);
  }

  /** The changes that lead from here to `kvs`, which is all there is at `revision`. */
  replace(kvs: readonly WireKeyValue[], revision: bigint): ViewChange[] {
    const isKnown = (kv: WireKeyValue): boolean => this.get(kv.key)?.modRevision === BigInt(kv.modRevision);
    const { gone, written } = listDifference(this.#kvs.keys(), kvs, isKnown);
    const removed = gone.map((id) => this.#remove(id, revision)).filter((change) => change !== undefined);
    return [...removed, ...written.map((kv) => this.#put(kv, revision))];
  }

  #put(wire: WireKeyValue, revision: bigint): ViewChange {
    const id = idOf(wire.key);
    const old = this.#kvs.get(id);
    // Copies: a view keeps keys for long, and each would keep the whole message it came in.
    const kv = new KeyValue({ ...wire, key: new Uint8Array(wire.key), value: new Uint8Array(wire.value) }, this.#prefix);
    for (const index of this.#indexes.values()) index.put(id, kv);
    this.#kvs.set(id, kv);
    return old === undefined ? { type: 'added', kv, old, revision } : { type: 'changed', kv, old, revision };
  }

  #remove(id: string, revision: bigint): ViewChange | undefined {
    const old = this.#kvs.get(id);
    if (old === undefined) return undefined;
    for (const index of this.#indexes.values()) index.remove(id);
    this.#kvs.delete(id);
    return { type: 'removed', kv: undefined, old, revision };
  }
}

/** The keys by what a function says of them. */
class Index {
  readonly #valuesOf: IndexFunction;
  readonly #kvs = new Map<string, Map<string, KeyValue>>();
  readonly #values = new Map<string, readonly string[]>();

  constructor(valuesOf: IndexFunction) {
    this.#valuesOf = valuesOf;
  }

  get(value: string): readonly KeyValue[] {
    return [...(this.#kvs.get(value)?.values() ?? [])];
  }

  put(id: string, kv: KeyValue): void {
    const said = this.#valuesOf(kv) ?? [];
    const values = typeof said === 'string' ? [said] : said;
    this.remove(id);
    if (values.length > 0) this.#values.set(id, values);
    for (const value of values) {
      const kvs = this.#kvs.get(value) ?? new Map<string, KeyValue>();
      this.#kvs.set(value, kvs.set(id, kv));
    }
  }

  remove(id: string): void {
    for (const value of this.#values.get(id) ?? []) {
      const kvs = this.#kvs.get(value);
      kvs?.delete(id);
      if (kvs?.size === 0) this.#kvs.delete(value);
    }
    this.#values.delete(id);
  }
}
