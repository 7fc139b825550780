import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RaftConfig } from './config.ts';
import { InvariantError } from './invariant.ts';
import { Raft } from './raft.ts';
import type { Entry, HardState, StorageAppend } from './types.ts';

const base: Omit<RaftConfig, 'initial'> = {
  id: 1n,
  incarnation: 1,
  electionTimeoutTicks: 3,
  heartbeatTicks: 1,
  preVote: true,
  checkQuorum: true,
  maxUncommittedBytes: 100,
  maxEntriesPerAppendBytes: 3,
  maxInflightAppends: 4,
  maxInflightBytes: 1000,
  electionTimeoutJitter: () => 0,
};
const nothing = {
  hardState: undefined,
  confState: { voters: [1n], learners: [] },
  compacted: { index: 0, term: 0 },
  entries: [],
  appliedIndex: 0,
};

/** A member of one with a disk that may crash, and a record of what anybody was ever told. */
class Member {
  raft: Raft;
  /** What was applied, at which term, over all of its lives. The host answers its client at that moment. */
  readonly told: string[] = [];
  readonly #isHonest: boolean;
  #appends: StorageAppend[] = [];
  #applies: (readonly Entry[])[] = [];
  #entries: Entry[] = [];
  #hardState: HardState | undefined;
  #appliedIndex = 0;

  constructor(isHonest: boolean) {
    this.#isHonest = isHonest;
    this.raft = new Raft({ ...base, initial: nothing });
  }

