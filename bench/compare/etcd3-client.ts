import { Etcd3, type Namespace, type Watcher } from 'etcd3';
import { type ComparedClient, type ConnectCompared, type Event, type KeptLease, type Mirror, pause, type Watching } from './compared.ts';

export async function connectEtcd3({ hosts, credentials, isUnlimited = false }: ConnectCompared): Promise<ComparedClient> {
  return new Etcd3Client(
    new Etcd3({
      hosts: hosts.map((host) => `http://${host}`),
      ...(credentials === undefined ? {} : { auth: credentials }),
      ...(isUnlimited ? { grpcOptions: { 'grpc.max_receive_message_length': -1 } } : {}),
    }),
  );
}

class Etcd3Client implements ComparedClient {
  readonly #client: Etcd3;
  #isClosed = false;

  constructor(client: Etcd3) {
    this.#client = client;
  }

  async put(name: string, value: string | Buffer): Promise<unknown> {
    return this.#client.put(name).value(value).exec();
  }

  async get(name: string): Promise<string | undefined> {
    return (await this.#client.get(name).string()) ?? undefined;
  }

  async create(name: string, value: string): Promise<boolean> {
    const { succeeded } = await this.#client.if(name, 'Create', '==', 0).then(this.#client.put(name).value(value)).commit();
    return succeeded;
  }

  increment(name: string): Promise<unknown> {
    return this.#client.stm().transact(async (stm) => stm.put(name).value(Number((await stm.get(name).number()) ?? 0) + 1));
  }

  async list(start: string): Promise<number> {
    return (await this.#client.getAll().prefix(start).exec()).kvs.length;
  }

  async watch(start: string, startRevision: number | undefined, listener: (event: Event) => void): Promise<Watching> {
    let failure: unknown;
    const builder = this.#client.watch().prefix(start);
    const watcher = await (startRevision === undefined ? builder : builder.startRevision(String(startRevision))).create();
    listenTo(watcher, listener);
    watcher.on('error', (error: unknown) => {
      failure = error;
    });
    return {
      get failure() {
        return failure;
      },
      stop: () => watcher.cancel(),
    };
  }

  async watchEach(keys: readonly string[]): Promise<void> {
    const onPut = (): void => undefined;
    await Promise.all(
      keys.map(async (name) => {
        (await this.#client.watch().key(name).startRevision('1').create()).on('put', onPut);
      }),
    );
  }

  /** Its events are told as they come: who is slower has to queue them. */
  async consume(start: string, startRevision: number, take: (event: Event) => Promise<void>): Promise<Watching> {
    let queue: Event[] = [];
    let isStopped = false;
    const watching = await this.watch(start, startRevision, (event) => queue.push(event));
    const loop = (async () => {
      while (!isStopped) {
        const events = queue;
        queue = [];
        for (const event of events) {
          if (isStopped) return;
          await take(event);
        }
        if (queue.length === 0) await pause(1);
      }
    })();
    return {
      get failure() {
        return watching.failure;
      },
      stop: async () => {
        isStopped = true;
        await loop;
        await watching.stop();
      },
    };
  }

  /** It has no copies of its own: a list, and a watch from the revision after it. */
  async mirror(start: string): Promise<Mirror> {
    const { kvs, header } = await this.#client.getAll().prefix(start).exec();
    const contents = new Map(kvs.map((kv) => [kv.key.toString(), kv.value.toString()]));
    let notices = 0;
    const builder = this.#client.watch().prefix(start);
    const watcher = await builder.startRevision(String(Number(header.revision) + 1)).create();
    listenTo(watcher, ({ key, value }) => {
      if (value === undefined) contents.delete(key);
      else contents.set(key, value);
    });
    for (const bad of ['error', 'end'] as const) {
      (watcher as { on(event: string, listener: () => void): unknown }).on(bad, () => {
        notices += 1;
      });
    }
    return {
      contents: () => contents,
      get notices() {
        return notices;
      },
      stop: () => watcher.cancel(),
    };
  }

  async lease(ttlSeconds: number, name: string): Promise<KeptLease> {
    const lease = this.#client.lease(ttlSeconds);
    const lost = new Promise<void>((resolve) => lease.on('lost', () => resolve()));
    await lease.put(name).value('').exec();
    return { lost };
  }

  /** As the example in its documentation: a lease that was lost is asked for anew. */
  async register(name: string, value: string, ttlSeconds: number): Promise<void> {
    const lease = this.#client.lease(ttlSeconds);
    lease.on('lost', () => {
      if (!this.#isClosed) this.register(name, value, ttlSeconds).catch(() => undefined);
    });
    await lease.put(name).value(value).exec();
  }

  /** As the example in its documentation: after an error, again, a while later. */
  async stand(election: string, value: string, ttlSeconds: number): Promise<void> {
    const run = (): void => {
      const campaign = (this.#client as Namespace).election(election, ttlSeconds).campaign(value);
      campaign.on('error', () => {
        if (!this.#isClosed) setTimeout(run, 5_000);
      });
    };
    run();
  }

  /** It says of no error whether what was asked for was done. One that is thrown is taken for an honest one. */
  leavesOpen(): boolean {
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#client.close();
  }
}

function listenTo(watcher: Watcher, listener: (event: Event) => void): void {
  watcher.on('put', (kv) => listener({ revision: Number(kv.mod_revision), key: kv.key.toString(), value: kv.value.toString() }));
  watcher.on('delete', (kv) => listener({ revision: Number(kv.mod_revision), key: kv.key.toString(), value: undefined }));
}
