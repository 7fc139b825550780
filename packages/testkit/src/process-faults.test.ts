import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { type ProcessFault, ProcessFaults } from './process-faults.ts';
import { ScratchDir } from './scratch-dir.ts';

const hasCompiler = process.platform === 'linux' && spawnSync('gcc', ['--version']).status === 0;

/** Writes and flushes `good` and `bad`, in this thread and in another, and says what came of each; and how far its clock is off. */
const program = `
const { openSync, writeSync, fdatasyncSync } = require('node:fs');
const { isMainThread, Worker, workerData } = require('node:worker_threads');
const attempt = (what) => { try { what(); return 'ok'; } catch ({ code }) { return code; } };
const results = ['good', 'bad'].map((name) => {
  const file = openSync((workerData ?? process.argv[1]) + '/' + name, 'w');
  return name + ' ' + attempt(() => writeSync(file, 'x')) + ' ' + attempt(() => fdatasyncSync(file));
});
console.log((isMainThread ? 'main' : 'worker') + ': ' + results.join(', '));
if (isMainThread) {
  console.log(Math.round((Date.now() - process.env.STARTED) / 3_600_000) + ' h');
  new Worker(process.env.PROGRAM, { eval: true, workerData: process.argv[1] });
}
`;

function run(...set: readonly ProcessFault[]): { readonly lines: string[]; readonly hits: bigint } {
  using dir = new ScratchDir('faulty');
  using faults = new ProcessFaults();
  faults.set(set);
  const env = { ...process.env, ...faults.environment, PROGRAM: program, STARTED: String(Date.now()) };
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program, dir.path], { encoding: 'utf8', env });
  expect(stderr).toBe('');
  return { lines: stdout.trim().split('\n'), hits: faults.hits };
}

describe.skipIf(!hasCompiler)('faults of a process', () => {
  test('without any, nothing is changed', () => {
    expect(run()).toEqual({ lines: ['main: good ok ok, bad ok ok', '0 h', 'worker: good ok ok, bad ok ok'], hits: 0n });
  });

  test('flushes fail, of the files that are named, in every thread', () => {
    const { lines, hits } = run({ on: 'sync', path: '/bad', action: 'fail', code: 'EIO' });
    expect(lines).toEqual(['main: good ok ok, bad ok EIO', '0 h', 'worker: good ok ok, bad ok EIO']);
    expect(hits).toBe(2n);
  });

  test('writes find no room', () => {
    const { lines } = run({ on: 'write', path: '/bad', action: 'fail', code: 'ENOSPC' });
    expect(lines).toEqual(['main: good ok ok, bad ENOSPC ok', '0 h', 'worker: good ok ok, bad ENOSPC ok']);
  });

  test('flushes take longer', () => {
    const startedAt = performance.now();
    expect(run({ on: 'sync', path: '/bad', action: 'delay', ms: 150 }).hits).toBe(2n);
    expect(performance.now() - startedAt).toBeGreaterThan(300);
  });

  test('the wall clock is off by years', () => {
    const { lines } = run({ on: 'clock', offsetMs: -200_000 * 3_600_000 });
    expect(lines[1]).toBe('-200000 h');
  });
});
