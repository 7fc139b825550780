import type { CallContext, Route, ServerStream } from './call.ts';

/** Turns a message into bytes and back. `@conclave/protocol`'s message types have this shape. `decode` throws on malformed bytes. */
export interface MessageCodec<T> {
  encode(message: T): Uint8Array;
  decode(bytes: Uint8Array): T;
}

/** A handler's failure as it goes on the wire. Any other thrown value is a defect of the handler: it is answered with UNKNOWN (2) and its text. */
export class StatusError extends Error {
  readonly code: number;
  readonly trailers: Readonly<Record<string, string>>;

  constructor(code: number, message: string, trailers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.name = 'StatusError';
    this.code = code;
    this.trailers = trailers;
  }
}

/** A handler may return the response as a shape or as bytes encoded before, at once or later. */
export type UnaryHandler<I, O> = (request: I, call: CallContext) => O | Uint8Array | Promise<O | Uint8Array>;

/** Binds a typed unary handler to its codecs. A request that does not decode is answered with INTERNAL (13), as gRPC does. */
export function unaryRoute<I, O extends object>(
  input: Pick<MessageCodec<I>, 'decode'>,
  output: { encode(message: O): Uint8Array },
  handler: UnaryHandler<I, O>,
): Route {
  return {
    kind: 'unary',
    handle(bytes, call, reply) {
      const fail = (error: unknown): void => {
        const status = statusOf(error);
        for (const [name, value] of Object.entries(status.trailers)) call.setTrailer(name, value);
        reply.fail(status.code, status.message);
      };
      const send = (response: O | Uint8Array): void => {
        reply.send(response instanceof Uint8Array ? response : output.encode(response));
      };
      try {
        const result = handler(decode(input, bytes), call);
        if (result instanceof Promise) result.then(send).catch(fail);
        else send(result);
      } catch (error) {
        fail(error);
      }
    },
  };
}

/** A stream whose messages are shapes. Errors thrown by `onMessage` listeners end the stream with their status. */
export interface TypedStream<I, O> extends Omit<ServerStream, 'onMessage' | 'write'> {
  onMessage(listener: (message: I) => void): void;
  write(message: O | Uint8Array): boolean;
  /** Ends the stream with the status of a thrown value. */
  fail(error: unknown): void;
}

export function streamRoute<I, O extends object>(
  input: Pick<MessageCodec<I>, 'decode'>,
  output: { encode(message: O): Uint8Array },
  handler: (stream: TypedStream<I, O>) => void,
): Route {
  return {
    kind: 'stream',
    handle(stream) {
      const typed = new BoundStream(stream, input, output);
      try {
        handler(typed);
      } catch (error) {
        typed.fail(error);
      }
    },
  };
}

class BoundStream<I, O extends object> implements TypedStream<I, O> {
  readonly #stream: ServerStream;
  readonly #input: Pick<MessageCodec<I>, 'decode'>;
  readonly #output: { encode(message: O): Uint8Array };

  constructor(stream: ServerStream, input: Pick<MessageCodec<I>, 'decode'>, output: { encode(message: O): Uint8Array }) {
    this.#stream = stream;
    this.#input = input;
    this.#output = output;
  }

  get path(): string {
    return this.#stream.path;
  }
  get peer(): string {
    return this.#stream.peer;
  }
  get deadline(): number {
    return this.#stream.deadline;
  }
  get isCancelled(): boolean {
    return this.#stream.isCancelled;
  }
  get signal(): AbortSignal {
    return this.#stream.signal;
  }
  get bufferedBytes(): number {
    return this.#stream.bufferedBytes;
  }
  metadata(name: string): string | undefined {
    return this.#stream.metadata(name);
  }
  onCancel(listener: () => void): void {
    this.#stream.onCancel(listener);
  }
  setTrailer(name: string, value: string): void {
    this.#stream.setTrailer(name, value);
  }
  onMessage(listener: (message: I) => void): void {
    this.#stream.onMessage((bytes) => {
      try {
        listener(decode(this.#input, bytes));
      } catch (error) {
        this.fail(error);
      }
    });
  }
  onHalfClose(listener: () => void): void {
    this.#stream.onHalfClose(listener);
  }
  write(message: O | Uint8Array): boolean {
    return this.#stream.write(message instanceof Uint8Array ? message : this.#output.encode(message));
  }
  onDrain(listener: () => void): void {
    this.#stream.onDrain(listener);
  }
  end(code: number, message: string): void {
    this.#stream.end(code, message);
  }
  pause(): void {
    this.#stream.pause();
  }
  resume(): void {
    this.#stream.resume();
  }
  fail(error: unknown): void {
    const status = statusOf(error);
    for (const [name, value] of Object.entries(status.trailers)) this.#stream.setTrailer(name, value);
    this.#stream.end(status.code, status.message);
  }
}

const INTERNAL = 13;
const UNKNOWN = 2;

function decode<I>(input: Pick<MessageCodec<I>, 'decode'>, bytes: Uint8Array): I {
  try {
    return input.decode(bytes);
  } catch (error) {
    throw new StatusError(INTERNAL, `grpc: error unmarshalling request: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function statusOf(error: unknown): StatusError {
  if (error instanceof StatusError) return error;
  return new StatusError(UNKNOWN, error instanceof Error ? error.message : String(error));
}
