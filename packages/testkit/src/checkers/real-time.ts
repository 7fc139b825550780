import type { History, Operation, PutRequest, RangeRequest, Request } from '../history.ts';
import type { Finding } from './finding.ts';
import type { EtcdModel } from './model.ts';
import type { Replay } from './replay.ts';
import { datedRanges, mayBeStale, wrote } from './responses.ts';
import { showOperation } from './show.ts';
import type { Timeline } from './timeline.ts';

const FINDINGS_MAX = 10;

/**
 * What was over before an operation began comes before it: a write gets a revision above everything shown by then, a read sees no less. Revisions
 * alone do not tell this, and a replay by revisions does not see it. Serializable reads are free of it.
 */
export function checkRealTime(history: History, timeline: Timeline): Finding[] {
  const findings: Finding[] = [];
  for (const operation of history.operations) {
    const { outcome, request, call } = operation;
    if (outcome.status !== 'ok' || mayBeStale(request) || findings.length >= FINDINGS_MAX) continue;
    const shown = timeline.shownBefore(call);
    const isWriter = wrote(outcome.response) === true;
    if (isWriter ? outcome.revision > shown : outcome.revision >= shown) continue;
    findings.push({
      rule: 'real-time',
      what: `${isWriter ? 'a write was given' : 'an answer is of'} revision ${outcome.revision}, and ${shown} had been shown before it was asked for`,
      context: [timeline.proofBefore(call), showOperation(operation)],
    });
  }
  return findings;
}

export interface CompactionOptions {
  /** The server compacts by itself: what is gone need not have been asked for. */
  readonly isAutomatic?: boolean;
}

/** What was compacted stays unreadable, and nothing else is called so. */
export function checkCompactions(history: History, timeline: Timeline, options: CompactionOptions = {}): Finding[] {
  const findings: Finding[] = [];
  const find = (rule: string, what: string, ...operations: (Operation | undefined)[]): void => {
    if (findings.length < FINDINGS_MAX)
      findings.push({ rule, what, context: operations.flatMap((one) => (one === undefined ? [] : [showOperation(one)])) });
  };
  const compactions = new Compactions(history.operations);
  for (const operation of history.operations) {
    const { request, outcome, call, return: returned } = operation;
    const wanted = revisionsWanted(request);
    if (wanted.length === 0 || outcome.status === 'unknown') continue;
    if (outcome.status === 'ok') {
      const done = compactions.highestDoneBefore(call);
      if (request.type === 'compact' && done !== undefined && request.revision <= revisionOf(done)) {
        find('compacted-twice', `revision ${request.revision} was compacted after it was compacted`, done, operation);
      }
      const readable = branchTaken(request, outcome.response).flatMap(revisionsWanted);
      const gone = readable.find((revision) => done !== undefined && revision < revisionOf(done));
      if (gone !== undefined && !mayBeStale(request))
        find('compacted-read', `revision ${gone} was read after it was compacted`, done, operation);
      continue;
    }
    if (outcome.code === 'compacted' && options.isAutomatic !== true) {
      const highest = compactions.highestCalledBefore(returned);
      // The compacted revision itself is still there to be read, and not to be compacted once more.
      const isThere = (revision: number): boolean =>
        highest === undefined || revision + (request.type === 'compact' ? 0 : 1) > revisionOf(highest);
      if (wanted.every(isThere)) {
        find('compacted-falsely', 'a revision is called compacted that nobody had compacted', operation);
      }
    }
    if (outcome.code === 'future-revision' && !mayBeStale(request)) {
      const shown = timeline.shownBefore(call);
      if (wanted.every((revision) => revision <= shown)) {
        find('future-falsely', `a revision is called a future one, and ${shown} had been shown before`, operation);
      }
    }
  }
  return findings;
}

/** An error about the state must have been true at some moment of the call. */
export function checkFailures(history: History, { truth, timeline, authorOf }: Pick<Replay, 'truth' | 'timeline' | 'authorOf'>): Finding[] {
  const findings: Finding[] = [];
  const failed = history.operations.filter(
    ({ outcome, request }) => request.type === 'put' && outcome.status === 'failed' && outcome.code === 'key-not-found',
  );
  if (failed.length === 0) return findings;
  const notBefore = earliestTimes(truth, authorOf);
  for (const operation of failed.slice(0, FINDINGS_MAX)) {
    const { key } = operation.request as PutRequest;
    const from = Math.max(timeline.shownBefore(operation.call), truth.firstRevision);
    let wasAbsent = false;
    for (let revision = from; revision <= truth.revision && !wasAbsent; revision++) {
      if ((notBefore[revision - truth.firstRevision] ?? 0) > operation.return) break;
      wasAbsent = truth.get(key, revision) === undefined;
    }
    if (wasAbsent) continue;
    findings.push({
      rule: 'failed-falsely',
      what: `${JSON.stringify(key)} was called missing while it existed`,
      context: [showOperation(operation)],
    });
  }
  return findings;
}

/** By revision: before this time it cannot have been made, as it or an earlier one had not been asked for. */
function earliestTimes(truth: EtcdModel, authorOf: Replay['authorOf']): number[] {
  const times: number[] = [Number.NEGATIVE_INFINITY];
  for (let revision = truth.firstRevision + 1; revision <= truth.revision; revision++) {
    const author = authorOf(revision);
    const call = author?.type === 'operation' ? author.operation.call : Number.NEGATIVE_INFINITY;
    times.push(Math.max(times.at(-1) as number, call));
  }
  return times;
}

/** Old revisions that an operation needs: those it reads, and the one it compacts at, which must not be compacted itself. */
function revisionsWanted(request: Request): number[] {
  if (request.type === 'compact') return [request.revision];
  return [...datedRanges(request)].map((range: RangeRequest & { readonly revision: number }) => range.revision);
}

/** The operations that were done: of a transaction only one branch is. */
function branchTaken(request: Request, response: { readonly type: string; readonly succeeded?: boolean }): readonly Request[] {
  if (request.type !== 'txn') return request.type === 'range' ? [request] : [];
  return (response.succeeded === true ? request.success : request.failure).filter((inner) => inner.type === 'range');
}

const revisionOf = ({ request }: Operation): number => (request.type === 'compact' ? request.revision : 0);

class Compactions {
  readonly #done: readonly Operation[];
  readonly #called: readonly Operation[];

  constructor(operations: readonly Operation[]) {
    const compactions = operations.filter(({ request, outcome }) => request.type === 'compact' && outcome.status !== 'failed');
    this.#done = rising(
      compactions.filter(({ outcome }) => outcome.status === 'ok'),
      (operation) => operation.return,
    );
    this.#called = rising(compactions, (operation) => operation.call);
  }

  highestDoneBefore(time: number): Operation | undefined {
    return lastBefore(this.#done, time, (operation) => operation.return);
  }

  highestCalledBefore(time: number): Operation | undefined {
    return lastBefore(this.#called, time, (operation) => operation.call);
  }
}

/** In order of time, without those that compact no further than an earlier one. */
function rising(compactions: readonly Operation[], timeOf: (operation: Operation) => number): Operation[] {
  const kept: Operation[] = [];
  for (const operation of compactions.toSorted((a, b) => timeOf(a) - timeOf(b))) {
    const last = kept.at(-1);
    if (last === undefined || revisionOf(operation) > revisionOf(last)) kept.push(operation);
  }
  return kept;
}

function lastBefore(sorted: readonly Operation[], time: number, timeOf: (operation: Operation) => number): Operation | undefined {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeOf(sorted[middle] as Operation) < time) low = middle + 1;
    else high = middle;
  }
  return sorted[low - 1];
}
