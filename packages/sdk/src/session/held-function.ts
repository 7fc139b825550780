import { onAbort } from '../connection/abort.ts';
import { isConclaveError } from '../errors/conclave-error.ts';
import type { Comparison } from '../kv/comparison.ts';
import type { Lease } from '../lease/lease.ts';
import { Hold, type HoldHost } from './hold.ts';
import type { Incarnation } from './incarnation.ts';
import type { HoldState } from './session-state.ts';

/** What a function that a session holds is given. */
export interface Establishing {
  /** The session's present lease, to put keys under. */
  readonly lease: Lease;
  /** Aborted when the lease is over, the session was handed over, or this is released. Then nobody waits for the function any more. */
  readonly signal: AbortSignal;
}

/**
 * Establishes something under the session's lease: once for each lease the session has. May return how to take it away again, which is called
 * when it is released while the lease lives; at the end of a lease its keys go by themselves.
 *
 * It should return when it is in place: what lasts, such as waiting to be elected, is begun here and not awaited. An error that may pass
 * is tried again; any other makes the state `failed`.
 */
export type Establish = (establishing: Establishing) => Promise<undefined | (() => Promise<void>)>;

/**
 * Something that a function establishes for a session.
 *
 * @example
 * ```ts
 * const pair = session.hold(async ({ lease }) => {
 *   // Both or none, and both go with the lease.
 *   await client.txn().then(put('workers/7', 'idle', { lease }), put('zones/eu-1/7', '', { lease })).commit();
 * });
 * await pair.placed();
 * ```
 */
export class HeldFunction extends Hold {
  readonly #establish: Establish;
  #controller: AbortController | undefined;
  #takeAway: (() => Promise<void>) | undefined;
  #stopListening: () => void = () => {};

  /** @internal */
  constructor(host: HoldHost, establish: Establish) {
    super(host, establish.name === '' ? 'what a function establishes' : establish.name);
    this.#establish = establish;
  }

  protected async establish({ lease, guards }: Incarnation): Promise<HoldState> {
    lease.assertHeld();
    const controller = new AbortController();
    this.#controller?.abort();
    this.#controller = controller;
    this.#takeAway = undefined;
    this.#stopListening();
    this.#stopListening = onAbort(lease.signal, () => controller.abort(lease.signal.reason));
    // Not waited for beyond its signal: one that does not heed it must not stand in the way of the next lease.
    const aborted = new Promise<never>((_, reject) => {
      onAbort(controller.signal, () => reject(controller.signal.reason));
    });
    const established = this.#establish({ lease, signal: controller.signal });
    try {
      this.#takeAway = await Promise.race([established, aborted]);
    } catch (error) {
      Promise.resolve(established).then((takeAway) => this.#onLate(takeAway, lease), ignore);
      // The function may have leases of its own. If it is the session's that is gone, so is the session's key, and whoever watches that ends it.
      if (isConclaveError(error, 'lease-not-found') && !(await this.#holds(guards))) return { state: 'pending' };
      throw error;
    }
    return { state: 'held' };
  }

  protected async remove(): Promise<boolean> {
    await this.#takeAway?.();
    return true;
  }

  protected onRelease(): void {
    this.#stopListening();
    this.#controller?.abort(this.released());
  }

  protected unlisten(): void {
    if (this.isReleased) this.onRelease();
  }

  async #holds(guards: readonly Comparison[]): Promise<boolean> {
    const { succeeded } = await this.host.namespace
      .txn()
      .if(...guards)
      .commit();
    return succeeded;
  }

  /** Released while it was being established, it was not waited for: what came of it would stay for as long as the session lives. */
  #onLate(takeAway: (() => Promise<void>) | undefined, lease: Lease): void {
    if (!this.isReleased || takeAway === undefined || lease.state !== 'held') return;
    takeAway().catch((error: unknown) => {
      this.host.engine.runtime.log.warn({ err: error }, 'what a session established was not taken away; it goes with its lease');
    });
  }
}

function ignore(): void {}
