/** A timer that waits in a {@link TimerQueue}. */
export interface QueuedTimer {
  readonly due: number;
  /** Order of setting: breaks ties of equal due time. */
  readonly seq: number;
  readonly callback: () => void;
  isCancelled: boolean;
}

/** Binary heap of timers ordered by (due, seq). Cancelled ones are skipped when met, and swept out once they are the majority. */
export class TimerQueue {
  #heap: QueuedTimer[] = [];
  #cancelled = 0;

  get size(): number {
    return this.#heap.length - this.#cancelled;
  }

  push(timer: QueuedTimer): void {
    this.#heap.push(timer);
    this.#siftUp(this.#heap.length - 1);
  }

  cancel(timer: QueuedTimer): void {
    if (timer.isCancelled) return;
    timer.isCancelled = true;
    this.#cancelled++;
    if (this.#cancelled > 64 && this.#cancelled * 2 > this.#heap.length) this.#sweep();
  }

  /** The timer that is due next, left in the queue. */
  peek(): QueuedTimer | undefined {
    while (this.#heap[0]?.isCancelled) {
      this.#removeTop();
      this.#cancelled--;
    }
    return this.#heap[0];
  }

  /** Takes out what {@link peek} returned. From here on a cancel of it has no effect. */
  shift(): QueuedTimer | undefined {
    const top = this.peek();
    if (top === undefined) return undefined;
    this.#removeTop();
    top.isCancelled = true;
    return top;
  }

  #removeTop(): void {
    const last = this.#heap.pop();
    if (last === undefined || this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.#siftDown(0);
  }

  #sweep(): void {
    const kept = this.#heap.filter((timer) => !timer.isCancelled);
    // An array in ascending order is a valid heap.
    this.#heap = kept.sort((x, y) => (precedes(x, y) ? -1 : 1));
    this.#cancelled = 0;
  }

  #siftUp(from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!precedes(this.#heap[at]!, this.#heap[parent]!)) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #siftDown(from: number): void {
    let at = from;
    for (;;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < this.#heap.length && precedes(this.#heap[child]!, this.#heap[least]!)) least = child;
      }
      if (least === at) return;
      this.#swap(at, least);
      at = least;
    }
  }

  #swap(x: number, y: number): void {
    const held = this.#heap[x]!;
    this.#heap[x] = this.#heap[y]!;
    this.#heap[y] = held;
  }
}

function precedes(x: QueuedTimer, y: QueuedTimer): boolean {
  return x.due < y.due || (x.due === y.due && x.seq < y.seq);
}
