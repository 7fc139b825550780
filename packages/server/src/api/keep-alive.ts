import type { LeaseKeepAliveRequest, LeaseKeepAliveResponse } from '@conclave/protocol';
import { headerNow } from './header.ts';
import type { ServedMember } from './member.ts';
import type { ServedStream } from './route.ts';

/** One request, in the order it came. `settle` is set once the renewal is through. */
interface Renewal {
  settle: (() => void) | undefined;
}

// Renewals under way on one stream; beyond them flow control holds the caller back.
const maxInFlight = 1000;

/** One reply for each request, in their order. Renewals run side by side: the leader's wait for one and the same
 * round of heartbeats. */
export function serveKeepAlive(member: ServedMember, stream: ServedStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>): void {
  new KeepAliveCall(member, stream);
}

class KeepAliveCall {
  readonly #member: ServedMember;
  readonly #stream: ServedStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>;
  readonly #renewals: Renewal[] = [];
  #isHalfClosed = false;
  #isFull = false;

  constructor(member: ServedMember, stream: ServedStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>) {
    this.#member = member;
    this.#stream = stream;
    stream.onMessage((request) => this.#renew(request));
    stream.onDrain(() => {
      this.#isFull = false;
      this.#regulate();
    });
    stream.onHalfClose(() => {
      this.#isHalfClosed = true;
      this.#settle();
    });
  }

  #renew({ id }: LeaseKeepAliveRequest): void {
    // Taken before renewing, so that a lease is never told to live at a revision that is later than the renewal.
    const header = headerNow(this.#member);
    const renewal: Renewal = { settle: undefined };
    this.#renewals.push(renewal);
    this.#regulate();
    this.#member.replica.renewLease(id).then(
      (ttl) => {
        renewal.settle = () => this.#reply({ header, id, ttl });
        this.#settle();
      },
      (error: unknown) => {
        renewal.settle = () => this.#stream.fail(error);
        this.#settle();
      },
    );
  }

  #reply(response: LeaseKeepAliveResponse): void {
    if (!this.#stream.write(response)) this.#isFull = true;
  }

  #settle(): void {
    let done = 0;
    while (this.#stream.isOpen && this.#renewals[done]?.settle !== undefined) this.#renewals[done++]!.settle?.();
    this.#renewals.splice(0, done);
    if (!this.#stream.isOpen) return;
    if (this.#isHalfClosed && this.#renewals.length === 0) this.#stream.end();
    else this.#regulate();
  }

  #regulate(): void {
    if (this.#isFull || this.#renewals.length >= maxInFlight) this.#stream.pause();
    else this.#stream.resume();
  }
}
