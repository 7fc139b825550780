import {
  type ClusterVersion,
  type Member,
  MemberAddition,
  type MemberAddResponse,
  MemberPromoteRequest,
  type MemberPromoteResponse,
  type MemberPublication,
  type MemberRecord,
  MemberRemoveRequest,
  type MemberRemoveResponse,
  MemberUpdateRequest,
  type MemberUpdateResponse,
} from '@conclave/protocol';
import type { ConfChange, MemberId } from '@conclave/raft';
import type { ClusterMember, MemberTable } from '../membership/member-table.ts';
import { failure } from '../mvcc/failure.ts';
import type { LoggedRequest } from './entry.ts';

/** What a change of the members came to. The header of a response is left to the member that answers. */
export type MembersChanged =
  | { readonly kind: 'memberAdd'; readonly response: MemberAddResponse }
  | { readonly kind: 'memberPromote'; readonly response: MemberPromoteResponse }
  | { readonly kind: 'memberRemove'; readonly response: MemberRemoveResponse }
  | { readonly kind: 'memberUpdate'; readonly response: MemberUpdateResponse }
  | { readonly kind: 'memberPublish' | 'clusterVersion'; readonly response: undefined };

/**
 * Checks a change against the members as they are now, in etcd's order and words, and makes it. What the proposer checked may have changed since:
 * only this check counts, and it is the same on every member.
 *
 * @throws StatusError `member-not-found` (a removed one too), `member-exists`, `peer-urls-exist`, `too-many-learners`, `member-not-learner`,
 * `not-enough-started-members` (the last voter is to be removed)
 */
export function changeMembers(members: MemberTable, change: ConfChange, { kind, body }: LoggedRequest): MembersChanged {
  switch (kind) {
    case 'memberAdd': {
      const member = add(members, change, MemberAddition.decode(body));
      return { kind, response: { header: undefined, member: shown(member), members: membersShown(members) } };
    }
    case 'memberPromote':
      promote(members, change, MemberPromoteRequest.decode(body).id);
      return { kind, response: { header: undefined, members: membersShown(members) } };
    case 'memberRemove':
      remove(members, change, MemberRemoveRequest.decode(body).id);
      return { kind, response: { header: undefined, members: membersShown(members) } };
    case 'memberUpdate':
      update(members, change, MemberUpdateRequest.decode(body));
      return { kind, response: { header: undefined, members: membersShown(members) } };
    default:
      throw new Error(`a change of the members holds an entry of kind ${kind}`);
  }
}

/** The members as clients are shown them, by ascending id. */
export function membersShown(members: Pick<MemberTable, 'list'>): Member[] {
  return members.list().map(shown);
}

function shown({ id, name, peerUrls, clientUrls, isLearner }: ClusterMember): Member {
  return { id, name, peerUrls: [...peerUrls], clientUrls: [...clientUrls], isLearner };
}

function add(members: MemberTable, change: ConfChange, { member, maxLearners }: MemberAddition): ClusterMember {
  if (member === undefined) throw new Error('an addition names no member');
  expectChange(change, member.isLearner ? 'addLearner' : 'addVoter', member.id);
  if (members.isRemoved(member.id)) throw failure('member-not-found');
  if (members.get(member.id) !== undefined) throw failure('member-exists');
  refuseUrlsInUse(members, member.peerUrls, member.id);
  const learners = members.list().filter(({ isLearner }) => isLearner).length;
  // The bound is the proposer's and stands in the entry: members may be configured differently, and must not disagree.
  if (member.isLearner && learners >= maxLearners) throw failure('too-many-learners');
  const added = fresh(member);
  members.add(added);
  return added;
}

function promote(members: MemberTable, change: ConfChange, id: MemberId): void {
  expectChange(change, 'addVoter', id);
  if (!existing(members, id).isLearner) throw failure('member-not-learner');
  members.change(id, { isLearner: false });
}

function remove(members: MemberTable, change: ConfChange, id: MemberId): void {
  expectChange(change, 'remove', id);
  existing(members, id);
  const { voters } = members.confState;
  // Nobody could ever lead again; an etcd ends at such an entry for good. Where two are removed at once each was asked for beside the other.
  if (voters.length === 1 && voters[0] === id) throw failure('not-enough-started-members');
  members.remove(id);
}

