import type { History, Operation, TxnRequest } from '../history.ts';
import type { Finding } from './finding.ts';
import { checkLinearizable, type SequentialModel, type TimedCall } from './linearizability.ts';
import { showOperation } from './show.ts';

/** What was asked of one key, and answered. `undefined` is a key that does not exist. */
export type RegisterCall =
  | { readonly type: 'write'; readonly value: string | undefined }
  | { readonly type: 'read'; readonly value: string | undefined }
  /** Writes `value` if the key holds `expected`. `succeeded` undefined: not known. */
  | { readonly type: 'cas'; readonly expected: string; readonly value: string; readonly succeeded: boolean | undefined };

/** One key. */
export const register: SequentialModel<{ readonly value: string | undefined }, RegisterCall> = {
  initial: { value: undefined },
  keyOf: ({ value }) => (value === undefined ? '' : `=${value}`),
  step: (state, call) => {
    switch (call.type) {
      case 'write':
        return { value: call.value };
      case 'read':
        return state.value === call.value ? state : undefined;
      case 'cas': {
        const holds = state.value === call.expected;
        if (call.succeeded !== undefined && call.succeeded !== holds) return undefined;
        return holds ? { value: call.value } : state;
      }
    }
  },
};

/**
 * Linearizability of single keys, without a look at revisions: for histories of clients that are not shown any, and as a second opinion on those of clients
 * that are. Knows puts, gets and deletes of one key and transactions that put a value in place of another; other operations on a key are an error of the caller's.
 */
export function checkRegisters(history: History): Finding[] {
  const byKey = new Map<string, { readonly operation: Operation; readonly timed: TimedCall<RegisterCall> }[]>();
  for (const operation of history.operations) {
    const understood = registerCall(operation);
    if (understood === undefined) continue;
    const { key, what } = understood;
    const { call, return: returned, outcome } = operation;
    const timed = { call, return: returned, isUnknown: outcome.status === 'unknown', what };
    const ofKey = byKey.get(key);
    if (ofKey === undefined) byKey.set(key, [{ operation, timed }]);
    else ofKey.push({ operation, timed });
  }
  return [...byKey].flatMap(([key, all]) => {
    const calls = withoutUnseen(all);
    const timed = calls.map((one) => one.timed);
    const verdict = checkLinearizable(register, timed);
    if (verdict.status === 'linearizable') return [];
    const operationOf = (call: TimedCall<RegisterCall>): string =>
      showOperation((calls[timed.indexOf(call)] as (typeof calls)[number]).operation);
    if (verdict.status === 'undecided') {
      return [
        {
          rule: 'undecided',
          what: `whether ${calls.length} operations on ${JSON.stringify(key)} are linearizable would take too long to find out`,
          context: [],
        },
      ];
    }
    return [
      {
        rule: 'linearizable',
        what: `no order of the ${calls.length} operations on ${JSON.stringify(key)} explains their answers`,
        context: [
          ...verdict.longest.slice(-3).map((call) => `in order: ${operationOf(call)}`),
          ...verdict.stuckAt.map((call) => `does not fit: ${operationOf(call)}`),
        ],
      },
    ];
  });
}

/**
 * Leaves out writes of unknown outcome whose value nobody ever saw: whatever order explains the others with such a write does so without it. Not so where values are
 * compared with, as a write that nobody saw may have been the reason why an exchange failed.
 */
function withoutUnseen<T extends { readonly timed: TimedCall<RegisterCall> }>(calls: readonly T[]): readonly T[] {
  if (calls.some(({ timed }) => timed.what.type === 'cas')) return calls;
  const seen = new Set(calls.flatMap(({ timed }) => (timed.what.type === 'read' ? [timed.what.value] : [])));
  return calls.filter(({ timed }) => !timed.isUnknown || seen.has(timed.what.value));
}

function registerCall({ request, outcome }: Operation): { readonly key: string; readonly what: RegisterCall } | undefined {
  // What failed for certain has no effect, and what is unknown and reads has none either.
  if (outcome.status === 'failed') return undefined;
  const response = outcome.status === 'ok' ? outcome.response : undefined;
  switch (request.type) {
    case 'put':
      return { key: request.key, what: { type: 'write', value: request.value } };
    case 'deleteRange':
      if (request.end === undefined) return { key: request.key, what: { type: 'write', value: undefined } };
      break;
    case 'range':
      if (response === undefined || request.serializable === true) return undefined;
      if (request.end === undefined && response.type === 'range')
        return { key: request.key, what: { type: 'read', value: response.kvs[0]?.value } };
      break;
    case 'txn': {
      const cas = casOf(request);
      if (cas !== undefined) {
        const { key, ...exchange } = cas;
        return { key, what: { type: 'cas', ...exchange, succeeded: response?.type === 'txn' ? response.succeeded : undefined } };
      }
      break;
    }
    default:
      return undefined;
  }
  throw new TypeError(`a ${request.type} that is about more than one register`);
}

function casOf({
  compares,
  success,
  failure,
}: TxnRequest): { readonly key: string; readonly expected: string; readonly value: string } | undefined {
  const [compare, secondCompare] = compares;
  const [put, second] = success;
  if (compare === undefined || secondCompare !== undefined || second !== undefined || failure.length > 0) return undefined;
  if (put?.type !== 'put' || put.key !== compare.key || compare.target !== 'value' || compare.is !== '=') return undefined;
  return { key: put.key, expected: String(compare.operand), value: put.value };
}
