import { VirtualRuntime } from '@conclave/testing';
import { describe, expect, it } from 'vitest';
import { PeerGuard } from './peer-guard.ts';
import type { LocalMemory, PeerMark } from './ports.ts';

class Memory implements LocalMemory {
  readonly incarnation = 1;
  readonly marks: Map<bigint, PeerMark> = new Map();

  peer(id: bigint): PeerMark | undefined {
    return this.marks.get(id);
  }
  notePeer(id: bigint, mark: PeerMark): void {
    this.marks.set(id, mark);
  }
}

function world(memory = new Memory()) {
  const errors: object[] = [];
  const runtime = new VirtualRuntime({ log: { debug() {}, info() {}, warn() {}, error: (fields) => errors.push(fields) } });
  const guard = new PeerGuard({ runtime, memory, lateTicks: 20 });
  const pass = (ticks: number): void => {
    for (let tick = 0; tick < ticks; tick++) guard.tick();
  };
  /** What member 2 shows of itself. */
  const shows = (incarnation: number, durableIndex: number, commitIndex = durableIndex): boolean =>
    guard.admits({ from: 2n, to: 1n, incarnation, durableIndex, commitIndex, frames: [] });
  return { runtime, guard, memory, errors, shows, pass };
}

describe('a member that goes on, and starts again with all it had', () => {
  it('is admitted, though the end of its log that was not committed is gone', () => {
    const { shows, guard, errors } = world();
    expect([shows(1, 10), shows(1, 50, 20), shows(2, 20, 0), shows(2, 19, 19)]).toEqual([true, true, true, true]);
    expect([guard.isRefused(2n), errors]).toEqual([false, []]);
  });

  it('is admitted where what it sent arrives in another order, but what is of an earlier life is dropped', () => {
    const { shows, guard, pass, errors } = world();
    shows(1, 100);
    expect(shows(1, 90)).toBe(true);
    pass(10);
    shows(2, 100);
    expect([shows(1, 100), shows(1, 90), shows(2, 95)]).toEqual([false, false, true]);
    expect([guard.isRefused(2n), errors]).toEqual([false, []]);
  });
});

it('a member that stood still takes what arrived meanwhile, in another order, for late', async () => {
  const { shows, guard, pass, runtime, errors } = world();
  shows(1, 100);
  await runtime.advance(60_000);
  pass(1);
  expect([shows(1, 99), shows(1, 101), guard.isRefused(2n), errors]).toEqual([true, true, false, []]);
});

describe('a member that comes back with less', () => {
  it('is refused at once in a new life', () => {
    const { shows, guard, errors } = world();
    shows(3, 100);
    expect([shows(4, 99), guard.isRefused(2n)]).toEqual([false, true]);
    shows(4, 99);
    expect(errors).toEqual([{ member: '2', incarnation: 4, durableIndex: 99, seenIncarnation: 3, seenIndex: 100 }]);
  });

  it.each([
    ['the same', 3],
    ['an earlier', 2],
  ])('is refused in %s life, once nothing of it can still be on its way', (_, incarnation) => {
    const { shows, guard, pass } = world();
    shows(3, 100);
    pass(20);
    expect([shows(incarnation, 99), guard.isRefused(2n)]).toEqual([false, true]);
  });

  it('stays refused whatever of its lives before still arrives', () => {
    const { shows, guard } = world();
    shows(3, 100);
    shows(4, 99);
    expect([shows(3, 100), shows(3, 120), guard.isRefused(2n)]).toEqual([false, false, true]);
  });

  it('is admitted when it has all again', () => {
    const { shows, guard } = world();
    shows(3, 100);
    shows(4, 99);
    expect([shows(5, 100), guard.isRefused(2n)]).toEqual([true, false]);
  });
});

describe('marks', () => {
  it('are written down at once for a new life, and now and then as they rise', () => {
    const { shows, guard, memory } = world();
    shows(1, 10);
    expect(memory.peer(2n)).toEqual({ incarnation: 1, index: 10 });
    shows(1, 30, 20);
    for (let tick = 0; tick < 9; tick++) guard.tick();
    expect(memory.peer(2n)).toEqual({ incarnation: 1, index: 10 });
    guard.tick();
    expect(memory.peer(2n)).toEqual({ incarnation: 1, index: 20 });
    shows(2, 30, 0);
    expect(memory.peer(2n)).toEqual({ incarnation: 2, index: 20 });
  });

  it('are known after a start of the member that wrote them', () => {
    const { memory, shows } = world();
    shows(3, 100);
    const later = world(memory);
    expect([later.shows(4, 99), later.guard.isRefused(2n)]).toEqual([false, true]);
  });
});
