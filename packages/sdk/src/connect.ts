import { type Logger, type Runtime, systemRuntime, type Transport } from '@conclave/wire';
import type { GrpcTransportOptions, TlsOptions } from '@conclave/wire/grpc-client';
import { Client, coreOf, type Ring } from './client.ts';
import { onAbort } from './connection/abort.ts';
import type { Credentials } from './connection/authenticator.ts';
import { describeEndpoints } from './connection/balancer.ts';
import { type Endpoints, parseEndpoints } from './connection/endpoint.ts';
import { EndpointSync, type SyncOptions } from './connection/endpoint-sync.ts';
import { Engine } from './connection/engine.ts';
import { loggingRuntime } from './connection/logging-runtime.ts';
import type { Middleware } from './connection/middleware.ts';
import { assertObservers } from './connection/observers.ts';
import { clampKeepalive } from './connection/slot.ts';
import { type DiscoveryOptions, SrvDiscovery } from './connection/srv-discovery.ts';
import { notIdentified } from './connection/token.ts';
import { ConclaveError, invalidArgument } from './errors/conclave-error.ts';
import { KeyPrefix } from './kv/key-range.ts';
import { type Key, toBytes } from './kv/text.ts';
import { Meter } from './metrics/meter.ts';
import type { Metrics } from './metrics/metrics.ts';

export interface ConnectOptions {
  /**
   * The members to talk to: `host:port`, `http://host:port`, `https://host:port`, `[v6]:port`, `unix:/path`; several as a list or separated by
   * commas. Calls are spread over those that can be reached. Either all speak TLS or none does. Either this or `discovery` is needed.
   */
  readonly endpoints?: string | readonly string[] | undefined;
  /**
   * Find the members in DNS, as etcd's own tools do with `--discovery-srv`. Endpoints speak TLS if there are records for that, and must if `tls`
   * is given. Calls go to those of the best priority that can be reached, shared as the weights say. DNS is asked again when no endpoint can be
   * reached any more, and as often as `sync` says. As long as `tls.ca` does not say whom to trust, only hosts of the domain itself are taken:
   * otherwise a forged record could lead to any host with a certificate of its own.
   */
  readonly discovery?: DiscoveryOptions | undefined;
  /**
   * Whom to trust and who to be over TLS. Files are read anew for each attempt to connect, so that certificates that were replaced are used
   * without a restart, and connections that stand stay. Default: endpoints with `https://` speak TLS and are recognised by the authorities
   * that Node comes with.
   */
  readonly tls?: TlsOptions | undefined;
  /**
   * Who the client is: a name and a password, or a token from elsewhere. It obtains a token and renews it whenever the server asks for that, under
   * calls, watches and leases that go on. With a server that does not ask who its clients are, nothing changes. Default: nobody, or whom the server takes the certificate in `tls` for.
   */
  readonly credentials?: Credentials | undefined;
  /**
   * Follow the members of the cluster as {@link Client.sync} does, again and again. Without `discovery` only where clients can reach what the
   * members advertise (`--advertise-client-urls`). Default: the endpoints stay as they are given, or were found.
   */
  readonly sync?: SyncOptions | undefined;
  /** How connections are made. Default: gRPC over TCP, with TLS or without, or unix sockets. */
  readonly transport?: Transport | undefined;
  /** Clocks, timers, chance and log. Default: the system's, with a silent log. */
  readonly runtime?: Runtime | undefined;
  /**
   * Where to tell what an operator wants to know: endpoints lost and back, tokens, watches that lost their stream, leases at risk. A logger of
   * pino fits as it is. Never told: values, passwords, tokens. Default: the log of `runtime`.
   */
  readonly log?: Logger | undefined;
  /** What every call and every stream passes through, the first one first. Default: nothing. */
  readonly middleware?: readonly Middleware[] | undefined;
  /** Where to measure. Default: nowhere. */
  readonly metrics?: Metrics | undefined;
  /** Put before every key. Default: nothing. See {@link Namespace}. */
  readonly namespace?: Key | undefined;
  /** How long a call may take that does not say so itself, in milliseconds. Default: 5000. */
  readonly deadlineMs?: number | undefined;
  /**
   * After how much silence on an open stream the server is asked whether it lives, in milliseconds. Default: 10,000; less than 6,000 is raised
   * to that, as servers hang up on clients that ask more often. Unanswered calls are looked after much sooner.
   */
  readonly keepaliveMs?: number | undefined;
  /** How long it may take to answer that, in milliseconds; then the connection is given up. Default: 2000, at least 100. */
  readonly keepaliveTimeoutMs?: number | undefined;
  /**
   * Never go back: a read answered from below the highest revision this client had been told of when it asked is repeated, on another member if there is one,
   * until it is not, and rejects with `stale` when its time is up. That concerns `serializable` reads; others never go back. Default: false.
   */
  readonly ordered?: boolean | undefined;
  /** Return without waiting until an endpoint can be reached. Default: false. */
  readonly lazy?: boolean | undefined;
  /** Gives connecting up. It has no effect on the client afterwards. */
  readonly signal?: AbortSignal | undefined;
}

