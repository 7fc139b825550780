import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import { type Comparison, key } from '../kv/comparison.ts';
import type { KeyPrefix } from '../kv/key-range.ts';
import { get, put } from '../kv/operation.ts';
import type { Verbs } from '../verbs.ts';

/**
 * The key by which a session is known to the store: whose it is, as long as its lease lives.
 *
 * Layout: `conclave/session/<lease id in hex>` in the session's namespace, under the lease. It holds `held/<owner>`, or `offered/<claim>` between
 * the two steps of a hand-over. Each owner and each claim is drawn anew, so that of two who change it at most one does.
 */
export class SessionMark {
  readonly key: string;
  readonly #namespace: Verbs;
  readonly #prefix: KeyPrefix;
  readonly #lease: bigint;

  /** `prefix` is that of the namespace. */
  constructor(namespace: Verbs, prefix: KeyPrefix, lease: bigint) {
    this.#namespace = namespace;
    this.#prefix = prefix;
    this.#lease = lease;
    this.key = `conclave/session/${lease.toString(16)}`;
  }

  /** Holds exactly while the session is this owner's, in whatever namespace: what stands on the session may be in another one. */
  guard(owner: string): Comparison {
    return { ...key(this.#prefix.key(this.key)).value.equals(heldBy(owner)), isAbsolute: true };
  }

  /** The first step of a hand-over. May be repeated. */
  async offer(owner: string, claim: string, options: RequestOptions): Promise<void> {
    await this.#change([heldBy(owner)], offeredFor(claim), options);
  }

  /** The second step, by whoever has the claim. May be repeated. */
  async claim(claim: string, owner: string, options: RequestOptions): Promise<void> {
    await this.#change([offeredFor(claim)], heldBy(owner), options);
  }

  /** Instead of the second step, by whoever made the first, even if it did not get through. May be repeated. */
  async takeBack(former: string, claim: string, owner: string, options: RequestOptions): Promise<void> {
    await this.#change([offeredFor(claim), heldBy(former)], heldBy(owner), options);
  }

  /** Writes `to` over one of `from`, or finds it written: by an earlier sending whose answer was lost. */
  async #change(from: readonly string[], to: string, options: RequestOptions): Promise<void> {
    let expected = from[0] ?? '';
    for (;;) {
      const result = await this.#namespace
        .txn()
        .if(key(this.key).value.equals(expected))
        .then(put(this.key, to, { lease: this.#lease }))
        .else(get(this.key))
        .commit(options);
      if (result.succeeded) return;
      const [kv] = result;
      if (kv?.value === to) return;
      if (kv === undefined) throw expired(this.#lease);
      if (!from.includes(kv.value)) throw claimed(this.#lease);
      expected = kv.value;
    }
  }
}

export function heldBy(owner: string): string {
  return `held/${owner}`;
}

function offeredFor(claim: string): string {
  return `offered/${claim}`;
}

export function expired(lease: bigint): ConclaveError {
  const message = `session ${lease.toString(16)} is over: its lease ended, or it never was in this namespace`;
  return new ConclaveError({ code: 'session-expired', message, outcome: 'not-applied' });
}

function claimed(lease: bigint): ConclaveError {
  return new ConclaveError({
    code: 'session-claimed',
    message: `session ${lease.toString(16)} was taken by another process`,
    outcome: 'not-applied',
  });
}
