import type { Lease, Namespace } from '@conclave/sdk';
import { expect, test } from 'vitest';
import { claim, claimToken, disclaim, isClaimed } from './shared-lease.ts';

test("a place is one call's until it is given up, its name and itself", () => {
  const lease = { id: 7n } as Lease;
  const client = {} as Namespace;
  expect([claim(lease, client, 'l'), claimToken(lease, 3n)]).toEqual([true, true]);
  expect([claim(lease, client, 'l'), claim(lease, {} as Namespace, 'l'), claimToken(lease, 3n)]).toEqual([false, true, false]);
  expect([isClaimed(lease, 3n), isClaimed(lease, 4n), isClaimed({} as Lease, 3n)]).toEqual([true, false, false]);
  disclaim({ lease, client, name: 'l', token: 3n });
  expect([claim(lease, client, 'l'), claimToken(lease, 3n)]).toEqual([true, true]);
});
