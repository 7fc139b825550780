import type {
  Compare,
  DeleteRangeRequest,
  DeleteRangeResponse,
  KeySpan,
  KeyValue,
  LeaseId,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  Request,
  Response,
  TxnOperation,
  TxnOperationResponse,
  TxnRequest,
  TxnResponse,
  WatchEvent,
} from '../history.ts';
import { SortedKeys } from './sorted-keys.ts';

/** What a request would do: its answer, and the changes it makes, all at the next revision. No changes: the revision stays. */
export type Evaluation =
  | { readonly status: 'ok'; readonly response: Response; readonly changes: readonly WatchEvent[] }
  | { readonly status: 'failed'; readonly code: string };

export interface ModelOptions {
  /** The revision to begin with. Default: 1, an empty store's. */
  readonly revision?: number;
  readonly keyValues?: readonly KeyValue[];
  /**
   * `tracked`: a lease exists from its grant to its revoke, and what needs one that does not exist fails. `assumed`: every lease that is named exists,
   * for a caller that judges the lives of leases by other means.
   */
  readonly leases: 'tracked' | 'assumed';
}

/**
 * etcd's key space and leases as a sequential machine, small enough to be read at one go. It keeps all history, so that any revision can be read,
 * and it can take back its last revision.
 *
 * Time does not exist here: a lease that expires is a lease that is revoked.
 */
export class EtcdModel {
  #revision: number;
  #compactRevision = 0;
  readonly #first: number;
  /** Every version of every key, oldest first; a deletion has version 0. */
  readonly #versions = new Map<string, KeyValue[]>();
  readonly #keys = new SortedKeys();
  /** Changes of each revision after the first. */
  readonly #changes: (readonly WatchEvent[])[] = [];
  readonly #leaseKeys = new Map<LeaseId, Set<string>>();
  readonly #ttls: Map<LeaseId, number> | undefined;

  constructor(options: ModelOptions) {
    this.#revision = options.revision ?? 1;
    this.#first = this.#revision;
    this.#ttls = options.leases === 'tracked' ? new Map() : undefined;
    for (const kv of options.keyValues ?? []) this.#push(kv);
  }

  get revision(): number {
    return this.#revision;
  }

  /** 0: nothing was compacted. */
  get compactRevision(): number {
    return this.#compactRevision;
  }

  /** The first revision whose changes are known is the one after this. */
  get firstRevision(): number {
    return this.#first;
  }

  /** What was changed at a revision, in the order of the request's operations. */
  changesAt(revision: number): readonly WatchEvent[] {
    return this.#changes[revision - this.#first - 1] ?? [];
  }

  /** The key as it was at `revision`; undefined when it did not exist. */
  get(key: string, revision: number = this.#revision): KeyValue | undefined {
    const versions = this.#versions.get(key);
    if (versions === undefined) return undefined;
    const last = versions[versions.length - 1] as KeyValue;
    const found = last.modRevision <= revision ? last : versionAt(versions, revision);
    return found === undefined || found.version === 0 ? undefined : found;
  }

  /** Keys attached to the lease now. */
  keysOfLease(id: LeaseId): ReadonlySet<string> {
    return this.#leaseKeys.get(id) ?? noKeys;
  }

  /** Leases that have keys now. */
  leasesWithKeys(): Iterable<LeaseId> {
    return this.#leaseKeys.keys();
  }

  hasLease(id: LeaseId): boolean {
    return this.#ttls?.has(id) ?? true;
  }

  /** Does the request: evaluates it and keeps what it changes. */
  apply(request: Request): Evaluation {
    const evaluation = this.evaluate(request);
    if (evaluation.status === 'failed') return evaluation;
    if (request.type === 'compact') this.#compactRevision = request.revision;
    if (request.type === 'leaseGrant') this.#ttls?.set(request.id as LeaseId, request.ttl);
    if (request.type === 'leaseRevoke') this.#ttls?.delete(request.id);
    if (evaluation.changes.length > 0) this.commit(evaluation.changes);
    return evaluation;
  }

