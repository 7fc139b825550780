import { describe, expect, it } from 'vitest';
import { addedMemberIdOf, clusterIdOf, memberIdOf } from './ids.ts';

describe('ids', () => {
  it('are those an etcd of one member with default flags has', () => {
    // Read from a stock etcd: `--initial-advertise-peer-urls http://localhost:2380`, token `etcd-cluster`.
    const member = memberIdOf(['http://localhost:2380'], 'etcd-cluster');
    expect(member.toString(16)).toBe('8e9e05c52164694d');
    expect(clusterIdOf([member]).toString(16)).toBe('cdf818194e3a8c32');
  });

  it('of members added later are those an etcd gives them', () => {
    // Read from a stock etcd: the answer to a MemberAdd, and the second it was given in.
    expect(addedMemberIdOf(['http://127.0.0.1:23806', 'http://127.0.0.1:23804'], 1_795_264_240)).toBe(10454839396024219024n);
  });

  it('do not depend on the order in which URLs and members are given', () => {
    expect(memberIdOf(['http://b:1', 'http://a:1'], 't')).toBe(memberIdOf(['http://a:1', 'http://b:1'], 't'));
    expect(clusterIdOf([3n, 0xffff_ffff_ffff_ffffn, 7n])).toBe(clusterIdOf([0xffff_ffff_ffff_ffffn, 7n, 3n]));
  });
});
