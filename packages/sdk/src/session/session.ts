import { drawId } from '../connection/draw-id.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { TimeLimit } from '../connection/time-limit.ts';
import { invalidArgument } from '../errors/conclave-error.ts';
import { type Comparison, key } from '../kv/comparison.ts';
import { del } from '../kv/operation.ts';
import { type Key, toBytes, type Value } from '../kv/text.ts';
import type { Lease } from '../lease/lease.ts';
import type { Feed } from '../rx/feed.ts';
import { type Establish, HeldFunction } from './held-function.ts';
import { HeldKey, type HoldOptions } from './held-key.ts';
import type { Hold } from './hold.ts';
import { persist } from './persist.ts';
import type { SessionKeeper } from './session-keeper.ts';
import { expired, type SessionMark } from './session-mark.ts';
import type { SessionState } from './session-state.ts';
import { type SessionToken, writeToken } from './session-token.ts';

/** A hand-over that was begun. */
interface Offer {
  readonly lease: bigint;
  readonly mark: SessionMark;
  readonly owner: string;
  readonly claim: string;
  /** Who it is the session's if it is taken back. */
  readonly nextOwner: string;
  readonly keys: readonly Uint8Array[];
}

/**
 * A lease that is kept as desired state: lost, it is granted anew, and what was declared with {@link Session.hold} is put in place again. Made by
 * {@link Namespace.session}.
 *
 * Presence heals, ownership does not: a lock or a leadership that stands on {@link Session.lease} is lost with that lease, and is not taken
 * again by the session.
 *
 * @example
 * ```ts
 * await using presence = await client.session({ ttlSeconds: 10 });
 * await presence.hold('workers/7', 'alive').placed();
 * presence.signal.addEventListener('abort', () => console.log('nobody can count on our keys any more'));
 * ```
 */
export class Session implements AsyncDisposable {
  readonly #keeper: SessionKeeper;
  /** Held for whoever handed the session over; given out to who holds the same key here. */
  readonly #inherited = new Set<HeldKey>();
  #offer: Offer | undefined;
  #takingBack: Promise<void> | undefined;
  #close: Promise<void> | undefined;

  /** @internal */
  constructor(keeper: SessionKeeper) {
    this.#keeper = keeper;
  }

  /** How the session is now: the clock is looked at. */
  get state(): SessionState {
    this.#keeper.check();
    return this.#keeper.teller.state;
  }

  /**
   * The present {@link SessionState}, then each change of it. Completes when the session has ended.
   *
   * @example
   * ```ts
   * session.status().subscribe(({ state, at }) => {
   *   if (state === 'lost') console.log('since', new Date(at), 'nobody counts on our keys');
   * });
   * ```
   */
  status(): Feed<SessionState> {
    return this.#keeper.teller.status();
  }

  /**
   * The present lease, to put keys under and to stand a lock or an election on. Keys that are put under it go with it: what shall be there as
   * long as the session lives is {@link Session.hold}'s.
   *
   * @throws ConclaveError `lease-lost` while there is none, `lease-handed-over`, `session-closed`
   */
  get lease(): Lease {
    return this.#keeper.live().lease;
  }

  /**
   * Aborted when the present lease is over. After a loss this is another signal, once the session has another lease; until then the aborted one.
   */
  get signal(): AbortSignal {
    return this.#keeper.current?.lease.signal ?? AbortSignal.abort(this.#keeper.gone());
  }

  /**
   * Holds, as a condition of a transaction, exactly while the session has this lease and was not handed over: a write with it cannot come too
   * late. In any namespace.
   *
   * @throws ConclaveError as {@link Session.lease}
   * @example
   * ```ts
   * const { succeeded } = await client.txn().if(session.guard).then(put('report', 'done')).commit();
   * ```
   */
  get guard(): Comparison {
    return this.#keeper.live().guards[0] as Comparison;
  }

  /** For how much longer the lease can be relied on if no renewal gets through, in milliseconds; 0 while there is none. */
  get slackMs(): number {
    return this.#keeper.current?.lease.remaining() ?? 0;
  }

