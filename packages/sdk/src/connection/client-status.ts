import { describeEndpoints, type EndpointStatus } from './balancer.ts';

/**
 * - `connecting`: no endpoint is ready: not yet, or not any more since a moment ago.
 * - `ready`: calls are answered, as far as can be told.
 * - `degraded`: the same, but some endpoint cannot be reached, or keeps failing and is left alone.
 * - `failed`: no endpoint can be reached, or the server does not accept the credentials. The client goes on trying.
 * - `closed`: for good.
 */
export type ClientState = 'connecting' | 'ready' | 'degraded' | 'failed' | 'closed';

/** The state of the client's connections. */
export interface ClientStatus {
  readonly state: ClientState;
  /** Why it is not `ready`, for people. Absent when it is, when it was closed, and before anything went wrong. */
  readonly reason?: string;
  readonly endpoints: readonly EndpointStatus[];
}

/** What is known when the status is asked for. */
export interface Circumstances {
  readonly isClosed: boolean;
  /** Whether for each endpoint the last attempt to connect failed. */
  readonly isUnreachable: boolean;
  /** Why the server did not accept the credentials last time. */
  readonly refusal: string | undefined;
}

export function statusOf(endpoints: readonly EndpointStatus[], { isClosed, isUnreachable, refusal }: Circumstances): ClientStatus {
  if (isClosed) return { state: 'closed', endpoints };
  const failing = endpoints.filter(({ failure }) => failure !== undefined);
  const reason = failing.length === 0 ? undefined : describeEndpoints(failing);
  if (!endpoints.some(({ state }) => state === 'ready')) return withReason(isUnreachable ? 'failed' : 'connecting', reason, endpoints);
  if (refusal !== undefined) return withReason('failed', refusal, endpoints);
  return withReason(reason === undefined ? 'ready' : 'degraded', reason, endpoints);
}

function withReason(state: ClientState, reason: string | undefined, endpoints: readonly EndpointStatus[]): ClientStatus {
  return reason === undefined ? { state, endpoints } : { state, reason, endpoints };
}
