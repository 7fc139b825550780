import type { Backend, BackendView, Changes, Row, ScanOptions, StoreBounds, Table } from '@conclave/server';

/**
 * A backend whose commits do nothing until they are released: with nothing ever released, a member whose disk hangs. Everything applied then stays
 * in memory, so reads must be right from the two generations alone.
 *
 * A store over it is full once its filling generation reaches the bound, and its `close` waits for {@link releaseAll}.
 */
export class StalledBackend implements Backend {
  readonly #inner: Backend;
  #passing: number;
  #held: (() => void)[] = [];
  #isReleased = false;
  #failure: Error | undefined;

  /** @param passing - how many commits are let through first: a member's start makes one. */
  constructor(inner: Backend, passing = 0) {
    this.#inner = inner;
    this.#passing = passing;
  }

  /** Commits waiting. Never more than one if the store keeps its word. */
  get held(): number {
    return this.#held.length;
  }

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    return this.#inner.get(table, key);
  }

  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options?: ScanOptions): Iterable<Row> {
    return this.#inner.scan(table, start, end, options);
  }

  count(table: Table): number {
    return this.#inner.count(table);
  }

  view(): BackendView {
    return this.#inner.view();
  }

  commit(changes: Changes): Promise<void> {
    return new Promise((resolve, reject) => {
      const run = (): void => {
        if (this.#failure !== undefined) reject(this.#failure);
        else this.#inner.commit(changes).then(resolve, reject);
      };
      if (this.#isReleased || this.#passing-- > 0) run();
      else this.#held.push(run);
    });
  }

  /** Lets the commit that waits go through. */
  releaseOne(): void {
    this.#held.shift()?.();
  }

  /** Lets everything through from now on. */
  releaseAll(): void {
    this.#isReleased = true;
    for (const run of this.#held.splice(0)) run();
  }

  /** The commit that waits is rejected, and every one after it, with nothing of them written. */
  fail(failure: Error): void {
    this.#failure = failure;
    this.releaseAll();
  }

  size(): { readonly total: number; readonly inUse: number } {
    return this.#inner.size();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

/** Bounds with which a store commits every entry by itself: it flushes at once and is full until that flush is durable. */
export const commitPerEntry: StoreBounds = { flushDelayMs: 0, flushBytes: 0, generationBytesMax: 0 };
