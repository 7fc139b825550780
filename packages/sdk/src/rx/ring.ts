import { onAbort } from '../connection/abort.ts';
import type { ClientStatus } from '../connection/client-status.ts';
import type { Engine } from '../connection/engine.ts';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import type { KeyPrefix, Target } from '../kv/key-range.ts';
import { toCounter } from '../kv/text.ts';
import { toWatchEvent, type WatchCreated, WatchEvent, type WatchProgress } from '../watch/watch-event.ts';
import type { WatchHub } from '../watch/watch-hub.ts';
import type { WatchOptions } from '../watch/watch-options.ts';
import { Feed, type FeedSink, type FeedSource } from './feed.ts';

const bufferedEventsDefault = 1_000;

/** The Observables of a client, made over its engines. Loaded with the first client, so that importing the package does not load rxjs. */
export function watchFeed(
  hub: WatchHub,
  prefix: KeyPrefix,
  target: Target,
  options: WatchOptions,
): Feed<WatchEvent | WatchCreated | WatchProgress> {
  const { startRevision, signal } = options;
  const spec = {
    ...prefix.range(target),
    prevKv: options.prevKv ?? false,
    ignore: options.ignore,
    progressNotify: options.progressNotify ?? false,
    fragment: options.fragment ?? true,
  };
  // 0 is the server's word for "from now"; ours is to leave it out.
  const start = startRevision === undefined ? undefined : toCounter(startRevision, 'startRevision') || undefined;
  const bufferedMax = options.bufferedEventsMax ?? bufferedEventsDefault;
  if (!(bufferedMax >= 1)) throw invalidArgument(`bufferedEventsMax must be 1 or more, not ${bufferedMax}`);
  return new Feed<WatchEvent | WatchCreated | WatchProgress>(
    (sink) => {
      let stopListening: () => void = () => {};
      const handle = hub.watch(
        spec,
        start,
        {
          onCreated: (revision) => {
            if (options.notifyCreated === true) sink.next({ type: 'created', revision: BigInt(revision) });
          },
          onEvents: (events) => {
            for (const event of events) sink.next(toWatchEvent(event, prefix));
          },
          onProgress: (revision) => {
            if (spec.progressNotify) sink.next({ type: 'progress', revision: BigInt(revision) });
          },
          onFailure: (error) => {
            stopListening();
            sink.error(error);
          },
        },
        () => {
          stopListening();
          sink.complete();
        },
      );
      const cancel = (): void => {
        handle.cancel();
        sink.error(
          new ConclaveError({ code: 'cancelled', message: 'the watch was cancelled', outcome: 'not-applied', cause: signal?.reason }),
        );
      };
      if (signal?.aborted === true) cancel();
      else if (signal !== undefined) stopListening = onAbort(signal, cancel);
      return {
        cancel: () => {
          stopListening();
          handle.cancel();
        },
        pause: () => handle.pause(),
        resume: () => handle.resume(),
      };
    },
    { countMax: bufferedMax, sizeOf },
  );
}

/** About what an event keeps in memory. */
function sizeOf(event: WatchEvent | WatchCreated | WatchProgress): number {
  if (!(event instanceof WatchEvent)) return 0;
  const { kv, prevKv } = event;
  return kv.keyBytes.length + kv.valueBytes.length + (prevKv?.valueBytes.length ?? 0);
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
