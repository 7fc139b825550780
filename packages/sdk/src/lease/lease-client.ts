import {
  type Init,
  type LeaseGrantRequest,
  type LeaseGrantResponse,
  type LeaseLeasesRequest,
  type LeaseLeasesResponse,
  type LeaseRevokeRequest,
  type LeaseRevokeResponse,
  Lease as LeaseService,
  type LeaseTimeToLiveRequest,
  type LeaseTimeToLiveResponse,
} from '@conclave/protocol';
import type { Runtime } from '@conclave/wire';
import { onAbort } from '../connection/abort.ts';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import { ConclaveError, invalidArgument, isConclaveError, type Outcome } from '../errors/conclave-error.ts';
import type { KeyPrefix } from '../kv/key-range.ts';
import { type Integer, toId, toText } from '../kv/text.ts';
import { type Instant, now } from './instant.ts';
import { Lease, type LeaseHolder, type LeaseState } from './lease.ts';
import { LeaseKeeper } from './lease-keeper.ts';

export interface GrantOptions extends RequestOptions {
  /** How long the lease lasts without renewal, in seconds, from 1 to 9,000,000,000. The server raises what is too short for it (etcd: below 2). */
  readonly ttlSeconds: number;
}

/** What the server says about a lease. */
export interface LeaseInfo {
  readonly id: bigint;
  /** What is left, in seconds. */
  readonly ttlSeconds: number;
  readonly grantedTtlSeconds: number;
  /** The attached keys, if asked for; of a namespace, those in it. */
  readonly keys: readonly string[];
}

/** The leases of all views of a client: granting, giving back, and keeping. */
export class LeaseRegistry implements LeaseHolder {
  readonly #engine: Engine;
  readonly #keeper: LeaseKeeper;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#keeper = new LeaseKeeper(engine);
  }

  get engine(): Engine {
    return this.#engine;
  }

  async grant(options: GrantOptions): Promise<Lease> {
    const { ttlSeconds, signal, deadlineMs } = options;
    if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < 1)
      throw invalidArgument(`ttlSeconds must be a whole number from 1 up, not ${ttlSeconds}`);
    if (signal === undefined) return await this.#grant(ttlSeconds, { deadlineMs });
    if (signal.aborted) throw givenUp(signal, 'not-applied');
    // The request is not recalled when the caller gives up: recalled, it could still reach the server, and after the revocation that was to
    // undo it. It is let through, and its lease revoked then.
    const granted = this.#grant(ttlSeconds, { deadlineMs });
    return await new Promise<Lease>((resolve, reject) => {
      const stopListening = onAbort(signal, () => {
        reject(givenUp(signal, 'unknown'));
        granted.then((lease) => lease.revoke()).catch(ignore);
      });
      granted.then(resolve, reject).finally(stopListening);
    });
  }

  async #grant(ttlSeconds: number, options: RequestOptions): Promise<Lease> {
    const attempt = new GrantAttempt(this.#engine.runtime);
    const id = randomId(this.#engine.runtime);
    try {
      const ttl = await this.#request(grantProcedure, { ttl: ttlSeconds, id }, attempt, options);
      return this.#hold(id, ttl, attempt.lastSentAt);
    } catch (error) {
      // The id was drawn for this grant, so that who has it is an earlier sending whose answer was lost. On the first it is somebody else's.
      if (!isConclaveError(error, 'lease-exists')) this.#abandon(id, attempt);
      else if (attempt.sendings > 1) return await this.#adopt(id, attempt.firstSentAt, options);
      throw error;
    }
  }

  /** Keeps a lease that was kept elsewhere so far; undefined: there is none any more. */
  async takeOver(id: bigint, options: RequestOptions | undefined): Promise<Lease | undefined> {
    const sentAt = now(this.#engine.runtime);
    const info = await this.#request(timeToLiveProcedure, { id }, noKeys, options);
    if (info === undefined) return undefined;
    // The server says what is left in whole seconds, rounded down: as if the last renewal had been sent so much earlier.
    const goneMs = (info.grantedTtlSeconds - info.ttlSeconds) * 1_000;
    const provenAt = { monotonic: sentAt.monotonic - goneMs, boot: sentAt.boot - goneMs };
    return this.#hold(id, info.grantedTtlSeconds, provenAt, true);
  }

  async revoke(lease: Lease, options: RequestOptions | undefined): Promise<void> {
    // It lives on in another process, and is not to be ended from here.
    if (lease.state === 'handed-over') return;
    lease.end('revoked', 'it was revoked');
    await this.revokeId(lease.id, options);
  }

  async revokeId(id: bigint, options: RequestOptions | undefined): Promise<void> {
    try {
      await this.#request(revokeProcedure, { id }, undefined, options);
    } catch (error) {
      if (!isConclaveError(error, 'lease-not-found')) throw error;
    }
  }

  onEnd(lease: Lease, state: Exclude<LeaseState, 'held'>, reason: string): void {
    this.#keeper.forget(lease);
    if (state !== 'lost' || this.#engine.isClosed) return;
    this.#engine.meter?.metrics.leaseLost();
    this.#engine.runtime.log.warn({ lease: lease.id.toString(16), reason }, 'a lease was lost');
  }

  #hold(id: bigint, ttlSeconds: number, provenAt: Instant, isTakenOver = false): Lease {
    const lease = new Lease(this.#engine.runtime, this, id, ttlSeconds, provenAt, isTakenOver);
    if (this.#engine.isClosed) lease.end('lost', 'the client was closed');
    else this.#keeper.keep(lease);
    return lease;
  }

  async #adopt(id: bigint, provenAt: Instant, options: RequestOptions): Promise<Lease> {
    try {
      const info = await this.#request(timeToLiveProcedure, { id }, noKeys, options);
      return this.#hold(id, info?.grantedTtlSeconds ?? 0, provenAt);
    } catch (error) {
      this.#revokeInBackground(id);
      throw error;
    }
  }

  /** Granted or not, nobody will use it. Left alone it would cost the server until its time is up. */
  #abandon(id: bigint, attempt: GrantAttempt): void {
    if (attempt.sendings > 0) this.#revokeInBackground(id);
  }

  #revokeInBackground(id: bigint): void {
    this.#engine.start(revokeProcedure, { id }, undefined, undefined, ignore, ignore);
  }

  #request<Request, Response, Context, Result>(
    procedure: Procedure<Request, Response, Context, Result>,
    request: Request,
    context: Context,
    options: RequestOptions | undefined,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#engine.start(procedure, request, context, options, resolve, reject);
    });
  }
}

