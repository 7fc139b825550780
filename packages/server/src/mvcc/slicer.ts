/**
 * How a long read shares the loop. Given from above, because this layer has no clock: a read asks `isSpent` every few rows and, once it is,
 * continues after `nextSlice`. Slices of at most 2 ms keep heartbeats and small requests on time beside a read of a million keys.
 */
export interface Slicer {
  /** Whether the present slice has used up its time. */
  isSpent(): boolean;
  /** Resolves in a later turn of the loop and begins a fresh slice. A rejection ends the read with the same error (its caller is gone). */
  nextSlice(): Promise<void>;
}
