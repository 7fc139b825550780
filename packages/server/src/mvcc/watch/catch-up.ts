import type { Runtime } from '@conclave/wire';
import type { RevisionEvents } from '../event.ts';
import { deliver } from './delivery.ts';
import { EncodedEvent } from './event-encoding.ts';
import type { WatchSource } from './source.ts';
import { keyString, type Subscription, type Watcher } from './watcher.ts';
import { WatcherIndex } from './watcher-index.ts';

// One slice reads no more than this. The time keeps other work on this thread from waiting; the revisions are etcd's bound for one response;
// the bytes bound what a slice holds in memory.
const maxSliceMs = 2;
const maxSliceRevisions = 1000;
const maxSliceBytes = 1024 * 1024;
// How much is read between two looks at the clock.
const maxStepRevisions = 64;
const maxStepBytes = 64 * 1024;

export interface CatchUpOptions {
  readonly source: WatchSource;
  readonly runtime: Runtime;
  header(revision: number): Uint8Array;
  readonly fragmentBytes: number;
  /** The watcher has everything up to the source's revision and is out of here. */
  caughtUp(watcher: Watcher): void;
  /** What the watcher wants is gone, it is out of here. */
  compacted(watcher: Watcher): void;
}

/**
 * Reads history for the watchers that are behind, all of them in one sweep.
 *
 * The sweep goes from the lowest revision anybody needs up to the newest, in slices, and takes along who needs what it comes past; it starts
 * again at the bottom while somebody is left. So history is read once for a thousand watchers that come back after a restart, and nobody who
 * comes later can keep the others waiting for more than one sweep. A watcher whose stream does not drain is passed over until it does.
 */
export class CatchUp {
  readonly #options: CatchUpOptions;
  readonly #index = new WatcherIndex();
  readonly #watchers = new Set<Watcher>();
  /** The revision at which the sweep goes on. */
  #position = 0;
  #isScheduled = false;

  constructor(options: CatchUpOptions) {
    this.#options = options;
  }

  /** Takes a watcher that still needs history from its `next` on. */
  add(watcher: Watcher): void {
    watcher.state = 'behind';
    this.#watchers.add(watcher);
    this.#index.add(watcher);
    this.schedule();
  }

  delete(watcher: Watcher): void {
    watcher.state = 'ended';
    this.#watchers.delete(watcher);
    this.#index.delete(watcher);
  }

  /** Goes on with the sweep in a turn of its own; also to be called when a stream has room again. */
  schedule(): void {
    if (this.#isScheduled || this.#watchers.size === 0) return;
    this.#isScheduled = true;
    this.#options.runtime.endOfTurn(() => {
      this.#isScheduled = false;
      this.#slice();
    });
  }

  #slice(): void {
    // Scheduled again once there is history to read.
    if (!this.#options.source.isReadable) return;
    this.#dropCompacted();
    const riders = this.#board();
    if (riders.size === 0) return;
    const { source } = this.#options;
    const from = this.#position;
    const dirty: Subscription[] = [];
    const to = this.#read(from, riders, dirty);
    for (const subscription of dirty) this.#deliver(subscription, riders);
    this.#position = to + 1;
    const isDone = to >= source.revision;
    for (const watcher of riders) {
      // Its stream may have ended while it was written to.
      if (watcher.state !== 'behind') continue;
      watcher.next = Math.max(watcher.next, to + 1);
      if (!isDone) continue;
      this.delete(watcher);
      this.#options.caughtUp(watcher);
    }
    this.schedule();
  }

  #dropCompacted(): void {
    const { source, compacted } = this.#options;
    for (const watcher of this.#watchers) {
      if (watcher.next >= source.compactRevision || !watcher.outlet.isReady) continue;
      this.delete(watcher);
      compacted(watcher);
    }
  }

  /** The watchers that ride along in this slice: those whose turn is at or after the position. Starts over when nobody is left ahead. */
  #board(): Set<Watcher> {
    const ready = [...this.#watchers].filter((watcher) => watcher.outlet.isReady);
    const ahead = ready.filter((watcher) => watcher.next >= this.#position);
    const riders = ahead.length > 0 ? ahead : ready;
    // Nobody needs what lies below the lowest of them.
    if (riders.length > 0) this.#position = riders.reduce((low, watcher) => Math.min(low, watcher.next), Number.MAX_SAFE_INTEGER);
    return new Set(riders);
  }

  /** Matches one slice of history. Returns the last revision it covers. */
  #read(from: number, riders: ReadonlySet<Watcher>, dirty: Subscription[]): number {
    const { source, runtime } = this.#options;
    const deadline = runtime.monotonic() + maxSliceMs;
    const end = from + maxSliceRevisions;
    let next = from;
    let bytes = 0;
    while (next < end && bytes < maxSliceBytes) {
      const found = source.eventsFrom(next, { maxRevisions: Math.min(maxStepRevisions, end - next), maxBytes: maxStepBytes });
      if (found.length === 0) return source.revision;
      for (const changes of found) bytes += this.#match(changes, riders, dirty);
      next = found.at(-1)!.revision + 1;
      if (runtime.monotonic() >= deadline) break;
    }
    return next - 1;
  }

  /** Gives what happened at a revision to the subscriptions that ride along and want it. Returns the bytes of what it gave. */
  #match({ revision, events }: RevisionEvents, riders: ReadonlySet<Watcher>, dirty: Subscription[]): number {
    let bytes = 0;
    for (const event of events) {
      const encoded = new EncodedEvent(event, this.#options.source);
      this.#index.match(keyString(event.key), (subscription) => {
        if (!subscription.wants(encoded) || !hasRider(subscription, riders, revision)) return;
        bytes += encoded.field(subscription.form.prevKv).length;
        if (subscription.push(encoded)) dirty.push(subscription);
      });
    }
    return bytes;
  }

  #deliver(subscription: Subscription, riders: Set<Watcher>): void {
    const { source, header, fragmentBytes } = this.#options;
    deliver(subscription, {
      events: subscription.take(),
      header: () => header(source.revision),
      fragmentBytes,
      accepts: (watcher) => riders.has(watcher),
      refused(watcher, revision) {
        watcher.next = revision;
        riders.delete(watcher);
      },
    });
  }
}

function hasRider(subscription: Subscription, riders: ReadonlySet<Watcher>, revision: number): boolean {
  for (const watcher of subscription.watchers) if (watcher.next <= revision && riders.has(watcher)) return true;
  return false;
}
