import type { Timer } from '@conclave/wire';
import type { VirtualRuntime } from '../virtual-runtime.ts';

export interface RunOptions {
  /** How much virtual time it may take, in milliseconds. Default: 600,000. */
  readonly deadlineMs?: number | undefined;
}

const deadlineMsDefault = 600_000;

/** Something that was begun and has not settled. */
interface Work {
  fail: (error: unknown) => void;
}

/**
 * Moves virtual time while there is something to wait for. Work that is begun within other work, or beside it, is driven with it: time moves until
 * all of it has settled, each within its own deadline.
 */
export class Driver {
  readonly #time: VirtualRuntime;
  readonly #underWay = new Set<Work>();
  #failure: { readonly error: unknown } | undefined;
  #isDriving = false;

  constructor(time: VirtualRuntime) {
    this.#time = time;
  }

  /** Nothing can be relied on any more: whatever runs now or later rejects with `error`. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#failAll(error);
  }

  async drive<T>(start: () => T | Promise<T>, { deadlineMs = deadlineMsDefault }: RunOptions = {}): Promise<T> {
    if (!(deadlineMs > 0)) throw new TypeError(`deadlineMs must be above 0, not ${deadlineMs}`);
    if (this.#failure !== undefined) throw this.#failure.error;
    const work: Work = { fail: () => undefined };
    const failed = new Promise<never>((_, reject) => {
      work.fail = reject;
    });
    const deadline = this.#limit(work, deadlineMs);
    this.#underWay.add(work);
    if (!this.#isDriving) void this.#moveTime();
    try {
      // Asynchronous from the start, so that what it throws at once is a rejection, too.
      return await Promise.race([(async () => await start())(), failed]);
    } finally {
      deadline?.cancel();
      this.#underWay.delete(work);
    }
  }

  /** What falls due in the last moment still counts. */
  #limit(work: Work, deadlineMs: number): Timer | undefined {
    if (deadlineMs === Number.POSITIVE_INFINITY) return undefined;
    const giveUp = (): void => work.fail(new Error(`what was run did not settle within ${deadlineMs} ms of virtual time`));
    return this.#time.timer(deadlineMs, () => void this.#time.timer(0, giveUp));
  }

  async #moveTime(): Promise<void> {
    this.#isDriving = true;
    try {
      while (this.#underWay.size > 0) await this.#time.runUntil(() => this.#underWay.size === 0, { deadlineMs: Number.POSITIVE_INFINITY });
    } catch (error) {
      this.#failAll(error);
    } finally {
      this.#isDriving = false;
    }
  }

  #failAll(error: unknown): void {
    for (const work of this.#underWay) work.fail(error);
    this.#underWay.clear();
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
