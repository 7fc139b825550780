import { type Logger, type Runtime, silentLog, type Timer } from '@conclave/wire';
import { Random } from './random.ts';
import { TimerQueue } from './timer-queue.ts';

export interface VirtualRuntimeOptions {
  /** Seeds {@link VirtualRuntime.random}. Default 1. */
  readonly seed?: number;
  /** What the wall clock shows at the start, in milliseconds since 1970-01-01. Default 2000-01-01T00:00:00Z. */
  readonly wall?: number;
  /** Default: discards everything. */
  readonly log?: Logger;
  /**
   * Timers that are due at the same moment share a turn of the loop: what was queued with `endOfTurn` runs after all of them, as it does where packets
   * arrive together. Default: false, every timer has a turn of its own.
   */
  readonly sharesTurns?: boolean;
}

export interface VirtualRunOptions {
  /** Give up after this many virtual milliseconds. Default 60,000. */
  readonly deadlineMs?: number;
}

/**
 * Time that moves only when a test moves it. Everything that takes its time, its chance and its timers from this object runs on one thread, as
 * fast as the processor allows, and the same way for the same seed.
 *
 * Between two timers the runtime *settles*: it yields one real macrotask, so that every promise reaction that can run has run (reactions queued
 * by reactions included), then runs what was queued with `endOfTurn`, and repeats until neither is left. Only then does time move, straight to
 * the next timer. Real I/O (a socket, a file read through the thread pool) is not waited for: whatever runs in virtual time must do its I/O
 * through simulated ports.
 *
 * An exception thrown by a timer or by an end-of-turn callback rejects the `advance` or `runUntil` that was driving.
 *
 * @example
 * ```ts
 * const runtime = new VirtualRuntime({ seed: 7 });
 * let fired = false;
 * runtime.timer(5_000, () => { fired = true; });
 * await runtime.advance(5_000); // fired is true, no real second has passed
 * runtime.suspend(60_000); // a closed lid
 * runtime.stepWall(-1_000); // a time daemon
 * console.log(runtime.monotonic(), runtime.boot(), new Date(runtime.wall())); // 5000 65000 …
 * runtime.endOfTurn(() => console.log(runtime.random()));
 * await runtime.runUntil(() => fired);
 * const later = new Promise((resolve) => void runtime.timer(1_000, () => resolve('done')));
 * console.log(await runtime.run(later)); // done
 * ```
 */
export class VirtualRuntime implements Runtime {
  readonly log: Logger;
  readonly #random: Random;
  readonly #timers = new TimerQueue();
  readonly #wallAtStart: number;
  #turn: (() => void)[] = [];
  #now = 0;
  #suspended = 0;
  #wallSteps = 0;
  #seq = 0;
  #isDriven = false;
  readonly #sharesTurns: boolean;

  constructor(options: VirtualRuntimeOptions = {}) {
    this.#random = new Random(options.seed ?? 1);
    this.#wallAtStart = options.wall ?? 946_684_800_000;
    this.log = options.log ?? silentLog;
    this.#sharesTurns = options.sharesTurns ?? false;
  }

  monotonic(): number {
    return this.#now;
  }

  boot(): number {
    return this.#now + this.#suspended;
  }

  wall(): number {
    return this.#wallAtStart + this.boot() + this.#wallSteps;
  }

  random(): number {
    return this.#random.next();
  }

  /** A timer with a delay below 0 is due at once, that is: in the next timer step, never inside this call. */
  timer(delayMs: number, callback: () => void): Timer {
    if (!Number.isFinite(delayMs)) throw new RangeError(`a timer needs a finite delay, got ${delayMs}`);
    const timer = { due: this.#now + Math.max(0, delayMs), seq: this.#seq++, callback, isCancelled: false };
    this.#timers.push(timer);
    return { cancel: () => this.#timers.cancel(timer) };
  }

  endOfTurn(callback: () => void): void {
    this.#turn.push(callback);
  }

  /** How many timers wait. */
  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Moves time by `ms` milliseconds, firing every timer that falls due on the way, each at its own moment. */
  async advance(ms: number): Promise<void> {
    if (!(ms >= 0)) throw new RangeError(`time moves forward only, got ${ms}`);
    const target = this.#now + ms;
    await this.#drive(() => {
      if (this.#fireNext(target)) return false;
      this.#now = target;
      return true;
    });
  }

  /**
   * Moves time from timer to timer until `condition` holds; it is asked once everything has settled. Rejects when the deadline passes first, or
   * when no timer is left that could ever make it true.
   */
  async runUntil(condition: () => boolean, options: VirtualRunOptions = {}): Promise<void> {
    const allowed = options.deadlineMs ?? 60_000;
    const deadline = this.#now + allowed;
    await this.#drive(() => {
      if (condition()) return true;
      if (this.#fireNext(deadline)) return false;
      const isIdle = this.#timers.peek() === undefined;
      this.#now = isIdle ? this.#now : deadline;
      throw new Error(
        isIdle ? 'the condition does not hold and nothing is left to happen' : `the condition did not hold within ${allowed} ms`,
      );
    });
  }

