import type { WireErrorKey } from '@conclave/protocol';
import type { ValueIssue } from '../space/standard-schema.ts';

/**
 * What is known about the effect of the request that failed.
 *
 * - `not-applied`: nothing was written, now or later. Reads always have this outcome.
 * - `applied`: the write took effect, and only its answer is missing or unusable.
 * - `unknown`: the write may have taken effect, or may still. Read before you repeat it.
 */
export type Outcome = 'not-applied' | 'unknown' | 'applied';

/** The codes the SDK adds to those a server states. */
export type ClientErrorCode =
  /** No endpoint could be reached, or the one that was asked went away. */
  | 'unavailable'
  /** No member answered that is as far as this client has seen the store; only of a client that is `ordered`. */
  | 'stale'
  /** The `signal` given to the call was aborted; its reason is the `cause`. */
  | 'cancelled'
  /** The client was closed before or during the call. */
  | 'client-closed'
  /** A {@link Middleware} of the client did not let the call pass: nothing was sent, and what it threw is the `cause`. */
  | 'refused'
  /** An argument cannot be sent as given; nothing was. */
  | 'invalid-argument'
  /** A value is not what the codec of its key space accepts: one to be written, or one that is stored. See `details`. */
  | 'invalid-value'
  /** The lease may no longer be held: its time ran out by the local reckoning, or the server said that it is gone. */
  | 'lease-lost'
  /** The lease was given back by {@link Lease.revoke}. */
  | 'lease-revoked'
  /** The lease was given to another process by {@link Session.handOver}. */
  | 'lease-handed-over'
  /** The session has ended. */
  | 'session-closed'
  /** The session that was handed over was taken by another process before. */
  | 'session-claimed'
  /** The session that was handed over was not taken in time: its lease is over. */
  | 'session-expired'
  /** The key that a session shall hold is somebody else's. */
  | 'key-taken'
  /** The session was told to hold this no more. */
  | 'hold-released'
  /** A software transaction was run as often as it may, and others were in its way each time. */
  | 'conflict'
  /** A guard of a software transaction or of a consumer did not hold, or that of the lease that a place in a queue stands on. */
  | 'guard-failed'
  /** A transaction marked by {@link Txn.once} was done before, but the history of what it read is compacted away. */
  | 'result-unavailable'
  /** A loop over a watch with `overflow: 'fail'` was too slow. See `details`. */
  | 'watch-overflow'
  /** The id given to {@link Txn.once} marks another transaction; nothing was done. `details` tell of that one. */
  | 'once-mismatch'
  /** Another consumer writes the same cursor. */
  | 'cursor-moved'
  /** The view was closed. */
  | 'view-closed'
  /** The checksum of a snapshot does not match its bytes: they are not to be used. */
  | 'snapshot-corrupt'
  /** The peer does not offer this call. */
  | 'unimplemented'
  /** The peer wants credentials. */
  | 'unauthenticated'
  /** A limit of the peer or of the connection was met. */
  | 'resource-exhausted'
  /** The peer, or what sits between, broke the protocol. */
  | 'internal'
  /** A refusal in words the SDK does not know; see `message` and `grpcCode`. */
  | 'unknown';

/** Every code an error of this package can carry. Packages built on it add codes of their own. */
export type ErrorCode = ClientErrorCode | WireErrorKey;

// Keeps completion for the known codes while allowing others.
type AnyCode = ErrorCode | (string & {});

/** What `details` holds for a code that has any. */
export type ErrorDetails<Code extends string> = Code extends 'compacted'
  ? {
      /** History before this revision is gone. Absent when a read, not a watch, met the compaction. */
      readonly compactRevision?: bigint;
    }
  : Code extends 'watch-overflow'
    ? {
        /** All changes up to here were told. */
        readonly revision: bigint;
      }
    : Code extends 'result-unavailable' | 'once-mismatch'
      ? {
          /** Which branch the transaction took that was done under the id: `then`. */
          readonly succeeded: boolean;
          /** The revision it made. */
          readonly revision: bigint;
        }
      : Code extends 'invalid-value'
        ? {
            /** The key, within its space. */
            readonly key: string;
            /** What is wrong. */
            readonly issues: readonly ValueIssue[];
            /** The revision that wrote it; absent for a value that was to be written. */
            readonly revision?: bigint | undefined;
          }
        : Readonly<Record<string, unknown>>;

/** What a {@link ConclaveError} is made from. */
export interface ConclaveErrorInit<Code extends string> {
  readonly code: Code;
  readonly message: string;
  readonly outcome: Outcome;
  readonly cause?: unknown;
  readonly details?: ErrorDetails<Code> | undefined;
  readonly grpcCode?: number | undefined;
}

// Registered globally, so that two installed copies of the package know each other's errors.
const brand: unique symbol = Symbol.for('@conclave/error') as never;

/**
 * The one class of errors of this package and of those built on it. Tell them apart by `code`, with {@link isConclaveError}, never by class.
 *
 * @example
 * ```ts
 * try {
 *   await client.put('stock/42', '0');
 * } catch (error) {
 *   if (!isConclaveError(error) || error.outcome !== 'unknown') throw error;
 *   const stored = await client.get('stock/42'); // written or not: only the store can tell
 * }
 * ```
 */
export class ConclaveError<Code extends string = string> extends Error {
  override readonly name: string = 'ConclaveError';
  /** What went wrong, stable across versions. */
  readonly code: Code;
  /** What is known about the effect of the request. */
  readonly outcome: Outcome;
  readonly details: ErrorDetails<Code> | undefined;
  /** The gRPC status code, when the error came over the wire. */
  readonly grpcCode: number | undefined;

  constructor(init: ConclaveErrorInit<Code>) {
    super(init.message, 'cause' in init ? { cause: init.cause } : undefined);
    this.code = init.code;
    this.outcome = init.outcome;
    this.details = init.details;
    this.grpcCode = init.grpcCode;
    Object.defineProperty(this, brand, { value: true });
  }
}

/**
 * Whether `error` is a {@link ConclaveError}, with the code if one is given. Works across copies of the package.
 *
 * @example
 * ```ts
 * try {
 *   await client.get('greeting', { revision: 1 });
 * } catch (error) {
 *   if (isConclaveError(error, 'compacted')) console.log('gone: history begins at', error.details?.compactRevision);
 *   else throw error;
 * }
 * ```
 */
export function isConclaveError<const Code extends AnyCode = string>(error: unknown, code?: Code): error is ConclaveError<Code> {
  if (typeof error !== 'object' || error === null || !(brand in error)) return false;
  return code === undefined || ('code' in error && error.code === code);
}

/** An error for arguments that cannot be sent. */
export function invalidArgument(message: string): ConclaveError<'invalid-argument'> {
  return new ConclaveError({ code: 'invalid-argument', message, outcome: 'not-applied' });
}
