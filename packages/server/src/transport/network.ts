import type { MemberId } from '@conclave/raft';
import type { Peers } from '../replica/ports.ts';

/** A member as every other knows it. */
export interface MemberDescription {
  readonly id: MemberId;
  /** Empty until the member has published it. */
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly clientUrls: readonly string[];
  readonly isLearner: boolean;
}

export interface ClusterDescription {
  readonly clusterId: bigint;
  readonly members: readonly MemberDescription[];
}

/** Who opens a way to the peers. */
export interface PeerIdentity {
  readonly id: MemberId;
  readonly clusterId: bigint;
  /** For one that asks before it has joined. */
  readonly describe: () => ClusterDescription;
}

/**
 * The network between members: sockets of their own (`tcp.ts`), or a simulated one.
 */
export interface PeerNetwork {
  /** Opens this member's side. Peers come with `Peers.setMembers`. */
  open(self: PeerIdentity): Promise<Peers>;
  /**
   * Asks whoever serves at these peer URLs what cluster it belongs to: a member that joins one has no other way to learn its id.
   * Rejects when none of them answers.
   */
  describeCluster(peerUrls: readonly string[]): Promise<ClusterDescription>;
}
