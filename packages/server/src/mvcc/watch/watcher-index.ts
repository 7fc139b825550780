import { IntervalTree } from './interval-tree.ts';
import { type KeyString, Subscription, type WatchedKeys, type Watcher, type WatchForm } from './watcher.ts';

/**
 * Watchers by the keys they want. To find those of one key takes a look into a map and a walk down a tree, however many watchers there are:
 * O(log n) for each distinct range that holds the key.
 */
export class WatcherIndex {
  readonly #all = new Set<Watcher>();
  readonly #singles = new Map<KeyString, Subscription[]>();
  readonly #ranges = new IntervalTree<Subscription[]>();

  get size(): number {
    return this.#all.size;
  }

  /** Those in it at the moment of the call. */
  all(): readonly Watcher[] {
    return [...this.#all];
  }

  add(watcher: Watcher): void {
    const subscription = this.#subscriptionFor(watcher.keys, watcher.form);
    subscription.watchers.add(watcher);
    watcher.subscription = subscription;
    this.#all.add(watcher);
  }

  /** The watcher must be in this index. */
  delete(watcher: Watcher): void {
    const subscription = watcher.subscription;
    if (subscription === undefined || !subscription.watchers.delete(watcher)) throw new Error('watcher is not in the index');
    watcher.subscription = undefined;
    this.#all.delete(watcher);
    if (subscription.watchers.size === 0) this.#forget(subscription);
  }

  /** Calls `visit` for every subscription whose keys include `key`. The index must not change meanwhile. */
  match(key: KeyString, visit: (subscription: Subscription) => void): void {
    const singles = this.#singles.get(key);
    if (singles !== undefined) for (const subscription of singles) visit(subscription);
    this.#ranges.stab(key, (subscriptions) => {
      for (const subscription of subscriptions) visit(subscription);
    });
  }

  #subscriptionFor(keys: WatchedKeys, form: WatchForm): Subscription {
    let slot = this.#slot(keys);
    if (slot === undefined) {
      slot = [];
      if (keys.single) this.#singles.set(keys.start, slot);
      else this.#ranges.set(keys.start, keys.end, slot);
    }
    let subscription = slot.find((candidate) => isSameForm(candidate.form, form));
    if (subscription === undefined) {
      subscription = new Subscription(keys, form);
      slot.push(subscription);
    }
    return subscription;
  }

  #slot(keys: WatchedKeys): Subscription[] | undefined {
    return keys.single ? this.#singles.get(keys.start) : this.#ranges.get(keys.start, keys.end);
  }

  #forget(subscription: Subscription): void {
    const { keys } = subscription;
    const slot = this.#slot(keys);
    if (slot === undefined) return;
    slot.splice(slot.indexOf(subscription), 1);
    if (slot.length > 0) return;
    if (keys.single) this.#singles.delete(keys.start);
    else this.#ranges.delete(keys.start, keys.end);
  }
}

function isSameForm(a: WatchForm, b: WatchForm): boolean {
  return a.wantsPuts === b.wantsPuts && a.wantsDeletes === b.wantsDeletes && a.prevKv === b.prevKv && a.fragment === b.fragment;
}
