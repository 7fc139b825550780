import { Watch, type WatchCancelRequest, type WatchCreateRequest, type WatchRequest, WatchResponse, wireErrors } from '@conclave/protocol';
import { noWatch, type WatchStream } from '../mvcc/watch/watch-stream.ts';
import { headerAt, headerNow } from './header.ts';
import type { LeaderGuard } from './leader-guard.ts';
import type { ServedMember } from './member.ts';
import { type ServedStream, type ServiceRoutes, streaming } from './route.ts';

// Requests are answered even when the caller does not read, so that it can cancel what floods it; but only so many.
const maxUnreadReplies = 1000;

/** `etcdserverpb.Watch`. */
export function watchRoutes(member: ServedMember, guard: LeaderGuard): ServiceRoutes<typeof Watch> {
  return { watch: streaming(Watch.methods.watch, guard, (stream) => new WatchCall(member, stream)) };
}

/**
 * One stream of watches. It stays open when the caller sends no more, as etcd's does: events still come.
 */
class WatchCall {
  readonly #member: ServedMember;
  readonly #watches: WatchStream;

  constructor(member: ServedMember, stream: ServedStream<WatchRequest, WatchResponse>) {
    this.#member = member;
    this.#watches = member.watches.open((response) => stream.write(response));
    stream.onClosed(() => this.#watches.close());
    stream.onDrain(() => {
      this.#watches.drained();
      stream.resume();
    });
    stream.onMessage((request) => {
      this.#serve(request);
      if (this.#watches.unreadReplies > maxUnreadReplies) stream.pause();
    });
  }

  /** A request of a kind that is not known here is ignored. */
  #serve({ createRequest, cancelRequest, progressRequest }: WatchRequest): void {
    if (createRequest !== undefined) this.#create(createRequest);
    else if (cancelRequest !== undefined) this.#cancel(cancelRequest);
    else if (progressRequest !== undefined) this.#watches.requestProgress();
  }

  #create(request: WatchCreateRequest): void {
    const created = this.#watches.create(request);
    const header = headerAt(this.#member, created.revision);
    if ('refused' in created) {
      const cancelReason = wireErrors[created.refused].message;
      this.#watches.reply(WatchResponse.encode({ header, watchId: noWatch, created: true, canceled: true, cancelReason }));
    } else {
      this.#watches.reply(WatchResponse.encode({ header, watchId: created.watchId, created: true }));
    }
  }

  /** A watch that is not there is not answered for. */
  #cancel({ watchId }: WatchCancelRequest): void {
    if (!this.#watches.cancel(watchId)) return;
    this.#watches.reply(WatchResponse.encode({ header: headerNow(this.#member), watchId, canceled: true }));
  }
}
