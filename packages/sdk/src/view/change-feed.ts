import { idOf } from '../kv/text.ts';
import type { FeedSink, FeedSource } from '../rx/feed.ts';
import { merged, type ViewChange, type ViewResync } from './view-change.ts';

/**
 * One who follows a view's changes. While held back it is told nothing, and afterwards what the changes of each key amount to: what waits is
 * never more than the view holds and held.
 */
export class ChangeFollower implements FeedSource {
  readonly #sink: FeedSink<ViewChange | ViewResync>;
  readonly #onCancel: (follower: ChangeFollower) => void;
  readonly #pending = new Map<string, ViewChange>();
  #resync: ViewResync | undefined;
  #isPaused = false;

  constructor(sink: FeedSink<ViewChange | ViewResync>, onCancel: (follower: ChangeFollower) => void) {
    this.#sink = sink;
    this.#onCancel = onCancel;
  }

  tell(changes: readonly (ViewChange | ViewResync)[]): void {
    for (const change of changes) {
      if (this.#isPaused) this.#keep(change);
      else this.#sink.next(change);
    }
  }

  error(error: unknown): void {
    this.#sink.error(error);
  }

  complete(): void {
    this.#sink.complete();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    if (this.#resync !== undefined) {
      const resync = this.#resync;
      this.#resync = undefined;
      this.#sink.next(resync);
    }
    for (const [id, change] of this.#pending) {
      if (this.#isPaused) return;
      this.#pending.delete(id);
      this.#sink.next(change);
    }
  }

  cancel(): void {
    this.#pending.clear();
    this.#onCancel(this);
  }

  #keep(change: ViewChange | ViewResync): void {
    if (change.type === 'resync') {
      this.#resync = change;
      return;
    }
    const id = idOf((change.kv ?? change.old).keyBytes);
    const before = this.#pending.get(id);
    const net = before === undefined ? change : merged(before, change);
    if (net === undefined) this.#pending.delete(id);
    else this.#pending.set(id, net);
  }
}
