import { KeyRange } from '@conclave/protocol';
import { onAbort } from '../connection/abort.ts';
import type { Engine } from '../connection/engine.ts';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import type { KeyPrefix, Target, WireRange } from '../kv/key-range.ts';
import { View, type ViewInit } from './view.ts';
import type { ViewOptions } from './view-options.ts';

const staleAfterMsDefault = 10_000;
const staleAfterMsMin = 1_000;

/** All views of a client, which end with it. */
export class ViewHub {
  readonly #engine: Engine;
  readonly #feed: ViewInit['feed'];
  readonly #views = new Set<View<string>>();

  constructor(engine: Engine, feed: ViewInit['feed']) {
    this.#engine = engine;
    this.#feed = feed;
    engine.attach(this);
  }

  /** Makes a view, and gives it out when it is complete for the first time. */
  async open<IndexName extends string>(
    prefix: KeyPrefix,
    targets: Target | readonly Target[],
    options: ViewOptions<IndexName>,
  ): Promise<View<IndexName>> {
    const { signal, deadlineMs, indexes = {}, staleAfterMs = staleAfterMsDefault } = options;
    if (!(staleAfterMs >= staleAfterMsMin)) throw invalidArgument(`staleAfterMs must be ${staleAfterMsMin} or more, not ${staleAfterMs}`);
    const ranges = toRanges(prefix, targets);
    const deadline = this.#engine.deadlineOf(deadlineMs);
    if (this.#engine.isClosed) throw this.#engine.closedError();
    if (signal?.aborted === true) throw cancelled(signal);
    const onClose = (closed: View<string>): void => void this.#views.delete(closed);
    const view = new View<IndexName>({ engine: this.#engine, prefix, ranges, indexes, staleAfterMs, feed: this.#feed, onClose });
    this.#views.add(view);
    try {
      await this.#complete(view, deadline, signal);
      return view;
    } catch (error) {
      await view.close();
      throw error;
    }
  }

  close(): void {
    for (const view of [...this.#views]) void view.close();
  }

  #complete(view: View<string>, deadline: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (outcome: () => void): void => {
        timer?.cancel();
        stopListening?.();
        subscription.unsubscribe();
        outcome();
      };
      const leftMs = deadline - this.#engine.runtime.monotonic();
      const giveUp = (): void => settle(() => reject(late(view)));
      const timer = leftMs === Number.POSITIVE_INFINITY ? undefined : this.#engine.runtime.timer(Math.max(0, leftMs), giveUp);
      const stopListening = signal === undefined ? undefined : onAbort(signal, () => settle(() => reject(cancelled(signal))));
      // A new view has yet to ask its first question, so nothing is told within this call but that it is being listed.
      const subscription = view.status().subscribe((status) => {
        if (status.state === 'synced') settle(resolve);
        else if (status.state === 'failed') settle(() => reject(status.error));
        else if (status.state === 'closed') settle(() => reject(this.#engine.closedError()));
      });
    });
  }
}

function toRanges(prefix: KeyPrefix, targets: Target | readonly Target[]): readonly WireRange[] {
  const ranges = (isList(targets) ? targets : [targets]).map((target) => prefix.range(target));
  if (ranges.length === 0) throw invalidArgument('a view needs a target');
  const keys = ranges.map(({ key, rangeEnd }) => KeyRange.fromWire(key, rangeEnd));
  for (const [at, range] of keys.entries()) {
    if (range.isEmpty()) throw invalidArgument('a target of a view must have room for a key');
    if (keys.slice(0, at).some((other) => other.overlaps(range))) throw invalidArgument('the targets of a view must not overlap');
  }
  return ranges;
}

function isList(targets: Target | readonly Target[]): targets is readonly Target[] {
  return Array.isArray(targets);
}

function late(view: View<string>): ConclaveError {
  const reason = view.state.state === 'stale' ? `: ${view.state.reason}` : '';
  return new ConclaveError({ code: 'deadline-exceeded', message: `the view was not complete in time${reason}`, outcome: 'not-applied' });
}

function cancelled(signal: AbortSignal): ConclaveError {
  return new ConclaveError({ code: 'cancelled', message: 'the view was cancelled', outcome: 'not-applied', cause: signal.reason });
}
