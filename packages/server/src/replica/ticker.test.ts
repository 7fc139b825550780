import { VirtualRuntime } from '@conclave/testing';
import { describe, expect, it } from 'vitest';
import { Ticker } from './ticker.ts';

/** A runtime whose loop can be held up: timers that fell due meanwhile fire late. */
class BusyRuntime extends VirtualRuntime {
  heldUpMs = 0;

  override monotonic(): number {
    return super.monotonic() + this.heldUpMs;
  }
}

function world(): { runtime: BusyRuntime; ticker: Ticker; ticks: number[]; late: unknown[] } {
  const late: unknown[] = [];
  const runtime = new BusyRuntime({ log: { debug() {}, info() {}, warn: (fields) => late.push(fields), error() {} } });
  const ticks: number[] = [];
  const onTick = (): void => void ticks.push(runtime.monotonic());
  const ticker = new Ticker({ runtime, intervalMs: 100, toleratedMs: 500, onTick });
  ticker.start();
  return { runtime, ticker, ticks, late };
}

describe('ticks', () => {
  it('come at their interval, and a little lateness does not add up', async () => {
    const { runtime, ticks } = world();
    await runtime.advance(250);
    runtime.heldUpMs += 60;
    await runtime.advance(330);
    expect(ticks).toEqual([100, 200, 360, 400, 500, 600]);
  });

  it('that a held-up loop owes count as one', async () => {
    const { runtime, ticks } = world();
    await runtime.advance(100);
    runtime.heldUpMs += 10_000;
    await runtime.advance(100);
    expect(ticks).toEqual([100, 10_200]);
    await runtime.advance(100);
    expect(ticks).toEqual([100, 10_200, 10_300]);
  });

  it('when late wait until the loop has taken in what had arrived', async () => {
    const { runtime, ticks } = world();
    const turns: (() => void)[] = [];
    runtime.endOfTurn = (callback) => void turns.push(callback);
    runtime.heldUpMs += 5000;
    await runtime.advance(100);
    expect([ticks, turns.length]).toEqual([[], 1]);
    turns[0]!();
    expect(ticks).toEqual([5100]);
  });

  it('say so when they are very late', async () => {
    const { runtime, late } = world();
    await runtime.advance(100);
    runtime.heldUpMs += 400;
    await runtime.advance(100);
    expect(late).toEqual([]);
    runtime.heldUpMs += 700;
    await runtime.advance(100);
    expect(late).toEqual([{ lateMs: 700 }]);
  });

  it('end when stopped, also the one that waits for its turn', async () => {
    const { runtime, ticker, ticks } = world();
    const turns: (() => void)[] = [];
    runtime.endOfTurn = (callback) => void turns.push(callback);
    runtime.heldUpMs += 5000;
    await runtime.advance(100);
    ticker.stop();
    turns[0]!();
    await runtime.advance(1000);
    expect([ticks, runtime.pendingTimers]).toEqual([[], 0]);
  });
});
