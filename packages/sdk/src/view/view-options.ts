import type { RequestOptions } from '../connection/procedure.ts';
import type { KeyValue } from '../kv/key-value.ts';
import type { Integer } from '../kv/text.ts';

/** Under which values a key is to be found in an index: one, several, or none. Must depend on the key alone, and not throw. */
export type IndexFunction = (kv: KeyValue) => string | readonly string[] | undefined;

export interface ViewOptions<IndexName extends string = never> {
  /**
   * Until when the view must be complete for the first time, in milliseconds from now. Default: the client's `deadlineMs`. It has no effect
   * afterwards.
   */
  readonly deadlineMs?: number | undefined;
  /** Gives the view up before it is complete for the first time. It has no effect afterwards. */
  readonly signal?: AbortSignal | undefined;
  /** Ways to find keys by something else than their name, see {@link View.by}. */
  readonly indexes?: Readonly<Record<IndexName, IndexFunction>> | undefined;
  /**
   * After how long without the server's word that the view is up to date it counts as stale, in milliseconds. Three times as often the server
   * is asked. Default: 10,000; at least 1,000.
   */
  readonly staleAfterMs?: number | undefined;
}

/** How new what is read from a view must be. With neither `atLeast` nor `maxStaleMs` anything will do. */
export interface ViewReadOptions extends RequestOptions {
  /** Wait until the view has reached this revision: that of a write, and the view shows the write. */
  readonly atLeast?: Integer | undefined;
  /**
   * Wait until the view shows everything that was written up to so many milliseconds ago, by anybody. 0: everything written before this call,
   * as a linearizable read does.
   */
  readonly maxStaleMs?: number | undefined;
}
