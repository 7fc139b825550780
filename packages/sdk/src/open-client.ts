import { type Runtime, systemRuntime, type Transport } from '@conclave/wire';
import type { GrpcTransportOptions, TlsOptions } from '@conclave/wire/grpc-client';
import { Client, coreOf } from './client.ts';
import type { ConnectOptions } from './connect-options.ts';
import { onAbort } from './connection/abort.ts';
import { describeEndpoints } from './connection/balancer.ts';
import { type Endpoints, parseEndpoints } from './connection/endpoint.ts';
import { EndpointSync } from './connection/endpoint-sync.ts';
import { Engine } from './connection/engine.ts';
import { clampKeepalive } from './connection/liveness.ts';
import { loggingRuntime } from './connection/logging-runtime.ts';
import { assertObservers } from './connection/observers.ts';
import { SrvDiscovery } from './connection/srv-discovery.ts';
import { notIdentified } from './connection/token.ts';
import { ConclaveError, invalidArgument } from './errors/conclave-error.ts';
import { KeyPrefix } from './kv/key-range.ts';
import { toBytes } from './kv/text.ts';
import { Meter } from './metrics/meter.ts';

const deadlineMsDefault = 5_000;
const syncFloorMs = 1_000;

/** What `connect` does, apart from it: importing the package loads none of this. */
export async function openClient(options: ConnectOptions): Promise<Client> {
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
  const startedAt = runtime.monotonic();
  const discovery = source instanceof SrvDiscovery ? source : undefined;
  const choice = source instanceof SrvDiscovery ? await source.lookUntil(runtime, deadlineMs, options.signal) : source;
  const tls = tlsOf(options, source.isSecure);
  const transport = options.transport ?? (await grpc({ runtime, tls }));
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
  const client = new Client(coreOf(engine, endpoints), new KeyPrefix(toBytes(options.namespace ?? '')));
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

async function grpc(options: GrpcTransportOptions): Promise<Transport> {
  const { grpcTransport } = await import('@conclave/wire/grpc-client');
  return grpcTransport(options);
}

function runtimeOf({ runtime, log }: ConnectOptions): Runtime {
  const chosen = runtime ?? systemRuntime();
  return log === undefined ? chosen : loggingRuntime(chosen, log);
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
