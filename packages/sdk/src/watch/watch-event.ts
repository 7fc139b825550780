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
        const { type, kv, prevKv, conflated, isSynthesised } = this;
        return { type, kv, prevKv, ...(conflated > 0 && { conflated }), ...(isSynthesised && { isSynthesised }) };
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
  // Not `#`, for the same reason as in KeyValue.
  private readonly resyncRevision: bigint | undefined;

  /** @internal */
  constructor(type: 'put' | 'delete', kv: KeyValue, prevKv: KeyValue | undefined, conflated = 0, resyncRevision?: bigint) {
    this.type = type;
    this.kv = kv;
    this.prevKv = prevKv;
    this.conflated = conflated;
    this.resyncRevision = resyncRevision;
  }

  /** @internal */
  withConflated(conflated: number, prevKv: KeyValue | undefined): WatchEvent {
    return new WatchEvent(this.type, this.kv, prevKv, conflated, this.resyncRevision);
  }

  /**
   * Whether the server did not tell this: it was found by reading the range after history had been compacted away, only with
   * `onCompacted: 'relist'`. It stands for all that happened to the key meanwhile, and comes after a {@link WatchResync}, with `prevKv` undefined.
   */
  get isSynthesised(): boolean {
    return this.resyncRevision !== undefined;
  }

  /** The key, as text. */
  get key(): string {
    return this.kv.key;
  }

  /** The value after the change, as text; empty for a deletion. */
  get value(): string {
    return this.kv.value;
  }

  /**
   * The revision of the change. Several events share one if they come from one transaction, or are synthesised: then it is that of the reading
   * which found them, and `kv.modRevision` that of the key's last write, or for a deletion the same.
   */
  get revision(): bigint {
    return this.resyncRevision ?? this.kv.modRevision;
  }

  /** Whether the key did not exist before. Of a synthesised event: whether the key was written only once since it came to be. */
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

/**
 * Comes before the synthesised events that stand for history which was compacted away, with `onCompacted: 'relist'`. After them everything up to
 * `revision` has been told, and the watch goes on with what came next.
 *
 * @example
 * ```ts
 * const colors = new Map<string, string>();
 * client.watch(prefix('colors/'), { startRevision: 1, onCompacted: 'relist' }).subscribe((event) => {
 *   if (event.type === 'resync') {
 *     if (event.scope === 'everything') colors.clear(); // all there is follows
 *   } else if (event.type === 'put') colors.set(event.key, event.value);
 *   else colors.delete(event.key);
 * });
 * ```
 */
export interface WatchResync {
  readonly type: 'resync';
  /** The revision at which the range was read. */
  readonly revision: bigint;
  /**
   * What follows:
   *
   * - `difference`: one event for each key that was written or is gone since what was told last;
   * - `everything`: one put for each key that is there, as the watch did not know which keys there were before. What the program knows of and is not
   *   among them is gone. Their `kv.modRevision` can be from before what was told.
   */
  readonly scope: 'difference' | 'everything';
}

/** @param resyncRevision where the reading was that found it; undefined: the server told it */
export function toWatchEvent(event: Event, prefix: KeyPrefix, resyncRevision?: bigint): WatchEvent {
  const type = event.type === EventType.DELETE ? 'delete' : 'put';
  const prevKv = event.prevKv === undefined ? undefined : new KeyValue(event.prevKv, prefix);
  return new WatchEvent(type, new KeyValue(event.kv as WireKeyValue, prefix), prevKv, 0, resyncRevision);
}
