import { createHash } from 'node:crypto';

/**
 * LMDB takes keys up to 1,978 bytes, etcd knows no such limit. A key longer than {@link plainKeyBytesMax} is filed under
 *
 *     its first 1,945 bytes · the SHA-256 of the whole key (32 bytes) · slot (1 byte)
 *
 * with the whole key in front of the value. Filed keys are therefore always longer than plain ones: the length tells them apart, and the order of
 * two rows is right by their first 1,945 bytes unless both are filed under the same prefix. Such rows, a bucket, lie side by side, in the order of
 * their digests; whoever reads them sorts them by the whole key. A plain key that equals the prefix comes right before its bucket, where it belongs.
 *
 * Keys of equal digest, if there ever are any, take slots 0, 1, 2, ... without a gap.
 */
export const plainKeyBytesMax = 1945;

const digestBytes = 32;

/** The limit of the engine, which a filed key reaches exactly. */
export const filedKeyBytes: number = plainKeyBytesMax + digestBytes + 1;

/** How a long key becomes 32 bytes. A parameter only so that a test can make keys collide. */
export type Digest = (key: Uint8Array) => Uint8Array;

export const sha256: Digest = (key) => createHash('sha256').update(key).digest();

/** The filed form of a long key in slot 0. */
export function filedKey(key: Uint8Array, digest: Digest): Uint8Array {
  const filed = new Uint8Array(filedKeyBytes);
  filed.set(key.subarray(0, plainKeyBytesMax));
  filed.set(digest(key), plainKeyBytesMax);
  return filed;
}

export function isFiled(storedKey: Uint8Array): boolean {
  return storedKey.length > plainKeyBytesMax;
}

export function isLong(key: Uint8Array): boolean {
  return key.length > plainKeyBytesMax;
}

/** Whether two filed keys belong to the same bucket. */
export function isSameBucket(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a.subarray(0, plainKeyBytesMax), b.subarray(0, plainKeyBytesMax)) === 0;
}

/** Takes what is stored under a filed key apart: length of the whole key (4 bytes, little endian), the whole key, the value. */
export function unfile(stored: Uint8Array): { readonly key: Uint8Array; readonly value: Uint8Array } {
  const length = stored[0]! | (stored[1]! << 8) | (stored[2]! << 16) | (stored[3]! << 24);
  return { key: stored.subarray(4, 4 + length), value: stored.subarray(4 + length) };
}
