import type { Integer } from '../kv/text.ts';
import type { WatchCreated, WatchEvent, WatchProgress } from './watch-event.ts';

export interface WatchOptions {
  /**
   * The first revision whose changes are told, past or future. Default: from now, that is everything after a linearizable read which each
   * subscription makes when it starts. Fails with `compacted` if that history is gone.
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
  /** Let the server cut a big batch into several messages; they are put together again before anything is emitted. Default: true. */
  readonly fragment?: boolean | undefined;
  /** How many events may wait for a slow `for await` before the server is held back. Observers are never waited for. Default: 1000. */
  readonly bufferedEventsMax?: number | undefined;
  /** Ends the watch with the error `cancelled` when aborted. To just stop, unsubscribe, leave the loop, or close the watch. */
  readonly signal?: AbortSignal | undefined;
}

type WhenAsked<Asked, Kind> = Asked extends false | undefined ? never : Kind;

/** What a watch with these options emits. */
export type WatchEmission<Options extends WatchOptions> =
  | WatchEvent
  | WhenAsked<Options extends { notifyCreated: infer Asked } ? Asked : undefined, WatchCreated>
  | WhenAsked<Options extends { progressNotify: infer Asked } ? Asked : undefined, WatchProgress>;
