import type { Logger } from '@conclave/wire';
import { invalidArgument } from '../errors/conclave-error.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { Middleware } from './middleware.ts';

/** Who looks on, as given to `connect`. */
interface Observers {
  readonly log?: Logger | undefined;
  readonly middleware?: readonly Middleware[] | undefined;
  readonly metrics?: Metrics | undefined;
}

/** Told at once: what is called for the first time in the midst of a call, or by a timer, would fail there. */
export function assertObservers({ log, middleware, metrics }: Observers): void {
  if (log !== undefined) assertMethods('log', log, logMethods);
  if (metrics !== undefined) assertMethods('metrics', metrics, metricsMethods);
  if (middleware === undefined) return;
  if (!Array.isArray(middleware)) throw invalidArgument('middleware must be a list of functions');
  // Not `some`, which steps over holes.
  for (const one of middleware) if (typeof one !== 'function') throw invalidArgument('each of middleware must be a function');
}

function assertMethods<T extends object>(name: string, given: T, methods: readonly (keyof T & string)[]): void {
  const missing = methods.filter((method) => typeof (given as T | null)?.[method] !== 'function');
  if (missing.length > 0) throw invalidArgument(`${name} lacks ${missing.join(', ')}`);
}

const logMethods: readonly (keyof Logger)[] = ['debug', 'info', 'warn', 'error'];

const metricsMethods: readonly (keyof Metrics)[] = [
  'callEnded',
  'callRepeated',
  'watchEvents',
  'watchesResumed',
  'viewResynced',
  'leaseRenewed',
  'leaseLost',
  'endpointChanged',
  'observe',
];
