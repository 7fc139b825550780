import type { Metadata, Runtime } from '@conclave/wire';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import type { CallAttempt, CallReport, InterceptedCall, Middleware } from './middleware.ts';

/** What is known of a call before it passes. */
export interface PassageInit {
  readonly kind: InterceptedCall['kind'];
  readonly path: string;
  readonly isRepeatable: boolean;
  /** The instant at which it ends. */
  readonly deadline: number;
  /** The message, for the keys in it; undefined: there is none yet. */
  readonly request: unknown;
}

/** Whoever wants to pass. One of the two is called, once, later or now. */
export interface Passenger {
  onPassed(): void;
  onRefused(error: ConclaveError): void;
}

/** The way of one call through the middleware of its client, and what the middleware is told of it afterwards. */
export class Passage implements InterceptedCall {
  readonly kind: InterceptedCall['kind'];
  readonly service: string;
  readonly method: string;
  readonly key: Uint8Array | undefined;
  readonly rangeEnd: Uint8Array | undefined;
  readonly isRepeatable: boolean;
  readonly deadlineMs: number;
  readonly #chain: readonly Middleware[];
  readonly #runtime: Runtime;
  readonly #attemptListeners: ((attempt: CallAttempt) => void)[] = [];
  readonly #endListeners: ((report: CallReport) => void)[] = [];
  #metadata: Record<string, string> | undefined;
  #attempts = 0;
  #endpoint: string | undefined;
  #failure: CallAttempt['after'];
  /** How it ended; undefined: it has not. */
  #report: CallReport | undefined;

  constructor(chain: readonly Middleware[], runtime: Runtime, init: PassageInit) {
    const [, service = '', method = ''] = init.path.split('/');
    this.#chain = chain;
    this.#runtime = runtime;
    this.kind = init.kind;
    this.service = service;
    this.method = method;
    this.key = bytesOf(init.request, 'key');
    this.rangeEnd = bytesOf(init.request, 'rangeEnd');
    this.isRepeatable = init.isRepeatable;
    this.deadlineMs = init.deadline - runtime.monotonic();
  }

  setMetadata(name: string, value: string): void {
    if (typeof name !== 'string' || !/^[a-z0-9._-]+$/.test(name) || reserved.test(name))
      throw invalidArgument(`${JSON.stringify(name)} is no name for metadata`);
    if (typeof value !== 'string' || !/^[\x20-\x7e]*$/.test(value))
      throw invalidArgument(`the value of the metadata ${name} is not printable ASCII`);
    this.#metadata ??= {};
    this.#metadata[name] = value;
  }

  onAttempt(listener: (attempt: CallAttempt) => void): void {
    this.#attemptListeners.push(listener);
  }

  onEnd(listener: (report: CallReport) => void): void {
    if (this.#report === undefined) this.#endListeners.unshift(listener);
    else this.#tell(listener, this.#report);
  }

  enter(passenger: Passenger): void {
    this.#step(0, passenger);
  }

  /** What to send: the client's own, and what the middleware adds. Undefined: nothing. */
  metadata(own: Metadata | undefined): Metadata | undefined {
    return this.#metadata === undefined ? own : { ...this.#metadata, ...own };
  }

  /** The call goes out to `endpoint`. */
  attempt(endpoint: string): void {
    this.#attempts++;
    this.#endpoint = endpoint;
    const after = this.#failure;
    const attempt: CallAttempt = { number: this.#attempts, endpoint, ...(after !== undefined && { after }) };
    for (const listener of [...this.#attemptListeners]) this.#tell(listener, attempt);
  }

  /** An attempt failed; there may be another. */
  fail(grpcCode: number, message: string): void {
    this.#failure = { grpcCode, message };
  }

  end(error: ConclaveError | undefined): void {
    if (this.#report !== undefined) return;
    const report: CallReport = {
      code: error?.code ?? 'ok',
      outcome: error?.outcome,
      error,
      attempts: this.#attempts,
      endpoint: this.#endpoint,
    };
    this.#report = report;
    for (const listener of this.#endListeners) this.#tell(listener, report);
  }

  #step(at: number, passenger: Passenger): void {
    const middleware = this.#chain[at];
    let hasDecided = false;
    const refuse = (cause: unknown): void => {
      if (hasDecided) {
        this.#complain(cause);
        return;
      }
      hasDecided = true;
      if (this.#report !== undefined) {
        this.#complain(cause, 'a middleware failed that held a call back until it was over');
        return;
      }
      passenger.onRefused(refused(cause));
    };
    const next = (): void => {
      if (hasDecided) return;
      hasDecided = true;
      // Whoever stands behind shall not begin with a call that ended while it was held back.
      if (this.#report === undefined) this.#step(at + 1, passenger);
    };
    try {
      if (middleware === undefined) passenger.onPassed();
      else middleware(this, next)?.then?.(undefined, refuse);
    } catch (cause) {
      refuse(cause);
    }
  }

  #tell<T>(listener: (told: T) => void, told: T): void {
    try {
      listener(told);
    } catch (cause) {
      this.#complain(cause);
    }
  }

  #complain(err: unknown, what = 'a middleware failed after it let a call pass; the call goes on'): void {
    this.#runtime.log.warn({ err, method: this.method }, what);
  }
}

/** What HTTP/2 forbids, or gRPC says itself. */
const reserved =
  /^(grpc-.*|.*-bin|connection|content-(length|type)|host|http2-settings|keep-alive|proxy-connection|te|transfer-encoding|upgrade|user-agent)$/;

function bytesOf(request: unknown, field: 'key' | 'rangeEnd'): Uint8Array | undefined {
  if (typeof request !== 'object' || request === null) return undefined;
  const value: unknown = (request as Readonly<Record<string, unknown>>)[field];
  return value instanceof Uint8Array && value.length > 0 ? value : undefined;
}

function refused(cause: unknown): ConclaveError<'refused'> {
  const why = cause instanceof Error ? `: ${cause.message}` : '';
  return new ConclaveError({ code: 'refused', message: `a middleware refused the call${why}`, outcome: 'not-applied', cause });
}
