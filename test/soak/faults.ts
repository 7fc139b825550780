import { type ClusterMember, type ProcessCluster, ProcessFaults } from '@conclave/testkit';
import { leaderAndRest, linksOf } from '../nemesis/scenario.ts';

/** Faults of all kinds, one after the other, on a cluster of three of which two members never end: memory is judged by them. */
export class MixedFaults implements Disposable {
  readonly #disks = new Map<string, ProcessFaults>();
  readonly #counts = new Map<string, number>();
  readonly #electionMs: number;

  constructor(electionMs: number) {
    this.#electionMs = electionMs;
  }

  /** For a member that is about to be started. */
  environment(name: string): Readonly<Record<string, string>> {
    const faults = this.#disks.get(name) ?? new ProcessFaults();
    this.#disks.set(name, faults);
    return faults.environment;
  }

  /** How often what has happened. */
  get counts(): string {
    return [...this.#counts].map(([name, count]) => `${count} ${name}`).join(', ');
  }

  /** One of them, begun and ended. */
  async strike(cluster: ProcessCluster): Promise<void> {
    const kinds = Object.entries(this.#kinds);
    const [name, strike] = kinds[Math.floor(Math.random() * kinds.length)] as (typeof kinds)[number];
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    await strike(cluster);
  }

  [Symbol.dispose](): void {
    for (const faults of this.#disks.values()) faults[Symbol.dispose]();
  }

  readonly #kinds: Readonly<Record<string, (cluster: ProcessCluster) => Promise<void>>> = {
    kills: async (cluster) => {
      const mortal = cluster.members[2] as ClusterMember;
      await mortal.kill();
      await this.#lasts(1.5);
      await mortal.restart();
    },
    stops: async (cluster) => {
      const mortal = cluster.members[2] as ClusterMember;
      await mortal.stop();
      await mortal.restart();
    },
    pauses: async (cluster) => {
      const member = cluster.members[Math.floor(Math.random() * cluster.members.length)] as ClusterMember;
      member.pause();
      await this.#lasts(0.2 + 2 * Math.random());
      member.resume();
    },
    partitions: async (cluster) => {
      const { leader, rest } = await leaderAndRest(cluster);
      const alone = Math.random() < 0.5 ? leader : (rest[0] as ClusterMember);
      const others = cluster.names.filter((name) => name !== alone.name);
      linksOf(cluster).partition([alone.name], others, Math.random() < 0.5 ? 'held' : 'cut');
      await this.#lasts(1 + 3 * Math.random());
      linksOf(cluster).heal({ isLost: Math.random() < 0.5 });
    },
    'one-way partitions': async (cluster) => {
      const { leader, rest } = await leaderAndRest(cluster);
      const others = rest.map(({ name }) => name);
      if (Math.random() < 0.5) linksOf(cluster).block([leader.name], others);
      else linksOf(cluster).block(others, [leader.name]);
      await this.#lasts(1 + 3 * Math.random());
      linksOf(cluster).heal({ isLost: Math.random() < 0.5 });
    },
    'slow links': async (cluster) => {
      for (const from of cluster.names) for (const to of cluster.names) linksOf(cluster).setRule(from, to, { delayMs: 20, jitterMs: 60 });
      await this.#lasts(3);
      linksOf(cluster).heal();
    },
    'slow disks': async (cluster) => {
      const { name } = cluster.members[Math.floor(Math.random() * cluster.members.length)] as ClusterMember;
      this.#disks.get(name)?.set([{ on: 'sync', path: '/', action: 'delay', ms: 300 * Math.random() }]);
      await this.#lasts(3);
      this.#disks.get(name)?.clear();
    },
    'clock jumps': async (cluster) => {
      const { name } = cluster.members[Math.floor(Math.random() * cluster.members.length)] as ClusterMember;
      this.#disks.get(name)?.set([{ on: 'clock', offsetMs: (Math.random() - 0.5) * 172_800_000 }]);
      await this.#lasts(2);
      this.#disks.get(name)?.clear();
    },
    elections: async (cluster) => {
      const { leader, rest } = await leaderAndRest(cluster);
      await cluster.moveLeader(leader, rest[0] as ClusterMember);
    },
  };

  /** In election timeouts. */
  #lasts(elections: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, elections * this.#electionMs));
  }
}
