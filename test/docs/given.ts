// What the examples of the docstrings take for granted: their reader has a client, some things made with it, and a few of his own.
import { type Lock, lock } from '@conclave/recipes';
import {
  type Client,
  connect,
  type Lease,
  type Member,
  type MessageType,
  prefix,
  type Session,
  type SessionToken,
  type StandardSchemaV1,
  type View,
} from '@conclave/sdk';
import { type ConclaveServer, startServer } from '@conclave/server';
import { cluster, type TestCluster } from '@conclave/testing';

export interface Given {
  readonly client: Client;
  readonly view: View<string>;
  readonly lease: Lease;
  readonly held: Lock;
  readonly session: Session;
  /** The process that goes on with a session. */
  readonly successor: { send(token: SessionToken): void };
  /** A learner that was added, and is not started. */
  readonly member: Member;
  readonly c: TestCluster;
  /** Addresses of something that answers. */
  readonly storage: string;
  readonly job: string;
  readonly scheduler: { stop(): void };
  readonly runScheduler: (signal: AbortSignal) => Promise<void>;
  readonly shutdown: AbortController;
  readonly User: MessageType<{ name: string }, { name: string }>;
  /** The few words of a validator that are used. */
  readonly z: {
    string(): StandardSchemaV1<string>;
    number(): StandardSchemaV1<number>;
    object<Shape extends Record<string, StandardSchemaV1>>(shape: Shape): StandardSchemaV1<ObjectOf<Shape>>;
  };
}

type ObjectOf<Shape> = { [Name in keyof Shape]: Shape[Name] extends StandardSchemaV1<infer Value> ? Value : never };

/** Makes what an example uses, of a server of its own, and undoes it. */
export class Stage implements AsyncDisposable {
  #server: ConclaveServer | undefined;
  readonly #shutdown = new AbortController();
  #client: Client | undefined;
  #c: TestCluster | undefined;

  async give(names: readonly string[]): Promise<Partial<Given>> {
    const given: Record<string, unknown> = {};
    if (names.includes('c')) {
      this.#c = await cluster({ size: 3 });
      given['c'] = this.#c;
    }
    for (const name of names) if (name !== 'c') given[name] = await this.#make[name as keyof Given]();
    return given;
  }

  /** Whatever goes on for as long as it may comes to its end. */
  async end(): Promise<void> {
    this.#shutdown.abort();
    await this.#client?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.#c?.close();
    await this.#server?.close();
  }

  readonly #make: { readonly [Name in keyof Given]: () => Given[Name] | Promise<Given[Name]> } = {
    c: () => cluster(),
    client: () => this.#connected(),
    view: async () => (await this.#connected()).view(prefix('config/')),
    lease: async () => (await this.#connected()).lease.grant({ ttlSeconds: 10 }),
    session: async () => (await this.#connected()).session({ ttlSeconds: 10 }),
    successor: () => ({ send: () => undefined }),
    held: async () => lock(await this.#connected(), 'jobs/nightly'),
    member: async () => (await (await this.#connected()).cluster.addLearner(['http://10.0.0.9:2380'])).member,
    storage: () => 'data:,stored',
    job: () => 'data:,done',
    scheduler: () => ({ stop: () => undefined }),
    runScheduler: () => (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true })),
    shutdown: () => this.#shutdown,
    User: () => ({
      encode: ({ name }) => new TextEncoder().encode(name),
      decode: (bytes) => ({ name: new TextDecoder().decode(bytes) }),
    }),
    z: () => ({ string: () => schema('string'), number: () => schema('number'), object: () => schema('object') }),
  };

  async #connected(): Promise<Client> {
    this.#client ??= this.#c === undefined ? await this.#ofServer() : await this.#c.client();
    return this.#client;
  }

  async #ofServer(): Promise<Client> {
    const server = await startServer({ advertise: ['http://127.0.0.1:2379'] });
    this.#server = server;
    const client = await connect({ endpoints: server.name, transport: server.transport });
    for (const [name, value] of Object.entries(stored)) await client.put(name, value);
    return client;
  }
}

/** The names an example may use without declaring them. */
export const givenNames: ReadonlySet<string> = new Set<keyof Given>([
  'client',
  'view',
  'lease',
  'held',
  'session',
  'successor',
  'member',
  'c',
  'storage',
  'job',
  'scheduler',
  'runScheduler',
  'shutdown',
  'User',
  'z',
]);

/** What the store holds. */
const stored = {
  greeting: 'hello',
  'config/color': 'blue',
  'services/cart/1': '{"zone":"eu-1"}',
  'stock/42': '1',
  'accounts/alice': '100',
  'accounts/bob': '0',
  'drafts/7': 'dear',
  'jobs/7': 'to do',
};

function schema<T>(type: 'string' | 'number' | 'object'): StandardSchemaV1<T> {
  const validate = (value: unknown) => (typeof value === type ? { value: value as T } : { issues: [{ message: `not a ${type}` }] });
  return { '~standard': { version: 1, vendor: 'examples', validate } };
}
