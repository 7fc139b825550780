import type { ConnectionState, Logger } from '@conclave/wire';
import type { Meter } from '../metrics/meter.ts';

/** Tells what becomes of the endpoints: the metrics every change, the log what an operator wants to know of it, and that once. */
export class EndpointJournal {
  readonly #log: Logger;
  readonly #meter: Meter | undefined;
  /** Whether each endpoint was ready when it was last told of. */
  readonly #wasReady = new Map<string, boolean>();

  constructor(log: Logger, meter: Meter | undefined) {
    this.#log = log;
    this.#meter = meter;
  }

  /** The endpoints are others from now on. */
  replace(before: readonly string[], after: readonly string[]): void {
    const added = after.filter((endpoint) => !before.includes(endpoint));
    const removed = before.filter((endpoint) => !after.includes(endpoint));
    if (added.length === 0 && removed.length === 0) return;
    for (const endpoint of removed) this.#wasReady.delete(endpoint);
    this.#log.info({ added, removed }, 'the endpoints are others now');
  }

  change(endpoint: string, state: ConnectionState, reason: string | undefined): void {
    this.#meter?.endpointChanged(endpoint, state);
    const wasReady = this.#wasReady.get(endpoint);
    if (state === 'ready') {
      this.#wasReady.set(endpoint, true);
      if (wasReady !== true) this.#log.info({ endpoint }, 'an endpoint is ready');
    } else if (wasReady === true) {
      this.#wasReady.set(endpoint, false);
      this.#log.warn({ endpoint, reason: reason ?? 'the connection ended' }, 'an endpoint was lost');
    } else if (state === 'failed') {
      this.#wasReady.set(endpoint, false);
      const again = wasReady === false;
      this.#log[again ? 'debug' : 'warn'](
        { endpoint, reason },
        again ? 'an endpoint still cannot be reached' : 'an endpoint cannot be reached',
      );
    }
  }
}
