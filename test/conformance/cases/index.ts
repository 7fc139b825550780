import type { Case } from '../case.ts';
import { callCases } from './call.ts';
import { compactCases } from './compact.ts';
import { deleteRangeCases } from './delete-range.ts';
import { headerCases } from './header.ts';
import { leaseCases } from './lease.ts';
import { longKeyCases } from './long-keys.ts';
import { maintenanceCases } from './maintenance.ts';
import { membershipCases } from './membership.ts';
import { putCases } from './put.ts';
import { rangeCases } from './range.ts';
import { rangeStreamCases } from './range-stream.ts';
import { txnCases } from './txn.ts';
import { txnCompareCases } from './txn-compare.ts';
import { watchCases } from './watch.ts';

/** The suite, in the order of etcd's API. */
export const cases: readonly Case[] = [
  ...headerCases,
  ...rangeCases,
  ...rangeStreamCases,
  ...putCases,
  ...deleteRangeCases,
  ...txnCases,
  ...txnCompareCases,
  ...compactCases,
  ...longKeyCases,
  ...watchCases,
  ...leaseCases,
  ...membershipCases,
  ...maintenanceCases,
  ...callCases,
];

const names = new Set<string>();
for (const { name } of cases) {
  if (names.has(name)) throw new Error(`two cases are called: ${name}`);
  names.add(name);
}
