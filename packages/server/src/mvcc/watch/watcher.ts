import { Event_EventType, type WatchCreateRequest, WatchCreateRequest_FilterType } from '@conclave/protocol';
import { type EncodedEvent, encodeWatchId } from './event-encoding.ts';
import type { Outlet } from './outlet.ts';

/** Keys as latin-1 strings, one character a byte: JavaScript compares and hashes them in the order of the bytes. */
export type KeyString = string;

export function keyString(key: Uint8Array): KeyString {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
}

/** The keys a watcher wants. `single`: only `start`; otherwise start <= key < end, without end when it is undefined. */
export interface WatchedKeys {
  readonly start: KeyString;
  readonly end: KeyString | undefined;
  readonly single: boolean;
}

const zeroKey: KeyString = '\0';

/** What the wire form means; undefined when no key can be in it. Unlike elsewhere an empty key is allowed and means the lowest one. */
export function watchedKeys(key: Uint8Array, rangeEnd: Uint8Array): WatchedKeys | undefined {
  const start = key.length === 0 ? zeroKey : keyString(key);
  if (rangeEnd.length === 0) return { start, end: undefined, single: true };
  if (rangeEnd.length === 1 && rangeEnd[0] === 0) return { start, end: undefined, single: false };
  const end = keyString(rangeEnd);
  return start < end ? { start, end, single: false } : undefined;
}

/** In what form a watcher wants its events. Watchers of equal keys and equal form share every byte but the watch id. */
export interface WatchForm {
  readonly wantsPuts: boolean;
  readonly wantsDeletes: boolean;
  readonly prevKv: boolean;
  readonly fragment: boolean;
}

export function watchForm(request: WatchCreateRequest): WatchForm {
  const { filters, prevKv, fragment } = request;
  return {
    wantsPuts: !filters.includes(WatchCreateRequest_FilterType.NOPUT),
    wantsDeletes: !filters.includes(WatchCreateRequest_FilterType.NODELETE),
    prevKv,
    fragment,
  };
}

/** The watchers of equal keys in equal form, and what was matched for all of them and is not yet delivered. */
export class Subscription {
  readonly keys: WatchedKeys;
  readonly form: WatchForm;
  readonly watchers: Set<Watcher> = new Set();
  #batch: EncodedEvent[] = [];

  constructor(keys: WatchedKeys, form: WatchForm) {
    this.keys = keys;
    this.form = form;
  }

  wants(event: EncodedEvent): boolean {
    return event.type === Event_EventType.DELETE ? this.form.wantsDeletes : this.form.wantsPuts;
  }

  /** Adds to the batch; true when it was empty before. */
  push(event: EncodedEvent): boolean {
    return this.#batch.push(event) === 1;
  }

  /** Gives the batch away and begins an empty one. */
  take(): readonly EncodedEvent[] {
    const batch = this.#batch;
    this.#batch = [];
    return batch;
  }
}

/**
 * One watch on one stream.
 *
 * It is in one of three states. Live: it gets what is applied, as it is applied. Behind: history from {@link next} on is still to be read for
 * it. Ended: nothing is sent to it any more, because it was canceled or because its history was compacted away.
 */
export class Watcher {
  readonly outlet: Outlet;
  readonly id: bigint;
  /** The id as every response carries it. */
  readonly idField: Uint8Array;
  readonly keys: WatchedKeys;
  readonly form: WatchForm;
  readonly progressNotify: boolean;
  state: 'live' | 'behind' | 'ended' = 'ended';
  /**
   * Nothing below this revision is sent any more: it was sent already or was never asked for. While live it stays what it was when the watcher
   * became so; while behind it is where reading goes on.
   */
  next: number;
  /** Whether it was sent events since its stream last told progress. */
  isActive = false;
  /** Where it stands in the index of its state. */
  subscription: Subscription | undefined;

  constructor(outlet: Outlet, id: bigint, keys: WatchedKeys, form: WatchForm, progressNotify: boolean, next: number) {
    this.outlet = outlet;
    this.id = id;
    this.idField = encodeWatchId(id);
    this.keys = keys;
    this.form = form;
    this.progressNotify = progressNotify;
    this.next = next;
  }

  get isClosed(): boolean {
    return this.state === 'ended';
  }
}