const deadlineMsDefault = 5_000;
const syncFloorMs = 1_000;

/**
 * Connects to an etcd, or to a server that speaks its protocol.
 *
 * @throws ConclaveError `unavailable` when no endpoint could be reached within `deadlineMs`, `authentication-failed` when the server does not
 * accept the credentials, `invalid-argument`, `cancelled`
 * @example
 * ```ts
 * await using client = await connect({ endpoints: '127.0.0.1:2379' });
 * await client.put('greeting', 'hello');
 * ```
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  const source = sourceOf(options);
  const { credentials } = options;
  if (credentials !== undefined && 'username' in credentials && credentials.username === '')
    throw invalidArgument('credentials.username is empty');
  if (credentials !== undefined && 'token' in credentials && credentials.token === '') throw invalidArgument('credentials.token is empty');
  const { sync } = options;
  if (sync !== undefined && !(sync.intervalMs >= syncFloorMs)) throw invalidArgument(`sync.intervalMs must be at least ${syncFloorMs}`);
  const keepalive = clampKeepalive(options.keepaliveMs, options.keepaliveTimeoutMs);
  assertObservers(options);
  const runtime = runtimeOf(options);
  const deadlineMs = options.deadlineMs ?? deadlineMsDefault;
  if (!(deadlineMs > 0)) throw invalidArgument(`deadlineMs must be above 0, not ${deadlineMs}`);
  const ring = loadedRing ?? (await loadRing());
  const startedAt = runtime.monotonic();
  const discovery = source instanceof SrvDiscovery ? source : undefined;
  const choice = source instanceof SrvDiscovery ? await source.lookUntil(runtime, deadlineMs, options.signal) : source;
  const tls = tlsOf(options, source.isSecure);
  const transport = options.transport ?? (await grpc({ runtime, keepaliveTimeMs: keepalive.keepaliveMs, tls }));
  const ordered = options.ordered === true;
  const { middleware } = options;
  const meter = options.metrics && new Meter(options.metrics, runtime);
  const engine = new Engine({
    choice,
    transport,
    runtime,
    deadlineMs,
    keepalive,
    credentials,
    ordered,
    isSecure: tls !== undefined,
    middleware,
    meter,
  });
  if (meter !== undefined) engine.attach(meter);
  const endpoints = new EndpointSync(engine, tls !== undefined, discovery);
  const client = new Client(coreOf(engine, endpoints, ring), new KeyPrefix(toBytes(options.namespace ?? '')));
  if (options.lazy !== true) await ready(engine, Math.max(1, startedAt + deadlineMs - runtime.monotonic()), options.signal);
  if (sync !== undefined) endpoints.repeat(sync.intervalMs);
  return client;
}

/** Where the endpoints are from. */
function sourceOf({ endpoints, discovery, tls, transport }: ConnectOptions): Endpoints | SrvDiscovery {
  if (endpoints !== undefined && discovery === undefined) return parseEndpoints(endpoints);
  if (discovery === undefined || endpoints !== undefined) throw invalidArgument('either endpoints or discovery is needed, and not both');
  // A transport that was passed knows itself what it speaks.
  const isSecure = tls !== undefined ? true : transport !== undefined ? false : undefined;
  return new SrvDiscovery(discovery, isSecure, tls?.ca === undefined);
}

