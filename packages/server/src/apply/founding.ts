import { MemberAddition } from '@conclave/protocol';
import { type Entry, encodeConfChange, type HardState, noMember } from '@conclave/raft';
import { clusterIdOf, memberIdOf } from '../membership/ids.ts';
import { checkFounder, type InitialConfig } from '../membership/initial-cluster.ts';
import { type ClusterMember, type MemberTable, recordOf } from '../membership/member-table.ts';
import { encodeEntry } from './entry.ts';

/** How a cluster begins. The same at every founder, as it follows from the configuration alone. */
export interface Founding {
  /** Of the founder that was asked. */
  readonly identity: { readonly memberId: bigint; readonly clusterId: bigint };
  /** By ascending id. */
  readonly members: readonly ClusterMember[];
  /** The first of the log: to be durable, with `hardState`, before the founder speaks to anybody. */
  readonly entries: readonly Entry[];
  readonly hardState: HardState;
}

/**
 * A cluster's beginning: its founders stand in the log as its first entries, one each, in term 1 and committed from the start, as in etcd. So a
 * member that joins later can be told everything from entry 1, and a fresh cluster's terms and indexes are etcd's.
 *
 * @throws InitialClusterError in etcd's words
 */
export function foundCluster(config: InitialConfig & { readonly clusterToken: string }): Founding {
  checkFounder(config);
  const { name, initialCluster, clusterToken } = config;
  const members = Object.entries(initialCluster)
    .map(([founder, peerUrls]) => newMember(memberIdOf(peerUrls, clusterToken), founder, peerUrls))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
  const self = members.find((member) => member.name === name)!;
  return {
    identity: { memberId: self.id, clusterId: clusterIdOf(members.map(({ id }) => id)) },
    members,
    ...founderEntries(members),
  };
}

/** The entries that make these members, in this order, the voters of a new cluster. */
function founderEntries(members: readonly ClusterMember[]): Pick<Founding, 'entries' | 'hardState'> {
  const entries = members.map((member, at): Entry => {
    const body = MemberAddition.encode({ member: recordOf(member), maxLearners: 0 });
    const request = { kind: 'memberAdd', member: noMember, epoch: 0, counter: 0, term: 1, user: '', authRevision: 0, body } as const;
    const data = encodeConfChange({ type: 'addVoter', member: member.id, context: encodeEntry(request) });
    return { term: 1, index: at + 1, type: 'confChange', data };
  });
  return { entries, hardState: { term: 1, vote: noMember, commit: entries.length } };
}

/**
 * Whether the state and the log are of a release in which the members did not stand in the log: it had no other member than this one. Later logs begin
 * with the founders, and a member that joins begins with nothing.
 */
export function isOlderThanMembers(members: Pick<MemberTable, 'list'>, appliedIndex: number, entries: readonly Entry[]): boolean {
  if (members.list().length > 0) return false;
  return appliedIndex > 0 || (entries[0]?.index === 1 && entries[0].type === 'normal');
}

/** A member of whom nobody has heard but its name. */
export function newMember(id: bigint, name: string, peerUrls: readonly string[]): ClusterMember {
  return { id, name, peerUrls: [...peerUrls].sort(), clientUrls: [], isLearner: false, entryVersion: 0, serverVersion: '' };
}
