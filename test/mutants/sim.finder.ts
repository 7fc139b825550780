import { showFinding } from '@conclave/testkit';
import { test } from 'vitest';
import { runSeed } from '../sim/run-seeds.ts';

const seeds = Number(process.env['SEEDS'] ?? 10);
const first = Number(process.env['SEED'] ?? 1);
const faultyMs = Number(process.env['FAULTY_MS'] ?? 15_000);

test('simulated clusters keep every promise', async () => {
  for (let seed = first; seed < first + seeds; seed++) {
    const { result } = await runSeed(seed, { faultyMs }, false);
    const finding = result.findings[0];
    if (finding !== undefined) throw new Error(`SEED=${seed}: ${showFinding(finding)}`);
  }
});
