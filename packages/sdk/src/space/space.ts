import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import { allKeys, type Target } from '../kv/key-range.ts';
import type { KeyValue } from '../kv/key-value.ts';
import type { GetOptions, ListOptions, PutOptions } from '../kv/operation.ts';
import type { DeleteResult, ListResult, PutResult } from '../kv/result.ts';
import type { Scan, ScanOptions } from '../kv/scan.ts';
import { type Key, toText, type Value } from '../kv/text.ts';
import type { Watch } from '../rx/watch.ts';
import { WatchEvent } from '../watch/watch-event.ts';
import type { WatchEmission, WatchOptions } from '../watch/watch-options.ts';
import { type Codec, issuesOf } from './codec.ts';
import { EntryWatch } from './entry-watch.ts';

/** A key of a space with its value. */
export interface Entry<T> {
  /** The key within the space. */
  readonly key: string;
  readonly value: T;
  /** What is stored, with its revisions and its lease. */
  readonly kv: KeyValue;
}

export interface EntryList<T> extends Omit<ListResult, 'kvs'> {
  readonly entries: readonly Entry<T>[];
}

/** A change of a key of a space. */
export type EntryEvent<T> =
  | { readonly type: 'put'; readonly key: string; readonly value: T; readonly revision: bigint; readonly event: WatchEvent }
  | { readonly type: 'delete'; readonly key: string; readonly revision: bigint; readonly event: WatchEvent };

export type EntryPutOptions = Omit<PutOptions, 'prevKv' | 'ignoreValue'> & RequestOptions;
export type EntryListOptions = Omit<ListOptions, 'keysOnly' | 'countOnly'> & RequestOptions;
export type EntryScanOptions = Omit<ScanOptions, 'keysOnly'>;
export type EntryWatchOptions = Omit<WatchOptions, 'prevKv'>;

/** What a watch of a space with these options emits. */
export type EntryEmission<T, Options extends EntryWatchOptions> = EntryEvent<T> | Exclude<WatchEmission<Options>, WatchEvent>;

/** What a space needs of the namespace it is in. */
interface StoredKeys {
  put(key: Key, value: Value, options?: PutOptions & RequestOptions): Promise<PutResult>;
  get(key: Key, options?: GetOptions & RequestOptions): Promise<KeyValue | undefined>;
  list(target: Target, options?: ListOptions & RequestOptions): Promise<ListResult>;
  scan(target: Target, options?: ScanOptions): Scan;
  delete(target: Target, options?: RequestOptions): Promise<DeleteResult>;
  watch(target: Target, options: WatchOptions): Watch<WatchEmission<WatchOptions>>;
}

/**
 * The keys that start with one prefix, whose values all have one type. Made by `client.space`.
 *
 * Nothing passes that the codec does not accept: a value that cannot be written is not sent, and one that is stored but cannot be read fails
 * the read with `invalid-value`, the key and what is wrong in its details. A watch that meets one ends with it, and `details.revision`
 * says where to go on. The same keys with their values as stored are those of `client.namespace` with the same prefix.
 *
 * @example
 * ```ts
 * const scores = client.space('scores/', json());
 * await scores.put('ada', 36);
 * console.log((await scores.get('ada'))?.value); // 36
 * const { entries } = await scores.list();
 * for await (const { key, value } of scores.scan()) console.log(key, value);
 * await scores.delete('ada');
 * ```
 */
export class Space<In, Out = In> {
  readonly #keys: StoredKeys;
  readonly #codec: Codec<In, Out>;

  /** @internal */
  constructor(keys: StoredKeys, codec: Codec<In, Out>) {
    this.#keys = keys;
    this.#codec = codec;
  }

  /** Writes one key. */
  async put(key: Key, value: In, options?: EntryPutOptions): Promise<Omit<PutResult, 'prevKv'>> {
    const { revision } = await this.#keys.put(key, await this.encode(key, value), options);
    return { revision };
  }

  /** Reads one key; undefined: there is no such key. */
  async get(key: Key, options?: GetOptions & RequestOptions): Promise<Entry<Out> | undefined> {
    const kv = await this.#keys.get(key, options);
    return kv === undefined ? undefined : await this.decode(kv);
  }

  /** Reads a range. Default: all keys of the space. */
  async list(target: Target = allKeys(), options?: EntryListOptions): Promise<EntryList<Out>> {
    const { kvs, count, more, revision } = await this.#keys.list(target, options);
    const entries: Entry<Out>[] = [];
    for (const kv of kvs) {
      const entry = this.#entry(kv);
      entries.push(entry instanceof Promise ? await entry : entry);
    }
    return { entries, count, more, revision };
  }

