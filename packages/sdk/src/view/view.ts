import { type Event, KeyRange, type KeyValue as WireKeyValue } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import type { KeyPrefix, WireRange } from '../kv/key-range.ts';
import type { KeyValue } from '../kv/key-value.ts';
import { type Key, noBytes, toCounter } from '../kv/text.ts';
import type { Feed, FeedSink, FeedSource } from '../rx/feed.ts';
import { readRevision } from '../watch/watch-hub.ts';
import { ChangeFollower } from './change-feed.ts';
import { RevisionWaiters } from './revision-waiters.ts';
import type { ViewChange, ViewResync } from './view-change.ts';
import { type FollowerSink, ViewFollower } from './view-follower.ts';
import type { IndexFunction, ViewReadOptions } from './view-options.ts';
import type { ViewState } from './view-state.ts';
import { ViewStore } from './view-store.ts';

/** What a view is made of. */
export interface ViewInit {
  readonly engine: Engine;
  readonly prefix: KeyPrefix;
  readonly ranges: readonly WireRange[];
  readonly indexes: Readonly<Record<string, IndexFunction>>;
  readonly staleAfterMs: number;
  readonly feed: <T>(open: (sink: FeedSink<T>) => FeedSource) => Feed<T>;
  readonly onClose: (view: View<string>) => void;
}

/**
 * A copy of some keys that is kept up to date: read once, then followed. Made by {@link Namespace.view}.
 *
 * What it holds is at any moment what the store held at {@link View.revision}, over all its targets together. Reading it costs no call. How old
 * it may be is told by {@link View.state}, and decided by {@link ViewReadOptions}.
 */
export class View<IndexName extends string = string> implements AsyncDisposable {
  readonly #init: ViewInit;
  readonly #store: ViewStore;
  readonly #ranges: readonly KeyRange[];
  readonly #follower: ViewFollower;
  readonly #waiters: RevisionWaiters;
  readonly #followers = new Set<ChangeFollower>();
  readonly #watchers = new Set<FeedSink<ViewState>>();
  #state: ViewState = { state: 'stale', reason: 'listing' };
  #revision = 0;
  #hasContent = false;
  /** The view shows everything that was written up to here. */
  #freshAt = Number.NEGATIVE_INFINITY;

  /** @internal */
  constructor(init: ViewInit) {
    this.#init = init;
    this.#waiters = new RevisionWaiters(init.engine.runtime);
    this.#store = new ViewStore(init.prefix, init.indexes);
    this.#ranges = init.ranges.map(({ key, rangeEnd }) => KeyRange.fromWire(key, rangeEnd));
    const sink: FollowerSink = {
      onList: (kvs, revision, askedAt) => this.#onList(kvs, revision, askedAt),
      onEvents: (events, revision) => this.#onEvents(events, revision),
      onState: (stale) => this.#setState(stale === undefined ? { state: 'synced' } : { state: 'stale', reason: stale }),
      isAwaited: () => this.#waiters.size > 0,
      onFailure: (error) => this.#end({ state: 'failed', error }),
    };
    this.#follower = new ViewFollower(init.engine, init.ranges, init.staleAfterMs, sink);
    this.#follower.start();
  }

