import { LeaseGrantRequest } from '@conclave/protocol';
import type { MemberId } from '@conclave/raft';
import { afterAll, describe, expect, it } from 'vitest';
import { ReplicaCluster } from '../../test/replica-cluster.ts';
import type { MembershipChange } from './options.ts';

const leaseSeconds = 3;
const ignore = (): void => undefined;

/** Puts, reads and leases under faults, drawn from the seed. */
class Ordeal {
  readonly cluster: ReplicaCluster;
  readonly #ids: MemberId[] = [1n, 2n, 3n];
  readonly #down: Set<MemberId> = new Set();
  readonly #acknowledged: string[] = [];
  /** What a linearizable read should have seen. */
  readonly #missed: string[] = [];
  /** When a lease that was granted, and each time it was renewed, may run out at the earliest. By id. */
  readonly #leases: Map<bigint, number> = new Map();
  /** Leases that were gone before that. */
  readonly #early: string[] = [];
  #puts = 0;
  #joiners = 0;
  #granted = 0;
  changes = 0;
  #isChanging = false;

  private constructor(cluster: ReplicaCluster) {
    this.cluster = cluster;
  }

  static async begin(seed: number): Promise<Ordeal> {
    return new Ordeal(await ReplicaCluster.started({ size: 3, seed, limits: { catchUpEntries: 5 } }));
  }

  /** @param changesMembers whether members come and go, too */
  async run(steps: number, changesMembers: boolean): Promise<void> {
    for (let step = 0; step < steps; step++) {
      for (const id of this.#running) if (this.#chance(0.5)) this.#put(id);
      for (const id of this.#running) if (this.#chance(0.1)) this.#read(id);
      this.#lease();
      this.#crashOrStart();
      if (this.#chance(0.05)) this.#pause();
      this.#disturbNetwork();
      if (changesMembers && this.#chance(0.3)) this.#changeMembers();
      this.#buryRemoved();
      await this.cluster.runtime.advance(Math.floor(this.cluster.runtime.random() * 200));
    }
  }

  #chance(probability: number): boolean {
    return this.cluster.runtime.random() < probability;
  }

  #any<T>(among: readonly T[]): T | undefined {
    return among[Math.floor(this.cluster.runtime.random() * among.length)];
  }

  get #running(): readonly MemberId[] {
    return this.#ids.filter((id) => !this.#down.has(id));
  }

  #put(id: MemberId): void {
    this.#puts += 1;
    const name = `${this.#puts}`;
    this.cluster.put(id, name).then(() => this.#acknowledged.push(name), ignore);
  }

  #read(id: MemberId): void {
    const { replica, machine } = this.cluster.member(id);
    const known = this.#acknowledged.length;
    replica.readBarrier((error) => {
      if (error !== undefined) return;
      this.#missed.push(...this.#acknowledged.slice(0, known).filter((name) => !machine.state.puts.includes(name)));
    });
  }

  /** Grants one, or renews one; and looks whether all are where they should be. */
  #lease(): void {
    const id = this.#any(this.#running);
    if (id === undefined) return;
    const { replica, machine } = this.cluster.member(id);
    const now = this.cluster.runtime.monotonic();
    for (const [lease, deadline] of this.#leases) {
      if (deadline <= now) this.#leases.delete(lease);
      else if (!machine.state.leases.has(lease) && machine.state.everGranted.has(lease))
        this.#early.push(`${lease} at ${now} before ${deadline}`);
    }
    const lease = this.#any([...this.#leases.keys()]);
    const lives = (of: bigint): void => void this.#leases.set(of, Math.max(this.#leases.get(of) ?? 0, now + leaseSeconds * 1000));
    if (lease !== undefined && this.#chance(0.8)) {
      replica.renewLease(lease).then((ttl) => ttl > 0 && lives(lease), ignore);
    } else {
      this.#granted += 1;
      const granted = BigInt(this.#granted);
      replica.propose('leaseGrant', LeaseGrantRequest.encode({ id: granted, ttl: leaseSeconds })).then(() => lives(granted), ignore);
    }
  }

