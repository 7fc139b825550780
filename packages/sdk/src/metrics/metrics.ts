import type { ConnectionState } from '@conclave/wire';

/**
 * Where a client's measurements go: one method for each. They are called while calls are under way, so they must be quick. They have
 * no say in what they measure: what a method throws goes to the log, the first time. One object may serve several clients; then their measurements
 * are one. `promMetrics` of `@conclave/sdk/prom-client` is one that is ready made.
 *
 * @example
 * ```ts
 * const counts = new Map<string, number>();
 * const ignore = () => {};
 * const metrics: Metrics = {
 *   callEnded: (method, code) => void counts.set(`${method} ${code}`, (counts.get(`${method} ${code}`) ?? 0) + 1),
 *   callRepeated: ignore, watchEvents: ignore, watchesResumed: ignore, viewResynced: ignore,
 *   leaseRenewed: ignore, leaseLost: ignore, endpointChanged: ignore,
 *   observe: () => ignore,
 * };
 * const client = await connect({ endpoints: '127.0.0.1:2379', metrics });
 * ```
 */
export interface Metrics {
  /**
   * A call ended after `seconds`, waiting and repeating included. `method` is as in gRPC (`Put`, `Range`, `Txn`, `LeaseGrant`, …); `code` is `ok`
   * or that of the error. Streams are not counted.
   */
  callEnded(method: string, code: string, seconds: number): void;
  /** A call is sent once more. */
  callRepeated(method: string): void;
  /** Watches were told so many events, those of views included. What a server sends anew after a reconnect is told, and counted, once, and so is what is synthesised. */
  watchEvents(count: number): void;
  /** So many watches went on on another stream. */
  watchesResumed(count: number): void;
  /** A view missed history that was compacted away, and reads everything anew. */
  viewResynced(): void;
  /** The server answered the renewal of a lease, after `seconds`. */
  leaseRenewed(seconds: number): void;
  /** A lease was lost: it may have run out, or it has. Not for those that end with the client. */
  leaseLost(): void;
  /** The connection to an endpoint went into another state. */
  endpointChanged(endpoint: string, state: ConnectionState): void;
  /** A client gives its present values to whoever wants to look at them. Returns the function that takes them back, called when the client closes. */
  observe(gauges: ClientGauges): () => void;
}

/** What a client can be asked at any time. Looking is what it costs: nothing is computed before. */
export interface ClientGauges {
  /** Calls that have begun and not ended. */
  readonly callsInFlight: number;
  /**
   * By how many revisions the watch that is furthest behind is behind, those of views included; 0: all are up to date, as far as is known.
   *
   * While a watch catches up that is what the server said with the last events it sent. Of a watch that is held back by its reader or has no
   * connection it is how far the client has seen the store since, so that changes of other keys count, too.
   */
  readonly watchLagRevisions: number;
  /** For how many milliseconds the lease that is worst off can still be relied on if no renewal gets through; undefined: there is no lease. */
  readonly leaseSlackMs: number | undefined;
}
