import {
  type Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  type Init,
  type RequestOp,
  type TxnRequest,
  type KeyValue as WireKeyValue,
} from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { TimeLimit } from '../connection/time-limit.ts';
import { ConclaveError, invalidArgument, isConclaveError } from '../errors/conclave-error.ts';
import { type Comparison, toCompares } from './comparison.ts';
import type { KeyPrefix } from './key-range.ts';
import { type PutOptions, toPutRequest } from './operation.ts';
import { readRange } from './read-range.ts';
import { sendTxn } from './send-txn.ts';
import type { Isolation, StmTransaction } from './stm-transaction.ts';
import { type Key, toText, type Value } from './text.ts';

/** What an attempt that met a conflict found instead: what it had read, as of one later revision. */
export interface Found {
  readonly revision: number;
  readonly kvs: ReadonlyMap<string, WireKeyValue | undefined>;
}

/** What an attempt must keep to. */
interface StmRules {
  readonly isolation: Isolation;
  readonly guards: readonly Comparison[];
}

interface Read {
  readonly key: Uint8Array;
  readonly kv: WireKeyValue | undefined;
}

interface Write {
  readonly key: Uint8Array;
  /** Undefined for a deletion. */
  readonly value: Uint8Array | undefined;
  readonly operation: Init<RequestOp>;
}

/**
 * One run of the body of a software transaction: keeps what it read and what it wants to write, and writes all of it if what it read still
 * holds.
 *
 * Invariant: every key is asked for once at most, so that reading it again gives the same; and where the isolation is serializable all keys
 * are of one revision, `#revision`.
 */
export class StmAttempt implements StmTransaction {
  readonly #engine: Engine;
  readonly #prefix: KeyPrefix;
  readonly #isolation: Isolation;
  readonly #guards: readonly Comparison[];
  readonly #limit: TimeLimit;
  readonly #found: Found | undefined;
  readonly #asked = new Map<string, Promise<Read>>();
  readonly #reads = new Map<string, Read>();
  readonly #writes = new Map<string, Write>();
  /** The revision all reads are of; 0: none yet, or they need not be. */
  #revision: number;
  #firstRead: Promise<unknown> | undefined;
  #isOver = false;
  /** Whether a read failed because the revision of the others is gone. */
  isCompacted = false;

  constructor(engine: Engine, prefix: KeyPrefix, rules: StmRules, limit: TimeLimit, found: Found | undefined) {
    this.#engine = engine;
    this.#prefix = prefix;
    this.#isolation = rules.isolation;
    this.#guards = rules.guards;
    this.#limit = limit;
    this.#found = this.#isOneRevision ? found : undefined;
    this.#revision = this.#found?.revision ?? 0;
  }

  async get(key: Key): Promise<string | undefined> {
    const bytes = await this.getBytes(key);
    return bytes === undefined ? undefined : toText(bytes);
  }

