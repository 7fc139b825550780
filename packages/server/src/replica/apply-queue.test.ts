import type { Entry } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import { expect, it } from 'vitest';
import { ApplyQueue } from './apply-queue.ts';

const entries = (from: number, to: number): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, at) => ({ term: 1, index: from + at, type: 'normal', data: new Uint8Array(1) }));

it('what waits when a snapshot comes is never applied, and what comes behind it is', async () => {
  const runtime = new VirtualRuntime();
  const applied: number[] = [];
  let goOn = (): void => undefined;
  const room = {
    isFull: false,
    onRoom(listener: () => void): void {
      goOn = listener;
    },
  };
  const queue = new ApplyQueue({ runtime, room, apply: ({ index }) => applied.push(index), onApplied: () => {}, later: (work) => work() });
  queue.push(entries(1, 2));
  room.isFull = true;
  queue.push(entries(3, 5));
  queue.clear();
  room.isFull = false;
  goOn();
  queue.push(entries(21, 22));
  await runtime.advance(0);
  expect(applied).toEqual([1, 2, 21, 22]);
});
