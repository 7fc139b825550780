import { Watch, WatchRequest, WatchResponse } from '@conclave/protocol';
import type { CallEnd } from '@conclave/wire';
import type { Engine } from '../connection/engine.ts';
import { PersistentStream } from '../connection/persistent-stream.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import { fromCallEnd, fromReason, isRefusedStream } from '../errors/from-call-end.ts';
import { headerRevision } from '../kv/result.ts';
import type { Watcher } from './watcher.ts';

/** The id in responses that concern the stream and no watch of it. */
const noWatch = -1;

/** Whoever has a stream to itself, and is told more of it than its watches are. */
export interface WatchStreamOwner {
  /** The server watches: the first time, or again after a break. */
  onStanding(watcher: Watcher): void;
  /** Nothing comes until the watches stand again. */
  onBroken(): void;
  /** The server's answer to {@link WatchStream.requestProgress}. */
  onProgress(revision: number): void;
}

/**
 * The watches that share one stream. When it breaks they all go on on the next, each from where it is.
 *
 * Ids are ours and never used twice. Still a refusal of a watch comes with the id -1, so creations are also kept in the order they were
 * asked for: the server answers each exactly once, in that order.
 */
export class WatchStream {
  readonly #engine: Engine;
  readonly #stream: PersistentStream;
  readonly #watchers = new Map<number, Watcher>();
  readonly #onEmpty: (stream: WatchStream) => void;
  readonly #owner: WatchStreamOwner | undefined;
  #unanswered: number[] = [];
  #isOpen = false;
  #isPaused = false;
  #hasBroken = false;
  #unfollow: (() => void) | undefined;

  constructor(engine: Engine, onEmpty: (stream: WatchStream) => void, owner?: WatchStreamOwner) {
    this.#engine = engine;
    this.#onEmpty = onEmpty;
    this.#owner = owner;
    this.#stream = new PersistentStream(engine, Watch.methods.watch.path, {
      onOpen: () => this.#onOpen(),
      onMessage: (bytes) => this.#onMessage(bytes),
      onLost: (end) => this.#onLost(end),
      onRefused: (error) => this.#onRefused(error),
    });
  }

  get size(): number {
    return this.#watchers.size;
  }

  /** By how much the watch that is furthest behind is, in revisions, if the client has seen the store at `seen`. */
  lag(seen: number): number {
    const isFed = this.#isOpen && !this.#isPaused;
    let most = 0;
    for (const watcher of this.#watchers.values()) most = Math.max(most, isFed ? watcher.lag : watcher.lagBehind(seen));
    return most;
  }

  add(watcher: Watcher): void {
    this.#unfollow ??= this.#engine.meter?.follow(this);
    this.#watchers.set(watcher.id, watcher);
    if (this.#isOpen) this.#create(watcher);
    else this.#stream.open();
  }

  /** Takes a watch off the stream; nothing reaches it from here any more. */
  remove(watcher: Watcher): void {
    if (!this.#watchers.delete(watcher.id)) return;
    if (this.#watchers.size === 0) this.#end();
    else if (this.#isOpen) this.#stream.write(WatchRequest.encode({ cancelRequest: { watchId: BigInt(watcher.id) } }));
  }

  pause(): void {
    this.#isPaused = true;
    this.#stream.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#stream.resume();
  }

  /** Asks how far the server is. It may stay silent, and does while a watch has not caught up. */
  requestProgress(): void {
    this.#stream.write(WatchRequest.encode({ progressRequest: {} }));
  }

  /** Asks the member at the other end something else, see {@link PersistentStream.ask}. */
  ask(path: string, request: Uint8Array, timeoutMs: number, done: (response: Uint8Array | undefined) => void): void {
    this.#stream.ask(path, request, timeoutMs, done);
  }

  close(): void {
    this.#watchers.clear();
    this.#end();
  }

  #onOpen(): void {
    this.#isOpen = true;
    this.#unanswered = [];
    for (const watcher of this.#watchers.values()) this.#create(watcher);
    if (!this.#hasBroken) return;
    this.#hasBroken = false;
    this.#engine.meter?.metrics.watchesResumed(this.size);
    this.#engine.runtime.log.info({ watches: this.size, endpoint: this.#stream.endpoint }, 'watches go on where they were');
  }

  #create(watcher: Watcher): void {
    this.#unanswered.push(watcher.id);
    this.#stream.write(WatchRequest.encode({ createRequest: watcher.createRequest() }));
  }

  #onMessage(bytes: Uint8Array): void {
    let response: WatchResponse;
    try {
      response = WatchResponse.decode(bytes);
    } catch (cause) {
      this.#failAll(new ConclaveError({ code: 'internal', message: 'unreadable watch response', outcome: 'not-applied', cause }));
      return;
    }
    const id = response.created ? this.#unanswered.shift() : Number(response.watchId);
    if (id === noWatch && !response.created && !response.canceled) this.#onProgress(response.header?.revision ?? 0);
    if (id === undefined || id === noWatch) return;
    const watcher = this.#watchers.get(id);
    if (watcher === undefined) return;
    this.#engine.order?.observe(headerRevision(response));
    const { meter } = this.#engine;
    meter?.see(response.header?.revision ?? 0);
    const told = watcher.told;
    const verdict = watcher.onResponse(response);
    if (watcher.told > told) meter?.metrics.watchEvents(watcher.told - told);
    if (watcher.lag > 0 && !response.fragment) this.#askWhetherMore();
    if (response.created && verdict === 'go-on') this.#owner?.onStanding(watcher);
    // What the watcher told may have taken it, or all of them, off the stream.
    if (verdict === 'go-on' || this.#watchers.get(id) !== watcher) return;
    // On a stream of its own time, so that a server that takes watches off again and again is asked ever more slowly.
    if (verdict === 'recreate') this.#stream.reopen();
    else if (verdict === 'ended') this.#forget(id);
    else if (!this.#stream.renewToken()) {
      this.#forget(id);
      watcher.fail(fromReason(response.cancelReason));
    }
  }

  #onProgress(revision: number): void {
    for (const watcher of this.#watchers.values()) watcher.catchUp();
    this.#owner?.onProgress(revision);
  }

  /**
   * Events came from below where the store is: there are more, or what came after concerns other keys. The server answers this when there are no
   * more. Only for who measures it; whoever has the stream to itself asks for progress when it needs to know.
   */
  #askWhetherMore(): void {
    if (this.#engine.meter !== undefined && this.#owner === undefined) this.requestProgress();
  }

  #onLost(end: CallEnd | undefined): boolean {
    if (this.#isOpen && this.size > 0) {
      this.#hasBroken = true;
      const reason = end === undefined || end.message === '' ? undefined : end.message;
      this.#engine.runtime.log.info({ watches: this.size, reason }, 'watches lost their stream');
    }
    this.#isOpen = false;
    this.#owner?.onBroken();
    if (end === undefined || !isRefusedStream(end)) return true;
    this.#failAll(fromCallEnd(end, false));
    return false;
  }

  #onRefused(error: ConclaveError): boolean {
    this.#isOpen = false;
    this.#failAll(error);
    return false;
  }

  #failAll(error: ConclaveError): void {
    const watchers = [...this.#watchers.values()];
    this.#watchers.clear();
    this.#end();
    for (const watcher of watchers) watcher.fail(error);
  }

  #forget(id: number): void {
    this.#watchers.delete(id);
    if (this.#watchers.size === 0) this.#end();
  }

  #end(): void {
    this.#isOpen = false;
    this.#unfollow?.();
    this.#unfollow = undefined;
    this.#stream.close();
    this.#onEmpty(this);
  }
}
