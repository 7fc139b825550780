import { RangeResponse } from '@conclave/protocol';
import { scriptedClient } from '@conclave/testkit';
import { expect, test, vi } from 'vitest';
import { HedgeBudget } from './hedge-budget.ts';
import type { AwaitedCall } from './liveness.ts';

/** A budget with nothing left, and calls that it refused. */
function spent(refused: number) {
  const budget = new HedgeBudget();
  const told: number[] = [];
  const calls = Array.from({ length: refused }, (_, n): AwaitedCall => ({ onSlow: () => void told.push(n) }));
  while (budget.spend({ onSlow: () => told.push(-1) }));
  for (const call of calls) expect(budget.spend(call)).toBe(false);
  return { budget, calls, told };
}

test('a hedge that helped lets one go that was refused, the oldest', () => {
  const { budget, calls, told } = spent(3);
  for (const call of calls) call.onSlow = () => void (budget.spend(call) && told.push(calls.indexOf(call)));
  // The one for whom there was nothing last is among them, too.
  for (let n = 0; n < 10; n++) budget.earn();
  budget.refund();
  expect(told).toEqual([-1, 0, 1]);
  budget.refund();
  expect(told).toEqual([-1, 0, 1, 2]);
});

test('who waits no longer is not told', () => {
  const { budget, calls, told } = spent(2);
  budget.forget(calls[0] as AwaitedCall);
  budget.refund();
  expect(told).toEqual([-1, 1]);
});

test('a call that was refused is forgotten when it ends', async () => {
  const { runtime, client, script } = await scriptedClient({ endpoints: 'a:1,b:2' });
  await runtime.advance(10);
  const forget = vi.spyOn(HedgeBudget.prototype, 'forget');
  const reads = Array.from({ length: 30 }, () => client.get('k'));
  await runtime.runUntil(() => script.calls.length === 30 + 20);
  for (const call of script.calls.slice(0, 30)) call.reply(RangeResponse.encode({ header: { revision: 7 } }));
  await runtime.run(Promise.all(reads));
  expect(new Set(forget.mock.calls.map(([call]) => call)).size).toBe(30);
  forget.mockRestore();
});
