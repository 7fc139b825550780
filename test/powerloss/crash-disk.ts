import { execFileSync, spawnSync } from 'node:child_process';
import { constants, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const gib = 1024 ** 3;
const storeBytes = 12 * gib;
const diskBytes = 2 * gib;
const freeBytesMin = 6 * gib;

/** Why power cannot be cut here; undefined: it can. */
export function whyNot(): string | undefined {
  if (process.platform !== 'linux') return 'it needs Linux';
  if (process.getuid?.() !== 0) return 'it needs root, for mounts';
  for (const tool of ['mkfs.xfs', 'mkfs.ext4', 'losetup', 'mount']) {
    if (spawnSync('which', [tool]).status !== 0) return `there is no ${tool} (Debian: xfsprogs, e2fsprogs, mount)`;
  }
  if (spawnSync('losetup', ['--find']).status !== 0) return 'there is no free loop device';
  const { bavail, bsize } = statfsSync(tmpdir());
  return bavail * bsize < freeBytesMin ? `${tmpdir()} has less than ${freeBytesMin / gib} GiB left` : undefined;
}

const live = new Set<ImageStore>();
process.on('exit', () => {
  for (const store of live) store[Symbol.dispose]();
});

/**
 * An XFS in a file, on which a copy of any file is made in an instant by sharing its blocks. Disk images are kept in it, so that a copy of one is
 * what a machine would find on its disk had its power been cut in that instant: all that was flushed, and none of what the kernel still held back.
 */
export class ImageStore implements Disposable {
  readonly #dir: string;
  readonly #disks = new Set<CrashDisk>();
  #named = 0;

  constructor() {
    unmountLeftOvers();
    this.#dir = mkdtempSync(join(tmpdir(), prefix));
    live.add(this);
    writeFileSync(join(this.#dir, 'owner'), String(process.pid));
    const file = join(this.#dir, 'store.xfs');
    writeFileSync(file, '');
    truncateSync(file, storeBytes);
    run('mkfs.xfs', ['-q', '-m', 'reflink=1', file]);
    mkdirSync(this.path);
    // The blocks of removed images go back to the disk below.
    run('mount', ['-o', 'loop,noatime,discard', file, this.path]);
  }

  get path(): string {
    return join(this.#dir, 'images');
  }

  /** A name for an image that does not exist yet. */
  newImage(): string {
    return join(this.path, `${++this.#named}.ext4`);
  }

  /** A place to mount images at, one at a time. */
  newDisk(): CrashDisk {
    const disk = new CrashDisk(this, join(this.#dir, `disk${this.#disks.size}`));
    this.#disks.add(disk);
    return disk;
  }

  /** Synchronous, as it must also work while the process exits. */
  [Symbol.dispose](): void {
    if (!live.delete(this)) return;
    for (const disk of this.#disks) disk.unmount();
    unmount(this.path);
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** A file system that can lose its power. */
export class CrashDisk {
  /** Where it is mounted. */
  readonly path: string;
  readonly #store: ImageStore;
  #image: string | undefined;

  constructor(store: ImageStore, path: string) {
    this.#store = store;
    this.path = path;
    mkdirSync(path);
  }

  /** A new, empty file system takes the place of the present one. */
  format(): void {
    const image = this.#store.newImage();
    writeFileSync(image, '');
    truncateSync(image, diskBytes);
    run('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=1,lazy_journal_init=1,nodiscard', image]);
    this.mount(image);
  }

  /** The power comes back: the file system is repaired from its journal, as at a boot. */
  mount(image: string): void {
    this.unmount();
    // By itself the kernel shall write nothing: what was not flushed stays in memory.
    run('mount', ['-o', 'loop,noatime,commit=1000', image, this.path]);
    this.#image = image;
  }

  /** Cuts the power, for a copy: returns the image of what is on the disk in one instant between the call and its completion. */
  async cut(): Promise<string> {
    const copy = this.#store.newImage();
    await copyFile(this.#image ?? '', copy, constants.COPYFILE_FICLONE_FORCE);
    return copy;
  }

  unmount(): void {
    if (this.#image === undefined) return;
    unmount(this.path);
    rmSync(this.#image, { force: true });
    this.#image = undefined;
  }
}

const prefix = 'conclave-powerloss-';

function run(command: string, args: readonly string[]): void {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** The loop device goes with the mount. Processes that are just ending may hold it for a moment. */
function unmount(path: string): void {
  for (let attempt = 0; attempt < 20; attempt++) {
    if (spawnSync('umount', [path]).status === 0) return;
    if (!readFileSync('/proc/mounts', 'utf8').includes(` ${path} `)) return;
    spawnSync('sleep', ['0.05']);
  }
  run('umount', ['--lazy', path]);
}

/** Of runs that were killed before they could unmount. */
function unmountLeftOvers(): void {
  const mounts = readFileSync('/proc/mounts', 'utf8').split('\n');
  const paths = mounts.map((line) => line.split(' ')[1] ?? '').filter((path) => path.includes(`/${prefix}`));
  for (const path of paths.reverse()) {
    const dir = path.slice(0, path.indexOf('/', path.indexOf(prefix)));
    const owner = existsSync(join(dir, 'owner')) ? readFileSync(join(dir, 'owner'), 'utf8') : '';
    if (owner !== '' && existsSync(`/proc/${owner}`)) continue;
    unmount(path);
    if (path === join(dir, 'images')) rmSync(dir, { recursive: true, force: true });
  }
}
