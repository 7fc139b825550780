import type { RequestOptions } from '../connection/procedure.ts';
import { MappedFeed } from '../rx/feed.ts';
import type { Watch } from '../rx/watch.ts';
import type { WatchEmission, WatchOptions } from '../watch/watch-options.ts';

type Stored = WatchEmission<WatchOptions>;

/**
 * The changes of a space, as its `watch` gives them: an rxjs Observable that also iterates, like that of `client.watch`.
 *
 * @example
 * ```ts
 * const scores = client.space('scores/', json());
 * const changes = scores.watch();
 * changes.subscribe(async ({ key }) => {
 *   changes.pause(); // at most the few changes come that are already here
 *   await client.put(`seen/${key}`, 'yes');
 *   changes.resume();
 * });
 * changes.close(); // completes every subscription and loop
 * ```
 */
export class EntryWatch<T> extends MappedFeed<Stored, T> {
  readonly #watch: Watch<Stored>;

  /** @internal */
  constructor(watch: Watch<Stored>, map: (emitted: Stored) => T | Promise<T>) {
    super(watch, map);
    this.#watch = watch;
  }

  /** Holds the server back, for every subscription and loop, present and future. Those changes still come that are already here. Idempotent. */
  pause(): void {
    this.#watch.pause();
  }

  /** Ends {@link EntryWatch.pause}. Nothing was lost meanwhile. Idempotent. */
  resume(): void {
    this.#watch.resume();
  }

  /**
   * Asks the server how far it is, and gives a revision up to which every change was told, also where values take time to read. See
   * `requestProgress` of `client.watch`.
   *
   * @throws ConclaveError `invalid-argument` when nobody has subscribed, `unimplemented` with servers before 3.4.25 and 3.5.8, whose word on this
   * cannot be believed, `deadline-exceeded` also while the watch is held back, `cancelled`, and what ends the watch
   * @example
   * ```ts
   * const scores = client.space('scores/', json()).watch(undefined, { startRevision: 1 });
   * scores.subscribe(({ key }) => console.log(key));
   * console.log(`all up to ${await scores.requestProgress()} has been told`);
   * ```
   */
  async requestProgress(options?: RequestOptions): Promise<bigint> {
    const limit = this.#watch.limit(options);
    const revision = await this.#watch.requestProgress(options);
    await limit.until(this.told());
    return revision;
  }
}
