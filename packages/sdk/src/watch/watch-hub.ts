import { type Init, KV, type RangeRequest, type RangeResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure } from '../connection/procedure.ts';
import type { UnaryCall } from '../connection/unary-call.ts';
import { headerRevision } from '../kv/result.ts';
import { WatchStream } from './watch-stream.ts';
import { Watcher, type WatchSink, type WatchSpec } from './watcher.ts';

/** A watch as its owner holds it. */
export interface WatchHandle {
  /** Nothing is told after it. Idempotent. */
  cancel(): void;
  /** Holds the server back; a few events may still come. */
  pause(): void;
  resume(): void;
}

/** Where a watch begins that is to begin now: everything after this read. */
export const readRevision: Procedure<Init<RangeRequest>, RangeResponse, undefined, number> = {
  path: KV.methods.range.path,
  input: KV.methods.range.input,
  output: KV.methods.range.output,
  isRepeatable: true,
  revision: headerRevision,
  result: headerRevision,
};

/** All watches of a client. They share one stream, but one that must be held back moves to a stream of its own. */
export class WatchHub {
  readonly #engine: Engine;
  readonly #subscriptions = new Set<Subscription>();
  #shared: WatchStream | undefined;
  #lastId = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
    engine.attach(this);
  }

  /** Starts a watch at `startRevision`, or with what happens from now on. From here the sink is only called to say that it cannot start. */
  watch(spec: WatchSpec, startRevision: number | undefined, sink: WatchSink, onClosed: () => void): WatchHandle {
    const subscription = new Subscription(this, ++this.#lastId, spec, sink, onClosed);
    this.#subscriptions.add(subscription);
    subscription.start(this.#engine, startRevision);
    return subscription;
  }

  close(): void {
    for (const subscription of [...this.#subscriptions]) subscription.close();
  }

  /** The stream for a new watch. */
  share(): WatchStream {
    this.#shared ??= this.newStream();
    return this.#shared;
  }

  newStream(): WatchStream {
    return new WatchStream(this.#engine, (stream) => this.#retire(stream));
  }

  /** A stream for a watch that must be held back: the one it is on if it is alone there, and then nobody joins it. */
  separate(stream: WatchStream, watcher: Watcher): WatchStream {
    if (stream.size === 1) {
      this.#retire(stream);
      return stream;
    }
    stream.remove(watcher);
    return this.newStream();
  }

  forget(subscription: Subscription): void {
    this.#subscriptions.delete(subscription);
  }

  #retire(stream: WatchStream): void {
    if (this.#shared === stream) this.#shared = undefined;
  }
}

class Subscription implements WatchHandle {
  readonly #hub: WatchHub;
  readonly #id: number;
  readonly #spec: WatchSpec;
  readonly #sink: WatchSink;
  readonly #onClosed: () => void;
  #read: UnaryCall<Init<RangeRequest>, RangeResponse, undefined, number> | undefined;
  #watcher: Watcher | undefined;
  #stream: WatchStream | undefined;
  #isPaused = false;
  #isEnded = false;

  constructor(hub: WatchHub, id: number, spec: WatchSpec, sink: WatchSink, onClosed: () => void) {
    this.#hub = hub;
    this.#id = id;
    this.#spec = spec;
    this.#sink = sink;
    this.#onClosed = onClosed;
  }

  start(engine: Engine, startRevision: number | undefined): void {
    if (engine.isClosed) {
      this.#fail(() => this.#sink.onFailure(engine.closedError()));
      return;
    }
    if (startRevision !== undefined) {
      this.#begin(startRevision);
      return;
    }
    // One key of the range is as good as all of it, and whoever may watch the range may read it.
    const request: Init<RangeRequest> = { key: this.#spec.key, limit: 1, keysOnly: true };
    const options = { deadlineMs: Number.POSITIVE_INFINITY };
    this.#read = engine.start(
      readRevision,
      request,
      undefined,
      options,
      (revision) => this.#begin(revision + 1),
      (error) => this.#fail(() => this.#sink.onFailure(error)),
    );
  }

  pause(): void {
    if (this.#isPaused || this.#isEnded) return;
    this.#isPaused = true;
    if (this.#stream === undefined || this.#watcher === undefined) return;
    const stream = this.#hub.separate(this.#stream, this.#watcher);
    stream.pause();
    if (stream !== this.#stream) stream.add(this.#watcher);
    this.#stream = stream;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#stream?.resume();
  }

  cancel(): void {
    this.#fail(() => {});
  }

  close(): void {
    this.#fail(this.#onClosed);
  }

  #begin(startRevision: number): void {
    if (this.#isEnded) return;
    this.#read = undefined;
    this.#watcher = new Watcher(this.#id, this.#spec, startRevision, {
      onCreated: (revision) => this.#sink.onCreated(revision),
      onEvents: (events) => this.#sink.onEvents(events),
      onProgress: (revision) => this.#sink.onProgress(revision),
      onFailure: (error) => this.#fail(() => this.#sink.onFailure(error)),
    });
    if (this.#isPaused) {
      this.#stream = this.#hub.newStream();
      this.#stream.pause();
    } else {
      this.#stream = this.#hub.share();
    }
    this.#stream.add(this.#watcher);
  }

  /** Ends the watch, once, and tells so last. */
  #fail(tell: () => void): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#read?.cancel();
    if (this.#watcher !== undefined) this.#stream?.remove(this.#watcher);
    this.#hub.forget(this);
    tell();
  }
}
