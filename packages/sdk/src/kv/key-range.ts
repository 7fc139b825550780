import { prefixEnd } from '@conclave/protocol';
import { invalidArgument } from '../errors/conclave-error.ts';
import { concatBytes, type Key, noBytes, toBytes } from './text.ts';

/** Keys from `start` on and below `end`. Made by {@link prefix}, {@link range}, {@link fromKey} and {@link allKeys}. */
export interface KeyRange {
  readonly kind: 'range';
  /** The lowest key; empty: there is no lower bound. */
  readonly start: Uint8Array;
  /** The lowest key beyond; undefined: there is no upper bound. */
  readonly end: Uint8Array | undefined;
}

/** One key or a range of them. */
export type Target = Key | KeyRange;

/**
 * Every key that starts with `text`.
 *
 * @example
 * ```ts
 * const { kvs } = await client.list(prefix('config/'));
 * ```
 */
export function prefix(text: Key): KeyRange {
  const start = toBytes(text);
  const end = endOf(start);
  return { kind: 'range', start, end: isOpen(end) ? undefined : end };
}

/**
 * Every key from `start` on and below `end`, in byte order.
 *
 * @example
 * ```ts
 * const { kvs } = await client.list(range('2026-11-01', '2026-12-01')); // all of November
 * ```
 */
export function range(start: Key, end: Key): KeyRange {
  const bound = toBytes(end);
  if (bound.length === 0 || isOpen(bound)) throw invalidArgument('a range needs an end above its start; for no end use fromKey');
  return { kind: 'range', start: toBytes(start), end: bound };
}

/**
 * Every key from `start` on.
 *
 * @example
 * ```ts
 * const { kvs } = await client.list(fromKey('users/m'), { limit: 10 }); // the next ten
 * ```
 */
export function fromKey(start: Key): KeyRange {
  return { kind: 'range', start: toBytes(start), end: undefined };
}

/**
 * Every key; of a namespace, every key in it.
 *
 * @example
 * ```ts
 * const { count } = await client.list(allKeys(), { countOnly: true });
 * ```
 */
export function allKeys(): KeyRange {
  return { kind: 'range', start: noBytes, end: undefined };
}

/** The first key beyond a prefix. Of a copy: a Buffer's slice is no copy, and would be written to. */
function endOf(prefix: Uint8Array): Uint8Array {
  return prefixEnd(new Uint8Array(prefix));
}

function isKeyRange(target: Target): target is KeyRange {
  return typeof target === 'object' && !(target instanceof Uint8Array);
}

/** A range in the words of the wire. */
export interface WireRange {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
}

// On the wire a lone zero byte is the lowest key, and as an end it means that there is none.
const zero: Uint8Array = new Uint8Array([0]);

function isOpen(end: Uint8Array): boolean {
  return end.length === 1 && end[0] === 0;
}

/** What a namespace does to keys on their way out and in. The client itself has the empty one. */
export class KeyPrefix {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** The namespace `key` within this one. */
  append(key: Key): KeyPrefix {
    return new KeyPrefix(concatBytes(this.bytes, toBytes(key)));
  }

  key(key: Key): Uint8Array {
    if (key.length === 0) throw invalidArgument('a key must not be empty');
    const bytes = toBytes(key);
    return this.bytes.length === 0 ? bytes : concatBytes(this.bytes, bytes);
  }

  range(target: Target): WireRange {
    if (!isKeyRange(target)) return { key: this.key(target), rangeEnd: noBytes };
    const { start, end } = target;
    if (this.bytes.length === 0) return { key: start.length === 0 ? zero : start, rangeEnd: end ?? zero };
    return { key: concatBytes(this.bytes, start), rangeEnd: end === undefined ? endOf(this.bytes) : concatBytes(this.bytes, end) };
  }

  /** The key as the namespace's user knows it. */
  strip(key: Uint8Array): Uint8Array {
    return this.bytes.length === 0 ? key : key.subarray(this.bytes.length);
  }

  /** Whether the namespace has this key of the store. */
  covers(key: Uint8Array): boolean {
    return this.bytes.every((byte, at) => key[at] === byte);
  }
}

/** Names keys as the store does. */
export const wholeStore: KeyPrefix = new KeyPrefix(noBytes);
