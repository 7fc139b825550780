import type { Init, MethodDescriptor } from '@conclave/protocol';
import { KV, Maintenance, type RangeRequest, StatusCode } from '@conclave/protocol';
import { type CallContext, type Route, type ServerStream, StatusError, type UnaryHandler, unaryRoute } from '@conclave/wire';
import { refusalBeforeLog } from '../replica/refusal.ts';
import type { LeaderGuard } from './leader-guard.ts';

/** One route for each procedure of a service: forgetting one does not compile. */
export type ServiceRoutes<S extends { readonly methods: object }> = { readonly [Name in keyof S['methods']]: Route };

/** What a handler answers: a message or any part of it, or its bytes. */
export type Answer<O> = Init<O> & object;

/**
 * Binds a handler to a unary procedure. A caller that asks for a leader (metadata `hasleader: true`) is refused while there is none, before the
 * handler sees the request.
 */
export function unary<I, O>(method: MethodDescriptor<I, O, false, false>, guard: LeaderGuard, handler: UnaryHandler<I, Answer<O>>): Route {
  return unaryRoute<I, Answer<O>>(method.input, method.output, (request, call) => {
    admit(guard, method, call, request);
    return handler(request, call);
  });
}

/** A request with the bytes it came as, which is how it enters the log. */
export interface Received<I> {
  readonly request: I;
  readonly bytes: Uint8Array;
}

/** {@link unary} for requests that go through the log. */
export function proposal<I, O>(
  method: MethodDescriptor<I, O, false, false>,
  guard: LeaderGuard,
  handler: UnaryHandler<Received<I>, Answer<O>>,
): Route {
  const input = { decode: (bytes: Uint8Array): Received<I> => ({ request: method.input.decode(bytes), bytes }) };
  return unaryRoute<Received<I>, Answer<O>>(input, method.output, (received, call) => {
    admit(guard, method, call);
    return handler(received, call);
  });
}

/** Answers that this server has no such procedure, as one that never heard of it would. */
export function unimplemented(method: MethodDescriptor<unknown, unknown>): Route {
  const message = `${method.path} is not implemented by this server`;
  if (!method.clientStreaming && !method.serverStreaming) {
    return { kind: 'unary', handle: (_request, _call, reply) => reply.fail(StatusCode.UNIMPLEMENTED, message) };
  }
  return { kind: 'stream', handle: (stream) => stream.end(StatusCode.UNIMPLEMENTED, message) };
}

/** Binds a handler to a streaming procedure. A caller that asks for a leader is refused while there is none, and later when there is none for long. */
export function streaming<I, O>(
  method: MethodDescriptor<I, O, boolean, true>,
  guard: LeaderGuard,
  handler: (stream: ServedStream<I, O>) => void,
): Route {
  return {
    kind: 'stream',
    handle(raw) {
      const stream = new ServedStream(method, raw);
      try {
        admit(guard, method, raw);
        if (wantsLeader(raw)) guard.watch(stream);
        handler(stream);
      } catch (error) {
        stream.fail(error);
      }
    },
  };
}

/** The answering end of one streaming call, with typed messages and one place that hears of its end. */
export class ServedStream<I, O> {
  readonly #method: MethodDescriptor<I, O, boolean, true>;
  readonly #raw: ServerStream;
  readonly #closed: (() => void)[] = [];
  #isOpen = true;

  constructor(method: MethodDescriptor<I, O, boolean, true>, raw: ServerStream) {
    this.#method = method;
    this.#raw = raw;
    raw.onCancel(() => this.#close());
  }

  /** False once the call has ended, whoever ended it. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  get isCancelled(): boolean {
    return !this.#isOpen;
  }

  /** Calls back once, when the call has ended, whoever ended it. */
  onClosed(listener: () => void): void {
    this.#closed.push(listener);
  }

  /** What the listener throws ends the call with its status, and so does a message that does not decode (INTERNAL). */
  onMessage(listener: (message: I) => void): void {
    this.#raw.onMessage((bytes) => {
      if (!this.#isOpen) return;
      try {
        listener(this.#decode(bytes));
      } catch (error) {
        this.fail(error);
      }
    });
  }

  onHalfClose(listener: () => void): void {
    this.#raw.onHalfClose(listener);
  }

  onDrain(listener: () => void): void {
    this.#raw.onDrain(listener);
  }

  /** False: wait for `onDrain`. */
  write(message: Answer<O> | Uint8Array): boolean {
    return this.#raw.write(message instanceof Uint8Array ? message : this.#method.output.encode(message));
  }

  pause(): void {
    this.#raw.pause();
  }

  resume(): void {
    this.#raw.resume();
  }

  end(): void {
    this.#finish(StatusCode.OK, '');
  }

  /** Ends the call with the status of an error; what is no StatusError is a defect and told as UNKNOWN. */
  fail(error: unknown): void {
    if (error instanceof StatusError) {
      for (const [name, value] of Object.entries(error.trailers)) this.#raw.setTrailer(name, value);
      this.#finish(error.code, error.message);
    } else {
      this.#finish(StatusCode.UNKNOWN, error instanceof Error ? error.message : String(error));
    }
  }

  #decode(bytes: Uint8Array): I {
    try {
      return this.#method.input.decode(bytes);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StatusError(StatusCode.INTERNAL, `grpc: error unmarshalling request: ${reason}`);
    }
  }

  #finish(code: number, message: string): void {
    this.#raw.end(code, message);
    this.#close();
  }

  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const listener of this.#closed) listener();
  }
}

function wantsLeader(call: CallContext): boolean {
  return call.metadata('hasleader') === 'true';
}

/** As in etcd, a learner serves its own status, its own state (reads that need not be linearizable, snapshots), and nothing else. */
function learnerServes(path: string, request: unknown): boolean {
  if (path === KV.methods.range.path) return (request as RangeRequest).serializable;
  return path === Maintenance.methods.status.path || path === Maintenance.methods.snapshot.path || path.startsWith(healthService);
}

const healthService = '/grpc.health.v1.Health/';

function admit(guard: LeaderGuard, { path }: { readonly path: string }, call: CallContext, request?: unknown): void {
  if (guard.isLearner && !learnerServes(path, request)) throw refusalBeforeLog('not-supported-for-learner');
  if (!guard.hasLeader && wantsLeader(call)) throw refusalBeforeLog('no-leader');
}
