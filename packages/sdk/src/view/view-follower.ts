import type { Event, KeyValue as WireKeyValue } from '@conclave/protocol';
import type { Timer } from '@conclave/wire';
import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import type { Closable } from '../connection/procedure.ts';
import { type ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import type { WireRange } from '../kv/key-range.ts';
import { pinnedList } from '../kv/pinned-list.ts';
import { askWhetherOrdered } from '../watch/progress-order.ts';
import { WatchStream } from '../watch/watch-stream.ts';
import { lookForChanges } from './progress-proof.ts';
import { revisionOf, ViewPart } from './view-part.ts';
import type { StaleReason } from './view-state.ts';

/** What a {@link ViewFollower} finds out. After `onFailure` nothing comes. */
export interface FollowerSink {
  /** All there is, at one revision. The first time, and after history was lost. */
  onList(kvs: readonly WireKeyValue[], revision: number, askedAt: number): void;
  /** What happened up to `revision`: in order, whole revisions, none left out. */
  onEvents(events: readonly Event[], revision: number): void;
  onState(stale: StaleReason | undefined): void;
  /** Whether somebody waits for a revision that was not told yet. */
  isAwaited(): boolean;
  onFailure(error: ConclaveError): void;
}

const proveInitialMs = 20;
const proveMaxMs = 1_000;

/**
 * Reads some ranges and follows them from there, all at one revision: what one range has to tell waits until the others are known to have told
 * all that came before. How far they are is found out by proofs, of which one is under way at a time: a word of progress from the server, or
 * where that cannot be believed a look at the ranges.
 *
 * The stream is the follower's own. So a word of progress speaks of its watches and of no others, and is asked for only while all of them stand.
 */
export class ViewFollower {
  readonly #engine: Engine;
  readonly #ranges: readonly WireRange[];
  readonly #staleAfterMs: number;
  readonly #sink: FollowerSink;
  readonly #backoff: Backoff;
  /** Aborted at the end. */
  readonly #life = new AbortController();

  #stream: WatchStream | undefined;
  #parts: readonly ViewPart[] = [];
  #revision = 0;
  #stale: StaleReason | undefined = 'listing';

  /** Whether words of progress on the present stream can be believed; undefined: not known yet, or there is no stream. */
  #isOrdered: boolean | undefined;
  /** Whether an answer is awaited. One that comes later than that counts too. */
  #isAsking = false;
  /** When it was asked last. */
  #askedAt = 0;
  /** What was asked for while an answer was awaited may need another. */
  #isAskedAgain = false;
  #look: Closable | undefined;
  #retryTimer: Timer | undefined;
  #tickTimer: Timer | undefined;
  /** When it was last asked whether the view was up to date, with the answer that it is. */
  #provenAt = 0;

  constructor(engine: Engine, ranges: readonly WireRange[], staleAfterMs: number, sink: FollowerSink) {
    this.#engine = engine;
    this.#ranges = ranges;
    this.#staleAfterMs = staleAfterMs;
    this.#sink = sink;
    this.#backoff = new Backoff(engine.runtime, proveInitialMs, proveMaxMs);
  }

  start(): void {
    this.#list();
    this.#tick();
  }

  /** Finds out how far the ranges are: soon, whatever became of earlier questions. */
  ask(): void {
    this.#backoff.reset();
    if (this.#isAsking) this.#isAskedAgain = true;
    else this.#prove();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#life.abort();
    this.#tickTimer?.cancel();
    this.#endStream();
  }

  get #isClosed(): boolean {
    return this.#life.signal.aborted;
  }

  #list(): void {
    const askedAt = this.#engine.runtime.monotonic();
    pinnedList(this.#engine, this.#ranges, this.#life.signal).then(
      ({ revision, kvs }) => {
        if (this.#isClosed) return;
        this.#revision = revision;
        this.#provenAt = askedAt;
        this.#sink.onList(kvs.flat(), revision, askedAt);
        if (!this.#isClosed) this.#follow(revision, kvs);
      },
      (error: unknown) => {
        if (!this.#isClosed) this.#fail(error as ConclaveError);
      },
    );
  }

  #follow(revision: number, kvs: readonly (readonly WireKeyValue[])[]): void {
    const stream = new WatchStream(this.#engine, () => {}, {
      onStanding: (watcher) => {
        if (this.#stream === stream) this.#onStanding(watcher.id);
      },
      onBroken: () => {
        if (this.#stream === stream) this.#onBroken();
      },
      onProgress: (progress) => {
        if (this.#stream === stream) this.#onProgress(progress);
      },
    });
    this.#stream = stream;
    const onNews = (): void => {
      if (this.#stream === stream) this.#onNews();
    };
    const onFailure = (error: ConclaveError): void => {
      if (this.#stream === stream) this.#onWatchFailure(error);
    };
    this.#parts = this.#ranges.map((range, at) => new ViewPart(at + 1, range, revision, kvs[at]?.length ?? 0, onNews, onFailure));
    for (const { watcher } of this.#parts) stream.add(watcher);
  }

  #onStanding(id: number): void {
    for (const part of this.#parts) if (part.watcher.id === id) part.isStanding = true;
    const stream = this.#stream;
    if (stream === undefined || !this.#areStanding) return;
    // Right after everything was read there is nothing to catch up with.
    const isFresh = this.#engine.runtime.monotonic() - this.#provenAt < this.#staleAfterMs;
    if (isFresh && (this.#stale === 'listing' || this.#stale === 'compacted')) this.#setStale(undefined);
    if (this.#stream !== stream) return;
    askWhetherOrdered(stream, (isOrdered) => {
      if (this.#stream !== stream) return;
      // Who does not answer is not believed.
      this.#isOrdered = isOrdered ?? false;
      this.#prove();
    });
  }

  #onBroken(): void {
    for (const part of this.#parts) part.isStanding = false;
    this.#forgetProof();
    this.#isOrdered = undefined;
    this.#setStale('disconnected');
  }

  #onNews(): void {
    this.#release();
    if (this.#parts.some(({ isAhead }) => isAhead)) this.ask();
  }

  #onWatchFailure(error: ConclaveError): void {
    this.#endStream();
    if (!isConclaveError(error, 'compacted')) {
      this.#fail(error);
      return;
    }
    this.#engine.meter?.metrics.viewResynced();
    this.#engine.runtime.log.warn({ revision: this.#revision }, 'a view missed history that was compacted away, and reads everything anew');
    this.#setStale('compacted');
    if (!this.#isClosed) this.#list();
  }

  /** Asks how far the view is, unless that is being asked or cannot be. */
  #prove(): void {
    if (this.#isOrdered === undefined || this.#isAsking) return;
    this.#isAsking = true;
    this.#askedAt = this.#engine.runtime.monotonic();
    this.#isAskedAgain = false;
    this.#retryTimer?.cancel();
    if (this.#isOrdered) {
      this.#stream?.requestProgress();
      // A server may leave it unanswered.
      this.#retryTimer = this.#engine.runtime.timer(this.#backoff.next(), () => this.#askAgain(), { background: true });
      return;
    }
    const look = lookForChanges(
      this.#engine,
      this.#parts,
      (revision) => this.#onAnswer(revision),
      () => this.#onAnswer(undefined),
    );
    this.#look = { close: () => look.cancel() };
  }

  #onProgress(revision: number): void {
    // From a server that is not believed, or before all watches stand: until then it is not known whether it is.
    if (this.#isOrdered !== true) return;
    for (const part of this.#parts) part.pass(revision);
    this.#onAnswer(revision);
  }

  /** How far the store was when it was asked; undefined: there was no answer. */
  #onAnswer(revision: number | undefined): void {
    this.#forgetProof();
    if (this.#isClosed || this.#stream === undefined) return;
    this.#release();
    if (this.#isClosed || this.#stream === undefined) return;
    if (revision !== undefined && this.#revision >= revision) {
      this.#backoff.reset();
      this.#provenAt = this.#askedAt;
      this.#setStale(undefined);
    }
    if (this.#isAskedAgain) this.#prove();
    else this.#askAgainLater();
  }

  #askAgain(): void {
    this.#retryTimer = undefined;
    this.#isAsking = false;
    if (this.#isProofWanted) this.#prove();
  }

  #askAgainLater(): void {
    if (!this.#isProofWanted || this.#isAsking || this.#isClosed) return;
    this.#retryTimer?.cancel();
    this.#retryTimer = this.#engine.runtime.timer(this.#backoff.next(), () => this.#askAgain(), { background: true });
  }

  get #isProofWanted(): boolean {
    return this.#sink.isAwaited() || this.#stale !== undefined || this.#parts.some(({ isAhead }) => isAhead);
  }

  get #areStanding(): boolean {
    return this.#parts.every(({ isStanding }) => isStanding);
  }

  /** Tells what all ranges have come past. */
  #release(): void {
    const revision = Math.min(...this.#parts.map(({ through }) => through));
    if (revision > this.#revision) {
      this.#revision = revision;
      const events = this.#parts.flatMap((part) => part.take(revision));
      // The ranges' events are in order; only between ranges it is to be made.
      if (this.#parts.length > 1) events.sort((one, other) => revisionOf(one) - revisionOf(other));
      this.#sink.onEvents(events, revision);
    }
  }

  /** Now and then, whether or not anything happens. */
  #tick(): void {
    this.#tickTimer = this.#engine.runtime.timer(
      this.#staleAfterMs / 3,
      () => {
        this.#tick();
        const silentMs = this.#engine.runtime.monotonic() - this.#provenAt;
        if (this.#stale === undefined && silentMs > this.#staleAfterMs) this.#setStale('silent');
        this.#prove();
      },
      { background: true },
    );
  }

  #setStale(stale: StaleReason | undefined): void {
    if (this.#stale === stale) return;
    this.#stale = stale;
    this.#sink.onState(stale);
  }

  #forgetProof(): void {
    this.#isAsking = false;
    this.#retryTimer?.cancel();
    this.#retryTimer = undefined;
    const look = this.#look;
    this.#look = undefined;
    look?.close();
  }

  #endStream(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    this.#isOrdered = undefined;
    this.#forgetProof();
    stream?.close();
  }

  #fail(error: ConclaveError): void {
    this.close();
    this.#sink.onFailure(error);
  }
}
