import { campaign } from '@conclave/recipes';
import { type Client, connect, isConclaveError, key, prefix, put, type Session, type WatchEvent } from '@conclave/sdk';
import type { ComparedClient, ConnectCompared, Event, Watching } from './compared.ts';

export async function connectOurs({ hosts, credentials }: ConnectCompared): Promise<ComparedClient> {
  return new OurClient(await connect({ endpoints: hosts, credentials }));
}

class OurClient implements ComparedClient {
  readonly #client: Client;
  #session: Promise<Session> | undefined;

  constructor(client: Client) {
    this.#client = client;
  }

  put(name: string, value: string | Buffer): Promise<unknown> {
    return this.#client.put(name, value);
  }

  async get(name: string): Promise<string | undefined> {
    return (await this.#client.get(name))?.value;
  }

  async create(name: string, value: string): Promise<boolean> {
    const { succeeded } = await this.#client.txn().if(key(name).missing()).then(put(name, value)).commit();
    return succeeded;
  }

  increment(name: string): Promise<unknown> {
    return this.#client.stm(async (stm) => stm.put(name, String(Number((await stm.get(name)) ?? 0) + 1)));
  }

  async list(start: string): Promise<number> {
    return (await this.#client.list(prefix(start))).kvs.length;
  }

  async watch(start: string, startRevision: number | undefined, listener: (event: Event) => void): Promise<Watching> {
    let failure: unknown;
    let created: () => void = () => undefined;
    const ready = new Promise<void>((resolve) => {
      created = resolve;
    });
    const from = startRevision === undefined ? {} : { startRevision };
    const subscription = this.#client.watch(prefix(start), { ...from, notifyCreated: true }).subscribe({
      next: (event) => (event.type === 'created' ? created() : listener(plain(event))),
      error: (error: unknown) => {
        failure = error;
        created();
      },
    });
    await ready;
    return {
      get failure() {
        return failure;
      },
      stop: async () => subscription.unsubscribe(),
    };
  }

  watchEach(keys: readonly string[]): Promise<void> {
    return new Promise((resolve) => {
      let standing = 0;
      const onEvent = (): void => {
        if (++standing === keys.length) resolve();
      };
      for (const name of keys) this.#client.watch(name, { startRevision: 1, notifyCreated: true }).subscribe(onEvent);
    });
  }

  async consume(start: string, startRevision: number, take: (event: Event) => Promise<void>): Promise<Watching> {
    let failure: unknown;
    const stopped = new AbortController();
    const loop = (async () => {
      for await (const event of this.#client.watch(prefix(start), { startRevision, signal: stopped.signal })) await take(plain(event));
    })().catch((error: unknown) => {
      failure = error;
    });
    return {
      get failure() {
        return failure;
      },
      stop: () => {
        stopped.abort();
        return loop;
      },
    };
  }

  async mirror(start: string): Promise<{ contents(): ReadonlyMap<string, string>; readonly notices: number; stop(): Promise<void> }> {
    const view = await this.#client.view(prefix(start));
    let notices = 0;
    const subscription = view.changes().subscribe((change) => {
      if (change.type === 'resync') notices += 1;
    });
    return {
      contents: () => new Map([...view.values()].map((kv) => [kv.key, kv.value])),
      get notices() {
        return notices;
      },
      stop: async () => {
        subscription.unsubscribe();
        await view.close();
      },
    };
  }

  async lease(ttlSeconds: number, name: string): Promise<{ readonly lost: Promise<void> }> {
    const lease = await this.#client.lease.grant({ ttlSeconds });
    await this.#client.put(name, '', { lease });
    return { lost: new Promise((resolve) => lease.signal.addEventListener('abort', () => resolve(), { once: true })) };
  }

  async register(name: string, value: string, ttlSeconds: number): Promise<void> {
    await (await this.#sessionOf(ttlSeconds)).hold(name, value).placed();
  }

  async stand(election: string, value: string, ttlSeconds: number): Promise<void> {
    const session = await this.#sessionOf(ttlSeconds);
    session.hold(async ({ lease, signal }) => {
      // Until it is elected or the lease is over; then the session begins it anew.
      campaign(this.#client, election, { value, lease, signal }).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    });
  }

  leavesOpen(error: unknown): boolean {
    return isConclaveError(error) && error.outcome === 'unknown';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.close();
  }

  #sessionOf(ttlSeconds: number): Promise<Session> {
    this.#session ??= this.#client.session({ ttlSeconds });
    return this.#session;
  }
}

function plain(event: WatchEvent): Event {
  return { revision: Number(event.revision), key: event.key, value: event.type === 'delete' ? undefined : event.value };
}
