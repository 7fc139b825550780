import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** A process of the tour, and what it says. */
export class Actor<Saying extends object> {
  readonly #process: ChildProcess;
  readonly #sayings: Saying[] = [];
  #listener: (() => void) | undefined;
  #hasEnded = false;

  constructor(file: string, args: readonly string[]) {
    this.#process = fork(fileURLToPath(new URL(file, import.meta.url)), args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.#process.on('message', (saying) => {
      this.#sayings.push(saying as Saying);
      this.#listener?.();
    });
    this.#process.once('exit', () => {
      this.#hasEnded = true;
      this.#listener?.();
    });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** The first saying that fits, from the beginning on; rejects if the process ends without it. */
  async hears<Wanted extends Saying>(fits: (saying: Saying) => saying is Wanted): Promise<Wanted> {
    for (;;) {
      const found = this.#sayings.find(fits);
      if (found !== undefined) return found;
      if (this.#hasEnded) throw new Error(`process ${this.pid} ended with code ${this.#process.exitCode} before it said what was expected`);
      await new Promise<void>((resolve) => {
        this.#listener = resolve;
      });
    }
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.#hasEnded) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill(signal);
    await exited;
  }

  async ended(): Promise<number | null> {
    if (!this.#hasEnded) await once(this.#process, 'exit');
    return this.#process.exitCode;
  }
}
