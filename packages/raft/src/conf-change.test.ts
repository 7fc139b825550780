import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { changedConfState, decodeConfChange, encodeConfChange } from './conf-change.ts';
import type { ConfChange } from './types.ts';

const changes: fc.Arbitrary<ConfChange> = fc.record({
  type: fc.constantFrom('addVoter' as const, 'addLearner' as const, 'remove' as const, 'update' as const),
  member: fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }),
  context: fc.uint8Array(),
});

describe('a change of membership', () => {
  it('reads back as it was written', () => {
    fc.assert(
      fc.property(changes, (change) => {
        expect(decodeConfChange(encodeConfChange(change))).toEqual(change);
      }),
    );
  });

  it('that cannot be understood stops the member', () => {
    const bytes = encodeConfChange({ type: 'remove', member: 5n, context: Uint8Array.of(1) });
    for (let length = 0; length < 10; length++) expect(() => decodeConfChange(bytes.subarray(0, length))).toThrow(/shorter/);
    expect(() => decodeConfChange(Uint8Array.of(2, ...bytes.subarray(1)))).toThrow(/format version 2/);
    for (const type of [0, 5, 255]) expect(() => decodeConfChange(Uint8Array.of(1, type, ...bytes.subarray(2)))).toThrow(`type ${type}`);
  });

  it('leaves every member in one place, and moves the quorum by one at most', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(changes, fc.bigInt({ min: 1n, max: 4n }))), (list) => {
        let conf = { voters: [1n], learners: [] } as ReturnType<typeof changedConfState>;
        for (const [change, member] of list) {
          const next = changedConfState(conf, { ...change, member });
          const all = [...next.voters, ...next.learners];
          expect(new Set(all).size).toBe(all.length);
          expect(Math.abs(next.voters.length - conf.voters.length)).toBeLessThanOrEqual(1);
          conf = next;
        }
      }),
    );
  });

  it('never turns a voter into a learner', () => {
    const conf = { voters: [1n, 2n], learners: [3n] };
    const change = (type: ConfChange['type'], member: bigint): ConfChange => ({ type, member, context: new Uint8Array(0) });
    expect(changedConfState(conf, change('addLearner', 2n))).toBe(conf);
    expect(changedConfState(conf, change('addVoter', 3n))).toEqual({ voters: [1n, 2n, 3n], learners: [] });
    expect(changedConfState(conf, change('remove', 1n))).toEqual({ voters: [2n], learners: [3n] });
  });
});
