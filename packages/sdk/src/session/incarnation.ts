import type { Engine } from '../connection/engine.ts';
import type { Comparison } from '../kv/comparison.ts';
import type { Lease } from '../lease/lease.ts';

/** One lease of a session, and what its keys are put under. */
export interface Incarnation {
  readonly lease: Lease;
  /** The ids of leases that the session had before: what is attached to them is the session's own. */
  readonly formerLeases: ReadonlySet<bigint>;
  /** Hold while the session is this process's. Every write of the session's carries them, so that none can land after a hand-over. */
  readonly guards: readonly Comparison[];
}

/** An owner or a claim: what nobody else draws. */
export function drawId({ runtime }: Engine): string {
  const part = (): string =>
    Math.floor(runtime.random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0');
  return `${part()}${part()}${part()}${part()}`;
}
