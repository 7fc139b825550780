import { expect, test } from 'vitest';
import { HistoryRecorder } from '../history.ts';
import { checkHistory } from './check-history.ts';
import { showFinding } from './finding.ts';
import { lawfulHistory } from './lawful-history.ts';

test.each([true, false])('nothing is found in lawful histories, with a witness: %s', (hasWitness) => {
  for (let seed = 0; seed < 60; seed++) {
    const { history, model } = lawfulHistory(seed, { operations: 400, hasWitness });
    const found = checkHistory(history, { settledRevision: model.revision });
    expect(found.map(showFinding), `seed ${seed}`).toEqual([]);
  }
});

test('two writes without an answer that could have done the same now are not taken for each other later', () => {
  const recorder = new HistoryRecorder();
  const watch = recorder.watch(9, 0, { key: '\0', end: '\0', startRevision: 1 });
  watch.message({ type: 'created', time: 0, revision: 1 });
  const event = (type: 'put' | 'delete', key: string, value: string, modRevision: number, time: number): void => {
    const kv = { key, value, createRevision: type === 'put' ? modRevision : 0, modRevision, version: type === 'put' ? 1 : 0 };
    watch.message({ type: 'events', time, revision: modRevision, events: [{ type, kv }] });
  };
  const put = (key: string, value: string, revision: number, at: number): void => {
    recorder.call(1, at, { type: 'put', key, value }).ok(at + 1, revision, { type: 'put' });
    event('put', key, value, revision, at + 1);
  };
  put('k', '1', 2, 10);
  recorder.call(2, 20, { type: 'deleteRange', key: 'k' }).unknown(90);
  // Done first. Once there is a gate it could do nothing.
  const noGate = { key: 'gate', target: 'version', is: '=', operand: 0 } as const;
  recorder.call(3, 21, { type: 'txn', compares: [noGate], success: [{ type: 'deleteRange', key: 'k' }], failure: [] }).unknown(90);
  event('delete', 'k', '', 3, 30);
  put('k', '2', 4, 40);
  put('gate', 'shut', 5, 50);
  event('delete', 'k', '', 6, 60);
  expect(checkHistory(recorder.finish(100), { settledRevision: 6 }).map(showFinding)).toEqual([]);
});
