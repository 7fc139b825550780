import { onAbort } from '../connection/abort.ts';
import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import { pause } from '../connection/pause.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import { isPassing } from '../errors/passing.ts';
import type { KeyPrefix } from '../kv/key-range.ts';
import { toBytes } from '../kv/text.ts';
import type { Lease } from '../lease/lease.ts';
import type { LeaseRegistry } from '../lease/lease-client.ts';
import type { Verbs } from '../verbs.ts';
import { HeldKey } from './held-key.ts';
import type { Hold, HoldHost } from './hold.ts';
import type { Incarnation } from './incarnation.ts';
import { patiently } from './patience.ts';
import { heldBy, SessionMark } from './session-mark.ts';
import type { SessionState } from './session-state.ts';
import { SlackMeter } from './slack-meter.ts';
import { StateTeller } from './state-teller.ts';

/** How long one attempt to be granted a lease may take: what a server without a leader was asked for may stay unanswered for long. */
const grantMs = 2_000;
/** Over how long the sessions of a fleet that lost their leases together spread. */
const spreadMs = 500;
const retryInitialMs = 250;
const retryMaxMs = 1_000;
const formerLeasesMax = 8;

/** What a session is made of. */
export interface SessionInit {
  readonly engine: Engine;
  readonly namespace: Verbs;
  /** That of the namespace. */
  readonly prefix: KeyPrefix;
  readonly leases: LeaseRegistry;
  readonly ttlSeconds: number;
  /** Whose the session is. */
  readonly owner: string;
}

/** Keeps a session supplied with a lease, and what it holds in place under each. */
export class SessionKeeper implements HoldHost {
  readonly engine: Engine;
  readonly namespace: Verbs;
  readonly leases: LeaseRegistry;
  readonly teller: StateTeller<SessionState>;
  readonly meter: SlackMeter;
  readonly holds: Set<Hold> = new Set();
  owner: string;
  readonly #prefix: KeyPrefix;
  readonly #ttlSeconds: number;
  readonly #life = new AbortController();
  /** What is attached to them is the session's own. */
  readonly #formerLeases = new Set<bigint>();
  #lease: Lease | undefined;
  /** The key by which the store knows the session, under the present lease. */
  #mark: HeldKey | undefined;
  #current: Incarnation | undefined;
  #incarnations = 0;
  #lostAt = 0;
  #lastTrouble: unknown;
  #onTrouble: (error: unknown) => void = () => {};
  /** While the session is handed over nothing else of it would notice that the client closes. */
  readonly #parked = { close: (): void => void this.end(this.engine.closedError()) };

