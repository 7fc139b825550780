import type { History, KeySpan, KeyValue, LeaseId, Operation, Request, WatchEvent } from '../history.ts';
import { type Evidence, fits, gatherEvidence, noEvidence, seenChanges, seenKeys } from './evidence.ts';
import type { Finding } from './finding.ts';
import { leaseDeadlines } from './lease-deadlines.ts';
import { EtcdModel, isInside } from './model.ts';
import { difference, leasesPut, wrote } from './responses.ts';
import { showEvents, showKeyValue, showOperation } from './show.ts';
import { Timeline } from './timeline.ts';
import { UndecidedWrites } from './undecided-writes.ts';

export interface ReplayOptions {
  /** What the store held when the history began. Default: nothing, at revision 1. */
  readonly initial?: { readonly revision: number; readonly keyValues: readonly KeyValue[] };
  /** Every watch still open at the end must have been told everything up to here: for histories that end in peace. */
  readonly settledRevision?: number;
}

/** Who made a revision. */
export type Author =
  | { readonly type: 'operation'; readonly operation: Operation }
  /** The server, when the lease's time was up. */
  | { readonly type: 'expiry'; readonly lease: LeaseId };

export interface Replay {
  readonly findings: readonly Finding[];
  /** Every revision up to its own, with what was changed: the truth that watches are held against. */
  readonly truth: EtcdModel;
  /** The author of each revision after the first. */
  authorOf(revision: number): Author | undefined;
  readonly timeline: Timeline;
}

type Answered = Operation & { readonly outcome: Extract<Operation['outcome'], { status: 'ok' }> };

/** One way to fill a revision that no answer accounts for. */
interface Candidate {
  readonly author: Author;
  readonly changes: readonly WatchEvent[];
}

interface Choice {
  readonly revision: number;
  readonly candidates: readonly Candidate[];
  at: number;
  /** What went wrong with the ways tried so far was about these keys; undefined: any. */
  blamed: readonly KeySpan[] | undefined;
}

interface Mismatch {
  readonly rule: string;
  readonly what: string;
  readonly revision: number;
  readonly operation: Operation | undefined;
  /** The keys it is about; undefined: any. */
  readonly keys: readonly KeySpan[] | undefined;
  readonly context: readonly string[];
}

/** How often revisions may be gone through again for another choice of who made which, beside once for each. */
const REPEATS_MAX = 200_000;

/**
 * Replays a history in the order of its revisions and holds every answer against a model of etcd. No search is needed where the author of every revision
 * is known: an answer to a write carries the revision it made. A revision that no answer accounts for was made by an operation of unknown outcome or
 * by a lease that ran out; what readers and watches saw of it says which. Where nothing says so the ways are tried, one after the other.
 *
 * It stops at the first answer that cannot be right, as everything after rests on it.
 */
export function replay(history: History, options: ReplayOptions = {}): Replay {
  return new Replayer(history, options).run();
}

class Replayer {
  readonly #model: EtcdModel;
  readonly #timeline: Timeline;
  readonly #history: History;
  readonly #options: ReplayOptions;
  readonly #first: number;
  readonly #last: number;
  /** By revision. */
  readonly #answered: readonly Answered[];
  readonly #writers: (Operation | undefined)[];
  /** Of the revisions that no answer accounts for. */
  readonly #evidence: ReadonlyMap<number, Evidence>;
  /** Of all, once it is needed. */
  #everything: ReadonlyMap<number, Evidence> | undefined;
  readonly #undecided: UndecidedWrites;
  readonly #leaseDeadlines: ReadonlyMap<LeaseId, number>;
  readonly #leasesLastUsed: ReadonlyMap<LeaseId, number>;
  readonly #choices: Choice[] = [];
  /** Authors of revisions that no answer accounts for, as chosen so far. */
  readonly #placed: { readonly revision: number; readonly author: Author }[] = [];
  readonly #findings: Finding[] = [];
  #repeats = 0;

