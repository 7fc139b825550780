import { type Backend, type BackendView, type Changes, MemoryBackend, type Row, type ScanOptions, type Table } from '@conclave/server';
import type { Machine } from './machine.ts';
import type { Random } from './random.ts';

export interface SimulatedBackendOptions {
  readonly random: Random;
  /** Milliseconds a commit takes. */
  readonly commitMs: () => number;
  /** Asked for every commit, when it completes: an error it returns is what the commit fails with. */
  readonly fault?: () => Error | undefined;
}

/**
 * A machine's store of applied state, which survives the machine's processes with what was committed. A commit that was under way when its process died
 * is there whole, or not at all.
 *
 * @example
 * const state = new SimulatedBackend(machine, { random, commitMs: () => 5 });
 * await startServer({ runtime: machine.boot(), dataDir: '/data', storage: { disk: disk.mount(), backend: () => state.mount() } });
 */
export class SimulatedBackend {
  readonly #machine: Machine;
  readonly #options: SimulatedBackendOptions;
  #committed = new MemoryBackend();
  #mount: Mount | undefined;

  constructor(machine: Machine, options: SimulatedBackendOptions) {
    this.#machine = machine;
    this.#options = options;
  }

  /** The store for the process that runs now. */
  mount(): Backend {
    this.crash();
    this.#mount = new Mount(this.#machine, this.#committed, this.#options);
    return this.#mount;
  }

  /** The process is dead: the fate of its last commit is decided. */
  crash(): void {
    this.#mount?.crash();
    this.#mount = undefined;
  }

  /** The disk was replaced by an empty one. */
  wipe(): void {
    this.crash();
    this.#committed = new MemoryBackend();
  }

  /** What is committed, for assertions. */
  get committed(): Pick<Backend, 'get' | 'scan'> {
    return this.#committed;
  }
}

class Mount implements Backend {
  readonly #machine: Machine;
  readonly #committed: MemoryBackend;
  readonly #options: SimulatedBackendOptions;
  readonly #views = new Set<BackendView>();
  #underWay: Changes | undefined;
  #isDead = false;

  constructor(machine: Machine, committed: MemoryBackend, options: SimulatedBackendOptions) {
    this.#machine = machine;
    this.#committed = committed;
    this.#options = options;
  }

  crash(): void {
    if (this.#isDead) return;
    this.#isDead = true;
    for (const view of this.#views) view.close();
    if (this.#underWay !== undefined && this.#options.random.chance(0.5)) void this.#committed.commit(this.#underWay);
  }

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    return this.#committed.get(table, key);
  }

  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options?: ScanOptions): Iterable<Row> {
    return this.#committed.scan(table, start, end, options);
  }

  count(table: Table): number {
    return this.#committed.count(table);
  }

  commit(changes: Changes): Promise<void> {
    if (this.#underWay !== undefined) throw new Error('one commit at a time');
    this.#underWay = changes;
    return new Promise((resolve, reject) => {
      this.#machine.arrive(this.#options.commitMs(), () => {
        if (this.#isDead) return;
        this.#underWay = undefined;
        const failure = this.#options.fault?.();
        if (failure !== undefined) reject(failure);
        else this.#committed.commit(changes).then(resolve, reject);
      });
    });
  }

  view(): BackendView {
    const view = this.#committed.view();
    this.#views.add(view);
    return view;
  }

  size(): { readonly total: number; readonly inUse: number } {
    return this.#committed.size();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