  /** The revision of the store that the view shows. */
  get revision(): bigint {
    return BigInt(this.#revision);
  }

  /** How much the view is worth now. */
  get state(): ViewState {
    return this.#state;
  }

  /** How many keys it holds. */
  get size(): number {
    this.#assertUsable();
    return this.#store.size;
  }

  /**
   * A key as the view has it; undefined: there is none. With options the view is waited for first, and the result is a promise: see
   * {@link View.reach}.
   *
   * @throws ConclaveError `invalid-argument` for a key that is not among the targets of the view, `view-closed`, or why it failed
   * @example
   * ```ts
   * const { revision } = await client.put('config/color', 'red');
   * const stored = await view.get('config/color', { atLeast: revision });
   * console.log(stored?.value); // red: or what was written after it
   * ```
   */
  get(key: Key): KeyValue | undefined;
  get(key: Key, options: ViewReadOptions): Promise<KeyValue | undefined>;
  get(key: Key, options?: ViewReadOptions): KeyValue | undefined | Promise<KeyValue | undefined> {
    if (options !== undefined) return this.reach(options).then(() => this.get(key));
    this.#assertUsable();
    const bytes = this.#init.prefix.key(key);
    if (!this.#ranges.some((range) => range.contains(bytes))) throw invalidArgument('the key is not among the targets of the view');
    return this.#store.get(bytes);
  }

  /**
   * All keys, in no order. To be gone through at once: a change of the view shows in it.
   *
   * @throws ConclaveError `view-closed`, or why the view failed
   * @example
   * ```ts
   * const names = [...view.values()].map((kv) => kv.key).sort();
   * ```
   */
  values(): IterableIterator<KeyValue> {
    this.#assertUsable();
    return this.#store.values();
  }

  /**
   * The keys for which an index function gives `value`.
   *
   * @throws ConclaveError `invalid-argument` for an index that the view was not made with, `view-closed`, or why it failed
   * @example
   * ```ts
   * const view = await client.view(prefix('services/'), { indexes: { zone: (kv) => JSON.parse(kv.value).zone } });
   * const nearby = view.by('zone', 'eu-1');
   * ```
   */
  by(index: IndexName, value: string): readonly KeyValue[] {
    this.#assertUsable();
    const found = this.#store.by(index, value);
    if (found === undefined) throw invalidArgument(`the view has no index ${index}`);
    return found;
  }

  /**
   * Waits until the view is as new as asked for. What is read from it in the same turn is.
   *
   * @returns the revision of the view
   * @throws ConclaveError `deadline-exceeded`, `cancelled`, `view-closed`, `unavailable`, or why the view failed
   * @example
   * ```ts
   * await view.reach({ maxStaleMs: 0 }); // now it has everything that was written before
   * for (const kv of view.values()) console.log(kv.key);
   * ```
   */
  async reach(options: ViewReadOptions): Promise<bigint> {
    this.#assertUsable();
    const { atLeast, maxStaleMs, signal } = options;
    const deadline = this.#init.engine.deadlineOf(options.deadlineMs);
    if (atLeast !== undefined) await this.#wait(toCounter(atLeast, 'atLeast'), deadline, signal);
    if (maxStaleMs !== undefined) await this.#freshen(maxStaleMs, deadline, signal);
    return this.revision;
  }

  /**
   * The changes of the view from now on: an rxjs Observable that also iterates. Of one revision, all are made before the first is told; what is
   * there already can be read in the turn in which this is subscribed to, and nothing is lost between the two.
   *
   * A loop that is slower than the changes is told, for each key, what they amount to. Completes when the view is closed; its error is why the
   * view failed.
   *
   * @example
   * ```ts
   * view.changes().subscribe((change) => {
   *   if (change.type === 'removed') console.log(`${change.old.key} is gone`);
   * });
   * ```
   */
  changes(): Feed<ViewChange | ViewResync> {
    return this.#init.feed((sink) => {
      const follower = new ChangeFollower(sink, (cancelled) => this.#followers.delete(cancelled));
      this.#followers.add(follower);
      if (this.#isEnded) this.#endFollower(follower);
      return follower;
    });
  }

  /**
   * The present {@link ViewState}, then each change of it. Completes when the view has failed or was closed.
   *
   * @example
   * ```ts
   * view.status().subscribe((status) => {
   *   if (status.state === 'stale') console.log(`perhaps behind: ${status.reason}`);
   * });
   * ```
   */
  status(): Feed<ViewState> {
    return this.#init.feed((sink) => {
      this.#watchers.add(sink);
      sink.next(this.#state);
      if (this.#isEnded) sink.complete();
      return { cancel: () => void this.#watchers.delete(sink), pause() {}, resume() {} };
    });
  }

  /**
   * Ends the view: it is not followed any more, and cannot be read.
   *
   * @example
   * ```ts
   * await view.close();
   * console.log(view.state.state); // closed
   * ```
   */
  async close(): Promise<void> {
    this.#end({ state: 'closed' });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #isEnded(): boolean {
    return this.#state.state === 'failed' || this.#state.state === 'closed';
  }

  #onList(kvs: readonly WireKeyValue[], revision: number, askedAt: number): void {
    const isFirst = !this.#hasContent;
    this.#hasContent = true;
    this.#freshAt = askedAt;
    this.#change(revision, () => {
      const changes = this.#store.replace(kvs, BigInt(revision));
      return isFirst ? changes : [{ type: 'resync', revision: BigInt(revision) }, ...changes];
    });
  }

