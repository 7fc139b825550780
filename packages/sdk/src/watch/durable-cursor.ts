import { Backoff } from '../connection/backoff.ts';
import type { Engine } from '../connection/engine.ts';
import { pause } from '../connection/pause.ts';
import { ConclaveError, invalidArgument, type Outcome } from '../errors/conclave-error.ts';
import { isPassing } from '../errors/passing.ts';
import { type Comparison, key } from '../kv/comparison.ts';
import { get, put } from '../kv/operation.ts';
import { type Key, toText } from '../kv/text.ts';
import type { Operation } from '../kv/txn-result.ts';
import type { Verbs } from '../verbs.ts';

const retryInitialMs = 20;
const retryMaxMs = 1_000;

/**
 * A key that says up to which revision a consumer has come, moved in the transaction that writes the effect of having come there.
 *
 * It holds `<revision> <id>`, with the id of the consumer that wrote it: one that does not know whether its transaction was done finds its own
 * words, or those of before, or of another consumer. So a transaction whose answer was lost is sent again.
 */
export class DurableCursor {
  readonly #engine: Engine;
  readonly #namespace: Verbs;
  readonly #key: Key;
  /** Its key, for people. */
  readonly #name: string;
  readonly #id: string;
  /** When it was written; 0: it is not there. */
  #modRevision = 0n;
  #revision: bigint | undefined;

  constructor(engine: Engine, namespace: Verbs, cursor: Key, id: string) {
    this.#engine = engine;
    this.#namespace = namespace;
    this.#key = cursor;
    this.#name = typeof cursor === 'string' ? cursor : toText(cursor);
    this.#id = id;
  }

  /** Where it stands; undefined: it is not there. */
  get revision(): bigint | undefined {
    return this.#revision;
  }

  async read(signal: AbortSignal): Promise<void> {
    const kv = await this.#namespace.get(this.#key, { deadlineMs: Number.POSITIVE_INFINITY, signal });
    if (kv === undefined) return;
    const revision = /^(\d+) /.exec(kv.value)?.[1];
    if (revision === undefined) throw invalidArgument(`the key ${kv.key} holds no cursor`);
    this.#revision = BigInt(revision);
    this.#modRevision = kv.modRevision;
  }

  /**
   * Moves it, and does the operations in the same transaction. Goes on until there is an answer, or it is told to stop.
   *
   * @throws ConclaveError `cursor-moved`, `guard-failed`, and what the server says against the operations
   */
  async move(revision: bigint, guards: readonly Comparison[], operations: readonly Operation[], signal: AbortSignal): Promise<void> {
    const value = `${revision} ${this.#id}`;
    const { runtime } = this.#engine;
    const backoff = new Backoff(runtime, retryInitialMs, retryMaxMs);
    let told: string | undefined;
    for (let isDoubtful = false; ; ) {
      let refusal: ConclaveError | undefined;
      try {
        const result = await this.#namespace
          .txn()
          .if(key(this.#key).modRevision.equals(this.#modRevision), ...guards)
          .then(put(this.#key, value), ...operations)
          .else(get(this.#key))
          .commit();
        const kv = result.succeeded ? undefined : result.responses[0];
        if (result.succeeded || kv?.value === value) {
          this.#modRevision = kv?.modRevision ?? result.revision;
          this.#revision = revision;
          return;
        }
        refusal = refused(kv?.modRevision ?? 0n, this.#modRevision, isDoubtful);
      } catch (error) {
        if (!isPassing(error) || this.#engine.isClosed || signal.aborted) throw error;
        isDoubtful ||= (error as ConclaveError).outcome === 'unknown';
        // It may go on for as long as nobody makes room on the server.
        const { code } = error as ConclaveError;
        if (code !== told) runtime.log.warn({ err: error, cursor: this.#name }, 'a consumer cannot move its cursor; trying again');
        told = code;
        await pause(this.#engine, backoff.next(), signal);
        if (signal.aborted) throw error;
      }
      // Not in the block above: in doubt or not, it is an answer.
      if (refusal !== undefined) throw refusal;
    }
  }
}

function refused(found: bigint, expected: bigint, isDoubtful: boolean): ConclaveError {
  // Sent again, it may find what another consumer wrote after it was done; or itself under way still, and a guard that holds again.
  const outcome: Outcome = isDoubtful ? 'unknown' : 'not-applied';
  if (found === expected) return new ConclaveError({ code: 'guard-failed', message: 'a guard of the consumer does not hold', outcome });
  return new ConclaveError({ code: 'cursor-moved', message: 'another consumer moved the cursor', outcome });
}
