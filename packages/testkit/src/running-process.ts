import { type ChildProcess, spawn } from 'node:child_process';
import { within } from './condition.ts';
import { ScratchDir } from './scratch-dir.ts';

export interface ProcessExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A server in a process of its own, with a data dir that outlives the process and not this object. */
export interface RunningProcess extends AsyncDisposable {
  /** For people: `etcd 3.5.30`, `conclave-server`. */
  readonly name: string;
  /** The etcd release whose behaviour is to be expected, as `major.minor.patch`. */
  readonly version: string;
  /** `host:port` of the client door. The same after a restart. */
  readonly address: string;
  /** `http://host:port`, or `https://` where it speaks TLS. */
  readonly clientUrl: string;
  readonly dataDir: string;
  readonly pid: number;
  /** The last 64 KiB of what it printed, since the first start. */
  readonly output: string;
  /** Resolves when the present process ends, whoever ended it. */
  readonly exited: Promise<ProcessExit>;
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM, then waits for the end. */
  stop(): Promise<ProcessExit>;
  /** SIGKILL, then waits for the end. */
  kill(): Promise<ProcessExit>;
  /** Kills what still runs and starts again on the same data dir and address; resolves when ready. `flags` replace the ones given before. */
  restart(flags?: readonly string[]): Promise<void>;
}

/** How one kind of server is started. */
export interface ProcessRecipe {
  readonly name: string;
  readonly version: string;
  /** Default: `http`. */
  readonly scheme?: 'http' | 'https' | undefined;
  /** The command line for a start at `port`; 0 asks the server to choose, which it must then tell `readyAt`. */
  command(dataDir: string, port: number, flags: readonly string[]): readonly string[];
  /** The port for the first start. */
  firstPort(): Promise<number>;
  /** Where the data goes, if not into a new temporary directory; whoever names it removes it. */
  readonly dataDir?: string | undefined;
  /** Variables beside those of this process. */
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** Resolves with the port once the server serves. Called right after the spawn. */
  readyAt(child: ChildProcess, port: number): Promise<number>;
}

const outputKept = 64 * 1024;
const readyWithinMs = 30_000;
const live = new Set<ChildProcess>();

process.on('exit', () => {
  for (const child of live) child.kill('SIGKILL');
});

export async function launch(recipe: ProcessRecipe, flags: readonly string[] = []): Promise<RunningProcess> {
  const launched = new LaunchedProcess(recipe, flags);
  try {
    await launched.start();
  } catch (error) {
    await launched[Symbol.asyncDispose]();
    throw error;
  }
  return launched;
}

class LaunchedProcess implements RunningProcess {
  readonly #recipe: ProcessRecipe;
  readonly #dir: ScratchDir;
  #flags: readonly string[];
  #port = 0;
  #child: ChildProcess | undefined;
  #exited: Promise<ProcessExit> = Promise.resolve({ code: 0, signal: null });
  #output = '';

  constructor(recipe: ProcessRecipe, flags: readonly string[]) {
    this.#recipe = recipe;
    this.#flags = flags;
    this.#dir = new ScratchDir(recipe.name.split(' ')[0] ?? 'server');
  }

  get name(): string {
    return this.#recipe.name;
  }
  get version(): string {
    return this.#recipe.version;
  }
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }
  get clientUrl(): string {
    return `${this.#recipe.scheme ?? 'http'}://${this.address}`;
  }
  get dataDir(): string {
    return this.#recipe.dataDir ?? `${this.#dir.path}/data`;
  }
  get pid(): number {
    return this.#child?.pid ?? 0;
  }
  get output(): string {
    return this.#output;
  }
  get exited(): Promise<ProcessExit> {
    return this.#exited;
  }

  async start(): Promise<void> {
    if (this.#port === 0) this.#port = await this.#recipe.firstPort();
    const [file, ...args] = this.#recipe.command(this.dataDir, this.#port, this.#flags);
    if (file === undefined) throw new Error('an empty command');
    const env = { ...cleanEnvironment(), ...this.#recipe.environment };
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: this.#dir.path, env });
    live.add(child);
    this.#child = child;
    this.#exited = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#keep(String(error));
        resolve({ code: 127, signal: null });
      });
      child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    void this.#exited.then(() => live.delete(child));
    for (const pipe of [child.stdout, child.stderr]) pipe?.setEncoding('utf8').on('data', (text: string) => this.#keep(text));
    const gone = this.#exited.then(({ code, signal }) => {
      throw new Error(`${this.name} ended (code ${code}, signal ${signal}) before it was ready:\n${this.#output}`);
    });
    try {
      this.#port = await within(`${this.name} is ready`, Promise.race([this.#recipe.readyAt(child, this.#port), gone]), readyWithinMs);
    } catch (error) {
      throw new Error(`${this.name} did not start:\n${this.#output}`, { cause: error });
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  stop(): Promise<ProcessExit> {
    this.signal('SIGTERM');
    return within(`${this.name} ends after SIGTERM`, this.#exited, readyWithinMs);
  }

  kill(): Promise<ProcessExit> {
    this.signal('SIGKILL');
    return this.#exited;
  }

  async restart(flags: readonly string[] = this.#flags): Promise<void> {
    this.#flags = flags;
    await this.kill();
    await this.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    this.#dir[Symbol.dispose]();
  }

  #keep(text: string): void {
    this.#output = (this.#output + text).slice(-outputKept);
  }
}

/** Nothing of the surroundings may configure a server under test. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(ETCD|ETCDCTL|CONCLAVE|NODE|VITEST)/.test(name)));
}