  /** Moves time until the promise has settled, and returns or throws what it did. */
  async run<T>(promise: Promise<T>, options: VirtualRunOptions = {}): Promise<T> {
    let isSettled = false;
    const settled = (): void => {
      isSettled = true;
    };
    promise.then(settled, settled);
    await this.runUntil(() => isSettled, options);
    return promise;
  }

  /** Steps the wall clock alone, forward or back, as an operator or a time daemon does. */
  stepWall(ms: number): void {
    if (!Number.isFinite(ms)) throw new TypeError(`a clock is stepped by a number of milliseconds, not ${ms}`);
    this.#wallSteps += ms;
  }

  /** The machine sleeps for `ms` milliseconds: the boot and the wall clock move, the monotonic clock and every timer stand still. */
  suspend(ms: number): void {
    if (!(ms >= 0)) throw new RangeError(`time moves forward only, got ${ms}`);
    this.#suspended += ms;
  }

  /** Settles, then takes a step, again and again until the step says that it was the last. */
  #drive(step: () => boolean): Promise<void> {
    if (this.#isDriven) throw new Error('this runtime is already being advanced: await the other call first');
    this.#isDriven = true;
    return new Promise<void>((resolve, reject) => {
      const settle = new Settling(() => this.#endTurn());
      const go = (): void => {
        try {
          let isLast = false;
          while (!isLast && settle.isSettled()) isLast = step();
          if (isLast) resolve();
          else setImmediate(go);
        } catch (error) {
          reject(error);
        }
      };
      setImmediate(go);
    }).finally(() => {
      this.#isDriven = false;
    });
  }

  /** Fires the next timer if it is due by `limit`. */
  #fireNext(limit: number): boolean {
    const next = this.#timers.peek();
    if (next === undefined || next.due > limit) return false;
    this.#timers.shift();
    this.#now = next.due;
    next.callback();
    return true;
  }

  /** Runs what was queued with `endOfTurn`, if the turn is over. False: it goes on, or nothing was queued. */
  #endTurn(): boolean {
    if (this.#turn.length === 0) return false;
    if (this.#sharesTurns && this.#timers.peek()?.due === this.#now) return false;
    const turn = this.#turn;
    this.#turn = [];
    for (const callback of turn) callback();
    return true;
  }
}

/**
 * Promise reactions and ends of turns, until neither is left. Where the platform can run promise reactions on demand this takes no macrotask; one
 * is taken now and then all the same, for what only a turn of the real loop does.
 */
class Settling {
  readonly #endTurn: () => boolean;
  #rounds = 0;
  #sinceMacrotask = 0;

  constructor(endTurn: () => boolean) {
    this.#endTurn = endTurn;
  }

  /** False: call again in the next macrotask. */
  isSettled(): boolean {
    for (;;) {
      const isDrained = this.#sinceMacrotask === 0 || drainReactions();
      this.#sinceMacrotask += 1;
      if (!isDrained || this.#sinceMacrotask > maxStepsPerMacrotask) {
        this.#sinceMacrotask = 0;
        return false;
      }
      if (!this.#endTurn()) break;
      this.#rounds += 1;
      if (this.#rounds > maxRounds) {
        throw new Error(`endOfTurn callbacks kept queueing each other for ${maxRounds} rounds: time cannot move`);
      }
    }
    this.#rounds = 0;
    return true;
  }
}

const maxRounds = 100_000;
const maxStepsPerMacrotask = 1_000;

/** Runs all promise reactions that can run. False where that cannot be asked for: they run before the next macrotask. */
const drainReactions: () => boolean = reactionsOnDemand();

// Five times faster than a macrotask, which is most of what a simulated event costs. It is no documented part of Node: where it is missing, or this is
// no Node, virtual time is only slower.
function reactionsOnDemand(): () => boolean {
  const drain = (process as { _tickCallback?: unknown })._tickCallback;
  if (typeof drain !== 'function') return () => false;
  return () => {
    drain.call(process);
    return true;
  };
}
