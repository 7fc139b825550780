import type { CallEnd, ClientStream, Timer } from '@conclave/wire';
import { ConclaveError } from '../errors/conclave-error.ts';
import { fromCallEnd, refusesToken } from '../errors/from-call-end.ts';
import { Backoff } from './backoff.ts';
import type { Engine } from './engine.ts';
import { askMember } from './member-question.ts';
import { Passage } from './passage.ts';
import type { MovableStream, Slot } from './slot.ts';
import { anonymous, refusalsMax, type Token } from './token.ts';

const reopenInitialMs = 20;
const reopenMaxMs = 1_000;

export interface PersistentStreamHandler {
  /** A new stream is open; nothing sent on an earlier one counts any more. */
  onOpen(): void;
  onMessage(bytes: Uint8Array): void;
  /**
   * The stream is gone; `end` says how, unless it was given up by {@link PersistentStream.reopen}. Returns whether to open another: false
   * when another attempt would only be refused again, and then this stream is closed.
   */
  onLost(end: CallEnd | undefined): boolean;
  /** The server does not accept the client's credentials. Returns whether to try again all the same; if not, this stream is closed. */
  onRefused(error: ConclaveError): boolean;
}

/** A stream that is opened again, elsewhere if possible, whenever it breaks. What must be said again on a new one is the handler's matter. */
export class PersistentStream implements MovableStream {
  readonly #engine: Engine;
  readonly #path: string;
  readonly #handler: PersistentStreamHandler;
  readonly #backoff: Backoff;
  #stream: ClientStream | undefined;
  #slot: Slot | undefined;
  #token: Token | undefined;
  /** How many tokens in a row were refused. */
  #refusals = 0;
  #avoid: Slot | undefined;
  #timer: Timer | undefined;
  /** That of the present stream, or of the next. */
  #passage: Passage | undefined;
  #hasPassed = false;
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
    if (this.#isClosed || this.#stream !== undefined || !this.#mayPass()) return;
    const { balancer, authenticator } = this.#engine;
    const slot = balancer.pick(this.#avoid);
    const token = authenticator === undefined ? anonymous : authenticator.token;
    if (slot === undefined) balancer.wait(this);
    else if (token === undefined) authenticator?.wait(this);
    else this.#openOn(slot, token);
  }

  onReady(): void {
    this.open();
  }

  onToken(): void {
    this.open();
  }

  onRefused(error: ConclaveError): void {
    if (!this.#handler.onRefused(error)) this.#isClosed = true;
    this.#openLater();
  }

  get isOpen(): boolean {
    return this.#stream !== undefined;
  }

  /** Where the stream goes; undefined: it is not open. */
  get endpoint(): string | undefined {
    return this.#slot?.address;
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
    const { call: metadata } = this.#token ?? anonymous;
    askMember(this.#engine, slot, { path, request, metadata, timeoutMs }, (response) => {
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
    this.#forget(slot, false, broken('unavailable', 'an answer was overdue'));
    slot.suspect();
    stream.cancel();
    this.#afterLoss(undefined);
  }

  /**
   * The server does not take the token that this stream was opened with: goes on with a new stream and another token. False, and nothing is
   * done, when there is no other to be had.
   */
  renewToken(): boolean {
    const stream = this.#stream;
    if (stream === undefined || this.#slot === undefined || !this.#refuseToken()) return false;
    this.#forget(this.#slot, true, broken('unauthenticated', 'the server did not take the token any longer'));
    stream.cancel();
    this.#afterLoss(undefined);
    return true;
  }

  onShunned(): void {
    if (this.#slot !== undefined && this.#engine.balancer.better([this.#slot]) !== undefined) this.reopen();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#engine.balancer.forget(this);
    this.#engine.authenticator?.forget(this);
    const stream = this.#stream;
    if (this.#slot !== undefined) this.#forget(this.#slot, false, undefined);
    else this.#endPassage(undefined);
    stream?.cancel();
  }

  /** Whether the middleware has let the next stream pass. If not, opens it once it does. */
  #mayPass(): boolean {
    const { middleware, runtime } = this.#engine;
    if (middleware === undefined || this.#hasPassed) return true;
    if (this.#passage !== undefined) return false;
    const init = { kind: 'stream', path: this.#path, isRepeatable: true, deadline: Number.POSITIVE_INFINITY, request: undefined } as const;
    const passage = new Passage(middleware, runtime, init);
    this.#passage = passage;
    passage.enter({
      onPassed: () => {
        if (this.#passage !== passage) return;
        this.#hasPassed = true;
        this.open();
      },
      onRefused: (error) => {
        if (this.#passage !== passage) return;
        this.#endPassage(error);
        this.onRefused(error);
      },
    });
    return false;
  }

  #endPassage(error: ConclaveError | undefined): void {
    const passage = this.#passage;
    this.#passage = undefined;
    this.#hasPassed = false;
    passage?.end(error);
  }

  #openOn(slot: Slot, token: Token): void {
    this.#slot = slot;
    this.#token = token;
    slot.begin(false);
    slot.carry(this);
    this.#passage?.attempt(slot.address);
    const options = { metadata: this.#passage?.metadata(token.stream) ?? token.stream };
    const stream: ClientStream = slot.connection.stream(this.#path, options, {
      onMessage: (bytes) => {
        if (this.#stream !== stream) return;
        slot.hear();
        this.#backoff.reset();
        this.#avoid = undefined;
        const refusals = this.#refusals;
        this.#handler.onMessage(bytes);
        if (refusals === this.#refusals) this.#refusals = 0;
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
    const isTokenRefused = refusesToken(end.code, end.message) && this.#engine.authenticator !== undefined;
    const mayRenew = isTokenRefused && this.#refuseToken();
    this.#forget(slot, !end.notProcessed, end.code === 0 ? undefined : fromCallEnd(end, false));
    if (isTokenRefused && !mayRenew) this.onRefused(fromCallEnd(end, false));
    else this.#afterLoss(isTokenRefused ? undefined : end);
  }

  /** Whether it makes sense to try another token. */
  #refuseToken(): boolean {
    const { authenticator } = this.#engine;
    if (authenticator === undefined || this.#token === undefined) return false;
    authenticator.refuse(this.#token);
    return ++this.#refusals <= refusalsMax;
  }

  #afterLoss(end: CallEnd | undefined): void {
    if (!this.#handler.onLost(end)) this.#isClosed = true;
    this.#openLater();
  }

  #openLater(): void {
    if (this.#isClosed) return;
    this.#timer = this.#engine.runtime.timer(this.#backoff.next(), () => this.open());
  }

  /** `error` is why the stream is gone, for those who watch; undefined: nothing went wrong. */
  #forget(slot: Slot, heard: boolean, error: ConclaveError | undefined): void {
    this.#stream = undefined;
    this.#slot = undefined;
    this.#avoid = slot;
    slot.drop(this);
    slot.end(false, heard);
    this.#endPassage(error);
  }
}

function broken(code: 'unavailable' | 'unauthenticated', message: string): ConclaveError {
  return new ConclaveError({ code, message, outcome: 'not-applied' });
}
