import { type ConclaveError, type Namespace, put, type Value } from '@conclave/sdk';
import { type ContendOptions, contend } from '../contention/contend.ts';
import { Held } from '../contention/held.ts';
import { electionKind } from '../contention/kind.ts';
import { writeTo } from '../contention/place.ts';

export interface CampaignOptions extends ContendOptions {
  /** What observers learn of the leader. Default: empty. */
  readonly value?: Value | undefined;
}

/**
 * A leadership, until it is resigned or lost.
 *
 * @example
 * ```ts
 * const leadership = await campaign(client, 'scheduler', { value: 'starting' });
 * await leadership.proclaim('10.0.0.7:8080'); // what observers see from now on
 * leadership.assertHeld();
 * await leadership.resign();
 * ```
 */
export class Leadership extends Held {
  /**
   * Changes what observers see, without giving up the leadership.
   *
   * @throws ConclaveError `leadership-lost`, `leadership-resigned`, `unavailable`, `deadline-exceeded`; on the lease of a session `guard-failed` while the
   * session's own key is missing
   */
  async proclaim(value: Value): Promise<void> {
    this.assertHeld();
    const { lease } = this.place;
    if (!(await writeTo(this.place, put(this.key, value, { lease })))) throw this.lost('its key was deleted');
  }

  /**
   * Gives the leadership back, so that the next candidate follows at once. Idempotent. When it rejects, that is in doubt; the leadership ends
   * at the latest with its lease.
   *
   * @throws ConclaveError `unavailable`, `deadline-exceeded`
   */
  resign(): Promise<void> {
    return this.giveBack();
  }

  /** @internal Asks whoever works under this leadership to stop; nobody else may start before it is resigned. */
  stop(reason: ConclaveError): void {
    this.interrupt(reason);
  }
}

/**
 * Campaigns in the election `name` and resolves once elected: candidates lead in the order in which they came. Contends with `etcdctl elect`
 * and everything built on etcd's Go election.
 *
 * As with a lock, a leader that was paused may not know yet that it is none: use `signal`, `token` and `guard`.
 *
 * @throws ConclaveError `campaign-timeout`, `cancelled`, `leadership-lost`, `lease-in-use`, `unavailable`, `deadline-exceeded`
 * @example
 * ```ts
 * import { hostname } from 'node:os';
 *
 * const leadership = await campaign(client, 'scheduler', { value: hostname() });
 * leadership.signal.addEventListener('abort', () => scheduler.stop());
 * ```
 */
export async function campaign(client: Namespace, name: string, options: CampaignOptions = {}): Promise<Leadership> {
  const { place, revision } = await contend(client, electionKind, name, options.value ?? '', options);
  return new Leadership(place, revision);
}
