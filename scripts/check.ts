// `npm run check`: what a reviewer would ask of the tree before reading it. Every part runs, and the failures are listed at the end.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface Part {
  readonly name: string;
  readonly run: () => boolean;
}

const MODULES_MIN = 150;
const LMDB_PLATFORMS = 7;

function tool(packageName: string, binName: string, args: readonly string[], quiet = false): { ok: boolean; output: string } {
  const dir = join('node_modules', packageName);
  const { bin } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')) as { bin: string | Record<string, string> };
  const entry = typeof bin === 'string' ? bin : bin[binName];
  if (entry === undefined) throw new Error(`${packageName} has no binary ${binName}`);
  const result = spawnSync(process.execPath, [join(dir, entry), ...args], { encoding: 'utf8', maxBuffer: 64 << 20 });
  const output = `${result.stdout}${result.stderr}`;
  const ok = result.status === 0;
  if (!quiet || !ok) process.stdout.write(output);
  return { ok, output };
}

/** dependency-cruiser reports success over nothing when it cannot parse: too few modules is a failure. */
function layers(): boolean {
  const { ok, output } = tool(
    'dependency-cruiser',
    'depcruise',
    ['--config', '.dependency-cruiser.cjs', '--output-type', 'err', 'packages'],
    true,
  );
  const modules = Number(/(\d+) modules/.exec(output)?.[1] ?? 0);
  console.log(`${modules} modules seen`);
  if (modules < MODULES_MIN) console.error(`Too few: at least ${MODULES_MIN} were expected, the layer rules have seen next to nothing.`);
  return ok && modules >= MODULES_MIN;
}

const publicPackages = readdirSync('packages').filter((name) => {
  const manifest = JSON.parse(readFileSync(join('packages', name, 'package.json'), 'utf8')) as { private?: boolean };
  return manifest.private !== true;
});

/** Packs every public package as npm would, then asks both linters about the tarball. */
function packages(): boolean {
  const dir = mkdtempSync(join(tmpdir(), 'conclave-pack-'));
  try {
    return publicPackages.every((name) => {
      const packed = spawnSync('npm', ['pack', '--silent', '--pack-destination', dir], { cwd: join('packages', name), encoding: 'utf8' });
      if (packed.status !== 0) {
        console.error(packed.stderr);
        return false;
      }
      const tarball = join(dir, packed.stdout.trim().split('\n').at(-1) ?? '');
      const lint = tool('publint', 'publint', ['run', join('packages', name), '--strict', '--pack', 'npm'], true).ok;
      const types = tool('@arethetypeswrong/cli', 'attw', [tarball, '--profile', 'esm-only', '--no-emoji', '--quiet'], true).ok;
      console.log(`${name}: ${lint && types ? 'well packed' : 'FAILED'}`);
      return lint && types;
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/**
 * Every platform's prebuilt binaries must be in the lockfile, LMDB's above all. npm drops those of other platforms when it writes a lockfile beside an
 * installed tree; `npm run lockfile` writes it whole.
 */
function lockfile(): boolean {
  type Locked = { readonly optionalDependencies?: Readonly<Record<string, string>> };
  const { packages: locked } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Locked> };
  const missing = Object.entries(locked).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter((name) => !(`node_modules/${name}` in locked) && !(`${path}/node_modules/${name}` in locked)),
  );
  const platformsOfLmdb = Object.keys(locked).filter((path) => path.startsWith('node_modules/@lmdb/lmdb-')).length;
  if (missing.length > 0) console.error(`Missing in package-lock.json: ${missing.join(', ')}`);
  if (platformsOfLmdb < LMDB_PLATFORMS)
    console.error(`Only ${platformsOfLmdb} of ${LMDB_PLATFORMS} platforms of lmdb are in package-lock.json.`);
  return missing.length === 0 && platformsOfLmdb >= LMDB_PLATFORMS;
}

const parts: readonly Part[] = [
  { name: 'format and lint (biome)', run: () => tool('@biomejs/biome', 'biome', ['check', '--error-on-warnings', '.'], true).ok },
  { name: 'types (tsc -b)', run: () => tool('@typescript/native', 'tsc', ['-b']).ok },
  {
    name: 'lint with types (oxlint)',
    run: () => tool('oxlint', 'oxlint', ['--type-aware', '--quiet', 'packages', 'test', 'bench', 'scripts', 'examples'], true).ok,
  },
  { name: 'layers (dependency-cruiser)', run: layers },
  { name: 'dead code (knip)', run: () => tool('knip', 'knip', ['--no-progress'], true).ok },
  {
    name: 'generated code',
    run: () => spawnSync(process.execPath, ['--import', 'tsx', 'scripts/generate.ts', '--check'], { stdio: 'inherit' }).status === 0,
  },
  { name: 'lockfile', run: lockfile },
  { name: 'packages (publint, attw)', run: packages },
];

const only = process.argv.slice(2);
const failed: string[] = [];
for (const part of parts) {
  if (only.length > 0 && !only.some((word) => part.name.includes(word))) continue;
  const started = Date.now();
  console.log(`\n== ${part.name}`);
  if (!part.run()) failed.push(part.name);
  console.log(`   ${((Date.now() - started) / 1000).toFixed(1)} s`);
}
if (failed.length > 0) {
  console.error(`\ncheck failed: ${failed.join(', ')}`);
  process.exit(1);
}
console.log('\ncheck passed');
