// `npm run ci:proofs`: what needs a real etcd or minutes. A missing binary is a failure here, never a skip.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { errorMessages } from './error-messages.ts';

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
  {
    name: 'tests that need etcd',
    args: [vitest, 'run', 'test/e2e', 'test/watch', 'packages/server/src/etcdctl', 'packages/server/src/apply'],
  },
  { name: 'interop', args: [vitest, ...proofs, 'test/interop'] },
  { name: 'differential', args: [vitest, ...proofs, 'test/differential'] },
  { name: 'crash', args: [vitest, ...proofs, 'test/crash'] },
  { name: 'store', args: [vitest, ...proofs, 'test/store'] },
  { name: 'watches', args: [vitest, ...proofs, 'test/watch'] },
  { name: 'loss of a member', args: [vitest, ...proofs, 'test/e2e'] },
  { name: 'checkers', args: [vitest, ...proofs, 'test/checkers'] },
  { name: 'sim', args: [...onSources, 'test/sim/main.ts', '--seeds', '1000', '--jobs', '2', '--least-speed', '30'] },
  { name: 'mutants', args: [...onSources, 'test/mutants/main.ts'] },
  { name: 'nemesis', args: [...onSources, 'test/nemesis/main.ts', '--short'] },
  { name: 'powerloss', args: [...onSources, 'test/powerloss/main.ts', '--images', '400'] },
  { name: 'soak', args: [...onSources, 'test/soak/main.ts', '--minutes', '3'] },
];

/** What a part that failed said last is said again at the end: much may have followed it. */
const lastLines = 40;
/** Then, as the very end, what its errors say: of a long log often no more is shown. */
const charactersAtEnd = 600;

interface Ended {
  readonly name: string;
  readonly isPassed: boolean;
  readonly seconds: number;
  readonly last: string;
}

function run({ name, args }: Part): Promise<Ended> {
  const started = Date.now();
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, CONCLAVE_PROOFS: '1' } });
  let last = '';
  const show = (to: NodeJS.WriteStream) => (chunk: Buffer) => {
    to.write(chunk);
    last = (last + chunk.toString()).slice(-20_000);
  };
  child.stdout.on('data', show(process.stdout));
  child.stderr.on('data', show(process.stderr));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (signal !== null) last += `\nError: the process was ended by ${signal}\n`;
      resolve({ name, isPassed: code === 0, seconds: (Date.now() - started) / 1000, last });
    });
  });
}

const only = process.argv.slice(2);
const ended: Ended[] = [];
for (const part of parts) {
  if (only.length > 0 && !only.some((word) => part.name.includes(word))) continue;
  console.log(`\n=== proof: ${part.name}`);
  ended.push(await run(part));
}
const failed = ended.filter(({ isPassed }) => !isPassed);
for (const { name, last } of failed)
  console.log(`\n=== failed: ${name}, which ended so:\n${last.split('\n').slice(-lastLines).join('\n')}`);
const passed = ended.filter(({ isPassed }) => isPassed);
console.log(`\npassed: ${passed.map(({ name, seconds }) => `${name} ${seconds.toFixed(0)} s`).join(', ')}`);
for (const { name, seconds, last } of failed)
  console.log(`FAILED: ${name} ${seconds.toFixed(0)} s\n${errorMessages(last, Math.floor(charactersAtEnd / failed.length))}`);
process.exit(failed.length > 0 ? 1 : 0);
