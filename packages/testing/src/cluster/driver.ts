import type { VirtualRuntime } from '../virtual-runtime.ts';

export interface RunOptions {
  /** How much virtual time it may take, in milliseconds. Default: 600,000. */
  readonly deadlineMs?: number | undefined;
}

const deadlineMsDefault = 600_000;

/**
 * Moves virtual time while there is something to wait for. Work that is begun within other work, or beside it, is driven with it: whoever came first
 * moves the time for all, until all of it has settled.
 */
export class Driver {
  readonly #time: VirtualRuntime;
  readonly #underWay = new Set<object>();
  #failure: { readonly error: unknown } | undefined;
  #isDriving = false;

  constructor(time: VirtualRuntime) {
    this.#time = time;
  }

  /** Nothing can be relied on any more: whatever runs now or later rejects with `error`. */
  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  async drive<T>(start: () => T | Promise<T>, { deadlineMs = deadlineMsDefault }: RunOptions = {}): Promise<T> {
    if (!(deadlineMs > 0)) throw new TypeError(`deadlineMs must be above 0, not ${deadlineMs}`);
    const isFirst = !this.#isDriving;
    this.#isDriving = true;
    const work = {};
    this.#underWay.add(work);
    const settled = (): void => void this.#underWay.delete(work);
    // Asynchronous from the start, so that what it throws at once is a rejection, too.
    const promise = (async () => await start())();
    promise.then(settled, settled);
    if (isFirst) await this.#moveTime(deadlineMs);
    return await promise;
  }

  async #moveTime(deadlineMs: number): Promise<void> {
    const isOver = (): boolean => this.#underWay.size === 0 || this.#failure !== undefined;
    try {
      await this.#time.runUntil(isOver, { deadlineMs });
    } catch (cause) {
      if (!isOver()) throw new Error(`what was run did not settle within ${deadlineMs} ms of virtual time`, { cause });
      throw cause;
    } finally {
      this.#underWay.clear();
      this.#isDriving = false;
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Resolves after `ms` milliseconds, what falls due in the last of them included. */
  async advance(ms: number): Promise<void> {
    if (!(ms >= 0)) throw new RangeError(`time moves forward only, got ${ms}`);
    await this.drive(() => new Promise<void>((resolve) => void this.#time.timer(ms, resolve)), { deadlineMs: ms + deadlineMsDefault });
  }

  async until(condition: () => boolean | Promise<boolean>, options?: RunOptions): Promise<void> {
    let isOver = false;
    try {
      await this.drive(async () => {
        while (!isOver && !(await condition())) await new Promise<void>((resolve) => void this.#time.timer(pollMs, resolve));
      }, options);
    } finally {
      isOver = true;
    }
  }
}

const pollMs = 10;
