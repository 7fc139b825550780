import { type Compare, Compare_CompareTarget as CompareTarget, type Init, Compare_CompareResult as Result } from '@conclave/protocol';
import { type KeyPrefix, type Target, wholeStore } from './key-range.ts';
import { type HeldLease, toLeaseId } from './operation.ts';
import { type Integer, toBytes, toCounter, type Value } from './text.ts';

/**
 * A condition of a transaction. Made by {@link key}; held by locks and leaders as their `guard`. On a range it must hold for every key in it.
 *
 * All conditions of a transaction, nested ones included, look at the store as it was before any of its writes.
 */
export interface Comparison {
  readonly target: Target;
  readonly result: ComparisonResult;
  readonly operand: ComparisonOperand;
  /** The target is named as the store names it, whatever the namespace of the transaction. Default: as the namespace names it. */
  readonly isAbsolute?: boolean | undefined;
  /** What must hold as well. Default: nothing. */
  readonly and?: readonly Comparison[] | undefined;
}

export type ComparisonResult = 'equal' | 'notEqual' | 'greater' | 'less';

export type ComparisonOperand =
  | { readonly of: 'version' | 'createRevision' | 'modRevision'; readonly value: Integer }
  | { readonly of: 'value'; readonly value: Value }
  | { readonly of: 'lease'; readonly value: HeldLease | Integer };

/**
 * The four ways to compare one attribute of a key.
 *
 * @example
 * ```ts
 * const stock = key('stock/42');
 * stock.value.equals('1');
 * stock.value.notEquals('0');
 * stock.version.greaterThan(3); // written more than three times
 * stock.modRevision.lessThan(1_000n); // and not lately
 * ```
 */
export interface Attribute<Operand> {
  equals(operand: Operand): Comparison;
  notEquals(operand: Operand): Comparison;
  greaterThan(operand: Operand): Comparison;
  lessThan(operand: Operand): Comparison;
}

/**
 * What can be compared of a key. A key that does not exist has 0 in every number, and no comparison of its value holds.
 *
 * @example
 * ```ts
 * const { succeeded } = await client.txn()
 *   .if(key('jobs/7').exists(), key('jobs/7/owner').missing())
 *   .then(put('jobs/7/owner', 'me'))
 *   .commit();
 * ```
 */
export class KeyConditions {
  readonly #target: Target;

  /** @internal */
  constructor(target: Target) {
    this.#target = target;
  }

  get value(): Attribute<Value> {
    return new AttributeOf(this.#target, (value) => ({ of: 'value', value }));
  }

  /** How often the key was written in this life. */
  get version(): Attribute<Integer> {
    return new AttributeOf(this.#target, (value) => ({ of: 'version', value }));
  }

  get createRevision(): Attribute<Integer> {
    return new AttributeOf(this.#target, (value) => ({ of: 'createRevision', value }));
  }

  get modRevision(): Attribute<Integer> {
    return new AttributeOf(this.#target, (value) => ({ of: 'modRevision', value }));
  }

  get lease(): Attribute<HeldLease | Integer> {
    return new AttributeOf(this.#target, (value) => ({ of: 'lease', value }));
  }

  /** The key exists; of a range: some key does. */
  exists(): Comparison {
    return this.version.greaterThan(0);
  }

  /** The key does not exist; of a range: none does. */
  missing(): Comparison {
    return this.version.equals(0);
  }
}

class AttributeOf<Operand> implements Attribute<Operand> {
  readonly #target: Target;
  readonly #toOperand: (operand: Operand) => ComparisonOperand;

  constructor(target: Target, toOperand: (operand: Operand) => ComparisonOperand) {
    this.#target = target;
    this.#toOperand = toOperand;
  }

  equals(operand: Operand): Comparison {
    return { target: this.#target, result: 'equal', operand: this.#toOperand(operand) };
  }

  notEquals(operand: Operand): Comparison {
    return { target: this.#target, result: 'notEqual', operand: this.#toOperand(operand) };
  }

  greaterThan(operand: Operand): Comparison {
    return { target: this.#target, result: 'greater', operand: this.#toOperand(operand) };
  }

  lessThan(operand: Operand): Comparison {
    return { target: this.#target, result: 'less', operand: this.#toOperand(operand) };
  }
}

/**
 * Names a key, or every key of a range, for a condition of a transaction.
 *
 * @example
 * ```ts
 * const taken = await client.txn().if(key('leader').missing()).then(put('leader', 'me')).commit();
 * if (!taken.succeeded) console.log('somebody else leads');
 * ```
 */
export function key(target: Target): KeyConditions {
  return new KeyConditions(target);
}

const results = { equal: Result.EQUAL, notEqual: Result.NOT_EQUAL, greater: Result.GREATER, less: Result.LESS } as const;

const targets = {
  version: CompareTarget.VERSION,
  createRevision: CompareTarget.CREATE,
  modRevision: CompareTarget.MOD,
  value: CompareTarget.VALUE,
  lease: CompareTarget.LEASE,
} as const;

/** Conditions in the words of the wire: what one brings along stands beside it. */
export function toCompares(prefix: KeyPrefix, comparisons: readonly Comparison[], compares: Init<Compare>[] = []): Init<Compare>[] {
  for (const comparison of comparisons) {
    compares.push(toCompare(prefix, comparison));
    if (comparison.and !== undefined) toCompares(prefix, comparison.and, compares);
  }
  return compares;
}

/** One literal for all targets: encoding objects of one shape is several times faster. */
function toCompare(prefix: KeyPrefix, { target, result, operand, isAbsolute }: Comparison): Init<Compare> {
  const { key, rangeEnd } = (isAbsolute === true ? wholeStore : prefix).range(target);
  const { of, value } = operand;
  return {
    result: results[result],
    target: targets[of],
    key,
    version: of === 'version' ? toCounter(value, of) : undefined,
    createRevision: of === 'createRevision' ? toCounter(value, of) : undefined,
    modRevision: of === 'modRevision' ? toCounter(value, of) : undefined,
    value: of === 'value' ? toBytes(value) : undefined,
    lease: of === 'lease' ? toLeaseId(value) : undefined,
    rangeEnd,
  };
}
