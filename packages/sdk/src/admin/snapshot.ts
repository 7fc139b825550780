import { createHash } from 'node:crypto';
import { Maintenance, SnapshotResponse } from '@conclave/protocol';
import type { CallEnd, ClientStream, Timer } from '@conclave/wire';
import { onAbort } from '../connection/abort.ts';
import { heldBack } from '../connection/call-errors.ts';
import type { Engine } from '../connection/engine.ts';
import { Passage } from '../connection/passage.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import type { Slot } from '../connection/slot.ts';
import { anonymous, refusalsMax, type Token } from '../connection/token.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import { fromCallEnd, refusesToken } from '../errors/from-call-end.ts';
import { concatBytes, noBytes } from '../kv/text.ts';
import { EventQueue } from '../watch/event-queue.ts';

export interface SnapshotProgress {
  readonly receivedBytes: number;
  /** What is still to come, as the member reckons. It may be a little less than what comes. */
  readonly remainingBytes: number;
}

export interface SnapshotOptions extends RequestOptions {
  /** How long it may take until the first bytes come, in milliseconds. Default: the client's `deadlineMs`. The whole may take any time. */
  readonly deadlineMs?: number | undefined;
  /** Called as the bytes are read. */
  readonly onProgress?: ((progress: SnapshotProgress) => void) | undefined;
}

const checksumBytes = 32;
const { snapshot } = Maintenance.methods;

/** The file's bytes, its checksum included, which is given out last and only if it is right. */
export async function* snapshotOf(engine: Engine, options: SnapshotOptions): AsyncGenerator<Uint8Array, void, undefined> {
  const body = new ChecksummedBytes();
  let receivedBytes = 0;
  for await (const { blob, remainingBytes } of responsesOf(engine, options)) {
    const bytes = body.push(blob);
    receivedBytes += blob.length;
    options.onProgress?.({ receivedBytes, remainingBytes });
    if (bytes.length > 0) yield bytes;
  }
  yield body.checksum();
}

/** Bytes that end with the SHA-256 of those before. Which these are is known only at the end, so as many are held back as a checksum has. */
class ChecksummedBytes {
  readonly #hash = createHash('sha256');
  #held: Uint8Array = noBytes;

  /** Takes what came, and gives what is certainly not the checksum. */
  push(bytes: Uint8Array): Uint8Array {
    const all = this.#held.length === 0 ? bytes : concatBytes(this.#held, bytes);
    const cut = Math.max(0, all.length - checksumBytes);
    this.#held = all.subarray(cut);
    const sound = all.subarray(0, cut);
    this.#hash.update(sound);
    return sound;
  }

  checksum(): Uint8Array {
    if (this.#hash.digest().equals(this.#held)) return this.#held;
    throw new ConclaveError({ code: 'snapshot-corrupt', message: 'the checksum of the snapshot does not match', outcome: 'not-applied' });
  }
}

/** The messages of one snapshot call. A slow reader holds the member back. */
function responsesOf(engine: Engine, options: SnapshotOptions): AsyncIterable<SnapshotResponse> {
  return {
    [Symbol.asyncIterator]: () => {
      const queue = new EventQueue<SnapshotResponse>({ countMax: 16 });
      const call = new SnapshotCall(engine, options, queue);
      queue.attach(call);
      call.start();
      return queue;
    },
  };
}

/** One call with many answers. It is not repeated: what another one sends is another snapshot. */
class SnapshotCall {
  readonly #engine: Engine;
  readonly #options: SnapshotOptions;
  readonly #queue: EventQueue<SnapshotResponse>;
  #slot: Slot | undefined;
  #stream: ClientStream | undefined;
  #timer: Timer | undefined;
  #stopListening: () => void = () => {};
  #passage: Passage | undefined;
  /** Whether the middleware let it pass, if there is any. */
  #hasPassed = true;
  #isEnded = false;
  /** How many tokens in a row were refused. */
  #refusals = 0;

  constructor(engine: Engine, options: SnapshotOptions, queue: EventQueue<SnapshotResponse>) {
    this.#engine = engine;
    this.#options = options;
    this.#queue = queue;
  }