  constructor(history: History, options: ReplayOptions) {
    this.#first = options.initial?.revision ?? 1;
    this.#model = new EtcdModel({ revision: this.#first, keyValues: options.initial?.keyValues ?? [], leases: 'assumed' });
    this.#history = history;
    this.#options = options;
    this.#timeline = new Timeline(history);
    this.#last = Math.max(this.#first, this.#timeline.lastRevision);
    this.#answered = history.operations.filter((operation): operation is Answered => operation.outcome.status === 'ok');
    this.#answered = this.#answered.toSorted((a, b) => a.outcome.revision - b.outcome.revision);
    this.#writers = this.#findWriters();
    const inQuestion: number[] = [];
    for (let revision = this.#first + 1; revision <= this.#last; revision++) {
      if (this.#writers[revision - this.#first] === undefined) inQuestion.push(revision);
    }
    this.#evidence = gatherEvidence(history, inQuestion, options.settledRevision);
    this.#undecided = new UndecidedWrites(history.operations.filter((operation) => operation.outcome.status === 'unknown'));
    this.#leaseDeadlines = leaseDeadlines(history.operations);
    this.#leasesLastUsed = leasesLastUsed(this.#answered);
  }

  run(): Replay {
    if (this.#findings.length === 0) this.#replayAll();
    const placed = new Map(this.#placed.map(({ revision, author }) => [revision, author]));
    return {
      findings: this.#findings,
      truth: this.#model,
      timeline: this.#timeline,
      authorOf: (revision) => {
        const operation = this.#writers[revision - this.#first];
        return operation === undefined ? placed.get(revision) : { type: 'operation', operation };
      },
    };
  }

  /** Writes whose answers name the revision they made: one each. */
  #findWriters(): (Operation | undefined)[] {
    const writers: (Operation | undefined)[] = new Array<Operation | undefined>(this.#last - this.#first + 1).fill(undefined);
    for (const operation of this.#answered) {
      const { revision, response } = operation.outcome;
      if (wrote(response) !== true) continue;
      const twin = writers[revision - this.#first];
      if (twin !== undefined || revision <= this.#first) {
        this.#findings.push({
          rule: 'revision-unique',
          what:
            twin === undefined
              ? `a write was given revision ${revision}, which existed before`
              : `two writes were given revision ${revision}`,
          context: [...(twin === undefined ? [] : [showOperation(twin)]), showOperation(operation)],
        });
      }
      writers[revision - this.#first] = operation;
    }
    return writers;
  }

  #replayAll(): void {
    let deepest = this.#first - 1;
    let finding: Finding | undefined;
    let mismatch = this.#checkAnswers(this.#first);
    for (;;) {
      while (mismatch === undefined && this.#model.revision < this.#last) mismatch = this.#next(this.#model.revision + 1);
      if (mismatch === undefined) return;
      const isUndecided = this.#repeats > REPEATS_MAX;
      if (finding === undefined || mismatch.revision > deepest) finding = this.#report(mismatch);
      deepest = Math.max(deepest, mismatch.revision);
      if (isUndecided || !this.#tryAnother(mismatch.keys)) {
        this.#findings.push(
          isUndecided
            ? { ...finding, rule: 'undecided', what: `${finding.what}; not every way to place what is unknown was tried` }
            : finding,
        );
        return;
      }
      mismatch = this.#checkAnswers(this.#model.revision);
    }
  }

  #next(revision: number): Mismatch | undefined {
    const writer = this.#writers[revision - this.#first];
    if (writer !== undefined) return this.#write(writer as Answered) ?? this.#checkAnswers(revision);
    const candidates = this.#candidatesFor(revision);
    const first = candidates[0];
    if (first === undefined) return this.#unexplained(revision);
    if (candidates.length > 1) this.#choices.push({ revision, candidates, at: 0, blamed: [] });
    this.#place(revision, first);
    return this.#checkAnswers(revision);
  }

  #write(operation: Answered): Mismatch | undefined {
    const evaluation = this.#model.evaluate(operation.request);
    const mismatch = this.#compare(operation, evaluation.status === 'failed' ? evaluation.code : evaluation, true);
    if (mismatch !== undefined || evaluation.status === 'failed') return mismatch;
    if (this.#choices.length > 0) {
      // What was seen of this write may show that an earlier one was chosen wrongly.
      const { revision } = operation.outcome;
      const evidence = this.#allEvidence().get(revision) ?? noEvidence;
      if (!fits(evidence, evaluation.changes)) {
        const keys = [...seenKeys(evidence), ...evaluation.changes.map((change) => change.kv.key)].map((key) => ({ key }));
        const what = `what was seen of a write is not what it did: ${showEvents(evaluation.changes)}`;
        return { rule: 'seen', what, revision, operation, keys, context: [`seen: ${showEvents(seenChanges(evidence))}`] };
      }
    }
    this.#model.commit(evaluation.changes);
    return undefined;
  }

  #allEvidence(): ReadonlyMap<number, Evidence> {
    this.#everything ??= gatherEvidence(
      this.#history,
      Array.from({ length: this.#last - this.#first }, (_, at) => this.#first + 1 + at),
      this.#options.settledRevision,
    );
    return this.#everything;
  }

