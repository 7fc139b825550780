import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventQueue } from './event-queue.ts';

function recordingSource() {
  const log: string[] = [];
  return { log, pause: () => void log.push('pause'), resume: () => void log.push('resume'), cancel: () => void log.push('cancel') };
}

describe('an event queue', () => {
  test('gives out values in order, however pushes and pulls interleave', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { maxLength: 400 }), fc.integer({ min: 1, max: 50 }), async (steps, max) => {
        const queue = new EventQueue<number>({ countMax: max });
        queue.attach(recordingSource());
        const pulled: Promise<IteratorResult<number, undefined>>[] = [];
        let pushed = 0;
        for (const isPush of steps) {
          if (isPush) queue.push(pushed++);
          else pulled.push(queue.next());
        }
        queue.end();
        while (pulled.length < pushed + 1) pulled.push(queue.next());
        const values = (await Promise.all(pulled)).filter(({ done }) => done !== true).map(({ value }) => value);
        expect(values).toEqual(Array.from({ length: pushed }, (_, at) => at));
      }),
    );
  });

  test('holds the source back when full, and lets it go on when half empty', async () => {
    const source = recordingSource();
    const queue = new EventQueue<number>({ countMax: 4 });
    queue.attach(source);
    for (let n = 0; n < 6; n++) queue.push(n);
    expect(source.log).toEqual(['pause']);
    for (let n = 0; n < 3; n++) await queue.next();
    expect(source.log).toEqual(['pause']);
    await queue.next();
    expect(source.log).toEqual(['pause', 'resume']);
  });

  test('holds the source back when what waits is large, however few', async () => {
    const source = recordingSource();
    const queue = new EventQueue<number>({ countMax: 1_000, sizeOf: (megabytes) => megabytes * 1024 * 1024 });
    queue.attach(source);
    queue.push(9);
    expect(source.log).toEqual([]);
    queue.push(9);
    expect(source.log).toEqual(['pause']);
    await queue.next();
    expect(source.log).toEqual(['pause']);
    await queue.next();
    expect(source.log).toEqual(['pause', 'resume']);
  });

  test('may be bounded in bytes as told', () => {
    const source = recordingSource();
    const queue = new EventQueue<number>({ countMax: 1_000, bytesMax: 10, sizeOf: (bytes) => bytes });
    queue.attach(source);
    queue.push(9);
    expect(source.log).toEqual([]);
    queue.push(1);
    expect(source.log).toEqual(['pause']);
  });

  describe('that conflates', () => {
    const evens = (values: readonly number[]): number[] => values.filter((value) => value % 2 === 0);

    test('does so when it is full, and goes on if that helped', async () => {
      const source = recordingSource();
      const queue = new EventQueue<number>({ countMax: 4, overflow: { how: 'conflate', conflate: evens } });
      queue.attach(source);
      for (const value of [1, 2, 3, 5, 7, 4]) queue.push(value);
      queue.end();
      expect(source.log).toEqual([]);
      const taken = [];
      for (let step = await queue.next(); step.done !== true; step = await queue.next()) taken.push(step.value);
      expect(taken).toEqual([2, 7, 4]);
    });

    test('holds its source back if that did not help', async () => {
      const source = recordingSource();
      const queue = new EventQueue<number>({ countMax: 4, overflow: { how: 'conflate', conflate: evens } });
      queue.attach(source);
      for (const value of [2, 4, 6, 1]) queue.push(value);
      expect(source.log).toEqual(['pause']);
      // What comes all the same is kept.
      queue.push(3);
      const taken = [await queue.next(), await queue.next()].map(({ value }) => value);
      expect(taken).toEqual([2, 4]);
      expect(source.log).toEqual(['pause', 'resume']);
    });
  });

  describe('that fails', () => {
    const errorFor = (value: number, last: number): unknown => (value - last < 1 ? undefined : new Error(`at ${last}`));
    const bounds = { countMax: 2, overflow: { how: 'fail' as const, errorFor } };

    test('gives out what waits, then the error, and wants no more of its source', async () => {
      const source = recordingSource();
      const queue = new EventQueue<number>(bounds);
      queue.attach(source);
      for (const value of [1, 2, 3, 4]) queue.push(value);
      expect(source.log).toEqual(['cancel']);
      expect([(await queue.next()).value, (await queue.next()).value]).toEqual([1, 2]);
      await expect(queue.next()).rejects.toThrow('at 2');
    });

    test('has room for what belongs to the last', async () => {
      const source = recordingSource();
      const queue = new EventQueue<number>(bounds);
      queue.attach(source);
      for (const value of [1, 2, 2.5]) queue.push(value);
      expect(source.log).toEqual([]);
    });
  });

  test('holds back a source that filled it before it was attached', () => {
    const source = recordingSource();
    const queue = new EventQueue<number>({ countMax: 1 });
    queue.push(1);
    queue.attach(source);
    expect(source.log).toEqual(['pause']);
  });

  test('cancels a source that ended before it was attached', () => {
    const source = recordingSource();
    const queue = new EventQueue<number>({ countMax: 1 });
    queue.end();
    queue.attach(source);
    expect(source.log).toEqual(['cancel']);
  });

  test('tells an error once, after what came before it', async () => {
    const queue = new EventQueue<number>({ countMax: 4 });
    queue.push(1);
    queue.end({ error: new Error('over') });
    queue.push(2);
    expect(await queue.next()).toEqual({ done: false, value: 1 });
    await expect(queue.next()).rejects.toThrow('over');
    expect(await queue.next()).toEqual({ done: true, value: undefined });
  });

  test('tells an error to the first that waits', async () => {
    const queue = new EventQueue<number>({ countMax: 4 });
    const waiting = Promise.allSettled([queue.next(), queue.next()]);
    queue.end({ error: new Error('over') });
    expect(await waiting).toMatchObject([{ status: 'rejected' }, { status: 'fulfilled', value: { done: true } }]);
  });

  test('cancels the source when it is left', async () => {
    const source = recordingSource();
    const queue = new EventQueue<number>({ countMax: 4 });
    queue.attach(source);
    queue.push(1);
    await queue.return();
    expect(source.log).toEqual(['cancel']);
    expect(await queue.next()).toEqual({ done: true, value: undefined });
  });
});
