import { type EncodedEvent, encodeBodies, type ResponseBody } from './event-encoding.ts';
import type { Subscription, Watcher } from './watcher.ts';

// Well below what clients accept in one message by default (4 MiB), and enough to make the cost of a message small.
const maxBatchBytes = 1024 * 1024;

/** One delivery of events to the watchers of a subscription. */
export interface Delivery {
  readonly events: readonly EncodedEvent[];
  /** The header's revision, as the responses' first field. */
  header(lastRevision: number): Uint8Array;
  /** Watchers that accept fragments get responses of this size in parts. */
  readonly fragmentBytes: number;
  /** Whether the watcher takes part. */
  accepts(watcher: Watcher): boolean;
  /** The watcher's stream takes nothing more; it has everything below `revision` and nothing from there on. */
  refused(watcher: Watcher, revision: number): void;
}

/**
 * Sends events to every watcher of a subscription: whole revisions, in order, each watcher only what it asked for. Several revisions share a
 * response up to a bound in bytes. What is equal for two watchers is encoded once.
 */
export function deliver(subscription: Subscription, delivery: Delivery): void {
  const { prevKv } = subscription.form;
  for (const batch of batches(delivery.events, prevKv)) deliverBatch(subscription, batch, delivery);
}

function deliverBatch(subscription: Subscription, batch: readonly EncodedEvent[], delivery: Delivery): void {
  const first = batch[0]!.revision;
  const last = batch.at(-1)!.revision;
  let shared: ResponseBody[] | undefined;
  for (const watcher of subscription.watchers) {
    if (!delivery.accepts(watcher) || watcher.next > last) continue;
    let bodies: ResponseBody[];
    if (watcher.next <= first) {
      shared ??= bodiesOf(subscription, batch, delivery);
      bodies = shared;
    } else {
      const wanted = batch.filter((event) => event.revision >= watcher.next);
      bodies = bodiesOf(subscription, wanted, delivery);
    }
    if (watcher.outlet.deliver(watcher, bodies)) watcher.isActive = true;
    else delivery.refused(watcher, Math.max(first, watcher.next));
  }
}

function bodiesOf(subscription: Subscription, batch: readonly EncodedEvent[], delivery: Delivery): ResponseBody[] {
  const { prevKv, fragment } = subscription.form;
  const header = delivery.header(batch.at(-1)!.revision);
  const fields = batch.map((event) => event.field(prevKv));
  return encodeBodies(header, fields, fragment ? delivery.fragmentBytes : undefined);
}

/** Cuts at revisions only: all events of one revision stay in one response. */
function* batches(events: readonly EncodedEvent[], prevKv: boolean): Generator<readonly EncodedEvent[]> {
  let start = 0;
  let size = 0;
  for (let at = 0; at < events.length; at++) {
    const event = events[at]!;
    if (size >= maxBatchBytes && event.revision !== events[at - 1]!.revision) {
      yield events.slice(start, at);
      start = at;
      size = 0;
    }
    size += event.field(prevKv).length;
  }
  yield start === 0 ? events : events.slice(start);
}