  /** Every answer that was given at this revision without making it. */
  #checkAnswers(revision: number): Mismatch | undefined {
    const writer = this.#writers[revision - this.#first];
    const author = this.#placed.at(-1);
    for (let at = this.#firstAnswerAt(revision); at < this.#answered.length; at++) {
      const operation = this.#answered[at] as Answered;
      if (operation.outcome.revision !== revision) break;
      const isAuthor = author?.revision === revision && author.author.type === 'operation' && author.author.operation === operation;
      if (operation === writer || isAuthor) continue;
      const { type } = operation.request;
      if (type === 'compact' || type === 'leaseGrant' || type === 'leaseKeepAlive' || type === 'leaseTimeToLive') continue;
      const evaluation = this.#model.evaluate(operation.request);
      const mismatch = this.#compare(operation, evaluation.status === 'failed' ? evaluation.code : evaluation, false);
      if (mismatch !== undefined) return mismatch;
    }
    return undefined;
  }

  #compare(
    operation: Answered,
    expected: string | Extract<ReturnType<EtcdModel['evaluate']>, { status: 'ok' }>,
    isWriter: boolean,
  ): Mismatch | undefined {
    const { request, outcome } = operation;
    const about = { revision: outcome.revision, operation, keys: spansOf(request), context: [] };
    if (typeof expected === 'string') return { ...about, rule: 'answer', what: `an answer where the model has the error ${expected}` };
    const found = difference(request, expected.response, outcome.response);
    if (found !== undefined) return { ...about, rule: 'answer', what: `a wrong answer: ${found}` };
    if (isWriter === expected.changes.length > 0) return undefined;
    // A revoke's keys are not in its request: which are meant depends on all that was decided before.
    const keys = request.type === 'leaseRevoke' ? undefined : about.keys;
    const what = isWriter
      ? 'a revision for a write that changes nothing'
      : `the revision before what it must have changed: ${showEvents(expected.changes)}`;
    return { ...about, keys, rule: 'revision', what: `an answer with ${what}` };
  }

  // ---- Revisions that no answer accounts for

  #candidatesFor(revision: number): Candidate[] {
    const evidence = this.#evidence.get(revision) ?? noEvidence;
    const bySignature = new Map<string, Candidate>();
    const offer = (author: Author, changes: readonly WatchEvent[]): void => {
      if (!fits(evidence, changes)) return;
      // Two undecided operations that ask for the same stand for each other. Those that only do the same now may differ in what they can do later.
      const kind =
        author.type === 'operation' ? `${author.operation.outcome.status} ${JSON.stringify(author.operation.request)}` : author.type;
      const signature = `${kind} ${JSON.stringify(changes)}`;
      if (!bySignature.has(signature)) bySignature.set(signature, { author, changes });
    };
    if (evidence.written.length === 0 && evidence.created.length === 0) this.#offerExpiries(revision, evidence, offer);
    this.#offerOperations(revision, evidence, offer);
    return [...bySignature.values()];
  }

  #offerOperations(revision: number, evidence: Evidence, offer: (author: Author, changes: readonly WatchEvent[]) => void): void {
    const shown = this.#timeline.firstShown(revision);
    const consider = (operation: Operation): void => {
      if (operation.call >= shown || this.#timeline.shownBefore(operation.call) >= revision) return;
      const evaluation = this.#model.evaluate(operation.request);
      if (evaluation.status === 'ok' && evaluation.changes.length > 0) offer({ type: 'operation', operation }, evaluation.changes);
    };
    for (let at = this.#firstAnswerAt(revision); this.#answered[at]?.outcome.revision === revision; at++) {
      const operation = this.#answered[at] as Answered;
      if (operation.request.type === 'leaseRevoke') consider(operation);
    }
    for (const operation of this.#undecided.matching(evidence)) consider(operation);
  }

  #offerExpiries(revision: number, evidence: Evidence, offer: (author: Author, changes: readonly WatchEvent[]) => void): void {
    if (evidence.events.some((event) => event.type === 'put')) return;
    const gone = evidence.events[0]?.kv.key;
    const lease = gone === undefined ? undefined : this.#model.get(gone)?.lease;
    const leases = gone === undefined ? this.#model.leasesWithKeys() : lease === undefined ? [] : [lease];
    const shown = this.#timeline.firstShown(revision);
    for (const id of [...leases]) {
      if (shown < (this.#leaseDeadlines.get(id) ?? Number.NEGATIVE_INFINITY) || (this.#leasesLastUsed.get(id) ?? 0) > revision) continue;
      const evaluation = this.#model.evaluate({ type: 'leaseRevoke', id });
      if (evaluation.status === 'ok') offer({ type: 'expiry', lease: id }, evaluation.changes);
    }
  }

  #place(revision: number, candidate: Candidate): void {
    this.#placed.push({ revision, author: candidate.author });
    if (candidate.author.type === 'operation') this.#undecided.use(candidate.author.operation);
    this.#model.commit(candidate.changes);
  }

  /** Goes back to the last choice that has to do with the keys of a mismatch and takes its next way. False: there is none. */
  #tryAnother(mismatched: readonly KeySpan[] | undefined): boolean {
    let keys = mismatched;
    for (let choice = this.#choices.at(-1); choice !== undefined; choice = this.#choices.at(-1)) {
      this.#undoTo(choice.revision - 1);
      if (isAbout(choice, keys)) {
        choice.blamed = both(choice.blamed, keys);
        const next = choice.candidates[++choice.at];
        if (next !== undefined) {
          this.#place(choice.revision, next);
          return true;
        }
        // None of its ways will do: whatever led to having just these is to blame as well.
        keys = both(
          choice.blamed,
          choice.candidates.flatMap((candidate) => candidate.changes.map((change) => ({ key: change.kv.key }))),
        );
      }
      this.#choices.pop();
    }
    return false;
  }

  #undoTo(revision: number): void {
    while (this.#model.revision > revision) {
      const last = this.#placed.at(-1);
      if (last?.revision === this.#model.revision) {
        this.#placed.pop();
        if (last.author.type === 'operation') this.#undecided.free(last.author.operation);
      }
      this.#model.undo();
      this.#repeats++;
    }
  }

  #unexplained(revision: number): Mismatch {
    const evidence = this.#evidence.get(revision) ?? noEvidence;
    const keys = seenKeys(evidence);
    const seen = [...new Set([...evidence.events.map((event) => event.kv), ...evidence.written])];
    const lease = keys.map((key) => this.#model.get(key)?.lease).find((id) => id !== undefined);
    const deadline = lease === undefined ? undefined : this.#leaseDeadlines.get(lease);
    const shown = this.#timeline.firstShown(revision);
    const isEarly =
      deadline !== undefined && shown < deadline && evidence.events.length > 0 && evidence.events.every((event) => event.type === 'delete');
    return {
      rule: isEarly ? 'lease-early' : 'revision-unexplained',
      what: isEarly
        ? `keys of lease ${lease} were gone by ${shown} ms, and it could not run out before ${deadline} ms`
        : `revision ${revision} was made by no operation of this history and by no lease that ran out`,
      revision,
      operation: undefined,
      keys: keys.length === 0 ? undefined : keys.map((key) => ({ key })),
      context: [`seen of it: ${seen.length === 0 ? 'nothing' : seen.map(showKeyValue).join(', ')}`],
    };
  }

  #report({ rule, what, revision, operation, keys, context }: Mismatch): Finding {
    const known = [...new Set((keys ?? []).filter((span) => span.end === undefined).map((span) => span.key))].slice(0, 3);
    const before = known.map((key) => {
      const kv = this.#model.get(key, revision);
      return kv === undefined ? `replayed: no key ${JSON.stringify(key)}` : `replayed: ${showKeyValue(kv)}`;
    });
    return {
      rule,
      what: `at revision ${revision}: ${what}`,
      context: [...(operation === undefined ? [] : [showOperation(operation)]), ...before, ...context],
    };
  }

  #firstAnswerAt(revision: number): number {
    let low = 0;
    let high = this.#answered.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#answered[middle] as Answered).outcome.revision < revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The keys an answer depends on; undefined where they cannot be told. */
