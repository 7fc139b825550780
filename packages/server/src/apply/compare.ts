import { type Compare, Compare_CompareResult, Compare_CompareTarget, compareBytes } from '@conclave/protocol';
import { fieldsOf, leaseOf } from '../mvcc/key-value.ts';

/**
 * Whether a condition holds for the keys found in its range (etcd api, Txn). Without any key, numbers compare as 0 and a condition on the value
 * never holds, not even that it is unequal.
 *
 * @param kvs - KeyValues in their wire form
 */
export function holds(compare: Compare, kvs: readonly Uint8Array[]): boolean {
  if (kvs.length > 0) return kvs.every((kv) => agrees(compare.result, differenceOf(compare, kv)));
  return compare.target !== Compare_CompareTarget.VALUE && agrees(compare.result, differenceOf(compare, undefined));
}

/** Sign of: what the key has, minus the operand. An operand of another target than the condition's counts as absent: 0 or empty. */
function differenceOf(compare: Compare, kv: Uint8Array | undefined): number {
  const fields = kv === undefined ? undefined : fieldsOf(kv);
  switch (compare.target) {
    case Compare_CompareTarget.VERSION:
      return (fields?.version ?? 0) - (compare.version ?? 0);
    case Compare_CompareTarget.CREATE:
      return (fields?.createRevision ?? 0) - (compare.createRevision ?? 0);
    case Compare_CompareTarget.MOD:
      return (fields?.modRevision ?? 0) - (compare.modRevision ?? 0);
    case Compare_CompareTarget.LEASE:
      return leaseDifference(kv === undefined ? 0n : leaseOf(kv), compare.lease ?? 0n);
    case Compare_CompareTarget.VALUE:
      return kv === undefined || fields === undefined
        ? 0
        : compareBytes(kv.subarray(fields.valueStart, fields.valueEnd), compare.value ?? noValue);
    default:
      return 0;
  }
}

const noValue = new Uint8Array(0);

function leaseDifference(lease: bigint, operand: bigint): number {
  if (lease === operand) return 0;
  return lease < operand ? -1 : 1;
}

function agrees(result: number, difference: number): boolean {
  switch (result) {
    case Compare_CompareResult.EQUAL:
      return difference === 0;
    case Compare_CompareResult.NOT_EQUAL:
      return difference !== 0;
    case Compare_CompareResult.GREATER:
      return difference > 0;
    case Compare_CompareResult.LESS:
      return difference < 0;
    default:
      return true;
  }
}
