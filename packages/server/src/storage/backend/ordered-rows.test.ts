import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareBytes, endOfPrefix } from './bytes.ts';
import { OrderedRows } from './ordered-rows.ts';

const key = fc.uint8Array({ maxLength: 4 }).map((bytes) => bytes.map((byte) => [0, 1, 127, 128, 254, 255][byte % 6]!));

describe('bytes', () => {
  test('compare as unsigned bytes, the shorter first, like the native comparison', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.uint8Array({ maxLength: 80 }), fc.nat(80), (a, b, shared) => {
        const left = Uint8Array.of(...a.slice(0, shared), ...b);
        expect(Math.sign(compareBytes(a, left))).toBe(Buffer.compare(a, left));
      }),
    );
  });

  test('endOfPrefix is above all that starts with the prefix and not above anything else', () => {
    fc.assert(
      fc.property(key, key, (prefix, other) => {
        const end = endOfPrefix(prefix);
        const starts = Buffer.from(other).subarray(0, prefix.length).equals(prefix);
        const isWithin = compareBytes(other, prefix) >= 0 && (end === undefined || compareBytes(other, end) < 0);
        expect(isWithin).toBe(starts);
      }),
    );
  });
});

describe('OrderedRows', () => {
  test('agrees with a sorted list under puts, deletes and scans in both directions', () => {
    const command = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constant('set' as const), key: fc.oneof(key, fc.uint8Array({ minLength: 2, maxLength: 2 })) }),
      },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('delete' as const), key }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('scan' as const), key, end: fc.option(key, { nil: undefined }) }) },
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 600, size: 'max' }), (commands) => {
        const rows = new OrderedRows();
        const model = new Map<string, Uint8Array>();
        let bytes = 0;
        for (const { kind, ...at } of commands) {
          if (kind === 'set') {
            const value = new Uint8Array(model.size % 5);
            bytes += rows.set(at.key, value);
            model.set(Buffer.from(at.key).toString('hex'), value);
          } else if (kind === 'delete') {
            bytes -= rows.delete(at.key);
            model.delete(Buffer.from(at.key).toString('hex'));
          } else {
            const end = 'end' in at ? at.end : undefined;
            const expected = [...model.keys()].sort().filter((hex) => inRange(Buffer.from(hex, 'hex'), at.key, end));
            const hexes = (slots: Iterable<{ key: Uint8Array }>): string[] =>
              [...slots].map((slot) => Buffer.from(slot.key).toString('hex'));
            expect(hexes(rows.ascending(at.key, end))).toEqual(expected);
            expect(hexes(rows.descending(at.key, end))).toEqual(expected.reverse());
          }
        }
        expect(rows.size).toBe(model.size);
        for (const hex of model.keys()) bytes -= rows.delete(Buffer.from(hex, 'hex'));
        expect(bytes).toBe(0);
        expect(rows.size).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  test('a scan continued after a row came in throws', () => {
    const rows = new OrderedRows();
    for (const byte of [1, 2, 3]) rows.set(Uint8Array.of(byte), undefined);
    const scan = rows.ascending(new Uint8Array(0), undefined);
    scan.next();
    rows.set(Uint8Array.of(4), undefined);
    expect(() => scan.next()).toThrow('after a write');
  });
});

function inRange(at: Uint8Array, start: Uint8Array, end: Uint8Array | undefined): boolean {
  return compareBytes(at, start) >= 0 && (end === undefined || compareBytes(at, end) < 0);
}
