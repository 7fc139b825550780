import { Random } from '@conclave/testing';

/** What can go wrong by the simulation's hand. Each has a process of its own, which strikes again and again while the safety phase lasts. */
export const faultKinds = [
  'crash',
  'crashMany',
  'restart',
  'pause',
  'stall',
  'partition',
  'slowDisk',
  'fullDisk',
  'diskError',
  'clock',
  'replace',
  'transfer',
  'clientCrash',
  'clientPause',
  'clientPartition',
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** Everything that tells one seed's run from another's. */
export interface Plan {
  readonly seed: number;
  readonly members: number;
  readonly clients: number;
  readonly operationsPerSecond: number;
  /** Simulated milliseconds with faults; the healed phase comes on top. */
  readonly faultyMs: number;
  /** Mean milliseconds between two faults of a kind. What is absent does not happen. */
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
  readonly network: { readonly loss: number; readonly duplication: number; readonly delayMs: readonly [number, number] };
  /** How much slower than true time a clock may go, as a fraction. */
  readonly clockSkew: number;
  /** What arrives within a millisecond arrives in one turn of the loop. */
  readonly sharesTurns: boolean;
  readonly disk: { readonly syncMs: readonly [number, number]; readonly commitMs: readonly [number, number] };
  readonly storage: {
    readonly segmentBytes: { readonly first: number; readonly max: number };
    readonly bounds: { readonly flushDelayMs: number; readonly flushBytes: number; readonly generationBytesMax: number };
  };
  readonly settings: {
    readonly heartbeatMs: number;
    readonly electionMs: number;
    readonly snapshotCount: number;
    readonly snapshotCatchUpEntries: number;
    readonly watchProgressNotifyMs: number;
    readonly autoCompactionMode: 'revision';
    /** Revisions the leader keeps; 0: all. */
    readonly autoCompactionRetention: number;
    readonly corruptCheckMs: number;
  };
  /** Bytes of the store at which the first member, the second, ... complains. Empty: never. */
  readonly quotas: readonly number[];
  /** How many members begin with an older release, until they are restarted. */
  readonly oldReleases: number;
  readonly workload: {
    readonly keys: number;
    readonly valueBytes: number;
    readonly compactionShare: number;
    readonly leaseTtlSeconds: number;
  };
}

/** What a shrunk run, or a shorter one, has less of. */
export interface PlanLimits {
  readonly without?: readonly (FaultKind | 'network' | 'clockSkew')[];
  readonly faultyMs?: number;
  readonly clients?: number;
  readonly members?: number;
}

const faultyMsDefault = 45_000;

/**
 * Draws a run from its seed. Every kind of fault is on in about half of the runs (swarm testing: what all faults together hide, some of them show),
 * and how often it strikes differs by an order of magnitude. Limits take away, and change nothing of the rest.
 */
export function drawPlan(seed: number, limits: PlanLimits = {}): Plan {
  const random = randomOf(seed, 'plan');
  const faults: Partial<Record<FaultKind, number>> = {};
  for (const kind of faultKinds) {
    const isOn = random.chance(shares[kind] ?? 0.5);
    const meanMs = Math.round(3_000 * 8 ** random.next());
    if (isOn && limits.without?.includes(kind) !== true) faults[kind] = meanMs;
  }
  const isLossy = random.chance(0.5);
  const loss = random.next() ** 2 * 0.2;
  const isDoubling = random.chance(0.4);
  const duplication = random.next() ** 2 * 0.3;
  const isReordering = random.chance(0.4);
  const mostDelayMs = random.pick([5, 20, 60]);
  const isSkewed = random.chance(0.5);
  const isSlowDisk = random.chance(0.2);
  const members = random.pick([1, 3, 3, 3, 3, 5]);
  const clients = random.pick([2, 3, 4, 5]);
  const hasNoise = limits.without?.includes('network') !== true;
  const isStormy = random.chance(0.4);
  const hasQuota = random.chance(0.15);
  const sharesTurns = random.chance(0.7);
  const isCompacting = random.chance(0.2);
  const segmentFirst = random.pick([16, 32, 64, 256]) * 1024;
  return {
    seed,
    members: limits.members ?? members,
    clients: Math.min(limits.clients ?? clients, clients),
    operationsPerSecond: 50,
    faultyMs: limits.faultyMs ?? faultyMsDefault,
    faults,
    network: {
      loss: isLossy && hasNoise ? loss : 0,
      duplication: isDoubling && hasNoise ? duplication : 0,
      delayMs: isReordering && hasNoise ? [1, mostDelayMs] : [1, 1],
    },
    clockSkew: isSkewed && limits.without?.includes('clockSkew') !== true ? 0.01 : 0,
    sharesTurns,
    disk: { syncMs: isSlowDisk ? [1, 40] : [0, 2], commitMs: isSlowDisk ? [5, 200] : [1, 10] },
    storage: {
      segmentBytes: { first: segmentFirst, max: segmentFirst * random.pick([1, 2, 8]) },
      bounds: {
        flushDelayMs: random.pick([0, 10, 50, 500]),
        flushBytes: random.pick([1, 4 * 1024, 4 * 1024 * 1024]),
        generationBytesMax: random.pick([4 * 1024, 64 * 1024, 16 * 1024 * 1024]),
      },
    },
    settings: {
      heartbeatMs: 100,
      electionMs: random.pick([500, 1000, 1000]),
      snapshotCount: isStormy ? random.pick([5, 20]) : 10_000,
      snapshotCatchUpEntries: isStormy ? random.pick([0, 5, 20]) : random.pick([100, 5000]),
      watchProgressNotifyMs: random.pick([200, 1000, 600_000]),
      autoCompactionMode: 'revision',
      autoCompactionRetention: isCompacting ? random.pick([10, 100, 300]) : 0,
      corruptCheckMs: random.pick([0, 2_000, 5_000]),
    },
    quotas: hasQuota ? Array.from({ length: 7 }, () => 400_000 + random.below(600_000)) : [],
    oldReleases: random.pick([0, 0, 1, 2, 5]),
    workload: {
      keys: random.pick([4, 10, 30]),
      valueBytes: random.pick([0, 0, 200, 2000]),
      compactionShare: random.pick([0, 0.01, 0.05]),
      leaseTtlSeconds: random.pick([2, 3, 5]),
    },
  };
}

/** What breaks more than it shows strikes less often. */
const shares: Partial<Record<FaultKind, number>> = { crashMany: 0.25, fullDisk: 0.25, diskError: 0.3, replace: 0.3, clientCrash: 0.3 };

/** Chance for one purpose: what one part draws does not shift what another does. */
export function randomOf(seed: number, purpose: string): Random {
  let mixed = Math.imul(seed | 0, 0x9e3779b1);
  for (let at = 0; at < purpose.length; at++) mixed = Math.imul(mixed ^ purpose.charCodeAt(at), 0x85ebca6b) ^ (mixed >>> 13);
  return new Random(mixed);
}

/** A time until the next event of a process without memory. At least 1 ms, whole milliseconds. */
export function exponential(random: Random, meanMs: number): number {
  return Math.max(1, Math.round(-Math.log(1 - random.next()) * meanMs));
}

/** A whole number from `least` to `most`. */
export function between(random: Random, [least, most]: readonly [number, number]): number {
  return least + random.below(most - least + 1);
}
