import { compareBytes } from '@conclave/protocol';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  isPastOf,
  keyOfPrefix,
  logKey,
  pastAfter,
  pastAt,
  pastKey,
  pastMainOf,
  pastPrefix,
  pastPrefixOf,
  pastStart,
  readLogKey,
} from './row.ts';

const key = fc.uint8Array({ minLength: 1, maxLength: 6 }).map((bytes) => bytes.map((byte) => [0, 1, 97, 254, 255][byte % 5] as number));
const revision = fc.oneof(fc.nat({ max: 5 }), fc.integer({ min: 2 ** 32 - 3, max: 2 ** 32 + 3 }), fc.maxSafeNat());

describe('rows of past', () => {
  it('sort by key, then from the newest version to the oldest', () => {
    fc.assert(
      fc.property(key, key, revision, revision, (a, b, main, other) => {
        const expected = compareBytes(a, b) || other - main;
        expect(Math.sign(compareBytes(pastKey(a, main), pastKey(b, other)))).toBe(Math.sign(expected));
      }),
    );
  });

  it('lie between the bounds made for their key, and those of other keys do not', () => {
    fc.assert(
      fc.property(key, key, revision, (a, b, main) => {
        const row = pastKey(b, main);
        expect(compareBytes(pastStart(a), row) <= 0).toBe(compareBytes(a, b) <= 0);
        const isWithin = compareBytes(pastPrefix(a), row) <= 0 && compareBytes(row, pastAfter(pastPrefix(a))) < 0;
        expect(isWithin).toBe(compareBytes(a, b) === 0);
        expect(isPastOf(row, pastPrefix(a))).toBe(compareBytes(a, b) === 0);
      }),
    );
  });

  it('give back the key and the revision they were made from', () => {
    fc.assert(
      fc.property(key, revision, (a, main) => {
        const row = pastKey(a, main);
        expect(pastMainOf(row)).toBe(main);
        expect(keyOfPrefix(pastPrefixOf(row))).toEqual(a);
        expect(pastAt(pastPrefix(a), main)).toEqual(row);
      }),
    );
  });
});

describe('rows of log', () => {
  it('sort by revision and sub-revision, and give them back', () => {
    fc.assert(
      fc.property(fc.tuple(revision, revision), fc.tuple(revision, revision), ([main, sub], [otherMain, otherSub]) => {
        expect(readLogKey(logKey(main, sub))).toEqual({ main, sub });
        const expected = main - otherMain || sub - otherSub;
        expect(Math.sign(compareBytes(logKey(main, sub), logKey(otherMain, otherSub)))).toBe(Math.sign(expected));
      }),
    );
  });
});
