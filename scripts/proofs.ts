// `npm run ci:proofs`: what needs a real etcd or minutes. A missing binary is a failure here, never a skip.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const binaries = process.env['ETCD_BIN_DIR'];
if (binaries === undefined || !['3.5', '3.4'].some((version) => existsSync(join(binaries, version, 'etcd')))) {
  console.error(
    'ci:proofs needs a real etcd: set ETCD_BIN_DIR to a folder holding 3.5/etcd and 3.5/etcdctl (on Debian: export ETCD_BIN_DIR=$(.ci/etcd.sh)).',
  );
  process.exit(1);
}

interface Part {
  readonly name: string;
  readonly args: readonly string[];
}

const vitest = 'node_modules/vitest/vitest.mjs';
const onSources = ['--conditions=@conclave/source', '--import', 'tsx'];
const proofs = ['run', '--config', 'vitest.proofs.config.ts'];
const parts: readonly Part[] = [
  { name: 'conformance', args: [...onSources, 'scripts/conformance.ts', '--all'] },
  { name: 'tests that need etcd', args: [vitest, 'run', 'test/e2e', 'packages/server/src/etcdctl', 'packages/server/src/apply'] },
  { name: 'interop', args: [vitest, ...proofs, 'test/interop'] },
  { name: 'differential', args: [vitest, ...proofs, 'test/differential'] },
  { name: 'crash', args: [vitest, ...proofs, 'test/crash'] },
  { name: 'store', args: [vitest, ...proofs, 'test/store'] },
  { name: 'checkers', args: [vitest, ...proofs, 'test/checkers'] },
  { name: 'sim', args: [...onSources, 'test/sim/main.ts', '--seeds', '1000', '--jobs', '2'] },
];

const only = process.argv.slice(2);
const took: string[] = [];
let failed = false;
for (const part of parts) {
  if (only.length > 0 && !only.some((word) => part.name.includes(word))) continue;
  console.log(`\n=== proof: ${part.name}`);
  const started = Date.now();
  const result = spawnSync(process.execPath, part.args, { stdio: 'inherit', env: { ...process.env, CONCLAVE_PROOFS: '1' } });
  took.push(`${result.status === 0 ? 'passed' : 'FAILED'}  ${((Date.now() - started) / 1000).toFixed(0).padStart(5)} s  ${part.name}`);
  failed ||= result.status !== 0;
}
console.log(`\n${took.join('\n')}`);
process.exit(failed ? 1 : 0);
