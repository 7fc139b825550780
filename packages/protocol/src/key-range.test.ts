import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { allKeys, compareBytes, KeyRange, prefixEnd } from './index.ts';

// The alphabet holds the bytes at which the arithmetic turns: the lowest, an inner neighbour pair, the highest.
const alphabet = [0x00, 0x01, 0x61, 0xfe, 0xff];
const keyBytes = (maxLength: number): fc.Arbitrary<Uint8Array> =>
  fc.array(fc.constantFrom(...alphabet), { maxLength }).map((bytes) => new Uint8Array(bytes));
const bound = keyBytes(3);

/** Every key over the alphabet up to one byte longer than any bound, so that each gap between bounds has a key in it. */
const universe: Uint8Array[] = [0, 1, 2, 3, 4].flatMap(words).map((bytes) => new Uint8Array(bytes));

function words(length: number): number[][] {
  if (length === 0) return [[]];
  return words(length - 1).flatMap((word) => alphabet.map((byte) => [...word, byte]));
}

/** What the wire form means, said independently of the code under test. */
function means(key: Uint8Array, rangeEnd: Uint8Array, candidate: Uint8Array): boolean {
  const order = (a: Uint8Array, b: Uint8Array): number => Buffer.compare(a, b);
  if (rangeEnd.length === 0) return order(key, candidate) === 0;
  if (order(key, candidate) > 0) return false;
  return (rangeEnd.length === 1 && rangeEnd[0] === 0) || order(candidate, rangeEnd) < 0;
}

const wireRange = fc.tuple(bound, bound);
const startsWith = (key: Uint8Array, prefix: Uint8Array): boolean => Buffer.compare(key.subarray(0, prefix.length), prefix) === 0;

test('compareBytes orders like Buffer.compare', () => {
  fc.assert(
    fc.property(keyBytes(5), keyBytes(5), (a, b) => {
      expect(Math.sign(compareBytes(a, b))).toBe(Buffer.compare(a, b));
    }),
  );
});

describe('prefixEnd', () => {
  test.each([
    ['an inner byte is incremented', [0x61, 0x62], [0x61, 0x63]],
    ['trailing 0xff bytes fall away', [0x61, 0xff, 0xff], [0x62]],
    ['0xff bytes alone have no end', [0xff, 0xff], [0]],
    ['an empty prefix has no end', [], [0]],
  ])('%s', (_name, prefix, end) => {
    expect(prefixEnd(new Uint8Array(prefix))).toEqual(new Uint8Array(end));
  });

  test('leaves the prefix alone', () => {
    const prefix = new Uint8Array([1, 2]);
    prefixEnd(prefix);
    expect(prefix).toEqual(new Uint8Array([1, 2]));
  });

  test('leaves a Buffer alone, whose slice would share its bytes', () => {
    const prefix = Buffer.from([1, 2]);
    expect(prefixEnd(prefix)).toEqual(new Uint8Array([1, 3]));
    expect(prefix).toEqual(Buffer.from([1, 2]));
  });

  test('bounds exactly the keys that start with the prefix', () => {
    fc.assert(
      fc.property(bound, (prefix) => {
        const range = KeyRange.prefix(prefix);
        // No key is empty, and the range of all keys starts at the lowest one that is not.
        for (const key of universe) if (key.length > 0) expect(range.contains(key)).toBe(startsWith(key, prefix));
      }),
    );
  });
});

describe('KeyRange', () => {
  test('keeps the wire form as it is', () => {
    fc.assert(
      fc.property(wireRange, ([key, rangeEnd]) => {
        const range = KeyRange.fromWire(key, rangeEnd);
        expect(range.key).toBe(key);
        expect(range.rangeEnd).toBe(rangeEnd);
        expect(range.isSingle).toBe(rangeEnd.length === 0);
      }),
    );
  });

  test('contains what the wire form means, and is empty when that is nothing', () => {
    fc.assert(
      fc.property(wireRange, ([key, rangeEnd]) => {
        const range = KeyRange.fromWire(key, rangeEnd);
        const members = universe.filter((candidate) => means(key, rangeEnd, candidate));
        expect(universe.filter((candidate) => range.contains(candidate))).toEqual(members);
        expect(range.isEmpty()).toBe(members.length === 0);
      }),
    );
  });

  test('covers and overlaps agree with membership', () => {
    fc.assert(
      fc.property(wireRange, wireRange, ([keyA, endA], [keyB, endB]) => {
        const a = KeyRange.fromWire(keyA, endA);
        const b = KeyRange.fromWire(keyB, endB);
        const inB = universe.filter((candidate) => means(keyB, endB, candidate));
        const inBoth = inB.filter((candidate) => means(keyA, endA, candidate));
        expect(a.overlaps(b)).toBe(inBoth.length > 0);
        expect(b.overlaps(a)).toBe(inBoth.length > 0);
        expect(a.covers(b)).toBe(inBoth.length === inB.length);
      }),
      { numRuns: 300 },
    );
  });

  test('a right to one key does not cover the keys that follow', () => {
    const key = new Uint8Array([0x61]);
    const own = KeyRange.single(key);
    const following = KeyRange.fromWire(key, new Uint8Array([0]));
    expect(own.covers(following)).toBe(false);
    expect(following.covers(own)).toBe(true);
  });

  test('all keys are one range, fresh each time', () => {
    expect(allKeys()).toEqual({ key: new Uint8Array([0]), rangeEnd: new Uint8Array([0]) });
    expect(allKeys().key).not.toBe(allKeys().key);
    expect(KeyRange.all().covers(KeyRange.prefix(new Uint8Array([0xff])))).toBe(true);
    expect(KeyRange.prefix(new Uint8Array())).toEqual(KeyRange.all());
  });
});