  ready(): void {
    if (!this.raft.hasReady()) return;
    const { append, apply } = this.raft.ready();
    if (apply) this.#applies.push(apply.entries);
    if (!append) return;
    this.#appends.push(append);
    // The planted fault: raft is told before the disk has it.
    if (!this.#isHonest) for (const response of append.responses) this.raft.step(response);
  }

  flush(): void {
    const append = this.#appends.shift();
    if (!append) return;
    const first = append.entries[0]?.index ?? Number.POSITIVE_INFINITY;
    this.#entries = [...this.#entries.filter((entry) => entry.index < first), ...append.entries];
    this.#hardState = append.hardState ?? this.#hardState;
    if (this.#isHonest) for (const response of append.responses) this.raft.step(response);
  }

  apply(): void {
    for (const entry of this.#applies.shift() ?? []) {
      const text = `${entry.term}/${entry.index}`;
      // The same entry may be applied again after a crash; never another one at its index.
      if ((this.told[entry.index - 1] ?? text) !== text) expect.fail(`${text} is applied in place of ${this.told[entry.index - 1]}`);
      this.told[entry.index - 1] = text;
      this.raft.step({ type: 'storageApplyResponse', index: entry.index });
      this.#appliedIndex = entry.index;
    }
  }

  /** @param keeps how much of what was applied the state machine has on its own disk. */
  crash(keeps: number): void {
    this.#appends = [];
    this.#applies = [];
    this.#appliedIndex = Math.floor(this.#appliedIndex * keeps);
    const initial = { ...nothing, hardState: this.#hardState, entries: this.#entries, appliedIndex: this.#appliedIndex };
    this.raft = new Raft({ ...base, initial });
    // Whoever was told that something is done finds it done.
    expect(this.#entries.map((entry) => `${entry.term}/${entry.index}`).slice(0, this.told.length)).toEqual(this.told);
  }

  work(): void {
    this.ready();
    this.flush();
    this.ready();
    this.apply();
  }

  finish(): void {
    while (this.raft.soleReadIndex === undefined || this.raft.hasReady() || this.#appends.length > 0) {
      this.raft.campaign();
      this.work();
    }
  }
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('ready', 'flush', 'apply', 'propose') },
  { weight: 6, arbitrary: fc.constant('work') },
  { weight: 2, arbitrary: fc.constantFrom('campaign', 'tick') },
  { weight: 1, arbitrary: fc.constantFrom('heartbeat', 'vote', 'compact') },
  { weight: 1, arbitrary: fc.record({ keeps: fc.constantFrom(0, 0.5, 1) }) },
);
const steps = fc.array(step, { minLength: 40, maxLength: 120, size: 'max' });

function live(list: readonly (string | { keeps: number })[], isHonest: boolean): Member {
  const member = new Member(isHonest);
  for (const what of list) {
    const { raft } = member;
    if (typeof what === 'object') member.crash(what.keeps);
    else if (what === 'propose') raft.propose(new Uint8Array(2));
    else if (what === 'tick') raft.tick();
    else if (what === 'campaign') raft.campaign();
    else if (what === 'heartbeat') raft.step({ type: 'heartbeat', from: 2n, to: 1n, term: raft.term + 1, leaderCommit: 0, round: 1 });
    else if (what === 'vote')
      raft.step({
        type: 'requestVote',
        from: 2n,
        to: 1n,
        term: raft.term + 1,
        lastLogIndex: 0,
        lastLogTerm: 0,
        leadershipTransfer: true,
        commitIndex: 0,
        commitTerm: 0,
      });
    else if (what === 'compact') raft.compact(raft.status().appliedIndex - 1);
    else if (what === 'work') member.work();
    else if (what === 'ready') member.ready();
    else if (what === 'flush') member.flush();
    else member.apply();
    checkOrder(member.raft);
  }
  return member;
}

/** What RaftLog promises of its positions, and what a leader of one is. */
function checkOrder(raft: Raft): void {
  const { appliedIndex, commitIndex, durableIndex, lastIndex, compactedIndex, role, leader, uncommittedBytes } = raft.status();
  const order = [compactedIndex, appliedIndex, Math.min(commitIndex, durableIndex), lastIndex];
  const isOrdered = order.every((index, at) => at === 0 || order[at - 1]! <= index);
  const isSound = role !== 'leader' || (leader === 1n && commitIndex <= durableIndex && uncommittedBytes >= 0);
  if (!isOrdered || !isSound) expect.fail(JSON.stringify(order));
}

describe('a cluster of one', () => {
  it('keeps what it told anybody through every crash, and always leads in the end', () => {
    let told = 0;
    fc.assert(
      fc.property(steps, (list) => {
        const member = live(list, true);
        told += member.told.length;
        member.finish();
        expect(member.raft.role).toBe('leader');
        expect(member.raft.soleReadIndex).toBe(member.raft.status().lastIndex);
      }),
      { numRuns: 500 },
    );
    expect(told).toBeGreaterThan(500);
  });

  it('would not with a host that acknowledges before it writes, and that test finds out', () => {
    const run = (): void =>
      fc.assert(
        fc.property(steps, (list) => void live(list, false)),
        { numRuns: 500, seed: 1 },
      );
    expect(run).toThrow();
  });

  it('does the same for the same inputs', () => {
    const trace = (): unknown[] => {
      const raft = new Raft({ ...base, initial: nothing });
      const out: unknown[] = [];
      for (let round = 0; round < 50; round++) {
        if (round % 3 === 0) raft.tick();
        if (round % 5 === 0) raft.propose(Uint8Array.of(round + 1));
        const ready = raft.ready();
        out.push(ready, raft.status());
        for (const response of ready.append?.responses ?? []) raft.step(response);
      }
      return out;
    };
    expect(trace()).toEqual(trace());
  });

  it('hands out each piece of work once', () => {
    const raft = new Raft({ ...base, initial: nothing });
    raft.campaign();
    raft.ready();
    expect([raft.hasReady(), raft.ready()]).toEqual([
      false,
      { messages: [], append: undefined, apply: undefined, readStates: [], snapshotsFor: [], softState: undefined },
    ]);
  });
});

describe('the core refuses', () => {
  it.each<[string, Partial<RaftConfig>]>([
    ['member id 0', { id: 0n }],
    ['no heartbeats', { heartbeatTicks: 0 }],
    ['a heartbeat as long as the election timeout', { heartbeatTicks: 3 }],
    ['half a tick', { electionTimeoutTicks: 2.5 }],
    ['no room for proposals', { maxUncommittedBytes: 0 }],
    ['no room for appends', { maxEntriesPerAppendBytes: Number.NaN }],
    ['chance outside of [0, 1)', { electionTimeoutJitter: () => 1 }],
  ])('%s', (_, config) => {
    expect(() => new Raft({ ...base, initial: nothing, ...config })).toThrow(InvariantError);
  });

  it('an empty proposal, which would look like a leader’s own entry', () => {
    const raft = new Raft({ ...base, initial: nothing });
    expect(() => raft.propose(new Uint8Array(0))).toThrow(InvariantError);
  });

  it('a term beyond 2^53-1', () => {
    const hardState = { term: Number.MAX_SAFE_INTEGER, vote: 0n, commit: 0 };
    const raft = new Raft({ ...base, initial: { ...nothing, hardState } });
    expect(() => raft.campaign()).toThrow(/beyond 2\^53-1/);
  });
});

describe('election timeouts', () => {
  it('are drawn between one and two times the configured one', () => {
    const elapsed = [0, 0.4, 0.99].map((chance) => {
      const raft = new Raft({ ...base, electionTimeoutTicks: 10, electionTimeoutJitter: () => chance, initial: nothing });
      let ticks = 0;
      while (raft.role === 'follower') {
        raft.tick();
        ticks += 1;
      }
      return ticks;
    });
    expect(elapsed).toEqual([10, 14, 19]);
  });
});
