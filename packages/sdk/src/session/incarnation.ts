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
