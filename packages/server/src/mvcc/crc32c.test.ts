import { describe, expect, it } from 'vitest';
import { crc32c } from './crc32c.ts';

describe('crc32c', () => {
  it('gives the check values of RFC 3720', () => {
    expect(crc32c(0, new TextEncoder().encode('123456789'))).toBe(0xe3069283);
    expect(crc32c(0, new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(0, new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(
      crc32c(
        0,
        Uint8Array.from({ length: 32 }, (_, at) => at),
      ),
    ).toBe(0x46dd794e);
  });

  it('goes on from what was covered before', () => {
    const text = new TextEncoder().encode('a locked room');
    for (let at = 0; at <= text.length; at++) expect(crc32c(crc32c(0, text.subarray(0, at)), text.subarray(at))).toBe(crc32c(0, text));
  });
});
