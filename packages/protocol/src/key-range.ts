/**
 * Ranges of keys, in the form the wire gives them and in the form one can reason about.
 *
 * Keys are bytes, ordered bytewise with a prefix before its extensions. On the wire a range is a pair (key, rangeEnd) in
 * which two values of rangeEnd are not bounds: empty means the one key, and a single zero byte means no end.
 */

const noBytes: Uint8Array = new Uint8Array(0);
const zeroByte: Uint8Array = new Uint8Array([0]);

/**
 * Bytewise order: negative when `a` comes first, 0 when they are equal, positive when `b` comes first.
 *
 * @public
 */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const difference = (a[at] as number) - (b[at] as number);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/**
 * The rangeEnd that goes with `prefix` as the key to mean every key that starts with it.
 *
 * An empty prefix, or one of 0xff bytes only, has no key after its last: the result is then `"\0"`, no end. Note that
 * with an empty prefix the key must be `"\0"` as well, see {@link allKeys}.
 *
 * @public
 */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length--;
  if (length === 0) return zeroByte.slice();
  // Not prefix.slice: a Buffer's is a view of the same bytes, and the caller's prefix would change.
  const end = Uint8Array.from(prefix.subarray(0, length));
  end[length - 1] = (end[length - 1] as number) + 1;
  return end;
}

/**
 * The wire form of every key there is. New bytes on each call, so that nobody can spoil another's.
 *
 * @public
 */
export function allKeys(): { key: Uint8Array; rangeEnd: Uint8Array } {
  return { key: zeroByte.slice(), rangeEnd: zeroByte.slice() };
}

/**
 * A range of keys as one half-open interval [start, end).
 *
 * The wire form it was made from stays with it untouched. Only {@link start} and {@link end} are derived, and they mean
 * exactly the wire form's keys: turning (key, empty) into (key, "\0") on the way to a permission check would let a reader
 * of one key read all that follow.
 *
 * Invariant: the interval holds every key `k` with start <= k, and k < end unless end is undefined, and no other key.
 *
 * @example
 * ```ts
 * const pods = KeyRange.fromWire(key('/pods/'), prefixEnd(key('/pods/')));
 * pods.contains(key('/pods/a')); // true
 * ```
 * @public
 */
export class KeyRange {
  /** The key as it was on the wire. */
  readonly key: Uint8Array;
  /** The range end as it was on the wire. */
  readonly rangeEnd: Uint8Array;
  /** The lowest key that can be in the range. */
  readonly start: Uint8Array;
  /** The lowest key beyond the range; undefined when nothing is beyond. */
  readonly end: Uint8Array | undefined;

  private constructor(key: Uint8Array, rangeEnd: Uint8Array, end: Uint8Array | undefined) {
    this.key = key;
    this.rangeEnd = rangeEnd;
    this.start = key;
    this.end = end;
  }

  /** The range a request means. Refers to the given bytes; do not change them afterwards. */
  static fromWire(key: Uint8Array, rangeEnd: Uint8Array): KeyRange {
    if (rangeEnd.length === 0) return new KeyRange(key, rangeEnd, successor(key));
    const isOpen = rangeEnd.length === 1 && rangeEnd[0] === 0;
    return new KeyRange(key, rangeEnd, isOpen ? undefined : rangeEnd);
  }

  /** Only this key. */
  static single(key: Uint8Array): KeyRange {
    return KeyRange.fromWire(key, noBytes);
  }

  /** Every key that starts with `prefix`; every key when it is empty. */
  static prefix(prefix: Uint8Array): KeyRange {
    return prefix.length === 0 ? KeyRange.all() : KeyRange.fromWire(prefix, prefixEnd(prefix));
  }

  /** Every key. */
  static all(): KeyRange {
    const { key, rangeEnd } = allKeys();
    return KeyRange.fromWire(key, rangeEnd);
  }

  /** Whether the wire form names one key. A range that happens to hold one key is not single. */
  get isSingle(): boolean {
    return this.rangeEnd.length === 0;
  }

  /** Whether no key can be in the range. */
  isEmpty(): boolean {
    return this.end !== undefined && compareBytes(this.start, this.end) >= 0;
  }

  contains(key: Uint8Array): boolean {
    return compareBytes(this.start, key) <= 0 && (this.end === undefined || compareBytes(key, this.end) < 0);
  }

  /** Whether each key of `other` is in this range. Any range covers an empty one. */
  covers(other: KeyRange): boolean {
    if (other.isEmpty()) return true;
    if (compareBytes(this.start, other.start) > 0) return false;
    if (this.end === undefined) return true;
    return other.end !== undefined && compareBytes(other.end, this.end) <= 0;
  }

  /** Whether some key is in both ranges. */
  overlaps(other: KeyRange): boolean {
    if (this.isEmpty() || other.isEmpty()) return false;
    return (
      (this.end === undefined || compareBytes(other.start, this.end) < 0) &&
      (other.end === undefined || compareBytes(this.start, other.end) < 0)
    );
  }
}

/** The lowest key above `key`. */
function successor(key: Uint8Array): Uint8Array {
  const next = new Uint8Array(key.length + 1);
  next.set(key);
  return next;
}
