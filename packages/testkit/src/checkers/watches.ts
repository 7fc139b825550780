import type { History, KeySpan, Watch, WatchEvent, WatchMessage } from '../history.ts';
import type { Finding } from './finding.ts';
import { type EtcdModel, isInside } from './model.ts';
import { sameKeyValue } from './responses.ts';
import { showEvent, showEvents, showSpan } from './show.ts';

/** What watches are held against. */
export interface WatchTruth {
  /** Every revision up to its own. */
  readonly model: EtcdModel;
  /**
   * When a compaction that makes a revision unreadable was first asked for; infinite if it never was. Without it any revision may be compacted at any
   * time.
   */
  readonly compactedAt?: (revision: number) => number;
  /** Every watch that was still open at the end must have been told everything up to here: for histories that end in peace. */
  readonly settledRevision?: number;
}

/**
 * The promises of a watch, all of them: events in the order of revisions (ordered), each once (unique), those of one revision together (atomic), none
 * left out (reliable), a continued watch leaves nothing out and repeats nothing (resumable), and a revision told as progress means that all up to it has
 * been told (bookmarkable). The previous key-value is that of the revision before, and what a filter takes out stays out.
 */
export function checkWatches(history: History, truth: WatchTruth): Finding[] {
  const byId = new Map(history.watches.map((watch) => [watch.id, new WatchCheck(watch, truth)]));
  for (const check of byId.values()) check.run();
  for (const check of byId.values()) {
    const { resumes } = check.watch;
    if (resumes === undefined) continue;
    const before = byId.get(resumes);
    if (before === undefined) throw new Error(`watch ${check.watch.id} resumes watch ${resumes}, which is not in the history`);
    check.resumeFrom(before);
  }
  return [...byId.values()].flatMap((check) => check.findings);
}

class WatchCheck {
  readonly watch: Watch;
  readonly findings: Finding[] = [];
  readonly #truth: WatchTruth;
  /** Everything after this revision, and nothing up to it, is owed; undefined: not known yet, as the watch began "from now". */
  #toldUpTo: number | undefined;
  /** Told as created: changes after this are owed, while those up to it may come. */
  #createdAt: number | undefined;
  /** Of the revision that is being told: events so far, and whether more of it may come in another message. */
  #open: { readonly revision: number; readonly events: WatchEvent[]; mayGoOn: boolean } | undefined;
  #firstTold: number | undefined;
  #isOver = false;

  constructor(watch: Watch, truth: WatchTruth) {
    this.watch = watch;
    this.#truth = truth;
    const { startRevision } = watch.request;
    if (startRevision !== undefined && startRevision > 0) this.#toldUpTo = startRevision - 1;
  }

  /** The last revision of which everything was told. */
  get bookmark(): number | undefined {
    return this.#toldUpTo;
  }