  constructor({ engine, namespace, prefix, leases, ttlSeconds, owner }: SessionInit) {
    this.engine = engine;
    this.namespace = namespace;
    this.leases = leases;
    this.owner = owner;
    this.#prefix = prefix;
    this.#ttlSeconds = ttlSeconds;
    this.teller = new StateTeller<SessionState>(namespace, { state: 'connecting', at: engine.runtime.wall() }, 'closed');
    this.meter = new SlackMeter(engine.runtime, {
      onRisk: (slackMs) => {
        if (this.teller.state.state === 'live') this.teller.tell({ state: 'at-risk', at: this.#wall(), slackMs });
      },
      onRelief: () => {
        if (this.teller.state.state === 'at-risk') this.#tellLive();
      },
    });
  }

  /** The present lease and what goes with it. The clock is looked at: undefined once it is over. */
  get current(): Incarnation | undefined {
    this.check();
    return this.#current;
  }

  /** Reading the lease's state makes it look at the clock. */
  check(): void {
    void this.#lease?.state;
  }

  /** @throws why there is no lease */
  live(): Incarnation {
    const { current } = this;
    if (current === undefined) throw this.gone();
    return current;
  }

  /** Why there is no lease. */
  gone(): ConclaveError {
    const { state } = this.teller;
    if (state.state === 'closed')
      return new ConclaveError({ code: 'session-closed', message: 'the session is closed', outcome: 'not-applied', cause: state.error });
    if (state.state === 'handed-over')
      return new ConclaveError({ code: 'lease-handed-over', message: 'the session was handed over', outcome: 'not-applied' });
    const message = 'the session has no lease at present';
    return new ConclaveError({ code: 'lease-lost', message, outcome: 'not-applied', cause: this.#lastTrouble });
  }

  markOf(lease: bigint): SessionMark {
    return new SessionMark(this.namespace, this.#prefix, lease);
  }

  /** Begins with this lease, or has one granted. */
  start(lease: Lease | undefined): void {
    this.engine.parked.delete(this.#parked);
    void this.#run(lease);
  }

  /** Waits for a lease; what no time will cure rejects at once. */
  untilLive(options: RequestOptions): Promise<void> {
    return patiently<void>(
      this.engine,
      options,
      () => this.#late(),
      (resolve, reject) => {
        this.#onTrouble = (error) => {
          if (!isPassing(error)) reject(error);
        };
        const stopFollowing = this.teller.follow(({ state }) => {
          if (state === 'live') resolve();
          else if (state === 'closed') reject(this.gone());
        });
        return () => {
          this.#onTrouble = () => {};
          stopFollowing();
        };
      },
    );
  }

  begin<T extends Hold>(hold: T): T {
    this.holds.add(hold);
    const { current } = this;
    if (current !== undefined) hold.begin(current);
    return hold;
  }

  forget(hold: Hold): void {
    this.holds.delete(hold);
  }

  /** Ends all of it. */
  async end(error: unknown): Promise<void> {
    if (this.teller.isOver) return;
    const lease = this.#lease;
    this.teller.tell(error === undefined ? { state: 'closed', at: this.#wall() } : { state: 'closed', at: this.#wall(), error });
    this.#life.abort();
    this.engine.parked.delete(this.#parked);
    for (const hold of this.holds) hold.end();
    this.holds.clear();
    if (lease?.state === 'held') await lease.revoke();
  }

  async #run(first: Lease | undefined): Promise<void> {
    const backoff = new Backoff(this.engine.runtime, retryInitialMs, retryMaxMs);
    for (let lease = first; ; lease = undefined) {
      try {
        if (lease === undefined && this.#incarnations > 0)
          await pause(this.engine, this.engine.runtime.random() * spreadMs, this.#life.signal);
        lease ??= await this.leases.grant({ ttlSeconds: this.#ttlSeconds, deadlineMs: grantMs, signal: this.#life.signal });
        // Closed while the lease was on its way: nobody else would ever end it.
        if (this.teller.isOver) return await lease.revoke();
        await this.#incarnate(lease);
        backoff.reset();
        if (this.teller.isOver || this.teller.state.state === 'handed-over') return;
      } catch (error) {
        if (this.teller.isOver) return;
        if (this.engine.isClosed) return await this.end(error);
        this.#lastTrouble = error;
        this.engine.runtime.log.warn({ err: error }, 'a session has no lease; trying again');
        this.#onTrouble(error);
        await pause(this.engine, backoff.next(), this.#life.signal);
        // One that could not be put to use. Whoever was told of the trouble may have given it away meanwhile.
        if (lease?.state === 'held') lease.revoke().catch((err: unknown) => this.#onUnrevoked(err));
      }
    }
  }

  /** One lease of the session, from when it is granted until it is over. */
  async #incarnate(lease: Lease): Promise<void> {
    this.#lease = lease;
    const over = new Promise<void>((resolve) => {
      const onEnd = (): void => {
        this.#onLeaseEnd(lease);
        resolve();
      };
      if (lease.signal.aborted) onEnd();
      else onAbort(lease.signal, onEnd);
    });
    const mark = this.markOf(lease.id);
    lease.guardWith([mark.guard(this.owner)]);
    const bare = { lease, formerLeases: this.#formerLeases, guards: [] };
    // While the lease is held here nobody else has a word to write there, so that what is found is nobody's.
    const own = new HeldKey(this, toBytes(mark.key), toBytes(heldBy(this.owner)), 'overwrite');
    this.#mark = own;
    own.begin(bare);
    await own.settled(bare);
    if (own.state.state === 'failed') throw own.state.error;
    // Deleted by hand later, and refused: no guard of this lease would ever hold again, and whoever waits for one would wait for ever.
    own.status().subscribe((state) => {
      if (state.state === 'failed') lease.end('lost', 'the key of its session cannot be put', state.error);
    });
    if (lease.state === 'held') await this.#restore({ ...bare, guards: lease.guards });
    await over;
  }

  async #restore(incarnation: Incarnation): Promise<void> {
    const { lease } = incarnation;
    this.#current = incarnation;
    this.#incarnations++;
    this.meter.follow(lease);
    for (const hold of this.holds) hold.begin(incarnation);
    if (this.#incarnations > 1) {
      // What functions establish may take its time.
      const keys = [...this.holds].filter((hold) => hold instanceof HeldKey);
      await Promise.all(keys.map((held) => held.settled(incarnation)));
      if (this.#current !== incarnation) return;
      const lostMs = Math.round(this.engine.runtime.monotonic() - this.#lostAt);
      this.teller.tell({ state: 'recovered', at: this.#wall(), incarnation: this.#incarnations, lostMs });
      // Whoever was told may have ended it.
      if (this.#current !== incarnation) return;
      this.#revokeFormer(lease);
    }
    this.#tellLive();
  }

  /** The server may think them alive for as long again, and what still is attached to them is nobody's any more. */
  #revokeFormer(present: Lease): void {
    for (const id of this.#formerLeases) {
      if (id === present.id) continue;
      this.leases.revokeId(id, undefined).then(
        () => this.#formerLeases.delete(id),
        (error: unknown) => this.#onUnrevoked(error),
      );
    }
  }

  #onUnrevoked(err: unknown): void {
    this.engine.runtime.log.debug({ err }, 'a lease of a session was not revoked; it ends with its time');
  }

  #onLeaseEnd(lease: Lease): void {
    this.#lease = undefined;
    this.#current = undefined;
    this.meter.stop();
    this.#mark?.end();
    for (const hold of this.holds) hold.suspend();
    if (this.teller.isOver) return;
    this.#lostAt = this.engine.runtime.monotonic();
    const { reason } = lease.signal;
    this.#lastTrouble = reason;
    if (lease.state === 'handed-over') {
      this.engine.parked.add(this.#parked);
      this.teller.tell({ state: 'handed-over', at: this.#wall() });
      return;
    }
    this.#formerLeases.add(lease.id);
    for (const id of this.#formerLeases) if (this.#formerLeases.size > formerLeasesMax) this.#formerLeases.delete(id);
    if (this.engine.isClosed) void this.end(this.engine.closedError());
    else this.teller.tell({ state: 'lost', at: this.#wall(), error: reason });
  }

  #late(): ConclaveError {
    const message = 'the session was not live in time';
    return new ConclaveError({ code: 'deadline-exceeded', message, outcome: 'not-applied', cause: this.#lastTrouble });
  }

  #tellLive(): void {
    this.teller.tell({ state: 'live', at: this.#wall(), incarnation: this.#incarnations });
  }

  #wall(): number {
    return this.engine.runtime.wall();
  }
}
