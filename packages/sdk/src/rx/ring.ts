import type { ClientStatus } from '../connection/client-status.ts';
import type { Engine } from '../connection/engine.ts';
import { invalidArgument } from '../errors/conclave-error.ts';
import type { KeyPrefix, Target } from '../kv/key-range.ts';
import { toCounter } from '../kv/text.ts';
import { bytesMaxDefault, type QueueBounds } from '../watch/event-queue.ts';
import { type Emission, overflowOf } from '../watch/overflow.ts';
import type { WatchHub } from '../watch/watch-hub.ts';
import type { WatchOptions } from '../watch/watch-options.ts';
import { Feed, type FeedSink, type FeedSource } from './feed.ts';
import { sizeOf, Watch, type WatchPlan } from './watch.ts';

const bufferedEventsDefault = 1_000;
const plainBounds: QueueBounds<Emission> = { countMax: bufferedEventsDefault, sizeOf };

/** The Observables of a client, made over its engines. Loaded with the first client, so that importing the package does not load rxjs. */
export function watchFeed(hub: WatchHub, prefix: KeyPrefix, target: Target, options: WatchOptions): Watch<Emission> {
  const { startRevision, overflow = 'pause', onCompacted = 'fail' } = options;
  const { bufferedEventsMax: countMax = bufferedEventsDefault, bufferedBytesMax: bytesMax = bytesMaxDefault } = options;
  if (!(countMax >= 1)) throw invalidArgument(`bufferedEventsMax must be 1 or more, not ${countMax}`);
  if (!(bytesMax >= 1)) throw invalidArgument(`bufferedBytesMax must be 1 or more, not ${bytesMax}`);
  if (onCompacted !== 'fail' && onCompacted !== 'relist') throw invalidArgument(`onCompacted must be fail or relist, not ${onCompacted}`);
  const isPlain = overflow === 'pause' && countMax === bufferedEventsDefault && bytesMax === bytesMaxDefault;
  const plan: WatchPlan = {
    hub,
    prefix,
    spec: {
      ...prefix.range(target),
      prevKv: options.prevKv ?? false,
      ignore: options.ignore,
      progressNotify: options.progressNotify ?? false,
      fragment: options.fragment ?? true,
    },
    // 0 is the server's word for "from now"; ours is to leave it out.
    startRevision: startRevision === undefined ? undefined : toCounter(startRevision, 'startRevision') || undefined,
    isRelisted: onCompacted === 'relist',
    notifyCreated: options.notifyCreated ?? false,
    signal: options.signal,
    isHeld: false,
  };
  return new Watch<Emission>(plan, isPlain ? plainBounds : { countMax, bytesMax, sizeOf, overflow: overflowOf(overflow) });
}

/** The present state of the connections, then each change; completes when the client closes. */
export function statusFeed(engine: Engine): Feed<ClientStatus> {
  return new Feed<ClientStatus>(
    (sink) => {
      const tell = (status: ClientStatus): void => {
        sink.next(status);
        if (status.state === 'closed') sink.complete();
      };
      const unsubscribe = engine.onStatus(tell);
      tell(engine.status());
      return { cancel: unsubscribe, pause() {}, resume() {} };
    },
    { countMax: Number.POSITIVE_INFINITY },
  );
}

/** A feed of anything. */
export function feed<T>(open: (sink: FeedSink<T>) => FeedSource): Feed<T> {
  return new Feed<T>(open, { countMax: bufferedEventsDefault });
}
