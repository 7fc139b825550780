import type { Runtime, Transport } from '@conclave/wire';
import { ConclaveError, invalidArgument, type Outcome } from '../errors/conclave-error.ts';
import type { Meter } from '../metrics/meter.ts';
import { Authenticator, authenticateProcedure, type Credentials, callersTokens, type Login } from './authenticator.ts';
import { Balancer, type Choice } from './balancer.ts';
import { type ClientStatus, statusOf } from './client-status.ts';
import { EndpointJournal } from './endpoint-journal.ts';
import { HedgeBudget } from './hedge-budget.ts';
import type { KeepaliveSettings } from './liveness.ts';
import type { Middleware } from './middleware.ts';
import { probe } from './probe.ts';
import type { CallHost, Closable, Procedure, RequestOptions } from './procedure.ts';
import { ReadOrder } from './read-order.ts';
import { anonymous } from './token.ts';
import { UnaryCall } from './unary-call.ts';

export interface EngineOptions {
  readonly choice: Choice;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly deadlineMs: number;
  readonly keepalive: KeepaliveSettings;
  readonly ordered: boolean;
  /** The transport speaks TLS. */
  readonly isSecure: boolean;
  readonly credentials?: Credentials | undefined;
  readonly middleware?: readonly Middleware[] | undefined;
  readonly meter?: Meter | undefined;
}

const timerMaxMs = 2 ** 31 - 1;

/** What all parts of a client share: the endpoints, the clock, and the rules by which calls are made. Speaks callbacks. */
export class Engine implements CallHost {
  readonly runtime: Runtime;
  readonly isSecure: boolean;
  readonly balancer: Balancer;
  readonly authenticator: Authenticator | undefined;
  readonly parked: Set<Closable> = new Set();
  readonly order: ReadOrder | undefined;
  readonly middleware: readonly Middleware[] | undefined;
  readonly hedgeBudget: HedgeBudget = new HedgeBudget();
  readonly meter: Meter | undefined;
  readonly #options: EngineOptions;
  readonly #members = new Map<string, Engine>();
  readonly #deadlineMs: number;
  readonly #parts = new Set<Closable>();
  readonly #statusListeners = new Set<(status: ClientStatus) => void>();
  #isClosed = false;
  #isRefused = false;

  constructor(options: EngineOptions) {
    this.runtime = options.runtime;
    this.isSecure = options.isSecure;
    this.middleware = options.middleware?.length === 0 ? undefined : options.middleware;
    this.meter = options.meter;
    this.#options = options;
    this.#deadlineMs = options.deadlineMs;
    this.order = options.ordered ? new ReadOrder() : undefined;
    this.authenticator = options.credentials && new Authenticator(this.#loginAs(options.credentials), () => this.#onRefusal());
    this.balancer = new Balancer(options.choice, options.transport, options.runtime, options.keepalive, {
      journal: new EndpointJournal(options.runtime.log, options.meter),
      onChange: () => this.#tellStatus(),
      onProbe: (slot, done) => probe(slot, this.runtime, (this.authenticator?.token ?? anonymous).call, done),
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Makes a call; exactly one of the two callbacks is called, once, later or now. */
  start<Request, Response, Context, Result>(
    procedure: Procedure<Request, Response, Context, Result>,
    request: Request,
    context: Context,
    options: RequestOptions | undefined,
    resolve: (result: Result) => void,
    reject: (error: ConclaveError) => void,
  ): UnaryCall<Request, Response, Context, Result> {
    const call = new UnaryCall(this, procedure, request, context, options, resolve, reject);
    call.start();
    return call;
  }

  deadlineOf(deadlineMs: number | undefined = this.#deadlineMs): number {
    // Longer than a timer can be set for, and than anybody waits.
    if (deadlineMs > timerMaxMs) return Number.POSITIVE_INFINITY;
    if (!(deadlineMs >= 0)) throw invalidArgument(`deadlineMs must not be ${deadlineMs}`);
    return this.runtime.monotonic() + deadlineMs;
  }

  /** Ends `part` when the client closes. */
  attach(part: Closable): void {
    this.#parts.add(part);
  }

  /** The engine for one member alone, whether it is among the endpoints or not. Made when first asked for; ends with this one. */
  at(address: string): Engine {
    const known = this.#members.get(address);
    if (known !== undefined) return known;
    const member = new Engine({ ...this.#options, choice: { addresses: [address] } });
    if (this.#isClosed) member.close();
    else this.#members.set(address, member);
    return member;
  }

  status(): ClientStatus {
    return statusOf(this.balancer.status(), {
      isClosed: this.#isClosed,
      isUnreachable: this.balancer.isUnreachable,
      refusal: this.authenticator?.refusal?.message,
    });
  }

  /** Tells each change. Returns the unsubscribe function. */
  onStatus(listener: (status: ClientStatus) => void): () => void {
    this.#statusListeners.add(listener);
    return () => this.#statusListeners.delete(listener);
  }

  closedError(outcome: Outcome = 'not-applied'): ConclaveError {
    return new ConclaveError({ code: 'client-closed', message: 'the client is closed', outcome });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const part of this.#parts) part.close();
    for (const member of this.#members.values()) member.close();
    for (const call of [...this.parked]) call.close();
    this.balancer.close();
    this.#tellStatus();
    this.#statusListeners.clear();
  }

  #loginAs(credentials: Credentials): Login {
    if ('token' in credentials) return callersTokens(credentials);
    const { username: name, password } = credentials;
    // Those who wait for the token have deadlines of their own.
    const options = { deadlineMs: Number.POSITIVE_INFINITY };
    return (resolve, reject) => {
      const onToken = (token: string): void => {
        this.runtime.log.info({ user: name }, 'a token was obtained');
        resolve(token);
      };
      return this.start(authenticateProcedure, { name, password }, undefined, options, onToken, reject);
    };
  }

  #onRefusal(): void {
    const err = this.authenticator?.refusal;
    // The log is told when it begins, not each time it is tried again.
    if (err !== undefined && !this.#isRefused) this.runtime.log.warn({ err }, 'the server does not accept the credentials');
    this.#isRefused = err !== undefined;
    this.#tellStatus();
  }

  #tellStatus(): void {
    if (this.#statusListeners.size === 0) return;
    const status = this.status();
    for (const listener of this.#statusListeners) listener(status);
  }
}
