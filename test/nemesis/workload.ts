import { lock } from '@conclave/recipes';
import { type Client, connect, del, isConclaveError, key, list, prefix, put } from '@conclave/sdk';
import { eventually, type FencedWrite, type History, HistoryRecorder, recordingTransport } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { LeaseUser } from './lease-user.ts';
import { WatchedStore } from './watched-store.ts';

export interface WorkloadOptions {
  /** Bytes each value is longer than it must be to be unique. */
  readonly padding?: number;
  /** Revisions of history that are kept; older ones are compacted away while the load runs. Default: 500. */
  readonly historyKept?: number;
  /** How long each caller of keys rests between two calls, at most, in milliseconds. Default: 8. */
  readonly restMs?: number;
}

export interface Tally {
  readonly ok: number;
  /** Of these, changes. */
  readonly changes: number;
  readonly failed: number;
}

const deadlineMs = 2000;
const keyCount = 10;
const contenders = 3;
const lockName = 'lock/one';
const transport = grpcTransport({ runtime: systemRuntime() });

/**
 * Clients that use a cluster as services would, through the SDK and its recipes, and write down what they ask and are told: keys, transactions, leases,
 * watches and a lock with fencing. Every member has a client that talks to it alone, so that a member that is cut off is still asked.
 */
export class Workload {
  readonly #recorder = new HistoryRecorder();
  readonly #options: Required<WorkloadOptions>;
  readonly #loops: Promise<void>[] = [];
  readonly #pinned = new Map<string, { readonly client: Client; readonly watched: WatchedStore; readonly stop: AbortController }>();
  readonly #stop = new AbortController();
  readonly #closers: (() => Promise<void>)[] = [];
  readonly #changed = new Map<string, number>();
  #endpoints: readonly string[] = [];
  #fencedAt = 0n;
  #clients = 0;
  #written = 0;
  #ok = 0;
  #changes = 0;
  #failed = 0;
  #revision = 0n;

  constructor(options: WorkloadOptions = {}) {
    this.#options = { padding: 0, historyKept: 500, restMs: 8, ...options };
  }

