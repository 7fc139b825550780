import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import { isPassing } from '../errors/passing.ts';
import { type Comparison, key as keyOf } from '../kv/comparison.ts';
import type { KeyValue } from '../kv/key-value.ts';
import { del, get, put } from '../kv/operation.ts';
import { toBytes, toText, type Value } from '../kv/text.ts';
import type { WatchEvent } from '../watch/watch-event.ts';
import { Hold, type HoldHost } from './hold.ts';
import type { Incarnation } from './incarnation.ts';
import { patiently } from './patience.ts';
import type { HoldState } from './session-state.ts';

export interface HoldOptions {
  /**
   * What to do when somebody else has the key, now or later: `wait` until it is gone, in the state `taken`, or `overwrite` it. For a key that
   * nobody but this instance should ever write, `overwrite` gets over what an earlier run of it left behind. Default: `wait`.
   */
  readonly ifTaken?: 'wait' | 'overwrite' | undefined;
}

/** Whoever waits for a value to be in place. */
interface Waiter {
  /** The value it waits for, by number. */
  readonly nth: number;
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * A key that a session holds. It is the session's own as long as it is attached to the session's lease, or to one the session had before:
 * then it is put back when it is deleted, and the session's value wins. A key that somebody else attached elsewhere is left alone, or is
 * overwritten, as {@link HoldOptions.ifTaken} says.
 *
 * @example
 * ```ts
 * const worker = session.hold('workers/7', 'idle');
 * await worker.placed();
 * console.log(worker.key, worker.state.state); // workers/7 held
 * ```
 */
export class HeldKey extends Hold {
  readonly keyBytes: Uint8Array;
  #ifTaken: 'wait' | 'overwrite';
  readonly #waiters = new Set<Waiter>();
  #value: Uint8Array;
  /** Counts the values. */
  #nth = 0;
  /** When the key was created, as far as it is known to be in place. */
  #createRevision: bigint | undefined;
  /** The revision at which it was known to be in place last. */
  #placedRevision = 0n;
  /** The last at which a write under the session's lease was told of since it is being put. */
  #toldRevision = 0n;
  #isPutting = false;
  #stopWatching: (() => void) | undefined;

  /** @internal */
  constructor(host: HoldHost, keyBytes: Uint8Array, value: Uint8Array, ifTaken: 'wait' | 'overwrite') {
    super(host, `key ${toText(keyBytes)}`);
    this.keyBytes = keyBytes;
    this.#value = value;
    this.#ifTaken = ifTaken;
  }

  /** The key, as text. */
  get key(): string {
    return toText(this.keyBytes);
  }

