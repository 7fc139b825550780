/** Something that falls due. `dueAt` must not change while it is in a heap. */
export interface Due {
  dueAt: number;
}

/** A binary heap: the earliest on top. */
export class DeadlineHeap<T extends Due> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  clear(): void {
    this.#items.length = 0;
  }

  push(item: T): void {
    const items = this.#items;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (items[parent]!.dueAt <= item.dueAt) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  /** Drops all others. */
  retain(isKept: (item: T) => boolean): void {
    for (const item of this.#items.splice(0)) if (isKept(item)) this.push(item);
  }

  pop(): T | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (items.length > 0) this.#sink(last!);
    return top;
  }

  /** Puts `item` in the place of the top. */
  #sink(item: T): void {
    const items = this.#items;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child + 1 < items.length && items[child + 1]!.dueAt < items[child]!.dueAt) child += 1;
      if (child >= items.length || items[child]!.dueAt >= item.dueAt) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = item;
  }
}
