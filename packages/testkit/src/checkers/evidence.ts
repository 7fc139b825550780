import type { History, KeyValue, Watch, WatchEvent, WatchRequest } from '../history.ts';
import { isInside } from './model.ts';
import { sameKeyValue, shownKeyValues } from './responses.ts';

/** What is known of a revision whose writer is not: from reads, and from watches. */
export interface Evidence {
  /** Key-values that somebody saw and that were written at this revision. */
  readonly written: readonly KeyValue[];
  /** Keys that began to exist at this revision, seen later. */
  readonly created: readonly string[];
  /** In their order if one watch told them all. */
  readonly events: readonly WatchEvent[];
  /** What watches that went past this revision would have told: nothing of it happened beside `events`. */
  readonly covered: readonly WatchRequest[];
}

export const noEvidence: Evidence = { written: [], created: [], events: [], covered: [] };

/** Whether a write that changes this could have been what was seen. */
export function fits({ written, created, events, covered }: Evidence, changes: readonly WatchEvent[]): boolean {
  const put = (key: string): KeyValue | undefined => changes.find((change) => change.type === 'put' && change.kv.key === key)?.kv;
  const isWritten = (kv: KeyValue): boolean => {
    const own = put(kv.key);
    return own !== undefined && sameKeyValue(own, kv);
  };
  const isDeleted = (key: string): boolean => changes.some((change) => change.type === 'delete' && change.kv.key === key);
  const isTold = ({ type, kv }: WatchEvent): boolean => events.some((event) => event.type === type && event.kv.key === kv.key);
  return (
    written.every(isWritten) &&
    created.every((key) => put(key)?.version === 1) &&
    events.every(({ type, kv }) => (type === 'put' ? isWritten(kv) : isDeleted(kv.key))) &&
    changes.every(
      (change) => isTold(change) || !covered.some((request) => change.type !== request.ignore && isInside(request, change.kv.key)),
    )
  );
}

/** Keys that are seen to have been changed. */
export function seenKeys({ written, created, events }: Evidence): string[] {
  return [...written.map((kv) => kv.key), ...created, ...events.map((event) => event.kv.key)];
}

/** What is seen to have been changed. */
export function seenChanges({ written, events }: Evidence): WatchEvent[] {
  const byKey = new Map<string, WatchEvent>();
  for (const event of events) if (!byKey.has(event.kv.key)) byKey.set(event.kv.key, event);
  for (const kv of written) if (!byKey.has(kv.key)) byKey.set(kv.key, { type: 'put', kv });
  return [...byKey.values()];
}

/** Looks through all that clients saw for what was written at the revisions in question, which ascend. */
export function gatherEvidence(history: History, inQuestion: readonly number[], settledRevision = 0): ReadonlyMap<number, Evidence> {
  const found = new Map(
    inQuestion.map((revision) => [
      revision,
      { written: [] as KeyValue[], created: [] as string[], events: [] as WatchEvent[], covered: [] as WatchRequest[] },
    ]),
  );
  const see = (kv: KeyValue): void => {
    found.get(kv.modRevision)?.written.push(kv);
    if (kv.version > 1) found.get(kv.createRevision)?.created.push(kv.key);
  };
  for (const { request, outcome } of history.operations) {
    if (outcome.status === 'ok') for (const kv of shownKeyValues(request, outcome.response)) see(kv);
  }
  for (const watch of history.watches) {
    const { byRevision, from, ...known } = told(watch);
    const isOpen = watch.messages.at(-1)?.type !== 'canceled' && watch.messages.at(-1)?.type !== 'closed';
    const to = isOpen ? Math.max(known.to, settledRevision) : known.to;
    for (const [revision, events] of byRevision) {
      for (const { prevKv } of events) if (prevKv !== undefined) see(prevKv);
      const evidence = found.get(revision);
      if (evidence === undefined) continue;
      if (seesEverything(watch.request)) evidence.events.unshift(...events);
      else evidence.events.push(...events);
    }
    for (let at = lowerBound(inQuestion, from); (inQuestion[at] ?? Number.POSITIVE_INFINITY) <= to; at++) {
      found.get(inQuestion[at] as number)?.covered.push(watch.request);
    }
  }
  return found;
}

const seesEverything = ({ key, end, ignore }: WatchRequest): boolean => end === '\0' && key <= '\0' && ignore === undefined;

/** What a watch told, and from which to which revision it told all. */
function told(watch: Watch): {
  readonly byRevision: ReadonlyMap<number, readonly WatchEvent[]>;
  readonly from: number;
  readonly to: number;
} {
  const byRevision = new Map<number, WatchEvent[]>();
  let from = watch.request.startRevision;
  let last = 0;
  let to = 0;
  for (const message of watch.messages) {
    if (message.type === 'created') from ??= message.revision + 1;
    if (message.type === 'progress') to = Math.max(to, message.revision);
    if (message.type !== 'events') continue;
    for (const event of message.events) {
      const revision = event.kv.modRevision;
      if (revision > last) to = Math.max(to, revision - 1);
      last = revision;
      const events = byRevision.get(revision);
      if (events === undefined) byRevision.set(revision, [event]);
      else events.push(event);
    }
    if (message.isFragment !== true && watch.granularity === 'response') to = Math.max(to, last);
  }
  return { byRevision, from: from ?? Number.POSITIVE_INFINITY, to };
}

function lowerBound(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
