import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeEntry, EntryFormatError, encodeEntry, type LoggedRequest, type RequestKind } from './entry.ts';

const sample: LoggedRequest = {
  kind: 'put',
  member: 0x8e9e05c52164694dn,
  epoch: 2 ** 52 + 3,
  counter: 77,
  term: 5,
  user: 'jürgen',
  authRevision: 9,
  body: Uint8Array.of(10, 1, 97),
};

const kinds: readonly RequestKind[] = ['put', 'deleteRange', 'txn', 'compaction', 'leaseGrant', 'leaseRevoke'];
const safe = fc.maxSafeNat();
const requests = fc.record({
  kind: fc.constantFrom(...kinds),
  member: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  epoch: safe,
  counter: safe,
  term: safe,
  user: fc.string({ unit: 'grapheme' }),
  authRevision: safe,
  body: fc.uint8Array({ maxLength: 64 }),
});

describe('a log entry', () => {
  it('reads back as it was written, whatever is in it', () => {
    fc.assert(
      fc.property(requests, (request) => {
        expect(decodeEntry(encodeEntry(request))).toEqual(request);
      }),
    );
  });

  it('has the documented bytes, because logs outlive programs', () => {
    const bytes = encodeEntry({ ...sample, user: 'u', epoch: 2 ** 32 + 2, body: Uint8Array.of(0xee) });
    expect(Buffer.from(bytes).toString('hex')).toBe(
      [
        '01010000',
        '00000001',
        '8e9e05c52164694d',
        '0000000100000002',
        '000000000000004d',
        '0000000000000005',
        '0000000000000009',
        '75',
        'ee',
      ].join(''),
    );
  });

  it('keeps the numbers of its kinds for ever', () => {
    expect(kinds.map((kind) => encodeEntry({ ...sample, kind })[1])).toEqual([1, 2, 3, 4, 5, 6]);
    for (const kind of kinds) expect(decodeEntry(encodeEntry({ ...sample, kind })).kind).toBe(kind);
  });

  it('may be larger than the buffer that small ones share', () => {
    const entries = [1, 4000, 5000, 70_000, 4000].map((size) => ({ ...sample, body: new Uint8Array(size).fill(size) }));
    const written = entries.map(encodeEntry);
    expect(written.map(decodeEntry)).toEqual(entries);
  });

  it('keeps a byte order mark at the start of a user name', () => {
    expect(decodeEntry(encodeEntry({ ...sample, user: '\uFEFFroot' })).user).toBe('\uFEFFroot');
  });

  it('is read in place from the middle of a bigger buffer', () => {
    const bytes = encodeEntry(sample);
    const segment = new Uint8Array(bytes.length + 20).fill(0xff);
    segment.set(bytes, 7);
    expect(decodeEntry(segment.subarray(7, 7 + bytes.length))).toEqual(sample);
  });

  it('halts the member when it ends inside its header or its user name', () => {
    const bytes = encodeEntry({ ...sample, body: new Uint8Array(0) });
    for (let length = 0; length < bytes.length; length++) expect(() => decodeEntry(bytes.subarray(0, length))).toThrow(EntryFormatError);
  });

  it.each([
    ['an unknown version', 0, 2],
    ['an unknown kind', 1, 14],
    ['kind zero', 1, 0],
    ['reserved bits', 3, 1],
    ['an epoch above 2^53-1', 16, 0x20],
    ['a counter above 2^53-1', 24, 0x20],
    ['a term above 2^53-1', 32, 0x20],
    ['an auth revision above 2^53-1', 40, 0x20],
    ['a user name that is not UTF-8', 48, 0xff],
  ])('halts the member on %s', (_, offset, value) => {
    const bytes = encodeEntry(sample);
    bytes[offset] = value;
    expect(() => decodeEntry(bytes)).toThrow(EntryFormatError);
  });

  it.each([-1, 0.5, 2 ** 53, Number.NaN])('is not written with the number %s', (counter) => {
    expect(() => encodeEntry({ ...sample, counter })).toThrow(RangeError);
  });
});
