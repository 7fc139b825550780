import { VirtualRuntime } from '@conclave/testing';
import { expect, test } from 'vitest';
import { Backoff } from './backoff.ts';

const pauses = (backoff: Backoff, count: number): number[] => Array.from({ length: count }, () => backoff.next());

test('pauses double up to the maximum, each at random between half and all of it', () => {
  const backoff = new Backoff(new VirtualRuntime({ seed: 3 }), 100, 1_000);
  const full = [100, 200, 400, 800, 1_000, 1_000, 1_000];
  for (const [at, pause] of pauses(backoff, full.length).entries()) {
    expect(pause).toBeGreaterThanOrEqual((full[at] as number) / 2);
    expect(pause).toBeLessThanOrEqual(full[at] as number);
  }
});

test('the same seed gives the same pauses', () => {
  const of = (seed: number): number[] => pauses(new Backoff(new VirtualRuntime({ seed }), 10, 1_000), 20);
  expect(of(1)).toEqual(of(1));
  expect(of(1)).not.toEqual(of(2));
});

test('a reset starts over', () => {
  const backoff = new Backoff(new VirtualRuntime(), 100, 100_000);
  pauses(backoff, 8);
  backoff.reset();
  expect(backoff.next()).toBeLessThanOrEqual(100);
});

test('the pause stays at the maximum however long it goes on', () => {
  const backoff = new Backoff(new VirtualRuntime(), 1, 1_000);
  expect(
    pauses(backoff, 5_000)
      .slice(20)
      .every((pause) => pause >= 500 && pause <= 1_000),
  ).toBe(true);
});
