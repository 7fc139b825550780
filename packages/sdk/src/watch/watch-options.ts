import type { Integer } from '../kv/text.ts';
import type { WatchCreated, WatchEvent, WatchProgress, WatchResync } from './watch-event.ts';

export interface WatchOptions {
  /**
   * The first revision whose changes are told, past or future. Default: from now, that is everything after a linearizable read which each
   * subscription makes when it starts. If that history is gone, see {@link onCompacted}.
   */
  readonly startRevision?: Integer | undefined;
  /** Tell the key as it was before each change, too. Default: false. */
  readonly prevKv?: boolean | undefined;
  /** Changes not to tell. Default: none. */
  readonly ignore?: 'put' | 'delete' | undefined;
  /** Emit a {@link WatchCreated} when the server has begun to watch, once. Default: false. */
  readonly notifyCreated?: boolean | undefined;
  /** Have the server tell how far it is while nothing changes, and emit {@link WatchProgress}. Default: false. */
  readonly progressNotify?: boolean | undefined;
  /**
   * Let the server cut a batch of more than 1.5 MB into several messages; revisions are put together again before anything is emitted. Default: true.
   *
   * etcd takes time that grows with the square of the number of events to do so: 20,000 small ones, made by transactions of 125, come in 1.7 s, and
   * without it in 0.1 s. Without it a batch, which is of up to 1000 revisions, comes whole and is in memory whole.
   */
  readonly fragment?: boolean | undefined;
  /**
   * What happens when a `for await` is so slow that {@link bufferedEventsMax} events or {@link bufferedBytesMax} wait for it:
   *
   * - `pause`: the server is held back until half of them are taken. Nothing is lost. A loop that is held back for long falls behind the history
   *   that the server keeps, and ends with `compacted` once that is gone.
   * - `conflate`: of each key only its last event goes on waiting, and says in {@link WatchEvent.conflated} how many are left out. The order of
   *   revisions stays, what belongs to one transaction may come apart. If that frees less than half, the server is held back as well.
   * - `fail`: the loop is given what waits and then ends with `watch-overflow`, whose details say from where another watch can go on.
   *
   * Observers are called as events come, so that nothing waits for them: see {@link Watch.pause}. Default: `pause`.
   */
  readonly overflow?: 'pause' | 'conflate' | 'fail' | undefined;
  /** How many events may wait for a slow `for await`, at least 1. The events of one revision are not torn apart. Default: 1000. */
  readonly bufferedEventsMax?: number | undefined;
  /** How many bytes of keys and values may wait for a slow `for await`, at least 1. Default: 16 MiB. */
  readonly bufferedBytesMax?: number | undefined;
  /**
   * What happens when the server compacted away what the watch has still to tell, as it was cut off or held back for long, or starts that early:
   *
   * - `fail`: it ends with `compacted`.
   * - `relist`: the range is read page by page, all at one revision. The watch emits a {@link WatchResync}; then one put for each key that was written
   *   since what was told last, in the order of their `modRevision`; then one deletion for each key that is gone; all of that revision, and marked as
   *   {@link WatchEvent.isSynthesised}, with `prevKv` undefined. Then it goes on after that revision. What came and went in between is not told.
   *
   * To know what is gone, `relist` keeps the keys of the range, their bytes and some 60 more for each, and reads them once, without values, before
   * it starts. A watch whose `startRevision` lies in the future, or in history that is gone already, cannot know them: its first resync has the
   * scope `everything`. With `ignore: 'delete'` nothing is kept or read at the start; with `ignore: 'put'` the server sends the puts all the same,
   * and where `everything` would have to be told the watch ends with `compacted`. While a range is read anew all of it is in memory.
   *
   * Default: `fail`.
   */
  readonly onCompacted?: 'fail' | 'relist' | undefined;
  /** Ends the watch with the error `cancelled` when aborted. To just stop, unsubscribe, leave the loop, or close the watch. */
  readonly signal?: AbortSignal | undefined;
}

type WhenAsked<Asked, Kind> = Asked extends false | 'fail' | undefined ? never : Kind;

/** What a watch with these options emits. */
export type WatchEmission<Options extends WatchOptions> =
  | WatchEvent
  | WhenAsked<Options extends { notifyCreated: infer Asked } ? Asked : undefined, WatchCreated>
  | WhenAsked<Options extends { progressNotify: infer Asked } ? Asked : undefined, WatchProgress>
  | WhenAsked<Options extends { onCompacted: infer Asked } ? Asked : undefined, WatchResync>;
