import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ScratchDir } from './scratch-dir.ts';

/**
 * What goes wrong, for files whose path contains `path`.
 *
 * - `sync`: `fsync` and `fdatasync` fail, take longer, or say that they have done what they have not.
 * - `write`: writes of any kind fail or take longer.
 * - `space`: files cannot be made longer in advance.
 * - `clock`: the wall clock is off; monotonic ones are not.
 */
export type ProcessFault =
  | { readonly on: 'sync'; readonly path: string; readonly action: 'skip' }
  | { readonly on: 'sync' | 'write'; readonly path: string; readonly action: 'delay'; readonly ms: number }
  | { readonly on: 'sync' | 'write' | 'space'; readonly path: string; readonly action: 'fail'; readonly code: 'EIO' | 'ENOSPC' }
  | { readonly on: 'clock'; readonly offsetMs: number };

const errno = { EIO: 5, ENOSPC: 28 };
const rulesSize = 4000;
const hitsOffset = 4088;
const pageSize = 4096;

let library: { readonly dir: ScratchDir; readonly path: string } | undefined;

/**
 * Faults of one process's disk and clock, by a library preloaded into it. Works for programs that call the C library (Node and its addons), not for
 * Go's, which calls the kernel itself. Needs gcc, on Linux.
 *
 * @example
 * const faults = new ProcessFaults();
 * launchCluster({ kind: 'conclave', member: () => ({ environment: faults.environment }) });
 * faults.set([{ on: 'sync', path: '/wal/', action: 'fail', code: 'EIO' }]);
 */
export class ProcessFaults implements Disposable {
  /** For the process that is to have the faults. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #dir = new ScratchDir('faults');
  readonly #file: number;

  constructor() {
    library ??= compile();
    const path = `${this.#dir.path}/rules`;
    this.#file = openSync(path, 'w+');
    writeSync(this.#file, Buffer.alloc(pageSize));
    this.environment = { LD_PRELOAD: library.path, CONCLAVE_FAULTS: path };
  }

  /** Instead of those before, from the next call on, in a process that runs as in one that starts. */
  set(faults: readonly ProcessFault[]): void {
    const rules = Buffer.alloc(rulesSize);
    const text = faults.map(ruleOf).join('');
    if (text.length >= rulesSize) throw new Error(`too many faults at once: ${faults.length}`);
    rules.write(text, 'latin1');
    writeSync(this.#file, rules, 0, rulesSize, 0);
  }

  clear(): void {
    this.set([]);
  }

  /** How many calls came out other than they would have. */
  get hits(): bigint {
    const bytes = Buffer.alloc(8);
    readSync(this.#file, bytes, 0, 8, hitsOffset);
    return bytes.readBigUInt64LE();
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
    this.#dir[Symbol.dispose]();
  }
}

function ruleOf(fault: ProcessFault): string {
  if (fault.on === 'clock') return `clock * offset ${Math.round(fault.offsetMs)}\n`;
  const rule = `${fault.on} ${fault.path}`;
  if (fault.action === 'delay') return `${rule} delay ${Math.round(fault.ms)}\n`;
  return fault.action === 'skip' ? `${rule} skip\n` : `${rule} errno ${errno[fault.code]}\n`;
}

function compile(): NonNullable<typeof library> {
  const dir = new ScratchDir('shim');
  const path = `${dir.path}/process-faults.so`;
  // The same place from `src` and from `dist`.
  const source = fileURLToPath(new URL('../src/process-faults.c', import.meta.url));
  try {
    execFileSync('gcc', ['-O2', '-Wall', '-Werror', '-shared', '-fPIC', '-o', path, source, '-ldl']);
  } catch (error) {
    throw new Error('the library for faults of processes could not be compiled: gcc and the headers of the C library are needed', {
      cause: error,
    });
  }
  return { dir, path };
}
