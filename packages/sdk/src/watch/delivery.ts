import type { Event } from '@conclave/protocol';
import type { KeyPrefix } from '../kv/key-range.ts';
import type { KeyValue } from '../kv/key-value.ts';
import { toWatchEvent, type WatchEvent } from './watch-event.ts';

/** What a consumer is given: each delivery once its effect of the one before is written. */
export type Delivery = EventsDelivery | ResyncDelivery;

/** What happened: whole revisions, in order. */
export interface EventsDelivery {
  readonly type: 'events';
  /** The last revision of the events. */
  readonly revision: bigint;
  readonly events: readonly WatchEvent[];
}

/**
 * Everything there is at one revision, in place of how it came to be: what the consumer knows of and is not here is gone.
 *
 * `started`: this cursor was not there before. `compacted`: the history between the cursor and this revision is gone.
 */
export interface ResyncDelivery {
  readonly type: 'resync';
  readonly reason: 'started' | 'compacted';
  readonly revision: bigint;
  readonly kvs: readonly KeyValue[];
}

/** All events of one revision; none: nothing happened up to it. */
interface Step {
  readonly revision: number;
  readonly events: Event[];
}

/** What a watch told and the consumer has not been given yet, by revision. */
export class DeliveryQueue {
  readonly #steps: Step[] = [];
  #size = 0;

  /** How many events wait. */
  get size(): number {
    return this.#size;
  }

  get isEmpty(): boolean {
    return this.#steps.length === 0;
  }

  push(events: readonly Event[]): void {
    for (const event of events) {
      const revision = event.kv?.modRevision ?? 0;
      const last = this.#steps.at(-1);
      if (last?.revision === revision) last.events.push(event);
      else this.#steps.push({ revision, events: [event] });
    }
    this.#size += events.length;
  }

  pass(revision: number): void {
    if ((this.#steps.at(-1)?.revision ?? 0) < revision) this.#steps.push({ revision, events: [] });
  }

  /** As many whole revisions as have no more than so many events together, and at least one. */
  take(eventsMax: number, prefix: KeyPrefix): EventsDelivery {
    const taken: Event[] = [];
    let revision = 0;
    for (let step = this.#steps[0]; step !== undefined; step = this.#steps[0]) {
      // That nothing happened after them is no part of a delivery: given again, the same events have the same revision.
      if (taken.length > 0 && (step.events.length === 0 || taken.length + step.events.length > eventsMax)) break;
      this.#steps.shift();
      taken.push(...step.events);
      revision = step.revision;
    }
    this.#size -= taken.length;
    return { type: 'events', revision: BigInt(revision), events: taken.map((event) => toWatchEvent(event, prefix)) };
  }
}
