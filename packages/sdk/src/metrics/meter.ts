import type { ConnectionState, Runtime } from '@conclave/wire';
import { harmlessMetrics } from './harmless-metrics.ts';
import type { ClientGauges, Metrics } from './metrics.ts';

/** Something that may be behind the store. */
interface Lagging {
  /** By how many revisions, if the client has seen the store at `seen`. */
  lag(seen: number): number;
}

/** Something that holds leases. */
interface Slack {
  /** What is left of the one that is worst off, in milliseconds; undefined: there is none. */
  slackMs(): number | undefined;
}

/** What one client measures, all its parts together. */
export class Meter implements ClientGauges {
  readonly metrics: Metrics;
  readonly #runtime: Runtime;
  readonly #lagging = new Set<Lagging>();
  readonly #slacks = new Set<Slack>();
  readonly #methods = new Map<string, string>();
  readonly #unobserve: () => void;
  #callsInFlight = 0;
  #seen = 0;

  constructor(metrics: Metrics, runtime: Runtime) {
    this.metrics = harmlessMetrics(metrics, runtime.log);
    this.#runtime = runtime;
    this.#unobserve = this.metrics.observe(this);
  }

  get callsInFlight(): number {
    return this.#callsInFlight;
  }

  get watchLagRevisions(): number {
    let most = 0;
    for (const lagging of this.#lagging) most = Math.max(most, lagging.lag(this.#seen));
    return most;
  }

  get leaseSlackMs(): number | undefined {
    let least: number | undefined;
    for (const slack of this.#slacks) {
      const slackMs = slack.slackMs();
      if (slackMs !== undefined && (least === undefined || slackMs < least)) least = slackMs;
    }
    return least;
  }

  /** Returns the moment, for {@link Meter.callEnded}. */
  callStarted(): number {
    this.#callsInFlight++;
    return this.#runtime.monotonic();
  }

  callEnded(path: string, code: string, startedAt: number): void {
    this.#callsInFlight--;
    this.metrics.callEnded(this.#methodOf(path), code, (this.#runtime.monotonic() - startedAt) / 1_000);
  }

  callRepeated(path: string): void {
    this.metrics.callRepeated(this.#methodOf(path));
  }

  /** The store is at least here. */
  see(revision: number): void {
    if (revision > this.#seen) this.#seen = revision;
  }

  /** Returns the function that takes it away. */
  follow(lagging: Lagging): () => void {
    this.#lagging.add(lagging);
    return () => this.#lagging.delete(lagging);
  }

  hold(slack: Slack): void {
    this.#slacks.add(slack);
  }

  endpointChanged(endpoint: string, state: ConnectionState): void {
    this.metrics.endpointChanged(endpoint, state);
  }

  close(): void {
    this.#unobserve();
  }

  #methodOf(path: string): string {
    const known = this.#methods.get(path);
    if (known !== undefined) return known;
    const method = path.slice(path.lastIndexOf('/') + 1);
    this.#methods.set(path, method);
    return method;
  }
}
