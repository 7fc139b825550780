import {
  type Event,
  WatchCreateRequest_FilterType as FilterType,
  findWireError,
  type Init,
  type WatchCreateRequest,
  type WatchResponse,
  type KeyValue as WireKeyValue,
} from '@conclave/protocol';
import { ConclaveError } from '../errors/conclave-error.ts';
import { fromReason, refusesToken } from '../errors/from-call-end.ts';
import type { WireRange } from '../kv/key-range.ts';

/** Receives what one watch tells. After `onFailure` nothing comes. */
export interface WatchSink {
  /** The server watches; changes after `revision` will be told. Once, whatever happens to the connection later. */
  onCreated(revision: number): void;
  /** All events of one or more whole revisions, in order. */
  onEvents(events: readonly Event[]): void;
  /** Everything up to `revision` has been told. */
  onProgress(revision: number): void;
  onFailure(error: ConclaveError): void;
}

export interface WatchSpec extends WireRange {
  readonly prevKv: boolean;
  readonly ignore: 'put' | 'delete' | undefined;
  readonly progressNotify: boolean;
  readonly fragment: boolean;
  /**
   * Start each stream one revision early, and drop what was told before. A server gives no word of progress while a watch of the stream starts
   * in the future, as one does that has been told everything. Default: false.
   */
  readonly startsEarly?: boolean;
}

/** What a response means for the stream that carried it. */
export type Verdict = 'go-on' | 'ended' | 'recreate' | 'token-refused';

/**
 * The memory of one watch across all the streams it lives on.
 *
 * Invariant: every event below `next` has been told, and none from `next` on. So `next` is where a new stream starts, and what arrives from
 * below it has been told before. It moves only past whole revisions, whose events may be spread over the fragments of a batch, and past a
 * progress notification of the server; never for a `created`, whose header can be ahead of events still to come.
 * Source: etcd api_guarantees, watch.
 */
export class Watcher {
  readonly id: number;
  readonly #spec: WatchSpec;
  readonly #sink: WatchSink;
  #next: number;
  /** The events of the last revision of an unfinished batch: more of the same may follow in the next fragment. */
  #held: Event[] | undefined;
  #isCreated = false;
  #startsEarly: boolean;
  /** Where the store was when it sent the last events, if more may follow; 0: everything up to then has come. */
  #storeAt = 0;
  #told = 0;

  constructor(id: number, spec: WatchSpec, startRevision: number, sink: WatchSink) {
    this.id = id;
    this.#spec = spec;
    this.#next = startRevision;
    this.#sink = sink;
    this.#startsEarly = spec.startsEarly ?? false;
  }

  /** All below was told. */
  get next(): number {
    return this.#next;
  }

  /** How many events were told, each once. */
  get told(): number {
    return this.#told;
  }

  /** From the next stream on, see {@link WatchSpec.startsEarly}. */
  startEarly(): void {
    this.#startsEarly = true;
  }

  /** By how many revisions what was told is behind what the server had when it sent it. */
  get lag(): number {
    return Math.max(0, this.#storeAt - this.#next + 1);
  }

  /** By how many it may be behind a store that is at `revision`. */
  lagBehind(revision: number): number {
    return Math.max(0, revision - this.#next + 1);
  }

  /** The server has nothing more to send. It says so of a stream as a whole, and that moves no watch: an old one says it too early. */
  catchUp(): void {
    this.#storeAt = 0;
  }

  /** The request that goes on where this watch is. Forgets a batch of which only a part came. */
  createRequest(): Init<WatchCreateRequest> {
    this.#held = undefined;
    this.#storeAt = 0;
    const { key, rangeEnd, prevKv, ignore, progressNotify, fragment } = this.#spec;
    return {
      key,
      rangeEnd,
      startRevision: this.#startsEarly ? Math.max(1, this.#next - 1) : this.#next,
      watchId: BigInt(this.id),
      prevKv,
      progressNotify,
      fragment,
      filters: ignore === undefined ? [] : [ignore === 'put' ? FilterType.NOPUT : FilterType.NODELETE],
    };
  }

  onResponse(response: WatchResponse): Verdict {
    if (response.canceled) return this.#onCanceled(response);
    if (response.created) this.#onCreated();
    else if (response.events.length > 0 || response.fragment || this.#held !== undefined) this.#onEvents(response);
    else this.#onProgress(response.header?.revision ?? 0);
    return 'go-on';
  }

  fail(error: ConclaveError): void {
    this.#sink.onFailure(error);
  }

  /** The owner knows by other means that all up to `revision` was told. Returns whether it can be so: not in the middle of a batch. */
  pass(revision: number): boolean {
    if (this.#held !== undefined) return false;
    this.#next = Math.max(this.#next, revision + 1);
    return true;
  }

  #onCreated(): void {
    if (this.#isCreated) return;
    this.#isCreated = true;
    this.#sink.onCreated(this.#next - 1);
  }

  #onEvents(response: WatchResponse): void {
    this.#storeAt = response.header?.revision ?? 0;
    let events = this.#held === undefined ? response.events : this.#held.concat(response.events);
    this.#held = undefined;
    if (response.fragment) {
      // More is to come, and may belong to the last revision seen so far. All before it is whole.
      const whole = wholeRevisions(events);
      this.#held = events.slice(whole);
      events = events.slice(0, whole);
    }
    const fresh =
      events.length > 0 && revisionOf(events[0] as Event) < this.#next ? events.filter((event) => revisionOf(event) >= this.#next) : events;
    const last = fresh.at(-1);
    // Of a whole batch there may be nothing new.
    if (last === undefined) return;
    this.#next = revisionOf(last) + 1;
    this.#told += fresh.length;
    this.#sink.onEvents(fresh);
  }

  #onProgress(revision: number): void {
    // A watch on the future is told of revisions before its start; they say nothing about it.
    if (revision < this.#next) {
      if (revision === this.#next - 1) this.#sink.onProgress(revision);
      return;
    }
    this.#next = revision + 1;
    this.#sink.onProgress(revision);
  }

  #onCanceled(response: WatchResponse): Verdict {
    const { compactRevision, cancelReason } = response;
    if (compactRevision > 0) {
      // What is needed is there, only not what was told before.
      if (this.#startsEarly && compactRevision <= this.#next) {
        this.#startsEarly = false;
        return 'recreate';
      }
      this.fail(compacted(this.#next, compactRevision));
      return 'ended';
    }
    // Not on our request, as that takes the watch off the stream at once. Without a reason, or with one that passes, nothing stands against
    // going on.
    if (cancelReason === '' || findWireError(undefined, cancelReason)?.retry === 'unavailable') return 'recreate';
    if (refusesToken(undefined, cancelReason)) return 'token-refused';
    this.fail(fromReason(cancelReason));
    return 'ended';
  }
}

function revisionOf(event: Event): number {
  return (event.kv as WireKeyValue).modRevision;
}

/** How many of these events belong to revisions before the last of them. */
function wholeRevisions(events: readonly Event[]): number {
  const last = events.at(-1);
  if (last === undefined) return 0;
  return events.findIndex((event) => revisionOf(event) === revisionOf(last));
}

function compacted(next: number, compactRevision: number): ConclaveError<'compacted'> {
  return new ConclaveError({
    code: 'compacted',
    message: `changes from revision ${next} on were asked for, but those before revision ${compactRevision} are compacted away`,
    outcome: 'not-applied',
    details: { compactRevision: BigInt(compactRevision) },
  });
}