  #onEvents(events: readonly Event[], revision: number): void {
    this.#change(revision, () => events.map((event) => this.#store.apply(event)).filter((change) => change !== undefined));
  }

  /** Takes the view to a revision. All of it is done before anybody is told. */
  #change(revision: number, make: () => readonly (ViewChange | ViewResync)[]): void {
    let changes: readonly (ViewChange | ViewResync)[];
    try {
      changes = make();
    } catch (cause) {
      const error = new ConclaveError({ code: 'invalid-argument', message: 'an index function threw', outcome: 'not-applied', cause });
      this.#end({ state: 'failed', error });
      return;
    }
    this.#revision = revision;
    if (changes.length > 0) for (const follower of [...this.#followers]) follower.tell(changes);
    this.#waiters.reached(revision);
  }

  /** Reads where the store is, and waits until the view is there. */
  async #freshen(maxStaleMs: number, deadline: number, signal: AbortSignal | undefined): Promise<void> {
    if (!(maxStaleMs >= 0)) throw invalidArgument(`maxStaleMs must not be ${maxStaleMs}`);
    const { engine, ranges } = this.#init;
    const askedAt = engine.runtime.monotonic();
    if (askedAt - this.#freshAt < maxStaleMs) return;
    const revision = await new Promise<number>((resolve, reject) => {
      // One key of a range is as good as all of it, which the server would count.
      const request = { key: ranges[0]?.key ?? noBytes, limit: 1, keysOnly: true };
      engine.start(readRevision, request, undefined, { deadlineMs: Math.max(0, deadline - askedAt), signal }, resolve, reject);
    });
    await this.#wait(revision, deadline, signal);
    this.#freshAt = Math.max(this.#freshAt, askedAt);
  }

  async #wait(revision: number, deadline: number, signal: AbortSignal | undefined): Promise<void> {
    this.#assertUsable();
    if (this.#revision >= revision) return;
    const reached = this.#waiters.wait(revision, deadline, signal);
    this.#follower.ask();
    await reached;
  }

  #setState(state: ViewState): void {
    if (this.#isEnded) return;
    this.#state = state;
    for (const sink of [...this.#watchers]) sink.next(state);
  }

  #end(state: ViewState): void {
    if (this.#isEnded) return;
    this.#setState(state);
    this.#follower.close();
    this.#init.onClose(this);
    this.#waiters.fail(this.#endError());
    for (const follower of [...this.#followers]) this.#endFollower(follower);
    for (const sink of [...this.#watchers]) sink.complete();
  }

  #endFollower(follower: ChangeFollower): void {
    if (this.#state.state === 'failed') follower.error(this.#state.error);
    else follower.complete();
  }

  #assertUsable(): void {
    if (this.#isEnded) throw this.#endError();
  }

  #endError(): ConclaveError {
    if (this.#state.state === 'failed') return this.#state.error;
    return new ConclaveError({ code: 'view-closed', message: 'the view is closed', outcome: 'not-applied' });
  }
}
