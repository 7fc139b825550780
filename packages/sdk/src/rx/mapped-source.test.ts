import type { FeedSink } from '@conclave/sdk';
import { expect, test } from 'vitest';
import { mappedSource } from './mapped-source.ts';

/** A source whose word the test has, mapped; `heard` is what comes out, `told` what the source is told. */
function mapped(map: (value: number) => string | Promise<string>) {
  const told: string[] = [];
  const heard: unknown[] = [];
  let source: FeedSink<number> | undefined;
  let end: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const open = mappedSource<number, string>((sink) => {
    source = sink;
    return { cancel: () => told.push('cancel'), pause: () => told.push('pause'), resume: () => told.push('resume') };
  }, map);
  const handle = open({
    next: (value) => heard.push(value),
    error: (error) => {
      heard.push(error);
      end();
    },
    complete: () => {
      heard.push('complete');
      end();
    },
  });
  return { handle, told, heard, ended, sink: source as FeedSink<number> };
}

const later = (value: number): string | Promise<string> => (value % 2 === 0 ? Promise.resolve(`later ${value}`) : `now ${value}`);

test('values that take time keep their order, and the end waits for them', async () => {
  const { sink, heard, ended } = mapped(later);
  for (const value of [1, 2, 3, 4]) sink.next(value);
  sink.complete();
  expect(heard).toEqual(['now 1']);
  await ended;
  expect(heard).toEqual(['now 1', 'later 2', 'now 3', 'later 4', 'complete']);
});

test('an error of the source waits for them, too', async () => {
  const { sink, heard, ended } = mapped(later);
  sink.next(2);
  sink.next(3);
  sink.error('lost');
  await ended;
  expect(heard).toEqual(['later 2', 'now 3', 'lost']);
});

test.each([
  [
    'thrown',
    () => {
      throw new Error('no');
    },
  ],
  ['rejected', () => Promise.reject(new Error('no'))],
])('an error that is %s ends it and its source', async (_how, fail) => {
  const { sink, heard, ended, told } = mapped((value) => (value === 3 ? fail() : later(value)));
  for (const value of [1, 3, 5]) sink.next(value);
  await ended;
  sink.next(7);
  expect(heard).toEqual(['now 1', new Error('no')]);
  expect(told).toEqual(['cancel']);
});

test('the source is held back while too many values wait, and is let go on, and cancelled', async () => {
  const waiting: (() => void)[] = [];
  const { handle, told, sink, heard } = mapped(() => new Promise((resolve) => waiting.push(() => resolve('mapped'))));
  for (let n = 0; n < 1_001; n++) sink.next(n);
  expect(told).toEqual(['pause']);
  for (let n = 0; n < 501; n++) {
    waiting.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect([told, heard.length]).toEqual([['pause', 'resume'], 501]);
  handle.cancel();
  sink.next(1);
  expect([told, heard.length]).toEqual([['pause', 'resume', 'cancel'], 501]);
});
