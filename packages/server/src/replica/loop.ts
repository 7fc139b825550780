import type { Runtime } from '@conclave/wire';
import type { Fatal } from './ports.ts';

export interface LoopOptions {
  readonly runtime: Runtime;
  /** Does some of what there is to do. @returns whether there is more */
  readonly round: () => boolean;
  /** Nothing is left for now, or the loop gives way. */
  readonly onRest: () => void;
  /** Told once, when nothing runs any more. */
  readonly onEnd: () => void;
  readonly fatal: Fatal;
}

/** Longest stretch of work before the event loop gets its turn, unless a single round takes longer. */
const sliceMs = 2;

/**
 * Where a replica's work is done: a piece of it, and then in rounds all that follows from it, one at a time. What is thrown in here is the end of the
 * member.
 */
export class Loop {
  readonly #options: LoopOptions;
  #state: 'new' | 'running' | 'ended' = 'new';
  #isTurnQueued = false;
  #isInRounds = false;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  get isNew(): boolean {
    return this.#state === 'new';
  }
  get hasEnded(): boolean {
    return this.#state === 'ended';
  }

  start(): void {
    if (this.#state !== 'new') throw new Error('a replica is started once');
    this.#state = 'running';
  }

  /** Nothing runs any more, and what was put off never will. Idempotent. */
  end(): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#options.onEnd();
  }

  /** Does `work`, and what follows. From within the loop (a log that is durable at once), or before the start, only the work. */
  readonly drive = (work: () => void): void => {
    if (this.#isInRounds || this.#state === 'new') work();
    else if (this.#attempt(work)) this.#rounds();
  };

  /** Does `work` now, and what follows at the end of the turn: for what comes in crowds. */
  take(work: () => void): void {
    if (this.#attempt(work)) this.queueTurn();
  }

  queueTurn(): void {
    if (this.#isTurnQueued || this.#state !== 'running') return;
    this.#isTurnQueued = true;
    this.#options.runtime.endOfTurn(() => {
      this.#isTurnQueued = false;
      if (this.#state === 'running') this.#rounds();
    });
  }

  /** @returns whether the loop goes on */
  #attempt(work: () => void): boolean {
    if (this.#state === 'ended') return false;
    try {
      work();
    } catch (cause) {
      this.fail(cause);
    }
    // The work may have ended it.
    return !this.hasEnded;
  }

  /** Until nothing is left, or the event loop needs its turn. */
  #rounds(): void {
    const { runtime, round, onRest } = this.#options;
    const end = runtime.monotonic() + sliceMs;
    this.#isInRounds = true;
    try {
      let hasMore: boolean;
      do hasMore = round() && !this.hasEnded;
      while (hasMore && runtime.monotonic() < end);
      if (hasMore) this.queueTurn();
      onRest();
    } catch (cause) {
      this.fail(cause);
    } finally {
      this.#isInRounds = false;
    }
  }

  /** A promise cannot be kept any more: ends, and says so to `fatal`. */
  fail(cause: unknown): void {
    if (this.#state === 'ended') return;
    this.end();
    try {
      this.#options.fatal(cause instanceof Error ? cause : new Error(String(cause)));
    } catch {
      // Where the process goes on, `fatal` throws to unwind whoever called it. This is the top of the stack, and the cause has been told.
    }
  }
}
