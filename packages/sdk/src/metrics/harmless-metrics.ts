import type { Logger } from '@conclave/wire';
import type { Metrics } from './metrics.ts';

/**
 * `metrics`, without a say in what is measured: what it throws would end in the midst of a call. It goes to the log as what a middleware throws does, but
 * once for each method, for what fails once mostly fails with each call.
 */
export function harmlessMetrics(metrics: Metrics, log: Logger): Metrics {
  const failed = new Set<string>();
  const attempt = <T>(method: string, measure: () => T): T | undefined => {
    try {
      return measure();
    } catch (err) {
      if (!failed.has(method)) log.warn({ err, method }, 'metrics failed; what they measure goes on');
      failed.add(method);
      return undefined;
    }
  };
  return {
    callEnded: (method, code, seconds) => attempt('callEnded', () => metrics.callEnded(method, code, seconds)),
    callRepeated: (method) => attempt('callRepeated', () => metrics.callRepeated(method)),
    watchEvents: (count) => attempt('watchEvents', () => metrics.watchEvents(count)),
    watchesResumed: (count) => attempt('watchesResumed', () => metrics.watchesResumed(count)),
    viewResynced: () => attempt('viewResynced', () => metrics.viewResynced()),
    leaseRenewed: (seconds) => attempt('leaseRenewed', () => metrics.leaseRenewed(seconds)),
    leaseLost: () => attempt('leaseLost', () => metrics.leaseLost()),
    endpointChanged: (endpoint, state) => attempt('endpointChanged', () => metrics.endpointChanged(endpoint, state)),
    observe(gauges) {
      const unobserve = attempt('observe', () => metrics.observe(gauges));
      return () => attempt('observe', () => unobserve?.());
    },
  };
}
