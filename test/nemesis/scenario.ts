import type { ClusterMember, ClusterOptions, ProcessCluster } from '@conclave/testkit';
import type { Workload, WorkloadOptions } from './workload.ts';

/** What a scenario does things with. */
export interface Stage {
  readonly cluster: ProcessCluster;
  readonly workload: Workload;
  readonly electionMs: number;
  /** How often the scenario is to do what it does, if it does it more than once. */
  readonly rounds: number;
  /** Lets the load go on under the fault: how long the fault lasts is part of what it is. */
  lasts(ms: number): Promise<void>;
  /** What is worth a line in the report. */
  note(text: string): void;
}

export interface Scenario {
  readonly name: string;
  /** Members at the start. */
  readonly size: number;
  /** Why the stock etcd cannot be put through this; absent: it can. */
  readonly oursOnly?: string;
  /** Default: 1. */
  readonly rounds?: number;
  /** Of a short run. Default: 1. */
  readonly roundsInShort?: number;
  /** Members may end by themselves. */
  readonly mayEnd?: boolean;
  readonly workload?: WorkloadOptions;
  /** Made anew for each run; disposed of after the cluster. */
  prepare?(): Prepared;
  /** Begins under load, ends with everything healed and running. */
  run(stage: Stage, prepared: Prepared): Promise<void>;
}

/** What is measured rather than survived: it makes its own cluster and load, and judges by itself. */
export interface Measurement {
  readonly name: string;
  readonly size: number;
  readonly oursOnly?: string;
  measure(options: { readonly heartbeatMs: number; readonly electionMs: number }): Promise<MeasurementReport>;
}

export interface MeasurementReport {
  readonly problems: readonly string[];
  readonly notes: readonly string[];
}

/** What must be there before the cluster is. */
export interface Prepared extends Partial<Disposable> {
  readonly cluster?: Pick<ClusterOptions, 'flags' | 'hasLinks' | 'member'>;
}

export async function leaderAndRest(
  cluster: ProcessCluster,
): Promise<{ readonly leader: ClusterMember; readonly rest: readonly ClusterMember[] }> {
  const leader = await cluster.leader();
  return { leader, rest: cluster.members.filter((member) => member !== leader) };
}

export function linksOf({ links }: ProcessCluster): NonNullable<ProcessCluster['links']> {
  if (links === undefined) throw new Error('this cluster was started without links');
  return links;
}

/** Who leads, in which term: unchanged while nothing happened that is a reason for an election. */
export async function reignOf(cluster: ProcessCluster): Promise<{ readonly name: string; readonly term: number }> {
  const leader = await cluster.leader();
  const status = await leader.status(5000);
  return { name: leader.name, term: status?.raftTerm ?? 0 };
}
