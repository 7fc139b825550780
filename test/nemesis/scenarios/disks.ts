import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ClusterMember, eventually, type ProcessFault, ProcessFaults, ScratchDir, within } from '@conclave/testkit';
import { leaderAndRest, type Prepared, reignOf, type Scenario, type Stage } from '../scenario.ts';
import { now } from '../workload.ts';

const goCallsTheKernelItself = 'the faults are preloaded into programs that use the C library';

/** Disks that are slow, that fail, and that are full. */
export const disks: readonly Scenario[] = [
  {
    name: 'slow-disk',
    size: 3,
    oursOnly: goCallsTheKernelItself,
    prepare: () => new FaultyMembers(),
    run: withSlowDisks,
  },
  failing('fsync-eio-log-of-leader', 'leader', [{ on: 'sync', path: '/wal/', action: 'fail', code: 'EIO' }]),
  failing('fsync-eio-log-of-follower', 'follower', [{ on: 'sync', path: '/wal/', action: 'fail', code: 'EIO' }]),
  failing('fsync-eio-log-of-the-only-member', 'leader', [{ on: 'sync', path: '/wal/', action: 'fail', code: 'EIO' }], 1),
  failing('fsync-eio-state', 'leader', [{ on: 'sync', path: '/state/', action: 'fail', code: 'EIO' }]),
  failing('write-eio-log', 'leader', [{ on: 'write', path: '/wal/', action: 'fail', code: 'EIO' }]),
  failing('no-space-for-log', 'leader', [
    { on: 'write', path: '/wal/', action: 'fail', code: 'ENOSPC' },
    { on: 'space', path: '/wal/', action: 'fail', code: 'ENOSPC' },
  ]),
  {
    name: 'disk-full',
    size: 3,
    oursOnly: 'what a member does on a full disk is its own affair',
    mayEnd: true,
    workload: { padding: 20_000 },
    prepare: () => new SmallDisks(),
    run: fillDisk,
  },
];

class FaultyMembers implements Prepared, Disposable {
  readonly #faults = new Map<string, ProcessFaults>();
  readonly cluster = { member: (name: string) => ({ environment: this.of({ name }).environment }) };

  of({ name }: { readonly name: string }): ProcessFaults {
    const faults = this.#faults.get(name) ?? new ProcessFaults();
    this.#faults.set(name, faults);
    return faults;
  }

