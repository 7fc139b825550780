/** Replicas in virtual time: everything around them is taken away or made up, the network between them most of all. */
import type { MemberId } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import type { Logger, Runtime, Timer } from '@conclave/wire';
import type { MembershipChange, ReplicaOptions } from '../src/replica/options.ts';
import type { PeerEvent, PeerFrame, PeerPacket, Peers } from '../src/replica/ports.ts';
import { Replica } from '../src/replica/replica.ts';
import { decodePacket, encodePacket } from '../src/transport/peer-codec.ts';
import { type DiskImage, emptyDisk, foundingDisk, Machine, ReplicaDisk, StateSnapshots } from './replica-disk.ts';

/** What the way from one member to another does. */
export interface LinkFaults {
  readonly isCut: boolean;
  readonly loss: number;
  readonly duplication: number;
  readonly delayMs: readonly [least: number, most: number];
}

const soundLink: LinkFaults = { isCut: false, loss: 0, duplication: 0, delayMs: [1, 1] };

/** The time of one member, whose process may stand still: what falls due meanwhile happens when it goes on, all in one turn. */
class MemberRuntime implements Runtime {
  readonly log: Logger;
  readonly #base: VirtualRuntime;
  #held: (() => void)[] | undefined;

  constructor(base: VirtualRuntime) {
    this.#base = base;
    this.log = base.log;
  }

  pause(): void {
    this.#held ??= [];
  }

  resume(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const work of held) work();
  }

  /** Now, or when the process goes on. */
  run(work: () => void): void {
    if (this.#held === undefined) work();
    else this.#held.push(work);
  }

  monotonic(): number {
    return this.#base.monotonic();
  }
  boot(): number {
    return this.#base.boot();
  }
  wall(): number {
    return this.#base.wall();
  }
  random(): number {
    return this.#base.random();
  }
  timer(delayMs: number, callback: () => void): Timer {
    let isCancelled = false;
    const timer = this.#base.timer(delayMs, () => {
      this.run(() => {
        if (!isCancelled) callback();
      });
    });
    return {
      cancel: () => {
        isCancelled = true;
        timer.cancel();
      },
    };
  }
  endOfTurn(callback: () => void): void {
    this.#base.endOfTurn(() => this.run(callback));
  }
}

export interface ClusterOptions {
  readonly size?: number;
  readonly seed?: number;
  readonly limits?: ReplicaOptions<string>['limits'];
}

/** A running member. */
export interface Member {
  readonly id: MemberId;
  readonly runtime: MemberRuntime;
  readonly replica: Replica<string>;
  readonly machine: Machine;
  readonly disk: ReplicaDisk;
  readonly snapshots: StateSnapshots;
  readonly failures: Error[];
  /** What its callbacks told, in order. */
  readonly told: string[];
}

export class ReplicaCluster {
  readonly runtime: VirtualRuntime;
  /** Those that run, by id. */
  readonly members: Map<MemberId, Member> = new Map();
  /** Why members failed, those that run no more included. */
  readonly failures: Error[] = [];
  /** Errors, and warnings, that members logged. */
  readonly errors: string[] = [];
  readonly warnings: string[] = [];
  /** Looks at every packet that is sent. */
  onPacket: (packet: PeerPacket) => void = () => {};
  /** Drops single frames: false loses it. */
  passes: (frame: PeerFrame, packet: PeerPacket) => boolean = () => true;
  faults: LinkFaults = soundLink;
  readonly #options: ClusterOptions;
  readonly #disks: Map<MemberId, DiskImage> = new Map();
  readonly #links: Map<string, Partial<LinkFaults>> = new Map();
  readonly #doors: Map<MemberId, (event: PeerEvent) => void> = new Map();

  constructor(options: ClusterOptions = {}) {
    const { size = 3, seed = 1 } = options;
    this.#options = options;
    const error: Logger['error'] = (_fields, sentence) => this.errors.push(sentence);
    const warn: Logger['warn'] = (_fields, sentence) => this.warnings.push(sentence);
    this.runtime = new VirtualRuntime({ seed, sharesTurns: seed % 2 === 0, log: { debug() {}, info() {}, warn, error } });
    const founders = Array.from({ length: size }, (_, at) => BigInt(at + 1));
    for (const id of founders) this.#disks.set(id, foundingDisk(founders));
  }

