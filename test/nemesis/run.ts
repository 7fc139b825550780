import { eventually, launchCluster, type ProcessCluster, within } from '@conclave/testkit';
import { judge, keepWords } from './judge.ts';
import type { Measurement, Prepared, Scenario } from './scenario.ts';
import { Workload } from './workload.ts';

export interface RunOptions {
  readonly kind: 'conclave' | 'etcd';
  readonly rounds: number;
  readonly heartbeatMs: number;
  readonly electionMs: number;
}

export interface Report {
  readonly scenario: string;
  readonly seconds: number;
  /** Empty: it passed. */
  readonly problems: readonly string[];
  readonly notes: readonly string[];
  /** Answered calls before the fault, from then to the end, and calls without an answer or with a refusal. */
  readonly before: number;
  readonly after: number;
  readonly failed: number;
}

/** A run that did less than this before its fault says nothing. */
const callsBeforeMin = 300;
const successBeforeMin = 0.8;
const changesAfter = 150;
const scenarioMsMax = 30 * 60_000;

/** One scenario on a cluster of its own, from the first load to the judgement over what was seen. */
export async function runScenario(scenario: Scenario, options: RunOptions): Promise<Report> {
  const startedAt = performance.now();
  const notes: string[] = [];
  const problems: string[] = [];
  const prepared: Prepared = scenario.prepare?.() ?? {};
  const workload = new Workload(scenario.workload);
  let before = 0;
  try {
    const { kind, heartbeatMs, electionMs } = options;
    await using cluster = await launchCluster({ kind, size: scenario.size, heartbeatMs, electionMs, ...prepared.cluster });
    try {
      await workload.start(cluster.endpoints);
      await warmUp(workload);
      before = workload.tally.ok;
      const stage = {
        cluster,
        workload,
        electionMs,
        rounds: options.rounds,
        lasts: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
        note: (text: string) => notes.push(text),
      };
      await within(`scenario ${scenario.name}`, scenario.run(stage, prepared), scenarioMsMax);
      await recovered(workload, cluster, electionMs);
      const { history, settledRevision } = await workload.finish();
      problems.push(...(await judge({ name: scenario.name, cluster, history, settledRevision, mayEnd: scenario.mayEnd })));
    } catch (error) {
      problems.push(shownError(error));
    } finally {
      if (problems.length > 0) problems.push(keepWords(scenario.name, cluster));
      await workload.abandon();
    }
  } catch (error) {
    problems.push(shownError(error));
  } finally {
    prepared[Symbol.dispose]?.();
  }
  const { ok, failed } = workload.tally;
  return { scenario: scenario.name, seconds: (performance.now() - startedAt) / 1000, problems, notes, before, after: ok - before, failed };
}

export async function runMeasurement(measurement: Measurement, options: Omit<RunOptions, 'kind' | 'rounds'>): Promise<Report> {
  const startedAt = performance.now();
  const report = await measurement.measure(options).catch((error: unknown) => ({ problems: [shownError(error)], notes: [] }));
  return { scenario: measurement.name, seconds: (performance.now() - startedAt) / 1000, ...report, before: 0, after: 0, failed: 0 };
}

export async function warmUp(workload: Workload): Promise<void> {
  await eventually(`${callsBeforeMin} calls are answered before the fault`, () => workload.tally.ok >= callsBeforeMin, 30_000);
  const { ok, failed } = workload.tally;
  if (ok / (ok + failed) < successBeforeMin) throw new Error(`invalid: of ${ok + failed} calls before the fault ${failed} failed`);
}

/** After a fault the cluster must serve through every member within ten election timeouts. */
export async function recovered(workload: Workload, cluster: ProcessCluster, electionMs: number): Promise<void> {
  await workload.changesThrough(cluster.endpoints, 10 * electionMs);
  await workload.changes(changesAfter);
}

export function shownError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : ` (${shownError(error.cause)})`;
  return `${(error.stack ?? error.message).split('\n').slice(0, 4).join('\n')}${cause}`;
}
