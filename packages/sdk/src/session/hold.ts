import { onAbort } from '../connection/abort.ts';
import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import { pause } from '../connection/pause.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import { isPassing } from '../errors/passing.ts';
import type { Feed } from '../rx/feed.ts';
import type { Verbs } from '../verbs.ts';
import type { Incarnation } from './incarnation.ts';
import { patiently } from './patience.ts';
import type { HoldState } from './session-state.ts';
import { StateTeller } from './state-teller.ts';

const retryInitialMs = 50;
const retryMaxMs = 1_000;
/** Disturbed no more often than this, it is put back at once. */
const calmMs = 5_000;

/** What a hold needs of its session. */
export interface HoldHost {
  readonly engine: Engine;
  readonly namespace: Verbs;
  /** The hold is over: the session forgets it. */
  forget(hold: Hold): void;
}

/** Why a hold looks again: its owner asked for it, or something else happened to it. */
type Wake = 'asked' | 'disturbed';

/**
 * Something that a session holds: declared once, and established under each lease the session has. Made by {@link Session.hold}.
 *
 * @example
 * ```ts
 * session.hold('workers/7', 'alive');
 * for (const hold of session.holds) await hold.placed();
 * ```
 */
export abstract class Hold implements AsyncDisposable {
  protected readonly host: HoldHost;
  /** What it is, for people. */
  readonly #name: string;
  readonly #teller: StateTeller<HoldState>;
  #incarnation: Incarnation | undefined;
  /** What is under way, under this lease or still under one before. */
  #tending: Promise<void> = Promise.resolve();
  #wake: ((why: Wake) => void) | undefined;
  #woken: Wake | undefined;
  #isReleased = false;
  #release: Promise<void> | undefined;

  /** @internal */
  constructor(host: HoldHost, name: string) {
    this.host = host;
    this.#name = name;
    this.#teller = new StateTeller<HoldState>(host.namespace, { state: 'pending' }, 'released');
  }

  get state(): HoldState {
    // Makes the lease look at the clock: what it takes along is not held from then on.
    void this.#incarnation?.lease.state;
    return this.#teller.state;
  }

  /**
   * The present {@link HoldState}, then each change of it. Completes when it is released, or its session has ended.
   *
   * @example
   * ```ts
   * const worker = session.hold('workers/7', 'alive');
   * worker.status().subscribe(({ state }) => console.log(state));
   * await worker.placed();
   * console.log(worker.state.state); // held
   * ```
   */
  status(): Feed<HoldState> {
    return this.#teller.status();
  }

