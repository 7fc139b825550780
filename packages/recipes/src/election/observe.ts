import { type Feed, isConclaveError, type KeyValue, type Namespace, prefix, type RequestOptions } from '@conclave/sdk';

/** Who leads, as others see it. */
export interface Leader {
  /** What the leader proclaimed, as text. */
  readonly value: string;
  readonly valueBytes: Uint8Array;
  /** The leader's fencing token; it changes with the leader, not with what is proclaimed. */
  readonly token: bigint;
  /** The key that holds the leadership. */
  readonly key: string;
}

/**
 * Who leads the election `name` now; undefined while nobody does.
 *
 * @throws ConclaveError `unavailable`, `deadline-exceeded`
 * @example
 * ```ts
 * console.log((await leader(client, 'scheduler'))?.value);
 * ```
 */
export async function leader(client: Namespace, name: string, options?: RequestOptions): Promise<Leader | undefined> {
  const { kvs } = await client.list(prefix(`${name}/`), { ...options, sort: { by: 'createRevision', order: 'ascend' }, limit: 1 });
  return kvs[0] === undefined ? undefined : toLeader(kvs[0]);
}

/**
 * Follows who leads the election `name`: the present leader, then each change of leader and each proclamation; undefined while nobody leads. It
 * goes on across lost connections and compaction; of what changed meanwhile only the result may be told. Completes when the client is closed.
 *
 * @throws ConclaveError `permission-denied`, `cancelled`, … as the error of the Observable or loop
 * @example
 * ```ts
 * observe(client, 'scheduler').subscribe((leader) => console.log(leader?.value ?? 'nobody'));
 * ```
 */
export function observe(client: Namespace, name: string): Feed<Leader | undefined> {
  return client.feed<Leader | undefined>((sink) => {
    const observation = new Observation(client, name, sink);
    void observation.start();
    return { cancel: () => observation.stop(), pause() {}, resume() {} };
  });
}

interface Sink {
  next(value: Leader | undefined): void;
  error(error: unknown): void;
  complete(): void;
}

/** All candidates of one election by key, kept up to date by a watch. */
class Observation {
  readonly #client: Namespace;
  readonly #name: string;
  readonly #sink: Sink;
  readonly #candidates = new Map<string, KeyValue>();
  readonly #controller = new AbortController();
  #isTelling = false;
  #told: KeyValue | 'nobody' | undefined;
  #stopWatching: (() => void) | undefined;

  constructor(client: Namespace, name: string, sink: Sink) {
    this.#client = client;
    this.#name = name;
    this.#sink = sink;
  }

  /** Lists, then watches from there: nothing falls between the two. */
  async start(): Promise<void> {
    const { signal } = this.#controller;
    try {
      const target = prefix(`${this.#name}/`);
      const { kvs, revision } = await this.#client.list(target, { signal, deadlineMs: Number.POSITIVE_INFINITY });
      if (signal.aborted) return;
      this.#candidates.clear();
      for (const kv of kvs) this.#candidates.set(kv.key, kv);
      this.#tell();
      this.#watch(target, revision + 1n);
    } catch (error) {
      if (signal.aborted) return;
      // As a watch does: it is over, and nothing went wrong.
      if (isConclaveError(error, 'client-closed')) this.#sink.complete();
      else this.#sink.error(error);
    }
  }

  stop(): void {
    this.#controller.abort();
    this.#stopWatching?.();
  }

  #watch(target: ReturnType<typeof prefix>, startRevision: bigint): void {
    let revision = 0n;
    const subscription = this.#client.watch(target, { startRevision }).subscribe({
      next: (event) => {
        // A change of leader within one transaction is told as what came of it.
        if (event.revision !== revision) this.#tell();
        revision = event.revision;
        if (event.type === 'put') this.#candidates.set(event.key, event.kv);
        else this.#candidates.delete(event.key);
        this.#tellSoon();
      },
      error: (error: unknown) => {
        if (isConclaveError(error, 'compacted')) void this.start();
        else this.#sink.error(error);
      },
      complete: () => this.#sink.complete(),
    });
    this.#stopWatching = () => subscription.unsubscribe();
  }

  #tellSoon(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.#client.runtime.endOfTurn(() => {
      this.#isTelling = false;
      this.#tell();
    });
  }

  #tell(): void {
    if (this.#controller.signal.aborted) return;
    let first: KeyValue | undefined;
    for (const kv of this.#candidates.values()) {
      if (first === undefined || kv.createRevision < first.createRevision) first = kv;
    }
    if (this.#told !== undefined && isSame(this.#told, first ?? 'nobody')) return;
    this.#told = first ?? 'nobody';
    this.#sink.next(first === undefined ? undefined : toLeader(first));
  }
}

/** By the write that made it: after a compaction the same leader is read anew. */
function isSame(told: KeyValue | 'nobody', now: KeyValue | 'nobody'): boolean {
  if (told === 'nobody' || now === 'nobody') return told === now;
  return told.key === now.key && told.modRevision === now.modRevision;
}

function toLeader(kv: KeyValue): Leader {
  return { value: kv.value, valueBytes: kv.valueBytes, token: kv.createRevision, key: kv.key };
}
