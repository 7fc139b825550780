import { Counter, Gauge, register as globalRegistry, Histogram, type Registry } from 'prom-client';
import type { ClientGauges, Metrics } from './metrics/metrics.ts';

export interface PromMetricsOptions {
  /** Where the metrics are registered. Clients of one registry share them. Default: the global registry of prom-client. */
  readonly register?: Registry | undefined;
  /** What tells this client from others of the same registry, as the label `client`. Default: `default`. */
  readonly client?: string | undefined;
}

/**
 * The measurements of a client as metrics of prom-client. Gauges are read when the registry is: there are no timers. Of clients with one name
 * the calls in flight are added up, and of lag and slack the worst is told.
 *
 * | name, after `conclave_client_` | type      | labels            | what it is                                                             |
 * | ------------------------------ | --------- | ----------------- | ---------------------------------------------------------------------- |
 * | `rpc_duration_seconds`         | histogram | `method`, `code`  | how long calls took, repeating included; `code` is `ok` or the error's |
 * | `rpc_repeats_total`            | counter   | `method`          | calls sent once more                                                   |
 * | `rpc_in_flight`                | gauge     |                   | calls under way                                                        |
 * | `watch_events_total`           | counter   |                   | events told to watches and views                                       |
 * | `watch_lag_revisions`          | gauge     |                   | how far the watch that is furthest behind is                           |
 * | `watch_resumes_total`          | counter   |                   | watches that went on on another stream                                 |
 * | `view_resyncs_total`           | counter   |                   | views read anew, as history was compacted away                         |
 * | `lease_slack_milliseconds`     | gauge     |                   | what is left of the lease that is worst off; absent without leases     |
 * | `lease_renewal_seconds`        | histogram |                   | round trips of renewals                                                |
 * | `leases_lost_total`            | counter   |                   | leases lost                                                            |
 * | `endpoint_changes_total`       | counter   | `endpoint`, `state` | connections that went into a state                                   |
 *
 * @example
 * ```ts
 * import { promMetrics } from '@conclave/sdk/prom-client';
 * import { register } from 'prom-client';
 *
 * const client = await connect({ endpoints: '127.0.0.1:2379', metrics: promMetrics({ client: 'orders' }) });
 * await client.put('greeting', 'hello');
 * console.log(await register.metrics());
 * ```
 */
export function promMetrics(options: PromMetricsOptions = {}): Metrics {
  const { register = globalRegistry, client = 'default' } = options;
  const instruments = instrumentsOf(register);
  const own = { client };
  return {
    callEnded: (method, code, seconds) => instruments.rpcDuration.observe({ client, method, code }, seconds),
    callRepeated: (method) => instruments.rpcRepeats.inc({ client, method }),
    watchEvents: (count) => instruments.watchEvents.inc(own, count),
    watchesResumed: (count) => instruments.watchResumes.inc(own, count),
    viewResynced: () => instruments.viewResyncs.inc(own),
    leaseRenewed: (seconds) => instruments.leaseRenewal.observe(own, seconds),
    leaseLost: () => instruments.leasesLost.inc(own),
    endpointChanged: (endpoint, state) => instruments.endpointChanges.inc({ client, endpoint, state }),
    observe: (gauges) => instruments.clients.add(client, gauges),
  };
}

const prefix = 'conclave_client_';
/** From half a millisecond, the fastest a call over a network is, to the default deadline and beyond. */
const buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

type Instruments = ReturnType<typeof instrument>;

const registered = new WeakMap<Registry, Instruments>();

/** Those of the registry, made when first asked for, or when it was cleared since. */
function instrumentsOf(register: Registry): Instruments {
  const known = registered.get(register);
  if (known !== undefined && register.getSingleMetric(`${prefix}rpc_duration_seconds`) === known.rpcDuration) return known;
  const made = instrument(register);
  registered.set(register, made);
  return made;
}

function instrument(register: Registry) {
  const clients = new ObservedClients();
  const registers = [register];
  const counter = <Label extends string>(name: string, help: string, ...labels: readonly Label[]): Counter<Label | 'client'> =>
    new Counter({ name: prefix + name, help, labelNames: ['client', ...labels], registers });
  const histogram = <Label extends string>(name: string, help: string, ...labels: readonly Label[]): Histogram<Label | 'client'> =>
    new Histogram({ name: prefix + name, help, labelNames: ['client', ...labels], buckets, registers });
  const gauge = (name: string, help: string, read: (gauges: readonly ClientGauges[]) => number | undefined): void => {
    const collect = (): void => {
      made.reset();
      for (const [client, gauges] of clients) {
        const value = read(gauges);
        if (value !== undefined) made.set({ client }, value);
      }
    };
    const made: Gauge<'client'> = new Gauge({ name: prefix + name, help, labelNames: ['client'], registers, collect });
  };
  gauge('rpc_in_flight', 'Calls under way.', (gauges) => gauges.reduce((sum, { callsInFlight }) => sum + callsInFlight, 0));
  gauge('watch_lag_revisions', 'By how many revisions the watch that is furthest behind is behind.', (gauges) =>
    Math.max(...gauges.map(({ watchLagRevisions }) => watchLagRevisions)),
  );
  gauge('lease_slack_milliseconds', 'For how long the lease that is worst off can still be relied on without a renewal.', (gauges) => {
    const slacks = gauges.flatMap(({ leaseSlackMs }) => leaseSlackMs ?? []);
    return slacks.length === 0 ? undefined : Math.min(...slacks);
  });
  return {
    clients,
    rpcDuration: histogram('rpc_duration_seconds', 'How long calls took, repeating included.', 'method', 'code'),
    rpcRepeats: counter('rpc_repeats_total', 'Calls that were sent once more.', 'method'),
    watchEvents: counter('watch_events_total', 'Events told to watches and views.'),
    watchResumes: counter('watch_resumes_total', 'Watches that went on on another stream.'),
    viewResyncs: counter('view_resyncs_total', 'Views read anew, as history was compacted away.'),
    leaseRenewal: histogram('lease_renewal_seconds', 'Round trips of lease renewals.'),
    leasesLost: counter('leases_lost_total', 'Leases lost.'),
    endpointChanges: counter('endpoint_changes_total', 'Connections that went into a state.', 'endpoint', 'state'),
  };
}

/** The open clients of a registry, by name. */
class ObservedClients {
  readonly #byName = new Map<string, Set<ClientGauges>>();

  add(name: string, gauges: ClientGauges): () => void {
    const named = this.#byName.get(name) ?? new Set();
    this.#byName.set(name, named.add(gauges));
    return () => {
      named.delete(gauges);
      if (named.size === 0 && this.#byName.get(name) === named) this.#byName.delete(name);
    };
  }

  *[Symbol.iterator](): IterableIterator<[string, readonly ClientGauges[]]> {
    for (const [name, gauges] of this.#byName) yield [name, [...gauges]];
  }
}
