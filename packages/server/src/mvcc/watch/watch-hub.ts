import { type ResponseHeader, WatchResponse } from '@conclave/protocol';
import type { Runtime } from '@conclave/wire';
import type { RevisionEvents } from '../event.ts';
import { CatchUp } from './catch-up.ts';
import { deliver } from './delivery.ts';
import { EncodedEvent } from './event-encoding.ts';
import type { WatchSource } from './source.ts';
import { WatchStream } from './watch-stream.ts';
import { keyString, type Subscription, type Watcher } from './watcher.ts';
import { WatcherIndex } from './watcher-index.ts';

export interface WatchHubOptions {
  readonly source: WatchSource;
  readonly runtime: Runtime;
  /** The header of a response of this member at this moment, with the revision given. */
  header(revision: number): ResponseHeader;
  /** Watches that accept fragments get larger responses in parts. Bytes; default 2 MiB, which is etcd's request limit plus 512 KiB. */
  readonly fragmentBytes?: number;
  /** How often a watch that asked for it and had no events is told the revision. Milliseconds, at least 100; default 10 minutes. */
  readonly progressIntervalMs?: number;
  /** What may wait for one stream that does not drain before its watches are put back to reading history. Bytes; default 1 MiB. */
  readonly maxHeldBytes?: number;
}

const minProgressIntervalMs = 100;

/**
 * Takes what happens in the store to whoever watches it.
 *
 * Every watcher gets each event of its keys from its start on exactly once, in the order of the revisions, and all events of a revision in one
 * response; or it is told that what it wants was compacted. Nothing is ever left out silently: a stream that does not drain has its watchers put
 * back to reading history, which goes on when it drains.
 */
export class WatchHub {
  readonly #source: WatchSource;
  readonly #runtime: Runtime;
  readonly #header: (revision: number) => ResponseHeader;
  readonly #fragmentBytes: number;
  readonly #progressIntervalMs: number;
  readonly #maxHeldBytes: number;
  readonly #live = new WatcherIndex();
  readonly #catchUp: CatchUp;
  readonly #streams = new Set<WatchStream>();
  readonly #unsubscribe: readonly (() => void)[];
  /** Subscriptions with a batch, in the order of its first event. */
  #dirty: Subscription[] = [];

  constructor(options: WatchHubOptions) {
    this.#source = options.source;
    this.#runtime = options.runtime;
    this.#header = (revision) => options.header(revision);
    this.#fragmentBytes = options.fragmentBytes ?? 2 * 1024 * 1024;
    this.#progressIntervalMs = Math.max(minProgressIntervalMs, options.progressIntervalMs ?? 10 * 60 * 1000);
    this.#maxHeldBytes = options.maxHeldBytes ?? 1024 * 1024;
    this.#catchUp = new CatchUp({
      source: this.#source,
      runtime: this.#runtime,
      header: (revision) => this.#headerField(revision),
      fragmentBytes: this.#fragmentBytes,
      caughtUp: (watcher) => this.#join(watcher),
      compacted: (watcher) => this.#tellCompacted(watcher),
    });
    this.#unsubscribe = [
      this.#source.onApplied((changes) => this.#applied(changes)),
      this.#source.onReplaced((before) => this.#replaced(before)),
    ];
  }

  /** Opens a stream of watches. @param write see {@link WatchStream}. */
  open(write: (response: Uint8Array) => boolean): WatchStream {
    const stream = new WatchStream(
      {
        runtime: this.#runtime,
        progressIntervalMs: this.#progressIntervalMs,
        maxHeldBytes: this.#maxHeldBytes,
        source: this.#source,
        header: this.#header,
        add: (watcher) => this.#add(watcher),
        remove: (watcher) => this.#remove(watcher),
        flush: () => this.#flush(),
        drained: () => this.#catchUp.schedule(),
        closed: () => this.#streams.delete(stream),
      },
      write,
    );
    this.#streams.add(stream);
    return stream;
  }

  /** Ends every stream's watches and listens to the store no more. */
  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    for (const stream of this.#streams) stream.close();
  }

  /** Matches what was just written. It goes out at the end of the turn: one response per watcher for all that a turn has applied. */
  #applied({ events }: RevisionEvents): void {
    if (this.#live.size === 0) return;
    for (const event of events) {
      const encoded = new EncodedEvent(event, this.#source);
      this.#live.match(keyString(event.key), (subscription) => {
        if (!subscription.wants(encoded)) return;
        // Now, while the previous value cannot have been compacted away since.
        encoded.field(subscription.form.prevKv);
        if (subscription.push(encoded)) this.#markDirty(subscription);
      });
    }
  }

  /**
   * History goes on at a later revision than the one the live watchers have: what lies between was never applied here, so they read it. Not from
   * an earlier one, or they would see again what they have (etcd issue 15271).
   */
  #replaced(before: number): void {
    this.#flush();
    for (const watcher of this.#live.all()) {
      this.#live.delete(watcher);
      watcher.next = Math.max(watcher.next, before + 1);
      this.#add(watcher);
    }
    this.#catchUp.schedule();
  }

  #markDirty(subscription: Subscription): void {
    if (this.#dirty.push(subscription) === 1) this.#runtime.endOfTurn(() => this.#flush());
  }

  #flush(): void {
    const dirty = this.#dirty;
    this.#dirty = [];
    for (const subscription of dirty) {
      deliver(subscription, {
        events: subscription.take(),
        header: (revision) => this.#headerField(revision),
        fragmentBytes: this.#fragmentBytes,
        accepts: () => true,
        refused: (watcher, revision) => {
          this.#live.delete(watcher);
          watcher.next = revision;
          this.#catchUp.add(watcher);
        },
      });
    }
  }

  #add(watcher: Watcher): void {
    if (watcher.next > this.#source.revision) this.#join(watcher);
    else this.#catchUp.add(watcher);
  }

  #join(watcher: Watcher): void {
    watcher.state = 'live';
    this.#live.add(watcher);
  }

  #remove(watcher: Watcher): void {
    if (watcher.state === 'live') this.#live.delete(watcher);
    else if (watcher.state === 'behind') this.#catchUp.delete(watcher);
    watcher.state = 'ended';
  }

  #tellCompacted(watcher: Watcher): void {
    watcher.outlet.reply(
      // A header without a revision: there is none up to which this watcher was told everything.
      WatchResponse.encode({
        header: this.#header(0),
        watchId: watcher.id,
        canceled: true,
        compactRevision: this.#source.compactRevision,
      }),
    );
  }

  #headerField(revision: number): Uint8Array {
    return WatchResponse.encode({ header: this.#header(revision) });
  }
}