  /** What the session holds, in the order in which it was declared. */
  get holds(): readonly Hold[] {
    return [...this.#keeper.holds];
  }

  /**
   * The lowest {@link Session.slackMs} since this was called last, or since the session was opened; 0 if it lost its lease meanwhile. For metrics.
   *
   * @example
   * ```ts
   * console.log(session.takeLowestSlackMs() > 5_000); // true
   * ```
   */
  takeLowestSlackMs(): number {
    return this.#keeper.meter.takeLowestMs();
  }

  /**
   * Declares a key that shall be there, with this value, for as long as the session lives: it is put under the present lease and under each
   * that follows, and again when somebody deletes it. Or declares anything that a function establishes under a lease, see {@link Establish}.
   *
   * Returns at once; {@link Hold.placed} waits. A key that the session took over with a {@link SessionToken} is given out here, with the new
   * value. Somebody else's key is left alone unless {@link HoldOptions.ifTaken} says otherwise.
   *
   * @throws ConclaveError `invalid-argument` for a key that it holds already, `session-closed`
   * @example
   * ```ts
   * await using session = await client.session({ ttlSeconds: 10 });
   * const worker = session.hold('workers/7', 'idle');
   * await worker.placed();
   * await worker.update('busy');
   * ```
   */
  hold(key: Key, value: Value, options?: HoldOptions): HeldKey;
  hold(establish: Establish): HeldFunction;
  hold(what: Key | Establish, value: Value = '', { ifTaken = 'wait' }: HoldOptions = {}): Hold {
    const keeper = this.#keeper;
    if (keeper.teller.isOver) throw keeper.gone();
    if (typeof what === 'function') return keeper.begin(new HeldFunction(keeper, what));
    if (ifTaken !== 'wait' && ifTaken !== 'overwrite') throw invalidArgument(`ifTaken must be wait or overwrite, not ${ifTaken}`);
    const bytes = toBytes(what);
    if (bytes.length === 0) throw invalidArgument('a key must not be empty');
    const known = [...keeper.holds].find((hold) => hold instanceof HeldKey && Buffer.compare(hold.keyBytes, bytes) === 0);
    if (known === undefined) return keeper.begin(new HeldKey(keeper, bytes, toBytes(value), ifTaken));
    if (!(known instanceof HeldKey) || !this.#inherited.delete(known))
      throw invalidArgument(`the session holds the key ${(known as HeldKey).key} already`);
    known.adopt(toBytes(value), ifTaken);
    return known;
  }

  /**
   * The first of two steps by which another process takes the session over: it stops here, and the token lets one other go on with it by
   * `client.session({ from: token })`, in a namespace of the same prefix. The keys stay where they are meanwhile: under the lease, which is not
   * renewed until it is taken, and ends with its time otherwise: between two thirds and all of its time to live.
   *
   * From the call on nothing is held here: `signal` is aborted, and no write that carries the session's {@link Session.guard} can land any more once
   * there is a token. When this rejects, {@link Session.takeBack} finds out.
   *
   * @throws ConclaveError `lease-lost`, `session-expired`, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const token = await session.handOver();
   * successor.send(token); // there: const session = await client.session({ from: token })
   * ```
   */
  async handOver(options: RequestOptions = {}): Promise<SessionToken> {
    const { engine, owner } = this.#keeper;
    const { lease } = this.#keeper.live();
    const limit = new TimeLimit(engine, options, lease.remaining());
    const keys = this.#heldKeys();
    const mark = this.#keeper.markOf(lease.id);
    const claim = drawId(engine.runtime);
    this.#offer = { lease: lease.id, mark, owner, claim, nextOwner: drawId(engine.runtime), keys };
    // First it ends here, then the store says so: at no time do two hold it.
    lease.end('handed-over', 'its session was handed over');
    await persist(engine, limit, (rest) => mark.offer(owner, claim, rest));
    return writeToken(lease.id, lease.ttlSeconds, keys, claim);
  }

  /**
   * Takes back what was handed over and has not been taken: the session goes on here as if its lease had been lost and found. Called again
   * meanwhile, it waits for the same.
   *
   * @throws ConclaveError `session-claimed` when another process has taken it, `session-expired` when nobody has and its lease is over,
   * `invalid-argument` when it was not handed over, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * await session.handOver();
   * // Nobody came.
   * await session.takeBack();
   * console.log(session.state.state); // live
   * ```
   */
  takeBack(options: RequestOptions = {}): Promise<void> {
    // One at a time: of two that both get through, each would keep the lease.
    this.#takingBack ??= this.#takeBack(options).finally(() => {
      this.#takingBack = undefined;
    });
    return this.#takingBack;
  }

  /**
   * Ends the session: its lease is revoked, and all its keys go in one revision. One that was handed over is left alone. When this rejects, the
   * lease ends with its time. Idempotent.
   *
   * @throws ConclaveError `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * await session.close();
   * ```
   */
  close(): Promise<void> {
    this.#close ??= this.#keeper.end(undefined);
    return this.#close;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.close();
    } catch (error) {
      // Nothing renews it any more; leaving a scope must not fail for that.
      this.#keeper.engine.runtime.log.warn({ err: error }, 'the lease of a session was not revoked; it ends with its time');
    }
  }

  /** @internal Goes on holding a key that its predecessor held. */
  inherit(key: Uint8Array, value: Uint8Array): void {
    this.#inherited.add(this.#keeper.begin(new HeldKey(this.#keeper, key, value, 'wait')));
  }

  async #takeBack(options: RequestOptions): Promise<void> {
    const keeper = this.#keeper;
    const { engine, leases } = keeper;
    const offer = this.#offer;
    if (keeper.teller.isOver) throw keeper.gone();
    if (offer === undefined) throw invalidArgument('the session was not handed over');
    const limit = new TimeLimit(engine, options);
    await persist(engine, limit, (rest) => offer.mark.takeBack(offer.owner, offer.claim, offer.nextOwner, rest));
    await this.#dropReleased(offer, limit);
    const lease = await persist(engine, limit, (rest) => leases.takeOver(offer.lease, rest));
    if (lease === undefined) throw expired(offer.lease);
    this.#offer = undefined;
    keeper.owner = offer.nextOwner;
    keeper.start(lease);
    await keeper.untilLive(limit.rest());
  }

  /** What was released after the offer was left alone then, as it could have been the successor's. */
  async #dropReleased({ lease, mark, nextOwner, keys }: Offer, limit: TimeLimit): Promise<void> {
    const { engine, namespace } = this.#keeper;
    const held = this.#heldKeys();
    for (const one of keys.filter((offered) => !held.some((bytes) => Buffer.compare(bytes, offered) === 0)))
      await persist(engine, limit, (rest) =>
        namespace.txn().if(mark.guard(nextOwner), key(one).lease.equals(lease)).then(del(one)).commit(rest),
      );
  }

  #heldKeys(): readonly Uint8Array[] {
    return [...this.#keeper.holds].filter((hold) => hold instanceof HeldKey).map(({ keyBytes }) => keyBytes);
  }
}
