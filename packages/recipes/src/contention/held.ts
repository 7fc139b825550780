import { setMaxListeners } from 'node:events';
import { type Comparison, type ConclaveError, isConclaveError } from '@conclave/sdk';
import { recipeError } from './kind.ts';
import { guardOf, leave, type Place } from './place.ts';
import { isTransient, pauseMs } from './scope.ts';
import { disclaim } from './shared-lease.ts';

/**
 * What a lock and a leadership have in common: the first place in a queue, as long as its key and its lease live.
 *
 * It is judged on use as well as by events: a process that was paused past its lease learns of the loss from the first `signal`, `token` or
 * `guard` it reads, before any timer has run.
 */
export class Held implements AsyncDisposable {
  readonly name: string;
  /** The key that holds the place: `<name>/<lease id in hex>`. */
  readonly key: string;
  protected readonly place: Place;
  readonly #controller = new AbortController();
  #stopWatching: (() => void) | undefined;
  #onLeaseEnd: (() => void) | undefined;
  #release: Promise<void> | undefined;

  /** @internal */
  constructor(place: Place, revision: bigint) {
    this.place = place;
    this.name = place.name;
    this.key = place.key;
    // Whatever the place guards listens to it, and that may be much.
    setMaxListeners(0, this.#controller.signal);
    const onLeaseEnd = (): void => this.#lose('its lease ended', place.lease.signal.reason);
    place.lease.signal.addEventListener('abort', onLeaseEnd, { once: true });
    this.#onLeaseEnd = onLeaseEnd;
    this.#watchOwnKey(revision + 1n);
    this.#check();
  }

  /** True while the place is held by the local reckoning, which errs on the early side. */
  get isHeld(): boolean {
    this.#check();
    return !this.#controller.signal.aborted;
  }

  /**
   * Aborted when the place is lost or given back: what it guards must stop. The reason is a ConclaveError whose code says which. A signal
   * that was read earlier aborts in the next timer phase after a pause; reading it anew tells at once.
   */
  get signal(): AbortSignal {
    this.#check();
    return this.#controller.signal;
  }

  /**
   * The fencing token: higher for every later holder of the name. Hand it to whatever the place protects, and have that refuse lower ones.
   *
   * @throws ConclaveError `lock-lost`, `lock-released`, `leadership-lost`, `leadership-resigned`; `cancelled` once `lead` was told to stop
   */
  get token(): bigint {
    this.assertHeld();
    return this.place.token;
  }

  /**
   * Holds, as a condition of a transaction, exactly while this place is held: a write with it cannot come too late, and not after a hand-over of
   * the session that the place stands on either. It names the key as the client or namespace knows it that the place was taken with; in a transaction of
   * another namespace it never holds.
   *
   * @throws ConclaveError as `token`
   * @example
   * ```ts
   * const { succeeded } = await client.txn().if(held.guard).then(put('report', 'done')).commit();
   * ```
   */
  get guard(): Comparison {
    this.assertHeld();
    return guardOf(this.place);
  }

  /** Throws the reason of `signal` unless the place is held. */
  assertHeld(): void {
    this.#check();
    this.#controller.signal.throwIfAborted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.giveBack();
    } catch {
      // Nothing renews the lease any more, so the place ends with it; leaving a scope must not fail for that.
    }
  }

  /** Aborts `signal` while the key still holds the place: whoever works under it is asked to stop before anybody else may start. */
  protected interrupt(reason: ConclaveError): void {
    if (!this.#controller.signal.aborted) this.#controller.abort(reason);
    this.#stopWatching?.();
    this.#stopWatching = undefined;
  }

  /** The place turned out to be somebody else's, or nobody's. Why it is not held, also when that was known before. */
  protected lost(why: string): ConclaveError {
    this.#lose(why);
    return this.#controller.signal.reason;
  }

  /** Deletes the key, once, however often it is called. */
  protected giveBack(): Promise<void> {
    this.#release ??= this.#giveBack();
    return this.#release;
  }

  async #giveBack(): Promise<void> {
    const { kind } = this.place;
    this.interrupt(recipeError(kind.ended, `${kind.noun} ${this.name} was given back`));
    this.#stopListening();
    await leave(this.place);
    this.#disclaim();
  }

  #check(): void {
    // Reading the lease's state makes it look at the clock; if its time is over it aborts its signal there and then.
    if (this.place.lease.state !== 'held') this.#lose('its lease ended', this.place.lease.signal.reason);
  }

  #lose(why: string, cause?: unknown): void {
    const { kind, client, key: own } = this.place;
    this.interrupt(recipeError(kind.lost, `${kind.noun} ${this.name}: ${why}`, cause));
    this.#stopListening();
    // A lease of its own has no other use. Left alone it would be renewed for ever.
    if (!this.place.ownsLease) {
      this.#disclaim();
      return;
    }
    this.#release ??= leave(this.place).catch((error: unknown) => {
      client.runtime.log.warn({ err: error, key: own }, `the lease of a lost ${kind.noun} was not revoked; it ends with its time`);
    });
  }

  #disclaim(): void {
    if (!this.place.ownsLease) disclaim(this.place);
  }

  #stopListening(): void {
    if (this.#onLeaseEnd !== undefined) this.place.lease.signal.removeEventListener('abort', this.#onLeaseEnd);
    this.#onLeaseEnd = undefined;
  }

  /** Somebody may delete the key by hand: then the place is lost though the lease lives. */
  #watchOwnKey(startRevision: bigint): void {
    const { client, kind } = this.place;
    const subscription = client.watch(this.key, { startRevision, ignore: 'put' }).subscribe({
      next: () => this.#lose('its key was deleted'),
      error: (error: unknown) => {
        if (isConclaveError(error, 'compacted')) void this.#lookAgain();
        // The lease still tells of every other loss.
        else client.runtime.log.warn({ err: error, key: this.key }, `the key of a held ${kind.noun} is no longer watched`);
      },
    });
    this.#stopWatching = () => subscription.unsubscribe();
  }

  async #lookAgain(): Promise<void> {
    const { client, lease } = this.place;
    for (let attempt = 0; !this.#controller.signal.aborted; attempt += 1) {
      try {
        const { kvs, revision } = await client.list(this.key, { signal: lease.signal });
        if (this.#controller.signal.aborted) return;
        if (kvs[0]?.createRevision !== this.place.token) this.#lose('its key was deleted');
        else this.#watchOwnKey(revision + 1n);
        return;
      } catch (error) {
        if (!isTransient(error)) {
          client.runtime.log.warn({ err: error, key: this.key }, `the key of a held ${this.place.kind.noun} is no longer watched`);
          return;
        }
        await new Promise<void>((resolve) => void client.runtime.timer(pauseMs(client, attempt), resolve, { background: true }));
      }
    }
  }
}
