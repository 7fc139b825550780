/** CRC-32C (Castagnoli, RFC 3720), four bytes at a time. */

const polynomial = 0x82f63b78;
const tables: readonly Uint32Array[] = makeTables();

/** The checksum of what `crc` covers (0 for nothing) followed by `bytes`. Unsigned. */
export function crc32c(crc: number, bytes: Uint8Array): number {
  const [t0, t1, t2, t3] = tables as [Uint32Array, Uint32Array, Uint32Array, Uint32Array];
  const { length } = bytes;
  let rest = ~crc;
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    rest ^=
      (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24);
    rest =
      (t3[rest & 0xff] as number) ^
      (t2[(rest >>> 8) & 0xff] as number) ^
      (t1[(rest >>> 16) & 0xff] as number) ^
      (t0[rest >>> 24] as number);
  }
  for (; at < length; at++) rest = (t0[(rest ^ (bytes[at] as number)) & 0xff] as number) ^ (rest >>> 8);
  return ~rest >>> 0;
}

function makeTables(): Uint32Array[] {
  const first = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let rest = byte;
    for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ polynomial : rest >>> 1;
    first[byte] = rest;
  }
  const result = [first];
  for (let table = 1; table < 4; table++) {
    const before = result[table - 1] as Uint32Array;
    result.push(before.map((rest) => (first[rest & 0xff] as number) ^ (rest >>> 8)));
  }
  return result;
}
