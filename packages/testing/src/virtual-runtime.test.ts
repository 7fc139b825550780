import { describe, expect, test } from 'vitest';
import { Random } from './random.ts';
import { VirtualRuntime } from './virtual-runtime.ts';

describe('virtual runtime', () => {
  test('timers fire in order of due time, then in the order they were set', async () => {
    const runtime = new VirtualRuntime();
    const fired: string[] = [];
    const note = (name: string) => () => fired.push(`${name}@${runtime.monotonic()}`);
    runtime.timer(20, note('c'));
    runtime.timer(10, note('a'));
    runtime.timer(20, note('d'));
    runtime.timer(10, note('b'));
    await runtime.advance(15);
    expect(fired).toEqual(['a@10', 'b@10']);
    expect(runtime.monotonic()).toBe(15);
    await runtime.advance(5);
    expect(fired).toEqual(['a@10', 'b@10', 'c@20', 'd@20']);
  });

  test('a cancelled timer never fires, not even when cancelled by one that is due at the same moment', async () => {
    const runtime = new VirtualRuntime();
    let fired = 0;
    const cancel = runtime.timer(5, () => second.cancel());
    const second = runtime.timer(5, () => fired++);
    await runtime.advance(10);
    cancel.cancel();
    expect(fired).toBe(0);
    expect(runtime.pendingTimers).toBe(0);
  });

  test('promise chains and end-of-turn callbacks finish before time moves', async () => {
    const runtime = new VirtualRuntime();
    const seen: string[] = [];
    runtime.timer(10, () => {
      void chain(50).then(() => {
        seen.push(`chain@${runtime.monotonic()}`);
        runtime.endOfTurn(() => {
          seen.push(`turn@${runtime.monotonic()}`);
          runtime.endOfTurn(() => seen.push(`turn2@${runtime.monotonic()}`));
        });
      });
    });
    runtime.timer(11, () => seen.push('timer@11'));
    await runtime.advance(20);
    expect(seen).toEqual(['chain@10', 'turn@10', 'turn2@10', 'timer@11']);
  });

  test('timers of one moment have turns of their own, or share one', async () => {
    const order = async (sharesTurns: boolean): Promise<string> => {
      const runtime = new VirtualRuntime({ sharesTurns });
      const seen: string[] = [];
      const arrive = (name: string) => () => {
        seen.push(name);
        void Promise.resolve().then(() => seen.push(`${name} reaction`));
        runtime.endOfTurn(() => seen.push(`${name} turn`));
      };
      runtime.timer(10, arrive('a'));
      runtime.timer(10, arrive('b'));
      runtime.timer(11, arrive('c'));
      await runtime.advance(20);
      return seen.join(', ');
    };
    expect(await order(false)).toBe('a, a reaction, a turn, b, b reaction, b turn, c, c reaction, c turn');
    expect(await order(true)).toBe('a, a reaction, b, b reaction, a turn, b turn, c, c reaction, c turn');
  });

  test('runUntil stops at the first moment the condition holds', async () => {
    const runtime = new VirtualRuntime();
    let ticks = 0;
    const tick = (): void => {
      ticks++;
      runtime.timer(100, tick);
    };
    runtime.timer(100, tick);
    await runtime.runUntil(() => ticks === 7);
    expect(runtime.monotonic()).toBe(700);
    await expect(runtime.runUntil(() => false, { deadlineMs: 250 })).rejects.toThrow('within 250 ms');
    expect(runtime.monotonic()).toBe(950);
  });

  test('runUntil reports at once when nothing is left to happen', async () => {
    await expect(new VirtualRuntime().runUntil(() => false)).rejects.toThrow('nothing is left to happen');
  });

  test('run drives a promise to its value or its error', async () => {
    const runtime = new VirtualRuntime();
    const later = (ms: number, value: string): Promise<string> => new Promise((resolve) => runtime.timer(ms, () => resolve(value)));
    expect(await runtime.run(later(30_000, 'x'))).toBe('x');
    await expect(runtime.run(Promise.reject(new Error('no')))).rejects.toThrow('no');
  });

  test('suspend moves boot and wall time, and neither the monotonic clock nor timers', async () => {
    const runtime = new VirtualRuntime({ wall: 1_000 });
    let fired = false;
    runtime.timer(10, () => {
      fired = true;
    });
    runtime.suspend(60_000);
    await runtime.advance(5);
    expect([runtime.monotonic(), runtime.boot(), runtime.wall(), fired]).toEqual([5, 60_005, 61_005, false]);
    runtime.stepWall(-500);
    expect([runtime.boot(), runtime.wall()]).toEqual([60_005, 60_505]);
  });

  test('an exception in a timer rejects the call that drives', async () => {
    const runtime = new VirtualRuntime();
    runtime.timer(1, () => {
      throw new Error('in a timer');
    });
    await expect(runtime.advance(1)).rejects.toThrow('in a timer');
    await runtime.advance(1);
  });

  test('two drivers at once are refused', async () => {
    const runtime = new VirtualRuntime();
    const first = runtime.advance(1);
    await expect(runtime.advance(1)).rejects.toThrow('already being advanced');
    await first;
  });

  test('thousands of cancelled timers leave the order of the rest intact', async () => {
    const runtime = new VirtualRuntime({ seed: 3 });
    const fired: number[] = [];
    const expected: number[] = [];
    for (let i = 0; i < 5_000; i++) {
      const delay = Math.floor(runtime.random() * 1_000);
      const timer = runtime.timer(delay, () => fired.push(delay));
      if (i % 10 === 0) expected.push(delay);
      else timer.cancel();
    }
    expect(runtime.pendingTimers).toBe(500);
    await runtime.advance(1_000);
    expect(fired).toEqual(expected.sort((x, y) => x - y));
  });
});

describe('random', () => {
  test('a seed gives the same numbers again, and neighbouring seeds different ones', () => {
    const sequence = (seed: number): number[] => {
      const random = new Random(seed);
      return Array.from({ length: 5 }, () => random.next());
    };
    expect(sequence(5)).toEqual(sequence(5));
    expect(sequence(5)).not.toEqual(sequence(6));
  });

  test('numbers are spread evenly', () => {
    const random = new Random(9);
    const buckets = new Array<number>(10).fill(0);
    for (let i = 0; i < 100_000; i++) buckets[random.below(10)]!++;
    for (const count of buckets) expect(Math.abs(count - 10_000)).toBeLessThan(500);
  });
});

async function chain(length: number): Promise<void> {
  for (let i = 0; i < length; i++) await Promise.resolve();
}
