import type { Runtime } from '@conclave/wire';
import type { Applier } from './apply/apply.ts';
import type { Mvcc } from './mvcc/mvcc.ts';
import type { Fatal } from './replica/ports.ts';
import type { Store } from './storage/backend/store.ts';

export interface CompactorOptions {
  readonly runtime: Runtime;
  readonly mvcc: Mvcc;
  readonly applier: Applier;
  readonly store: Store;
  readonly fatal: Fatal;
}

// A row costs up to 40 µs with what it frees; a step is to stay below two milliseconds.
const rowsPerStep = 48;
const pauseMs = 1;

/**
 * Takes what was compacted out of storage, a little at a time: between two steps there is room for requests. How far it has come is stored with
 * the rows, so it goes on where it was after a restart.
 */
export class Compactor {
  readonly #options: CompactorOptions;
  #isRunning = false;
  #isStopped = false;
  #waiting: (() => void)[] = [];

  constructor(options: CompactorOptions) {
    this.#options = options;
  }

  /** To be called when something may have been compacted. Does nothing while it is at work. */
  wake(): void {
    if (this.#isRunning || this.#isStopped || this.#options.mvcc.isCompacted) return;
    this.#isRunning = true;
    this.#pause();
  }

  /** Resolves once everything compacted before the call is out of storage, durably. */
  async done(): Promise<void> {
    this.wake();
    if (this.#isRunning) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    await this.#options.store.flush();
  }

  stop(): void {
    this.#isStopped = true;
  }

  #pause(): void {
    this.#options.runtime.timer(pauseMs, () => this.#turn(), { background: true });
  }

  #turn(): void {
    if (this.#isStopped) return;
    try {
      this.#step();
    } catch (cause) {
      this.#isStopped = true;
      this.#report(cause instanceof Error ? cause : new Error(String(cause)));
    }
  }

  #step(): void {
    const { applier } = this.#options;
    if (applier.isFull) {
      applier.onRoom(() => this.#pause());
      return;
    }
    if (!applier.compactStep(rowsPerStep)) {
      this.#pause();
      return;
    }
    this.#isRunning = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #report(cause: Error): void {
    try {
      this.#options.fatal(cause);
    } catch {
      // Where the process goes on, `fatal` throws to unwind whoever called it. This is the top of the stack, and the cause has been told.
    }
  }
}
