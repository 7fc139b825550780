import type { Event } from '@conclave/protocol';
import { onAbort } from '../connection/abort.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { TimeLimit } from '../connection/time-limit.ts';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import type { KeyPrefix } from '../kv/key-range.ts';
import type { QueueBounds, Source } from '../watch/event-queue.ts';
import type { Emission } from '../watch/overflow.ts';
import type { ResyncSink } from '../watch/relist.ts';
import { toWatchEvent, WatchEvent, type WatchResync } from '../watch/watch-event.ts';
import type { WatchHandle, WatchHub } from '../watch/watch-hub.ts';
import type { WatchSink, WatchSpec } from '../watch/watcher.ts';
import { Feed, type FeedSink } from './feed.ts';

/** What each subscription to a watch is made from. Kept small: there may be very many. */
export interface WatchPlan {
  readonly hub: WatchHub;
  readonly prefix: KeyPrefix;
  readonly spec: WatchSpec;
  /** Undefined: from now. */
  readonly startRevision: number | undefined;
  /** Read anew where history was compacted away. */
  readonly isRelisted: boolean;
  readonly notifyCreated: boolean;
  readonly signal: AbortSignal | undefined;
  /** Held back by the user. */
  isHeld: boolean;
}

/**
 * The changes of one key or a range, as `client.watch` gives them: an rxjs Observable that also iterates.
 *
 * Each subscription and each loop is a watch of its own. A loop that is slow holds the server back, or does as `overflow` says. A subscriber is
 * called as events come, as Observables have no way to ask for time: where it starts work that takes some, it pauses the watch meanwhile.
 *
 * @example
 * ```ts
 * const orders = client.watch(prefix('orders/'));
 * orders.subscribe(async ({ key }) => {
 *   orders.pause(); // at most the few events come that are already here
 *   await client.put(`seen/${key}`, 'yes');
 *   orders.resume();
 * });
 * orders.close(); // completes every subscription and loop
 * ```
 */
export class Watch<T = WatchEvent> extends Feed<T> {
  readonly #plan: WatchPlan;

  /** @internal */
  constructor(plan: WatchPlan, bounds: QueueBounds<Emission>) {
    const open = (sink: FeedSink<Emission>): Source => openRun(plan, sink);
    // What is emitted is what the options ask for: the type says which of these that are.
    super(open as (sink: FeedSink<T>) => Source, bounds as QueueBounds<unknown> as QueueBounds<T>);
    this.#plan = plan;
  }

  /** Holds the server back, for every subscription and loop, present and future. Those events still come that are already here. Idempotent. */
  pause(): void {
    this.#plan.isHeld = true;
    for (const run of this.#runs) run.update();
  }

  /** Ends {@link Watch.pause}. Nothing was lost meanwhile. Idempotent. */
  resume(): void {
    this.#plan.isHeld = false;
    for (const run of this.#runs) run.update();
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
   * const colors = client.watch('config/color', { startRevision: 1 });
   * colors.subscribe(({ value }) => console.log(value));
   * console.log(`all up to ${await colors.requestProgress()} has been told`);
   * ```
   */
  async requestProgress(options?: RequestOptions): Promise<bigint> {
    const runs = this.#runs;
    if (runs.length === 0) throw invalidArgument('nobody has subscribed to the watch');
    return BigInt(Math.min(...(await Promise.all(runs.map((run) => run.requestProgress(options))))));
  }

  /** @internal The time and the signal of a question that begins now. */
  limit(options: RequestOptions | undefined): TimeLimit {
    return new TimeLimit(this.#plan.hub.engine, options);
  }

  get #runs(): readonly Run[] {
    return this.sources as readonly Run[];
  }
}

function openRun(plan: WatchPlan, sink: FeedSink<Emission>): Run {
  const run = new Run(plan, sink);
  run.start();
  return run;
}

/** One subscription or loop. */
class Run implements WatchSink, ResyncSink, Source {
  readonly #plan: WatchPlan;
  readonly #sink: FeedSink<Emission>;
  #handle: WatchHandle | undefined;
  #stopListening: (() => void) | undefined;
  /** Held back by a slow loop. */
  #isPaused = false;

  constructor(plan: WatchPlan, sink: FeedSink<Emission>) {
    this.#plan = plan;
    this.#sink = sink;
  }

  start(): void {
    const { hub, spec, startRevision, isRelisted, signal } = this.#plan;
    this.#handle = hub.watch(spec, startRevision, this, isRelisted ? this : undefined);
    this.update();
    if (signal?.aborted === true) this.#abort(signal);
    else if (signal !== undefined) this.#stopListening = onAbort(signal, () => this.#abort(signal));
  }

  onCreated(revision: number): void {
    if (this.#plan.notifyCreated) this.#sink.next({ type: 'created', revision: BigInt(revision) });
  }

  onEvents(events: readonly Event[]): void {
    for (const event of events) this.#sink.next(toWatchEvent(event, this.#plan.prefix));
  }

  onProgress(revision: number): void {
    if (this.#plan.spec.progressNotify) this.#sink.next({ type: 'progress', revision: BigInt(revision) });
  }

  onResync(revision: number, scope: WatchResync['scope']): void {
    this.#sink.next({ type: 'resync', revision: BigInt(revision), scope });
  }

  onSynthesised(event: Event, revision: number): void {
    this.#sink.next(toWatchEvent(event, this.#plan.prefix, BigInt(revision)));
  }

  onFailure(error: ConclaveError): void {
    this.#stopListening?.();
    this.#sink.error(error);
  }

  onClosed(): void {
    this.#stopListening?.();
    this.#sink.complete();
  }

  pause(): void {
    this.#isPaused = true;
    this.update();
  }

  resume(): void {
    this.#isPaused = false;
    this.update();
  }

  /** Holds the server back for as long as the loop or the user want it. */
  update(): void {
    if (this.#isPaused || this.#plan.isHeld) this.#handle?.pause();
    else this.#handle?.resume();
  }

  requestProgress(options: RequestOptions | undefined): Promise<number> {
    // Started by the constructor's caller before anybody can ask.
    return (this.#handle as WatchHandle).requestProgress(options);
  }

  cancel(): void {
    this.#stopListening?.();
    this.#handle?.cancel();
  }

  #abort({ reason }: AbortSignal): void {
    this.cancel();
    this.#sink.error(new ConclaveError({ code: 'cancelled', message: 'the watch was cancelled', outcome: 'not-applied', cause: reason }));
  }
}

/** About what an event keeps in memory. */
export function sizeOf(event: Emission): number {
  if (!(event instanceof WatchEvent)) return 0;
  const { kv, prevKv } = event;
  return kv.keyBytes.length + kv.valueBytes.length + (prevKv?.valueBytes.length ?? 0);
}
