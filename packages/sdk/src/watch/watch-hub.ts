import { type Event, type Init, KV, type RangeRequest, type RangeResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import type { UnaryCall } from '../connection/unary-call.ts';
import { ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import { headerRevision } from '../kv/result.ts';
import { ProgressQuestions } from './progress-questions.ts';
import { Relist, type ResyncSink } from './relist.ts';
import { WatchStream, type WatchStreamOwner } from './watch-stream.ts';
import { Watcher, type WatchSink, type WatchSpec } from './watcher.ts';

/** A watch as its owner holds it. */
export interface WatchHandle {
  /** Nothing is told after it. Idempotent. */
  cancel(): void;
  /** Holds the server back; a few events may still come. */
  pause(): void;
  resume(): void;
  /**
   * Asks the server how far this watch is, and gives the revision up to which everything was told.
   *
   * @throws ConclaveError `unimplemented` when the server's word cannot be believed, `deadline-exceeded`, `cancelled`, and what ends the watch
   */
  requestProgress(options: RequestOptions | undefined): Promise<number>;
}

/** Whoever watches through the hub. */
export interface HubSink extends WatchSink {
  /** The client was closed. Nothing comes any more. */
  onClosed(): void;
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

/**
 * More do not share a stream. A server sends what concerns one stream one after the other: etcd 3.5 tells 5,000 watches of the same 20 changes in
 * 0.5 s over one stream, in 0.3 s over five, and in 1.5 s over 250.
 */
const watchesPerStream = 1_000;

/** All watches of a client. They share streams, so many a stream, but one that must be held back moves to a stream of its own. */
export class WatchHub {
  readonly engine: Engine;
  readonly #subscriptions = new Set<Subscription>();
  /** Those that take further watches. */
  readonly #shared = new Set<WatchStream>();
  #lastId = 0;

  constructor(engine: Engine) {
    this.engine = engine;
    engine.attach(this);
  }

  /**
   * Starts a watch at `startRevision`, or with what happens from now on. From here the sink is only called to say that it cannot start.
   *
   * @param resyncs told what takes the place of history that was compacted away; without it that ends the watch
   */
  watch(spec: WatchSpec, startRevision: number | undefined, sink: HubSink, resyncs?: ResyncSink): WatchHandle {
    const relist = resyncs && new Relist(this.engine, spec, resyncs);
    const subscription = new Subscription(this, relist?.asked ?? spec, sink, relist);
    this.#subscriptions.add(subscription);
    subscription.start(startRevision);
    return subscription;
  }

  close(): void {
    for (const subscription of [...this.#subscriptions]) subscription.close();
  }

  /** The id of a watch, which no other had. */
  newId(): number {
    return ++this.#lastId;
  }

  /** The stream for a new watch. */
  share(): WatchStream {
    for (const stream of this.#shared) if (stream.size < watchesPerStream) return stream;
    const stream = this.newStream();
    this.#shared.add(stream);
    return stream;
  }

  newStream(owner?: WatchStreamOwner): WatchStream {
    return new WatchStream(this.engine, (stream) => this.#retire(stream), owner);
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
    this.#shared.delete(stream);
  }
}

class Subscription implements WatchHandle, WatchSink {
  readonly #hub: WatchHub;
  readonly #spec: WatchSpec;
  readonly #sink: HubSink;
  readonly #relist: Relist | undefined;
  #read: UnaryCall<Init<RangeRequest>, RangeResponse, undefined, number> | undefined;
  #watcher: Watcher | undefined;
  #stream: WatchStream | undefined;
  #questions: ProgressQuestions | undefined;
  #isCreated = false;
  #isPaused = false;
  #isEnded = false;

  constructor(hub: WatchHub, spec: WatchSpec, sink: HubSink, relist: Relist | undefined) {
    this.#hub = hub;
    this.#spec = spec;
    this.#sink = sink;
    this.#relist = relist;
  }

  start(startRevision: number | undefined): void {
    if (this.#hub.engine.isClosed) {
      this.#fail(this.#hub.engine.closedError());
      return;
    }
    if (this.#relist !== undefined) {
      this.#relist.begin(startRevision).then(
        (start) => this.#begin(start),
        (error) => this.#fail(error),
      );
      return;
    }
    if (startRevision !== undefined) {
      this.#begin(startRevision);
      return;
    }
    // One key of the range is as good as all of it, and whoever may watch the range may read it.
    const request: Init<RangeRequest> = { key: this.#spec.key, limit: 1, keysOnly: true };
    const options = { deadlineMs: Number.POSITIVE_INFINITY };
    this.#read = this.#hub.engine.start(
      readRevision,
      request,
      undefined,
      options,
      (revision) => this.#begin(revision + 1),
      (error) => this.#fail(error),
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
    this.#tellFound();
  }

  requestProgress(options: RequestOptions | undefined): Promise<number> {
    if (this.#questions === undefined) {
      this.#questions = new ProgressQuestions(this.#hub.engine, (revision) => this.#onPassed(revision));
      const stream = this.#stream;
      if (this.#watcher !== undefined && stream !== undefined) {
        stream.remove(this.#watcher);
        this.#moveToOwn(this.#watcher);
      }
    }
    return this.#questions.ask(options);
  }

  cancel(): void {
    this.#end(cancelled());
  }

  close(): void {
    if (this.#end(this.#hub.engine.closedError())) this.#sink.onClosed();
  }

  onCreated(revision: number): void {
    if (this.#isCreated) return;
    this.#isCreated = true;
    this.#sink.onCreated(revision);
  }

  onEvents(events: readonly Event[]): void {
    const told = this.#relist === undefined ? events : this.#relist.take(events);
    if (told.length > 0) this.#sink.onEvents(told);
  }

  onProgress(revision: number): void {
    this.#sink.onProgress(revision);
  }

  onFailure(error: ConclaveError): void {
    if (this.#relist !== undefined && isConclaveError(error, 'compacted')) this.#readAnew(this.#relist, error);
    else this.#fail(error);
  }

  #fail(error: ConclaveError): void {
    if (this.#end(error)) this.#sink.onFailure(error);
  }

  #readAnew(relist: Relist, compacted: ConclaveError<'compacted'>): void {
    const { next } = this.#watcher as Watcher;
    // It is over, and its stream is rid of it; what replaces it has another id.
    this.#watcher = undefined;
    this.#stream = undefined;
    this.#questions?.onBroken();
    relist.read(next, compacted).then(
      () => this.#tellFound(),
      (error) => this.#fail(error),
    );
  }

  #tellFound(): void {
    const next = this.#relist?.tell(() => this.#isPaused || this.#isEnded);
    if (next !== undefined) this.#begin(next);
  }

  #begin(startRevision: number): void {
    if (this.#isEnded) return;
    this.#read = undefined;
    this.#watcher = new Watcher(this.#hub.newId(), this.#spec, startRevision, this);
    if (this.#isPaused || this.#questions !== undefined) {
      this.#moveToOwn(this.#watcher);
      return;
    }
    this.#stream = this.#hub.share();
    this.#stream.add(this.#watcher);
  }

  #moveToOwn(watcher: Watcher): void {
    const stream = this.#hub.newStream(this.#questions);
    this.#stream = stream;
    if (this.#questions !== undefined) {
      this.#questions.use(stream);
      watcher.startEarly();
    }
    if (this.#isPaused) stream.pause();
    stream.add(watcher);
  }

  /** Everything up to `revision` has come, as the server says. Gives up to where it was told; undefined: the rest of a batch is to come. */
  #onPassed(revision: number): number | undefined {
    if (this.#watcher?.pass(revision) !== true) return undefined;
    const told = this.#watcher.next - 1;
    this.#sink.onProgress(told);
    return told;
  }

  /** Ends the watch, and with `error` what waits for it. False if it had ended before. */
  #end(error: ConclaveError): boolean {
    if (this.#isEnded) return false;
    this.#isEnded = true;
    this.#read?.cancel();
    this.#relist?.close();
    this.#questions?.end(error);
    if (this.#watcher !== undefined) this.#stream?.remove(this.#watcher);
    this.#hub.forget(this);
    return true;
  }
}

function cancelled(): ConclaveError {
  return new ConclaveError({ code: 'cancelled', message: 'the watch was cancelled', outcome: 'not-applied' });
}
