import { ConclaveError } from '../errors/conclave-error.ts';
import { idOf } from '../kv/text.ts';
import type { Overflow } from './event-queue.ts';
import { type WatchCreated, WatchEvent, type WatchProgress, type WatchResync } from './watch-event.ts';
import type { WatchOptions } from './watch-options.ts';

export type Emission = WatchEvent | WatchCreated | WatchProgress | WatchResync;

export function overflowOf(how: NonNullable<WatchOptions['overflow']>): Overflow<Emission> | undefined {
  switch (how) {
    case 'pause':
      return undefined;
    case 'conflate':
      return { how, conflate };
    case 'fail':
      return { how, errorFor };
  }
}

/** Of each key's events the last, of the words of progress the last: in order, with the number and the beginning of what is left out. */
function conflate(values: readonly Emission[]): Emission[] {
  const latest = new Map<string, Conflated>();
  const kept: (Conflated | Exclude<Emission, WatchEvent>)[] = [];
  let isProgressKept = false;
  for (const value of values.toReversed()) {
    if (!(value instanceof WatchEvent)) {
      if (value.type === 'progress' && isProgressKept) continue;
      if (value.type === 'progress') isProgressKept = true;
      kept.push(value);
      continue;
    }
    const id = idOf(value.kv.keyBytes);
    const later = latest.get(id);
    if (later === undefined) {
      const conflated = { event: value, first: value, count: value.conflated };
      latest.set(id, conflated);
      kept.push(conflated);
    } else {
      later.first = value;
      later.count += 1 + value.conflated;
    }
  }
  return kept.reverse().map((one) => ('event' in one ? toEvent(one) : one));
}

/** The events of one key that wait. */
interface Conflated {
  readonly event: WatchEvent;
  first: WatchEvent;
  /** How many are left out. */
  count: number;
}

function toEvent({ event, first, count }: Conflated): WatchEvent {
  return first === event ? event : event.withConflated(count, first.prevKv);
}

/** The events of one revision belong together: whoever goes on after the last one told must not miss its siblings. */
function errorFor(value: Emission, last: Emission): ConclaveError<'watch-overflow'> | undefined {
  if (!(value instanceof WatchEvent) || value.revision === last.revision) return undefined;
  return new ConclaveError({
    code: 'watch-overflow',
    message: `more changes wait than the watch may keep for a slow loop; all up to revision ${last.revision} were told`,
    outcome: 'not-applied',
    details: { revision: last.revision },
  });
}
