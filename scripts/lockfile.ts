// `npm run lockfile`: writes package-lock.json for every platform.
//
// npm forgets the prebuilt binaries of other platforms when it writes a lockfile beside an installed tree, and leaves out those that the registry at
// hand does not serve at the moment; `npm ci` then refuses the lockfile. So it is written in a copy of the manifests, and what is still missing is
// added by name: without a checksum, for platforms other than this one, where npm skips it.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface Locked {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const dir = mkdtempSync(join(tmpdir(), 'conclave-lockfile-'));
try {
  const manifests = ['package.json', '.npmrc', ...readdirSync('packages').map((name) => join('packages', name, 'package.json'))];
  for (const file of manifests) cpSync(file, join(dir, file));
  const npm = spawnSync('npm', ['install', '--package-lock-only', '--no-audit', '--loglevel=error'], { cwd: dir, stdio: 'inherit' });
  if (npm.status !== 0) process.exit(npm.status ?? 1);
  const lock = JSON.parse(readFileSync(join(dir, 'package-lock.json'), 'utf8')) as { packages: Record<string, Locked> };
  for (const [path, { optionalDependencies = {}, dev }] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(optionalDependencies)) {
      if (`node_modules/${name}` in lock.packages || `${path}/node_modules/${name}` in lock.packages) continue;
      console.log(`${name}@${version} is not served here; added by name`);
      lock.packages[`node_modules/${name}`] = { version, ...(dev === true ? { dev } : {}), ...platformOf(name) };
    }
  }
  lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`);
} finally {
  rmSync(dir, { recursive: true, force: true });
}

/** Platform packages are named `<what>-<os>-<cpu>[-<libc>]`. */
function platformOf(name: string): { readonly os: string[]; readonly cpu: string[]; readonly libc?: string[]; readonly optional: true } {
  const match = /(aix|android|darwin|freebsd|linux|netbsd|openbsd|openharmony|sunos|win32)-([a-z0-9]+)(?:-([a-z]+))?$/.exec(name);
  if (match === null) throw new Error(`${name} is optional, missing, and not named after a platform`);
  const [, os = '', cpu = '', abi = ''] = match;
  if (os === process.platform && cpu === process.arch && !abi.startsWith('musl'))
    throw new Error(`${name} is for this platform and not to be had`);
  const libc = abi.startsWith('musl') ? ['musl'] : abi.startsWith('gnu') ? ['glibc'] : undefined;
  return {
    os: [os],
    cpu: [cpu.startsWith('arm') && cpu !== 'arm64' ? 'arm' : cpu],
    ...(libc === undefined ? {} : { libc }),
    optional: true,
  };
}
