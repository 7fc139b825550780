import { expect, test } from 'vitest';
import { lawfulHistory } from './checkers/lawful-history.ts';
import { type HistoryRecord, HistoryRecorder, historyLines, readHistory, recordLine } from './history.ts';

test('a history is the same after it was written and read', () => {
  const { history } = lawfulHistory(3, { operations: 300 });
  const hold = { name: 'jobs', holder: 'a', token: 7, asked: 1, from: 2, until: 3 };
  const whole = { ...history, holds: [hold], fencedWrites: [{ name: 'store', token: 7, time: 2 }] };
  expect(readHistory(historyLines(whole))).toEqual(whole);
});

test('what a recorder tells while it happens is the same history', () => {
  const lines: string[] = [];
  const recorder = new HistoryRecorder((record: HistoryRecord) => lines.push(recordLine(record)));
  const first = recorder.call(1, 10, { type: 'put', key: 'a', value: '1' });
  recorder.call(2, 11, { type: 'range', key: 'a' });
  const watch = recorder.watch(3, 12, { key: 'a' });
  first.ok(13, 2, { type: 'put' }, '4711');
  watch.message({ type: 'created', time: 14, revision: 2 });
  const history = recorder.finish(20);
  expect(readHistory(lines)).toEqual(history);
  expect(history.operations.map(({ outcome }) => outcome.status)).toEqual(['ok', 'unknown']);
});

test('what is told of one instant keeps its order', () => {
  const recorder = new HistoryRecorder();
  recorder.call(1, 5, { type: 'range', key: 'a' }).failed(5, 'unavailable');
  recorder.call(1, 5, { type: 'range', key: 'a' }).failed(5, 'unavailable');
  const [first, second] = recorder.finish(6).operations;
  const times = [first?.call, first?.return, second?.call, second?.return] as number[];
  expect(times).toEqual([...new Set(times)].sort((a, b) => a - b));
});

test('an operation is settled once', () => {
  const recorder = new HistoryRecorder();
  const pending = recorder.call(1, 0, { type: 'range', key: 'a' });
  pending.unknown(1);
  expect(() => pending.failed(2, 'unavailable')).toThrow('settled before');
});

test('a message of a watch that was never opened is refused', () => {
  const line = recordLine({ kind: 'watchMessage', watch: 4, message: { type: 'closed', time: 1 } });
  expect(() => readHistory([line])).toThrow('watch 4, which was never opened');
});

test('what comes after the end is left out', () => {
  const recorder = new HistoryRecorder();
  const late = recorder.call(1, 0, { type: 'put', key: 'a', value: '1' });
  const watch = recorder.watch(2, 1, { key: 'a' });
  const history = recorder.finish(2);
  const before = structuredClone(history);
  late.ok(3, 2, { type: 'put' });
  watch.message({ type: 'created', time: 3, revision: 2 });
  recorder.call(1, 4, { type: 'range', key: 'a' }).failed(5, 'unavailable');
  recorder.hold({ name: 'jobs', holder: 'a', token: 7, asked: 1, from: 2, until: 3 });
  expect(history).toEqual(before);
});
