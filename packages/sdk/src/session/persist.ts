import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import { pause } from '../connection/pause.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import type { TimeLimit } from '../connection/time-limit.ts';
import { isPassing } from '../errors/passing.ts';

const retryInitialMs = 50;
const retryMaxMs = 1_000;

/** Repeats what may be repeated until it is answered, or its time is up. */
export async function persist<T>(engine: Engine, limit: TimeLimit, call: (rest: RequestOptions) => Promise<T>): Promise<T> {
  const backoff = new Backoff(engine.runtime, retryInitialMs, retryMaxMs);
  for (;;) {
    try {
      return await call(limit.rest());
    } catch (error) {
      const delayMs = backoff.next();
      if (!isPassing(error) || engine.isClosed || limit.signal?.aborted === true || delayMs >= limit.remainingMs) throw error;
      await pause(engine, delayMs, limit.signal);
    }
  }
}
