import type { Subscribable, Unsubscribable } from 'rxjs';
import { assertMarbles, type MarbleOptions, toldUntil } from './diagram.ts';
import type { Emission } from './emission.ts';

/** What an Observable does, with its times. Made by {@link TestCluster.record}. */
export class Recording<T> {
  readonly #emissions: Emission<T>[] = [];
  readonly #elapsedMs: () => number;
  readonly #subscription: Unsubscribable;
  #stoppedAtMs: number | undefined;

  /** @internal */
  constructor(source: Subscribable<T>, time: { monotonic(): number }, start: number = time.monotonic()) {
    const atMs = (): number => time.monotonic() - start;
    this.#elapsedMs = atMs;
    this.#subscription = source.subscribe({
      next: (value) => void this.#emissions.push({ kind: 'next', atMs: atMs(), value }),
      error: (error: unknown) => void this.#emissions.push({ kind: 'error', atMs: atMs(), error }),
      complete: () => void this.#emissions.push({ kind: 'complete', atMs: atMs() }),
    });
  }

  /** What it did so far. */
  get emissions(): readonly Emission<T>[] {
    return this.#emissions;
  }

  /** The values it emitted so far. */
  get values(): readonly T[] {
    return this.#emissions.flatMap((emission) => (emission.kind === 'next' ? [emission.value] : []));
  }

  /**
   * Compares what it did so far with a diagram, whose beginning is the moment at which it was subscribed to. See
   * {@link TestCluster.expectMarbles} for what diagrams say.
   *
   * @throws AssertionError with both diagrams and what differs; Error when the diagram goes on for longer than was recorded
   * @example
   * ```ts
   * import { map } from 'rxjs';
   *
   * const [one, two] = [c.record(client.watch('a')), c.record(client.watch('b').pipe(map(({ value }) => value)))];
   * await c.advance(20);
   * await c.run(client.put('b', 'x'));
   * await c.advance(20);
   * one.expectMarbles('----');
   * two.expectMarbles('--x-');
   * ```
   */
  expectMarbles(marbles: string, options: MarbleOptions = {}): void {
    assertMarbles(this.#emissions, marbles, options);
    const [lastsMs, recordedMs] = [toldUntil(marbles), this.#stoppedAtMs ?? this.#elapsedMs()];
    // Of what nobody waited for it cannot be said that nothing came.
    if (!this.#isOver && recordedMs < lastsMs)
      throw new Error(`the diagram says something about ${lastsMs} ms, and only ${recordedMs} ms are recorded`);
  }

  get #isOver(): boolean {
    return this.#emissions.some(({ kind }) => kind !== 'next');
  }

  /**
   * Unsubscribes. What is recorded stays.
   *
   * @example
   * ```ts
   * const seen = c.record(client.watch('a'));
   * seen.stop();
   * await c.run(client.put('a', '1'));
   * console.log(seen.values.length); // 0
   * ```
   */
  stop(): void {
    this.#stoppedAtMs ??= this.#elapsedMs();
    this.#subscription.unsubscribe();
  }
}