  run(): void {
    for (const message of this.watch.messages) {
      if (this.findings.length > 0) return;
      if (this.#isOver && message.type !== 'closed') this.#find('over', `a message after the end: ${message.type}`, message);
      else this.#take(message);
    }
    this.#atEnd();
  }

  /** A watch continues another: together they must have told everything once. */
  resumeFrom(before: WatchCheck): void {
    if (this.findings.length > 0 || before.findings.length > 0) return;
    const told = before.bookmark;
    if (told === undefined) return;
    if (this.#firstTold !== undefined && this.#firstTold <= told) {
      this.#find('resumable', `revision ${this.#firstTold} was told again by the watch that continues watch ${before.watch.id}`);
      return;
    }
    const { startRevision } = this.watch.request;
    const beganAfter =
      startRevision === undefined ? Math.min(this.#createdAt ?? 0, (this.#firstTold ?? Number.POSITIVE_INFINITY) - 1) : startRevision - 1;
    const missing = this.#firstOwed(told, beganAfter);
    if (missing === undefined) return;
    this.#find(
      'resumable',
      `revision ${missing.revision} was told neither by watch ${before.watch.id} nor by the one that continues it`,
      undefined,
      [`owed: ${showEvents(missing.events)}`],
    );
  }

  #take(message: WatchMessage): void {
    switch (message.type) {
      case 'created':
        // A client that opens the watch anew is told again; only the first says where a watch from now begins.
        if (this.#createdAt === undefined) this.#createdAt = message.revision;
        return;
      case 'events':
        this.#takeEvents(message);
        return;
      case 'progress':
        this.#takeProgress(message);
        return;
      case 'canceled':
        this.#isOver = true;
        this.#takeCanceled(message);
        return;
      case 'closed':
        this.#isOver = true;
    }
  }

  #takeEvents(message: Extract<WatchMessage, { type: 'events' }>): void {
    const { request, granularity } = this.watch;
    if (this.#createdAt === undefined && granularity === 'response')
      this.#find('created-first', 'events before the watch was created', message);
    if (message.isFragment === true && request.fragment !== true) this.#find('atomic', 'a fragment that was not asked for', message);
    if (message.events.length === 0) this.#find('bookmarkable', 'a message with no events that is no progress', message);
    for (const event of message.events) {
      if (event.kv.modRevision > message.revision) {
        this.#find('header', `an event of revision ${event.kv.modRevision} under a header of revision ${message.revision}`, message);
      }
      this.#takeEvent(event, message);
    }
    if (this.#open === undefined) return;
    this.#open.mayGoOn = message.isFragment === true || granularity === 'event';
    if (!this.#open.mayGoOn) this.#closeRevision(message);
  }

  #takeEvent(event: WatchEvent, message: WatchMessage): void {
    const revision = event.kv.modRevision;
    if (this.#open !== undefined && this.#open.revision !== revision) this.#closeRevision(message);
    if (this.#open === undefined) this.#openRevision(revision, message);
    const { request } = this.watch;
    if (!isInside(spanOf(request), event.kv.key))
      this.#find('filter', `an event of a key outside ${showSpan(request)}`, message, [showEvent(event)]);
    if (request.ignore === event.type) this.#find('filter', `a ${event.type}, which was not to be told`, message, [showEvent(event)]);
    this.#open?.events.push(event);
  }

  #openRevision(revision: number, message: WatchMessage): void {
    const told = this.#toldUpTo;
    if (told !== undefined && revision <= told) {
      const isStart = this.#firstTold === undefined && revision < (this.watch.request.startRevision ?? 0);
      const what = isStart
        ? `revision ${revision}, and only those from ${this.watch.request.startRevision} on were asked for`
        : `revision ${revision} after everything up to ${told} was told`;
      this.#find(isStart ? 'start' : this.#isKnownTwice(revision) ? 'unique' : 'ordered', what, message);
    }
    if (revision > this.#truth.model.revision || revision <= this.#truth.model.firstRevision) {
      this.#find('reliable', `an event of revision ${revision}, which nobody made`, message);
    }
    // A watch from now owes nothing before its first event, but for what came after it was created.
    const from = told ?? Math.min(revision - 1, this.#createdAt ?? revision - 1);
    this.#expectNothing(from, revision - 1, 'reliable', message);
    this.#firstTold ??= revision;
    this.#toldUpTo = revision - 1;
    this.#open = { revision, events: [], mayGoOn: true };
  }

  #isKnownTwice(revision: number): boolean {
    const seen = this.watch.messages.flatMap((message) => (message.type === 'events' ? message.events : []));
    const ofRevision = seen.filter((event) => event.kv.modRevision === revision).map((event) => event.kv.key);
    return new Set(ofRevision).size < ofRevision.length;
  }

  /** All of a revision has been told: it must be all there was, in its order. */
  #closeRevision(message: WatchMessage): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#open = undefined;
    this.#toldUpTo = open.revision;
    const expected = this.#expectedAt(open.revision);
    const fault = faultOf(open.events, expected);
    if (fault === undefined) {
      for (const [at, event] of open.events.entries()) this.#checkPrevious(event, expected[at] as WatchEvent, message);
      return;
    }
    this.#find(fault.rule, `revision ${open.revision}: ${fault.what}`, message, [
      `told: ${showEvents(open.events)}`,
      `truth: ${showEvents(expected)}`,
    ]);
  }

  #checkPrevious(event: WatchEvent, wanted: WatchEvent, message: WatchMessage): void {
    const find = (what: string): void => this.#find('prev-kv', what, message, [`told: ${showEvent(event)}`, `truth: ${showEvent(wanted)}`]);
    if (this.watch.request.prevKv !== true) {
      if (event.prevKv !== undefined) find('a previous key-value that was not asked for');
      return;
    }
    if (event.prevKv === undefined) {
      // It is read at the revision before, and that may be compacted by now.
      const isGone = (this.#truth.compactedAt?.(wanted.kv.modRevision - 1) ?? 0) < message.time;
      if (wanted.prevKv !== undefined && !isGone) find('no previous key-value where there was one');
      return;
    }
    if (wanted.prevKv === undefined || !sameKeyValue(wanted.prevKv, event.prevKv)) find('a wrong previous key-value');
  }

