/**
 * The stored form of one version of a key: the wire form of its KeyValue, fields in the order of their numbers. A response is therefore put
 * together by copying rows, and the same buffer serves `head` and `log`.
 *
 * A tombstone is a KeyValue with key and modRevision only, which is just what the event of a deletion carries. Every put has a version of at
 * least 1 and a createRevision, so the field after the key tells them apart.
 */

import { allocate } from './slab.ts';
import { putVarint, varintSize } from './varint.ts';

const keyTag = 0x0a;
const createTag = 0x10;
const modTag = 0x18;
const versionTag = 0x20;
const valueTag = 0x2a;
const leaseTag = 0x30;

/** Where things are in a stored KeyValue, and its numbers. Offsets count from the start of the bytes. */
export interface KvFields {
  readonly keyStart: number;
  readonly keyEnd: number;
  /** 0 for a tombstone. */
  readonly createRevision: number;
  readonly modRevision: number;
  /** 0 for a tombstone. */
  readonly version: number;
  /** Start of the value's field, tag included; equal to `valueEnd` when the value is empty. */
  readonly valueField: number;
  readonly valueStart: number;
  /** End of the value. The lease's field follows, up to the end of the bytes; there is none when the key has no lease. */
  readonly valueEnd: number;
}

export interface KvInit {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

/** The stored form. Key and value are copied. */
export function encodeKv(init: KvInit): Uint8Array {
  const { key, value, lease } = init;
  const keyField = 1 + varintSize(key.length) + key.length;
  const numbers = 3 + varintSize(init.createRevision) + varintSize(init.modRevision) + varintSize(init.version);
  const valueField = value.length === 0 ? 0 : 1 + varintSize(value.length) + value.length;
  const leaseField = lease === 0n ? 0 : 1 + leaseSize(lease);
  const bytes = allocate(keyField + numbers + valueField + leaseField);
  let at = putBytes(bytes, 0, keyTag, key);
  at = putNumber(bytes, at, createTag, init.createRevision);
  at = putNumber(bytes, at, modTag, init.modRevision);
  at = putNumber(bytes, at, versionTag, init.version);
  if (valueField > 0) at = putBytes(bytes, at, valueTag, value);
  if (leaseField > 0) putLease(bytes, at, lease);
  return bytes;
}

/** The stored form of a deletion. The key is copied. */
export function encodeTombstone(key: Uint8Array, modRevision: number): Uint8Array {
  const bytes = allocate(2 + varintSize(key.length) + key.length + varintSize(modRevision));
  putNumber(bytes, putBytes(bytes, 0, keyTag, key), modTag, modRevision);
  return bytes;
}

/** Reads everything but the contents of key, value and lease. */
export function fieldsOf(bytes: Uint8Array): KvFields {
  const cursor = new Cursor(bytes);
  cursor.expect(keyTag);
  const keyLength = cursor.number();
  const keyStart = cursor.at;
  const keyEnd = keyStart + keyLength;
  cursor.at = keyEnd;
  const createRevision = cursor.take(createTag);
  const modRevision = cursor.take(modTag);
  const version = cursor.take(versionTag);
  const valueField = cursor.at;
  const valueLength = cursor.take(valueTag);
  const valueStart = cursor.at;
  return { keyStart, keyEnd, createRevision, modRevision, version, valueField, valueStart, valueEnd: valueStart + valueLength };
}

/** A view of the key. */
export function keyOf(bytes: Uint8Array): Uint8Array {
  const cursor = new Cursor(bytes);
  cursor.expect(keyTag);
  const length = cursor.number();
  return bytes.subarray(cursor.at, cursor.at + length);
}

export function isTombstone(bytes: Uint8Array): boolean {
  const cursor = new Cursor(bytes);
  cursor.expect(keyTag);
  const length = cursor.number();
  return bytes[cursor.at + length] !== createTag;
}

export function createRevisionOf(bytes: Uint8Array): number {
  return fieldsOf(bytes).createRevision;
}

export function modRevisionOf(bytes: Uint8Array): number {
  return fieldsOf(bytes).modRevision;
}

/** A view of the value. */
export function valueIn(bytes: Uint8Array): Uint8Array {
  const { valueStart, valueEnd } = fieldsOf(bytes);
  return bytes.subarray(valueStart, valueEnd);
}

/** The lease the key is attached to, 0 when it is attached to none. */
export function leaseOf(bytes: Uint8Array): bigint {
  const { valueEnd } = fieldsOf(bytes);
  if (valueEnd === bytes.length) return 0n;
  if (bytes[valueEnd] !== leaseTag) throw corrupt('the field after the value');
  let lease = 0n;
  for (let at = valueEnd + 1, shift = 0n; at < bytes.length; at++, shift += 7n) lease |= BigInt((bytes[at] as number) & 0x7f) << shift;
  return BigInt.asIntN(64, lease);
}

/** The same without the value, as a read with keysOnly answers. May share its bytes. */
export function withoutValue(bytes: Uint8Array): Uint8Array {
  const { valueField, valueEnd } = fieldsOf(bytes);
  if (valueEnd === bytes.length) return bytes.subarray(0, valueField);
  const result = new Uint8Array(bytes.length - (valueEnd - valueField));
  result.set(bytes.subarray(0, valueField));
  result.set(bytes.subarray(valueEnd), valueField);
  return result;
}

/** A view of the fields up to the value: key, revisions and version, without value and lease. */
export function withoutValueAndLease(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(0, fieldsOf(bytes).valueField);
}

class Cursor {
  at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  expect(tag: number): void {
    if (this.#bytes[this.at++] !== tag) throw corrupt(`no field with tag ${tag}`);
  }

  /** The number after `tag`, or 0 without moving when another field comes next. */
  take(tag: number): number {
    if (this.#bytes[this.at] !== tag) return 0;
    this.at++;
    return this.number();
  }

  number(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.at++] as number;
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    for (let scale = 0x80; byte >= 0x80; scale *= 0x80) {
      byte = bytes[this.at++] as number;
      value += (byte & 0x7f) * scale;
    }
    if (!Number.isSafeInteger(value)) throw corrupt('a number out of range');
    return value;
  }
}

function corrupt(what: string): Error {
  return new Error(`corrupt KeyValue in storage: ${what}`);
}

function putNumber(bytes: Uint8Array, at: number, tag: number, value: number): number {
  bytes[at] = tag;
  return putVarint(bytes, at + 1, value);
}

function putBytes(bytes: Uint8Array, at: number, tag: number, contents: Uint8Array): number {
  bytes[at] = tag;
  const start = putVarint(bytes, at + 1, contents.length);
  bytes.set(contents, start);
  return start + contents.length;
}

function leaseSize(lease: bigint): number {
  let size = 1;
  for (let rest = BigInt.asUintN(64, lease) >> 7n; rest > 0n; rest >>= 7n) size++;
  return size;
}

function putLease(bytes: Uint8Array, start: number, lease: bigint): void {
  const whole = BigInt.asUintN(64, lease);
  let high = Number(whole >> 32n);
  let low = Number(whole & 0xffffffffn);
  let at = start;
  bytes[at++] = leaseTag;
  while (high > 0 || low >= 0x80) {
    bytes[at++] = (low & 0x7f) | 0x80;
    low = ((low >>> 7) | (high << 25)) >>> 0;
    high >>>= 7;
  }
  bytes[at] = low;
}
