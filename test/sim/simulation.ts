import { preload } from '@conclave/sdk';
import type { Finding, History } from '@conclave/testkit';
import { Admin } from './admin.ts';
import { SimulatedClient } from './client.ts';
import { Faults } from './faults.ts';
import type { Member } from './member.ts';
import { type Plan, randomOf } from './plan.ts';
import { Verdict } from './verdict.ts';
import { World } from './world.ts';

/** What became of one seed. */
export interface RunResult {
  readonly findings: readonly Finding[];
  /** Of everything that happened, in its order. */
  readonly traceHash: string;
  readonly events: number;
  readonly simulatedMs: number;
  readonly operations: number;
  readonly answered: number;
  readonly summary: string;
}

export interface RunOptions {
  /** Shows every log line of every member. */
  readonly isVerbose?: boolean;
  /** Given what the clients recorded, for looking at a failure. */
  readonly onHistory?: (history: History) => void;
}

/** Runs what the plan says: a cluster and its clients under faults, then healed, then judged. */
export async function simulate(plan: Plan, options: RunOptions = {}): Promise<RunResult> {
  await preload();
  return new Simulation(plan, options).run();
}

/** How long the healed cluster may take until every member of the core serves: elections, reconnecting and catching up. */
const recoveryMs = 20_000;
/** Packets are lost from the beginning on: a member whose publication was lost, maybe more than once, says it again after a request's timeout. */
const startMs = 60_000;
/** What is still under way when the clients stop must come to its end. */
const drainMs = 30_000;

/** Watches that had to begin anew are caught up after this time, and no lease runs out unseen behind it. */
const settlingMs = 3_000;

class Simulation {
  readonly #plan: Plan;
  readonly #world: World;
  readonly #clients: readonly SimulatedClient[];
  readonly #admin: Admin;
  readonly #faults: Faults;
  readonly #onHistory: RunOptions['onHistory'];
  /** Members that are still to show that they serve, and why they did not so far. */
  readonly #unserved = new Map<Member, string>();
  #outside: readonly Member[] = [];

  constructor(plan: Plan, options: RunOptions) {
    this.#plan = plan;
    this.#onHistory = options.onHistory;
    this.#world = new World(plan, options.isVerbose ?? false);
    this.#clients = Array.from({ length: plan.clients }, (_, at) => new SimulatedClient(at + 1, this.#world));
    this.#admin = new Admin(this.#world);
    this.#faults = new Faults(this.#world, this.#clients, this.#admin);
  }

