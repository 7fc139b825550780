import { type Event, Event_EventType as EventType, type KeyValue as WireKeyValue } from '@conclave/protocol';
import type { KeyPrefix } from '../kv/key-range.ts';
import { KeyValue } from '../kv/key-value.ts';

/**
 * A change of one key.
 *
 * @example
 * ```ts
 * client.watch(prefix('config/'), { prevKv: true }).subscribe((event) => {
 *   if (event.type === 'delete') console.log(event.key, 'was', event.prevKv?.value);
 *   else console.log(event.isCreation ? 'new' : 'changed', event.key, event.value, event.revision);
 * });
 * ```
 */
export class WatchEvent {
  // What `console.log` shows. Defined by hand, as a computed name has no place in a declaration.
  static {
    Object.defineProperty(WatchEvent.prototype, Symbol.for('nodejs.util.inspect.custom'), {
      value(this: WatchEvent): object {
        const { type, kv, prevKv, conflated } = this;
        return { type, kv, prevKv, ...(conflated > 0 && { conflated }) };
      },
    });
  }

  readonly type: 'put' | 'delete';
  /** The key after the change. Of a deletion: only the key and, as `modRevision`, when it happened. */
  readonly kv: KeyValue;
  /** The key before the change, if that was asked for, there was one, and it is not compacted away. */
  readonly prevKv: KeyValue | undefined;
  /**
   * How many earlier changes of the same key are not told, as this one came before a slow loop had taken them: only with `overflow: 'conflate'`,
   * otherwise 0. `prevKv` is the key before the first of them.
   */
  readonly conflated: number;

  /** @internal */
  constructor(type: 'put' | 'delete', kv: KeyValue, prevKv: KeyValue | undefined, conflated = 0) {
    this.type = type;
    this.kv = kv;
    this.prevKv = prevKv;
    this.conflated = conflated;
  }

  /** The key, as text. */
  get key(): string {
    return this.kv.key;
  }

  /** The value after the change, as text; empty for a deletion. */
  get value(): string {
    return this.kv.value;
  }

  /** The revision of the change. Several events share one if they come from one transaction. */
  get revision(): bigint {
    return this.kv.modRevision;
  }

  /** Whether the key did not exist before. */
  get isCreation(): boolean {
    return this.type === 'put' && this.kv.version === 1n;
  }
}

/** Comes first, if asked for by `notifyCreated`: from now on the server watches. */
export interface WatchCreated {
  readonly type: 'created';
  /** Changes after this revision will be told. */
  readonly revision: bigint;
}

/** Comes when nothing changed for a while, if asked for by `progressNotify`. */
export interface WatchProgress {
  readonly type: 'progress';
  /** Every change up to this revision has been told. */
  readonly revision: bigint;
}

export function toWatchEvent(event: Event, prefix: KeyPrefix): WatchEvent {
  const type = event.type === EventType.DELETE ? 'delete' : 'put';
  const prevKv = event.prevKv === undefined ? undefined : new KeyValue(event.prevKv, prefix);
  return new WatchEvent(type, new KeyValue(event.kv as WireKeyValue, prefix), prevKv);
}
