import type { Disk, DiskCallback, DiskFile } from '@conclave/server';
import type { Runtime } from '@conclave/wire';
import { type CrashPolicy, randomCrash } from './crash-policy.ts';
import { Random } from './random.ts';
import { Folder, Inode } from './simulated-inode.ts';

/** What a call to the disk does, for {@link SimulatedDiskOptions.fault} and {@link SimulatedDiskOptions.onOperation}. */
export interface DiskOperation {
  readonly kind: 'makeDir' | 'list' | 'create' | 'open' | 'rename' | 'unlink' | 'syncDir' | 'size' | 'read' | 'write' | 'sync' | 'close';
  readonly path: string;
  /** Bytes by which a write makes its file longer. Absent: it does not. */
  readonly growth?: number;
}

export interface SimulatedDiskOptions {
  /** Whose timers carry the latency. Needed with `latencyMs` only. */
  readonly runtime?: Runtime;
  /** Milliseconds an operation takes. Default: none, and a flush then completes before it returns. */
  readonly latencyMs?: (operation: DiskOperation) => number;
  /** The system error code with which an operation fails (EIO, ENOSPC, ...), or undefined. A write that fails may still be seen. */
  readonly fault?: (operation: DiskOperation) => string | undefined;
  /** Called after every operation that changed something: the moments at which a crash differs from one before. */
  readonly onOperation?: (operation: DiskOperation) => void;
  /** The disk confirms flushes and does nothing: what a test of durability must notice. */
  readonly ignoresSync?: boolean;
}

/**
 * A disk in memory that forgets what was not flushed.
 *
 * Every file has a durable image and a list of writes that are only visible. A flush moves them over; a power cut (`cutPower`) keeps, drops or
 * scrambles each unflushed 512-byte sector as its policy decides. Creating, renaming and unlinking become durable with `syncDir`; before it, each
 * of them may be lost or kept on its own. A mere end of the process (`killProcess`) loses nothing that was visible, and makes nothing of it
 * durable.
 *
 * A process reaches the disk through a mount. Either kind of crash ends it: what was under way there never completes, and neither does what the
 * dead process still asks for.
 *
 * @example
 * const disk = new SimulatedDisk();
 * const log = await open(disk.mount());
 * await log.write('a');
 * disk.cutPower(new Random(seed));
 * expect(await (await open(disk.mount())).read()).toBe('a');
 */
export class SimulatedDisk {
  readonly #options: SimulatedDiskOptions;
  #root = new Folder();
  #mount: Mount | undefined;

  constructor(options: SimulatedDiskOptions = {}) {
    this.#options = options;
  }

  /** The disk as one process sees it until the next crash. */
  mount(): Disk {
    this.#mount ??= new Mount(this.#root, this.#options);
    return this.#mount;
  }

  /** The process died, the machine did not: everything visible stays visible, and stays as durable as it was. */
  killProcess(): void {
    this.#mount?.end();
    this.#mount = undefined;
  }

  /** The machine died. `policy` decides about everything that was not durable; a `Random` decides by chance. */
  cutPower(policy: Random | CrashPolicy): void {
    this.killProcess();
    this.#root.crash('', policy instanceof Random ? randomCrash(policy) : policy);
  }

  /** An independent copy of what the disk holds, durable or not; faults, latency and hooks are those given here. */
  fork(options: SimulatedDiskOptions = {}): SimulatedDisk {
    const copy = new SimulatedDisk(options);
    copy.#root = this.#root.fork();
    return copy;
  }