  /** What the request would do now. Changes nothing. */
  evaluate(request: Request): Evaluation {
    switch (request.type) {
      case 'put':
      case 'range':
      case 'deleteRange':
      case 'txn':
        return this.#evaluateKv(request);
      case 'compact': {
        if (request.revision <= this.#compactRevision) return { status: 'failed', code: 'compacted' };
        if (request.revision > this.#revision) return { status: 'failed', code: 'future-revision' };
        return { status: 'ok', response: { type: 'compact' }, changes: [] };
      }
      case 'leaseGrant': {
        if (request.id === undefined) throw new Error('the model chooses no lease ids');
        if (this.#ttls?.has(request.id) === true) return { status: 'failed', code: 'lease-exists' };
        return { status: 'ok', response: { type: 'leaseGrant', id: request.id, ttl: request.ttl }, changes: [] };
      }
      case 'leaseRevoke': {
        if (!this.hasLease(request.id)) return { status: 'failed', code: 'lease-not-found' };
        const keys = [...this.keysOfLease(request.id)].sort();
        const changes = keys.map((key) => deletion(key, this.#revision + 1, this.get(key)));
        return { status: 'ok', response: { type: 'leaseRevoke' }, changes };
      }
      case 'leaseKeepAlive':
        return { status: 'ok', response: { type: 'leaseKeepAlive', ttl: this.#ttls?.get(request.id) ?? 0 }, changes: [] };
      case 'leaseTimeToLive': {
        const grantedTtl = this.#ttls?.get(request.id);
        const keys = request.keys === true ? { keys: [...this.keysOfLease(request.id)].sort() } : {};
        const response = { type: 'leaseTimeToLive', ttl: grantedTtl ?? -1, grantedTtl: grantedTtl ?? 0, ...keys } as const;
        return { status: 'ok', response, changes: [] };
      }
    }
  }

  /** Takes changes as the next revision, whoever made them. */
  commit(changes: readonly WatchEvent[]): void {
    this.#revision++;
    this.#changes.push(changes);
    for (const { kv } of changes) this.#push(kv);
  }

  /** Takes the last revision back. */
  undo(): void {
    const changes = this.#changes.pop();
    if (changes === undefined) throw new Error('there is no revision to take back');
    this.#revision--;
    for (let at = changes.length - 1; at >= 0; at--) this.#pop((changes[at] as WatchEvent).kv.key);
  }

  /** Reads, at an old revision if the request names one. Whether that is compacted is the caller's to know. */
  range(request: RangeRequest): RangeResponse {
    return this.#range(request, undefined);
  }

  #evaluateKv(request: TxnOperation): Evaluation {
    const writing = new Writing(this.#revision + 1);
    try {
      const response = this.#operation(request, writing);
      return { status: 'ok', response, changes: writing.changes };
    } catch (error) {
      if (error instanceof Refusal) return { status: 'failed', code: error.code };
      throw error;
    }
  }

  #operation(request: TxnOperation, writing: Writing): TxnOperationResponse {
    switch (request.type) {
      case 'put':
        return this.#put(request, writing);
      case 'deleteRange':
        return this.#deleteRange(request, writing);
      case 'range': {
        if (request.revision !== undefined && request.revision > this.#revision) throw new Refusal('future-revision');
        if (request.revision !== undefined && request.revision < this.#compactRevision) throw new Refusal('compacted');
        return this.#range(request, writing);
      }
      case 'txn':
        return this.#txn(request, writing);
    }
  }

  #txn(request: TxnRequest, writing: Writing): TxnResponse {
    const succeeded = request.compares.every((compare) => this.#holds(compare));
    const operations = succeeded ? request.success : request.failure;
    return { type: 'txn', succeeded, responses: operations.map((operation) => this.#operation(operation, writing)) };
  }

  /** About the state before the outermost transaction, which is the state of the model: what is being written is held apart. */
  #holds(compare: Compare): boolean {
    if (compare.end === undefined) return holdsFor(compare, this.get(compare.key));
    let isEmpty = true;
    for (const key of this.#keysIn(compare)) {
      const kv = this.get(key);
      if (kv === undefined) continue;
      isEmpty = false;
      if (!holdsFor(compare, kv)) return false;
    }
    return !isEmpty || holdsFor(compare, undefined);
  }

  #put(request: PutRequest, writing: Writing): PutResponse {
    const { key } = request;
    const old = this.#current(key, writing);
    if ((request.ignoreValue === true || request.ignoreLease === true) && old === undefined) throw new Refusal('key-not-found');
    const lease = request.ignoreLease === true ? old?.lease : request.lease;
    if (lease !== undefined && !this.hasLease(lease)) throw new Refusal('lease-not-found');
    const kv: KeyValue = {
      key,
      value: request.ignoreValue === true ? (old as KeyValue).value : request.value,
      createRevision: old?.createRevision ?? writing.revision,
      modRevision: writing.revision,
      version: (old?.version ?? 0) + 1,
      ...(lease !== undefined && { lease }),
    };
    writing.add({ type: 'put', kv, ...(old !== undefined && { prevKv: old }) });
    return { type: 'put', ...(request.prevKv === true && old !== undefined && { prevKv: old }) };
  }

  #deleteRange(request: DeleteRangeRequest, writing: Writing): DeleteRangeResponse {
    const gone = this.#live(request, undefined, writing);
    for (const kv of gone) writing.add(deletion(kv.key, writing.revision, kv));
    return { type: 'deleteRange', deleted: gone.length, prevKvs: request.prevKv === true ? gone : [] };
  }

  #range(request: RangeRequest, writing: Writing | undefined): RangeResponse {
    const all = this.#live(request, request.revision, writing);
    const { limit = 0, sort } = request;
    if (request.countOnly === true) return { type: 'range', kvs: [], count: all.length, more: false };
    const sorted = sort === undefined ? all : all.toSorted(orderOf(sort));
    const isCut = limit > 0 && limit < sorted.length;
    const cut = isCut ? sorted.slice(0, limit) : sorted;
    const kvs = request.keysOnly === true ? cut.map((kv) => ({ ...kv, value: '' })) : cut;
    return { type: 'range', kvs, count: all.length, more: isCut };
  }

  /** What exists in the span, in key order: at an old revision, or now with what the running transaction has written so far. */
  #live(span: KeySpan, revision: number | undefined, writing: Writing | undefined): KeyValue[] {
    const at = (key: string): KeyValue | undefined => (revision === undefined ? this.#current(key, writing) : this.get(key, revision));
    if (span.end === undefined) {
      const kv = at(span.key);
      return kv === undefined ? [] : [kv];
    }
    const found: KeyValue[] = [];
    for (const key of this.#keysIn(span, revision === undefined ? writing : undefined)) {
      const kv = at(key);
      if (kv !== undefined) found.push(kv);
    }
    return found;
  }

  #keysIn(span: KeySpan, writing?: Writing): Iterable<string> {
    const stored = this.#keys.between(span.key, span.end === '\0' ? undefined : span.end);
    const fresh = writing?.keys.filter((key) => !this.#versions.has(key) && isInside(span, key)) ?? [];
    return fresh.length === 0 ? stored : [...stored, ...fresh].sort();
  }

  #current(key: string, writing: Writing | undefined): KeyValue | undefined {
    const written = writing?.get(key);
    if (written !== undefined) return written.version === 0 ? undefined : written;
    return this.get(key);
  }

  #push(kv: KeyValue): void {
    let versions = this.#versions.get(kv.key);
    if (versions === undefined) {
      versions = [];
      this.#versions.set(kv.key, versions);
      this.#keys.add(kv.key);
    }
    this.#detach(versions[versions.length - 1]);
    versions.push(kv);
    this.#attach(kv);
  }

  #pop(key: string): void {
    const versions = this.#versions.get(key) as KeyValue[];
    this.#detach(versions.pop());
    const last = versions[versions.length - 1];
    this.#attach(last);
    if (last !== undefined) return;
    this.#versions.delete(key);
    this.#keys.delete(key);
  }

  #attach(kv: KeyValue | undefined): void {
    if (kv?.lease === undefined) return;
    const keys = this.#leaseKeys.get(kv.lease);
    if (keys === undefined) this.#leaseKeys.set(kv.lease, new Set([kv.key]));
    else keys.add(kv.key);
  }

  #detach(kv: KeyValue | undefined): void {
    if (kv?.lease === undefined) return;
    const keys = this.#leaseKeys.get(kv.lease);
    keys?.delete(kv.key);
    if (keys?.size === 0) this.#leaseKeys.delete(kv.lease);
  }
}

/** Whether the key lies in the span. */
export function isInside({ key: from, end }: KeySpan, key: string): boolean {
  if (end === undefined) return key === from;
  return key >= from && (end === '\0' || key < end);
}

/** A request that cannot be done, found while it is evaluated. */
class Refusal extends Error {
  readonly code: string;

  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** What one request has written so far, at the revision it will have. */
class Writing {
  readonly revision: number;
  readonly changes: WatchEvent[] = [];
  readonly #byKey = new Map<string, KeyValue>();

