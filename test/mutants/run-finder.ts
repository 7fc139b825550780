import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Finder, root } from './mutant.ts';

/** What a finder said of the source it was given. */
export interface Finding {
  readonly isFailed: boolean;
  /** Of the first failure: what it said. */
  readonly message: string;
  readonly seconds: number;
}

interface JsonReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly message: string;
    readonly assertionResults: readonly { readonly failureMessages: readonly string[] }[];
  }[];
}

/** Longer than any finder takes by far. */
const SECONDS_MAX = 600;

/**
 * Runs a finder in a process of its own, on the sources or on a mutant of them.
 *
 * @throws when no test ran, or the mutant's files were not even loaded: that says nothing about anything.
 */
export async function runFinder(finder: Finder, mutant?: string): Promise<Finding> {
  const dir = mkdtempSync(join(tmpdir(), 'conclave-mutant-'));
  const started = performance.now();
  try {
    const report = join(dir, 'report.json');
    const seen = join(dir, 'seen');
    const output = await vitest(finder, ['--reporter=json', `--outputFile=${report}`], {
      ...(mutant !== undefined && { CONCLAVE_MUTANT: mutant, CONCLAVE_MUTANT_SEEN: seen }),
    });
    const name = mutant ?? 'no mutant';
    if (!existsSync(report)) throw new Error(`${name}: ${finder.file} left no report\n${output}`);
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, 'utf8')) as JsonReport;
    const message = testResults.flatMap((file) => file.assertionResults.flatMap((result) => result.failureMessages))[0] ?? '';
    const loading = testResults.find((file) => file.message !== '')?.message ?? '';
    if (numPassedTests + numFailedTests === 0) throw new Error(`${name}: no test of ${finder.file} ran. ${loading}\n${output}`);
    if (mutant !== undefined && !existsSync(seen)) throw new Error(`${name}: ${finder.file} never loads what it changes`);
    return { isFailed: numFailedTests > 0, message, seconds: (performance.now() - started) / 1000 };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function vitest(finder: Finder, args: readonly string[], environment: Readonly<Record<string, string>>): Promise<string> {
  const { file, test, seeds } = finder;
  const command = [join(root, 'node_modules/vitest/vitest.mjs'), 'run', '--config', 'test/mutants/vitest.config.ts', file];
  if (test !== undefined) command.push('-t', test);
  const env = { ...process.env, ...(seeds !== undefined && { SEEDS: `${seeds}` }), ...finder.environment, ...environment };
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...command, ...args], { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-4000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const deadline = setTimeout(() => child.kill('SIGKILL'), SECONDS_MAX * 1000);
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(deadline);
      resolve(output);
    });
  });
}
