import {
  AlarmRequest,
  AlarmResponse,
  AlarmType,
  ClusterVersion,
  CompactionRequest,
  CompactionResponse,
  type Compare,
  DeleteRangeRequest,
  DeleteRangeResponse,
  KeyRange,
  LeaseGrantRequest,
  type LeaseGrantResponse,
  LeaseRevokeRequest,
  type LeaseRevokeResponse,
  MemberPublication,
  PutRequest,
  PutResponse,
  RangeRequest,
  ResponseHeader,
  ResponseOp,
  TxnRequest,
  TxnResponse,
} from '@conclave/protocol';
import type { ConfChange, ConfState } from '@conclave/raft';
import { StatusError } from '@conclave/wire';
import type { LeaseTable } from '../lease/lease-table.ts';
import type { ClusterMember, MemberTable } from '../membership/member-table.ts';
import { failure } from '../mvcc/failure.ts';
import { keyOf, leaseOf, valueIn } from '../mvcc/key-value.ts';
import type { Mvcc } from '../mvcc/mvcc.ts';
import type { Slicer } from '../mvcc/slicer.ts';
import type { WriteTxn } from '../mvcc/write-txn.ts';
import type { Store } from '../storage/backend/store.ts';
import { AlarmTable } from './alarm-table.ts';
import { EntryFormatError, entryVersion, firstEntryVersion, type LoggedRequest, type RequestKind, versionOf } from './entry.ts';
import { grantLease, revokeLease } from './lease-changes.ts';
import { changeMembers, decideClusterVersion, type MembersChanged, publishMember } from './member-changes.ts';
import { checkRevision, ownKv, rangeResponse, readTxn } from './read-txn.ts';
import { hasPut, leavesOf, planTxn, type TxnPlan } from './txn-plan.ts';

/**
 * What an entry came to: the response, whose header has only the revision, or the refusal of a client's mistake. All bytes in it are in memory
 * of their own.
 */
export type Applied =
  | { readonly kind: 'put'; readonly response: PutResponse }
  | { readonly kind: 'deleteRange'; readonly response: DeleteRangeResponse }
  | { readonly kind: 'txn'; readonly response: TxnResponse }
  | { readonly kind: 'compaction'; readonly response: CompactionResponse }
  | { readonly kind: 'leaseGrant'; readonly response: LeaseGrantResponse }
  | { readonly kind: 'leaseRevoke'; readonly response: LeaseRevokeResponse }
  | { readonly kind: 'alarm'; readonly response: AlarmResponse }
  | MembersChanged
  | { readonly kind: 'failed'; readonly error: StatusError };

export interface ApplierOptions {
  readonly store: Store;
  readonly mvcc: Mvcc;
  readonly leases: LeaseTable;
  readonly members: MemberTable;
  /** The highest entry version this program can apply. Default: {@link entryVersion}; lower, it is an older program's stand-in. */
  readonly entryVersion?: number;
}

/**
 * The state machine: what every member computes from the log, entry by entry, the same everywhere, refusals included. It joins the keys and
 * the leases, which do not know each other.
 *
 * A client's mistake is a result. Whatever is thrown is a broken invariant and must end the member: it may have left an entry half applied.
 */
export class Applier {
  readonly #store: Store;
  readonly #mvcc: Mvcc;
  readonly #leases: LeaseTable;
  readonly #members: MemberTable;
  /** What stands against writes. */
  readonly alarms: AlarmTable;
  readonly #entryVersion: number;
  #onCompaction: (() => void) | undefined;
  #appliedIndex: number;
  #appliedTerm: number;

  /** Goes on from what the store holds. */
  constructor(options: ApplierOptions) {
    this.#store = options.store;
    this.#mvcc = options.mvcc;
    this.#leases = options.leases;
    this.#members = options.members;
    this.alarms = new AlarmTable(options.store);
    this.#entryVersion = options.entryVersion ?? entryVersion;
    this.#appliedIndex = options.store.durableIndex;
    this.#appliedTerm = storedTerm(options.store);
    this.#checkKnown();
  }

  /** Index of the last entry applied; 0 before the first. */
  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  /** Term of the entry at `appliedIndex`. */
  get appliedTerm(): number {
    return this.#appliedTerm;
  }

  /** What is applied up to here survives a crash without the log. */
  get durableIndex(): number {
    return this.#store.durableIndex;
  }