/** Leases, as `client.lease`. */
export class LeaseClient {
  readonly #registry: LeaseRegistry;
  readonly #prefix: KeyPrefix;

  /** @internal */
  constructor(registry: LeaseRegistry, prefix: KeyPrefix) {
    this.#registry = registry;
    this.#prefix = prefix;
  }

  /**
   * Grants a lease and keeps it alive until it is revoked or lost, or the client closes.
   *
   * The id is chosen here, so that a grant whose answer is lost is recognised when it is repeated, or taken back when it is given up.
   *
   * @throws ConclaveError `lease-ttl-too-large`, `no-space`, `unavailable`, `deadline-exceeded`, `cancelled`
   * @example
   * ```ts
   * const lease = await client.lease.grant({ ttlSeconds: 10 });
   * lease.signal.addEventListener('abort', () => console.error(lease.signal.reason));
   * ```
   */
  grant(options: GrantOptions): Promise<Lease> {
    return this.#registry.grant(options);
  }

  /**
   * Ends any lease by its id: its keys are deleted in one revision. One that is gone already is no error.
   *
   * @example
   * ```ts
   * for (const id of await client.lease.list()) await client.lease.revoke(id); // everybody's
   * ```
   */
  async revoke(id: Integer, options?: RequestOptions): Promise<void> {
    await this.#registry.revokeId(toId(id, 'id'), options);
  }

  /**
   * Asks the server about a lease; undefined: there is none with this id.
   *
   * @example
   * ```ts
   * const info = await client.lease.timeToLive(lease.id, { keys: true });
   * console.log(info?.ttlSeconds, info?.keys);
   * ```
   */
  timeToLive(id: Integer, options?: RequestOptions & { readonly keys?: boolean | undefined }): Promise<LeaseInfo | undefined> {
    return new Promise((resolve, reject) => {
      const request = { id: toId(id, 'id'), keys: options?.keys };
      this.#registry.engine.start(timeToLiveProcedure, request, this.#prefix, options, resolve, reject);
    });
  }

