import { WatchResponse } from '@conclave/protocol';
import type { KvEvent } from '../event.ts';
import { putVarint, varintSize } from '../varint.ts';
import type { WatchSource } from './source.ts';

/**
 * A WatchResponse is put together from pieces that many watchers share. The wire form allows it: a message is the concatenation of its fields,
 * so a header, a watch id and each event are encoded once, alone, and then only copied.
 */

// What is encoded here lives until it is sent. Taking its memory from Buffer's pool costs a third of a Uint8Array of its own.

const eventsTag = 0x5a;
const typeTag = 0x08;
const kvTag = 0x12;
const prevKvTag = 0x1a;

/** One event of one revision, encoded at most once with and once without its previous KeyValue. */
export class EncodedEvent {
  readonly revision: number;
  readonly #event: KvEvent;
  readonly #source: WatchSource;
  #plain: Uint8Array | undefined;
  #withPrev: Uint8Array | undefined;

  constructor(event: KvEvent, source: WatchSource) {
    this.revision = event.modRevision;
    this.#event = event;
    this.#source = source;
  }

  get type(): number {
    return this.#event.type;
  }

  /** The `events` field of a WatchResponse, in memory of its own. Must be asked for first while the bytes of the KvEvent are valid. */
  field(withPrev: boolean): Uint8Array {
    if (withPrev) {
      this.#withPrev ??= this.#encodeWithPrev();
      return this.#withPrev;
    }
    this.#plain ??= encodeEvent(this.#event, undefined);
    return this.#plain;
  }

  #encodeWithPrev(): Uint8Array {
    const { key, isCreate, modRevision } = this.#event;
    const prev = isCreate ? undefined : this.#source.kvAt(key, modRevision - 1);
    return prev === undefined ? this.field(false) : encodeEvent(this.#event, prev);
  }
}

function encodeEvent(event: KvEvent, prev: Uint8Array | undefined): Uint8Array {
  const { type, kv } = event;
  const typeSize = type === 0 ? 0 : 2;
  const size = typeSize + fieldSize(kv) + (prev === undefined ? 0 : fieldSize(prev));
  const bytes = Buffer.allocUnsafe(1 + varintSize(size) + size);
  bytes[0] = eventsTag;
  let at = putVarint(bytes, 1, size);
  if (typeSize > 0) {
    bytes[at++] = typeTag;
    bytes[at++] = type;
  }
  at = putField(bytes, at, kvTag, kv);
  if (prev !== undefined) putField(bytes, at, prevKvTag, prev);
  return bytes;
}

/**
 * A WatchResponse without its watch id: everything that watchers of the same events share. `before` and `after` are the fields that come before
 * and after the id.
 */
export interface ResponseBody {
  readonly before: Uint8Array;
  readonly after: Uint8Array;
  /** The response for watch id 0, which takes no bytes on the wire. Made when first needed. */
  whole: Uint8Array | undefined;
}

export function bodySize(body: ResponseBody): number {
  return body.before.length + body.after.length;
}

/** The watch id as it stands in every response to this watcher. */
export function encodeWatchId(watchId: bigint): Uint8Array {
  return WatchResponse.encode({ watchId });
}

/** A complete WatchResponse. Responses to watch id 0 share their memory, so nobody may write into the result. */
export function joinResponse(body: ResponseBody, watchId: Uint8Array): Uint8Array {
  if (watchId.length > 0) return join(body, watchId);
  body.whole ??= join(body, watchId);
  return body.whole;
}

function join({ before, after }: ResponseBody, watchId: Uint8Array): Uint8Array {
  const head = before.length + watchId.length;
  const bytes = Buffer.allocUnsafe(head + after.length);
  bytes.set(before, 0);
  bytes.set(watchId, before.length);
  bytes.set(after, head);
  return bytes;
}

const fragmentField: Uint8Array = WatchResponse.encode({ fragment: true });
// No watch id takes more: a tag and ten bytes.
const longestWatchId = 11;

/**
 * The bodies of one batch: one, or several whose last alone is not a fragment, when the watcher accepts fragments and the whole would reach
 * `fragmentBytes`. A single event is never split.
 *
 * @param fragmentBytes - undefined: the watcher takes any size.
 */
export function encodeBodies(header: Uint8Array, events: readonly Uint8Array[], fragmentBytes: number | undefined): ResponseBody[] {
  if (fragmentBytes === undefined || events.length === 1) return [body(header, events, false)];
  const overhead = header.length + longestWatchId + fragmentField.length;
  const bodies: ResponseBody[] = [];
  let start = 0;
  let size = overhead;
  for (let at = 0; at < events.length; at++) {
    const length = events[at]!.length;
    if (at > start && size + length >= fragmentBytes) {
      bodies.push(body(header, events.slice(start, at), true));
      start = at;
      size = overhead;
    }
    size += length;
  }
  bodies.push(body(header, start === 0 ? events : events.slice(start), false));
  return bodies;
}

function body(before: Uint8Array, events: readonly Uint8Array[], isFragment: boolean): ResponseBody {
  const after = concat(...(isFragment ? [fragmentField] : []), ...events);
  return { before, after, whole: undefined };
}

function concat(...parts: Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  let size = 0;
  for (const part of parts) size += part.length;
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function fieldSize(contents: Uint8Array): number {
  return 1 + varintSize(contents.length) + contents.length;
}

function putField(bytes: Uint8Array, at: number, tag: number, contents: Uint8Array): number {
  bytes[at] = tag;
  const start = putVarint(bytes, at + 1, contents.length);
  bytes.set(contents, start);
  return start + contents.length;
}