  /** Reads a range of any size, key by key, as it was at one revision. Default: all keys of the space. See `client.scan`. */
  scan(target: Target = allKeys(), options?: EntryScanOptions): EntryScan<Out> {
    return new EntryScan(this.#keys.scan(target, options), (kv) => this.#entry(kv));
  }

  /** Deletes one key or a range of them. Nothing to delete is no error. */
  async delete(target: Target, options?: RequestOptions): Promise<Omit<DeleteResult, 'prevKvs'>> {
    const { deleted, revision } = await this.#keys.delete(target, options);
    return { deleted, revision };
  }

  /**
   * Follows the changes of one key or a range, by default of all keys of the space. See `client.watch`.
   *
   * @example
   * ```ts
   * const users = client.space('users/', z.object({ name: z.string() }));
   * for await (const change of users.watch()) {
   *   if (change.type === 'put') console.log(change.key, change.value);
   * }
   * ```
   */
  watch(target?: Target): EntryWatch<EntryEvent<Out>>;
  watch<const Options extends EntryWatchOptions>(target: Target | undefined, options: Options): EntryWatch<EntryEmission<Out, Options>>;
  watch(target: Target = allKeys(), options: EntryWatchOptions = {}): EntryWatch<unknown> {
    return new EntryWatch(this.#keys.watch(target, options), (emitted) => this.#emission(emitted));
  }

  /**
   * The value as it is stored: for a `put` in a transaction.
   *
   * @throws ConclaveError `invalid-value`
   * @example
   * ```ts
   * const scores = client.space('scores/', json());
   * await client.txn().if(key('game').exists()).then(put('scores/ada', await scores.encode('ada', 37))).commit();
   * ```
   */
  async encode(key: Key, value: In): Promise<Value> {
    try {
      return await this.#codec.encode(value);
    } catch (error) {
      throw invalidValue(typeof key === 'string' ? key : toText(key), error);
    }
  }

  /**
   * What is stored, read: for what a transaction of the namespace returned.
   *
   * @throws ConclaveError `invalid-value`
   * @example
   * ```ts
   * const scores = client.space('scores/', json());
   * await scores.put('ada', 38);
   * const result = await client.namespace('scores/').txn().then(get('ada')).commit();
   * if (result.succeeded && result[0] !== undefined) console.log((await scores.decode(result[0])).value); // 38
   * ```
   */
  async decode(kv: KeyValue): Promise<Entry<Out>> {
    return await this.#entry(kv);
  }

  /** At once if the codec can. */
  #entry(kv: KeyValue, isSynthesised = false): Entry<Out> | Promise<Entry<Out>> {
    const { key } = kv;
    // What is synthesised comes all at one revision: only reading anew makes up for the rest of it.
    const revision = isSynthesised ? undefined : kv.modRevision;
    try {
      const value = this.#codec.decode(kv.valueBytes);
      if (!(value instanceof Promise)) return { key, value, kv };
      return value.then(
        (settled) => ({ key, value: settled, kv }),
        (error: unknown) => {
          throw invalidValue(key, error, revision);
        },
      );
    } catch (error) {
      throw invalidValue(key, error, revision);
    }
  }

  #emission(emitted: unknown): unknown {
    if (!(emitted instanceof WatchEvent)) return emitted;
    const { type, key, revision } = emitted;
    if (type === 'delete') return { type, key, revision, event: emitted };
    const entry = this.#entry(emitted.kv, emitted.isSynthesised);
    const toEvent = ({ value }: Entry<Out>): EntryEvent<Out> => ({ type: 'put', key, value, revision, event: emitted });
    return entry instanceof Promise ? entry.then(toEvent) : toEvent(entry);
  }
}

/**
 * A range of a space, entry by entry, as it was at one revision. Iterated once.
 *
 * @example
 * ```ts
 * const scan = client.space('scores/', json()).scan(allKeys(), { pageSize: 100 });
 * for await (const { key, value } of scan) console.log(key, value);
 * console.log(scan.revision);
 * ```
 */
export class EntryScan<T> implements AsyncIterable<Entry<T>> {
  readonly #scan: Scan;
  readonly #decode: (kv: KeyValue) => Entry<T> | Promise<Entry<T>>;

  /** @internal */
  constructor(scan: Scan, decode: (kv: KeyValue) => Entry<T> | Promise<Entry<T>>) {
    this.#scan = scan;
    this.#decode = decode;
  }

  /** The revision all of it is read at, known from the first key on, or from the end of a scan that found none. */
  get revision(): bigint | undefined {
    return this.#scan.revision;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Entry<T>, undefined> {
    for await (const kv of this.#scan) yield this.#decode(kv);
    return undefined;
  }
}

function invalidValue(key: string, cause: unknown, revision?: bigint): ConclaveError {
  if (isConclaveError(cause)) return cause;
  const issues = issuesOf(cause);
  const said = issues.map(({ message }) => message).join('; ');
  const details = { key, issues, revision };
  return new ConclaveError({ code: 'invalid-value', message: `the value of ${key}: ${said}`, outcome: 'not-applied', cause, details });
}
