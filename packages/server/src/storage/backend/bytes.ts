/** Order of byte strings as every table uses it: unsigned bytes from the front, the shorter first where one begins the other. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  // Crossing into native code costs more than it saves for the keys of every day.
  if (length > nativeCompareMin) return Buffer.compare(a, b);
  for (let i = 0; i < length; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

const nativeCompareMin = 64;

/** The smallest byte string above everything that starts with `prefix`; undefined where there is none (no byte below 255). */
export function endOfPrefix(prefix: Uint8Array): Uint8Array | undefined {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length--;
  if (length === 0) return undefined;
  const end = prefix.slice(0, length);
  end[length - 1]!++;
  return end;
}