/**
 * Loads what the first {@link connect} would load: rxjs. Importing this package does not, so that a program which imports it for its types or
 * its errors need not pay. Whoever connects in virtual time calls it before, as that time does not wait for files.
 *
 * @example
 * ```ts
 * await preload(); // so that the first `connect` of this process waits for the server alone
 * ```
 */
export async function preload(): Promise<void> {
  await loadRing();
}

let loadedRing: Ring | undefined;

async function loadRing(): Promise<Ring> {
  loadedRing = await import('./rx/ring.ts');
  return loadedRing;
}

async function grpc(options: GrpcTransportOptions): Promise<Transport> {
  const { grpcTransport } = await import('@conclave/wire/grpc-client');
  return grpcTransport(options);
}

function runtimeOf({ runtime, log }: ConnectOptions): Runtime {
  if (runtime === undefined) return systemRuntime(log);
  return log === undefined ? runtime : loggingRuntime(runtime, log);
}

/** What the transport needs to speak TLS; undefined: it shall not. */
function tlsOf({ tls, transport }: ConnectOptions, isSecure: boolean | undefined): TlsOptions | undefined {
  if (tls === undefined && isSecure !== true) return undefined;
  if (transport !== undefined)
    throw invalidArgument('TLS belongs to the transport: give it to the one that was passed, and addresses without https://');
  if (isSecure === false) throw invalidArgument('tls was given, but the endpoints do not speak it: write https://');
  if ((tls?.cert === undefined) !== (tls?.key === undefined)) throw invalidArgument('tls.cert and tls.key come together');
  return tls ?? {};
}

/** Waits for the first endpoint, and until it knows who this is; closes the engine if that does not come to pass. */
async function ready(engine: Engine, deadlineMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(cancelled(signal));
        return;
      }
      const settle = (outcome: () => void): void => {
        timer?.cancel();
        stopListening?.();
        engine.balancer.forget(waiter);
        engine.authenticator?.forget(waiter);
        outcome();
      };
      const waiter = {
        onReady: () => (engine.authenticator === undefined ? settle(resolve) : engine.authenticator.wait(waiter)),
        onToken: () => settle(resolve),
        onRefused: (error: ConclaveError) => settle(() => reject(error)),
      };
      const giveUp = (): void => settle(() => reject(engine.balancer.pick() === undefined ? unreachable(engine) : notIdentified()));
      const deadline = engine.deadlineOf(deadlineMs);
      const timer = deadline === Number.POSITIVE_INFINITY ? undefined : engine.runtime.timer(deadlineMs, giveUp);
      const stopListening = signal === undefined ? undefined : onAbort(signal, () => settle(() => reject(cancelled(signal))));
      if (engine.balancer.pick() === undefined) engine.balancer.wait(waiter);
      else waiter.onReady();
    });
  } catch (error) {
    engine.close();
    throw error;
  }
}

function cancelled(signal: AbortSignal | undefined): ConclaveError {
  return new ConclaveError({ code: 'cancelled', message: 'connecting was cancelled', outcome: 'not-applied', cause: signal?.reason });
}

function unreachable(engine: Engine): ConclaveError {
  return new ConclaveError({
    code: 'unavailable',
    message: `no endpoint could be reached (${describeEndpoints(engine.balancer.status())})`,
    outcome: 'not-applied',
  });
}
