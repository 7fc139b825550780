import { type Event, Event_EventType as EventType } from '@conclave/protocol';
import type { ConclaveError } from '../errors/conclave-error.ts';
import type { WireRange } from '../kv/key-range.ts';
import { Watcher } from '../watch/watcher.ts';

/**
 * One range of a view, and the watch of it.
 *
 * Invariant: every change of the range up to `through` has come, and is in the view or waits here until the other ranges have come as far.
 */
export class ViewPart {
  readonly range: WireRange;
  readonly watcher: Watcher;
  isStanding = false;
  #through: number;
  #count: number;
  #waiting: Event[] = [];

  constructor(
    id: number,
    range: WireRange,
    revision: number,
    count: number,
    onNews: () => void,
    onFailure: (error: ConclaveError) => void,
  ) {
    this.range = range;
    this.#through = revision;
    this.#count = count;
    const spec = { ...range, prevKv: false, ignore: undefined, progressNotify: false, fragment: true, startsEarly: true };
    this.watcher = new Watcher(id, spec, revision + 1, {
      onCreated: () => {},
      onEvents: (events) => {
        for (const event of events) this.#keep(event);
        this.#through = Math.max(this.#through, revisionOf(events.at(-1)));
        onNews();
      },
      onProgress: (progress) => {
        this.#through = Math.max(this.#through, progress);
        onNews();
      },
      onFailure,
    });
  }

  get through(): number {
    return this.#through;
  }

  /** How many keys the range has, at {@link through}. */
  get count(): number {
    return this.#count;
  }

  /** Whether there are changes that wait for the other ranges. */
  get isAhead(): boolean {
    return this.#waiting.length > 0;
  }

  /** All changes up to `revision` have come, as is known otherwise than from the watch. */
  pass(revision: number): void {
    if (this.watcher.pass(revision)) this.#through = Math.max(this.#through, revision);
  }

  /** Gives the changes up to `revision` out. */
  take(revision: number): readonly Event[] {
    const waiting = this.#waiting;
    const later = waiting.findIndex((event) => revisionOf(event) > revision);
    this.#waiting = later === -1 ? [] : waiting.slice(later);
    return later === -1 ? waiting : waiting.slice(0, later);
  }

  #keep(event: Event): void {
    this.#waiting.push(event);
    if (event.type === EventType.DELETE) this.#count--;
    else if (isCreation(event)) this.#count++;
  }
}

function isCreation(event: Event): boolean {
  return event.kv?.version === 1;
}

export function revisionOf(event: Event | undefined): number {
  return event?.kv?.modRevision ?? 0;
}
