import { compareBytes } from '@conclave/protocol';
import {
  del,
  get,
  isConclaveError,
  type KeyValue,
  key,
  type Lease,
  list,
  type Operation,
  prefix,
  put,
  range,
  type Target,
  txn,
} from '@conclave/sdk';
import { type ClientProcess, isTrouble } from './client.ts';

/** Refusals that the workload itself provokes. */
const expected: ReadonlySet<string> = new Set([
  'compacted',
  'future-revision',
  'lease-not-found',
  'lease-lost',
  'lease-revoked',
  'duplicate-key',
  'no-space',
]);

/** At most so many requests of a client are under way. More are left out: a client that waits does not ask more and more. */
const underWayMax = 8;

/** What the SDK said of a write, to be compared with what the wire said. */
export interface Claim {
  readonly value: string;
  readonly client: string;
  readonly says: 'applied' | 'not-applied';
  readonly revision: number;
}

/** The requests of one client: keys, transactions, leases, compactions, each with values nobody else writes. */
export class Requests {
  readonly #process: ClientProcess;
  readonly #underWay = new Map<number, string>();
  readonly #leases: Lease[] = [];
  #count = 0;
  /** What was read last of some keys: what a compare-and-swap goes by. */
  readonly #known = new Map<string, KeyValue>();
  #lastRevision = 1;

  constructor(process: ClientProcess) {
    this.#process = process;
  }

  get isIdle(): boolean {
    return this.#underWay.size === 0;
  }

