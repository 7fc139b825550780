import { KeyValue } from '@conclave/protocol';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeKv, encodeTombstone, fieldsOf, isTombstone, keyOf, leaseOf, modRevisionOf, valueIn, withoutValue } from './key-value.ts';

const number = fc.oneof(
  fc.integer({ min: 1, max: 300 }),
  fc.integer({ min: 2 ** 31 - 2, max: 2 ** 33 }),
  fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
);
const keyValue = fc.record({
  key: fc.uint8Array({ minLength: 1, maxLength: 200 }),
  value: fc.uint8Array({ maxLength: 300 }),
  createRevision: number,
  modRevision: number,
  version: number,
  lease: fc.oneof(fc.constant(0n), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.bigInt({ min: 1n, max: 300n })),
});

describe('the stored KeyValue', () => {
  it('is its wire form', () => {
    fc.assert(
      fc.property(keyValue, (kv) => {
        expect(encodeKv(kv)).toEqual(KeyValue.encode(kv));
      }),
    );
  });

  it('gives back what it was made from', () => {
    fc.assert(
      fc.property(keyValue, (kv) => {
        const bytes = encodeKv(kv);
        const { createRevision, modRevision, version } = fieldsOf(bytes);
        expect({ key: keyOf(bytes), value: valueIn(bytes), createRevision, modRevision, version, lease: leaseOf(bytes) }).toEqual(kv);
        expect(isTombstone(bytes)).toBe(false);
      }),
    );
  });

  it('without its value keeps everything else', () => {
    fc.assert(
      fc.property(keyValue, (kv) => {
        expect(KeyValue.decode(withoutValue(encodeKv(kv)))).toEqual({ ...kv, value: new Uint8Array(0) });
      }),
    );
  });

  it('of a deletion has key and revision and is told apart', () => {
    fc.assert(
      fc.property(keyValue, ({ key, modRevision }) => {
        const bytes = encodeTombstone(key, modRevision);
        expect(bytes).toEqual(KeyValue.encode({ key, modRevision }));
        expect([isTombstone(bytes), modRevisionOf(bytes), fieldsOf(bytes).version]).toEqual([true, modRevision, 0]);
      }),
    );
  });
});
