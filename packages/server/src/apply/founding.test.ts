import { decodeConfChange, type Entry } from '@conclave/raft';
import { describe, expect, it } from 'vitest';
import { decodeEntry } from './entry.ts';
import { foundCluster, isOlderThanMembers } from './founding.ts';

const initialCluster = { a: ['http://127.0.0.1:23801'], b: ['http://127.0.0.1:23802'], c: ['http://127.0.0.1:23803'] };
const config = (name: 'a' | 'b' | 'c') => ({ name, peerUrls: initialCluster[name], initialCluster, clusterToken: 'etcd-cluster' });

describe('a cluster that is founded', () => {
  it('and its members have the ids a stock etcd gave them', () => {
    const { identity, members } = foundCluster(config('a'));
    expect(identity.clusterId.toString(16)).toBe('f017819664191323');
    expect(identity.memberId.toString(16)).toBe('bdae9bbc11dd390d');
    expect(members.map(({ id, name }) => [name, id.toString(16)])).toEqual([
      ['b', '2943212f5e2cf73'],
      ['c', '3760a4ec3b84f7fa'],
      ['a', 'bdae9bbc11dd390d'],
    ]);
  });

  it('begins with the same entries at every founder, whatever the order they were named in', () => {
    const { a, b, c } = initialCluster;
    const { identity: _, ...founding } = foundCluster(config('a'));
    expect(foundCluster(config('b'))).toMatchObject(founding);
    expect(foundCluster({ ...config('c'), initialCluster: { c, b, a } })).toMatchObject(founding);
  });

  it('has its founders committed from the start, as its first entries', () => {
    const { entries, hardState, members } = foundCluster(config('a'));
    expect(hardState).toEqual({ term: 1, vote: 0n, commit: 3 });
    expect(entries.map(({ term, index, type }) => [term, index, type])).toEqual([1, 2, 3].map((index) => [1, index, 'confChange']));
    for (const [at, { data }] of entries.entries()) {
      const { type, member, context } = decodeConfChange(data);
      expect([type, member]).toEqual(['addVoter', members[at]!.id]);
      expect(decodeEntry(context)).toMatchObject({ kind: 'memberAdd', term: 1, member: 0n });
    }
  });
});

describe('a state', () => {
  const entry = (index: number, type: Entry['type']): Entry => ({ term: 1, index, type, data: new Uint8Array() });
  const none = { list: () => [] };
  const some = { list: () => foundCluster(config('a')).members };

  it.each([
    ['nothing', none, 0, [], false],
    ['the founders of a cluster in its log', none, 0, [entry(1, 'confChange')], false],
    ['a log from before there were members', none, 0, [entry(1, 'normal')], true],
    ['an applied index and no members', none, 7, [], true],
    ['members', some, 7, [entry(1, 'normal')], false],
    ['a log that goes on after what a joiner was brought', none, 0, [entry(5, 'normal')], false],
  ] as const)('that is %s is recognised', (_, members, appliedIndex, entries, isOlder) => {
    expect(isOlderThanMembers(members, appliedIndex, entries)).toBe(isOlder);
  });
});
