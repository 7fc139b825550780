import { LeaseKeepAliveRequest, LeaseKeepAliveResponse, Lease as LeaseService } from '@conclave/protocol';
import type { Timer } from '@conclave/wire';
import type { Engine } from '../connection/engine.ts';
import { PersistentStream } from '../connection/persistent-stream.ts';
import { type Instant, now } from './instant.ts';
import { type Lease, longTimerMs } from './lease.ts';

/** What is known of the renewals of one lease on the present stream. */
interface Kept {
  readonly lease: Lease;
  /** When the unanswered renewals were sent, oldest first. The server answers each, in order. */
  unanswered: Instant[];
  timer: Timer | undefined;
}

/**
 * Renews all leases of a client over one stream, each every third of its time to live. It only asks; whether a lease is still held is the
 * lease's own reckoning.
 */
export class LeaseKeeper {
  readonly #engine: Engine;
  readonly #kept = new Map<bigint, Kept>();
  #stream: PersistentStream | undefined;

  constructor(engine: Engine) {
    this.#engine = engine;
    engine.attach(this);
    engine.meter?.hold(this);
  }

  slackMs(): number | undefined {
    let least: number | undefined;
    // Looking at a lease may end it.
    for (const { lease } of [...this.#kept.values()]) {
      const leftMs = lease.remaining();
      if (least === undefined || leftMs < least) least = leftMs;
    }
    return least;
  }

  keep(lease: Lease): void {
    // What was granted long ago, or taken over late, may be over.
    if (lease.state !== 'held') return;
    const kept: Kept = { lease, unanswered: [], timer: undefined };
    this.#kept.set(lease.id, kept);
    this.#schedule(kept);
    this.#stream ??= this.#newStream();
    // One that was taken over may be due, and may have been kept here before: on a new stream no late answer is taken for a new one's.
    if (this.#isDue(kept)) this.#stream.reopen();
    this.#stream?.open();
  }

  forget(lease: Lease): void {
    this.#kept.get(lease.id)?.timer?.cancel();
    this.#kept.delete(lease.id);
    if (this.#kept.size > 0) return;
    this.#stream?.close();
    this.#stream = undefined;
  }

  /** Nothing is renewed any more, so that nothing may be relied on either. */
  close(): void {
    for (const { lease } of [...this.#kept.values()]) lease.end('lost', 'the client was closed');
  }

  #newStream(): PersistentStream {
    return new PersistentStream(this.#engine, LeaseService.methods.leaseKeepAlive.path, {
      onOpen: () => this.#onOpen(),
      onMessage: (bytes) => this.#onBytes(bytes),
      onLost: () => {
        for (const kept of this.#kept.values()) kept.unanswered = [];
        // Whatever was said against the stream, there is nothing better to do than to try again while the leases last.
        return true;
      },
      onRefused: (err) => {
        this.#engine.runtime.log.warn({ err }, 'leases cannot be renewed; trying again while they last');
        return true;
      },
    });
  }

  /** A new stream: nobody knows which renewals of the old one were heard. A lease that was just proved can wait its turn. */
  #onOpen(): void {
    for (const kept of [...this.#kept.values()]) {
      if (this.#isDue(kept)) this.#renew(kept);
    }
  }

  #isDue({ lease }: Kept): boolean {
    return lease.remaining() < this.#intervalMs(lease) * 2;
  }

  #intervalMs(lease: Lease): number {
    return Math.min(longTimerMs, (lease.ttlSeconds * 1_000) / 3);
  }

  #schedule(kept: Kept): void {
    kept.timer?.cancel();
    kept.timer = this.#engine.runtime.timer(this.#intervalMs(kept.lease), () => this.#onTurn(kept));
  }

  #onTurn(kept: Kept): void {
    // Checked first: after a blocked event loop a lease may be past its time, and must not be renewed as if nothing had happened.
    if (kept.lease.state !== 'held') return;
    if (kept.unanswered.length > 0) {
      // A third of the time without an answer. The renewal is repeated on a new stream, if there is a way to a server at all.
      this.#schedule(kept);
      this.#warn(kept.lease, 'no answer to a renewal');
      this.#stream?.reopen();
      return;
    }
    this.#renew(kept);
  }

  #renew(kept: Kept): void {
    this.#schedule(kept);
    if (this.#stream?.isOpen !== true) {
      this.#warn(kept.lease, 'no endpoint can be reached');
      return;
    }
    kept.unanswered.push(now(this.#engine.runtime));
    this.#stream.write(LeaseKeepAliveRequest.encode({ id: kept.lease.id }));
  }

  #onBytes(bytes: Uint8Array): void {
    let response: LeaseKeepAliveResponse;
    try {
      response = LeaseKeepAliveResponse.decode(bytes);
    } catch (err) {
      this.#engine.runtime.log.warn({ err }, 'unreadable answer to a lease renewal; going on with another stream');
      this.#stream?.reopen();
      return;
    }
    this.#onMessage(response);
  }

  #onMessage(response: LeaseKeepAliveResponse): void {
    const kept = this.#kept.get(response.id);
    if (kept === undefined) return;
    const sentAt = kept.unanswered.shift();
    if (response.ttl <= 0) kept.lease.end('lost', 'the server no longer has it');
    else if (sentAt !== undefined) this.#prove(kept.lease, sentAt, response.ttl);
  }

  #prove(lease: Lease, sentAt: Instant, ttlSeconds: number): void {
    const { meter, runtime } = this.#engine;
    lease.prove(sentAt, ttlSeconds);
    meter?.metrics.leaseRenewed((runtime.monotonic() - sentAt.monotonic) / 1_000);
  }

  #warn(lease: Lease, reason: string): void {
    const slackMs = Math.round(lease.remaining());
    if (lease.state === 'held') this.#engine.runtime.log.warn({ lease: lease.id.toString(16), slackMs, reason }, 'a lease is at risk');
  }
}
