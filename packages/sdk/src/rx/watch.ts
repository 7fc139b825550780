import type { Event } from '@conclave/protocol';
import { onAbort } from '../connection/abort.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import type { KeyPrefix } from '../kv/key-range.ts';
import type { QueueBounds, Source } from '../watch/event-queue.ts';
import type { Emission } from '../watch/overflow.ts';
import { toWatchEvent, WatchEvent } from '../watch/watch-event.ts';
import type { WatchHandle, WatchHub } from '../watch/watch-hub.ts';
import type { WatchOptions } from '../watch/watch-options.ts';
import type { WatchSink, WatchSpec } from '../watch/watcher.ts';
import { Feed, type FeedSink } from './feed.ts';

/** What each run of a watch is made from. */
export interface WatchPlan {
  readonly hub: WatchHub;
  readonly prefix: KeyPrefix;
  readonly spec: WatchSpec;
  /** Undefined: from now. */
  readonly startRevision: number | undefined;
  readonly options: WatchOptions;
  readonly bounds: QueueBounds<Emission>;
}

/**
 * The changes of one key or a range, as `client.watch` gives them: an rxjs Observable that also iterates.
 *
 * Each subscription and each loop is a watch of its own. A loop that is slow holds the server back, or does as `overflow` says. A subscriber is
 * called as events come, as Observables have no way to ask for time: where it starts work that takes some, it pauses the watch meanwhile.
 *
 * @example
 * ```ts
 * const watch = client.watch(prefix('config/'));
 * watch.subscribe(async (event) => {
 *   watch.pause(); // at most the few events come that are already here
 *   await apply(event);
 *   watch.resume();
 * });
 * ```
 */
export class Watch<T = WatchEvent> extends Feed<T> {
  readonly #runs: Set<Run>;
  readonly #held: { isPaused: boolean };

  /** @internal */
  constructor(plan: WatchPlan) {
    const runs = new Set<Run>();
    const held = { isPaused: false };
    const open = (sink: FeedSink<Emission>): Source => {
      const run = new Run(plan, sink, (ended) => runs.delete(ended));
      runs.add(run);
      run.start(held.isPaused);
      return run;
    };
    // What is emitted is what the options ask for: the type says which of these that are.
    super(open as (sink: FeedSink<T>) => Source, plan.bounds as QueueBounds<unknown> as QueueBounds<T>);
    this.#runs = runs;
    this.#held = held;
  }

  /** Holds the server back, for every subscription and loop, present and future. Those events still come that are already here. Idempotent. */
  pause(): void {
    this.#held.isPaused = true;
    for (const run of this.#runs) run.hold();
  }

  /** Ends {@link Watch.pause}. Nothing was lost meanwhile. Idempotent. */
  resume(): void {
    this.#held.isPaused = false;
    for (const run of [...this.#runs]) run.release();
  }

  /**
   * Asks the server how far it is, and gives a revision up to which every change was told: to subscribers, and to loops or what waits for them. With
   * `progressNotify`, each of them is also told so in its place among the events, as {@link WatchProgress}.
   *
   * The revision is that of the member which serves the watch, and a member can be behind. From the first time on the watch has a stream of its own.
   *
   * @throws ConclaveError `invalid-argument` when nobody has subscribed, `unimplemented` with servers before 3.4.25 and 3.5.8, whose word on this
   * cannot be believed, `deadline-exceeded` also while the watch is held back, `cancelled`, and what ends the watch
   * @example
   * ```ts
   * const watch = client.watch(prefix('config/'), { startRevision: 1 });
   * watch.subscribe(apply);
   * console.log(`all up to ${await watch.requestProgress()} has been applied`);
   * ```
   */
  async requestProgress(options?: RequestOptions): Promise<bigint> {
    if (this.#runs.size === 0) throw invalidArgument('nobody has subscribed to the watch');
    const revisions = await Promise.all([...this.#runs].map((run) => run.requestProgress(options)));
    return BigInt(Math.min(...revisions));
  }
}

/** One subscription or loop. */
class Run implements WatchSink, Source {
  readonly #plan: WatchPlan;
  readonly #sink: FeedSink<Emission>;
  readonly #onEnd: (run: Run) => void;
  #handle: WatchHandle | undefined;
  #stopListening: (() => void) | undefined;
  /** Held back by a slow loop. */
  #isPaused = false;
  /** Held back by the user. */
  #isHeld = false;

  constructor(plan: WatchPlan, sink: FeedSink<Emission>, onEnd: (run: Run) => void) {
    this.#plan = plan;
    this.#sink = sink;
    this.#onEnd = onEnd;
  }

  start(isHeld: boolean): void {
    const { hub, spec, startRevision, options } = this.#plan;
    const { signal } = options;
    this.#handle = hub.watch(spec, startRevision, this);
    if (isHeld) this.hold();
    if (signal?.aborted === true) this.#abort(signal);
    else if (signal !== undefined) this.#stopListening = onAbort(signal, () => this.#abort(signal));
  }

  onCreated(revision: number): void {
    if (this.#plan.options.notifyCreated === true) this.#sink.next({ type: 'created', revision: BigInt(revision) });
  }

  onEvents(events: readonly Event[]): void {
    for (const event of events) this.#sink.next(toWatchEvent(event, this.#plan.prefix));
  }

  onProgress(revision: number): void {
    if (this.#plan.spec.progressNotify) this.#sink.next({ type: 'progress', revision: BigInt(revision) });
  }

  onFailure(error: ConclaveError): void {
    this.#end();
    this.#sink.error(error);
  }

  onClosed(): void {
    this.#end();
    this.#sink.complete();
  }

  hold(): void {
    this.#isHeld = true;
    this.#handle?.pause();
  }

  release(): void {
    this.#isHeld = false;
    if (!this.#isPaused) this.#handle?.resume();
  }

  pause(): void {
    this.#isPaused = true;
    this.#handle?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    if (!this.#isHeld) this.#handle?.resume();
  }

  requestProgress(options: RequestOptions | undefined): Promise<number> {
    // Started by the constructor's caller before anybody can ask.
    return (this.#handle as WatchHandle).requestProgress(options);
  }

  cancel(): void {
    this.#end();
    this.#handle?.cancel();
  }

  #abort({ reason }: AbortSignal): void {
    this.cancel();
    this.#sink.error(new ConclaveError({ code: 'cancelled', message: 'the watch was cancelled', outcome: 'not-applied', cause: reason }));
  }

  #end(): void {
    this.#stopListening?.();
    this.#onEnd(this);
  }
}

/** About what an event keeps in memory. */
export function sizeOf(event: Emission): number {
  if (!(event instanceof WatchEvent)) return 0;
  const { kv, prevKv } = event;
  return kv.keyBytes.length + kv.valueBytes.length + (prevKv?.valueBytes.length ?? 0);
}