  /** Its process stands still for some time. */
  #pause(): void {
    const id = this.#any(this.#running);
    if (id === undefined) return;
    const { runtime } = this.cluster.member(id);
    runtime.pause();
    this.cluster.runtime.timer(this.cluster.runtime.random() * 6000, () => runtime.resume());
  }

  #crashOrStart(): void {
    const id = this.#any(this.#ids)!;
    if (this.#down.has(id)) {
      if (this.#chance(0.5)) this.#start(id);
    } else if (this.#chance(0.1)) {
      this.#down.add(id);
      this.cluster.crash(id);
    }
  }

  #start(id: MemberId): void {
    this.#down.delete(id);
    this.cluster.start(id);
  }

  #disturbNetwork(): void {
    const [from, to] = [this.#any(this.#ids)!, this.#any(this.#ids)!];
    if (this.#chance(0.1)) this.cluster.link(from, to, { isCut: this.#chance(0.5) });
    if (this.#chance(0.05)) this.cluster.heal();
    if (!this.#chance(0.1)) return;
    const delayMs = [1, this.#chance(0.3) ? 200 : 5] as const;
    this.cluster.faults = { isCut: false, loss: this.#chance(0.5) ? 0.2 : 0, duplication: this.#chance(0.5) ? 0.3 : 0, delayMs };
  }

  /** One change at a time, decided by what any member knows. */
  #changeMembers(): void {
    const asked = this.#any(this.#running);
    if (asked === undefined || this.#isChanging) return;
    const { voters, learners } = this.cluster.member(asked).machine.confState;
    const change = this.#nextChange(voters, learners);
    this.#isChanging = true;
    const settled = (): void => {
      this.#isChanging = false;
    };
    this.cluster.change(asked, change).then(() => {
      this.changes += 1;
      settled();
    }, settled);
    if (change.type !== 'addLearner') return;
    this.#ids.push(change.member);
    this.#start(change.member);
  }

  #nextChange(voters: readonly MemberId[], learners: readonly MemberId[]): MembershipChange {
    const [learner] = learners;
    if (learner !== undefined && this.#chance(0.7)) return { type: 'addVoter', member: learner };
    if (voters.length >= 3 && this.#chance(0.5)) return { type: 'remove', member: this.#any([...voters, ...learners])! };
    this.#joiners += 1;
    return { type: 'addLearner', member: BigInt(this.#joiners + 100) };
  }

  /** Who learned that it was removed stops for good. */
  #buryRemoved(): void {
    for (const id of this.#running) {
      if (!this.cluster.member(id).told.includes('removed')) continue;
      this.cluster.crash(id);
      this.#ids.splice(this.#ids.indexOf(id), 1);
    }
  }

  /** All is well again: everything that was acknowledged is there, once, everywhere. */
  async end(least: number): Promise<void> {
    const { cluster } = this;
    cluster.heal();
    for (const { runtime } of cluster.members.values()) runtime.resume();
    for (const id of this.#down) this.#start(id);
    // What was on its way to a leader that is none may be lost once more, and who was removed learns it.
    await cluster.runtime.advance(10_000);
    this.#buryRemoved();
    const { id, machine } = await cluster.leader();
    // A joiner whose addition was lost belongs to nobody.
    for (const other of this.#ids) if (!isMember(machine.confState, other)) cluster.crash(other);
    await cluster.runtime.run(cluster.put(id, 'after'));
    await cluster.settle();
    const { puts } = machine.state;
    for (const member of cluster.members.values()) expect(member.machine.state).toEqual(machine.state);
    expect(new Set(puts).size).toBe(puts.length);
    expect(this.#acknowledged.filter((name) => !puts.includes(name))).toEqual([]);
    expect(this.#missed).toEqual([]);
    expect(this.#early).toEqual([]);
    expect(cluster.failures).toEqual([]);
    expect(cluster.errors).toEqual([]);
    expect(this.#acknowledged.length).toBeGreaterThan(least);
  }
}

function isMember(
  { voters, learners }: { readonly voters: readonly MemberId[]; readonly learners: readonly MemberId[] },
  id: MemberId,
): boolean {
  return voters.includes(id) || learners.includes(id);
}

const seeds = Array.from({ length: Number(process.env['REPLICA_SEEDS'] ?? 10) }, (_, at) => at + 1);

describe('crashes, cuts, loss, repetition and reordering', () => {
  it.each(seeds)('lose nothing and repeat nothing, seed %i', async (seed) => {
    const ordeal = await Ordeal.begin(seed);
    await ordeal.run(200, false);
    await ordeal.end(50);
  });

  let changes = 0;
  it.each(seeds)('nor while members come and go, seed %i', async (seed) => {
    const ordeal = await Ordeal.begin(1000 + seed);
    await ordeal.run(300, true);
    await ordeal.end(30);
    changes += ordeal.changes;
  });

  afterAll(() => expect(changes).toBeGreaterThan(seeds.length));
});