function spansOf(request: Request): KeySpan[] | undefined {
  if (request.type === 'put' || request.type === 'range' || request.type === 'deleteRange') return [spanOf(request)];
  if (request.type !== 'txn') return undefined;
  const inner = [...request.success, ...request.failure].map(spansOf);
  return inner.some((spans) => spans === undefined)
    ? undefined
    : [...request.compares.map(spanOf), ...inner.flatMap((spans) => spans ?? [])];
}

const spanOf = ({ key, end }: KeySpan): KeySpan => (end === undefined ? { key } : { key, end });

/** Whether another way at this choice could change anything about the keys. Transactions reach beyond the keys they write. */
function isAbout(choice: Choice, keys: readonly KeySpan[] | undefined): boolean {
  if (keys === undefined) return true;
  return choice.candidates.some(
    ({ author, changes }) =>
      (author.type === 'operation' && author.operation.request.type === 'txn') ||
      changes.some((change) => keys.some((span) => isInside(span, change.kv.key))),
  );
}

const both = (a: readonly KeySpan[] | undefined, b: readonly KeySpan[] | undefined): readonly KeySpan[] | undefined =>
  a === undefined || b === undefined ? undefined : [...a, ...b];

/** The highest revision at which each lease is known to have existed, but for ids that were granted more than once. */
function leasesLastUsed(answered: readonly Answered[]): Map<LeaseId, number> {
  const last = new Map<LeaseId, number>();
  const granted = new Set<LeaseId>();
  const again = new Set<LeaseId>();
  for (const { request, outcome } of answered) {
    const { response } = outcome;
    if (response.type === 'leaseGrant') (granted.has(response.id) ? again : granted).add(response.id);
    const used = request.type === 'leaseRevoke' ? [request.id] : leasesPut(request, response);
    for (const id of used) last.set(id, Math.max(last.get(id) ?? 0, outcome.revision));
  }
  for (const id of again) last.delete(id);
  return last;
}