  #takeProgress(message: Extract<WatchMessage, { type: 'progress' }>): void {
    if (this.#open !== undefined) this.#closeRevision(message);
    const { revision } = message;
    const told = this.#toldUpTo;
    if (told !== undefined && revision < told && told >= (this.watch.request.startRevision ?? 0)) {
      this.#find('bookmarkable', `progress up to ${revision} after everything up to ${told} was told`, message);
      return;
    }
    this.#expectNothing(told ?? this.#createdAt ?? revision, revision, 'bookmarkable', message);
    this.#toldUpTo = Math.max(told ?? 0, revision);
  }

  #takeCanceled(message: Extract<WatchMessage, { type: 'canceled' }>): void {
    const { compactRevision } = message;
    if (compactRevision === undefined || compactRevision === 0) return;
    const told = this.#toldUpTo ?? this.#createdAt;
    if (told !== undefined && told + 1 >= compactRevision) {
      this.#find('canceled', `canceled as compacted at ${compactRevision}, and only revisions from ${told + 1} on were owed`, message);
    }
    const asked = this.#truth.compactedAt?.(compactRevision - 1) ?? Number.NEGATIVE_INFINITY;
    if (asked > message.time) this.#find('canceled', `canceled as compacted at ${compactRevision}, which nobody had asked for`, message);
  }

  #atEnd(): void {
    if (this.findings.length > 0) return;
    const end = this.watch.messages.at(-1);
    const isCut = this.#open?.mayGoOn === true && (this.#isOver || this.watch.granularity === 'event');
    if (this.#open !== undefined && !isCut && end !== undefined)
      this.#find('atomic', `revision ${this.#open.revision} was never told to its end`, end);
    const { settledRevision } = this.#truth;
    if (settledRevision === undefined || this.#isOver) return;
    const told = this.#open?.revision ?? this.#toldUpTo ?? this.#createdAt;
    if (told === undefined) this.#find('reliable', 'never created, and the history ended in peace');
    else this.#expectNothing(told, settledRevision, 'reliable', end);
  }

  /** No revision in (after, upTo] has anything for this watch: whatever it has was left out. */
  #expectNothing(after: number, upTo: number, rule: string, message: WatchMessage | undefined): void {
    const missing = this.#firstOwed(after, upTo);
    if (missing === undefined) return;
    const what = rule === 'bookmarkable' ? `told as done up to ${upTo}` : 'passed over';
    this.#find(rule, `revision ${missing.revision} was ${what} and never told`, message, [`owed: ${showEvents(missing.events)}`]);
  }

  #firstOwed(after: number, upTo: number): { readonly revision: number; readonly events: readonly WatchEvent[] } | undefined {
    const { model } = this.#truth;
    for (let revision = Math.max(after, model.firstRevision) + 1; revision <= Math.min(upTo, model.revision); revision++) {
      const events = this.#expectedAt(revision);
      if (events.length > 0) return { revision, events };
    }
    return undefined;
  }

  #expectedAt(revision: number): readonly WatchEvent[] {
    const { request } = this.watch;
    const span = spanOf(request);
    return this.#truth.model.changesAt(revision).filter((event) => event.type !== request.ignore && isInside(span, event.kv.key));
  }

  #find(rule: string, what: string, message?: WatchMessage, context: readonly string[] = []): void {
    const { id, client, request } = this.watch;
    const start = request.startRevision === undefined ? 'from now' : `from ${request.startRevision}`;
    this.findings.push({
      rule: `watch-${rule}`,
      what: `watch ${id}: ${what}`,
      context: [
        `client ${client} watches ${showSpan(request)} ${start}${message === undefined ? '' : `; at ${message.time} ms`}`,
        ...context,
      ],
    });
  }
}

/** What is wrong with the events told of one revision. */
function faultOf(
  events: readonly WatchEvent[],
  expected: readonly WatchEvent[],
): { readonly rule: string; readonly what: string } | undefined {
  if (new Set(events.map((event) => event.kv.key)).size < events.length) return { rule: 'unique', what: 'an event was told twice' };
  if (events.length < expected.length) return { rule: 'atomic', what: `${events.length} of its ${expected.length} events came together` };
  for (const [at, event] of events.entries()) {
    const wanted = expected[at];
    if (wanted === undefined) return { rule: 'reliable', what: 'an event was told that never was' };
    if (wanted.kv.key !== event.kv.key && expected.some((other) => other.kv.key === event.kv.key)) {
      return { rule: 'ordered', what: 'its events are not in their order' };
    }
    if (wanted.type !== event.type || !sameKeyValue(wanted.kv, event.kv))
      return { rule: 'reliable', what: 'an event is not what happened' };
  }
  return undefined;
}

const spanOf = ({ key, end }: KeySpan): KeySpan => (end === undefined ? { key } : { key, end });
