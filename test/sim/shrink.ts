import { type FaultKind, faultKinds, type PlanLimits } from './plan.ts';
import { runSeed, type SeedOutcome } from './run-seeds.ts';

export interface Shrunk {
  readonly limits: PlanLimits;
  readonly outcome: SeedOutcome;
  readonly runs: number;
}

/** More runs than this are not spent on making one failure smaller. */
const runsMax = 40;

/**
 * Looks for less that fails in the same way: fewer kinds of faults first, then a shorter time, then fewer clients. What is left out changes the rest of
 * the run, so that not all that could go is found; what is found does fail.
 */
export async function shrink(failure: SeedOutcome, limits: PlanLimits): Promise<Shrunk> {
  const rule = failure.result.findings[0]?.rule;
  let best: Shrunk = { limits, outcome: failure, runs: 0 };
  let runs = 0;
  const tryWith = async (fewer: PlanLimits): Promise<boolean> => {
    if (runs >= runsMax) return false;
    runs += 1;
    const outcome = await runSeed(failure.seed, fewer, rule === 'deterministic');
    if (outcome.result.findings[0]?.rule !== rule) return false;
    best = { limits: fewer, outcome, runs };
    return true;
  };
  const kinds: readonly (FaultKind | 'network' | 'clockSkew')[] = [...faultKinds, 'network', 'clockSkew'];
  for (const kind of kinds) {
    const without = best.limits.without ?? [];
    if (!without.includes(kind)) await tryWith({ ...best.limits, without: [...without, kind] });
  }
  // Faults after the failure have no part in it.
  const failedAt = Number.parseInt(best.outcome.result.findings[0]?.what ?? '', 10);
  const longest = Number.isFinite(failedAt) ? Math.min(failedAt, best.limits.faultyMs ?? failedAt) : (best.limits.faultyMs ?? 45_000);
  for (let faultyMs = Math.ceil(longest / 2); faultyMs > 500; faultyMs = Math.ceil(faultyMs / 2)) {
    if (!(await tryWith({ ...best.limits, faultyMs }))) break;
  }
  for (let clients = 1; clients < 4; clients++) if (await tryWith({ ...best.limits, clients })) break;
  return { ...best, runs };
}

/** The command that runs it again. */
export function replayCommand(seed: number, { without = [], faultyMs, clients, members }: PlanLimits): string {
  const words = [`npm run sim -- --seed ${seed}`];
  if (without.length > 0) words.push(`--without ${without.join(',')}`);
  if (faultyMs !== undefined) words.push(`--faulty-ms ${faultyMs}`);
  if (clients !== undefined) words.push(`--clients ${clients}`);
  if (members !== undefined) words.push(`--members ${members}`);
  return words.join(' ');
}
