import type { Feed } from '../rx/feed.ts';
import type { Verbs } from '../verbs.ts';

/** A state that others follow: each is told the present one, then each change. Nothing comes after the last. */
export class StateTeller<State extends { readonly state: string }> {
  readonly #namespace: Pick<Verbs, 'feed'>;
  readonly #last: State['state'];
  readonly #listeners = new Set<(state: State) => void>();
  #state: State;

  constructor(namespace: Pick<Verbs, 'feed'>, first: State, last: State['state']) {
    this.#namespace = namespace;
    this.#state = first;
    this.#last = last;
  }

  get state(): State {
    return this.#state;
  }

  get isOver(): boolean {
    return this.#state.state === this.#last;
  }

  /** What is the same as before is not told again, unless there is more to it than its name. */
  tell(state: State): void {
    if (this.isOver || isSame(state, this.#state)) return;
    this.#state = state;
    for (const listener of [...this.#listeners]) {
      // A listener before may have changed it: the later ones have been told of that already, and it must stay their last word.
      if (this.#state !== state) return;
      listener(state);
    }
  }

  /** Calls back with the present state, before this returns, and with each that follows. */
  follow(listener: (state: State) => void): () => void {
    this.#listeners.add(listener);
    listener(this.#state);
    return () => void this.#listeners.delete(listener);
  }

  status(): Feed<State> {
    return this.#namespace.feed((sink) => {
      const cancel = this.follow((state) => {
        sink.next(state);
        if (state.state === this.#last) sink.complete();
      });
      return { cancel, pause() {}, resume() {} };
    });
  }
}

function isSame(one: object, other: object): boolean {
  return (
    Object.keys(one).length === 1 && Object.keys(other).length === 1 && 'state' in one && 'state' in other && one.state === other.state
  );
}
