import { type Init, type LeaseGrantRequest, type LeaseGrantResponse, Lease as LeaseService } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure } from '../connection/procedure.ts';
import { elapsedMs, type Instant, now } from './instant.ts';

/** A lease for markers, and when it was asked for. */
interface MarkerLease {
  readonly id: bigint;
  readonly ttlSeconds: number;
  readonly sentAt: Instant;
}

/**
 * Leases for keys that need not outlive a given time, and must live that long: granted for twice the time, used for half of what they last,
 * and never renewed. So the keys go by themselves, and what is left of a client that went away goes too.
 */
export class MarkerLeases {
  readonly #engine: Engine;
  readonly #leases = new Map<number, Promise<MarkerLease>>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** The id of a lease that lasts for so long from now. */
  async take(ttlSeconds: number): Promise<bigint> {
    for (;;) {
      const granted = this.#leases.get(ttlSeconds) ?? this.#grant(ttlSeconds);
      const lease = await granted;
      if (this.#isFresh(lease, ttlSeconds)) return lease.id;
      if (this.#leases.get(ttlSeconds) === granted) this.#leases.delete(ttlSeconds);
    }
  }

  /** The server does not know it any more. */
  forget(ttlSeconds: number): void {
    this.#leases.delete(ttlSeconds);
  }

  #grant(ttlSeconds: number): Promise<MarkerLease> {
    const sentAt = now(this.#engine.runtime);
    const granted = new Promise<MarkerLease>((resolve, reject) => {
      const onGranted = ({ id, ttl }: LeaseGrantResponse): void => resolve({ id, ttlSeconds: ttl, sentAt });
      this.#engine.start(grantProcedure, { ttl: ttlSeconds * 2 }, undefined, undefined, onGranted, reject);
    });
    this.#leases.set(ttlSeconds, granted);
    granted.catch(() => {
      if (this.#leases.get(ttlSeconds) === granted) this.#leases.delete(ttlSeconds);
    });
    return granted;
  }

  #isFresh(lease: MarkerLease, ttlSeconds: number): boolean {
    return elapsedMs(lease.sentAt, now(this.#engine.runtime)) <= (lease.ttlSeconds - ttlSeconds) * 1_000;
  }
}

const { path, input, output } = LeaseService.methods.leaseGrant;

const grantProcedure: Procedure<Init<LeaseGrantRequest>, LeaseGrantResponse, undefined, LeaseGrantResponse> = {
  path,
  input,
  output,
  // A lease nobody uses ends by itself.
  isRepeatable: true,
  result: (response) => response,
};
