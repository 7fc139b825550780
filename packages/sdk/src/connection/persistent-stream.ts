import type { CallEnd, ClientStream, Timer } from '@conclave/wire';
import { Backoff } from './backoff.ts';
import type { Engine } from './engine.ts';
import type { Slot } from './slot.ts';

const reopenInitialMs = 20;
const reopenMaxMs = 1_000;

/** A member that lost its leader ends such a stream instead of letting it fall silent. */
const requireLeader = { metadata: { hasleader: 'true' } };

export interface PersistentStreamHandler {
  /** A new stream is open; nothing sent on an earlier one counts any more. */
  onOpen(): void;
  onMessage(bytes: Uint8Array): void;
  /**
   * The stream is gone; `end` says how, unless it was given up by {@link PersistentStream.reopen}. Returns whether to open another: false
   * when another attempt would only be refused again, and then this stream is closed.
   */
  onLost(end: CallEnd | undefined): boolean;
}

/** A stream that is opened again, elsewhere if possible, whenever it breaks. What must be said again on a new one is the handler's matter. */
export class PersistentStream {
  readonly #engine: Engine;
  readonly #path: string;
  readonly #handler: PersistentStreamHandler;
  readonly #backoff: Backoff;
  #stream: ClientStream | undefined;
  #slot: Slot | undefined;
  #avoid: Slot | undefined;
  #timer: Timer | undefined;
  #isPaused = false;
  #isClosed = false;

  constructor(engine: Engine, path: string, handler: PersistentStreamHandler) {
    this.#engine = engine;
    this.#path = path;
    this.#handler = handler;
    this.#backoff = new Backoff(engine.runtime, reopenInitialMs, reopenMaxMs);
  }

  /** Starts. Not done by the constructor, so that the handler can hold the stream when `onOpen` is called. */
  open(): void {
    if (this.#isClosed || this.#stream !== undefined) return;
    const slot = this.#engine.balancer.pick(this.#avoid);
    if (slot === undefined) this.#engine.balancer.wait(this);
    else this.#openOn(slot);
  }

  onReady(): void {
    this.open();
  }

  get isOpen(): boolean {
    return this.#stream !== undefined;
  }

  /** Sends if the stream is open; what is sent while it is not is the handler's to say again in `onOpen`. */
  write(bytes: Uint8Array): void {
    this.#stream?.write(bytes);
  }

  /**
   * Asks the member that the stream is open to, and no other. `done` is given nothing if it does not answer well within the time, and is not
   * called when the stream is another by then.
   */
  ask(path: string, request: Uint8Array, timeoutMs: number, done: (response: Uint8Array | undefined) => void): void {
    const stream = this.#stream;
    const slot = this.#slot;
    if (stream === undefined || slot === undefined) return;
    const deadline = this.#engine.runtime.monotonic() + timeoutMs;
    slot.begin(true);
    slot.connection.unary(path, request, { deadline }, (end, response) => {
      slot.end(true, end.code === 0);
      if (this.#stream === stream) done(response);
    });
  }

  pause(): void {
    this.#isPaused = true;
    this.#stream?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#stream?.resume();
  }

  /** An answer is overdue: look whether the peer lives, and go on with a new stream. */
  reopen(): void {
    const stream = this.#stream;
    const slot = this.#slot;
    if (stream === undefined || slot === undefined) return;
    this.#forget(slot, false);
    slot.suspect();
    stream.cancel();
    this.#afterLoss(undefined);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#engine.balancer.forget(this);
    const stream = this.#stream;
    if (this.#slot !== undefined) this.#forget(this.#slot, false);
    stream?.cancel();
  }

  #openOn(slot: Slot): void {
    this.#slot = slot;
    slot.begin(false);
    const stream: ClientStream = slot.connection.stream(this.#path, requireLeader, {
      onMessage: (bytes) => {
        if (this.#stream !== stream) return;
        slot.hear();
        this.#backoff.reset();
        this.#avoid = undefined;
        this.#handler.onMessage(bytes);
      },
      onEnd: (end) => {
        if (this.#stream === stream) this.#onEnd(slot, end);
      },
    });
    this.#stream = stream;
    if (this.#isPaused) stream.pause();
    this.#handler.onOpen();
  }

  #onEnd(slot: Slot, end: CallEnd): void {
    this.#forget(slot, !end.notProcessed);
    this.#afterLoss(end);
  }

  #afterLoss(end: CallEnd | undefined): void {
    if (!this.#handler.onLost(end)) this.#isClosed = true;
    if (this.#isClosed) return;
    this.#timer = this.#engine.runtime.timer(this.#backoff.next(), () => this.open());
  }

  #forget(slot: Slot, heard: boolean): void {
    this.#stream = undefined;
    this.#slot = undefined;
    this.#avoid = slot;
    slot.end(false, heard);
  }
}
