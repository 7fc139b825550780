/** Whole clusters in virtual time, under faults drawn from a seed, watched by what Raft promises. */

import type { ConfChange, Entry, InstallSnapshot, MemberId, PeerMessage, Ready } from '../src/types.ts';
import { Host, type HostConfig, type HostListener, newDisk } from './host.ts';
import { entryText, messageText } from './print.ts';
import { mulberry32, Timeline } from './timeline.ts';
import { Witness } from './witness.ts';

/** Probabilities, for each opportunity, and durations in units of time. A tick is ten units. */
export interface Faults {
  readonly loss: number;
  readonly repeat: number;
  readonly maxDelay: number;
  readonly maxFlush: number;
  readonly maxApply: number;
  /** Of each tick of each member. */
  readonly crash: number;
  readonly pause: number;
  readonly partition: number;
  /** Of each entry, where it is applied first, which is at a leader that has just answered somebody. */
  readonly ambush: number;
  readonly lostReport: number;
  readonly confChange: number;
  readonly transfer: number;
  readonly compact: number;
  readonly propose: number;
}

export interface ClusterOptions {
  readonly seed: number;
  readonly faults: Faults;
  readonly config: Omit<HostConfig, 'id' | 'electionTimeoutJitter'>;
  readonly voters: number;
  /** Members that run and are in no configuration yet. */
  readonly spares: number;
  /** A planted fault of the host: to show that it is found. */
  readonly plant?: (host: Host) => void;
  /** Told of all that happens. */
  readonly trace?: (line: string) => void;
}

const noFaults: Faults = {
  loss: 0,
  repeat: 0,
  maxDelay: 2,
  maxFlush: 2,
  maxApply: 2,
  crash: 0,
  pause: 0,
  partition: 0,
  ambush: 0,
  lostReport: 0,
  confChange: 0,
  transfer: 0,
  compact: 0.1,
  propose: 0.2,
};
const tickUnits = 10;

interface Node {
  readonly host: Host;
  isUp: boolean;
  /** What happens to it waits while it is paused. */
  pausedUntil: number;
  /** Lives: an event of an earlier one does not reach it. */
  life: number;
  /** Its disk takes so many times longer than others'. */
  readonly diskFactor: number;
  isFlushing: boolean;
  isApplying: boolean;
  /** Members that are being brought a snapshot. */
  readonly transfers: Set<MemberId>;
}

