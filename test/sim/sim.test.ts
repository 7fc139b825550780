import { showFinding } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { drawPlan, faultKinds } from './plan.ts';
import { runSeed } from './run-seeds.ts';

/** A few short runs with every commit. The many and long ones are `npm run sim`. */
const short = { faultyMs: 6_000 };

describe('a simulated cluster under faults', () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])('seed %i keeps every promise', async (seed) => {
    const { result } = await runSeed(seed, short, false);
    expect(result.findings.map(showFinding)).toEqual([]);
    expect(result.answered).toBeGreaterThan(100);
  });

  test('a run is repeated by its seed, event for event', async () => {
    const limits = { ...short, faultyMs: 2_000, members: 3 };
    const { result } = await runSeed(9, limits, true);
    expect(result.findings.map(showFinding)).toEqual([]);
    const other = await runSeed(10, limits, false);
    expect(other.result.traceHash).not.toBe(result.traceHash);
  });
});

describe('a plan', () => {
  test('what is taken away changes nothing of the rest', () => {
    const whole = drawPlan(12);
    const { crash: _, ...others } = whole.faults;
    expect(drawPlan(12, { without: ['crash'], faultyMs: 1_000 })).toEqual({ ...whole, faults: others, faultyMs: 1_000 });
  });

  test('over many seeds every kind of fault is on, and off', () => {
    const plans = Array.from({ length: 100 }, (_, seed) => drawPlan(seed));
    for (const kind of faultKinds) {
      const on = plans.filter((plan) => plan.faults[kind] !== undefined).length;
      expect(on, kind).toBeGreaterThan(10);
      expect(on, kind).toBeLessThan(90);
    }
  });
});
