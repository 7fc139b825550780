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
  return (
    written.every((kv) => isPut(changes, kv)) &&
    created.every((key) => changes.some((change) => change.type === 'put' && change.kv.key === key && change.kv.version === 1)) &&
    events.every((event) => (event.type === 'put' ? isPut(changes, event.kv) : isAmong(changes, event))) &&
    changes.every(
      (change) => isAmong(events, change) || !covered.some((request) => change.type !== request.ignore && isInside(request, change.kv.key)),
    )
  );
}

function isPut(changes: readonly WatchEvent[], kv: KeyValue): boolean {
  return changes.some((change) => change.type === 'put' && sameKeyValue(change.kv, kv));
}

function isAmong(events: readonly WatchEvent[], { type, kv }: WatchEvent): boolean {
  return events.some((event) => event.type === type && event.kv.key === kv.key);
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
  // What saw everything saw it in its order: it goes first.
  for (const watch of history.watches.toSorted((a, b) => Number(seesEverything(b.request)) - Number(seesEverything(a.request)))) {
    for (const message of watch.messages) {
      if (message.type !== 'events') continue;
      for (const event of message.events) {
        found.get(event.kv.modRevision)?.events.push(event);
        if (event.prevKv !== undefined) see(event.prevKv);
      }
    }
    const { from, to } = toldBetween(watch, settledRevision);
    for (let at = lowerBound(inQuestion, from); (inQuestion[at] ?? Number.POSITIVE_INFINITY) <= to; at++) {
      found.get(inQuestion[at] as number)?.covered.push(watch.request);
    }
  }
  return found;
}

const seesEverything = ({ key, end, ignore }: WatchRequest): boolean => end === '\0' && key <= '\0' && ignore === undefined;

/** From which to which revision a watch told all. */
function toldBetween(watch: Watch, settledRevision: number): { readonly from: number; readonly to: number } {
  let from = watch.request.startRevision;
  let last = 0;
  let to = 0;
  for (const message of watch.messages) {
    if (message.type === 'created') from ??= message.revision + 1;
    else if (message.type === 'progress') to = Math.max(to, message.revision);
    if (message.type !== 'events') continue;
    const newest = message.events.at(-1)?.kv.modRevision ?? last;
    const isWhole = message.isFragment !== true && watch.granularity === 'response';
    if (newest > last) to = Math.max(to, isWhole ? newest : newest - 1);
    else if (isWhole) to = Math.max(to, last);
    last = newest;
  }
  const end = watch.messages.at(-1)?.type;
  const isOpen = end !== 'canceled' && end !== 'closed';
  return { from: from ?? Number.POSITIVE_INFINITY, to: isOpen ? Math.max(to, settledRevision) : to };
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
