import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

export interface MemberPlace {
  readonly name: string;
  readonly dataDir: string;
  readonly clientPort: number;
  readonly peerUrl: string;
  /** etcd's `--initial-cluster`: `name=url,...` */
  readonly initialCluster: string;
}

/** One `conclave-server` process, a member of a cluster. It keeps its data dir and its ports over restarts. */
export class Member {
  readonly #place: MemberPlace;
  #process: ChildProcess | undefined;

  constructor(place: MemberPlace) {
    this.#place = place;
  }

  get name(): string {
    return this.#place.name;
  }

  get endpoint(): string {
    return `127.0.0.1:${this.#place.clientPort}`;
  }

  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Resolves when the server says that it is ready. */
  async start(): Promise<void> {
    const { name, dataDir, clientPort, peerUrl, initialCluster } = this.#place;
    const url = `http://127.0.0.1:${clientPort}`;
    const flags = [
      ...['--name', name, '--data-dir', dataDir, '--initial-cluster', initialCluster],
      ...['--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
    ];
    const child = spawn(process.execPath, [serverScript(), ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process = child;
    const log: string[] = [];
    const ready = new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stderr }).on('line', (line) => {
        log.push(line);
        if (line.includes('ready to serve client requests')) resolve();
      });
      child.once('exit', (code) => reject(new Error(`the server ended with code ${code}:\n${log.join('\n')}`)));
    });
    await ready;
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