  [Symbol.dispose](): void {
    for (const faults of this.#faults.values()) faults[Symbol.dispose]();
  }
}

/** Flushes that take longer than an election does: answers are late and nothing else. Nobody waits for a disk with a heartbeat. */
async function withSlowDisks({ cluster, workload, electionMs, note }: Stage, prepared: Prepared): Promise<void> {
  const members = prepared as FaultyMembers;
  const reign = await reignOf(cluster);
  const { leader, rest } = await leaderAndRest(cluster);
  for (const [slow, delayMs] of [
    [[leader], 300],
    [rest.slice(0, 1), 300],
    [cluster.members, 1.2 * electionMs],
  ] as const) {
    for (const member of slow) members.of(member).set([{ on: 'sync', path: '/', action: 'delay', ms: delayMs }]);
    const begunAt = now();
    await workload.changes(20, 60 * electionMs);
    note(
      `20 changes took ${(now() - begunAt).toFixed(0)} ms while flushes took ${delayMs} ms at ${slow.map(({ name }) => name).join(', ')}`,
    );
    for (const member of slow) members.of(member).clear();
    await workload.changesThrough(cluster.endpoints, 20 * electionMs);
  }
  const after = await reignOf(cluster);
  if (after.term !== reign.term)
    throw new Error(`${reign.name} led in term ${reign.term}, and slow disks made it ${after.name} in term ${after.term}`);
}

/** What the disk refuses once is not tried again: the process ends, and whoever was not told yes is not told it later. */
function failing(name: string, victim: 'leader' | 'follower', faults: readonly ProcessFault[], size = 3): Scenario {
  return {
    name,
    size,
    oursOnly: goCallsTheKernelItself,
    mayEnd: true,
    prepare: () => new FaultyMembers(),
    async run({ cluster, workload, electionMs, note }, prepared) {
      const members = prepared as FaultyMembers;
      const { leader, rest } = await leaderAndRest(cluster);
      const member = victim === 'leader' ? leader : (rest[0] as ClusterMember);
      const others = cluster.members.filter((other) => other !== member);
      const { hits } = members.of(member);
      members.of(member).set(faults);
      await eventually('the disk has failed', () => members.of(member).hits > hits, 20_000);
      const failedAt = now();
      const { code } = await within('the process ends', member.exited, endsWithinMs);
      note(`${member.name} ended with code ${code} within ${(now() - failedAt).toFixed(0)} ms`);
      if (workload.lastChangeThrough(member.endpoint) > failedAt)
        throw new Error(`${member.name} acknowledged a change that was begun after its disk failed`);
      await workload.changesThrough(
        others.map(({ endpoint }) => endpoint),
        10 * electionMs,
      );
      members.of(member).clear();
      await member.restart();
    },
  };
}

/** At once; the rest is for a machine that is busy. */
const endsWithinMs = 1000;

/** A small file system for each member; in memory where that may be mounted, else only said to be full. */
class SmallDisks implements Prepared, Disposable {
  readonly #dir = new ScratchDir('small-disks');
  readonly #faulty = new FaultyMembers();
  readonly #mounted: string[] = [];
  readonly cluster = { member: (name: string) => ({ dataDir: join(this.#mount(name), 'data'), ...this.#faulty.cluster.member(name) }) };

  /** Leaves next to nothing. */
  fill({ name }: { readonly name: string }): void {
    const path = join(this.#dir.path, name);
    if (!this.#mounted.includes(path)) {
      this.#faulty.of({ name }).set([
        { on: 'write', path: '/data/', action: 'fail', code: 'ENOSPC' },
        { on: 'space', path: '/data/', action: 'fail', code: 'ENOSPC' },
      ]);
      return;
    }
    const { bavail, bsize } = statfsSync(path);
    writeFileSync(join(path, 'ballast'), Buffer.alloc(Math.max(0, bavail * bsize - leftBytes)));
  }

  empty({ name }: { readonly name: string }): void {
    this.#faulty.of({ name }).clear();
    rmSync(join(this.#dir.path, name, 'ballast'), { force: true });
  }

  /** What fills them. */
  get isReal(): boolean {
    return this.#mounted.length > 0;
  }

  [Symbol.dispose](): void {
    for (const path of this.#mounted) execFileSync('umount', ['--lazy', path]);
    this.#faulty[Symbol.dispose]();
    this.#dir[Symbol.dispose]();
  }

  #mount(name: string): string {
    const path = join(this.#dir.path, name);
    mkdirSync(path);
    const isRoot = process.getuid?.() === 0;
    if (isRoot && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=160m', 'tmpfs', path]).status === 0) this.#mounted.push(path);
    return path;
  }
}

const leftBytes = 1024 * 1024;
const diskFullCode = 5;

/** The disk of the leader is full: it says so and ends, and comes back when there is room. */
async function fillDisk({ cluster, workload, electionMs, note }: Stage, prepared: Prepared): Promise<void> {
  const disksOf = prepared as SmallDisks;
  const { leader, rest } = await leaderAndRest(cluster);
  disksOf.fill(leader);
  const { code } = await within('the process ends', leader.exited, 60_000);
  note(`${disksOf.isReal ? 'a full tmpfs' : 'no space, by a preloaded library'}: ${leader.name} ended with code ${code}`);
  if (code !== diskFullCode) throw new Error(`a full disk ends a member with code ${diskFullCode}, not ${code}`);
  await workload.changesThrough(
    rest.map(({ endpoint }) => endpoint),
    10 * electionMs,
  );
  disksOf.empty(leader);
  await leader.restart();
}
