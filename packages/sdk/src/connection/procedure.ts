import type { MessageCodec, Runtime } from '@conclave/wire';
import type { ConclaveError, Outcome } from '../errors/conclave-error.ts';
import type { Meter } from '../metrics/meter.ts';
import type { Balancer } from './balancer.ts';
import type { HedgeBudget } from './hedge-budget.ts';
import type { Middleware } from './middleware.ts';
import type { ReadOrder } from './read-order.ts';
import type { TokenSource } from './token.ts';

/** How a call may be treated when its outcome is in doubt. Made once per remote procedure, never per call. */
export interface Procedure<Request, Response, Context, Result> {
  /** The gRPC path. */
  readonly path: string;
  readonly input: { encode(message: Request): Uint8Array };
  readonly output: Pick<MessageCodec<Response>, 'decode'>;
  /** Whether sending it twice is as good as once. A procedure that is not is a mutation whose outcome can be in doubt. */
  readonly isRepeatable: boolean;
  /** The store's revision as the response tells it, where it does. Reads of a client that is ordered are held against it. */
  revision?(response: Response): number;
  /** Sent without saying who sends it, and without waiting until that can be said. Default: false. */
  readonly isAnonymous?: boolean;
  /** Called just before each time the request is sent. */
  readonly onSend?: (context: Context) => void;
  /** Turns the response into what the caller gets. */
  result(response: Response, context: Context): Result;
}

/** What every call accepts. */
export interface RequestOptions {
  /**
   * How long the call may take, in milliseconds, retries included; `Infinity` for no limit. Default: the client's `deadlineMs`. A call that
   * runs out of time rejects with `deadline-exceeded`, or with `unavailable` if no endpoint could be reached.
   */
  readonly deadlineMs?: number | undefined;
  /** Gives the call up when aborted: it rejects with `cancelled`, unless the answer was already there. */
  readonly signal?: AbortSignal | undefined;
}

/** Something that works in the background and must end with the client. */
export interface Closable {
  close(): void;
}

/** What a call needs of the engine that makes it. */
export interface CallHost {
  readonly runtime: Runtime;
  readonly balancer: Balancer;
  /** Undefined: the client has no credentials. */
  readonly authenticator: TokenSource | undefined;
  /** Calls that wait for an endpoint, for a token, or for their next attempt. */
  readonly parked: Set<Closable>;
  readonly isClosed: boolean;
  /** Present if reads must not go back. */
  readonly order: ReadOrder | undefined;
  /** Every call passes through it. Undefined: there is none. */
  readonly middleware: readonly Middleware[] | undefined;
  /** For reads that are slow. */
  readonly hedgeBudget: HedgeBudget;
  /** Undefined: nothing is measured. */
  readonly meter: Meter | undefined;
  /** The instant at which a call made now, with this time limit, ends. */
  deadlineOf(deadlineMs: number | undefined): number;
  closedError(outcome?: Outcome): ConclaveError;
}
