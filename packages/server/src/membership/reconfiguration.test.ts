import { describe, expect, it } from 'vitest';
import type { ClusterMember } from './member-table.ts';
import { isInSync, type Reach, refuseAdd, refusePromote, refuseRemove } from './reconfiguration.ts';

/** Members from 1 on: `s` a started voter, `u` one that has not started, `l` a learner. */
function members(kinds: string): ClusterMember[] {
  return Array.from(kinds, (kind, at) => ({
    id: BigInt(at + 1),
    name: kind === 's' ? `m${at + 1}` : '',
    peerUrls: [`http://m${at + 1}:2380`],
    clientUrls: [],
    isLearner: kind === 'l',
    entryVersion: 0,
    serverVersion: '',
  }));
}

/** Member 1 is asked, and reaches `healthy`; `unsteady` are connected, but not for long. */
function reach(healthy: readonly number[], unsteady: readonly number[] = []): Reach {
  return {
    self: 1n,
    isHealthy: (id) => healthy.includes(Number(id)),
    isConnected: (id) => healthy.includes(Number(id)) || unsteady.includes(Number(id)),
  };
}

const notStarted = 'not-enough-started-members';
const unhealthy = 'unhealthy-cluster';

// What a stock etcd 3.5 of three members said, where it could be brought into the state.
describe('an added voter is refused', () => {
  it.each([
    ['s', [], undefined],
    ['ss', [2], undefined],
    ['ss', [], unhealthy],
    ['sss', [2, 3], undefined],
    ['sss', [2], unhealthy],
    ['su', [2], notStarted],
    ['ssu', [2, 3], notStarted],
    ['sssu', [2, 3, 4], undefined],
    ['sssu', [2, 3], unhealthy],
    ['sl', [], undefined],
    ['ssul', [2], notStarted],
  ])('in %s of which %j are healthy: %s', (kinds, healthy, refusal) => {
    expect(refuseAdd(members(kinds), false, reach(healthy))).toBe(refusal);
  });
});

describe('an added learner', () => {
  it('needs no quorum of started members, but healthy ones', () => {
    expect(refuseAdd(members('ssu'), true, reach([2, 3]))).toBeUndefined();
    expect(refuseAdd(members('ssu'), true, reach([2]))).toBe(unhealthy);
  });
});

describe('a removal is refused', () => {
  it.each([
    ['s', 1, [], [], notStarted],
    ['s', 9, [], [], undefined],
    ['ss', 2, [2], [], undefined],
    ['ss', 2, [], [], undefined],
    ['ss', 2, [], [2], unhealthy],
    ['ss', 1, [2], [], undefined],
    ['ss', 1, [], [], unhealthy],
    ['sss', 3, [2], [], undefined],
    ['sss', 2, [2], [], unhealthy],
    ['sss', 1, [2], [], unhealthy],
    ['sss', 1, [2, 3], [], undefined],
    ['ssu', 2, [2], [], notStarted],
    ['ssu', 3, [2], [], undefined],
    ['sl', 2, [], [], undefined],
  ])('from %s of member %i, of which %j are healthy and %j only connected: %s', (kinds, id, healthy, unsteady, refusal) => {
    // With two members the other one is the quorum's half: etcd asks for one more than are left.
    expect(refuseRemove(members(kinds), BigInt(id), reach(healthy, unsteady))).toBe(refusal);
  });
});

describe('a promotion', () => {
  it('needs a quorum of started voters, the learner among them', () => {
    expect(refusePromote(members('sl'))).toBeUndefined();
    expect(refusePromote(members('sul'))).toBeUndefined();
    expect(refusePromote(members('suul'))).toBe(notStarted);
  });

  it('needs a learner that has nine tenths of what the leader has', () => {
    expect(isInSync(0, 10)).toBe(false);
    expect(isInSync(89, 100)).toBe(false);
    expect(isInSync(90, 100)).toBe(true);
    expect(isInSync(101, 100)).toBe(true);
  });
});
