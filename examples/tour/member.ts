import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

/** One `conclave-server` process on a data dir, on a port of its own choice that it keeps over restarts. */
export class Member {
  readonly #dataDir: string;
  #process: ChildProcess | undefined;
  #port = 0;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  get endpoint(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Resolves when the server says that it is ready. */
  async start(): Promise<void> {
    const url = `http://127.0.0.1:${this.#port}`;
    const flags = ['--data-dir', this.#dataDir, '--listen-client-urls', url, '--advertise-client-urls', url];
    const child = spawn(process.execPath, [serverScript(), ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process = child;
    const log: string[] = [];
    const ready = new Promise<number>((resolve, reject) => {
      createInterface({ input: child.stderr }).on('line', (line) => {
        log.push(line);
        const port = line.includes('ready to serve client requests') ? /127\.0\.0\.1:(\d+)/.exec(line)?.[1] : undefined;
        if (port !== undefined) resolve(Number(port));
      });
      child.once('exit', (code) => reject(new Error(`the server ended with code ${code}:\n${log.join('\n')}`)));
    });
    this.#port = await ready;
  }

  /** As a power switch: SIGKILL, no goodbye. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** As an operator: SIGTERM, the server drains. Resolves with its exit code or signal. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** Lets the process live on after this one. */
  release(): void {
    const stderr = this.#process?.stderr;
    stderr?.destroy();
    this.#process?.unref();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }
}

function serverScript(): string {
  const manifest = createRequire(import.meta.url).resolve('@conclave/server/package.json');
  const { bin } = JSON.parse(readFileSync(manifest, 'utf8')) as { bin: Record<string, string> };
  return join(dirname(manifest), bin['conclave-server'] ?? '');
}