  /**
   * Waits until it is in place. That this rejects does not end it: it is put in place when that is possible, until it is released.
   *
   * @throws ConclaveError `key-taken` when somebody else has the key when the time is up, `deadline-exceeded`, `cancelled`, `hold-released`,
   * or why it failed
   * @example
   * ```ts
   * await session.hold('workers/7', 'alive').placed();
   * ```
   */
  placed(options: RequestOptions = {}): Promise<void> {
    // Looks at the clock.
    void this.state;
    return patiently<void>(
      this.host.engine,
      options,
      () => this.#late(),
      (resolve, reject) =>
        this.#teller.follow((state) => {
          if (state.state === 'held') resolve();
          else if (state.state === 'failed') reject(state.error);
          else if (state.state === 'released') reject(this.released());
        }),
    );
  }

  /**
   * Ends it: it is taken away where it is in place, and not established again. Idempotent. When this rejects, that is in doubt; it goes at the
   * latest with the session's lease.
   *
   * @throws ConclaveError `permission-denied`, …
   * @example
   * ```ts
   * const worker = session.hold('workers/7', 'alive');
   * await worker.placed();
   * await worker.release();
   * console.log(await client.get('workers/7')); // undefined
   * ```
   */
  release(): Promise<void> {
    this.#release ??= this.#takeAway();
    return this.#release;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.release();
    } catch (error) {
      // It goes with the session's lease; leaving a scope must not fail for that.
      this.host.namespace.runtime.log.warn(
        { err: error, hold: this.#name },
        'what a session held was not taken away; it goes with its lease',
      );
    }
  }

  /** @internal The session has a lease: puts it in place, and keeps it there for as long as the lease lasts. */
  begin(incarnation: Incarnation): void {
    if (this.#isReleased) return;
    this.#incarnation = incarnation;
    const before = this.#tending;
    this.#tending = this.#tend(incarnation, before);
  }

  /** @internal The lease is over. */
  suspend(): void {
    this.#incarnation = undefined;
    this.set({ state: 'pending' });
    this.wake('asked');
  }

  /** @internal The session has ended, and its lease with it. */
  end(): void {
    this.#isReleased = true;
    this.#release ??= Promise.resolve();
    this.#incarnation = undefined;
    this.set({ state: 'released' });
    this.wake('asked');
    this.unlisten();
  }

  /** @internal Resolves once it is known how it is under this lease, or the lease is over. */
  settled(incarnation: Incarnation): Promise<void> {
    const { signal } = incarnation.lease;
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      let stopFollowing: (() => void) | undefined;
      const end = (): void => {
        stopListening();
        stopFollowing?.();
        resolve();
      };
      const stopListening = onAbort(signal, end);
      stopFollowing = this.#teller.follow((state) => {
        if (state.state !== 'pending') end();
      });
      // It may have called back before it returned.
      if (this.#teller.state.state !== 'pending') stopFollowing();
    });
  }

  protected get isReleased(): boolean {
    return this.#isReleased;
  }

  protected isCurrent(incarnation: Incarnation): boolean {
    return this.#incarnation === incarnation && !this.#isReleased;
  }

  /** Puts it in place, once, and says how it is then. `pending`: it is to be tried again. */
  protected abstract establish(incarnation: Incarnation): Promise<HoldState>;
  /** It shall be released; what is under way has not come to its end. */
  protected abstract onRelease(): void;
  /** The lease or the hold is over. */
  protected abstract unlisten(): void;
  /** Takes it away where it may be in place. False: it is to be tried again. */
  protected abstract remove(incarnation: Incarnation): Promise<boolean>;

  /** Looks again. */
  protected wake(why: Wake): void {
    const wake = this.#wake;
    this.#wake = undefined;
    if (wake === undefined) this.#woken = why;
    else wake(why);
  }

  protected set(state: HoldState): void {
    if (state.state === 'failed') {
      const { error } = state;
      this.host.namespace.runtime.log.warn({ err: error, hold: this.#name }, 'what a session shall hold cannot be put in place');
    }
    this.#teller.tell(state);
  }

  protected released(): ConclaveError {
    return new ConclaveError({ code: 'hold-released', message: `${this.#name} is not held any more`, outcome: 'not-applied' });
  }

  async #tend(incarnation: Incarnation, before: Promise<void>): Promise<void> {
    // One thing at a time: what was sent under the lease before may still be under way.
    await before;
    const { engine } = this.host;
    const backoff = new Backoff(engine.runtime, retryInitialMs, retryMaxMs);
    let disturbedAt = Number.NEGATIVE_INFINITY;
    this.#woken = undefined;
    while (this.isCurrent(incarnation)) {
      const state = await this.#attempt(incarnation);
      if (!this.isCurrent(incarnation)) break;
      this.set(state);
      let isAtOnce = false;
      if (state.state !== 'pending') {
        const why = await this.#untilWoken();
        const now = engine.runtime.monotonic();
        // What is disturbed again and again is put back ever more slowly: nobody wins such a fight.
        isAtOnce = why === 'asked' || now - disturbedAt > calmMs;
        if (why === 'disturbed') disturbedAt = now;
        if (isAtOnce) backoff.reset();
      }
      if (!isAtOnce && this.isCurrent(incarnation)) await pause(engine, backoff.next(), incarnation.lease.signal);
    }
    this.unlisten();
  }

  async #attempt(incarnation: Incarnation): Promise<HoldState> {
    try {
      return await this.establish(incarnation);
    } catch (error) {
      return isPassing(error) || incarnation.lease.state !== 'held' ? { state: 'pending' } : { state: 'failed', error };
    }
  }

  #untilWoken(): Promise<Wake> {
    const woken = this.#woken;
    this.#woken = undefined;
    if (woken !== undefined) return Promise.resolve(woken);
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  async #takeAway(): Promise<void> {
    const incarnation = this.#incarnation;
    this.#isReleased = true;
    this.onRelease();
    this.wake('asked');
    // What is under way comes to its end, and nothing follows it.
    await this.#tending;
    this.unlisten();
    this.set({ state: 'released' });
    this.host.forget(this);
    if (incarnation === undefined) return;
    const backoff = new Backoff(this.host.engine.runtime, retryInitialMs, retryMaxMs);
    // Once the lease is over so is this.
    while (incarnation.lease.state === 'held') {
      try {
        if (await this.remove(incarnation)) return;
      } catch (error) {
        if (incarnation.lease.state !== 'held') return;
        if (!isPassing(error)) throw error;
      }
      await pause(this.host.engine, backoff.next(), incarnation.lease.signal);
    }
  }

  #late(): ConclaveError {
    if (this.state.state === 'taken')
      return new ConclaveError({ code: 'key-taken', message: `${this.#name} is somebody else's`, outcome: 'not-applied' });
    return new ConclaveError({ code: 'deadline-exceeded', message: `${this.#name} was not in place in time`, outcome: 'unknown' });
  }
}
