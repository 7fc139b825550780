import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Maintenance } from '@conclave/protocol';
import { eventually, launchCluster, launchServer, type ProcessCluster, RawClient, type RunningProcess } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';

const transport = grpcTransport({ runtime: systemRuntime() });

export interface SubjectOptions {
  /** The folder that all of it keeps its data in. */
  readonly dir: string;
  readonly environment: Readonly<Record<string, string>>;
}

/** What loses its power: one member, or a whole cluster on one disk. */
export interface Subject extends AsyncDisposable {
  /** On what is in the folder now; resolves when it serves. */
  start(): Promise<void>;
  kill(): Promise<void>;
  /** Something that makes it move whole states about, in the middle of the load; goes on when this returns. */
  disturb(): void;
  /** Whether a member was seen to put another's state in place of its own. */
  readonly hasInstalled: boolean;
  /** One for each member, newly connected. The caller closes them. */
  clients(): readonly RawClient[];
  /** Waits until all members hold the same, and have applied the same. @throws when they never do */
  checkMembersAgree(): Promise<void>;
  /** The folders of the members' logs. */
  readonly logs: readonly string[];
}

export class LoneServer implements Subject {
  readonly logs: readonly string[];
  readonly #options: SubjectOptions;
  #server: RunningProcess | undefined;

  constructor(options: SubjectOptions) {
    this.#options = options;
    this.logs = [join(options.dir, 'data/member/wal')];
  }

  async start(): Promise<void> {
    const { dir, environment } = this.#options;
    if (this.#server === undefined) this.#server = await launchServer({ dataDir: join(dir, 'data'), environment });
    else await this.#server.restart();
  }

  async kill(): Promise<void> {
    await this.#server?.kill();
  }

  readonly hasInstalled = false;

  disturb(): void {
    // Alone there is nobody to bring anything to.
  }

  clients(): readonly RawClient[] {
    return [new RawClient(transport(this.#server?.address ?? ''))];
  }

  checkMembersAgree(): Promise<void> {
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
  }
}

/** Short, so that a cluster that comes back has a leader soon. */
const times = { heartbeatMs: 50, electionMs: 500 };
/** Nobody can catch up by the log who missed more than the last few requests. */
const shortLog = ['--snapshot-count', '20', '--snapshot-catchup-entries', '5'];

export class Cluster implements Subject {
  readonly logs: readonly string[];
  readonly #options: SubjectOptions;
  readonly #size: number;
  #cluster: ProcessCluster | undefined;
  hasInstalled = false;

  constructor(size: number, options: SubjectOptions) {
    this.#options = options;
    this.#size = size;
    this.logs = Array.from({ length: size }, (_, at) => join(options.dir, `m${at + 1}/member/wal`));
  }

  async start(): Promise<void> {
    if (this.#cluster !== undefined) {
      await Promise.all(this.#cluster.members.map((member) => member.restart()));
      return;
    }
    const { dir, environment } = this.#options;
    const member = (name: string): { dataDir: string; environment: Readonly<Record<string, string>> } => ({
      dataDir: join(dir, name),
      environment,
    });
    this.#cluster = await launchCluster({ kind: 'conclave', size: this.#size, ...times, flags: shortLog, member });
  }

  async kill(): Promise<void> {
    await Promise.all(this.#cluster?.members.map((member) => member.kill()) ?? []);
    this.#look();
  }

  /** In turns one member ends, and begins again: by then it has missed so much that it is brought the whole state. */
  disturb(): void {
    this.#look();
    const members = this.#cluster?.members ?? [];
    const ended = members.find((member) => !member.isRunning);
    // It is ended once more with all others, perhaps before it serves again.
    if (ended !== undefined) ended.restart().catch(() => {});
    else void members[Math.floor(Math.random() * members.length)]?.kill();
  }

  clients(): readonly RawClient[] {
    return (this.#cluster?.endpoints ?? []).map((endpoint) => new RawClient(transport(endpoint)));
  }

  async checkMembersAgree(): Promise<void> {
    const clients = this.clients();
    try {
      await eventually('all members hold the same', async () => {
        const hashes = await Promise.all(clients.map((client) => client.unary(Maintenance.methods.hashKv, {})));
        const said = hashes.map(({ response }) => `${response?.hash} ${response?.header?.revision} ${response?.compactRevision}`);
        return said.every((each) => each === said[0]);
      });
    } finally {
      for (const { connection } of clients) connection.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cluster?.[Symbol.asyncDispose]();
  }

  #look(): void {
    this.hasInstalled ||= this.#cluster?.members.some(({ output }) => output.includes('a member has its snapshot')) ?? false;
  }
}

/** Counts log files that are there under another name than before: segments that are used again. */
export class RecycledSegments {
  readonly #names = new Map<string, string>();
  count = 0;

  look(logs: readonly string[]): void {
    for (const dir of logs) {
      if (!existsSync(dir)) continue;
      for (const name of readdirSync(dir)) {
        const inode = `${dir}/${statSync(join(dir, name), { throwIfNoEntry: false })?.ino}`;
        const before = this.#names.get(inode);
        if (before !== undefined && before !== name && !before.endsWith('.tmp')) this.count++;
        this.#names.set(inode, name);
      }
    }
  }

  /** Another disk: its inodes have nothing to do with those before. */
  forget(): void {
    this.#names.clear();
  }
}