  /** The value it shall have, as text. */
  get value(): string {
    return toText(this.#value);
  }

  /** The value it shall have, as bytes that are not to be written to. */
  get valueBytes(): Uint8Array {
    return this.#value;
  }

  /**
   * Gives it another value, and waits until that one, or a later one, is in place. That it rejects does not take it back: the value is put when
   * that is possible.
   *
   * @throws ConclaveError `deadline-exceeded`, `cancelled`, `hold-released`, or why it failed
   * @example
   * ```ts
   * const held = session.hold('workers/7', 'idle');
   * await held.update('busy');
   * ```
   */
  update(value: Value, options: RequestOptions = {}): Promise<void> {
    if (this.isReleased) return Promise.reject(this.released());
    this.#value = toBytes(value);
    const nth = ++this.#nth;
    this.wake('asked');
    const late = (): ConclaveError =>
      new ConclaveError({ code: 'deadline-exceeded', message: `the value of ${this.key} was not in place in time`, outcome: 'unknown' });
    return patiently<void>(this.host.engine, options, late, (resolve, reject) => {
      const waiter: Waiter = { nth, resolve, reject };
      this.#waiters.add(waiter);
      return () => this.#waiters.delete(waiter);
    });
  }

  /** @internal Declared by a predecessor, and declared again. */
  adopt(value: Uint8Array, ifTaken: 'wait' | 'overwrite'): void {
    this.#value = value;
    this.#ifTaken = ifTaken;
    this.#nth++;
    this.set({ state: 'pending' });
    this.wake('asked');
  }

  protected async establish(incarnation: Incarnation): Promise<HoldState> {
    for (;;) {
      const nth = this.#nth;
      try {
        this.#isPutting = true;
        this.#toldRevision = 0n;
        const state = await this.#put(incarnation, this.#value);
        if (state.state === 'held') this.#settle((waiter) => waiter.nth <= nth && waiter.resolve());
        // It is in place with the value it shall have, and not with one that was overtaken meanwhile.
        if (state.state !== 'held' || nth === this.#nth || !this.isCurrent(incarnation)) return state;
      } catch (error) {
        // The server lets every key of the lease go, and says so here before the next renewal would.
        if (isConclaveError(error, 'lease-not-found')) incarnation.lease.end('lost', 'the server no longer has it', error);
        if (!isPassing(error) && incarnation.lease.state === 'held') this.#settle((waiter) => waiter.nth <= nth && waiter.reject(error));
        throw error;
      } finally {
        this.#isPutting = false;
      }
    }
  }

  protected async remove({ lease, guards }: Incarnation): Promise<boolean> {
    const own: Comparison[] = [keyOf(this.keyBytes).lease.equals(lease.id)];
    // Not a later key of the same name.
    if (this.#createRevision !== undefined) own.push(keyOf(this.keyBytes).createRevision.equals(this.#createRevision));
    const result = await this.host.namespace
      .txn()
      .if(...guards, ...own)
      .then(del(this.keyBytes))
      .else(get(this.keyBytes))
      .commit();
    if (result.succeeded) return true;
    const [kv] = result;
    const isOwn = kv?.lease === lease.id && (this.#createRevision === undefined || kv.createRevision === this.#createRevision);
    // It is here, so that it was a guard that did not hold: the session's own key is missing, and comes back.
    return !isOwn;
  }

  protected onRelease(): void {
    // What is being put is awaited, and deleted then.
  }

  protected unlisten(): void {
    this.#stopWatching?.();
    this.#stopWatching = undefined;
    if (this.isReleased) this.#settle((waiter) => waiter.reject(this.released()));
  }

  async #put(incarnation: Incarnation, value: Uint8Array): Promise<HoldState> {
    const { lease, guards } = incarnation;
    const { namespace } = this.host;
    const asHeld = put(this.keyBytes, value, { lease });
    // Given up with the lease: one that lands later finds a guard that does not hold, or the key as it was put since.
    const { signal } = lease;
    const created = await namespace
      .txn()
      .if(...guards, keyOf(this.keyBytes).missing())
      .then(asHeld)
      .else(get(this.keyBytes))
      .commit({ signal });
    if (created.succeeded) return this.#placed(incarnation, created.revision, created.revision);
    const [kv] = created;
    // Nothing is there, so that it was a guard that did not hold: the session's own key is missing, and comes back.
    if (kv === undefined) return { state: 'pending' };
    if (kv.lease === lease.id && Buffer.compare(kv.valueBytes, value) === 0)
      return this.#placed(incarnation, kv.createRevision, created.revision);
    if (!this.#mayReplace(kv, incarnation)) {
      this.#watch(incarnation, created.revision + 1n);
      return { state: 'taken', kv };
    }
    const replaced = await namespace
      .txn()
      .if(...guards, keyOf(this.keyBytes).modRevision.equals(kv.modRevision))
      .then(asHeld)
      .commit({ signal });
    return replaced.succeeded ? this.#placed(incarnation, kv.createRevision, replaced.revision) : { state: 'pending' };
  }

  #mayReplace(kv: KeyValue, { lease, formerLeases }: Incarnation): boolean {
    return kv.lease === lease.id || formerLeases.has(kv.lease) || this.#ifTaken === 'overwrite';
  }

  #placed(incarnation: Incarnation, createRevision: bigint, revision: bigint): HoldState {
    this.#createRevision = createRevision;
    this.#placedRevision = revision;
    // Somebody wrote to it after that, and was told of before the answer came.
    if (this.#toldRevision > revision) this.wake('disturbed');
    this.#watch(incarnation, revision + 1n);
    return { state: 'held' };
  }

  /** One watch for as long as the lease lasts: what it tells from before the key was put last only makes for another look. */
  #watch(incarnation: Incarnation, startRevision: bigint): void {
    if (this.#stopWatching !== undefined || !this.isCurrent(incarnation)) return;
    const subscription = this.host.namespace.watch(this.keyBytes, { startRevision }).subscribe({
      next: (event) => this.#onEvent(event, incarnation),
      error: (error: unknown) => {
        this.#stopWatching = undefined;
        // Looking again tells, and starts from there.
        if (isConclaveError(error, 'compacted')) this.wake('disturbed');
        else this.host.namespace.runtime.log.warn({ err: error, key: this.key }, 'a key that a session holds is not watched');
      },
    });
    this.#stopWatching = () => subscription.unsubscribe();
  }

  #onEvent(event: WatchEvent, { lease }: Incarnation): void {
    if (event.type === 'put' && event.kv.lease === lease.id) {
      this.#toldRevision = event.revision;
      // It is the session's own, or may be what is being put: the answer tells.
      if (this.#isPutting || event.revision <= this.#placedRevision) return;
    }
    if (this.state.state === 'held') this.set({ state: 'pending' });
    this.wake('disturbed');
  }

  #settle(tell: (waiter: Waiter) => void): void {
    for (const waiter of [...this.#waiters]) tell(waiter);
  }
}