  /**
   * The ids of all leases of the store.
   *
   * @example
   * ```ts
   * const ids = await client.lease.list();
   * console.log(ids.includes(lease.id)); // true
   * ```
   */
  list(options?: RequestOptions): Promise<readonly bigint[]> {
    return new Promise((resolve, reject) => {
      this.#registry.engine.start(listProcedure, {}, undefined, options, resolve, reject);
    });
  }
}

/** Remembers when a grant went out. Only the last sending can have brought the answer; only the first can have made what a later one meets. */
class GrantAttempt {
  readonly #runtime: Runtime;
  #firstSentAt: Instant | undefined;
  #lastSentAt: Instant | undefined;
  #sendings = 0;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  get sendings(): number {
    return this.#sendings;
  }

  get firstSentAt(): Instant {
    return this.#firstSentAt ?? now(this.#runtime);
  }

  get lastSentAt(): Instant {
    return this.#lastSentAt ?? now(this.#runtime);
  }

  onSend(): void {
    this.#sendings++;
    this.#lastSentAt = now(this.#runtime);
    this.#firstSentAt ??= this.#lastSentAt;
  }
}

const grantProcedure: Procedure<Init<LeaseGrantRequest>, LeaseGrantResponse, GrantAttempt, number> = {
  path: LeaseService.methods.leaseGrant.path,
  input: LeaseService.methods.leaseGrant.input,
  output: LeaseService.methods.leaseGrant.output,
  // With an id of our own a repeat is recognised by the server.
  isRepeatable: true,
  onSend: (attempt) => attempt.onSend(),
  result: (response) => response.ttl,
};

const revokeProcedure: Procedure<Init<LeaseRevokeRequest>, LeaseRevokeResponse, undefined, void> = {
  path: LeaseService.methods.leaseRevoke.path,
  input: LeaseService.methods.leaseRevoke.input,
  output: LeaseService.methods.leaseRevoke.output,
  // Ids are not used twice, and a second time finds nothing to do.
  isRepeatable: true,
  result: () => undefined,
};

const timeToLiveProcedure: Procedure<
  Init<LeaseTimeToLiveRequest>,
  LeaseTimeToLiveResponse,
  KeyPrefix | undefined,
  LeaseInfo | undefined
> = {
  path: LeaseService.methods.leaseTimeToLive.path,
  input: LeaseService.methods.leaseTimeToLive.input,
  output: LeaseService.methods.leaseTimeToLive.output,
  isRepeatable: true,
  result: ({ id, ttl, grantedTtl, keys }, prefix) => {
    if (ttl < 0) return undefined;
    const own = keys.filter((key) => prefix?.covers(key) === true);
    return { id, ttlSeconds: ttl, grantedTtlSeconds: grantedTtl, keys: own.map((key) => toText(prefix?.strip(key) ?? key)) };
  },
};

const listProcedure: Procedure<Init<LeaseLeasesRequest>, LeaseLeasesResponse, undefined, readonly bigint[]> = {
  path: LeaseService.methods.leaseLeases.path,
  input: LeaseService.methods.leaseLeases.input,
  output: LeaseService.methods.leaseLeases.output,
  isRepeatable: true,
  result: ({ leases }) => leases.map(({ id }) => id),
};

const noKeys = undefined;

function ignore(): void {}

function givenUp(signal: AbortSignal, outcome: Outcome): ConclaveError {
  return new ConclaveError({ code: 'cancelled', message: 'the grant was cancelled', outcome, cause: signal.reason });
}

/** A positive 63-bit number. Two clients draw the same one about never: a million leases a day for a century make it 1 in 14,000. */
function randomId(runtime: Runtime): bigint {
  const high = BigInt(Math.floor(runtime.random() * 2 ** 31));
  const low = BigInt(Math.floor(runtime.random() * 2 ** 32));
  return (high << 32n) | low || 1n;
}
