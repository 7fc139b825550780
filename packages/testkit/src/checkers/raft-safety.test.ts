import { Random } from '@conclave/testing';
import { describe, expect, test } from 'vitest';
import { RaftSafety, type RaftSample, type TracedEntry } from './raft-safety.ts';

/** What an abstract cluster may do against the rules, once. */
const crimes = [
  'elects somebody who lacks what was committed',
  'has two leaders in a term',
  'replaces an entry of its leader',
  'commits what a majority lacks',
  'commits an entry of an older term by counting',
  'takes an entry into a log that differs before it',
  'changes an entry on its way',
  'forgets a commit while it runs',
  'goes back a term while it runs',
] as const;

type Crime = (typeof crimes)[number];

interface Member {
  readonly name: string;
  log: TracedEntry[];
  term: number;
  commitIndex: number;
  isLeader: boolean;
}

/** Raft without messages: each step is what many of them would bring about. */
class AbstractCluster {
  readonly safety = new RaftSafety();
  readonly #random: Random;
  readonly #crime: Crime | undefined;
  readonly #members: Member[];
  #digests = 0;
  isBroken = false;

  constructor(seed: number, crime?: Crime) {
    this.#random = new Random(seed);
    this.#crime = crime;
    this.#members = ['a', 'b', 'c', 'd', 'e'].map((name) => ({ name, log: [], term: 0, commitIndex: 0, isLeader: false }));
  }

  /** `elections`: of twenty steps, how many try to elect somebody. */
  run(steps: number, elections = 1): void {
    for (let step = 0; step < steps; step++) {
      const face = this.#random.below(20);
      const leaders = this.#members.filter((member) => member.isLeader);
      const leader = this.#random.pick(leaders.length === 0 ? this.#members : leaders);
      if (face < elections || !leader.isLeader) this.#elect();
      else if (face < 8) this.#append(leader);
      else if (face < 16) this.#replicate(leader, this.#random.pick(this.#members));
      else if (face < 18) this.#commit(leader);
      else if (face < 19) this.#restart(this.#random.pick(this.#members));
      else this.#misremember(this.#random.pick(this.#members));
    }
  }

  #commits(crime: Crime): boolean {
    if (crime !== this.#crime || this.isBroken || this.#random.chance(0.5)) return false;
    this.isBroken = true;
    return true;
  }

