import { allKeys, KV, Lease, type LeaseKeepAliveRequest, type LeaseKeepAliveResponse } from '@conclave/protocol';
import { launchEtcd, launchServer, RawClient, type RawStream, type RunningProcess } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { bump, type Call, type Command, call, describeCommand, type Position, streams } from './random-command.ts';
import { shown } from './shown.ts';
import { WatchLog } from './watch-log.ts';

const transport = grpcTransport({ runtime: systemRuntime() });
const lastsMs = 1_200_000;
/** A watcher on every key that no command cancels: a stream without watchers answers no progress request. */
const baseWatchId = 1_000n;

/** One of the two servers, with the one connection everything goes over. */
class Side implements AsyncDisposable {
  readonly process: RunningProcess;
  readonly client: RawClient;
  readonly keepAlive: RawStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>;

  constructor(process: RunningProcess) {
    this.process = process;
    this.client = new RawClient(transport(process.address));
    this.keepAlive = this.client.stream(Lease.methods.leaseKeepAlive, { timeoutMs: lastsMs });
  }

  /** The answer, and what the process printed if it is one of a process that ended. */
  lastWords(answer: string): string {
    return answer.startsWith('14 ') ? `${answer}\n${this.process.output.slice(0, 2_000)}` : answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.connection.close();
    await this.process[Symbol.asyncDispose]();
  }
}

/** Both answered, and not the same. */
export class DifferenceError extends Error {
  constructor(what: string, ours: string, etcds: string) {
    super(`${what}\n  ours: ${ours}\n  etcd: ${etcds}`);
    this.name = 'DifferenceError';
  }
}

/** Our server and etcd, sent the same commands in the same order: their revisions stay equal, so one position holds for both. */
export class Pair implements AsyncDisposable {
  readonly #ours: Side;
  readonly #etcd: Side;
  #position: Position = { revision: 1, compacted: 0 };

  private constructor(ours: Side, etcd: Side) {
    this.#ours = ours;
    this.#etcd = etcd;
  }

  static async start(): Promise<Pair> {
    const [ours, etcd] = await Promise.all([launchServer(), launchEtcd({ version: '3.5' })]);
    return new Pair(new Side(ours), new Side(etcd));
  }

  get versions(): string {
    return `${this.#ours.process.name} beside ${this.#etcd.process.name}`;
  }

  get position(): Position {
    return this.#position;
  }

