import { describe, expect, it } from 'vitest';
import { checkFounder, type InitialCluster, InitialClusterError, joinCluster, refuseSecondFounding } from './initial-cluster.ts';

const url = (port: number): string => `http://127.0.0.1:${port}`;

// The texts were read from a stock etcd.
describe('a founder', () => {
  const cases: readonly [InitialCluster, readonly string[], string][] = [
    [{ b: [url(1)] }, [url(1)], 'couldn\'t find local name "a" in the initial cluster configuration'],
    [{}, [url(1)], 'couldn\'t find local name "a" in the initial cluster configuration'],
    [{ a: [url(9)] }, [url(1)], `--initial-cluster has a=${url(9)} but missing from --initial-advertise-peer-urls=${url(1)}`],
    [
      { a: [url(1)] },
      [url(1), url(5)],
      `--initial-advertise-peer-urls has ${url(5)} but missing from --initial-cluster=a=${url(1)},a=${url(5)}`,
    ],
    [{ b: [url(1)], a: [url(1)] }, [url(1)], `initial cluster a=${url(1)},b=${url(1)} has duplicate url`],
    [{ a: [url(1)], b: ['foo'] }, [url(1)], 'error setting up initial cluster: URL scheme must be http, https, unix, or unixs: foo'],
    [{ a: [''] }, [url(1)], 'error setting up initial cluster: URL scheme must be http, https, unix, or unixs: '],
  ];

  it.each(cases)('of %j with the URLs %j is refused in etcd’s words', (initialCluster, peerUrls, message) => {
    expect(() => checkFounder({ name: 'a', peerUrls, initialCluster })).toThrow(new InitialClusterError(message));
  });

  it('is not taken for one by a name that every object has', () => {
    expect(() => checkFounder({ name: 'constructor', peerUrls: [], initialCluster: {} })).toThrow(InitialClusterError);
  });

  it('may name its URLs in any order', () => {
    checkFounder({ name: 'a', peerUrls: [url(1), url(2)], initialCluster: { a: [url(2), url(1)], b: [url(3)] } });
  });
});

describe('a member that joins', () => {
  const existing = {
    clusterId: 7n,
    members: [
      { id: 1n, peerUrls: [url(1)] },
      { id: 2n, peerUrls: [url(2), url(3)] },
    ],
  };
  const join = (name: string, initialCluster: InitialCluster) => joinCluster(existing, { name, peerUrls: [], initialCluster });

  it('is who the cluster knows under its peer URLs, whatever their order', () => {
    expect(join('new', { old: [url(1)], new: [url(3), url(2)] })).toEqual({ memberId: 2n, clusterId: 7n });
  });

  it.each([
    ['a cluster of another size', 'new', { new: [url(2), url(3)] }, /^error validating peerURLs .*: member count is unequal$/],
    ['other URLs', 'new', { old: [url(1)], new: [url(2), url(4)] }, /: PeerURLs: no match found for existing member \(2, \[http:/],
    ['no member of its name', 'other', { old: [url(1)], new: [url(2), url(3)] }, /^couldn't find local name "other"/],
    ['URLs that stand twice', 'new', { old: [url(1)], new: [url(1)] }, /has duplicate url$/],
  ])('is refused with %s', (_, name, initialCluster: InitialCluster, message) => {
    expect(() => join(name, initialCluster)).toThrow(message);
  });
});

describe('a founder without data', () => {
  const member = (clientUrls: string[]) => ({ id: 10n, clientUrls });
  const founder = { memberId: 10n, clusterId: 7n };

  it('is refused by the cluster that it has already been part of', () => {
    expect(() => refuseSecondFounding({ clusterId: 7n, members: [member([url(1)])] }, founder)).toThrow(
      'member a has already been bootstrapped',
    );
  });

  it.each([
    ['that it has not joined yet', { clusterId: 7n, members: [member([])] }],
    ['of another id', { clusterId: 8n, members: [member([url(1)])] }],
    ['that has no member of its id', { clusterId: 7n, members: [{ id: 11n, clientUrls: [url(1)] }] }],
  ])('may begin beside a cluster %s', (_, existing) => {
    expect(() => refuseSecondFounding(existing, founder)).not.toThrow();
  });
});
