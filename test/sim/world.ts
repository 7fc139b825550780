import { VirtualRuntime } from '@conclave/testing';
import { type LinkState, type Machine, SimulatedCalls, SimulatedPeers } from '@conclave/testing/simulation';
import { HistoryRecorder } from '@conclave/testkit';
import { Findings } from './findings.ts';
import { Member, peerUrlOf } from './member.ts';
import { type Plan, randomOf } from './plan.ts';
import { RaftTrace } from './raft-trace.ts';
import type { Claim } from './requests.ts';
import { Trace } from './trace.ts';

/** Everything one run consists of, but for its clients and its troubles. */
export class World {
  readonly plan: Plan;
  readonly time: VirtualRuntime;
  readonly findings: Findings;
  readonly trace: Trace = new Trace();
  readonly recorder: HistoryRecorder = new HistoryRecorder();
  readonly raft: RaftTrace;
  readonly calls: SimulatedCalls;
  readonly peers: SimulatedPeers;
  readonly members: readonly Member[];
  /** What the SDK said of writes. */
  readonly claims: Claim[] = [];
  /** The highest token that each protected thing has seen. */
  readonly #fences = new Map<string, number>();
  #lastValue = 0;
  /** Ways between members on which nothing passes, and how many troubles are the reason. */
  readonly #blocked = new Map<string, number>();
  readonly #numbers = new Map<string, number>();
  readonly #noisy: LinkState;
  #isNoisy = true;

  constructor(plan: Plan, isVerbose: boolean) {
    this.plan = plan;
    this.#noisy = { ...plan.network, isCut: false };
    this.time = new VirtualRuntime({ seed: plan.seed, sharesTurns: plan.sharesTurns });
    this.findings = new Findings(() => this.time.monotonic(), isVerbose);
    this.raft = new RaftTrace(this.findings);
    const callRandom = randomOf(plan.seed, 'calls');
    this.calls = new SimulatedCalls(this.time, { delayMs: () => callRandom.below(2) });
    this.peers = new SimulatedPeers({
      random: randomOf(plan.seed, 'peers'),
      link: (from, to) => this.#link(from, to),
      onSend: (packet, from) => this.#onSend(packet, from),
      onArrival: (bytes, from, to) =>
        this.trace.bytes(this.numberOf(from.name) * 16 + this.numberOf(to.name), this.time.monotonic(), bytes),
    });
    const names = Array.from({ length: plan.members }, (_, at) => `m${at + 1}`);
    const initialCluster = Object.fromEntries(names.map((name) => [name, [peerUrlOf(name, 0)]]));
    for (const name of names) this.numberOf(name);
    this.members = names.map((name) => new Member(name, this, { initialCluster, state: 'new' }));
  }

  /** Machines in the trace. */
  numberOf(name: string): number {
    let number = this.#numbers.get(name);
    if (number === undefined) {
      number = this.#numbers.size + 1;
      this.#numbers.set(name, number);
    }
    return number;
  }

  member(name: string): Member {
    const member = this.members.find((one) => one.name === name);
    if (member === undefined) throw new Error(`there is no member ${name}`);
    return member;
  }

  /** Nothing passes from one member to the other until as many calls of {@link unblock}. */
  block(from: Member, to: Member): void {
    const way = `${from.name} ${to.name}`;
    this.#blocked.set(way, (this.#blocked.get(way) ?? 0) + 1);
  }

  unblock(from: Member, to: Member): void {
    const way = `${from.name} ${to.name}`;
    this.#blocked.set(way, (this.#blocked.get(way) ?? 0) - 1);
  }

  /** The network between the members is as good as networks get, from now on. */
  calm(): void {
    this.#isNoisy = false;
  }

  /** No two are equal. */
  nextValue(): number {
    this.#lastValue += 1;
    return this.#lastValue;
  }

  /** A write to something that a lock protects and that looks at tokens: it takes none that is lower than one it has seen. */
  fencedWrite(name: string, token: number): void {
    if (token < (this.#fences.get(name) ?? 0)) return;
    this.#fences.set(name, token);
    this.recorder.fencedWrite({ name, token, time: this.time.monotonic() });
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.time.timer(ms, resolve));
  }

  #link(from: Machine, to: Machine): LinkState {
    const isCut = (this.#blocked.get(`${from.name} ${to.name}`) ?? 0) > 0;
    if (isCut) return cut;
    return this.#isNoisy ? this.#noisy : fine;
  }

  #onSend(packet: Parameters<RaftTrace['packet']>[0], from: Machine): void {
    const { failedAt } = this.member(from.name);
    if (failedAt !== undefined) this.findings.add('spoke-after-failing', `${from.name} failed at ${failedAt} ms, and still sends packets`);
    this.raft.packet(packet, from.name);
  }
}

const fine: LinkState = { isCut: false, loss: 0, duplication: 0, delayMs: [1, 1] };
const cut: LinkState = { ...fine, isCut: true };
