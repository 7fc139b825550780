import { type Event, Event_EventType as EventType, type KeyValue as WireKeyValue } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import { type ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import { listDifference } from '../kv/list-difference.ts';
import { pinnedList } from '../kv/pinned-list.ts';
import { bytesOf, idOf, noBytes } from '../kv/text.ts';
import type { WatchResync } from './watch-event.ts';
import type { WatchSpec } from './watcher.ts';

/** Told what is there, in place of history that was compacted away. */
export interface ResyncSink {
  /** The range was read at `revision`. What that brought to light follows. */
  onResync(revision: number, scope: WatchResync['scope']): void;
  onSynthesised(event: Event, revision: number): void;
}

/** What a reading brought to light, and how much of it was told. */
interface Found {
  readonly revision: number;
  readonly scope: WatchResync['scope'];
  readonly events: readonly Event[];
  /** 0: not even that there is something. */
  told: number;
}

/**
 * Gets one watch over history that was compacted away.
 *
 * Invariant: `known` are the keys that there were at the last revision which the watch has told all of. Whether one of them was written since needs
 * no memory of its own: then its modRevision is above that.
 */
export class Relist {
  readonly #engine: Engine;
  readonly #spec: WatchSpec;
  readonly #sink: ResyncSink;
  /** Aborted at the end. */
  readonly #life = new AbortController();
  /** Undefined: not known, or needed by nobody, as deletions are not told. */
  #known: Set<string> | undefined;
  #found: Found | undefined;
  #isTelling = false;
  /** While no stream says how far behind the watch is. */
  #unfollow: (() => void) | undefined;

  constructor(engine: Engine, spec: WatchSpec, sink: ResyncSink) {
    this.#engine = engine;
    this.#spec = spec;
    this.#sink = sink;
  }

  /** What to ask the server for: its filter would hide which keys there are. */
  get asked(): WatchSpec {
    return this.#spec.ignore === 'put' ? { ...this.#spec, ignore: undefined } : this.#spec;
  }

  /** Finds out which keys there are before the watch starts, and gives where it does. */
  async begin(startRevision: number | undefined): Promise<number> {
    if (startRevision === undefined) {
      const { key } = this.#spec;
      const range = this.#tellsDeletions ? this.#spec : { key, rangeEnd: noBytes };
      const { revision, kvs } = await pinnedList(this.#engine, [range], this.#life.signal, { keysOnly: true });
      this.#know(kvs.flat());
      return revision + 1;
    }
    if (this.#tellsDeletions) await this.#lookBefore(startRevision);
    return startRevision;
  }

  /** What of these is to be told. */
  take(events: readonly Event[]): readonly Event[] {
    if (this.#known !== undefined) {
      for (const { type, kv } of events) {
        const id = idOf((kv as WireKeyValue).key);
        if (type === EventType.DELETE) this.#known.delete(id);
        else this.#known.add(id);
      }
    }
    return this.#spec.ignore === 'put' ? events.filter(({ type }) => type === EventType.DELETE) : events;
  }

  /** Reads what there is, in place of what happened from `next` on and was compacted away. */
  async read(next: number, compacted: ConclaveError<'compacted'>): Promise<void> {
    const { ignore } = this.#spec;
    const known = this.#known;
    const isEverything = this.#tellsDeletions && known === undefined;
    // All puts would tell what is gone; without them nothing does.
    if (isEverything && ignore === 'put') throw compacted;
    this.#unfollow = this.#engine.meter?.follow({ lag: (seen) => Math.max(0, seen - next + 1) });
    this.#engine.runtime.log.warn({ revision: next - 1 }, 'a watch missed history that was compacted away, and reads its range anew');
    const list = await pinnedList(this.#engine, [this.#spec], this.#life.signal, { keysOnly: ignore === 'put' });
    const { revision } = list;
    // From before what is compacted: the store has lost what it had, and to go on there is to go back.
    if (revision < Number(compacted.details?.compactRevision ?? 0)) throw compacted;
    const kvs = list.kvs.flat();
    const { gone, written } = listDifference(known ?? [], kvs, ({ modRevision }) => !isEverything && modRevision < next);
    const puts = ignore === 'put' ? [] : [...written].sort((one, other) => one.modRevision - other.modRevision);
    const events = [...puts.map(toPut), ...gone.map((id) => toDelete(id, revision))];
    this.#know(kvs);
    this.#found = { revision, scope: isEverything ? 'everything' : 'difference', events, told: 0 };
  }

  /** Tells what was found until it is held back. Gives where the watch goes on, once all is told. */
  tell(isHeldBack: () => boolean): number | undefined {
    const found = this.#found;
    // What is told may let go of what held it back.
    if (found === undefined || this.#isTelling) return undefined;
    const { revision, scope, events } = found;
    this.#isTelling = true;
    for (; found.told <= events.length && !isHeldBack(); found.told++) {
      if (found.told === 0) {
        this.#sink.onResync(revision, scope);
        continue;
      }
      this.#engine.meter?.metrics.watchEvents(1);
      this.#sink.onSynthesised(events[found.told - 1] as Event, revision);
    }
    this.#isTelling = false;
    if (found.told <= events.length) return undefined;
    this.#found = undefined;
    this.#unfollow?.();
    return revision + 1;
  }

  close(): void {
    this.#life.abort();
    this.#found = undefined;
    this.#unfollow?.();
  }

  get #tellsDeletions(): boolean {
    return this.#spec.ignore !== 'delete';
  }

  async #lookBefore(startRevision: number): Promise<void> {
    // Nothing is as old as that.
    if (startRevision === 1) {
      this.#know([]);
      return;
    }
    const before = { keysOnly: true, revision: startRevision - 1 };
    try {
      this.#know((await pinnedList(this.#engine, [this.#spec], this.#life.signal, before)).kvs.flat());
    } catch (error) {
      // It cannot be known which keys there were then, or will be: what is gone since cannot be told, and the resync says so.
      if (!isConclaveError(error, 'compacted') && !isConclaveError(error, 'future-revision')) throw error;
    }
  }

  #know(kvs: readonly WireKeyValue[]): void {
    if (this.#tellsDeletions) this.#known = new Set(kvs.map(({ key }) => idOf(key)));
  }
}

function toPut(kv: WireKeyValue): Event {
  return { type: EventType.PUT, kv, prevKv: undefined };
}

function toDelete(id: string, revision: number): Event {
  const kv = { key: bytesOf(id), value: noBytes, createRevision: 0, modRevision: revision, version: 0, lease: 0n };
  return { type: EventType.DELETE, kv, prevKv: undefined };
}
