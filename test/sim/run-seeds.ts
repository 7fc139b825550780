import { drawPlan, type PlanLimits } from './plan.ts';
import { type RunResult, simulate } from './simulation.ts';

export interface SeedsOptions extends PlanLimits {
  readonly from: number;
  readonly count: number;
  /** Every so many seeds one runs twice, and must leave the same trace. Default 100. */
  readonly repeatEvery?: number;
  /** Go on after a seed that failed. Default: false. */
  readonly keepGoing?: boolean;
  readonly onSeed?: (outcome: SeedOutcome) => void;
}

export interface SeedOutcome {
  readonly seed: number;
  readonly result: RunResult;
  readonly cpuMs: number;
}

export interface SeedsResult {
  readonly seeds: number;
  readonly failed: readonly SeedOutcome[];
  readonly simulatedMs: number;
  /** Of this process, while it simulated. */
  readonly cpuMs: number;
}

/** Runs seeds one after the other in this process. */
export async function runSeeds(options: SeedsOptions): Promise<SeedsResult> {
  const { from, count, repeatEvery = 100, keepGoing = false, onSeed } = options;
  // Errors are a matter of course here, and their stacks cost more than all else about them. One seed run alone shows them whole.
  Error.stackTraceLimit = 0;
  const failed: SeedOutcome[] = [];
  let [seeds, simulatedMs, cpuMs] = [0, 0, 0];
  for (let seed = from; seed < from + count; seed++) {
    const outcome = await runSeed(seed, options, seed % repeatEvery === 0);
    seeds += 1;
    simulatedMs += outcome.result.simulatedMs;
    cpuMs += outcome.cpuMs;
    onSeed?.(outcome);
    if (outcome.result.findings.length === 0) continue;
    failed.push(outcome);
    if (!keepGoing) break;
  }
  return { seeds, failed, simulatedMs, cpuMs };
}

/** Runs one seed; with `isRepeated` once more, to see that nothing but the seed decides what happens. */
export async function runSeed(seed: number, limits: PlanLimits, isRepeated: boolean): Promise<SeedOutcome> {
  const plan = drawPlan(seed, limits);
  const before = process.cpuUsage();
  const result = await simulate(plan);
  const { user, system } = process.cpuUsage(before);
  const outcome = { seed, result, cpuMs: (user + system) / 1000 };
  if (!isRepeated) return outcome;
  const again = await simulate(plan);
  if (again.traceHash === result.traceHash) return outcome;
  const finding = {
    rule: 'deterministic',
    what: `the second run of seed ${seed} left trace ${again.traceHash}, the first ${result.traceHash}`,
    context: [],
  };
  return { ...outcome, result: { ...result, findings: [...result.findings, finding] } };
}
