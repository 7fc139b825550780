import { type Init, KV, type RangeRequest, type RangeResponse, StatusCode } from '@conclave/protocol';
import type { CallEnd, ClientStream, Metadata, Timer } from '@conclave/wire';
import { onAbort } from '../connection/abort.ts';
import type { Engine } from '../connection/engine.ts';
import { Passage } from '../connection/passage.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import type { Slot } from '../connection/slot.ts';
import { anonymous } from '../connection/token.ts';
import { fromCallEnd } from '../errors/from-call-end.ts';

const { path, input, output } = KV.methods.rangeStream;

/** Opens range streams for a client, until a server says that it has none: they came with etcd 3.7. */
export class RangeStreams {
  readonly #engine: Engine;
  #isOffered = true;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Undefined: this client cannot have one, or not now. */
  open(request: Init<RangeRequest>, options: RequestOptions | undefined): RangeStream | undefined {
    const way = this.#isOffered ? wayOf(this.#engine) : undefined;
    if (way === undefined) return undefined;
    const onEnd = ({ code }: CallEnd): void => {
      if (code === StatusCode.UNIMPLEMENTED) this.#isOffered = false;
    };
    return new RangeStream(this.#engine, way, request, options, onEnd);
  }
}

/** Where a stream goes, and with what. */
interface Way {
  readonly slot: Slot;
  readonly metadata: Metadata;
}

/** Undefined: there is none now. A plain read waits for an endpoint and for a token, and renews one that is refused. */
function wayOf({ authenticator, balancer }: Engine): Way | undefined {
  const token = authenticator === undefined ? anonymous : authenticator.token;
  const slot = token === undefined ? undefined : balancer.pick();
  return slot === undefined || token === undefined ? undefined : { slot, metadata: token.call };
}

/**
 * One range in chunks, as they are asked for. It only ever gives what came: why a stream ended early is not its matter, as whoever goes on
 * with a plain read is told by that.
 */
export class RangeStream {
  readonly #engine: Engine;
  readonly #options: RequestOptions | undefined;
  readonly #passage: Passage | undefined;
  readonly #onEnd: (end: CallEnd) => void;
  #stream: ClientStream | undefined;
  readonly #chunks: RangeResponse[] = [];
  #wake: () => void = () => {};
  #isEnded = false;
  #isWhole = false;

  constructor(engine: Engine, way: Way, request: Init<RangeRequest>, options: RequestOptions | undefined, onEnd: (end: CallEnd) => void) {
    this.#engine = engine;
    this.#options = options;
    this.#onEnd = onEnd;
    const bytes = input.encode(request);
    if (engine.middleware === undefined) {
      this.#open(way, bytes);
      return;
    }
    const init = { kind: 'stream', path, isRepeatable: true, deadline: Number.POSITIVE_INFINITY, request } as const;
    this.#passage = new Passage(engine.middleware, engine.runtime, init);
    this.#passage.enter({
      onPassed: () => {
        // It may have taken a while.
        const now = this.#isEnded ? undefined : wayOf(engine);
        if (now === undefined) this.#end();
        else this.#open(now, bytes);
      },
      onRefused: (error) => {
        this.#passage?.end(error);
        this.#end();
      },
    });
  }

  #open({ slot, metadata }: Way, request: Uint8Array): void {
    this.#passage?.attempt(slot.address);
    // Awaited, so that a peer that falls silent is found out as soon as with any call.
    slot.begin(true);
    this.#stream = slot.connection.stream(
      path,
      { metadata: this.#passage?.metadata(metadata) ?? metadata },
      {
        onMessage: (bytes) => {
          slot.hear();
          this.#onMessage(bytes);
        },
        onEnd: (end) => {
          slot.end(true, !end.notProcessed);
          this.#onEnd(end);
          this.#passage?.end(end.code === 0 ? undefined : fromCallEnd(end, false));
          this.#end();
        },
      },
    );
    this.#stream.write(request);
    this.#stream.halfClose();
  }

  /** Whether all of the range came. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** The next chunk; undefined: there is none, because the range is at its end, or the stream broke, stalled, or was given up. */
  async next(): Promise<RangeResponse | undefined> {
    if (this.#chunks.length === 0 && !this.#isEnded) await this.#arrival();
    const chunk = this.#chunks.shift();
    if (chunk?.header !== undefined) this.#isWhole = true;
    return chunk;
  }

  close(): void {
    this.#end();
    this.#stream?.cancel();
  }

  async #arrival(): Promise<void> {
    const { deadlineMs, signal } = this.#options ?? {};
    const giveUp = (): void => this.close();
    if (signal?.aborted === true) return giveUp();
    const stopListening = signal === undefined ? undefined : onAbort(signal, giveUp);
    const delayMs = this.#engine.deadlineOf(deadlineMs) - this.#engine.runtime.monotonic();
    const timer: Timer | undefined = Number.isFinite(delayMs) ? this.#engine.runtime.timer(delayMs, giveUp) : undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#stream?.resume();
    });
    timer?.cancel();
    stopListening?.();
  }

  #onMessage(bytes: Uint8Array): void {
    if (this.#isEnded) return;
    try {
      const chunk = output.decode(bytes).rangeResponse;
      if (chunk !== undefined) this.#chunks.push(chunk);
    } catch (err) {
      this.#engine.runtime.log.warn({ err }, 'unreadable part of a range; going on with a plain read');
      this.close();
      return;
    }
    // One waits while one is read; the rest waits at the server.
    this.#stream?.pause();
    this.#wake();
  }

  #end(): void {
    this.#isEnded = true;
    this.#passage?.end(undefined);
    this.#wake();
  }
}
