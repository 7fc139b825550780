// The one way to run anything in this repository. Plain JavaScript and Node's own modules only: it must work on a fresh clone, before
// anything is installed. Installs from the lockfile when the lockfile changed, builds what changed, then runs the task named.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const [task, ...args] = process.argv.slice(2);

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Conclave needs Node 20.19 or newer; this is ${process.versions.node}.`);
  process.exit(1);
}

function run(command, commandArgs, options = {}) {
  const result = spawnSync(command, commandArgs, { cwd: root, stdio: 'inherit', ...options });
  if (result.error) throw result.error;
  if (result.status !== 0) process.exit(result.status ?? 1);
}

/** Runs a tool of node_modules by its entry file, so that no shell and no PATH is involved. */
function tool(packageName, binName, toolArgs, options = {}) {
  const { status } = toolStatus(packageName, binName, toolArgs, options);
  if (status !== 0) process.exit(status ?? 1);
}

function toolStatus(packageName, binName, toolArgs, options = {}) {
  const dir = join(root, 'node_modules', packageName);
  const { bin } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8'));
  const entry = typeof bin === 'string' ? bin : bin[binName];
  return spawnSync(process.execPath, [join(dir, entry), ...toolArgs], { cwd: root, stdio: 'inherit', ...options });
}

function ensureInstalled() {
  const digest = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const stamp = join(root, 'node_modules', '.conclave-lock');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  console.log('Installing from the lockfile (once) ...');
  const npm = process.env.npm_execpath;
  if (npm?.endsWith('.js')) run(process.execPath, [npm, 'ci', '--no-audit', '--no-fund', '--loglevel=error']);
  else run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { shell: process.platform === 'win32' });
  writeFileSync(stamp, digest);
}

/** Incremental: a second run only compares timestamps. */
function ensureBuilt() {
  const started = Date.now();
  tool('@typescript/native', 'tsc', ['-b', 'tsconfig.build.json']);
  if (Date.now() - started > 1500) console.log(`Built in ${((Date.now() - started) / 1000).toFixed(1)} s.`);
}

const onSources = ['--conditions=@conclave/source', '--import', 'tsx'];
const script = (file, scriptArgs = []) => run(process.execPath, [...onSources, file, ...scriptArgs]);
const vitest = (vitestArgs, env = {}) => tool('vitest', 'vitest', ['run', ...vitestArgs], { env: { ...process.env, ...env } });

const tasks = {
  start: () => {
    ensureBuilt();
    // Not spawnSync: Ctrl-C must reach the tour, and its exit code is ours.
    const child = spawn(process.execPath, ['examples/tour/dist/main.js', ...args], { cwd: root, stdio: 'inherit' });
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
    child.on('exit', (code, signal) => process.exit(code ?? (signal ? 1 : 0)));
  },
  build: ensureBuilt,
  test: () => {
    ensureBuilt();
    vitest(args);
    if (args.length === 0) console.log('The proofs that take a real etcd or minutes are not part of this: npm run ci:proofs.');
  },
  check: () => script('scripts/check.ts', args),
  generate: () => script('scripts/generate.ts', args),
  lockfile: () => script('scripts/lockfile.ts', args),
  conformance: () => {
    ensureBuilt();
    script('scripts/conformance.ts', args);
  },
  proofs: () => {
    ensureBuilt();
    script('scripts/proofs.ts', args);
  },
  bench: () => {
    ensureBuilt();
    script('bench/main.ts', args);
  },
  compare: () => {
    ensureBuilt();
    script('bench/compare/main.ts', args);
  },
  sim: () => script('test/sim/main.ts', args),
  mutants: () => {
    // Some finders launch the server.
    ensureBuilt();
    script('test/mutants/main.ts', args);
  },
  nemesis: () => {
    ensureBuilt();
    script('test/nemesis/main.ts', args);
  },
  powerloss: () => {
    ensureBuilt();
    script('test/powerloss/main.ts', args);
  },
  soak: () => {
    ensureBuilt();
    script('test/soak/main.ts', args);
  },
};

if (!Object.hasOwn(tasks, task)) {
  console.error(`Unknown task ${task}. Known: ${Object.keys(tasks).join(', ')}.`);
  process.exit(2);
}
mkdirSync(join(root, '.cache'), { recursive: true });
ensureInstalled();
tasks[task]();