  get underWay(): readonly string[] {
    return [...this.#underWay.values()];
  }

  makeOne(): void {
    if (this.#underWay.size >= underWayMax) return;
    const { random, world } = this.#process;
    const share = random.next();
    const { compactionShare } = world.plan.workload;
    if (share < compactionShare) this.#do('compact', () => this.#compact());
    else if (share < 0.28) this.#do('put', () => this.#put());
    else if (share < 0.5) this.#do('list', () => this.#list());
    else if (share < 0.6) this.#do('delete', () => this.#delete());
    else if (share < 0.75) this.#do('swap', () => this.#swap());
    else if (share < 0.9) this.#do('txn', () => this.#txn());
    else this.#do('lease', () => this.#lease());
  }

  #do(what: string, request: () => Promise<void>): void {
    const id = this.#count++;
    const { world, name } = this.#process;
    this.#underWay.set(id, what);
    request()
      .catch((error: unknown) => {
        if (isTrouble(error) || (isConclaveError(error) && expected.has(error.code))) return;
        world.findings.add('client-error', `${name}: ${what} failed: ${error instanceof Error ? error.stack : String(error)}`);
      })
      .finally(() => this.#underWay.delete(id));
  }

  // ---- one request each ----

  async #put(): Promise<void> {
    const { client, random } = this.#process;
    const lease = random.chance(0.2) ? this.#heldLease() : undefined;
    const value = this.#value();
    const name = this.#key();
    const prevKv = random.chance(0.3);
    await this.#claim(value, async () => (await client.put(name, value, { prevKv, ...(lease !== undefined && { lease }) })).revision);
  }

  async #list(): Promise<void> {
    const { client, random } = this.#process;
    const target = this.#target();
    const revision = random.chance(0.15) ? Math.max(1, this.#lastRevision - random.below(20)) : undefined;
    const { kvs, revision: at } = await client.list(target, {
      ...(revision !== undefined && { revision }),
      ...(random.chance(0.2) && { limit: 1 + random.below(3) }),
      ...(random.chance(0.1) && { keysOnly: true }),
      ...(random.chance(0.1) && { countOnly: true }),
      ...(random.chance(0.2) && { serializable: true }),
      ...(random.chance(0.2) && {
        sort: {
          by: random.pick(['key', 'version', 'createRevision', 'modRevision', 'value'] as const),
          order: random.pick(['ascend', 'descend'] as const),
        },
      }),
    });
    this.#lastRevision = Math.max(this.#lastRevision, Number(at));
    if (revision === undefined) for (const kv of kvs) this.#known.set(kv.key, kv);
  }

  async #delete(): Promise<void> {
    const { client, random } = this.#process;
    await client.delete(random.chance(0.7) ? this.#key() : this.#target(), { prevKv: random.chance(0.4) });
  }

  /** Reads a key, and writes it if nobody did meanwhile. */
  async #swap(): Promise<void> {
    const { client, random } = this.#process;
    const name = this.#key();
    const known = random.chance(0.5) ? this.#known.get(name) : await client.get(name);
    const value = this.#value();
    const condition =
      known === undefined
        ? key(name).missing()
        : random.pick([
            key(name).modRevision.equals(known.modRevision),
            key(name).value.equals(known.valueBytes),
            key(name).version.equals(known.version),
          ]);
    await this.#claim(value, async () => {
      const result = await client.txn().if(condition).then(put(name, value), get(name)).else(get(name)).commit();
      const { succeeded, revision } = result;
      const stored = result.at(-1) as KeyValue | undefined;
      if (stored === undefined) this.#known.delete(name);
      else this.#known.set(name, stored);
      return succeeded ? revision : undefined;
    });
  }

  async #txn(): Promise<void> {
    const { client, random } = this.#process;
    const conditions = Array.from({ length: random.below(3) }, () => {
      const conditionsOfKey = key(random.chance(0.8) ? this.#key() : this.#target());
      return random.pick([
        conditionsOfKey.exists(),
        conditionsOfKey.missing(),
        conditionsOfKey.version.greaterThan(random.below(5)),
        conditionsOfKey.createRevision.lessThan(this.#lastRevision),
        conditionsOfKey.lease.equals(0n),
      ]);
    });
    const values: string[] = [];
    const result = await client
      .txn()
      .if(...conditions)
      .then(...this.#branch(values, 0))
      .else(...this.#branch(values, 0))
      .commit();
    this.#lastRevision = Math.max(this.#lastRevision, Number(result.revision));
  }

  /** Operations that do not write a key twice, nested now and then. */
  #branch(values: string[], depth: number): Operation[] {
    const { random, world } = this.#process;
    const { keys } = world.plan.workload;
    const operations: Operation[] = [];
    let lowest = 0;
    for (let count = 1 + random.below(3); count > 0 && lowest < keys; count--) {
      const name = keyName(lowest + random.below(keys - lowest));
      const share = random.next();
      if (share < 0.4) {
        const value = this.#value();
        values.push(value);
        operations.push(put(name, value, { prevKv: random.chance(0.3) }));
      } else if (share < 0.6) operations.push(del(name, { prevKv: random.chance(0.5) }));
      else if (share < 0.75) operations.push(get(name));
      else if (share < 0.85) operations.push(list(this.#target(), { limit: 3 }));
      else if (depth < 2) {
        // Nested branches may write any key, so nothing else of this branch may.
        operations.push(
          txn()
            .if(key(name).exists())
            .then(...this.#branch(values, depth + 1))
            .else(...this.#branch(values, depth + 1)),
        );
        break;
      }
      lowest = numberOfKey(name) + 1;
    }
    // A nested transaction may write what stood before it: then only reads stay beside it.
    return operations.at(-1)?.kind === 'txn'
      ? operations.filter(({ kind }) => kind === 'txn' || kind === 'get' || kind === 'list')
      : operations;
  }

  async #compact(): Promise<void> {
    const { client, random } = this.#process;
    if (this.#lastRevision < 10) return;
    await client.compact(this.#lastRevision - random.below(Math.min(40, this.#lastRevision - 2)), { physical: random.chance(0.1) });
  }

  async #lease(): Promise<void> {
    const { client, random, world } = this.#process;
    const held = this.#heldLease();
    const share = random.next();
    if (held === undefined || share < 0.3) {
      const lease = await client.lease.grant({ ttlSeconds: world.plan.workload.leaseTtlSeconds });
      this.#leases.push(lease);
      const value = this.#value();
      await this.#claim(value, async () => (await client.put(this.#key(), value, { lease })).revision);
    } else if (share < 0.6) {
      await client.lease.timeToLive(held.id, { keys: random.chance(0.5) });
    } else {
      await held.revoke();
    }
  }

  #heldLease(): Lease | undefined {
    const { random } = this.#process;
    const held = this.#leases.filter((lease) => lease.state === 'held');
    this.#leases.splice(0, this.#leases.length, ...held);
    return held.length === 0 ? undefined : random.pick(held);
  }

  /** Notes what the SDK says of a write: that it was made at a revision, or for certain not. */
  async #claim(value: string, write: () => Promise<bigint | undefined>): Promise<void> {
    const { world, name } = this.#process;
    try {
      const revision = await write();
      if (revision === undefined) return;
      this.#lastRevision = Math.max(this.#lastRevision, Number(revision));
      world.claims.push({ value, client: name, says: 'applied', revision: Number(revision) });
    } catch (error) {
      if (isConclaveError(error) && error.outcome === 'not-applied')
        world.claims.push({ value, client: name, says: 'not-applied', revision: 0 });
      throw error;
    }
  }

  #value(): string {
    const { name, world, random } = this.#process;
    const filling = world.plan.workload.valueBytes;
    const id = `${name}.${world.nextValue()}`;
    return filling > 0 && random.chance(0.2) ? id.padEnd(filling, '.') : id;
  }

  #key(): string {
    return keyName(this.#process.random.below(this.#process.world.plan.workload.keys));
  }

  #target(): Target {
    const { random } = this.#process;
    const one = this.#key();
    const other = this.#key();
    if (random.chance(0.3)) return one;
    if (random.chance(0.4) || one === other) return prefix('k/');
    const isUp = compareBytes(Buffer.from(one), Buffer.from(other)) < 0;
    return isUp ? range(one, other) : range(other, one);
  }
}

function keyName(number: number): string {
  return `k/${number.toString(36).padStart(2, '0')}`;
}

function numberOfKey(name: string): number {
  return Number.parseInt(name.slice(2), 36);
}
