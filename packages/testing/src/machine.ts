import { type Logger, type Runtime, silentLog, type Timer } from '@conclave/wire';
import { Random } from './random.ts';
import type { VirtualRuntime } from './virtual-runtime.ts';

export interface MachineOptions {
  readonly name: string;
  /** Seeds the chance of everything that runs on it. Default 1. */
  readonly seed?: number;
  /** How fast its clock goes beside the true one: 1.001 gains a millisecond in a second. Timers keep to it. Default 1. */
  readonly clockRate?: number;
  /** Timers fire on whole multiples of this many milliseconds of true time, late rather than early: fewer moments, faster simulations. Default: when due. */
  readonly quantumMs?: number;
  /** Default: discards everything. */
  readonly log?: Logger;
  /** Told of every timer that fires on it, before it does. */
  readonly onTimer?: () => void;
}

/** What networks and disks have to know of a machine's process. */
export interface MachineObserver {
  paused?(): void;
  resumed?(): void;
  /** The process is dead: already none of its timers fires. */
  killed?(): void;
}

/**
 * A machine in virtual time, on which one process runs at a time: {@link boot} starts one, as a `Runtime` to pass to it; {@link kill} ends it at once.
 * What a dead process still waits for never comes: none of its timers fires, and nothing is delivered to it. A process can also be paused, as by
 * SIGSTOP: the clocks go on, and everything that falls due meanwhile waits until {@link resume}.
 *
 * @example
 * const time = new VirtualRuntime({ seed: 7 });
 * const machine = new Machine(time, { name: 'm1' });
 * const server = await time.run(startServer({ runtime: machine.boot() }));
 * machine.kill(); // as by a power cut
 */
export class Machine {
  readonly name: string;
  readonly #time: VirtualRuntime;
  readonly #options: MachineOptions;
  readonly #random: Random;
  #wallSteps = 0;
  #process: Process | undefined;
  /** What fell due while paused, in order. */
  #held: (() => void)[] | undefined;
  readonly #observers: MachineObserver[] = [];

  constructor(time: VirtualRuntime, options: MachineOptions) {
    this.name = options.name;
    this.#time = time;
    this.#options = options;
    this.#random = new Random(options.seed ?? 1);
  }

  get isUp(): boolean {
    return this.#process !== undefined;
  }

  /** What {@link boot} gave to the process that runs now. */
  get process(): Runtime | undefined {
    return this.#process;
  }

  get isPaused(): boolean {
    return this.#held !== undefined;
  }

  /** Starts a process. The one before is dead, if it was not. */
  boot(): Runtime {
    this.kill();
    this.#process = new Process(this);
    return this.#process;
  }

  /** Time, timers and chance of whatever process runs at the moment: for what belongs to the machine, such as its disk. */
  asRuntime(): Runtime {
    return {
      monotonic: () => this.monotonic(),
      boot: () => this.bootTime(),
      wall: () => this.wall(),
      timer: (delayMs, callback) => this.#process?.timer(delayMs, callback) ?? { cancel() {} },
      endOfTurn: (callback) => this.#process?.endOfTurn(callback),
      random: () => this.random(),
      log: this.#options.log ?? silentLog,
    };
  }

  kill(): void {
    if (this.#process === undefined) return;
    this.#process = undefined;
    this.#held = undefined;
    for (const observer of this.#observers) observer.killed?.();
  }

  pause(): void {
    if (!this.isUp || this.isPaused) return;
    this.#held = [];
    for (const observer of this.#observers) observer.paused?.();
  }

  resume(): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    const process = this.#process;
    for (const callback of held) this.#time.timer(0, () => this.#runIn(process, callback));
    for (const observer of this.#observers) observer.resumed?.();
  }

  /** `observer` is told what happens to the processes of this machine, before the caller of {@link kill} and the others goes on. */
  observe(observer: MachineObserver): void {
    this.#observers.push(observer);
  }

  /** Steps the wall clock alone, forward or back, as an operator or a time daemon does. */
  stepWall(ms: number): void {
    if (!Number.isFinite(ms)) throw new TypeError(`a clock is stepped by a number of milliseconds, not ${ms}`);
    this.#wallSteps += ms;
  }

  /**
   * Something arrives at the process that runs now, from a disk or a network, `delayMs` milliseconds of true time from now: it is lost if that process
   * is dead by then, and waits while it is paused.
   */
  arrive(delayMs: number, callback: () => void): void {
    const process = this.#process;
    if (process !== undefined) this.#time.timer(delayMs, () => this.#runIn(process, callback));
  }

  /** @internal */
  monotonic(): number {
    return this.#time.monotonic() * (this.#options.clockRate ?? 1);
  }

  /** @internal */
  bootTime(): number {
    return this.#time.boot() * (this.#options.clockRate ?? 1);
  }

  /** @internal */
  wall(): number {
    return this.#time.wall() + this.#wallSteps;
  }

  /** @internal A dead process writes no log. */
  logOf(process: Process): Logger {
    return this.#process === process ? (this.#options.log ?? silentLog) : silentLog;
  }

  /** @internal */
  random(): number {
    return this.#random.next();
  }

  /** @internal */
  timer(process: Process, delayMs: number, callback: () => void): Timer {
    const { clockRate = 1, quantumMs = 0, onTimer } = this.#options;
    let isCancelled = false;
    const fire = (): void => {
      // It may have been cancelled while the process was paused.
      if (isCancelled) return;
      onTimer?.();
      callback();
    };
    const timer = this.#time.timer(this.#quantized(delayMs / clockRate, quantumMs), () => this.#runIn(process, fire));
    return {
      cancel: () => {
        isCancelled = true;
        timer.cancel();
      },
    };
  }

  /** @internal */
  endOfTurn(process: Process, callback: () => void): void {
    if (this.#process === process) this.#time.endOfTurn(() => this.#runIn(process, callback));
  }

  #quantized(delayMs: number, quantumMs: number): number {
    if (!(quantumMs > 0)) return delayMs;
    const now = this.#time.monotonic();
    // A hair below a multiple is that multiple.
    return Math.ceil((now + Math.max(0, delayMs)) / quantumMs - 1e-6) * quantumMs - now;
  }

  #runIn(process: Process | undefined, callback: () => void): void {
    if (process === undefined || this.#process !== process) return;
    if (this.#held === undefined) callback();
    else this.#held.push(callback);
  }
}

class Process implements Runtime {
  readonly log: Logger;
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.log = {
      debug: (fields, message) => machine.logOf(this).debug(fields, message),
      info: (fields, message) => machine.logOf(this).info(fields, message),
      warn: (fields, message) => machine.logOf(this).warn(fields, message),
      error: (fields, message) => machine.logOf(this).error(fields, message),
    };
  }

  monotonic(): number {
    return this.#machine.monotonic();
  }

  boot(): number {
    return this.#machine.bootTime();
  }

  wall(): number {
    return this.#machine.wall();
  }

  random(): number {
    return this.#machine.random();
  }

  timer(delayMs: number, callback: () => void): Timer {
    return this.#machine.timer(this, delayMs, callback);
  }

  endOfTurn(callback: () => void): void {
    this.#machine.endOfTurn(this, callback);
  }
}
