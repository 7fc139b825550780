// `npm run sim`: makes one file of the simulation and runs that. A flat file without the helpers that keep names runs a third faster than the sources
// do, and processor time is all that a simulation costs.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('../..', import.meta.url));
const bundle = `${root}/.cache/sim/command.mjs`;
const [major = '20', minor = '19'] = process.versions.node.split('.');

await build({
  absWorkingDir: root,
  entryPoints: ['test/sim/command.ts'],
  outfile: bundle,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: `node${major}.${minor}`,
  conditions: ['@conclave/source'],
  sourcemap: true,
  // What is not the simulation's own, and never runs in it.
  external: ['lmdb', 'fs-native-extensions', '@grpc/*'],
  banner: { js: "import { createRequire as requireHere } from 'node:module'; const require = requireHere(import.meta.url);" },
  logLevel: 'warning',
});
const args = process.argv.slice(2);
// One thread does it all, the garbage too: what others would do of it costs the same processor.
const tuned = ['--single-threaded-gc', '--max-semi-space-size=64'];
const shown = args.some((arg) => arg.startsWith('--seed=') || arg === '--seed') ? ['--enable-source-maps'] : [];
const { status, error } = spawnSync(process.execPath, [...tuned, ...shown, bundle, ...args], { cwd: root, stdio: 'inherit' });
if (error !== undefined) throw error;
process.exitCode = status ?? 1;
