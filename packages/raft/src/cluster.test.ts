import { describe, expect, it } from 'vitest';
import { Cluster, type ClusterOptions, type Faults } from '../test/cluster.ts';
import type { Host } from '../test/host.ts';
import { mulberry32 } from '../test/timeline.ts';
import { noMember } from './types.ts';

/** Every kind of fault is on or off, so that also combinations of few are seen. */
function optionsOf(seed: number): ClusterOptions {
  const random = mulberry32(seed * 7919);
  const sometimes = (most: number): number => (random() < 0.5 ? 0 : random() * most);
  const upTo = (most: number): number => 1 + Math.floor(random() * most);
  const faults: Faults = {
    loss: sometimes(0.3),
    repeat: sometimes(0.3),
    maxDelay: upTo(random() < 0.5 ? 3 : 40),
    maxFlush: upTo(random() < 0.5 ? 2 : 40),
    maxApply: upTo(random() < 0.5 ? 2 : 40),
    crash: sometimes(0.01),
    pause: sometimes(0.01),
    partition: sometimes(0.01),
    ambush: sometimes(0.05),
    lostReport: sometimes(0.5),
    confChange: sometimes(0.05),
    transfer: sometimes(0.02),
    compact: sometimes(0.3),
    propose: 0.2 + random() * 0.5,
  };
  const config: ClusterOptions['config'] = {
    electionTimeoutTicks: 5,
    heartbeatTicks: 1,
    preVote: random() < 0.8,
    checkQuorum: random() < 0.8,
    maxUncommittedBytes: 200,
    maxEntriesPerAppendBytes: upTo(30),
    maxInflightAppends: upTo(5),
    maxInflightBytes: upTo(60),
  };
  return { seed, faults, config, voters: [1, 2, 3, 3, 3, 4, 5][Math.floor(random() * 7)]!, spares: 3 };
}

/** @returns the cluster after faults, healing, and proof that it works. */
function live(options: ClusterOptions): Cluster {
  const cluster = new Cluster(options);
  cluster.run(300);
  cluster.heal();
  const hosts = (): Host[] => [...cluster.nodes.values()].map(({ host }) => host);
  const leader = (): Host | undefined => hosts().find(({ raft }) => raft.isLeader && raft.confState.voters.includes(raft.leader));
  if (!cluster.run(100, () => leader() !== undefined)) throw new Error('no leader is elected');
  cluster.run(30);
  const goal = cluster.witness.lastApplied + 5;
  const isEven = (): boolean => {
    const { voters = [], learners = [] } = leader()?.raft.confState ?? {};
    const members = hosts().filter(({ id }) => voters.includes(id) || learners.includes(id));
    return members.length > 0 && members.every(({ machine }) => machine.index >= goal);
  };
  if (!cluster.run(200, isEven)) throw new Error(`not all members get to ${goal}`);
  return cluster;
}

/** The same seed fails the same way: a second run tells what happened last. `TRACE=n` for more lines of it. */
function attempt(options: ClusterOptions): Cluster {
  try {
    return live(options);
  } catch (cause) {
    const lines: string[] = [];
    expect(() => live({ ...options, trace: (line) => lines.push(line) })).toThrow();
    const last = lines.slice(-Number(process.env['TRACE'] ?? 30)).join('\n');
    throw new Error(`${last}\nSEED=${options.seed} SEEDS=1: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

const seeds = Number(process.env['SEEDS'] ?? 200);
const first = Number(process.env['SEED'] ?? 1);
const timeoutMs = Math.max(300_000, 500 * seeds);

describe('a cluster', () => {
  it(
    'keeps what Raft promises under faults, and works again after them',
    () => {
      const total = { leaders: 0, applied: 0, reads: 0, confChanges: 0, snapshots: 0, transfers: 0 };
      for (let seed = first; seed < first + seeds; seed++) {
        const { counts } = attempt(optionsOf(seed)).witness;
        for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += counts[name];
      }
      // A test in which little happens proves little. Of few seeds nothing can be said.
      if (seeds < 100) return;
      expect(total.leaders).toBeGreaterThan(1.5 * seeds);
      expect(total.applied).toBeGreaterThan(100 * seeds);
      expect(total.reads).toBeGreaterThan(100 * seeds);
      expect(total.confChanges).toBeGreaterThan(3 * seeds);
      expect(total.snapshots).toBeGreaterThan(seeds);
      expect(total.transfers).toBeGreaterThan(seeds / 4);
    },
    timeoutMs,
  );

  it('lives the same life again from the same seed', () => {
    const life = (): readonly string[] => {
      const lines: string[] = [];
      live({ ...optionsOf(7), trace: (line) => lines.push(line) });
      return lines;
    };
    const once = life();
    expect(once.length).toBeGreaterThan(1000);
    expect(life()).toEqual(once);
  });

  it.each<[string, (host: Host) => void]>([
    ['answers before it has written', releaseAtOnce],
    ['writes term and vote apart', loseVotes],
    ['counts its lives wrong', repeatIncarnation],
    ['takes over a snapshot’s configuration and not its state', restoreNothing],
  ])(
    'would not with a host that %s, and this test finds out',
    (_, plant) => {
      const findings: string[] = [];
      for (let seed = 1; seed <= 400 && findings.length === 0; seed++) {
        try {
          live({ ...optionsOf(seed), plant });
        } catch (cause) {
          findings.push(String(cause));
        }
      }
      expect(findings).toHaveLength(1);
    },
    120_000,
  );
});

function releaseAtOnce(host: Host): void {
  const ready = host.ready.bind(host);
  host.ready = () => {
    const next = ready();
    if (next.append) host.release(next.append);
    return next;
  };
}

/** A crash between the two writes leaves the new term with no vote. */
function loseVotes(host: Host): void {
  const crash = host.crash.bind(host);
  host.crash = (kept, tornPart) => {
    crash(kept, tornPart);
    if (host.disk.hardState) host.disk.hardState = { ...host.disk.hardState, vote: noMember };
  };
}

function repeatIncarnation(host: Host): void {
  const start = host.start.bind(host);
  host.start = () => {
    host.disk.incarnation = 0;
    start();
  };
}

function restoreNothing(host: Host): void {
  host.disk.received.get = () => host.machine;
}