  get tally(): Tally {
    return { ok: this.#ok, changes: this.#changes, failed: this.#failed };
  }

  /** Clients that know all members: of the lock, of leases, and the one that compacts. Then one for each member. */
  async start(endpoints: readonly string[]): Promise<void> {
    this.#endpoints = endpoints;
    for (let at = 0; at < contenders; at++)
      this.#run(this.#contend(new AnyMember(() => this.#connect(this.#endpoints)), `contender ${at}`));
    const leaseUser = new LeaseUser(transport, () => this.#endpoints, { recorder: this.#recorder, client: ++this.#clients, now });
    this.#run(leaseUser.run(this.#stop.signal));
    this.#run(this.#compact(new AnyMember(() => this.#connect(this.#endpoints))));
    for (const endpoint of endpoints) await this.addMember(endpoint);
  }

  async addMember(endpoint: string): Promise<void> {
    if (!this.#endpoints.includes(endpoint)) this.#endpoints = [...this.#endpoints, endpoint];
    const client = await this.#connect([endpoint]);
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, this.#stop.signal]);
    // Of everything: what a call without an answer did is known then, and the checker need not search for it.
    const watched = new WatchedStore(client, { recorder: this.#recorder, client: this.#clients, now });
    this.#pinned.set(endpoint, { client, watched, stop });
    for (let at = 0; at < 2; at++) this.#run(this.#useKeys(client, endpoint, `${this.#clients}.${at}`, signal));
  }

  removeMember(endpoint: string): void {
    this.#endpoints = this.#endpoints.filter((one) => one !== endpoint);
    const pinned = this.#pinned.get(endpoint);
    this.#pinned.delete(endpoint);
    pinned?.stop.abort();
    pinned?.watched.stop();
  }

  /** Waits for that many more acknowledged changes. */
  async changes(count: number, timeoutMs = 60_000): Promise<void> {
    const until = this.#changes + count;
    await eventually(`${count} more changes are acknowledged`, () => this.#changes >= until, timeoutMs);
  }

  /** Waits until the client of each of these members has made another change: begun after now and acknowledged. */
  async changesThrough(endpoints: readonly string[], timeoutMs: number): Promise<void> {
    const since = now();
    const silent = (): readonly string[] => endpoints.filter((endpoint) => (this.#changed.get(endpoint) ?? 0) < since);
    try {
      await eventually('every member serves', () => silent().length === 0, timeoutMs);
    } catch (error) {
      throw new Error(`no change was acknowledged through ${silent().join(' and ')} within ${timeoutMs.toFixed(0)} ms`, { cause: error });
    }
  }

  /** When the last change that was acknowledged through this member's client was begun. */
  lastChangeThrough(endpoint: string): number {
    return this.#changed.get(endpoint) ?? 0;
  }

  /**
   * Ends the load, then reads all keys once more through every member, and waits until every watch has been told everything.
   *
   * @throws when a member does not answer any more
   */
  async finish(): Promise<{ readonly history: History; readonly settledRevision: number }> {
    this.#stop.abort();
    await Promise.all(this.#loops);
    let settledRevision = 0n;
    for (const { client } of this.#pinned.values())
      settledRevision = (await persistently(() => client.put('k/last', `${++this.#written}`))).revision;
    for (const { client, watched } of this.#pinned.values()) {
      await persistently(() => client.list(prefix('')));
      await watched.toldUpTo(settledRevision);
    }
    for (const { watched } of this.#pinned.values()) watched.stop();
    const history = this.#recorder.finish(now());
    await Promise.all(this.#closers.map((close) => close()));
    return { history, settledRevision: Number(settledRevision) };
  }

  /** Ends it without an interest in what came of it. */
  async abandon(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#closers.map((close) => close()));
    await Promise.allSettled(this.#loops);
  }

  #run(loop: Promise<void>): void {
    // Awaited at the end; until then a failure must not count as unhandled.
    loop.catch(() => {});
    this.#loops.push(loop);
  }

  async #connect(endpoints: readonly string[]): Promise<Client> {
    const recording = recordingTransport(transport, { recorder: this.#recorder, client: ++this.#clients, now });
    const client = await connect({ endpoints, transport: recording, deadlineMs, lazy: true });
    this.#closers.push(() => client.close());
    return client;
  }

  async #useKeys(client: Client, endpoint: string, name: string, stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const startedAt = now();
      try {
        const { revision, isChange } = await this.#useKey(client, name);
        this.#ok++;
        if (revision > this.#revision) this.#revision = revision;
        if (isChange) {
          this.#changes++;
          this.#changed.set(endpoint, startedAt);
        }
      } catch (error) {
        if (!isConclaveError(error)) throw error;
        this.#failed++;
        // As a service would: not at once again.
        await rest(20);
      }
      await rest(Math.random() * this.#options.restMs);
    }
  }

  async #useKey(client: Client, name: string): Promise<{ readonly revision: bigint; readonly isChange: boolean }> {
    const one = `k/${Math.floor(Math.random() * keyCount)}`;
    const other = `k/${Math.floor(Math.random() * keyCount)}`;
    const value = this.#value(name);
    const dice = Math.random();
    if (dice < 0.3) return changed(await client.put(one, value));
    if (dice < 0.5) return read(await client.list(one));
    if (dice < 0.55) return read(await client.list(one, { serializable: true }));
    if (dice < 0.6) return read(await client.list(prefix('k/')));
    if (dice < 0.68) return changed(await client.delete(one, { prevKv: true }));
    if (dice < 0.78 && one !== other)
      return changed(
        await client
          .txn()
          .then(put(one, value), put(other, value), list(prefix('k/')))
          .commit(),
      );
    if (dice < 0.83 && one !== other) return changed(await client.txn().then(del(one), put(other, value)).commit());
    const before = await client.list(one);
    const condition = key(one).modRevision.equals(before.kvs[0]?.modRevision ?? 0n);
    return changed(await client.txn().if(condition).then(put(one, value)).else(list(one)).commit());
  }

  #value(name: string): string {
    return `${name}-${++this.#written}${'.'.repeat(this.#options.padding)}`;
  }

  async #contend(members: AnyMember, holder: string): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const asked = now();
      try {
        const client = await members.client(this.#endpoints);
        const held = await lock(client, lockName, { ttlSeconds: 3, timeoutMs: 5000, signal: this.#stop.signal });
        const from = now();
        const token = held.token;
        let until: number | undefined;
        held.signal.addEventListener('abort', () => (until ??= now()));
        try {
          for (let work = 0; work < 3 && held.isHeld; work++) {
            this.#writeFenced(token);
            await client
              .txn()
              .if(held.guard)
              .then(put('guarded', this.#value(holder)))
              .commit();
          }
        } finally {
          until ??= now();
          this.#recorder.hold({ name: lockName, holder, token: Number(token), asked, from, until });
          await held.release();
        }
      } catch (error) {
        if (!isConclaveError(error)) throw error;
        await rest(20);
      }
    }
  }

  /** A resource that knows nothing of the lock but its tokens. */
  #writeFenced(token: bigint): void {
    if (token < this.#fencedAt) return;
    this.#fencedAt = token;
    const write: FencedWrite = { name: lockName, token: Number(token), time: now() };
    this.#recorder.fencedWrite(write);
  }

  async #compact(members: AnyMember): Promise<void> {
    let compacted = 0n;
    while (!this.#stop.signal.aborted) {
      const revision = this.#revision - BigInt(this.#options.historyKept);
      try {
        if (revision > compacted + BigInt(this.#options.historyKept) / 2n) {
          await (await members.client(this.#endpoints)).compact(revision);
          compacted = revision;
        }
      } catch (error) {
        if (!isConclaveError(error)) throw error;
        // Perhaps it happened; it is not asked for twice.
        compacted = revision;
      }
      await rest(100);
    }
  }
}

/** A client of whatever members there are: made anew when they have changed. */
class AnyMember {
  readonly #connect: () => Promise<Client>;
  #client: Client | undefined;
  #endpoints: readonly string[] | undefined;

  constructor(connectNow: () => Promise<Client>) {
    this.#connect = connectNow;
  }

  async client(endpoints: readonly string[]): Promise<Client> {
    if (this.#client === undefined || this.#endpoints !== endpoints) {
      this.#endpoints = endpoints;
      await this.#client?.close();
      this.#client = await this.#connect();
    }
    return this.#client;
  }
}

/** The clock of every history. */
export function now(): number {
  return performance.now();
}

const changed = ({ revision }: { readonly revision: bigint }): { revision: bigint; isChange: boolean } => ({ revision, isChange: true });
const read = ({ revision }: { readonly revision: bigint }): { revision: bigint; isChange: boolean } => ({ revision, isChange: false });

function rest(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Asks until it is answered: what is asked for last must be answered by a cluster that has healed. */
function persistently<T>(ask: () => Promise<T>): Promise<T> {
  return eventually(
    'an answer',
    async () => {
      try {
        return { value: await ask() };
      } catch (error) {
        if (!isConclaveError(error)) throw error;
        return undefined;
      }
    },
    20_000,
  ).then(({ value }) => value);
}