  #elect(): void {
    const candidate = this.#random.pick(this.#members);
    const voters = shuffled(this.#members, this.#random).slice(0, 3);
    if (!voters.includes(candidate)) return;
    const committed = Math.max(...this.#members.map((member) => member.commitIndex));
    const isBehind = voters.some((voter) => isNewer(voter.log, candidate.log));
    const lacksCommitted = candidate.log.length < committed;
    if (isBehind && !(lacksCommitted && this.#commits('elects somebody who lacks what was committed'))) return;
    const term = Math.max(...this.#members.map((member) => member.term));
    const isSecond =
      term > 0 && !candidate.isLeader && this.#leaderOf(term) !== undefined && !isBehind && this.#commits('has two leaders in a term');
    candidate.term = isSecond ? term : term + 1;
    for (const voter of voters) {
      if (voter === candidate) continue;
      voter.term = candidate.term;
      if (!isSecond) voter.isLeader = false;
      this.#sample(voter);
    }
    candidate.isLeader = true;
    this.#sample(candidate, candidate.log);
  }

  #leaderOf(term: number): Member | undefined {
    return this.#members.find((member) => member.isLeader && member.term === term);
  }

  #append(leader: Member): void {
    if (
      leader.log.length > leader.commitIndex &&
      leader.log.at(-1)?.term === leader.term &&
      this.#commits('replaces an entry of its leader')
    )
      leader.log.pop();
    leader.log.push({ term: leader.term, index: leader.log.length + 1, digest: `${++this.#digests}` });
    this.#sample(leader, leader.log.slice(-1));
  }

  #replicate(leader: Member, follower: Member): void {
    if (follower === leader || follower.term > leader.term || this.#leaderOf(leader.term) !== leader) return;
    const agreed = commonLength(leader.log, follower.log);
    const upTo = agreed + this.#random.below(leader.log.length - agreed + 1);
    if (upTo > agreed) {
      const entries = leader.log.slice(agreed, upTo);
      const isGap = agreed > 1 && follower.log.length > agreed && this.#commits('takes an entry into a log that differs before it');
      if (this.#commits('changes an entry on its way')) entries[0] = { ...(entries[0] as TracedEntry), digest: 'other' };
      follower.log = isGap
        ? [...follower.log.slice(0, agreed - 1), { term: leader.term + 50, index: agreed, digest: 'own' }, ...entries]
        : [...follower.log.slice(0, agreed), ...entries];
      follower.term = leader.term;
      follower.isLeader = false;
      follower.commitIndex = Math.max(follower.commitIndex, Math.min(leader.commitIndex, upTo));
      this.#sample(follower, follower.log.slice(isGap ? agreed - 1 : agreed));
      return;
    }
    follower.term = leader.term;
    follower.isLeader = false;
    follower.commitIndex = Math.max(follower.commitIndex, Math.min(leader.commitIndex, agreed));
    this.#sample(follower);
  }

  #commit(leader: Member): void {
    const held = (index: number): number => this.#members.filter((member) => commonLength(member.log, leader.log) >= index).length;
    for (let index = leader.log.length; index > leader.commitIndex; index--) {
      const isOwn = leader.log[index - 1]?.term === leader.term;
      const isHeld = held(index) >= 3;
      if (isHeld && isOwn) leader.commitIndex = index;
      else if (isHeld && this.#commits('commits an entry of an older term by counting')) leader.commitIndex = index;
      else if (!isHeld && isOwn && this.#commits('commits what a majority lacks')) leader.commitIndex = index;
      else continue;
      break;
    }
    this.#sample(leader);
  }

  /** Loses what it had not written down: the commit index. */
  #restart(member: Member): void {
    member.isLeader = false;
    member.commitIndex = 0;
    this.safety.sample({ ...this.#view(member), restartedAt: member.log.length });
  }

  #misremember(member: Member): void {
    if (member.commitIndex > 0 && this.#commits('forgets a commit while it runs')) member.commitIndex--;
    if (member.term > 0 && !member.isLeader && this.#commits('goes back a term while it runs')) member.term--;
    this.#sample(member);
  }

  #sample(member: Member, log?: readonly TracedEntry[]): void {
    this.safety.sample({ ...this.#view(member), ...(log !== undefined && { log }) });
  }

  #view({ name, term, commitIndex, isLeader }: Member): RaftSample {
    return { member: name, term, commitIndex, role: isLeader ? 'leader' : 'follower' };
  }
}

test('nothing is found where the rules are kept', () => {
  let committed = 0;
  for (let seed = 0; seed < 200; seed++) {
    const cluster = new AbstractCluster(seed);
    cluster.run(400);
    expect(cluster.safety.findings, `seed ${seed}`).toEqual([]);
    committed += cluster.safety.committedIndex;
  }
  expect(committed).toBeGreaterThan(2000);
});

// What these two allow does harm only when the wrong member leads next.
const needsLuck: readonly Crime[] = ['commits what a majority lacks', 'commits an entry of an older term by counting'];

describe.each(crimes)('a cluster that %s', (crime) => {
  test('is found out', () => {
    let broken = 0;
    let found = 0;
    for (let seed = 0; seed < 200; seed++) {
      const cluster = new AbstractCluster(seed, crime);
      cluster.run(400, needsLuck.includes(crime) ? 6 : 1);
      if (cluster.isBroken) broken++;
      if (cluster.safety.findings.length > 0) found++;
    }
    expect(broken).toBeGreaterThan(50);
    if (needsLuck.includes(crime)) expect(found).toBeGreaterThan(0);
    else expect(found).toBe(broken);
  });
});

test('members that applied different entries are found', () => {
  const safety = new RaftSafety();
  safety.applied('a', 1, 'x');
  safety.applied('b', 1, 'x');
  expect(safety.findings).toEqual([]);
  safety.applied('c', 1, 'y');
  expect(safety.findings).toMatchObject([{ rule: 'state-machine-safety', what: 'members a and c applied different entries at index 1' }]);
});

function isNewer(a: readonly TracedEntry[], b: readonly TracedEntry[]): boolean {
  const [lastA, lastB] = [a.at(-1)?.term ?? 0, b.at(-1)?.term ?? 0];
  return lastA > lastB || (lastA === lastB && a.length > b.length);
}

function commonLength(a: readonly TracedEntry[], b: readonly TracedEntry[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length]?.term === b[length]?.term && a[length]?.digest === b[length]?.digest) length++;
  return length;
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  return items
    .map((item) => ({ item, rank: random.next() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}
