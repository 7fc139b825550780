import { expect, test } from 'vitest';
import { onAbort } from './abort.ts';

test('each listener is called once, except those that stopped listening', () => {
  const controller = new AbortController();
  const called: string[] = [];
  onAbort(controller.signal, () => called.push('a'));
  const stop = onAbort(controller.signal, () => called.push('b'));
  onAbort(controller.signal, () => called.push('c'));
  stop();
  controller.abort();
  controller.abort();
  expect(called).toEqual(['a', 'c']);
});

test('a listener may stop another while it is being told', () => {
  const controller = new AbortController();
  const called: string[] = [];
  onAbort(controller.signal, () => {
    called.push('a');
    stop();
  });
  const stop = onAbort(controller.signal, () => called.push('b'));
  controller.abort();
  expect(called).toEqual(['a']);
});

test('signals do not hear of each other', () => {
  const one = new AbortController();
  const other = new AbortController();
  let isTold = false;
  onAbort(other.signal, () => {
    isTold = true;
  });
  one.abort();
  expect(isTold).toBe(false);
});
