import type { History, Operation } from '../history.ts';
import type { Finding } from './finding.ts';
import { checkFencing, checkHolds } from './holds.ts';
import { checkLeases } from './lease-lives.ts';
import { type CompactionOptions, checkCompactions, checkFailures, checkRealTime } from './real-time.ts';
import { type ReplayOptions, replay } from './replay.ts';
import { checkWatches } from './watches.ts';

export interface CheckOptions extends ReplayOptions, CompactionOptions {}

/**
 * Every check that a client's history alone allows: replay by revisions, real time, compactions, leases, watches, locks. No finding: nothing wrong was seen.
 * Watches and leases are judged by what the replay found to be true, so not at all when it failed.
 */
export function checkHistory(history: History, options: CheckOptions = {}): Finding[] {
  const replayed = replay(history, options);
  const findings = [
    ...replayed.findings,
    ...checkRealTime(history, replayed.timeline),
    ...checkCompactions(history, replayed.timeline, options),
    ...checkHolds(history.holds),
    ...checkFencing(history.fencedWrites),
  ];
  if (replayed.findings.length > 0) return findings;
  const { settledRevision } = options;
  const watchTruth = {
    model: replayed.truth,
    ...(options.isAutomatic !== true && { compactedAt: compactionTimes(history.operations) }),
    ...(settledRevision !== undefined && { settledRevision }),
  };
  return [...findings, ...checkFailures(history, replayed), ...checkLeases(history, replayed), ...checkWatches(history, watchTruth)];
}

/** When a compaction that makes a revision unreadable was first asked for; infinite if it never was. */
function compactionTimes(operations: readonly Operation[]): (revision: number) => number {
  const asked = operations.flatMap(({ request, outcome, call }) =>
    request.type === 'compact' && outcome.status !== 'failed' ? [{ revision: request.revision, call }] : [],
  );
  return (revision) => Math.min(...asked.filter((one) => one.revision > revision).map((one) => one.call));
}
