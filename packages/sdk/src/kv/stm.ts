import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import { pause } from '../connection/pause.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { TimeLimit } from '../connection/time-limit.ts';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import type { Comparison } from './comparison.ts';
import type { KeyPrefix } from './key-range.ts';
import { type Found, StmAttempt } from './stm-attempt.ts';
import type { Isolation, StmTransaction } from './stm-transaction.ts';
import { toCounter } from './text.ts';

/** `deadlineMs` and `signal` are for the whole, repeats included. */
export interface StmOptions extends RequestOptions {
  /** Default: `serializableSnapshot`. */
  readonly isolation?: Isolation | undefined;
  /**
   * Conditions that must hold when the writes are made, such as the `guard` of a lock or a leader; checked also when there are no writes. If one
   * does not, nothing is written, the body does not run again, and the transaction rejects with `guard-failed`. Default: none.
   */
  readonly guards?: readonly Comparison[] | undefined;
  /** How often the body may run before others are too much in the way, 1 or more. Default: 100. */
  readonly attemptsMax?: number | undefined;
}

const attemptsMaxDefault = 100;
const retryInitialMs = 2;
const retryMaxMs = 250;

const isolations: readonly Isolation[] = ['serializableSnapshot', 'serializable', 'repeatableReads', 'readCommitted'];

/** Runs a body until what it read still held when its writes were made. */
export async function runStm<T>(
  engine: Engine,
  prefix: KeyPrefix,
  body: (tx: StmTransaction) => T | Promise<T>,
  options: StmOptions = {},
): Promise<T> {
  const { isolation = 'serializableSnapshot', guards = [], attemptsMax = attemptsMaxDefault } = options;
  if (!isolations.includes(isolation)) throw invalidArgument(`isolation must be one of ${isolations.join(', ')}, not ${isolation}`);
  if (toCounter(attemptsMax, 'attemptsMax') === 0) throw invalidArgument('attemptsMax must be 1 or more');
  const limit = new TimeLimit(engine, options);
  const backoff = new Backoff(engine.runtime, retryInitialMs, retryMaxMs);
  let found: Found | undefined;
  for (let attempts = 1; ; attempts++) {
    limit.check();
    const attempt = new StmAttempt(engine, prefix, { isolation, guards }, limit, found);
    try {
      const result = await body(attempt);
      found = await attempt.commit();
      if (found === undefined) return result;
    } catch (error) {
      // The revision of the first read was compacted away before the last: time was in the way, and is no longer.
      if (!attempt.isCompacted) throw error;
      found = undefined;
    }
    if (attempts >= attemptsMax) throw conflict(attempts);
    await pause(engine, Math.min(backoff.next(), Math.max(0, limit.remainingMs)), limit.signal);
  }
}

function conflict(attempts: number): ConclaveError<'conflict'> {
  return new ConclaveError({
    code: 'conflict',
    message: `others changed what the transaction read in each of ${attempts} attempts`,
    outcome: 'not-applied',
  });
}
