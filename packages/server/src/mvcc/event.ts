import { Event_EventType } from '@conclave/protocol';
import { createRevisionOf, isTombstone, keyOf, modRevisionOf } from './key-value.ts';

/**
 * One change of one key, as watchers get it. `kv` is the wire form of the event's KeyValue, ready to be put into a response: whole for a PUT,
 * key and modRevision for a DELETE. The same bytes stand in the `log` table.
 */
export interface KvEvent {
  /** `Event_EventType.PUT` or `Event_EventType.DELETE`. */
  readonly type: number;
  readonly key: Uint8Array;
  readonly kv: Uint8Array;
  readonly modRevision: number;
  /** A PUT that began an incarnation of the key: there is no previous KeyValue. */
  readonly isCreate: boolean;
}

/** Everything that happened at one revision, in the order of the sub-revisions. Never empty. */
export interface RevisionEvents {
  readonly revision: number;
  readonly events: readonly KvEvent[];
}

/** The event a row of `log` stands for. */
export function eventOf(kv: Uint8Array): KvEvent {
  const key = keyOf(kv);
  const modRevision = modRevisionOf(kv);
  if (isTombstone(kv)) return { type: Event_EventType.DELETE, key, kv, modRevision, isCreate: false };
  return { type: Event_EventType.PUT, key, kv, modRevision, isCreate: createRevisionOf(kv) === modRevision };
}
