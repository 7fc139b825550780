import { Random } from '@conclave/testing';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type History, HistoryRecorder, type Operation } from '../history.ts';
import { lawfulHistory } from './lawful-history.ts';
import { checkLinearizable, type TimedCall } from './linearizability.ts';
import { checkRegisters, type RegisterCall, register } from './registers.ts';

/** Every order of every choice of unknown calls, tried one by one. */
function isLinearizableByForce(calls: readonly TimedCall<RegisterCall>[]): boolean {
  const from = (left: readonly TimedCall<RegisterCall>[], state: { readonly value: string | undefined }): boolean => {
    if (left.every((call) => call.isUnknown)) return true;
    return left.some((call) => {
      if (left.some((other) => !other.isUnknown && other.return < call.call)) return false;
      const next = register.step(state, call.what);
      return (
        next !== undefined &&
        from(
          left.filter((other) => other !== call),
          next,
        )
      );
    });
  };
  return from(calls, register.initial);
}

const value = fc.constantFrom('a', 'b', undefined);
const what: fc.Arbitrary<RegisterCall> = fc.oneof(
  fc.record({ type: fc.constant('write' as const), value }),
  fc.record({ type: fc.constant('read' as const), value }),
  fc.record({
    type: fc.constant('cas' as const),
    expected: fc.constantFrom('a', 'b'),
    value: fc.constantFrom('a', 'b'),
    succeeded: fc.option(fc.boolean(), { nil: undefined }),
  }),
);
const timedCall: fc.Arbitrary<TimedCall<RegisterCall>> = fc
  .record({ call: fc.nat(12), length: fc.nat(6), isUnknown: fc.boolean(), what })
  .map(({ call, length, isUnknown, what }) => ({ call, return: call + length, isUnknown, what }));

test('the search agrees with trying every order', () => {
  let illegal = 0;
  fc.assert(
    fc.property(fc.array(timedCall, { maxLength: 7 }), (calls) => {
      const isLegal = isLinearizableByForce(calls);
      if (!isLegal) illegal++;
      expect(checkLinearizable(register, calls).status).toBe(isLegal ? 'linearizable' : 'illegal');
    }),
    { numRuns: 3000, seed: 7 },
  );
  expect(illegal).toBeGreaterThan(500);
});

test('a search that takes too long says so', () => {
  const calls = Array.from({ length: 12 }, (_, at) => ({
    call: 0,
    return: 100,
    isUnknown: false,
    what: { type: 'write' as const, value: `${at}` },
  }));
  const never = { call: 200, return: 201, isUnknown: false, what: { type: 'read' as const, value: 'never' } };
  expect(checkLinearizable(register, [...calls, never], 1000).status).toBe('undecided');
});

const plain = (seed: number): History =>
  lawfulHistory(seed, { operations: 2000, isPlain: true, keys: 10, clients: 8, unknown: 0.02, hasWitness: false }).history;

describe('registers', () => {
  test('nothing is found in lawful histories', () => {
    for (let seed = 0; seed < 10; seed++) expect(checkRegisters(plain(seed))).toEqual([]);
  });

  test('a read of what was never there, of what is gone, and of what is still to come are found', () => {
    for (let seed = 0; seed < 8; seed++) {
      const history = plain(seed);
      const random = new Random(seed);
      const reads = history.operations.filter(
        ({ outcome }) => outcome.status === 'ok' && outcome.response.type === 'range' && outcome.response.count > 0,
      );
      const read = random.pick(reads);
      expect(checkRegisters(withValue(history, read, 'never')), `seed ${seed}`).toHaveLength(1);
      const key = (read.request as { readonly key: string }).key;
      const puts = history.operations.flatMap(({ request, call, return: returned, outcome }) =>
        request.type === 'put' && request.key === key && outcome.status === 'ok' ? [{ call, returned, value: request.value }] : [],
      );
      const later = puts.find((put) => put.call > read.return);
      if (later !== undefined) expect(checkRegisters(withValue(history, read, later.value)), `seed ${seed}`).toHaveLength(1);
      const over = puts.filter((put) => put.returned < read.call);
      const overwritten = over.find((put) => over.some((next) => next.call > put.returned));
      if (overwritten !== undefined) expect(checkRegisters(withValue(history, read, overwritten.value)), `seed ${seed}`).toHaveLength(1);
    }
  });

  test('an exchange that found another value than there was is found', () => {
    const recorder = new HistoryRecorder();
    recorder.call(1, 0, { type: 'put', key: 'a', value: '1' }).ok(1, 2, { type: 'put' });
    const exchange = {
      type: 'txn',
      compares: [{ key: 'a', target: 'value', is: '=', operand: '2' }],
      success: [{ type: 'put', key: 'a', value: '3' }],
      failure: [],
    } as const;
    recorder.call(1, 2, exchange).ok(3, 3, { type: 'txn', succeeded: true, responses: [{ type: 'put' }] });
    const [finding] = checkRegisters(recorder.finish(4));
    expect(finding?.context).toEqual([
      'in order: #0 client 1, 0..1 ms: put "a" = "1" -> revision 2: done',
      expect.stringMatching(/^does not fit: #1 client 1, 2\.\.3 ms: txn if \(value of "a" = "2"\)/),
    ]);
  });

  test('a range over many keys is no register', () => {
    const recorder = new HistoryRecorder();
    recorder.call(1, 0, { type: 'deleteRange', key: 'a', end: 'b' }).unknown(1);
    expect(() => checkRegisters(recorder.finish(2))).toThrow('more than one register');
  });
});

function withValue(history: History, read: Operation, value: string): History {
  const changed = history.operations.map((operation): Operation => {
    const { outcome } = operation;
    if (operation !== read || outcome.status !== 'ok' || outcome.response.type !== 'range') return operation;
    const kvs = outcome.response.kvs.map((kv) => ({ ...kv, value }));
    return { ...operation, outcome: { ...outcome, response: { ...outcome.response, kvs } } };
  });
  return { ...history, operations: changed };
}