  async run(): Promise<RunResult> {
    const { time, findings, trace } = this.#world;
    const verdict = new Verdict(this.#world, this.#admin);
    try {
      for (const member of this.#world.members) member.start();
      for (const client of this.#clients) client.start();
      if (this.#losesHistory) for (const member of this.#world.members) this.#admin.observe(member);
      await this.#phase('start', () => this.#servesAt(this.#world.members), startMs);
      this.#faults.start();
      void verdict.sampleHashes();
      if (this.#plan.quotas.length > 0) void this.#admin.keepSpace();
      await this.#faultyPhase();
      this.#heal();
      const core = this.#world.members.filter((member) => !this.#outside.includes(member));
      await this.#phase('recovery', () => this.#servesAt(core), recoveryMs);
      await time.advance(2_000);
      for (const client of this.#clients) client.stop();
      if (!(await this.#until(() => this.#clients.every((client) => client.isIdle), drainMs))) {
        findings.add(
          'stuck',
          'requests did not end',
          this.#clients.filter((client) => !client.isIdle).map((client) => client.underWay),
        );
      }
      for (const member of this.#outside) member.start();
      await this.#phase('everybody', () => this.#servesAt(this.#world.members), recoveryMs);
      if (findings.list.length === 0) await this.#drive(verdict.compareMembers());
      await time.advance(settlingMs);
      for (const client of this.#clients) client.closeWatches();
      for (const client of this.#clients) await client.close();
      await this.#stop();
      await this.#drive(verdict.compareLogs());
    } catch (error) {
      if (findings.list.length === 0) findings.add('simulation', error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    const history = this.#world.recorder.finish(time.monotonic());
    this.#onHistory?.(history);
    if (findings.list.length === 0) verdict.judge(history);
    const answered = history.operations.filter(({ outcome }) => outcome.status === 'ok').length;
    return {
      findings: findings.list,
      traceHash: trace.hash,
      events: trace.events,
      simulatedMs: time.monotonic(),
      operations: history.operations.length,
      answered,
      summary: this.#summary(),
    };
  }

  get #losesHistory(): boolean {
    const { workload, settings, quotas } = this.#plan;
    return workload.compactionShare > 0 || settings.autoCompactionRetention > 0 || quotas.length > 0;
  }

  /** A run that has failed goes on a little, for what the failure leads to, and no longer. */
  async #faultyPhase(): Promise<void> {
    const { time, findings } = this.#world;
    const end = time.monotonic() + this.#plan.faultyMs;
    while (time.monotonic() < end) {
      await time.advance(Math.min(1_000, end - time.monotonic()));
      if (findings.list.length > 0) throw new Error('the run ends with its first finding');
    }
  }

  /** Faults end. Members outside a quorum may stay broken: those inside must do without them. */
  #heal(): void {
    const random = randomOf(this.#plan.seed, 'heal');
    const { members } = this.#world;
    this.#faults.heal();
    const outsideMost = Math.floor((members.length - 1) / 2);
    const outsideCount = this.#faults.replacement?.isUnderWay === true ? 0 : random.below(outsideMost + 1);
    const shuffled = members.map((member) => ({ member, by: random.next() })).toSorted((a, b) => a.by - b.by);
    this.#outside = shuffled.slice(0, outsideCount).map(({ member }) => member);
    for (const member of this.#outside) {
      member.retire();
      member.crash('power', 0);
    }
  }

  /** Every one of them takes a write, and then a read that sees it. */
  async #servesAt(members: readonly Member[]): Promise<void> {
    for (const member of members) this.#unserved.set(member, 'not asked');
    await this.#untilReplaced();
    await Promise.all(members.map((member) => this.#serves(member)));
  }

  async #serves(member: Member): Promise<void> {
    for (;;) {
      const value = `${this.#world.nextValue()}`;
      const key = `probe/${member.name}`;
      const written =
        member.server === undefined ? { error: member.isUp ? 'starting' : 'down' } : await this.#admin.put(member, key, value);
      const read = 'ok' in written ? await this.#admin.get(member, key) : written;
      if ('ok' in read) {
        const seen = read.ok.kvs[0]?.value;
        if (seen === undefined || Buffer.from(seen).toString() !== value)
          this.#world.findings.add('stale-read', `${member.name} does not show what was just written`);
        this.#unserved.delete(member);
        return;
      }
      this.#unserved.set(member, read.error);
      await this.#world.sleep(100);
    }
  }

  async #untilReplaced(): Promise<void> {
    while (this.#faults.replacement?.isUnderWay === true) await this.#world.sleep(100);
  }

  /** Runs until the promise is fulfilled; that it is not within the time is a finding. */
  async #phase(name: string, work: () => Promise<void>, withinMs: number): Promise<void> {
    const { findings, members, time } = this.#world;
    let isDone = false;
    void work().then(() => {
      isDone = true;
    });
    const allowed = withinMs + (this.#faults.replacement?.isUnderWay === true ? 60_000 : 0);
    if (await this.#until(() => isDone, allowed)) return;
    const shown = members.map(
      (member) => `${member.name}: ${this.#unserved.get(member) ?? 'serves'}${member.server?.isLeader === true ? ', leads' : ''}`,
    );
    if (this.#faults.replacement?.isUnderWay === true) shown.push(`a replacement is at: ${this.#faults.replacement.step}`);
    findings.add('liveness', `${name}: not every member served within ${allowed} ms`, shown);
    throw new Error(`no way on after ${name} at ${time.monotonic()} ms`);
  }

  async #until(condition: () => boolean, withinMs: number): Promise<boolean> {
    const { time } = this.#world;
    const end = time.monotonic() + withinMs;
    while (!condition() && time.monotonic() < end) await time.advance(10);
    return condition();
  }

  #drive<T>(promise: Promise<T>): Promise<T> {
    return this.#world.time.run(promise, { deadlineMs: 60_000 });
  }

  async #stop(): Promise<void> {
    const { members } = this.#world;
    const stopped = Promise.all(members.map((member) => member.stop()));
    await this.#drive(stopped);
  }

  #summary(): string {
    const faults = [...this.#faults.counts].map(([kind, count]) => `${kind} ${count}`).join(', ');
    return `${this.#plan.members} members, ${this.#plan.clients} clients, ${this.#world.raft.terms} terms; ${faults}`;
  }
}
