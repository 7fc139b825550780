import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type EtcdLine, etcdBinary, eventually, within } from '@conclave/testkit';

export interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number | null;
}

/** A stock etcdctl, pointed at one server. */
export class Etcdctl {
  readonly #binary: string;
  readonly #address: string;

  constructor(line: EtcdLine, address: string) {
    const binary = etcdBinary(line, 'etcdctl');
    if (binary === undefined) throw new Error(`no etcdctl ${line}`);
    this.#binary = binary;
    this.#address = address;
  }

  /** Runs to the end. */
  async run(args: readonly string[], stdin = '', timeoutMs = 20_000): Promise<Finished> {
    const running = this.start(args);
    // It may have ended already, and does not read.
    if (stdin !== '') running.type(stdin);
    running.closeInput();
    const code = await within(`etcdctl ${args.join(' ')} ends`, running.exited, timeoutMs);
    return { stdout: running.stdout, stderr: running.stderr, code };
  }

  /** Starts what does not end by itself. */
  start(args: readonly string[]): RunningEtcdctl {
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('ETCDCTL_')));
    return new RunningEtcdctl(
      spawn(this.#binary, ['--endpoints', this.#address, ...args], {
        stdio: ['pipe', 'pipe', 'pipe'],
        env: { ...env, ETCDCTL_API: '3' },
      }),
    );
  }
}

export class RunningEtcdctl implements AsyncDisposable {
  stdout = '';
  stderr = '';
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    // `close` comes after the last of the output, `exit` may come before it.
    this.exited = once(child, 'close').then(([code]) => code as number | null);
  }

  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  closeInput(): void {
    this.#child.stdin?.end();
  }

  /** Resolves once `text` was printed. */
  async prints(text: string, timeoutMs?: number): Promise<void> {
    await eventually(
      `etcdctl prints ${JSON.stringify(text)}, so far ${JSON.stringify(this.stdout)}${this.stderr}`,
      () => this.stdout.includes(text),
      timeoutMs,
    );
  }

  /** As Ctrl-C does. */
  async interrupt(): Promise<number | null> {
    this.#child.kill('SIGINT');
    return within('etcdctl ends after SIGINT', this.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }
}