  constructor(revision: number) {
    this.revision = revision;
  }

  get keys(): string[] {
    return [...this.#byKey.keys()];
  }

  get(key: string): KeyValue | undefined {
    return this.#byKey.get(key);
  }

  add(change: WatchEvent): void {
    this.changes.push(change);
    this.#byKey.set(change.kv.key, change.kv);
  }
}

const noKeys: ReadonlySet<string> = new Set();

function deletion(key: string, modRevision: number, prevKv: KeyValue | undefined): WatchEvent {
  const kv = { key, value: '', createRevision: 0, modRevision, version: 0 };
  return { type: 'delete', kv, ...(prevKv !== undefined && { prevKv }) };
}

function versionAt(versions: readonly KeyValue[], revision: number): KeyValue | undefined {
  let low = 0;
  let high = versions.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((versions[middle] as KeyValue).modRevision <= revision) low = middle + 1;
    else high = middle;
  }
  return versions[low - 1];
}

/** A missing key has all numbers 0, and no value: not even one that differs from the operand. */
function holdsFor({ target, is, operand }: Compare, kv: KeyValue | undefined): boolean {
  if (target === 'value') return kv !== undefined && holds(compareOf(kv.value, operand as string), is);
  if (target === 'lease') return holds(compareOf(BigInt(kv?.lease ?? 0), BigInt(operand)), is);
  const actual = { version: kv?.version, create: kv?.createRevision, mod: kv?.modRevision }[target] ?? 0;
  return holds(actual - (operand as number), is);
}

const compareOf = <T>(a: T, b: T): number => (a < b ? -1 : a > b ? 1 : 0);

function holds(difference: number, is: Compare['is']): boolean {
  if (is === '=') return difference === 0;
  if (is === '!=') return difference !== 0;
  return is === '<' ? difference < 0 : difference > 0;
}

function orderOf({ by, order }: NonNullable<RangeRequest['sort']>): (a: KeyValue, b: KeyValue) => number {
  const sign = order === 'ascend' ? 1 : -1;
  return (a, b) => sign * compareOf(sortValue(by, a), sortValue(by, b));
}

/** What a range sorted by `by` is sorted by. */
export function sortValue(by: NonNullable<RangeRequest['sort']>['by'], kv: KeyValue): string | number {
  return { key: kv.key, value: kv.value, version: kv.version, create: kv.createRevision, mod: kv.modRevision }[by];
}