  /** Names in a folder, for assertions. */
  names(path: string): readonly string[] {
    return folderAt(this.#root, path).names();
  }

  /** What a file holds now, for assertions. ENOENT when there is none. */
  contents(path: string): Uint8Array {
    return inodeAt(this.#root, path).visible();
  }

  /** Changes bytes in place, durably, as rot or a stray hand does. */
  overwrite(path: string, offset: number, bytes: Uint8Array): void {
    inodeAt(this.#root, path).overwrite(offset, bytes);
  }
}

class Mount implements Disk {
  readonly #root: Folder;
  readonly #options: SimulatedDiskOptions;
  #isDead = false;

  constructor(root: Folder, options: SimulatedDiskOptions) {
    this.#root = root;
    this.#options = options;
  }

  end(): void {
    this.#isDead = true;
  }

  makeDir(path: string): Promise<void> {
    return this.#change({ kind: 'makeDir', path }, () => {
      const { folder, name } = placeOf(this.#root, path);
      if (folder.get(name) === undefined) folder.enter(name, new Folder());
    });
  }

  list(path: string): Promise<readonly string[]> {
    return this.run({ kind: 'list', path }, () => folderAt(this.#root, path).names());
  }

  create(path: string): Promise<DiskFile> {
    return this.#change({ kind: 'create', path }, () => {
      const { folder, name } = placeOf(this.#root, path);
      if (folder.get(name) !== undefined) throw systemError('EEXIST', path);
      const inode = new Inode();
      folder.enter(name, inode);
      return new OpenFile(this, inode, path);
    });
  }

  open(path: string): Promise<DiskFile> {
    return this.run({ kind: 'open', path }, () => new OpenFile(this, inodeAt(this.#root, path), path));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#change({ kind: 'rename', path: from }, () => {
      const { folder, name } = placeOf(this.#root, from);
      const target = placeOf(this.#root, to);
      const node = folder.get(name);
      if (node === undefined) throw systemError('ENOENT', from);
      if (target.folder !== folder) throw systemError('EXDEV', from);
      folder.rename(name, target.name, node);
    });
  }

  unlink(path: string): Promise<void> {
    return this.#change({ kind: 'unlink', path }, () => {
      const inode = inodeAt(this.#root, path);
      const { folder, name } = placeOf(this.#root, path);
      folder.remove(name, inode);
    });
  }

  syncDir(path: string): Promise<void> {
    return this.#change({ kind: 'syncDir', path }, () => {
      const folder = folderAt(this.#root, path);
      if (!this.#options.ignoresSync) folder.sync();
    });
  }

  changed(operation: DiskOperation): void {
    this.#options.onOperation?.(operation);
  }

  sync(inode: Inode, path: string): void {
    if (!this.#options.ignoresSync) inode.sync();
    this.changed({ kind: 'sync', path });
  }

  /** Runs `action` after the operation's latency, at once where there is none, and never when the process has died. */
  perform(operation: DiskOperation, action: (failure: Error | undefined) => void): void {
    const { runtime, latencyMs, fault } = this.#options;
    if (this.#isDead) return;
    const run = (): void => {
      if (this.#isDead) return;
      const code = fault?.(operation);
      action(code === undefined ? undefined : systemError(code, operation.path));
    };
    const delay = latencyMs?.(operation) ?? 0;
    if (delay <= 0) run();
    else if (runtime !== undefined) runtime.timer(delay, run);
    else throw new Error('a simulated disk with latency needs a runtime');
  }

  /** As `perform`, as a promise. `action` runs at the moment the operation completes, not a promise later: a crash comes before it or after it. */
  run<T>(operation: DiskOperation, action: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.perform(operation, (failure) => {
        if (failure !== undefined) return reject(failure);
        try {
          resolve(action());
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #change<T>(operation: DiskOperation, action: () => T): Promise<T> {
    return this.run(operation, () => {
      const result = action();
      this.changed(operation);
      return result;
    });
  }
}

class OpenFile implements DiskFile {
  readonly #mount: Mount;
  readonly #inode: Inode;
  readonly #path: string;

  constructor(mount: Mount, inode: Inode, path: string) {
    this.#mount = mount;
    this.#inode = inode;
    this.#path = path;
  }

  size(): Promise<number> {
    return this.#mount.run({ kind: 'size', path: this.#path }, () => this.#inode.size);
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.#mount.run({ kind: 'read', path: this.#path }, () => this.#inode.read(offset, length));
  }

  flush(offset: number, bytes: Uint8Array, done: DiskCallback): void {
    const growth = offset + bytes.length - this.#inode.size;
    this.#mount.perform({ kind: 'write', path: this.#path, ...(growth > 0 && { growth }) }, (failure) => {
      this.#write(offset, bytes);
      if (failure !== undefined) done(failure);
      else this.#sync(done);
    });
  }

  async fillZero(length: number): Promise<void> {
    for (let at = 0; at < length; at += fillStepBytes) {
      const zeroes = new Uint8Array(Math.min(fillStepBytes, length - at));
      const growth = at + zeroes.length - this.#inode.size;
      await this.#mount.run({ kind: 'write', path: this.#path, ...(growth > 0 && { growth }) }, () => this.#write(at, zeroes));
    }
    await new Promise<void>((resolve, reject) => {
      this.#sync((failure) => (failure === undefined ? resolve() : reject(failure)));
    });
  }

  close(): Promise<void> {
    return this.#mount.run({ kind: 'close', path: this.#path }, () => {});
  }

  #write(offset: number, bytes: Uint8Array): void {
    this.#inode.write(offset, bytes);
    this.#mount.changed({ kind: 'write', path: this.#path });
  }

  #sync(done: DiskCallback): void {
    this.#mount.perform({ kind: 'sync', path: this.#path }, (failure) => {
      if (failure === undefined) this.#mount.sync(this.#inode, this.#path);
      else this.#inode.failSync();
      done(failure);
    });
  }
}

const fillStepBytes = 1024 * 1024;

function folderAt(root: Folder, path: string): Folder {
  let folder = root;
  for (const name of path.split('/').filter((part) => part !== '')) {
    const node = folder.get(name);
    if (node === undefined) throw systemError('ENOENT', path);
    if (!(node instanceof Folder)) throw systemError('ENOTDIR', path);
    folder = node;
  }
  return folder;
}

function inodeAt(root: Folder, path: string): Inode {
  const { folder, name } = placeOf(root, path);
  const node = folder.get(name);
  if (node === undefined) throw systemError('ENOENT', path);
  if (node instanceof Folder) throw systemError('EISDIR', path);
  return node;
}

function placeOf(root: Folder, path: string): { folder: Folder; name: string } {
  const cut = path.lastIndexOf('/');
  return { folder: folderAt(root, path.slice(0, cut)), name: path.slice(cut + 1) };
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: simulated, '${path}'`), { code });
}
