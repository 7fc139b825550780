import type { MessageCodec } from '@conclave/wire';

/** How a call may be treated when its outcome is in doubt. Made once per remote procedure, never per call. */
export interface Procedure<Request, Response, Context, Result> {
  /** The gRPC path. */
  readonly path: string;
  readonly input: { encode(message: Request): Uint8Array };
  readonly output: Pick<MessageCodec<Response>, 'decode'>;
  /** Whether sending it twice is as good as once. A procedure that is not is a mutation whose outcome can be in doubt. */
  readonly isRepeatable: boolean;
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