  /** True while nothing may be applied because too much is waiting for the disk. */
  get isFull(): boolean {
    return this.#store.isFull;
  }

  /** Calls back once, when `isFull` next becomes false. */
  onRoom(listener: () => void): void {
    this.#store.onRoom(listener);
  }

  /**
   * Applies the entry at `index`, appended in `term`. Entries come one by one, each with the next index.
   *
   * @param isAwaited - false leaves the reads of a txn empty, as nobody sees them. Not only for speed: a txn may ask for more than there is memory
   * for, and a member that ended of it must not end of it again at every start.
   */
  apply(index: number, term: number, request: LoggedRequest, isAwaited = true): Applied {
    this.#begin(index, term);
    const applied = this.#evaluate(request, () => this.#dispatch(request, term, isAwaited));
    this.#store.applied(index);
    return applied;
  }

  /** An entry without a request: only the applied index and term move. */
  applyEmpty(index: number, term: number): void {
    this.#begin(index, term);
    this.#store.applied(index);
  }

  /** Voters and learners as of `appliedIndex`. */
  get confState(): ConfState {
    return this.#members.confState;
  }

  /** An entry that changes who the members are. Refused, the same everywhere, when the members as of this entry do not allow it. */
  applyMembership(
    index: number,
    term: number,
    change: ConfChange,
    request: LoggedRequest,
  ): { readonly result: Applied; readonly isAccepted: boolean } {
    this.#begin(index, term);
    const result = this.#evaluate(request, () => changeMembers(this.#members, change, request));
    this.#store.applied(index);
    return { result, isAccepted: result.kind !== 'failed' };
  }

  /** For a state from before the members were part of it (`isOlderThanMembers`): it had this one. Made again at the next start if it gets lost. */
  adopt(member: ClusterMember): void {
    this.#members.add(member);
    this.#store.applied(this.#appliedIndex);
  }

  /** Whether every member can apply entries of this kind. Otherwise it must not be proposed. */
  allows(kind: RequestKind): boolean {
    return versionOf(kind) <= Math.min(this.#members.clusterVersion?.entryVersion ?? firstEntryVersion, this.#entryVersion);
  }

  /** The applied state was replaced beneath: goes on from what the store holds now. */
  reload(): void {
    this.#store.reopen(() => {
      this.#appliedIndex = this.#store.durableIndex;
      this.#appliedTerm = storedTerm(this.#store);
      this.#mvcc.reload();
      this.#members.reload();
      this.alarms.reload();
    });
    this.#checkKnown();
    // The snapshot brought what its sender's compaction had not got to yet.
    if (!this.#mvcc.isCompacted) this.#onCompaction?.();
  }

