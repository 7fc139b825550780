import { type ResponseHeader, type WatchCreateRequest, WatchResponse, type WireErrorKey } from '@conclave/protocol';
import type { Runtime, Timer } from '@conclave/wire';
import { Outlet } from './outlet.ts';
import type { WatchSource } from './source.ts';
import { Watcher, watchedKeys, watchForm } from './watcher.ts';

/** The watch id of responses that concern the stream as a whole, or a watch that was never made. */
export const noWatch = -1n;

/** What a stream needs of the hub it belongs to. */
export interface StreamHost {
  readonly runtime: Runtime;
  readonly source: WatchSource;
  readonly progressIntervalMs: number;
  readonly maxHeldBytes: number;
  header(revision: number): ResponseHeader;
  /** Begins to deliver from the watcher's `next` on. */
  add(watcher: Watcher): void;
  remove(watcher: Watcher): void;
  /** Delivers what was applied and not yet delivered. */
  flush(): void;
  /** The outlet of some watchers has room again. */
  drained(): void;
  closed(): void;
}

/** How the creation of a watch went. */
export type WatchCreated =
  | { readonly watchId: bigint /** Store revision in the moment the watch began. */; readonly revision: number }
  | { readonly refused: WireErrorKey; readonly revision: number };

/** The watches of one caller's stream: their ids, their progress and the way out they share. */
export class WatchStream {
  readonly #host: StreamHost;
  readonly #outlet: Outlet;
  readonly #watchers = new Map<bigint, Watcher>();
  #nextId = 0n;
  #progressTimer: Timer | undefined;
  /** Progress was asked for while events were waiting for room: it is told after them. */
  #owesProgress = false;

  /** @param write sends one encoded WatchResponse, whose memory is shared; false when the caller is to wait for {@link drained}. */
  constructor(host: StreamHost, write: (response: Uint8Array) => boolean) {
    this.#host = host;
    this.#outlet = new Outlet(write, host.maxHeldBytes);
  }

  /**
   * Starts a watch. Its start and the revision given back are taken in one step: what is applied later is delivered, and, unless an older start
   * was asked for, nothing else. Nothing is sent for it before this call has returned and the caller had the chance to reply.
   */
  create(request: WatchCreateRequest): WatchCreated {
    const { revision } = this.#host.source;
    const keys = watchedKeys(request.key, request.rangeEnd);
    if (request.startRevision < 0) return { refused: 'compacted', revision };
    if (keys === undefined) return { refused: 'watch-range-empty', revision };
    if (request.watchId !== 0n && this.#watchers.has(request.watchId)) return { refused: 'watch-id-duplicate', revision };
    const watchId = request.watchId === 0n ? this.#freeId() : request.watchId;
    const next = request.startRevision === 0 ? revision + 1 : request.startRevision;
    const watcher = new Watcher(this.#outlet, watchId, keys, watchForm(request), request.progressNotify, next);
    this.#watchers.set(watchId, watcher);
    this.#host.add(watcher);
    if (request.progressNotify) this.#startProgressTimer();
    return { watchId, revision };
  }

  /** Ends a watch and frees its id. False: there is none of this id. */
  cancel(watchId: bigint): boolean {
    const watcher = this.#watchers.get(watchId);
    if (watcher === undefined) return false;
    this.#watchers.delete(watchId);
    this.#host.remove(watcher);
    return true;
  }

  /** Sends a reply of the caller's own in its place among the events: after those that went out, before those that wait for room. */
  reply(response: Uint8Array): void {
    this.#outlet.reply(response);
  }

  /** Replies sent to a peer that does not read. When they pile up, stop taking its requests. */
  get unreadReplies(): number {
    return this.#outlet.repliesWhileBlocked;
  }

  /**
   * Tells how far all watches of the stream are: everything up to the revision was delivered. Tells nothing when one of them is still reading
   * history or waits for a future revision, or when there is none.
   */
  requestProgress(): void {
    this.#host.flush();
    if (this.#outlet.isReady) this.#tellProgress();
    else this.#owesProgress = true;
  }

  /** There is room again after a write returned false. */
  drained(): void {
    this.#outlet.drained();
    if (!this.#outlet.isReady) return;
    if (this.#owesProgress) {
      this.#owesProgress = false;
      this.requestProgress();
    }
    this.#host.drained();
  }

  /** Ends all watches and sends nothing more. Idempotent. */
  close(): void {
    this.#outlet.close();
    this.#progressTimer?.cancel();
    for (const watcher of this.#watchers.values()) this.#host.remove(watcher);
    this.#watchers.clear();
    this.#host.closed();
  }

  #freeId(): bigint {
    while (this.#watchers.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  #tellProgress(): void {
    const { revision } = this.#host.source;
    let open = 0;
    for (const watcher of this.#watchers.values()) {
      if (watcher.state === 'ended') continue;
      if (!isUpToDate(watcher, revision)) return;
      open++;
    }
    if (open > 0) this.#sendProgress(noWatch, revision);
  }

  #startProgressTimer(): void {
    if (this.#progressTimer !== undefined) return;
    const { runtime, progressIntervalMs } = this.#host;
    // Streams that began together should not all speak at once.
    const delayMs = progressIntervalMs * (1 + runtime.random() / 10);
    const tick = (): void => {
      this.#progressTimer = runtime.timer(delayMs, tick, { background: true });
      this.#notifyProgress();
    };
    this.#progressTimer = runtime.timer(delayMs, tick, { background: true });
  }

  #notifyProgress(): void {
    this.#host.flush();
    const { revision } = this.#host.source;
    for (const watcher of this.#watchers.values()) {
      const wasActive = watcher.isActive;
      watcher.isActive = false;
      if (!watcher.progressNotify || wasActive || !this.#outlet.isReady) continue;
      if (isUpToDate(watcher, revision)) this.#sendProgress(watcher.id, revision);
    }
  }

  #sendProgress(watchId: bigint, revision: number): void {
    this.#outlet.reply(WatchResponse.encode({ header: this.#host.header(revision), watchId }));
  }
}

function isUpToDate(watcher: Watcher, revision: number): boolean {
  return watcher.state === 'live' && watcher.next <= revision + 1;
}
