/** Virtual time: what lies in the future, by time and then by the order in which it was planned. */

interface Event {
  readonly at: number;
  readonly order: number;
  readonly act: () => void;
}

export class Timeline {
  #now = 0;
  #order = 0;
  /** A binary heap. */
  readonly #events: Event[] = [];

  get now(): number {
    return this.#now;
  }

  /** Lets time pass up to `end`, or until the condition holds. @returns whether it does. */
  run(end: number, until: () => boolean): boolean {
    while (this.#events.length > 0 && this.#events[0]!.at <= end) {
      const event = this.#pop();
      this.#now = event.at;
      event.act();
      if (until()) return true;
    }
    this.#now = end;
    return until();
  }

  later(delay: number, act: () => void): void {
    this.#order += 1;
    const event = { at: this.#now + Math.max(1, delay), order: this.#order, act };
    const heap = this.#events;
    let at = heap.push(event) - 1;
    while (at > 0 && isBefore(event, heap[(at - 1) >> 1]!)) {
      heap[at] = heap[(at - 1) >> 1]!;
      at = (at - 1) >> 1;
    }
    heap[at] = event;
  }

  #pop(): Event {
    const heap = this.#events;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Chance that a seed repeats. */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
