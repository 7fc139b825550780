import { KeyRange } from '@conclave/protocol';
import { onAbort } from '../connection/abort.ts';
import { drawId } from '../connection/draw-id.ts';
import type { Engine } from '../connection/engine.ts';
import { invalidArgument, isConclaveError } from '../errors/conclave-error.ts';
import type { Comparison } from '../kv/comparison.ts';
import type { KeyPrefix, Target, WireRange } from '../kv/key-range.ts';
import { KeyValue } from '../kv/key-value.ts';
import { pinnedList } from '../kv/pinned-list.ts';
import { type Key, noBytes, toCounter } from '../kv/text.ts';
import type { Operation } from '../kv/txn-result.ts';
import type { Verbs } from '../verbs.ts';
import { type Delivery, DeliveryQueue, type ResyncDelivery } from './delivery.ts';
import { DurableCursor } from './durable-cursor.ts';
import type { WatchHandle, WatchHub } from './watch-hub.ts';

export interface ConsumeOptions {
  /** The key that remembers how far this consumer has come, outside of what it follows. One for each kind of consumer. */
  readonly cursor: Key;
  /**
   * Where to start while the cursor is not there: with everything that is there (a {@link ResyncDelivery}), or with what happens from now on.
   * Default: `existing`.
   */
  readonly start?: 'existing' | 'now' | undefined;
  /** Conditions of every effect, such as the guard of a lock or of a session. One that does not hold ends it with `guard-failed`. Default: none. */
  readonly guards?: readonly Comparison[] | undefined;
  /** How many events a delivery may have, 1 or more; a revision that has more comes whole. Default: 1, so that each revision comes alone. */
  readonly eventsMax?: number | undefined;
  /** Tell the keys as they were before each change, too. Default: false. */
  readonly prevKv?: boolean | undefined;
  /** Ends it when aborted: the call resolves. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Says what to write for a delivery, together with the cursor; undefined: nothing. `signal` aborts when the consumer is told to stop, and then
 * nothing is written.
 */
export type ConsumeBody = (
  delivery: Delivery,
  signal: AbortSignal,
) => Promise<readonly Operation[] | undefined> | readonly Operation[] | undefined;

/** Above so many events that wait the server is held back. */
const waitingMax = 1_000;

/** What consumers are made with. */
export interface ConsumerSource {
  readonly engine: Engine;
  readonly watches: WatchHub;
}

/** Follows a range, delivery by delivery, and writes the effect of each together with the cursor that says so. */
export class Consumer {
  readonly #source: ConsumerSource;
  readonly #prefix: KeyPrefix;
  readonly #range: WireRange;
  readonly #options: ConsumeOptions;
  readonly #eventsMax: number;
  readonly #body: ConsumeBody;
  readonly #cursor: DurableCursor;
  readonly #life = new AbortController();
  #queue = new DeliveryQueue();
  #handle: WatchHandle | undefined;
  #isHeldBack = false;
  /** Why the watch ended. */
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => {};

  constructor(source: ConsumerSource, namespace: Verbs, prefix: KeyPrefix, target: Target, options: ConsumeOptions, body: ConsumeBody) {
    const { cursor, eventsMax = 1, start = 'existing' } = options;
    this.#source = source;
    this.#prefix = prefix;
    this.#range = prefix.range(target);
    this.#options = options;
    this.#eventsMax = toCounter(eventsMax, 'eventsMax');
    this.#body = body;
    if (this.#eventsMax === 0) throw invalidArgument('eventsMax must be 1 or more');
    if (start !== 'existing' && start !== 'now') throw invalidArgument(`start must be existing or now, not ${start}`);
    if (KeyRange.fromWire(this.#range.key, this.#range.rangeEnd).contains(prefix.key(cursor)))
      throw invalidArgument('the cursor must not be among the keys that are consumed');
    this.#cursor = new DurableCursor(source.engine, namespace, cursor, drawId(source.engine.runtime));
  }

  async run(): Promise<void> {
    const { signal } = this.#options;
    if (signal?.aborted === true) return;
    const stopListening = signal === undefined ? undefined : onAbort(signal, () => this.#stop(signal.reason));
    try {
      await this.#consume();
    } catch (error) {
      // What was under way when it was told to stop is in the cursor, or is not: the next run finds out.
      if (!this.#life.signal.aborted) throw error;
    } finally {
      stopListening?.();
      this.#handle?.cancel();
    }
  }

  #stop(reason: unknown): void {
    this.#life.abort(reason);
    this.#wake();
  }

  async #consume(): Promise<void> {
    const { signal } = this.#life;
    await this.#cursor.read(signal);
    if (this.#cursor.revision === undefined) await this.#resync('started');
    this.#watch();
    while (!signal.aborted) {
      if (!this.#queue.isEmpty) {
        const delivery = this.#queue.take(this.#eventsMax, this.#prefix);
        this.#holdBack();
        await this.#deliver(delivery);
      } else if (this.#failure !== undefined) {
        const { error } = this.#failure;
        if (!isConclaveError(error, 'compacted')) throw error;
        await this.#resync('compacted');
        this.#watch();
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  async #resync(reason: ResyncDelivery['reason']): Promise<void> {
    const { signal } = this.#life;
    if (reason === 'started' && this.#options.start === 'now') {
      // Without a cursor a restart would begin anew, and what happened meanwhile be lost.
      const { revision } = await pinnedList(this.#source.engine, [{ ...this.#range, rangeEnd: noBytes }], signal);
      await this.#cursor.move(BigInt(revision), this.#options.guards ?? [], [], signal);
      return;
    }
    const { revision, kvs } = await pinnedList(this.#source.engine, [this.#range], signal);
    const found = (kvs[0] ?? []).map((kv) => new KeyValue(kv, this.#prefix));
    await this.#deliver({ type: 'resync', reason, revision: BigInt(revision), kvs: found });
  }

  async #deliver(delivery: Delivery): Promise<void> {
    const { signal } = this.#life;
    const isEmpty = delivery.type === 'events' && delivery.events.length === 0;
    const operations = isEmpty ? undefined : await this.#body(delivery, signal);
    if (signal.aborted) return;
    await this.#cursor.move(delivery.revision, this.#options.guards ?? [], operations ?? [], signal);
  }

  #watch(): void {
    this.#handle?.cancel();
    this.#queue = new DeliveryQueue();
    this.#failure = undefined;
    this.#isHeldBack = false;
    const queue = this.#queue;
    const { prevKv = false } = this.#options;
    const spec = { ...this.#range, prevKv, ignore: undefined, progressNotify: true, fragment: true };
    const start = Number(this.#cursor.revision ?? 0n) + 1;
    const fail = (error: unknown): void => {
      this.#failure = { error };
      this.#wake();
    };
    this.#handle = this.#source.watches.watch(spec, start, {
      onCreated: () => {},
      onEvents: (events) => {
        queue.push(events);
        this.#holdBack();
        this.#wake();
      },
      // So that a cursor does not grow old while nothing happens, and is compacted away for that.
      onProgress: (revision) => {
        if (BigInt(revision) <= (this.#cursor.revision ?? 0n)) return;
        queue.pass(revision);
        this.#wake();
      },
      onFailure: fail,
      onClosed: () => fail(this.#source.engine.closedError()),
    });
  }

  #holdBack(): void {
    const isTooMuch = this.#queue.size > (this.#isHeldBack ? waitingMax / 2 : waitingMax);
    if (isTooMuch === this.#isHeldBack) return;
    this.#isHeldBack = isTooMuch;
    if (isTooMuch) this.#handle?.pause();
    else this.#handle?.resume();
  }
}