  /** Evaluates a txn that only reads, without the log: see {@link readTxn}. */
  readTxn(request: TxnRequest, slicer: Slicer): Promise<TxnResponse> {
    return readTxn(this.#mvcc, request, slicer);
  }

  /**
   * Takes out some of what a compaction left: `Mvcc.compactStep`, counted as part of the last entry, so that it becomes durable without waiting
   * for the next. Between steps the caller pauses, and waits while `isFull`.
   */
  compactStep(maxRows: number): boolean {
    const isDone = this.#mvcc.compactStep(maxRows);
    this.#store.applied(this.#appliedIndex);
    return isDone;
  }

  /** Whether nothing is left for {@link compactStep}. */
  get isCompacted(): boolean {
    return this.#mvcc.isCompacted;
  }

  /** Calls back, from inside apply, with each compaction that leaves something for {@link compactStep}. At most one listener. */
  onCompaction(listener: () => void): void {
    this.#onCompaction = listener;
  }

  #begin(index: number, term: number): void {
    if (index !== this.#appliedIndex + 1) throw new Error(`entry ${index} after entry ${this.#appliedIndex}`);
    if (term < this.#appliedTerm) throw new Error(`entry ${index} of term ${term} after term ${this.#appliedTerm}`);
    this.#appliedIndex = index;
    if (term === this.#appliedTerm) return;
    this.#appliedTerm = term;
    this.#store.put('meta', termRow, termBytes(term));
  }

  #evaluate({ kind }: LoggedRequest, evaluate: () => Applied): Applied {
    if (versionOf(kind) > this.#entryVersion) throw new EntryFormatError(`entry has kind ${kind}, which this program does not know`);
    const before = this.#mvcc.revision;
    try {
      return evaluate();
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      if (this.#mvcc.revision !== before) throw new Error('an entry was refused after it had written', { cause: error });
      return { kind: 'failed', error };
    }
  }

  #dispatch(request: LoggedRequest, term: number, isAwaited: boolean): Applied {
    const { kind, body } = request;
    this.#refuseAlarmed(kind);
    switch (kind) {
      case 'put':
        return { kind, response: this.#put(PutRequest.decode(body)) };
      case 'deleteRange':
        return { kind, response: this.#deleteRange(DeleteRangeRequest.decode(body)) };
      case 'txn':
        return { kind, response: this.#txn(TxnRequest.decode(body), isAwaited) };
      case 'compaction':
        return { kind, response: this.#compact(CompactionRequest.decode(body)) };
      case 'leaseGrant':
        return { kind, response: grantLease(this.#leases, this.#mvcc, LeaseGrantRequest.decode(body)) };
      case 'leaseRevoke':
        return { kind, response: revokeLease(this.#leases, this.#mvcc, LeaseRevokeRequest.decode(body), request.term < term) };
      case 'memberPublish':
        return publishMember(this.#members, MemberPublication.decode(body));
      case 'clusterVersion':
        return this.#decideClusterVersion(ClusterVersion.decode(body));
      case 'alarm':
        return { kind, response: this.#alarm(AlarmRequest.decode(body)) };
      default:
        throw new Error(`an entry of kind ${kind} came as a request of a client`);
    }
  }

  // ---- what bounds the rest ---------------------------------------------------------------------------------------------------------

  #refuseAlarmed(kind: RequestKind): void {
    if (this.alarms.has(AlarmType.CORRUPT) && changesData.has(kind)) throw failure('corrupt-cluster');
    if (this.alarms.has(AlarmType.NOSPACE) && takesSpace.has(kind)) throw failure('no-space');
  }

  #alarm(request: AlarmRequest): AlarmResponse {
    const alarms = this.alarms.apply(request);
    return AlarmResponse.create({ header: { revision: this.#mvcc.revision }, alarms });
  }

  /** From here on there may be entries of that version. */
  #decideClusterVersion(version: ClusterVersion): Applied {
    const applied = decideClusterVersion(this.#members, version);
    this.#checkKnown();
    return applied;
  }

  #checkKnown(): void {
    const needed = this.#members.clusterVersion?.entryVersion ?? 0;
    if (needed <= this.#entryVersion) return;
    throw new EntryFormatError(`the cluster has entries up to version ${needed}, this program knows ${this.#entryVersion}`);
  }

  // ---- keys -------------------------------------------------------------------------------------------------------------------------

  #put(request: PutRequest): PutResponse {
    this.#checkLease(request);
    this.#checkKept(request);
    const txn = this.#mvcc.begin();
    const response = this.#putIn(txn, request);
    txn.end();
    return response;
  }

  #deleteRange(request: DeleteRangeRequest): DeleteRangeResponse {
    const txn = this.#mvcc.begin();
    const response = this.#deleteIn(txn, request);
    txn.end();
    return response;
  }

  #putIn(txn: WriteTxn, request: PutRequest): PutResponse {
    const kept = keepsSomething(request) ? txn.get(request.key) : undefined;
    if (kept === undefined && keepsSomething(request)) throw new Error('a put is to keep what is not there');
    const value = request.ignoreValue && kept !== undefined ? valueIn(kept) : request.value;
    const lease = request.ignoreLease && kept !== undefined ? leaseOf(kept) : request.lease;
    const previous = txn.put(request.key, value, lease);
    this.#moveLease(request.key, previous === undefined ? 0n : leaseOf(previous), lease);
    const prevKv = request.prevKv && previous !== undefined ? ownKv(previous) : undefined;
    return PutResponse.create({ header: { revision: txn.revision }, prevKv });
  }

  #deleteIn(txn: WriteTxn, request: DeleteRangeRequest): DeleteRangeResponse {
    const deleted = txn.deleteRange(request.key, request.rangeEnd);
    for (const kv of deleted) this.#moveLease(keyOf(kv), leaseOf(kv), 0n);
    const prevKvs = request.prevKv ? deleted.map(ownKv) : [];
    return DeleteRangeResponse.create({ header: { revision: txn.revision }, deleted: deleted.length, prevKvs });
  }

  #compact(request: CompactionRequest): CompactionResponse {
    this.#mvcc.compact(request.revision);
    this.#onCompaction?.();
    return CompactionResponse.create({ header: { revision: this.#mvcc.revision } });
  }

  // ---- txns -------------------------------------------------------------------------------------------------------------------------

  #txn(request: TxnRequest, isAwaited: boolean): TxnResponse {
    if (this.alarms.has(AlarmType.NOSPACE) && hasPut(request)) throw failure('no-space');
    const plan = planTxn(request, (compare) => this.#compared(compare));
    this.#checkPlan(plan);
    const txn = this.#mvcc.begin();
    const response = this.#run(txn, plan, isAwaited);
    txn.end();
    response.header = ResponseHeader.create({ revision: txn.revision });
    return response;
  }

  #compared({ key, rangeEnd }: Compare): readonly Uint8Array[] {
    if (rangeEnd.length > 0) return this.#mvcc.rangeSync(RangeRequest.create({ key, rangeEnd })).kvs;
    const kv = this.#mvcc.get(key);
    return kv === undefined ? [] : [kv];
  }

  /** Everything that can fail, before anything is written: in the order of the operations, as etcd does since 3.6. */
  #checkPlan(plan: TxnPlan): void {
    const deleted: KeyRange[] = [];
    for (const { requestPut, requestDeleteRange, requestRange } of leavesOf(plan)) {
      if (requestRange !== undefined) checkRevision(this.#mvcc, requestRange, this.#mvcc.revision);
      if (requestDeleteRange !== undefined) deleted.push(KeyRange.fromWire(requestDeleteRange.key, requestDeleteRange.rangeEnd));
      if (requestPut === undefined) continue;
      this.#checkLease(requestPut);
      this.#checkKept(requestPut);
      // A deletion without an end may come before a put of a key it deletes; what the put is to keep is gone by then. etcd stops there for good.
      if (keepsSomething(requestPut) && deleted.some((range) => range.contains(requestPut.key))) throw failure('key-not-found');
    }
  }

  /** Runs the branch that was chosen. The header of a nested response stays empty. */
  #run(txn: WriteTxn, plan: TxnPlan, isAwaited: boolean): TxnResponse {
    const responses = plan.operations.map(({ request, txn: nested }): ResponseOp => {
      if (nested !== undefined) return ResponseOp.create({ responseTxn: this.#run(txn, nested, isAwaited) });
      if (request.requestPut !== undefined) return ResponseOp.create({ responsePut: this.#putIn(txn, request.requestPut) });
      if (request.requestDeleteRange !== undefined) {
        return ResponseOp.create({ responseDeleteRange: this.#deleteIn(txn, request.requestDeleteRange) });
      }
      if (request.requestRange === undefined) throw new Error('a txn holds an operation without content');
      if (!isAwaited) return ResponseOp.create({ responseRange: {} });
      return ResponseOp.create({ responseRange: rangeResponse(txn.range(request.requestRange), txn.revision) });
    });
    return TxnResponse.create({ header: {}, succeeded: plan.succeeded, responses });
  }

  #checkLease(request: PutRequest): void {
    if (request.lease !== 0n && !this.#leases.has(request.lease)) throw failure('lease-not-found');
  }

  #checkKept(request: PutRequest): void {
    if (keepsSomething(request) && this.#mvcc.get(request.key) === undefined) throw failure('key-not-found');
  }

  #moveLease(key: Uint8Array, from: bigint, to: bigint): void {
    if (from === to) return;
    if (from !== 0n) this.#leases.detach(from, key);
    if (to !== 0n) this.#leases.attach(to, key);
  }
}

/** What members that disagree must not go on with. */
const changesData: ReadonlySet<RequestKind> = new Set(['put', 'deleteRange', 'txn', 'compaction', 'leaseGrant', 'leaseRevoke']);
/** Txns too, when they put. */
const takesSpace: ReadonlySet<RequestKind> = new Set(['put', 'leaseGrant']);

const termRow = new TextEncoder().encode('appliedTerm');

/** The term of the last entry applied, as stored. */
export function storedTerm(store: Pick<Store, 'get'>): number {
  const row = store.get('meta', termRow);
  return row === undefined ? 0 : Number(new DataView(row.buffer, row.byteOffset, row.byteLength).getBigUint64(0));
}

function termBytes(term: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(term));
  return bytes;
}

/** Whether the put takes the value or the lease from the key as it is, which then has to exist. */
function keepsSomething(request: PutRequest): boolean {
  return request.ignoreValue || request.ignoreLease;
}
