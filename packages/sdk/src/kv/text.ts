import { invalidArgument } from '../errors/conclave-error.ts';

/** A key as given: text is sent as UTF-8. */
export type Key = string | Uint8Array;

/** A value as given: text is sent as UTF-8. */
export type Value = string | Uint8Array;

/** A revision, version or id as given. Results always hold `bigint`. */
export type Integer = bigint | number;

export const noBytes: Uint8Array = new Uint8Array(0);

export function toBytes(text: string | Uint8Array): Uint8Array {
  return typeof text === 'string' ? Buffer.from(text, 'utf8') : text;
}

export function toText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
}

/** Bytes as a string to compare by: one character a byte, so that any two differ. */
export function idOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

/** The bytes of an {@link idOf}. */
export function bytesOf(id: string): Uint8Array {
  return new Uint8Array(Buffer.from(id, 'latin1'));
}

export function concatBytes(head: Uint8Array, tail: Uint8Array): Uint8Array {
  const joined = new Uint8Array(head.length + tail.length);
  joined.set(head);
  joined.set(tail, head.length);
  return joined;
}

/** A number for the wire's counters: 0 or more, and exact. */
export function toCounter(value: Integer, name: string): number {
  const counter = Number(value);
  if (!Number.isSafeInteger(counter) || counter < 0) throw invalidArgument(`${name} must be an integer from 0 to 2^53-1, not ${value}`);
  return counter;
}

/** An id for the wire: any 64-bit signed integer. */
export function toId(value: Integer, name: string): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) throw invalidArgument(`${name} must be a bigint: ${value} is not exact`);
  const id = BigInt(value);
  if (BigInt.asIntN(64, id) !== id) throw invalidArgument(`${name} must fit 64 bits, unlike ${value}`);
  return id;
}
