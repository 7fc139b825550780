import { type Init, KV, type TxnRequest, type TxnResponse } from '@conclave/protocol';
import { onAbort } from '../connection/abort.ts';
import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import { pause } from '../connection/pause.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import { ConclaveError, isConclaveError } from '../errors/conclave-error.ts';
import { longTimerMs } from '../lease/lease.ts';
import type { MarkerLeases } from '../lease/marker-leases.ts';
import { type OnceMarker, unmarked } from './once-marker.ts';
import { OnceReplay } from './once-replay.ts';

const retryInitialMs = 20;
const retryMaxMs = 1_000;

/** What transactions are sent with, of the client they belong to. */
export interface TxnSource {
  readonly engine: Engine;
  readonly markers: MarkerLeases;
}

/**
 * A transaction that leaves a mark, from the first sending to its one answer. As the mark keeps it from being done twice, it is sent again
 * for as long as its outcome is in doubt.
 */
export class OnceCommit {
  readonly #source: TxnSource;
  readonly #marker: OnceMarker;
  readonly #ttlSeconds: number;
  readonly #signal: AbortSignal | undefined;
  readonly #deadline: number;
  /** Whether an earlier sending may have been, or may still be, done. */
  #isDoubtful = false;

  constructor(source: TxnSource, marker: OnceMarker, ttlSeconds: number, options: RequestOptions | undefined) {
    this.#source = source;
    this.#marker = marker;
    this.#ttlSeconds = ttlSeconds;
    this.#signal = options?.signal;
    // Beyond the life of the mark nothing would keep it from being done twice.
    const { engine } = source;
    this.#deadline = Math.min(engine.deadlineOf(options?.deadlineMs), engine.runtime.monotonic() + ttlSeconds * 1_000);
  }

  /** The answer of the first run, whichever sending made it. */
  async run(): Promise<TxnResponse> {
    try {
      return await this.#untilAnswered();
    } catch (error) {
      if (!this.#isDoubtful || !isConclaveError(error) || error.code === 'result-unavailable') throw error;
      const { code, message } = error;
      throw new ConclaveError({ code, message, outcome: 'unknown', cause: error, details: error.details, grpcCode: error.grpcCode });
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
        if (isConclaveError(error, 'lease-not-found') && !hasNewLease) {
          // It may be the marks' own lease that somebody revoked. If it is one of the transaction's, the next answer is the same.
          hasNewLease = true;
          markers.forget(this.#ttlSeconds);
          continue;
        }
        this.#isDoubtful ||= error.outcome === 'unknown';
        if (error.outcome !== 'unknown' || error.code === 'cancelled' || error.code === 'client-closed') throw error;
        const delayMs = backoff.next();
        if (engine.runtime.monotonic() + delayMs >= this.#deadline) throw error;
        await pause(engine, delayMs, this.#signal);
      }
    }
  }

  async #attempt(): Promise<TxnResponse> {
    const lease = await this.#inTime(this.#source.markers.take(this.#ttlSeconds));
    const response = await this.#send(this.#marker.request(lease));
    if (response.succeeded) {
      const first = response.responses[0]?.responseTxn;
      if (first !== undefined) return unmarked({ ...first, header: response.header });
    }
    const firstRun = this.#marker.firstRun(response);
    if (firstRun === undefined)
      throw new ConclaveError({ code: 'internal', message: 'the answer does not fit the transaction', outcome: 'unknown' });
    return unmarked(await new OnceReplay(this.#source.engine, firstRun, this.#options()).response(this.#marker.marked(lease)));
  }

  #send(request: Init<TxnRequest>): Promise<TxnResponse> {
    return new Promise((resolve, reject) => {
      this.#source.engine.start(txnProcedure, request, undefined, this.#options(), resolve, reject);
    });
  }

  /** For one call: what is left of the time. */
  #options(): RequestOptions {
    return { signal: this.#signal, deadlineMs: Math.max(0, this.#deadline - this.#source.engine.runtime.monotonic()) };
  }

  /** The lease is shared, so that giving up one transaction must not give it up. */
  #inTime<T>(promise: Promise<T>): Promise<T> {
    const { runtime } = this.#source.engine;
    const signal = this.#signal;
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(cancelled(signal));
      const timer = runtime.timer(Math.min(longTimerMs, this.#deadline - runtime.monotonic()), () =>
        reject(new ConclaveError({ code: 'deadline-exceeded', message: 'no lease for the marker in time', outcome: 'not-applied' })),
      );
      const stopListening = signal === undefined ? undefined : onAbort(signal, () => reject(cancelled(signal)));
      const end = (): void => {
        timer.cancel();
        stopListening?.();
      };
      promise.then(resolve, reject).finally(end);
    });
  }
}

function cancelled(signal: AbortSignal): ConclaveError<'cancelled'> {
  return new ConclaveError({ code: 'cancelled', message: 'the transaction was cancelled', outcome: 'not-applied', cause: signal.reason });
}

const { path, input, output } = KV.methods.txn;

const txnProcedure: Procedure<Init<TxnRequest>, TxnResponse, undefined, TxnResponse> = {
  path,
  input,
  output,
  // Sent again above, where it is known what became of each sending.
  isRepeatable: false,
  result: (response) => response,
};
