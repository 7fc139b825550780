import type { TxnResponse } from '@conclave/protocol';
import { onAbort } from '../connection/abort.ts';
import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import { pause } from '../connection/pause.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { TimeLimit } from '../connection/time-limit.ts';
import { ConclaveError, isConclaveError, type Outcome } from '../errors/conclave-error.ts';
import { longTimerMs } from '../lease/lease.ts';
import type { MarkerLeases } from '../lease/marker-leases.ts';
import { type FirstRun, type OnceMarker, rootPath, unmarked } from './once-marker.ts';
import { OnceReplay } from './once-replay.ts';
import { sendTxn } from './send-txn.ts';

const retryInitialMs = 20;
const retryMaxMs = 1_000;

/** What of a client such a transaction is sent with. */
interface OnceSource {
  readonly engine: Engine;
  readonly markers: MarkerLeases;
}

/**
 * A transaction that leaves a mark, from the first sending to its one answer. As the mark keeps it from being done twice, it is sent again
 * for as long as its outcome is in doubt.
 */
export class OnceCommit {
  readonly #source: OnceSource;
  readonly #marker: OnceMarker;
  readonly #ttlSeconds: number;
  readonly #limit: TimeLimit;
  /** The one of the first sending is the one of all: that it is gone shows that the mark may be too. */
  #lease: bigint | undefined;
  /** Whether an earlier sending may have been, or may still be, done. */
  #isDoubtful = false;

  constructor(source: OnceSource, marker: OnceMarker, ttlSeconds: number, options: RequestOptions | undefined) {
    this.#source = source;
    this.#marker = marker;
    this.#ttlSeconds = ttlSeconds;
    // Beyond the life of the mark nothing would keep it from being done twice.
    this.#limit = new TimeLimit(source.engine, options, ttlSeconds * 1_000);
  }

  /** The answer of the first run, whichever sending made it. */
  async run(): Promise<TxnResponse> {
    try {
      return await this.#untilAnswered();
    } catch (error) {
      if (!this.#isDoubtful || !isConclaveError(error) || error.outcome === 'applied') throw error;
      throw withOutcome(error, 'unknown');
    }
  }

  async #untilAnswered(): Promise<TxnResponse> {
    const { engine, markers } = this.#source;
    const backoff = new Backoff(engine.runtime, retryInitialMs, retryMaxMs);
    for (let hasNewLease = false; ; ) {
      try {
        return await this.#attempt();
      } catch (error) {
        if (!isConclaveError(error)) throw error;
        if (isConclaveError(error, 'lease-not-found') && !hasNewLease && !this.#isDoubtful) {
          // It may be the marks' own lease that somebody revoked. If it is one of the transaction's, the next answer is the same. Not when an
          // earlier sending may have been done: its mark went with the lease, and nothing would keep the next one from doing it again.
          hasNewLease = true;
          this.#lease = undefined;
          markers.forget(this.#ttlSeconds);
          continue;
        }
        this.#isDoubtful ||= error.outcome === 'unknown';
        if (error.outcome !== 'unknown' || error.code === 'cancelled' || error.code === 'client-closed') throw error;
        const delayMs = backoff.next();
        if (delayMs >= this.#limit.remainingMs) throw error;
        await pause(engine, delayMs, this.#limit.signal);
      }
    }
  }

  async #attempt(): Promise<TxnResponse> {
    this.#limit.check();
    this.#lease ??= await this.#inTime(this.#source.markers.take(this.#ttlSeconds));
    const lease = this.#lease;
    const response = await sendTxn(this.#source.engine, this.#marker.request(lease), 'writes', this.#limit.rest());
    if (response.succeeded) {
      const first = response.responses[0]?.responseTxn;
      if (first !== undefined) return unmarked({ ...first, header: response.header });
    }
    const firstRun = this.#marker.firstRun(response);
    if (firstRun === undefined)
      throw new ConclaveError({ code: 'internal', message: 'the answer does not fit the transaction', outcome: 'unknown' });
    if (!this.#marker.isOf(firstRun)) throw mismatch(firstRun);
    try {
      const replay = new OnceReplay(this.#source.engine, firstRun, this.#limit.rest());
      return unmarked(await replay.response(this.#marker.marked(lease)));
    } catch (error) {
      throw isConclaveError(error) ? withOutcome(error, 'applied') : error;
    }
  }

  /** The lease is shared, so that giving up one transaction must not give it up. */
  #inTime<T>(promise: Promise<T>): Promise<T> {
    const { signal, remainingMs } = this.#limit;
    return new Promise((resolve, reject) => {
      const timer = this.#source.engine.runtime.timer(Math.min(longTimerMs, remainingMs), () => reject(this.#limit.exceeded()));
      const stopListening = signal === undefined ? undefined : onAbort(signal, () => reject(this.#limit.cancelled()));
      const end = (): void => {
        timer.cancel();
        stopListening?.();
      };
      promise.then(resolve, reject).finally(end);
    });
  }
}

function mismatch({ revision, branches }: FirstRun): ConclaveError<'once-mismatch'> {
  return new ConclaveError({
    code: 'once-mismatch',
    message: `the id was used for another transaction, at revision ${revision}`,
    outcome: 'not-applied',
    details: { succeeded: branches.get(rootPath) === true, revision: BigInt(revision) },
  });
}

/** The same failure, when more is known of the effect than the call that failed could say. */
function withOutcome({ code, message, details, grpcCode, cause }: ConclaveError, outcome: Outcome): ConclaveError {
  return new ConclaveError({ code, message, outcome, details, grpcCode, cause });
}