/** Of its peer URLs, and of nothing else: in etcd a learner once became a voter by it (pull request 21736). */
function update(members: MemberTable, change: ConfChange, { id, peerUrls }: MemberUpdateRequest): void {
  expectChange(change, 'update', id);
  existing(members, id);
  refuseUrlsInUse(members, peerUrls, id);
  members.change(id, { peerUrls });
}

/** A member says how it is called and reached, and what its program can do. @throws StatusError `member-not-found` */
export function publishMember(members: MemberTable, publication: MemberPublication): MembersChanged {
  const { id, name, clientUrls, entryVersion, serverVersion } = publication;
  existing(members, id);
  members.change(id, { name, clientUrls, entryVersion, serverVersion });
  return { kind: 'memberPublish', response: undefined };
}

/** What all members can do, when that is more than the cluster has agreed on; undefined otherwise, and while a member has not published. */
export function agreedVersion(members: Pick<MemberTable, 'list' | 'clusterVersion'>): ClusterVersion | undefined {
  const published = members.list();
  const entryVersion = Math.min(...published.map((member) => member.entryVersion));
  if (published.length === 0 || entryVersion === 0) return undefined;
  const version = lowestMinor(published.map(({ serverVersion }) => serverVersion));
  const current = members.clusterVersion ?? { version: '0.0.0', entryVersion: 0 };
  const agreed = {
    version: compareMinors(version, current.version) > 0 ? version : current.version,
    entryVersion: Math.max(entryVersion, current.entryVersion),
  };
  return isWithin(agreed, current) ? undefined : agreed;
}

/**
 * Raises what all members can do. Members may have come since the leader looked: a version above any member's is refused, so that no member is ever
 * given an entry it does not know.
 *
 * @throws StatusError `not-capable`
 */
export function decideClusterVersion(members: MemberTable, version: ClusterVersion): MembersChanged {
  const agreed = agreedVersion(members);
  const isLower = members.clusterVersion !== undefined && !isWithin(members.clusterVersion, version);
  if (agreed === undefined || isLower || !isWithin(version, agreed)) throw failure('not-capable');
  members.setClusterVersion(version);
  return { kind: 'clusterVersion', response: undefined };
}

/** Whether a cluster at `limit` can do all that `version` says. */
function isWithin(version: ClusterVersion, limit: ClusterVersion): boolean {
  return version.entryVersion <= limit.entryVersion && compareMinors(version.version, limit.version) <= 0;
}

function lowestMinor(versions: readonly string[]): string {
  const [major, minor] = versions.map(minorOf).reduce((lowest, version) => (compare(version, lowest) < 0 ? version : lowest));
  return `${major}.${minor}.0`;
}

function compareMinors(a: string, b: string): number {
  return compare(minorOf(a), minorOf(b));
}

function compare([major, minor]: Minor, [otherMajor, otherMinor]: Minor): number {
  return major - otherMajor || minor - otherMinor;
}

type Minor = readonly [major: number, minor: number];

/** What cannot be read is the lowest there is: a member that says nothing sensible promises nothing. */
function minorOf(version: string): Minor {
  const [, major = '0', minor = '0'] = /^(\d{1,9})\.(\d{1,9})/.exec(version) ?? [];
  return [Number(major), Number(minor)];
}

function existing(members: MemberTable, id: MemberId): ClusterMember {
  const member = members.get(id);
  if (member === undefined) throw failure('member-not-found');
  return member;
}

function refuseUrlsInUse(members: MemberTable, urls: readonly string[], except: MemberId): void {
  const others = members.list().filter(({ id }) => id !== except);
  if (others.some(({ peerUrls }) => peerUrls.some((url) => urls.includes(url)))) throw failure('peer-urls-exist');
}

function fresh({ id, name, peerUrls, isLearner }: MemberRecord): ClusterMember {
  return { id, name, peerUrls, clientUrls: [], isLearner, entryVersion: 0, serverVersion: '' };
}

/** Raft acts on the change and the table on the request in it: where the two disagree, members could count different quorums. */
function expectChange({ type, member }: ConfChange, expected: ConfChange['type'], id: MemberId): void {
  if (type === expected && member === id) return;
  throw new Error(`a membership change is ${type} ${member.toString(16)} to raft and ${expected} ${id.toString(16)} to the members`);
}
