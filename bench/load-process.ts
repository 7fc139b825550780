import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { SubjectName } from './subjects.ts';
import type { Order, Outcome } from './workload.ts';

/** A client in a process of its own, so that its CPU time is its own. */
export class LoadProcess implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(subject: SubjectName, address: string): Promise<LoadProcess> {
    const child = fork(fileURLToPath(new URL('./load.ts', import.meta.url)), [subject, address]);
    const [message] = (await once(child, 'message')) as [{ ready?: boolean }];
    if (message.ready !== true) throw new Error(`the client ${subject} did not start`);
    return new LoadProcess(child);
  }

  async perform(order: Order): Promise<Outcome> {
    const answer = once(this.#child, 'message') as Promise<[{ outcome?: Outcome; error?: string }]>;
    this.#child.send(order);
    const [{ outcome, error }] = await answer;
    if (outcome === undefined) throw new Error(`${order.workload}: ${error}`);
    return outcome;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.disconnect();
    await gone;
  }
}