  /** Starts all founders, and waits until they follow a leader. */
  static async started(options: ClusterOptions = {}): Promise<ReplicaCluster> {
    const cluster = new ReplicaCluster(options);
    for (const id of cluster.#disks.keys()) cluster.start(id);
    await cluster.settle();
    return cluster;
  }

  // ---- members ----

  /** A new one begins with nothing: it learns from its leader what the cluster is. */
  start(id: MemberId): Member {
    const runtime = new MemberRuntime(this.runtime);
    const disk = new ReplicaDisk(runtime, this.#disks.get(id) ?? emptyDisk);
    const machine = new Machine(disk);
    const snapshots = new StateSnapshots(runtime, disk, machine);
    const failures: Error[] = [];
    const told: string[] = [];
    const replica = new Replica<string>({
      runtime,
      id,
      log: disk,
      recovered: disk.recovered,
      stateMachine: machine,
      leases: machine,
      peers: this.#peersOf(id),
      snapshots,
      memory: disk,
      isRemoved: (member) => machine.state.removed.includes(member),
      onRestored: () => told.push(`restored ${machine.appliedIndex}`),
      onMembership: () => told.push('membership'),
      onRemoved: () => told.push('removed'),
      fatal: (cause) => {
        failures.push(cause);
        this.failures.push(cause);
        throw cause;
      },
      ...(this.#options.limits && { limits: this.#options.limits }),
    });
    const member = { id, runtime, replica, machine, disk, snapshots, failures, told };
    this.members.set(id, member);
    replica.start();
    return member;
  }

  member(id: MemberId): Member {
    const member = this.members.get(id);
    if (member === undefined) throw new Error(`member ${id} does not run`);
    return member;
  }

  /** The power goes. @returns what is left */
  crash(id: MemberId): DiskImage {
    const { replica, disk } = this.member(id);
    disk.cutPower();
    replica.halt();
    this.members.delete(id);
    this.#doors.delete(id);
    this.#disks.set(id, disk.image);
    return disk.image;
  }

  /** As an operator would stop it. */
  async stop(id: MemberId): Promise<void> {
    const { replica, disk } = this.member(id);
    await this.runtime.run(replica.stop());
    this.members.delete(id);
    this.#doors.delete(id);
    this.#disks.set(id, disk.image);
  }

  /** Somebody puts an old image of its disk back. */
  putBack(id: MemberId, image: DiskImage): void {
    this.#disks.set(id, image);
  }

  /** The one that leads all others that run and can be reached, when there is one. */
  async leader(): Promise<Member> {
    const leading = (): Member | undefined => {
      const leaders = [...this.members.values()].filter(({ replica }) => replica.isLeader);
      return leaders.sort((a, b) => b.replica.term - a.replica.term)[0];
    };
    await this.runtime.runUntil(() => leading() !== undefined);
    return leading()!;
  }

  async follower(): Promise<Member> {
    const leader = await this.leader();
    return [...this.members.values()].find(({ id, replica }) => id !== leader.id && replica.role === 'follower')!;
  }

  put(id: MemberId, name: string): Promise<string> {
    return this.member(id).replica.propose('put', new Uint8Array(Buffer.from(name)));
  }

  change(id: MemberId, change: MembershipChange): Promise<string> {
    const kind = change.type === 'remove' ? 'memberRemove' : change.type === 'update' ? 'memberUpdate' : 'memberAdd';
    return this.member(id).replica.proposeMembership(change, kind, new Uint8Array(0));
  }

  /** Waits until all that run follow one leader and have applied the same, everything that is committed. */
  async settle(): Promise<void> {
    await this.runtime.runUntil(() => {
      const replicas = [...this.members.values()].map(({ replica }) => replica);
      const leader = replicas.find(({ isLeader }) => isLeader);
      if (leader === undefined || this.member(leader.id).machine.appliedTerm !== leader.term) return false;
      return replicas.every((replica) => replica.leader === leader.id && replica.appliedIndex === leader.committedIndex);
    });
  }

  // ---- the network ----

  /** What the way between two does, in this direction only. */
  link(from: MemberId, to: MemberId, faults: Partial<LinkFaults>): void {
    this.#links.set(`${from}>${to}`, faults);
  }

  /** Cuts a member off from all others. */
  isolate(id: MemberId, isCut = true): void {
    for (const other of this.#disks.keys()) {
      this.link(id, other, { isCut });
      this.link(other, id, { isCut });
    }
  }

  heal(): void {
    this.#links.clear();
    this.faults = soundLink;
  }

  #peersOf(id: MemberId): Peers {
    return {
      send: (packet) => this.#carry(packet),
      listen: (listener) => this.#doors.set(id, listener),
      setMembers: () => {},
      close: () => Promise.resolve(),
    };
  }

  #carry(packet: PeerPacket): void {
    this.onPacket(packet);
    const frames = packet.frames.filter((frame) => this.passes(frame, packet));
    const { from, to } = packet;
    const { isCut, loss, duplication, delayMs } = { ...this.faults, ...this.#links.get(`${from}>${to}`) };
    if (frames.length < packet.frames.length && frames.length === 0) return;
    if (isCut || this.runtime.random() < loss) return;
    const bytes = encodePacket({ ...packet, frames });
    const [least, most] = delayMs;
    for (let copies = this.runtime.random() < duplication ? 2 : 1; copies > 0; copies--) {
      const delay = least + Math.floor(this.runtime.random() * (most - least + 1));
      this.runtime.timer(delay, () => {
        const door = this.#doors.get(to);
        this.members.get(to)?.runtime.run(() => door?.({ kind: 'packet', packet: decodePacket(bytes) }));
      });
    }
  }
}
