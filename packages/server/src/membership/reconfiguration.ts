import type { WireErrorKey } from '@conclave/protocol';
import type { MemberId } from '@conclave/raft';
import type { ClusterMember } from './member-table.ts';

/**
 * Whether the cluster would survive a change of its members, as etcd asks it of the member that receives the request (`--strict-reconfig-check`).
 * Nothing safe rests on it: the state may be another when the change is applied. Each function gives the refusal, or undefined.
 */
export interface Reach {
  readonly self: MemberId;
  /** Whether this member has been connected with the other for long enough that it counts as healthy. */
  isHealthy(member: MemberId): boolean;
  /** Whether it is connected with the other at all. */
  isConnected(member: MemberId): boolean;
}

type Refusal = Extract<WireErrorKey, 'not-enough-started-members' | 'unhealthy-cluster'>;

/** How long a connection must have held. Milliseconds. */
export const healthyAfterMs = 5_000;

export function refuseAdd(members: readonly ClusterMember[], isLearner: boolean, reach: Reach): Refusal | undefined {
  if (!isLearner && !canAddVoter(votersOf(members))) return 'not-enough-started-members';
  return healthy(votersOf(members), reach) === votersOf(members).length ? undefined : 'unhealthy-cluster';
}

export function refuseRemove(members: readonly ClusterMember[], id: MemberId, reach: Reach): Refusal | undefined {
  const voters = votersOf(members);
  if (members.some((member) => member.id === id && member.isLearner)) return undefined;
  const left = voters.filter((member) => member.id !== id);
  if (startedOf(left) < quorum(left.length)) return 'not-enough-started-members';
  // One that is down is no part of the quorum that works, which its removal can only make easier to reach.
  if (id !== reach.self && !reach.isConnected(id)) return undefined;
  return healthy(voters, reach) - 1 < 1 + Math.floor((voters.length - 1) / 2) ? 'unhealthy-cluster' : undefined;
}

/** The learner counts as started: it was asked for its match. */
export function refusePromote(members: readonly ClusterMember[]): Refusal | undefined {
  const voters = votersOf(members);
  return startedOf(voters) + 1 < quorum(voters.length + 1) ? 'not-enough-started-members' : undefined;
}

/** From one member to two: the quorum of two needs the new one, which nobody could start before. */
function canAddVoter(voters: readonly ClusterMember[]): boolean {
  const started = startedOf(voters);
  if (started === 1 && voters.length === 1) return true;
  return started >= quorum(voters.length + 1);
}

/** Of the leader's match, in which a learner's is as good as equal: it would catch up before it could hold anything up. */
const readyPart = 0.9;

export function isInSync(learnerMatch: number, leaderMatch: number): boolean {
  return learnerMatch >= leaderMatch * readyPart;
}

function healthy(voters: readonly ClusterMember[], reach: Reach): number {
  return voters.filter(({ id }) => id === reach.self || reach.isHealthy(id)).length;
}

function votersOf(members: readonly ClusterMember[]): readonly ClusterMember[] {
  return members.filter(({ isLearner }) => !isLearner);
}

function startedOf(members: readonly ClusterMember[]): number {
  return members.filter(({ name }) => name !== '').length;
}

function quorum(members: number): number {
  return Math.floor(members / 2) + 1;
}