  start(): void {
    const { signal } = this.#options;
    if (this.#engine.isClosed) this.#end(this.#engine.closedError());
    else if (signal?.aborted === true) this.#end(cancelled(signal));
    else this.#begin(signal);
  }

  #begin(signal: AbortSignal | undefined): void {
    const { middleware, runtime } = this.#engine;
    const deadline = this.#engine.deadlineOf(this.#options.deadlineMs);
    const leftMs = deadline - runtime.monotonic();
    if (leftMs < Number.POSITIVE_INFINITY) this.#timer = runtime.timer(leftMs, () => this.#end(this.#lateError()));
    if (signal !== undefined) this.#stopListening = onAbort(signal, () => this.#end(cancelled(signal)));
    this.#engine.parked.add(this);
    if (middleware === undefined) {
      this.onReady();
      return;
    }
    const init = {
      kind: 'stream',
      path: snapshot.path,
      isRepeatable: true,
      deadline,
      request: undefined,
    } as const;
    this.#hasPassed = false;
    this.#passage = new Passage(middleware, runtime, init);
    this.#passage.enter({
      onPassed: () => {
        this.#hasPassed = true;
        if (!this.#isEnded) this.onReady();
      },
      onRefused: (error) => this.#end(error),
    });
  }

  onReady(): void {
    const { authenticator, balancer } = this.#engine;
    const slot = balancer.pick();
    const token = authenticator === undefined ? anonymous : authenticator.token;
    if (slot === undefined) balancer.wait(this);
    else if (token === undefined) authenticator?.wait(this);
    else this.#open(slot, token);
  }

  onToken(): void {
    this.onReady();
  }

  onRefused(error: ConclaveError): void {
    this.#end(error);
  }

  pause(): void {
    this.#stream?.pause();
  }

  resume(): void {
    this.#stream?.resume();
  }

  /** The reader has enough. */
  cancel(): void {
    this.#end();
  }

  /** The client closes. */
  close(): void {
    this.#end(this.#engine.closedError());
  }

  #open(slot: Slot, token: Token): void {
    this.#slot = slot;
    slot.begin(false);
    this.#passage?.attempt(slot.address);
    this.#stream = slot.connection.stream(
      snapshot.path,
      { metadata: this.#passage?.metadata(token.call) ?? token.call },
      {
        onMessage: (bytes) => {
          slot.hear();
          this.#onMessage(bytes);
        },
        onEnd: (end) => this.#onEnd(end, token),
      },
    );
    this.#stream.write(snapshot.input.encode({}));
    this.#stream.halfClose();
  }

  #onEnd(end: CallEnd, token: Token): void {
    const slot = this.#slot;
    const mayRenew = refusesToken(end.code, end.message) && this.#engine.authenticator !== undefined && ++this.#refusals <= refusalsMax;
    if (!mayRenew || slot === undefined || this.#isEnded) {
      this.#end(end.code === 0 ? undefined : fromCallEnd(end, false));
      return;
    }
    // It is refused before anything is sent.
    this.#passage?.fail(end.code, end.message);
    this.#slot = undefined;
    slot.end(false, true);
    this.#engine.authenticator?.refuse(token);
    this.onReady();
  }

  #onMessage(bytes: Uint8Array): void {
    if (this.#isEnded) return;
    this.#timer?.cancel();
    try {
      this.#queue.push(SnapshotResponse.decode(bytes));
    } catch (cause) {
      this.#end(new ConclaveError({ code: 'internal', message: 'unreadable snapshot response', outcome: 'not-applied', cause }));
    }
  }

  #end(error?: ConclaveError): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#timer?.cancel();
    this.#stopListening();
    this.#engine.parked.delete(this);
    this.#engine.balancer.forget(this);
    this.#engine.authenticator?.forget(this);
    this.#slot?.end(false, true);
    this.#stream?.cancel();
    this.#passage?.end(error);
    this.#queue.end(error === undefined ? {} : { error });
  }

  #lateError(): ConclaveError {
    if (!this.#hasPassed) return heldBack();
    const code = this.#stream === undefined ? 'unavailable' : 'deadline-exceeded';
    const message = this.#stream === undefined ? 'the member could not be reached in time' : 'the member did not begin a snapshot in time';
    return new ConclaveError({ code, message, outcome: 'not-applied' });
  }
}

function cancelled(signal: AbortSignal): ConclaveError {
  return new ConclaveError({ code: 'cancelled', message: 'the snapshot was cancelled', outcome: 'not-applied', cause: signal.reason });
}
