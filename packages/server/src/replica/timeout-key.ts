import type { WireErrorKey } from '@conclave/protocol';
import { type MemberId, noMember } from '@conclave/raft';

export interface TimedOut {
  /** When the request came, on `runtime.monotonic()`. */
  readonly since: number;
  /** When this member last began to lead; -Infinity: never. */
  readonly ledSince: number;
  readonly electionTimeoutMs: number;
  readonly self: MemberId;
  /** `noMember` while none is known. */
  readonly leader: MemberId;
  readonly voters: readonly MemberId[];
  /** Since when this member is connected with another without a break; undefined: it is not. Absent where the network cannot tell. */
  readonly connectedSince: ((member: MemberId) => number | undefined) | undefined;
}

/** In which of etcd's words a request is told that it took too long: they differ in what may have been the reason. */
export function timeoutKey(timedOut: TimedOut): WireErrorKey {
  const { since, ledSince, electionTimeoutMs, self, leader, voters, connectedSince } = timedOut;
  if (since > ledSince - 2 * electionTimeoutMs && since < ledSince) return 'request-timeout-leader-failure';
  if (leader === noMember || connectedSince === undefined) return 'request-timeout';
  const isConnected = (member: MemberId): boolean => member === self || (connectedSince(member) ?? Number.POSITIVE_INFINITY) < since;
  const isReached = leader === self ? voters.filter(isConnected).length > voters.length / 2 : isConnected(leader);
  return isReached ? 'request-timeout' : 'request-timeout-connection-lost';
}
