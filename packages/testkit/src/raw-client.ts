import type { Init, MethodDescriptor } from '@conclave/protocol';
import {
  type CallEnd,
  type CallOptions,
  type ClientStream,
  type Connection,
  type Metadata,
  type Runtime,
  systemRuntime,
} from '@conclave/wire';

/** How a unary call ended, whatever the end: nothing is thrown for a status. */
export interface Answer<O> {
  readonly code: number;
  readonly message: string;
  /** Given iff `code` is 0. */
  readonly response: O | undefined;
  readonly end: CallEnd;
}

export interface RawCallOptions {
  readonly metadata?: Metadata;
  /** Milliseconds until the call ends with DEADLINE_EXCEEDED. Default 10,000: a test must end. */
  readonly timeoutMs?: number;
}

/** Sends single messages over the call contract and hands back exactly what came. For tests, which want to send bad ones too. */
export class RawClient {
  readonly connection: Connection;
  readonly #runtime: Runtime;

  constructor(connection: Connection, runtime: Runtime = systemRuntime()) {
    this.connection = connection;
    this.#runtime = runtime;
  }

  async unary<I, O>(method: MethodDescriptor<I, O, false, false>, request: Init<I>, options?: RawCallOptions): Promise<Answer<O>> {
    const { end, response } = await this.unaryBytes(method.path, method.input.encode(request), options);
    return { code: end.code, message: end.message, response: response && method.output.decode(response), end };
  }

  unaryBytes(path: string, request: Uint8Array, options?: RawCallOptions): Promise<{ end: CallEnd; response: Uint8Array | undefined }> {
    return new Promise((resolve) => {
      this.connection.unary(path, request, this.#callOptions(options), (end, response) => resolve({ end, response }));
    });
  }

  stream<I, O>(method: MethodDescriptor<I, O>, options?: RawCallOptions): RawStream<I, O> {
    return new RawStream(this.connection, method, this.#callOptions({ timeoutMs: 60_000, ...options }));
  }

  #callOptions({ metadata, timeoutMs = 10_000 }: RawCallOptions = {}): CallOptions {
    return { deadline: this.#runtime.monotonic() + timeoutMs, ...(metadata && { metadata }) };
  }
}

/** A stream read one message at a time. */
export class RawStream<I, O> implements Disposable {
  readonly ended: Promise<CallEnd>;
  readonly #method: MethodDescriptor<I, O>;
  readonly #stream: ClientStream;
  readonly #received: O[] = [];
  #waiting: (() => void) | undefined;
  #end: CallEnd | undefined;

  constructor(connection: Connection, method: MethodDescriptor<I, O>, options: CallOptions) {
    this.#method = method;
    let onEnd: (end: CallEnd) => void = () => {};
    this.ended = new Promise((resolve) => {
      onEnd = resolve;
    });
    this.#stream = connection.stream(method.path, options, {
      onMessage: (bytes) => {
        this.#received.push(method.output.decode(bytes));
        this.#wake();
      },
      onEnd: (end) => {
        this.#end = end;
        onEnd(end);
        this.#wake();
      },
    });
  }

  send(message: Init<I>): void {
    this.sendBytes(this.#method.input.encode(message));
  }

  sendBytes(bytes: Uint8Array): void {
    this.#stream.write(bytes);
  }

  halfClose(): void {
    this.#stream.halfClose();
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  cancel(): void {
    this.#stream.cancel();
  }

  /** Messages that have arrived and were not taken by {@link next}. */
  get pending(): number {
    return this.#received.length;
  }

  /** The next message. Rejects when the stream ends first, or after `timeoutMs`. One caller at a time. */
  async next(timeoutMs = 10_000): Promise<O> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const message = this.#received.shift();
      if (message !== undefined) return message;
      if (this.#end !== undefined) throw new Error(`the stream ended: ${this.#end.code} ${this.#end.message}`);
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`no message within ${timeoutMs} ms`);
      await this.#arrival(left);
    }
  }

  [Symbol.dispose](): void {
    this.#stream.cancel();
  }

  #arrival(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake(), timeoutMs);
      this.#waiting = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }
}