export class Cluster implements HostListener {
  readonly witness: Witness = new Witness();
  readonly nodes: Map<MemberId, Node> = new Map();
  readonly #options: ClusterOptions;
  readonly #random: () => number;
  #faults: Faults;
  /** Pairs "from to" that do not reach each other. */
  readonly #cut: Set<string> = new Set();
  readonly #timeline: Timeline = new Timeline();
  #proposals = 0;
  #questions = 0;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.#faults = options.faults;
    this.#random = mulberry32(options.seed);
    const ids = Array.from({ length: options.voters + options.spares }, (_, at) => BigInt(at + 1));
    const founders = ids.slice(0, options.voters);
    for (const id of ids) this.#add(id, founders.includes(id) ? founders : []);
  }

  #add(id: MemberId, founders: readonly MemberId[]): void {
    const { config } = this.#options;
    const maxEntriesPerAppendBytes = this.#below(config.maxEntriesPerAppendBytes);
    const host = new Host({ ...config, id, maxEntriesPerAppendBytes, electionTimeoutJitter: this.#random }, newDisk(founders), this);
    const node: Node = {
      host,
      isUp: false,
      pausedUntil: 0,
      life: 0,
      diskFactor: this.#chance(0.3) ? 10 : 1,
      isFlushing: false,
      isApplying: false,
      transfers: new Set(),
    };
    this.nodes.set(id, node);
    this.#options.plant?.(host);
    this.#start(node);
    this.#tickLater(node);
  }

  // ---- time ----

  /** Lets this much time pass, in ticks, or until the condition holds. @returns whether it does. */
  run(ticks: number, until: () => boolean = () => false): boolean {
    return this.#timeline.run(this.#now + ticks * tickUnits, until);
  }

  get #now(): number {
    return this.#timeline.now;
  }

  #later(delay: number, act: () => void): void {
    this.#timeline.later(delay, act);
  }

  #trace(line: () => string): void {
    this.#options.trace?.(`${this.#now}: ${line()}`);
  }

  #below(bound: number): number {
    return 1 + Math.floor(this.#random() * bound);
  }
  #chance(probability: number): boolean {
    return probability > 0 && this.#random() < probability;
  }
  #pick<T>(list: readonly T[]): T | undefined {
    return list[Math.floor(this.#random() * list.length)];
  }

  /** Something happens to a member, in the life it is in now. If it is paused by then, afterwards. */
  #laterAt(node: Node, delay: number, act: () => void): void {
    const { life } = node;
    const happen = (): void => {
      if (node.life !== life || !node.isUp) return;
      if (node.pausedUntil > this.#now) {
        this.#later(node.pausedUntil - this.#now, happen);
        return;
      }
      act();
      this.#pump(node);
      if (node.isUp && this.#chance(this.#faults.crash / 5)) this.#crash(node);
    };
    this.#later(delay, happen);
  }

  // ---- members ----

  #start(node: Node): void {
    node.host.start();
    this.#trace(() => `${node.host.id} starts`);
    node.isUp = true;
    node.life += 1;
    node.isFlushing = false;
    node.isApplying = false;
    node.transfers.clear();
    this.#pump(node);
  }

  /** SIGSTOP. What a client wants is the first thing it sees afterwards. */
  #pause(node: Node): void {
    const ticks = this.#below(50);
    node.pausedUntil = this.#now + ticks * tickUnits;
    this.#trace(() => `${node.host.id} is paused for ${ticks} ticks`);
    this.#laterAt(node, ticks * tickUnits, () => this.#read(node.host));
  }

  #crash(node: Node): void {
    const { appends } = node.host;
    const kept = this.#chance(0.5) ? 0 : Math.floor(this.#random() * (appends.length + 1));
    node.host.crash(kept, this.#chance(0.5) ? 0 : this.#random());
    node.isUp = false;
    node.life += 1;
    this.#trace(() => `${node.host.id} crashes`);
    this.#later(this.#below((this.#chance(0.5) ? 2 : 40) * tickUnits), () => {
      if (!node.isUp && this.nodes.has(node.host.id)) this.#start(node);
    });
  }

  #tickLater(node: Node): void {
    this.#later(tickUnits, () => {
      if (this.nodes.get(node.host.id) === node) this.#tickLater(node);
      if (!node.isUp || node.pausedUntil > this.#now) return;
      node.host.raft.tick();
      this.#pump(node);
      this.#chaos(node);
    });
  }

  #pump(node: Node): void {
    const { host } = node;
    while (node.isUp && host.raft.hasReady()) this.#handle(node, host.ready());
  }

  #handle(node: Node, { append, apply, readStates, snapshotsFor, softState }: Ready): void {
    const { host } = node;
    if (append) this.witness.appended(append.entries, host.terms);
    if (softState) this.#trace(() => `${host.id} is ${softState.role} in term ${softState.term}, leader ${softState.leader}`);
    if (softState?.role === 'leader') this.witness.leads(host);
    if (append && !node.isFlushing) this.#flushLater(node);
    if (apply && !node.isApplying) this.#applyLater(node);
    for (const { context, index } of readStates) this.witness.answered(host, context, index);
    for (const member of snapshotsFor) this.#bringSnapshot(node, member);
  }

  /** One flush for all that was appended during the last. */
  #flushLater(node: Node): void {
    const { host } = node;
    const count = host.appends.length;
    node.isFlushing = true;
    this.#laterAt(node, this.#below(this.#faults.maxFlush * node.diskFactor), () => {
      for (let at = 0; at < count; at++) host.flush();
      node.isFlushing = false;
      if (host.appends.length > 0) this.#flushLater(node);
    });
  }

  #applyLater(node: Node): void {
    const { host } = node;
    node.isApplying = true;
    this.#laterAt(node, this.#below(this.#faults.maxApply), () => {
      host.apply();
      node.isApplying = false;
      if (host.applies.length > 0) this.#applyLater(node);
    });
  }

  // ---- what clients and operators do, and what goes wrong ----

  #chaos(node: Node): void {
    const faults = this.#faults;
    if (this.#chance(faults.propose)) this.propose(node.host);
    if (this.#chance(faults.propose)) this.#read(node.host);
    if (this.#chance(0.3)) node.host.save();
    if (this.#chance(faults.compact)) node.host.compact(this.#below(8) - 1, 100);
    if (this.#chance(faults.confChange)) this.#changeConf(node.host);
    if (this.#chance(faults.transfer)) node.host.raft.transferLeadership(this.#pick([...this.nodes.keys()])!);
    if (this.#chance(faults.pause)) this.#pause(node);
    if (this.#chance(faults.partition)) this.#partition();
    this.#pump(node);
    if (this.#chance(faults.crash)) this.#crash(node);
  }

  propose(host: Host): number {
    this.#proposals += 1;
    host.raft.propose(Buffer.from(`p${this.#proposals}`));
    return this.#proposals;
  }

  #read(host: Host): void {
    this.#questions += 1;
    const context = new Uint8Array(new Uint32Array([this.#questions]).buffer);
    const commits = [...this.nodes.values()].filter(({ isUp }) => isUp).map((node) => node.host.raft.commitIndex);
    if (host.raft.readIndex(context)) this.witness.asked(host, context, Math.max(...commits));
  }

  #changeConf(host: Host): void {
    const { voters, learners } = host.raft.confState;
    const outside = [...this.nodes.keys()].filter((id) => !this.witness.isRemoved(id) && !voters.includes(id) && !learners.includes(id));
    const changes: [ConfChange['type'], readonly MemberId[]][] = [
      ['addLearner', outside],
      ['addVoter', [...outside, ...learners, ...learners]],
      ['remove', voters.length > 1 ? [...voters, ...learners] : learners],
    ];
    const [type, members] = this.#pick(changes)!;
    const member = this.#pick(members);
    if (member !== undefined) host.raft.proposeConfChange({ type, member, context: new Uint8Array(0) });
  }

  /** The worst moment for a leader to go. */
  #ambush(node: Node): void {
    const others = [...this.nodes.values()].filter((other) => other !== node && other.isUp);
    const what = this.#below(5);
    if (what === 1) this.#pause(node);
    if (what === 2 || what === 3) this.#partition(node.host.id);
    // Who knows of it is cut off, and of the others some forget what they can.
    if (what === 3) for (const other of others) if (this.#chance(0.5)) this.#crash(other);
    if (what === 4) this.#laterAt(node, 1, () => this.#crash(node));
    if (what === 5) this.#partition();
  }

  /** Every pair of directions anew: whole, cut in halves, any directed pairs; or one member, in one direction or both. */
  #partition(lonely?: MemberId): void {
    const ids = [...this.nodes.keys()];
    const side = new Map(ids.map((id) => [id, this.#random() < 0.5]));
    const one = lonely ?? this.#pick(ids);
    const ofOne: ((from: MemberId, to: MemberId) => boolean)[] = [
      (from, to) => from === one || to === one,
      (_, to) => to === one,
      (from) => from === one,
    ];
    const ofAll: typeof ofOne = [() => false, () => false, (from, to) => side.get(from) !== side.get(to), () => this.#random() < 0.3];
    const isCut = this.#pick(lonely === undefined ? [...ofOne, ...ofAll] : ofOne)!;
    this.#cut.clear();
    for (const from of ids) for (const to of ids) if (isCut(from, to)) this.#cut.add(`${from} ${to}`);
  }

  /** Everything works from now on, and everybody is back. */
  heal(): void {
    this.#faults = noFaults;
    this.#cut.clear();
    for (const node of this.nodes.values()) {
      node.pausedUntil = 0;
      if (!node.isUp) this.#start(node);
    }
  }

  // ---- network ----

  send(host: Host, message: PeerMessage): void {
    this.#trace(() => messageText(message));
    this.witness.sent(host, message);
    const target = this.nodes.get(message.to);
    if (!target || this.#cut.has(`${host.id} ${message.to}`)) {
      if (this.#chance(0.2)) this.#laterAt(this.nodes.get(host.id)!, 1, () => host.raft.step({ type: 'unreachable', member: message.to }));
      return;
    }
    if (this.#chance(this.#faults.loss)) return;
    this.#deliver(target, message);
    while (this.#chance(this.#faults.repeat)) this.#deliver(target, message);
  }

  /** Also to a member that has restarted meanwhile: the network does not know of lives. */
  #deliver(target: Node, message: PeerMessage): void {
    const delay = this.#chance(0.02) ? 30 * tickUnits : this.#faults.maxDelay;
    this.#later(this.#below(delay), () => {
      if (!target.isUp) return;
      this.#laterAt(target, 1, () => target.host.raft.step(message));
    });
  }

  // ---- snapshots ----

  #bringSnapshot(from: Node, member: MemberId): void {
    if (from.transfers.has(member)) return;
    from.transfers.add(member);
    const { host } = from;
    host.save();
    const state = host.disk.machine;
    const { term } = host.raft;
    this.#later(this.#below(20 * tickUnits), () => {
      const target = this.nodes.get(member);
      const hasArrived = target?.isUp && !this.#cut.has(`${host.id} ${member}`) && !this.#chance(this.#faults.loss * 2);
      if (!hasArrived) {
        this.#report(from, member, 'snapshotFailed');
        return;
      }
      this.#laterAt(target, 1, () => {
        const { index, term: stateTerm, confState } = state;
        target.host.disk.received.set(index, state);
        const snapshot: InstallSnapshot['snapshot'] = { index, term: stateTerm, confState };
        target.host.raft.step({ type: 'installSnapshot', from: host.id, to: member, term, snapshot });
        this.#report(from, member, 'snapshotDelivered');
      });
    });
    // A transfer that does not come to an end is given up.
    this.#report(from, member, 'snapshotFailed', 40 * tickUnits);
  }

  #report(from: Node, member: MemberId, type: 'snapshotDelivered' | 'snapshotFailed', delay: number = tickUnits): void {
    const isLost = this.#chance(this.#faults.lostReport);
    this.#laterAt(from, this.#below(delay), () => {
      if (from.transfers.delete(member) && !isLost) from.host.raft.step({ type, member });
    });
  }

  // ---- state machines ----

  applied(host: Host, entry: Entry): void {
    this.#trace(() => `${host.id} applies ${entryText(entry)}`);
    if (!this.witness.applied(host, entry)) return;
    const node = this.nodes.get(host.id);
    if (node && this.#chance(this.#faults.ambush)) this.#ambush(node);
  }

  restored(host: Host): void {
    this.witness.restored(host);
  }

  /** Who has applied a removal may see the member off: it is gone for good, with its disk. */
  changed(host: Host, { type, member }: ConfChange): void {
    if (type !== 'remove' || member === host.id || !this.#chance(0.5)) return;
    this.#later(this.#below(20 * tickUnits), () => {
      const node = this.nodes.get(member);
      if (!node) return;
      this.#trace(() => `${member} is gone`);
      node.isUp = false;
      node.life += 1;
      this.nodes.delete(member);
    });
  }
}
