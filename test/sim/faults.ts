import { Maintenance } from '@conclave/protocol';
import type { Random } from '@conclave/testing';
import type { Admin } from './admin.ts';
import type { SimulatedClient } from './client.ts';
import type { Member } from './member.ts';
import { exponential, type FaultKind, faultKinds, randomOf } from './plan.ts';
import { Replacement } from './replacement.ts';
import type { World } from './world.ts';

/** The troubles of one run: each kind strikes by a process of its own until {@link heal}. */
export class Faults {
  readonly #world: World;
  readonly #clients: readonly SimulatedClient[];
  readonly #admin: Admin;
  readonly #strikes: Readonly<Record<FaultKind, (random: Random) => void>>;
  /** How to undo what is still in force. */
  readonly #undo = new Set<() => void>();
  readonly #counts = new Map<FaultKind, number>();
  #replacement: Replacement | undefined;
  #isHealed = false;

  constructor(world: World, clients: readonly SimulatedClient[], admin: Admin) {
    this.#world = world;
    this.#clients = clients;
    this.#admin = admin;
    this.#strikes = {
      crash: (random) => this.#crash([random.pick(world.members)], random),
      crashMany: (random) => this.#crash(this.#someMembers(random), random),
      restart: (random) => random.pick(world.members).restart(1 + random.below(1_000)),
      pause: (random) => this.#pause(random.pick(world.members).machine, 50 + random.below(random.pick([500, 5_000]))),
      stall: (random) => this.#pause(random.pick(world.members).machine, 5 + random.below(200)),
      partition: (random) => this.#partition(random),
      slowDisk: (random) => this.#slowDisk(random),
      fullDisk: (random) => this.#fullDisk(random),
      diskError: (random) => {
        random.pick(world.members).willFailSync = true;
      },
      clock: (random) => this.#stepClock(random),
      replace: (random) => this.#replace(random),
      transfer: (random) => void this.#transfer(random),
      clientCrash: (random) => random.pick(clients).crash(100 + random.below(3_000)),
      clientPause: (random) => this.#pause(random.pick(clients).machine, 50 + random.below(random.pick([1_000, 8_000]))),
      clientPartition: (random) => this.#partitionClient(random),
    };
  }

  /** How often each kind struck. */
  get counts(): ReadonlyMap<FaultKind, number> {
    return this.#counts;
  }

  get replacement(): Replacement | undefined {
    return this.#replacement;
  }

  start(): void {
    const { plan, time } = this.#world;
    for (const kind of faultKinds) {
      const meanMs = plan.faults[kind];
      if (meanMs === undefined) continue;
      const random = randomOf(plan.seed, `fault ${kind}`);
      const next = (): void => {
        time.timer(exponential(random, meanMs), () => {
          if (this.#isHealed) return;
          this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
          this.#strikes[kind](random);
          next();
        });
      };
      next();
    }
  }

  /** Nothing new strikes, and what is in force ends. */
  heal(): void {
    this.#isHealed = true;
    for (const undo of this.#undo) undo();
    this.#world.calm();
  }

  /** Undoes after a while, or when all is healed. */
  #for(ms: number, undo: () => void): void {
    const once = (): void => {
      if (this.#undo.delete(once)) undo();
    };
    this.#undo.add(once);
    this.#world.time.timer(ms, once);
  }

  #someMembers(random: Random): Member[] {
    const { members } = this.#world;
    return random.chance(0.4) ? [...members] : members.filter(() => random.chance(0.5));
  }

  #crash(members: readonly Member[], random: Random): void {
    const kind = random.chance(0.5) ? 'power' : 'process';
    for (const member of members) member.crash(kind, random.pick([1, 300, 3_000]) + random.below(500));
  }

  #pause(machine: { pause(): void; resume(): void }, ms: number): void {
    machine.pause();
    this.#for(ms, () => machine.resume());
  }

  #partition(random: Random): void {
    const { members } = this.#world;
    const pairs: [Member, Member][] = [];
    const sideOf = new Map(members.map((member) => [member, random.chance(0.5)]));
    const alone = random.pick(members);
    const shape = random.pick(['halves', 'alone', 'one way in', 'one way out', 'pairs', 'ring'] as const);
    for (const [at, from] of members.entries()) {
      for (const [to, other] of members.entries()) {
        if (from === other) continue;
        const isCut = {
          halves: sideOf.get(from) !== sideOf.get(other),
          alone: from === alone || other === alone,
          'one way in': other === alone,
          'one way out': from === alone,
          pairs: random.chance(0.3),
          ring: (to - at + members.length) % members.length !== 1 && (at - to + members.length) % members.length !== 1,
        }[shape];
        if (isCut) pairs.push([from, other]);
      }
    }
    for (const [from, to] of pairs) this.#world.block(from, to);
    this.#for(200 + random.below(random.pick([1_000, 10_000])), () => {
      for (const [from, to] of pairs) this.#world.unblock(from, to);
    });
  }

  #partitionClient(random: Random): void {
    const { calls, members } = this.#world;
    const { machine } = random.pick(this.#clients);
    const cut = members.filter(() => random.chance(0.5));
    if (random.chance(0.3)) {
      for (const member of cut) calls.cut(machine, member.machine);
      return;
    }
    for (const member of cut) calls.partition(machine, member.machine);
    this.#for(200 + random.below(random.pick([1_000, 8_000])), () => {
      for (const member of cut) calls.heal(machine, member.machine);
    });
  }

  #slowDisk(random: Random): void {
    const member = random.pick(this.#world.members);
    member.diskSlowness = random.pick([50, 300, 2_000]);
    this.#for(500 + random.below(8_000), () => {
      member.diskSlowness = 0;
    });
  }

  #fullDisk(random: Random): void {
    const member = random.pick(this.#world.members);
    member.isDiskFull = true;
    this.#for(500 + random.below(8_000), () => {
      member.isDiskFull = false;
    });
  }

  #stepClock(random: Random): void {
    const machines = [...this.#world.members, ...this.#clients].map(({ machine }) => machine);
    random.pick(machines).stepWall(random.pick([-1, 1]) * random.pick([500, 3_600_000, 86_400_000 * 3]));
  }

  #replace(random: Random): void {
    const { members, time } = this.#world;
    if (members.length === 1 || this.#replacement?.isUnderWay === true) return;
    this.#replacement = new Replacement(this.#world, this.#admin, random);
    void this.#replacement.run(random.pick(members), time.monotonic() + 60_000);
  }

  async #transfer(random: Random): Promise<void> {
    const { members } = this.#world;
    const leading = members.find((member) => member.server?.isLeader === true);
    const target = random.pick(members).server;
    if (leading === undefined || target === undefined) return;
    await this.#admin.call(leading, Maintenance.methods.moveLeader, { targetId: target.memberId });
  }
}
