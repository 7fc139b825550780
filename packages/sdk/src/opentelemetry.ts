import { type Attributes, context, propagation, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api';
import type { CallReport, InterceptedCall, Middleware } from './connection/middleware.ts';

export interface SpanOptions {
  /** Makes the spans. Default: the one that the global tracer provider has for `@conclave/sdk`. */
  readonly tracer?: Tracer | undefined;
  /** Send the context of the span along with the call, as the global propagator writes it (`traceparent`, …). Default: false. */
  readonly propagate?: boolean | undefined;
}

/**
 * A span of kind `client` for each call, the child of whatever span is active where the call is made. Streams have one only if they are somebody's:
 * those of `client.scan` and of snapshots. The streams of watches and leases are shared by all of a client, and live as long as it does.
 *
 * The name is `etcdserverpb.KV/Put`. Attributes: `rpc.system` (`grpc`), `rpc.service`, `rpc.method`, `rpc.grpc.status_code`, `server.address` and
 * `server.port` of the endpoint that was asked last; of a call that failed `error.type` and `conclave.outcome`, with the code and the outcome
 * of its error. A call that is sent once more has an event `retry` for each time. Keys and values are not told.
 *
 * @example
 * ```ts
 * import { spans } from '@conclave/sdk/opentelemetry';
 *
 * const client = await connect({ endpoints: '127.0.0.1:2379', middleware: [spans()] });
 * ```
 */
export function spans(options: SpanOptions = {}): Middleware {
  const { propagate = false } = options;
  return (call, next) => {
    if (isShared(call)) {
      next();
      return;
    }
    // Asked for each time: the provider may be set after the client was made.
    const tracer = options.tracer ?? trace.getTracer('@conclave/sdk');
    const { service, method } = call;
    const attributes = { 'rpc.system': 'grpc', 'rpc.service': service, 'rpc.method': method };
    const parent = context.active();
    const span = tracer.startSpan(`${service}/${method}`, { kind: SpanKind.CLIENT, attributes }, parent);
    const inside = trace.setSpan(parent, span);
    call.onAttempt(({ number, endpoint, after }) => {
      span.setAttributes(serverOf(endpoint));
      if (number === 1) return;
      const why = after && { 'rpc.grpc.status_code': after.grpcCode, reason: after.message };
      span.addEvent('retry', { attempt: number, ...serverOf(endpoint), ...why });
    });
    call.onEnd((report) => {
      const statusCode = statusCodeOf(report);
      if (statusCode !== undefined) span.setAttribute('rpc.grpc.status_code', statusCode);
      const { error } = report;
      if (error !== undefined) {
        span.setAttributes({ 'error.type': error.code, 'conclave.outcome': error.outcome });
        span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
      }
      span.end();
    });
    if (propagate) propagation.inject(inside, call, { set: (carrier, name, value) => carrier.setMetadata(name.toLowerCase(), value) });
    context.with(inside, next);
  };
}

const sharedStreams: ReadonlySet<string> = new Set(['Watch', 'LeaseKeepAlive']);

function isShared({ kind, method }: InterceptedCall): boolean {
  return kind === 'stream' && sharedStreams.has(method);
}

function serverOf(endpoint: string): Attributes {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(endpoint) ?? [];
  if (port === undefined) return { 'server.address': endpoint.replace(/^unix:/, '') };
  return { 'server.address': bracketed ?? plain ?? endpoint, 'server.port': Number(port) };
}

/** Status codes of calls that ended without a server's word. */
const localStatusCodes: Readonly<Record<string, number>> = { ok: 0, cancelled: 1, 'deadline-exceeded': 4, unavailable: 14 };

function statusCodeOf({ code, error }: CallReport): number | undefined {
  return error?.grpcCode ?? localStatusCodes[code];
}
