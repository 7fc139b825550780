/**
 * Keys of the rows in `log` and `past`. Bytewise order of the rows is the order that reads need: `log` by revision, `past` by key and then from
 * the newest version of a key to its oldest.
 */

const two32 = 4294967296;

/** Where a change stands in history: the revision and the number of the change within it, from 0. */
export interface Position {
  readonly main: number;
  readonly sub: number;
}

const positionSize = 16;

/** Key in `log`: main and sub, 8 bytes big endian each. */
export function logKey(main: number, sub: number): Uint8Array {
  const bytes = new Uint8Array(positionSize);
  put64(bytes, 0, main);
  put64(bytes, 8, sub);
  return bytes;
}

export function readLogKey(bytes: Uint8Array): Position {
  return { main: get64(bytes, 0), sub: get64(bytes, 8) };
}

// A zero byte within a key is followed by 0xff, and two zero bytes end the key: so a key sorts before its extensions, and every row of a key
// stands together whatever bytes follow.
const afterZero = 0xff;

/** What all rows of `key` in `past` begin with, and rows of no other key. */
export function pastPrefix(key: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(escapedSize(key) + 2);
  putEscaped(bytes, key);
  return bytes;
}

/** The lowest row in `past` of keys not below `key`. */
export function pastStart(key: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(escapedSize(key));
  putEscaped(bytes, key);
  return bytes;
}

/** Key in `past`: the version of `key` written at `main`. Newer versions of a key sort before older ones. */
export function pastKey(key: Uint8Array, main: number): Uint8Array {
  const length = escapedSize(key) + 2;
  const bytes = new Uint8Array(length + 8);
  putEscaped(bytes, key);
  putInverted(bytes, length, main);
  return bytes;
}

/** Key in `past` of the newest version at or before `main`, for rows that begin with `prefix`. */
export function pastAt(prefix: Uint8Array, main: number): Uint8Array {
  const bytes = new Uint8Array(prefix.length + 8);
  bytes.set(prefix);
  putInverted(bytes, prefix.length, main);
  return bytes;
}

/** The lowest bytes above every row that begins with `prefix`. */
export function pastAfter(prefix: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(prefix);
  bytes[bytes.length - 1] = 1;
  return bytes;
}

/** Whether a row of `past` belongs to the key of `prefix`. */
export function isPastOf(row: Uint8Array, prefix: Uint8Array): boolean {
  const { length } = prefix;
  if (row.length !== length + 8) return false;
  for (let at = length - 1; at >= 0; at--) if (row[at] !== prefix[at]) return false;
  return true;
}

export function pastPrefixOf(row: Uint8Array): Uint8Array {
  return row.subarray(0, row.length - 8);
}

/** The revision of a row of `past`. */
export function pastMainOf(row: Uint8Array): number {
  const at = row.length - 8;
  return (~get32(row, at) >>> 0) * two32 + (~get32(row, at + 4) >>> 0);
}

/** The key that a prefix stands for. */
export function keyOfPrefix(prefix: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(prefix.length - 2);
  let length = 0;
  for (let at = 0; at < prefix.length - 2; at++) {
    bytes[length++] = prefix[at] as number;
    if (prefix[at] === 0) at++;
  }
  return bytes.subarray(0, length);
}

/** Value in `past`: the sub-revision of the version, and whether it is a deletion. Not to be written into: common ones are shared. */
export function pastValue(sub: number, tombstone: boolean): Uint8Array {
  return sub === 0 ? (tombstone ? firstDeletion : firstPut) : newPastValue(sub, tombstone);
}

const firstPut = newPastValue(0, false);
const firstDeletion = newPastValue(0, true);

function newPastValue(sub: number, tombstone: boolean): Uint8Array {
  const bytes = new Uint8Array(5);
  bytes[0] = tombstone ? 1 : 0;
  put32(bytes, 1, sub);
  return bytes;
}

export function isPastTombstone(value: Uint8Array): boolean {
  return value[0] === 1;
}

export function pastSubOf(value: Uint8Array): number {
  return get32(value, 1);
}

function escapedSize(key: Uint8Array): number {
  let size = key.length;
  for (let at = 0; at < key.length; at++) if (key[at] === 0) size++;
  return size;
}

function putEscaped(bytes: Uint8Array, key: Uint8Array): void {
  let to = 0;
  for (let at = 0; at < key.length; at++) {
    const byte = key[at] as number;
    bytes[to++] = byte;
    if (byte === 0) bytes[to++] = afterZero;
  }
}

function putInverted(bytes: Uint8Array, at: number, main: number): void {
  put32(bytes, at, ~Math.floor(main / two32));
  put32(bytes, at + 4, ~(main % two32));
}

function put64(bytes: Uint8Array, at: number, value: number): void {
  put32(bytes, at, Math.floor(value / two32));
  put32(bytes, at + 4, value);
}

function get64(bytes: Uint8Array, at: number): number {
  return get32(bytes, at) * two32 + get32(bytes, at + 4);
}

function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function get32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)) >>> 0
  );
}