  /** Sends the call to both and compares. */
  async send(one: Call): Promise<void> {
    const [ours, etcds] = await this.both((side) => one.send(side.client));
    if (ours.shown !== etcds.shown)
      throw new DifferenceError(one.what, this.#ours.lastWords(ours.shown), this.#etcd.lastWords(etcds.shown));
    const compacted = one.compactsTo !== undefined && etcds.revision > 0 ? one.compactsTo : this.#position.compacted;
    this.#position = { revision: Math.max(this.#position.revision, etcds.revision), compacted };
  }

  /** One reply of the open LeaseKeepAlive stream. */
  async keepAlive(id: bigint): Promise<void> {
    const [ours, etcds] = await this.both(async ({ keepAlive }) => {
      keepAlive.send({ id });
      return shown(await keepAlive.next());
    });
    if (ours !== etcds) throw new DifferenceError(`keep alive ${id}`, ours, etcds);
  }

  /** A lease too short to outlast the sequence, so it is revoked at once. Of an id the server chose only the sign is compared. */
  async passingLease(id: bigint, ttl: number): Promise<void> {
    const { leaseGrant, leaseRevoke } = Lease.methods;
    const [ours, etcds] = await this.both(async ({ client }) => {
      const granted = await client.unary(leaseGrant, { id, ttl });
      const grantedId = granted.response?.id ?? 0n;
      const end = granted.code === 0 ? await client.unary(leaseRevoke, { id: grantedId }) : granted;
      const chosen = id === 0n && grantedId > 0n ? 'a positive id' : grantedId;
      return shown([granted.code, granted.message, chosen, granted.response?.ttl, end.code, end.message, end.response]);
    });
    if (ours !== etcds) throw new DifferenceError(`a lease of ${ttl} s with id ${id}, granted and revoked`, ours, etcds);
    // Revoking deletes keys if the id was reused; nothing told the new revision but the revoke.
    await this.send(call(KV.methods.range, { key: allKeys().key, countOnly: true }));
  }

  async both<T>(act: (side: Side) => Promise<T>): Promise<[T, T]> {
    return Promise.all([act(this.#ours), act(this.#etcd)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#ours[Symbol.asyncDispose](), this.#etcd[Symbol.asyncDispose]()]);
  }
}

/** The same Watch stream on both servers. */
class WatchPair implements Disposable {
  readonly #pair: Pair;
  readonly #logs: readonly [WatchLog, WatchLog];
  #furthestStart = 0;
  /** A watcher may have been created at the present revision. */
  #isYoung = false;

  private constructor(pair: Pair, logs: readonly [WatchLog, WatchLog]) {
    this.#pair = pair;
    this.#logs = logs;
  }

  static async open(pair: Pair): Promise<WatchPair> {
    const opened = new WatchPair(pair, await pair.both(async ({ process, client }) => new WatchLog(process.name, client)));
    await opened.create({ ...allKeys(), watchId: baseWatchId, prevKv: true });
    return opened;
  }

  async create(request: Parameters<WatchLog['create']>[0]): Promise<void> {
    const [ours, etcds] = await this.#each((log) => log.create(request));
    if (shown(ours) !== shown(etcds)) throw new DifferenceError(`watch ${shown(request)}`, shown(ours), shown(etcds));
    this.#isYoung = true;
    if (etcds === undefined || etcds.canceled) return;
    const start = request.startRevision ?? 0;
    this.#furthestStart = Math.max(this.#furthestStart, start);
    if (start > 0 && start < this.#pair.position.compacted) await this.#endCompacted(etcds.watchId);
  }

  /** What a canceled watcher was still owed is chance, so nothing may be owed. */
  async cancel(watchId: bigint): Promise<void> {
    await this.settle();
    await this.#each((log) => log.cancel(watchId));
    this.#compare(`watches after the cancel of ${watchId}`);
  }

  async progress(): Promise<void> {
    await this.#each(async (log) => log.askProgress());
  }

  /** Returns when all events are there, and equal. Moves the revision on past new watchers, and to one a watcher waits for: else progress tells nothing. */
  async settle(): Promise<void> {
    if (this.#isYoung) await this.#pair.send(bump());
    this.#isYoung = false;
    while (this.#pair.position.revision < this.#furthestStart) await this.#pair.send(bump());
    await this.#each((log) => log.settle(this.#pair.position.revision));
    this.#compare('watches');
  }

  [Symbol.dispose](): void {
    for (const log of this.#logs) log[Symbol.dispose]();
  }

  async #each<T>(act: (log: WatchLog) => Promise<T>): Promise<[T, T]> {
    return Promise.all([act(this.#logs[0]), act(this.#logs[1])]);
  }

  /** etcd holds a watcher it canceled itself for one that is behind, and tells no progress, until the client cancels it too. */
  async #endCompacted(watchId: bigint): Promise<void> {
    await this.#each((log) => log.compacted(watchId));
    await this.#each((log) => log.cancel(watchId));
    this.#compare(`watch ${watchId} from before the compacted revision`);
  }

  #compare(what: string): void {
    const [ours, etcds] = [this.#logs[0].told(), this.#logs[1].told()];
    for (let at = 0; at < Math.max(ours.length, etcds.length); at++) {
      if (ours[at] === etcds[at]) continue;
      throw new DifferenceError(`${what}, line ${at} of ${ours.length} and ${etcds.length}`, around(ours, at), around(etcds, at));
    }
  }
}

/** Sends one sequence. `onCommand` is told each command before it is sent. */
export async function runSequence(
  pair: Pair,
  sequence: readonly ((position: Position) => Command)[],
  onCommand: (told: string) => void,
): Promise<void> {
  const watches: WatchPair[] = [];
  try {
    for (let at = 0; at < streams; at++) watches.push(await WatchPair.open(pair));
    for (const make of sequence) {
      const one = make(pair.position);
      onCommand(describeCommand(one));
      await runCommand(pair, watches, one);
    }
    for (const watch of watches) await watch.settle();
  } finally {
    for (const watch of watches) watch[Symbol.dispose]();
  }
}

async function runCommand(pair: Pair, watches: readonly WatchPair[], one: Command): Promise<void> {
  if (one.kind === 'call') {
    if (one.settlesFirst) for (const watch of watches) await watch.settle();
    return pair.send(one);
  }
  if (one.kind === 'keepAlive') return pair.keepAlive(one.id);
  if (one.kind === 'passingLease') return pair.passingLease(one.id, one.ttl);
  const watch = watches[one.stream];
  if (one.kind === 'watch') return watch?.create(one.request);
  if (one.kind === 'cancel') return watch?.cancel(one.watchId);
  return watch?.progress();
}

function around(lines: readonly string[], at: number): string {
  return lines.slice(at, at + 3).join('\n        ') || 'nothing more';
}
