import type { ConclaveError, Outcome } from '../errors/conclave-error.ts';

/** One sending of a call. */
export interface CallAttempt {
  /** 1 for the first. */
  readonly number: number;
  readonly endpoint: string;
  /** Why the one before did not settle the call; absent for the first. */
  readonly after?: { readonly grpcCode: number; readonly message: string };
}

/** How a call ended. What the caller is told, too. */
export interface CallReport {
  /** `ok`, or the code of the error. A stream that nobody needs any longer has ended with `ok`. */
  readonly code: string;
  /** What is known about the effect of a call that failed; undefined: it did not fail. */
  readonly outcome: Outcome | undefined;
  /** Why the call failed. */
  readonly error: ConclaveError | undefined;
  /** How often it was sent; 0: never. */
  readonly attempts: number;
  /** Where it was sent last; undefined: nowhere. */
  readonly endpoint: string | undefined;
}

/** A call as a {@link Middleware} sees it. Of the request it shows the keys, never the values. */
export interface InterceptedCall {
  /** A stream is one call from its opening to its end: what goes over it is not shown. */
  readonly kind: 'unary' | 'stream';
  /** As gRPC has it: `etcdserverpb.KV`. */
  readonly service: string;
  /** As gRPC has it: `Range`, `Put`, `Txn`, `Watch`, … */
  readonly method: string;
  /** The key that is asked for, or the first of a range, with the prefix of its namespace. Undefined: the request has none, or several. */
  readonly key: Uint8Array | undefined;
  /** The end of the range, as etcd has it; undefined: there is no range. */
  readonly rangeEnd: Uint8Array | undefined;
  /** Whether sending it twice is as good as once. The outcome of a call that is not can be in doubt. */
  readonly isRepeatable: boolean;
  /** How long the call may take from now on, in milliseconds, middleware and retries included. `Infinity`: as long as it takes. */
  readonly deadlineMs: number;

  /**
   * Sends this metadata along, with each attempt from now on. What the client itself sends (`token`, `hasleader`) cannot be replaced.
   *
   * @throws ConclaveError `invalid-argument` unless the name is of lower-case letters, digits, `.`, `_`, `-`, and none that HTTP/2 or gRPC has for
   * itself (`te`, `content-type`, `grpc-…`, …), and the value printable ASCII
   * @example
   * ```ts
   * const named: Middleware = (call, next) => {
   *   call.setMetadata('x-service', 'billing');
   *   return next();
   * };
   * ```
   */
  setMetadata(name: string, value: string): void;

  /**
   * Tells each time the call is sent, just before it is.
   *
   * @example
   * ```ts
   * const repeats: Middleware = (call, next) => {
   *   call.onAttempt(({ number, endpoint, after }) => {
   *     if (number > 1) console.log(`${call.method} again, now at ${endpoint}: ${after?.message}`);
   *   });
   *   return next();
   * };
   * ```
   */
  onAttempt(listener: (attempt: CallAttempt) => void): void;

  /**
   * Tells how the call ended, once, just before the caller is told; at once if it has ended already. Of several listeners the first one is told last.
   *
   * @example
   * ```ts
   * const doubts: Middleware = (call, next) => {
   *   call.onEnd(({ outcome, endpoint }) => {
   *     if (outcome === 'unknown') console.log(`whether ${endpoint} did what was asked is not known`);
   *   });
   *   return next();
   * };
   * ```
   */
  onEnd(listener: (report: CallReport) => void): void;
}

/**
 * Stands in the way of each call and stream of a client. It lets it pass with `next()`, at once or later, or refuses it by throwing before that:
 * then nothing is sent, and the call fails with `refused`, the outcome `not-applied`, and what was thrown as its cause.
 *
 * It can watch what becomes of the call and has no part in it: what it throws after `next()`, or in a listener, goes to the log. A call that is
 * not let pass fails at its deadline; a stream without one waits.
 *
 * @example
 * ```ts
 * const slowCalls: Middleware = (call, next) => {
 *   const start = performance.now();
 *   call.onEnd(({ code, attempts }) => {
 *     if (performance.now() - start > 100) console.log(`${call.method} was slow: ${code} after ${attempts} attempts`);
 *   });
 *   next();
 * };
 * const readOnly: Middleware = (call, next) => {
 *   if (['Put', 'DeleteRange', 'Txn'].includes(call.method)) throw new Error('this service only reads');
 *   next();
 * };
 * const client = await connect({ endpoints: '127.0.0.1:2379', middleware: [slowCalls, readOnly] });
 * ```
 */
export type Middleware = (call: InterceptedCall, next: () => void) => void | Promise<void>;