  async getBytes(key: Key): Promise<Uint8Array | undefined> {
    const wireKey = this.#key(key);
    const write = this.#writes.get(nameOf(wireKey));
    if (write !== undefined) return write.value;
    return (await this.#read(wireKey)).kv?.value;
  }

  async modRevision(key: Key): Promise<bigint> {
    const { kv } = await this.#read(this.#key(key));
    return BigInt(kv?.modRevision ?? 0);
  }

  put(key: Key, value: Value, options?: Pick<PutOptions, 'lease'>): void {
    const wireKey = this.#key(key);
    const requestPut = toPutRequest(this.#prefix, key, value, options);
    this.#writes.set(nameOf(wireKey), { key: wireKey, value: requestPut.value, operation: { requestPut } });
  }

  delete(key: Key): void {
    const wireKey = this.#key(key);
    this.#writes.set(nameOf(wireKey), { key: wireKey, value: undefined, operation: { requestDeleteRange: { key: wireKey } } });
  }

  /**
   * Writes, if what was read still holds. Undefined: it did. What the body does from here on is too late.
   *
   * @throws ConclaveError `guard-failed`
   */
  async commit(): Promise<Found | undefined> {
    this.#isOver = true;
    this.#limit.check();
    const writes = [...this.#writes.values()];
    if (writes.length === 0 && this.#guards.length === 0 && this.#isSettledByReading) return undefined;
    const reads = [...this.#reads.values()];
    const guards = toCompares(this.#prefix, this.#guards);
    const request: Init<TxnRequest> = {
      compare: [...guards, ...this.#conditions(reads, writes)],
      success: writes.map(({ operation }) => operation),
      // Beside what is found instead: whether it was the guards.
      failure: [{ requestTxn: { compare: guards } }, ...reads.map(({ key }) => ({ requestRange: { key } }))],
    };
    const response = await sendTxn(this.#engine, request, writes.length === 0 ? 'reads' : 'writes', this.#limit.rest());
    if (response.succeeded) return undefined;
    const [guarded, ...found] = response.responses;
    if (guarded?.responseTxn?.succeeded !== true) throw guardFailed();
    const kvs = new Map(reads.map(({ key }, at) => [nameOf(key), found[at]?.responseRange?.kvs[0]]));
    return { revision: response.header?.revision ?? 0, kvs };
  }

  get #isOneRevision(): boolean {
    return this.#isolation === 'serializable' || this.#isolation === 'serializableSnapshot';
  }

  /** Whether reads need no proof that they hold together: they are of one revision, are one, or need not. */
  get #isSettledByReading(): boolean {
    return this.#isOneRevision || this.#isolation === 'readCommitted' || this.#reads.size <= 1;
  }

  #conditions(reads: readonly Read[], writes: readonly Write[]): Init<Compare>[] {
    if (this.#isolation === 'readCommitted') return [];
    const target = CompareTarget.MOD;
    const unchanged = reads.map(({ key, kv }) => ({ key, target, result: CompareResult.EQUAL, modRevision: kv?.modRevision ?? 0 }));
    if (this.#isolation !== 'serializableSnapshot' || this.#revision === 0) return unchanged;
    // And nobody wrote since to what shall be written, read or not.
    const modRevision = this.#revision + 1;
    return [...unchanged, ...writes.map(({ key }) => ({ key, target, result: CompareResult.LESS, modRevision }))];
  }

  #key(key: Key): Uint8Array {
    if (this.#isOver) throw invalidArgument('the body of the transaction has returned: await all it does');
    return this.#prefix.key(key);
  }

  #read(key: Uint8Array): Promise<Read> {
    const name = nameOf(key);
    const asked = this.#asked.get(name);
    if (asked !== undefined) return asked;
    const read = this.#ask(key).then((kv) => {
      const answer = { key, kv };
      if (!this.#isOver) this.#reads.set(name, answer);
      return answer;
    });
    this.#asked.set(name, read);
    return read;
  }

  async #ask(key: Uint8Array): Promise<WireKeyValue | undefined> {
    const name = nameOf(key);
    if (this.#found?.kvs.has(name) === true) return this.#found.kvs.get(name);
    if (!this.#isOneRevision || this.#revision !== 0) return await this.#fetch(key);
    if (this.#firstRead !== undefined) {
      // The first read says of which revision the others are.
      await this.#firstRead;
      return await this.#fetch(key);
    }
    const first = this.#fetch(key);
    this.#firstRead = first;
    return await first;
  }

  async #fetch(key: Uint8Array): Promise<WireKeyValue | undefined> {
    try {
      const { kvs, header } = await readRange(this.#engine, { key, revision: this.#revision }, this.#limit.rest());
      if (this.#isOneRevision && this.#revision === 0) this.#revision = header?.revision ?? 0;
      return kvs[0];
    } catch (error) {
      this.isCompacted ||= isConclaveError(error, 'compacted');
      throw error;
    }
  }
}

function guardFailed(): ConclaveError<'guard-failed'> {
  return new ConclaveError({ code: 'guard-failed', message: 'a guard of the transaction does not hold', outcome: 'not-applied' });
}

function nameOf(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
}
