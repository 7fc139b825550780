import type { Timer } from '@conclave/wire';
import { onAbort } from '../connection/abort.ts';
import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { TimeLimit } from '../connection/time-limit.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import { askWhetherOrdered } from './progress-order.ts';
import type { WatchStream, WatchStreamOwner } from './watch-stream.ts';

const repeatInitialMs = 20;
const repeatMaxMs = 1_000;

interface Question {
  answer(revision: number): void;
  fail(error: ConclaveError): void;
}

/**
 * Asks a server how far one watch is. The watch has its stream to itself: a server speaks of all watches of a stream at once, and says nothing
 * while one of them has not caught up.
 */
export class ProgressQuestions implements WatchStreamOwner {
  readonly #engine: Engine;
  readonly #tell: (revision: number) => number | undefined;
  readonly #backoff: Backoff;
  readonly #questions = new Set<Question>();
  #stream: WatchStream | undefined;
  /** Whether the word of the member at the other end can be believed; undefined: not known yet, or there is none. */
  #isOrdered: boolean | undefined;
  #timer: Timer | undefined;

  /** @param tell told that all up to a revision has come, says up to where it is so; undefined: that cannot be said yet */
  constructor(engine: Engine, tell: (revision: number) => number | undefined) {
    this.#engine = engine;
    this.#tell = tell;
    this.#backoff = new Backoff(engine.runtime, repeatInitialMs, repeatMaxMs);
  }

  /** The stream on which to ask. */
  use(stream: WatchStream): void {
    this.#stream = stream;
  }

  ask(options: RequestOptions | undefined): Promise<number> {
    return new Promise((resolve, reject) => {
      const limit = new TimeLimit(this.#engine, options);
      limit.check();
      const settle = (outcome: () => void): void => {
        if (!this.#questions.delete(question)) return;
        timer?.cancel();
        stopListening?.();
        if (this.#questions.size === 0) this.#timer?.cancel();
        outcome();
      };
      const fail = (error: ConclaveError): void => settle(() => reject(error));
      const question = { fail, answer: (revision: number) => settle(() => resolve(revision)) };
      const { runtime } = this.#engine;
      const { signal, remainingMs } = limit;
      const isTimed = remainingMs !== Number.POSITIVE_INFINITY;
      const timer = isTimed ? runtime.timer(remainingMs, () => fail(limit.exceeded())) : undefined;
      const stopListening = signal === undefined ? undefined : onAbort(signal, () => fail(limit.cancelled()));
      this.#questions.add(question);
      this.#backoff.reset();
      this.#send();
    });
  }

  onStanding(): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    askWhetherOrdered(stream, (isOrdered) => {
      this.#isOrdered = isOrdered;
      this.#send();
    });
  }

  onBroken(): void {
    this.#isOrdered = undefined;
    this.#timer?.cancel();
  }

  onProgress(revision: number): void {
    if (this.#isOrdered !== true || this.#questions.size === 0) return;
    const told = this.#tell(revision);
    if (told !== undefined) for (const question of [...this.#questions]) question.answer(told);
  }

  /** The watch has ended. */
  end(error: ConclaveError): void {
    this.#timer?.cancel();
    for (const question of [...this.#questions]) question.fail(error);
  }

  /** Asks, and again after a while: a server may leave it unanswered. */
  #send(): void {
    this.#timer?.cancel();
    if (this.#questions.size === 0 || this.#isOrdered === undefined) return;
    if (!this.#isOrdered) {
      for (const question of [...this.#questions]) question.fail(unbelievable());
      return;
    }
    this.#stream?.requestProgress();
    this.#timer = this.#engine.runtime.timer(this.#backoff.next(), () => this.#send(), { background: true });
  }
}

function unbelievable(): ConclaveError {
  const message = 'the word of a server before 3.4.25 or 3.5.8 on its progress cannot be believed';
  return new ConclaveError({ code: 'unimplemented', message, outcome: 'not-applied' });
}
