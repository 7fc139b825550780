import { Compare_CompareResult, Compare_CompareTarget, KV, Lease } from '@conclave/protocol';
import type { Answer, RawClient } from '@conclave/testkit';

/** What one change told its writer. */
export interface Acknowledgement {
  readonly revision: number;
  /** As {@link shownEvents} shows what a watch tells of this revision. */
  readonly events: string;
}

/** Owns a part of the store and changes it in a fixed order of steps, so that what it finds there tells which steps happened. */
export interface Writer {
  readonly name: string;
  /**
   * Takes a step, counted from 1; `isRepeated` when it was tried before, and perhaps done. Undefined: acknowledged, but no revision was made.
   *
   * @throws whatever is not an acknowledgement
   */
  step(n: number, client: RawClient, isRepeated: boolean): Promise<Acknowledgement | undefined>;
  /** What is there after `n` steps, in a word. */
  expected(n: number): string;
  /** What is there. */
  found(client: RawClient): Promise<string>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
export const bytes = (text: string): Uint8Array => encoder.encode(text);
export const text = (value: Uint8Array): string => decoder.decode(value);

/** The prefix of all keys whose history is checked event by event. */
export const told = 'told/';

export async function acknowledged<O>(answer: Promise<Answer<O>>): Promise<O>;
/** Undefined when it was refused in words that say that it was done before. */
export async function acknowledged<O>(answer: Promise<Answer<O>>, doneBefore: string | undefined): Promise<O | undefined>;
export async function acknowledged<O>(answer: Promise<Answer<O>>, doneBefore?: string): Promise<O | undefined> {
  const { response, code, message } = await answer;
  if (response !== undefined) return response;
  if (doneBefore !== undefined && message.includes(doneBefore)) return undefined;
  throw new Error(`not acknowledged: ${code} ${message}`);
}

const unavailable = 14;
const deadlineExceeded = 4;
/** As long as a start may take. */
const answerWithinMs = 30_000;

/**
 * Asks again while the answer is that nobody can say: right after a start there may be no leader, or another one while it is asked, and a disk may be
 * slow. For what may be asked twice.
 */
export async function answered<O>(ask: () => Promise<Answer<O>>): Promise<Answer<O>> {
  for (const until = performance.now() + answerWithinMs; ; ) {
    const answer = await ask();
    const isOpen = answer.code === unavailable || answer.code === deadlineExceeded;
    if (!isOpen || performance.now() > until) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * Writes its step's number to two keys in one transaction; every tenth step deletes both. `padding` makes the values that much longer.
 *
 * A step is taken from the one before it and from nowhere else: of a step that failed and was repeated, the first sending may still be on its way to the
 * leader, and must not come after the next step.
 */
export class TwinWriter implements Writer {
  readonly name: string;
  readonly #padding: string;

  constructor(name: string, padding: number) {
    this.name = name;
    this.#padding = `:${name}`.repeat(Math.ceil(padding / (name.length + 1))).slice(0, padding);
  }

  async step(n: number, client: RawClient): Promise<Acknowledgement | undefined> {
    const keys = this.#keys.map(bytes);
    const [key] = keys;
    const value = bytes(`${n}${this.#padding}`);
    const success = keys.map((each) => (n % 10 === 0 ? { requestDeleteRange: { key: each } } : { requestPut: { key: each, value } }));
    const compare = [{ key, target: Compare_CompareTarget.VERSION, result: Compare_CompareResult.EQUAL, version: (n - 1) % 10 }];
    const failure = [{ requestRange: { key, keysOnly: true } }];
    const { header, succeeded, responses } = await acknowledged(client.unary(KV.methods.txn, { compare, success, failure }));
    if (!succeeded) {
      const version = responses[0]?.responseRange?.kvs[0]?.version ?? 0;
      if (version !== n % 10) throw new Error(`step ${n} of ${this.name} finds version ${version}`);
      return undefined;
    }
    const events = n % 10 === 0 ? this.#keys.map((each) => `delete ${each}`) : this.#keys.map((each) => `put ${each} ${n}`);
    return { revision: header?.revision ?? 0, events: events.join(', ') };
  }

  expected(n: number): string {
    return n % 10 === 0 ? 'nothing' : `${n} twice`;
  }

  async found(client: RawClient): Promise<string> {
    const { kvs } = await acknowledged(answered(() => client.unary(KV.methods.range, prefixOf(`${this.name}/`))));
    if (kvs.length === 0) return 'nothing';
    const values = kvs.map(({ value }) => text(value));
    const n = Number.parseInt(values[0] ?? '', 10);
    return values.length === 2 && values.every((value) => value === `${n}${this.#padding}`)
      ? `${n} twice`
      : `neither nothing nor twins: ${kvs.map(({ key, value }) => `${text(key)}=${text(value).slice(0, 20)}`).join()}`;
  }

  get #keys(): readonly string[] {
    return [`${this.name}/a`, `${this.name}/b`];
  }
}

const ttl = 100_000;

/** In turns: grants a lease, puts one key and then another under it, revokes it. */
export class LeaseWriter implements Writer {
  readonly name: string;
  readonly #firstId: bigint;

  constructor(name: string, firstId: bigint) {
    this.name = name;
    this.#firstId = firstId;
  }

  async step(n: number, client: RawClient, isRepeated: boolean): Promise<Acknowledgement | undefined> {
    const lease = this.#firstId + BigInt(Math.floor((n - 1) / 4));
    const [a, b] = [`${this.name}/a`, `${this.name}/b`];
    switch (n % 4) {
      case 1:
        await acknowledged(client.unary(Lease.methods.leaseGrant, { id: lease, ttl }), isRepeated ? 'already exists' : undefined);
        return undefined;
      case 2:
      case 3: {
        const key = n % 4 === 2 ? a : b;
        const { header } = await acknowledged(client.unary(KV.methods.put, { key: bytes(key), value: bytes(`${n}`), lease }));
        return { revision: header?.revision ?? 0, events: `put ${key} ${n}` };
      }
      default: {
        const revoked = await acknowledged(client.unary(Lease.methods.leaseRevoke, { id: lease }), isRepeated ? 'not found' : undefined);
        return { revision: revoked?.header?.revision ?? 0, events: `delete ${a}, delete ${b}` };
      }
    }
  }

  expected(n: number): string {
    const lease = this.#firstId + BigInt(Math.floor((n - 1) / 4));
    return n % 4 === 0 ? 'none' : `lease ${lease} with ${(n % 4) - 1} keys, ${(n % 4) - 1} there`;
  }

  async found(client: RawClient): Promise<string> {
    // First what only a member that is up to date answers: one that has just begun tells leases from what it has applied so far.
    const { kvs } = await acknowledged(answered(() => client.unary(KV.methods.range, prefixOf(`${this.name}/`))));
    const { leases } = await acknowledged(answered(() => client.unary(Lease.methods.leaseLeases, {})));
    const own = leases.map(({ id }) => id).filter((id) => id >= this.#firstId && id < this.#firstId + 1_000_000n);
    if (own.length === 0 && kvs.length === 0) return 'none';
    const attached = await Promise.all(
      own.map(
        async (id) => (await acknowledged(answered(() => client.unary(Lease.methods.leaseTimeToLive, { id, keys: true })))).keys.length,
      ),
    );
    return `lease ${own.join(' and ')} with ${attached.join(' and ')} keys, ${kvs.length} there`;
  }
}

export function prefixOf(prefix: string): { readonly key: Uint8Array; readonly rangeEnd: Uint8Array } {
  const rangeEnd = bytes(prefix);
  rangeEnd[rangeEnd.length - 1] = (rangeEnd.at(-1) ?? 0) + 1;
  return { key: bytes(prefix), rangeEnd };
}
