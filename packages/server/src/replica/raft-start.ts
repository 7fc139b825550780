import { InvariantError, Raft } from '@conclave/raft';
import { defaultLimits, type ReplicaOptions } from './options.ts';
import type { RecoveredLog, StateMachine } from './ports.ts';

/** Bytes of requests that enter raft, and of entries that are written or sent, at once. A request above it travels alone. */
export const maxBatchBytes: number = 1024 * 1024;

/**
 * Raft begins where the state machine is: what that holds is applied. Of the entries before, those that the log still has are kept for members that
 * lag behind, so that a leader which has just started need not bring them a snapshot.
 *
 * @throws InvariantError when the log and the state machine cannot belong together
 */
export function startRaft<R>(options: ReplicaOptions<R>): Raft {
  const { id, runtime, recovered, stateMachine, memory, electionTicks = 10, preVote = true, limits = {} } = options;
  checkRecovered(recovered, stateMachine);
  const { appliedIndex, appliedTerm, confState } = stateMachine;
  const { hardState, entries } = recovered;
  const first = entries[0];
  const isCatchUp = first !== undefined && first.index <= appliedIndex;
  return new Raft({
    id,
    incarnation: memory?.incarnation ?? 1,
    electionTimeoutTicks: electionTicks,
    heartbeatTicks: 1,
    preVote,
    checkQuorum: true,
    maxUncommittedBytes: limits.maxUncommittedBytes ?? defaultLimits.maxUncommittedBytes,
    maxEntriesPerAppendBytes: maxBatchBytes,
    maxInflightAppends: 256,
    maxInflightBytes: 8 * maxBatchBytes,
    electionTimeoutJitter: () => runtime.random(),
    initial: {
      hardState,
      confState,
      compacted: isCatchUp ? { index: first.index, term: first.term } : { index: appliedIndex, term: appliedTerm },
      entries: isCatchUp ? entries.slice(1) : entries,
      appliedIndex,
    },
  });
}

/** The log and the state machine were written together: entries went to the log first, and were kept until the machine had them. */
function checkRecovered<R>(recovered: RecoveredLog, stateMachine: StateMachine<R>): void {
  const { hardState, entries } = recovered;
  const { appliedIndex, appliedTerm } = stateMachine;
  const [first, last] = [entries[0], entries.at(-1)];
  const at = entries.find((entry) => entry.index === appliedIndex);
  const state = `the state machine is at ${appliedTerm}/${appliedIndex}`;
  if ((hardState?.term ?? 0) < appliedTerm) throw new InvariantError(`${state} and the log's term is ${hardState?.term ?? 'missing'}`);
  if (first && first.index > appliedIndex + 1) throw new InvariantError(`${state} and the log begins at ${first.index}`);
  if (last && last.index < appliedIndex) throw new InvariantError(`${state} and the log ends at ${last.index}`);
  if (at && at.term !== appliedTerm) throw new InvariantError(`${state} and the log has term ${at.term} there`);
}
