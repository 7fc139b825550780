// What the comparison asks of a client, so that the same questions go to ours and to a peer's.

export type ClientName = 'ours' | 'etcd3';

export interface Comparison {
  /** One of the numbered tests of the project's reference. */
  readonly item: number;
  readonly measure: string;
  readonly bar: string;
  readonly ours: Cell;
  readonly etcd3: Cell;
}

export interface Cell {
  readonly text: string;
  /** Whether the bar is met; undefined: there is none for it. */
  readonly isMet?: boolean | undefined;
}

export interface Event {
  readonly revision: number;
  readonly key: string;
  /** undefined: the key was deleted. */
  readonly value: string | undefined;
}

export interface Watching {
  /** Whether the client has said that it cannot go on. */
  readonly failure: unknown;
  stop(): Promise<void>;
}

export interface Mirror {
  contents(): ReadonlyMap<string, string>;
  /** How often its user was told that it had to be read anew, or that it is broken. */
  readonly notices: number;
  stop(): Promise<void>;
}

export interface KeptLease {
  /** Resolves when the client says that the lease is lost. */
  readonly lost: Promise<void>;
}

export interface ComparedClient extends AsyncDisposable {
  put(key: string, value: string | Buffer): Promise<unknown>;
  get(key: string): Promise<string | undefined>;
  /** Whether this very call was the one that put it. */
  create(key: string, value: string): Promise<boolean>;
  /** Adds one to a number with the client's software transaction, which may repeat itself. */
  increment(key: string): Promise<unknown>;
  /** How many key-value pairs were decoded. */
  list(prefix: string): Promise<number>;
  watch(prefix: string, startRevision: number | undefined, listener: (event: Event) => void): Promise<Watching>;
  /** Watches each of these keys, with as little around it as the client allows; resolves when all watches stand. */
  watchEach(keys: readonly string[]): Promise<void>;
  /** Takes every event into `take`, one after the other, however slow that is. */
  consume(prefix: string, startRevision: number, take: (event: Event) => Promise<void>): Promise<Watching>;
  /** A copy of what is stored under the prefix, kept as the client's documentation says. */
  mirror(prefix: string): Promise<Mirror>;
  /** A lease that is kept alive, with one key. */
  lease(ttlSeconds: number, key: string): Promise<KeptLease>;
  /** Has a key stand for as long as the client lives, as the client's documentation says. */
  register(key: string, value: string, ttlSeconds: number): Promise<void>;
  /** Is a candidate for as long as the client lives, as the client's documentation says. */
  stand(election: string, value: string, ttlSeconds: number): Promise<void>;
  /** Whether an error leaves the outcome open, and so tells no untruth about a write that was done. */
  leavesOpen(error: unknown): boolean;
}

export interface ConnectCompared {
  readonly hosts: readonly string[];
  readonly credentials?: { readonly username: string; readonly password: string } | undefined;
  /** Take messages of any size, where the client has a limit of its own. */
  readonly isUnlimited?: boolean | undefined;
}

export async function connectCompared(name: ClientName, options: ConnectCompared): Promise<ComparedClient> {
  if (name === 'ours') return (await import('./our-client.ts')).connectOurs(options);
  return (await import('./etcd3-client.ts')).connectEtcd3(options);
}

export const clientNames: readonly ClientName[] = ['ours', 'etcd3'];

/** Asks the same of both clients, one after the other. */
export async function ofBoth<T>(ask: (name: ClientName) => Promise<T>): Promise<Record<ClientName, T>> {
  return { ours: await ask('ours'), etcd3: await ask('etcd3') };
}

export function cell(text: string, isMet?: boolean): Cell {
  return { text, isMet };
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
