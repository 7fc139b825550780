/**
 * The record of what clients asked for and what they saw, written by simulations and by tests of real processes, ours and etcd's, and judged by
 * `checkers/`. It knows the protocol's meaning and nothing of a server's inside.
 *
 * Keys and values are strings in which one character stands for one byte, so that their order is the store's. Revisions are numbers, lease ids
 * decimal strings (they are 64-bit). Times are milliseconds, fractions included, of one clock that all clients of the history share.
 */

/** Decimal. No lease is the absence of the field, never `'0'`. */
export type LeaseId = string;

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly lease?: LeaseId;
}

/** As on the wire: no `end` is the single key, `'\0'` everything from `key` on. */
export interface KeySpan {
  readonly key: string;
  readonly end?: string;
}

export interface PutRequest {
  readonly type: 'put';
  readonly key: string;
  readonly value: string;
  readonly lease?: LeaseId;
  readonly prevKv?: boolean;
  readonly ignoreValue?: boolean;
  readonly ignoreLease?: boolean;
}

export interface RangeRequest extends KeySpan {
  readonly type: 'range';
  /** Absent: the newest. */
  readonly revision?: number;
  readonly limit?: number;
  readonly countOnly?: boolean;
  readonly keysOnly?: boolean;
  /** Answered by the member asked from what it has: may be old, never wrong. */
  readonly serializable?: boolean;
  readonly sort?: { readonly by: 'key' | 'version' | 'create' | 'mod' | 'value'; readonly order: 'ascend' | 'descend' };
}

export interface DeleteRangeRequest extends KeySpan {
  readonly type: 'deleteRange';
  readonly prevKv?: boolean;
}

export interface Compare extends KeySpan {
  readonly target: 'value' | 'version' | 'create' | 'mod' | 'lease';
  readonly is: '=' | '!=' | '<' | '>';
  /** A string for `value`; for `lease` a lease id, `'0'` for none; otherwise a number. */
  readonly operand: string | number;
}

/** All compares, those of nested transactions included, are about the state before the outermost one. */
export interface TxnRequest {
  readonly type: 'txn';
  readonly compares: readonly Compare[];
  readonly success: readonly TxnOperation[];
  readonly failure: readonly TxnOperation[];
}

export type TxnOperation = PutRequest | RangeRequest | DeleteRangeRequest | TxnRequest;

export interface CompactRequest {
  readonly type: 'compact';
  readonly revision: number;
}

export interface LeaseGrantRequest {
  readonly type: 'leaseGrant';
  /** Absent: the server chooses. */
  readonly id?: LeaseId;
  readonly ttl: number;
}

export interface LeaseRevokeRequest {
  readonly type: 'leaseRevoke';
  readonly id: LeaseId;
}

export interface LeaseKeepAliveRequest {
  readonly type: 'leaseKeepAlive';
  readonly id: LeaseId;
}

export interface LeaseTimeToLiveRequest {
  readonly type: 'leaseTimeToLive';
  readonly id: LeaseId;
  readonly keys?: boolean;
}

export type Request =
  | TxnOperation
  | CompactRequest
  | LeaseGrantRequest
  | LeaseRevokeRequest
  | LeaseKeepAliveRequest
  | LeaseTimeToLiveRequest;

export interface PutResponse {
  readonly type: 'put';
  readonly prevKv?: KeyValue;
}

export interface RangeResponse {
  readonly type: 'range';
  readonly kvs: readonly KeyValue[];
  readonly count: number;
  readonly more: boolean;
}

export interface DeleteRangeResponse {
  readonly type: 'deleteRange';
  readonly deleted: number;
  readonly prevKvs: readonly KeyValue[];
}

export interface TxnResponse {
  readonly type: 'txn';
  readonly succeeded: boolean;
  readonly responses: readonly TxnOperationResponse[];
}

export type TxnOperationResponse = PutResponse | RangeResponse | DeleteRangeResponse | TxnResponse;

export interface CompactResponse {
  readonly type: 'compact';
}

export interface LeaseGrantResponse {
  readonly type: 'leaseGrant';
  readonly id: LeaseId;
  /** Seconds; the server raises one that is too small. */
  readonly ttl: number;
}

export interface LeaseRevokeResponse {
  readonly type: 'leaseRevoke';
}

/** `ttl` 0: there is no such lease. */
export interface LeaseKeepAliveResponse {
  readonly type: 'leaseKeepAlive';
  readonly ttl: number;
}

/** `ttl` -1: there is no such lease. */
export interface LeaseTimeToLiveResponse {
  readonly type: 'leaseTimeToLive';
  readonly ttl: number;
  readonly grantedTtl: number;
  readonly keys?: readonly string[];
}

export type Response =
  | TxnOperationResponse
  | CompactResponse
  | LeaseGrantResponse
  | LeaseRevokeResponse
  | LeaseKeepAliveResponse
  | LeaseTimeToLiveResponse;

/** What the client knows of its request. */
export type Outcome =
  /** `revision` is the header's, `member` the id of the member that answered, in decimal. */
  | { readonly status: 'ok'; readonly revision: number; readonly member?: string; readonly response: Response }
  /** Not applied, now or later. `code` is the SDK's: `compacted`, `future-revision`, `key-not-found`, `lease-not-found`, `lease-exists`, ... */
  | { readonly status: 'failed'; readonly code: string }
  /** Applied, or not, or still to be. */
  | { readonly status: 'unknown' };

export interface Operation {
  /** Unique in the history. */
  readonly id: number;
  readonly client: number;
  readonly call: number;
  /** When the client had the outcome; of an unknown one, when it gave up. Not before `call`. */
  readonly return: number;
  readonly request: Request;
  readonly outcome: Outcome;
}

export interface WatchRequest extends KeySpan {
  /** Absent: from now. */
  readonly startRevision?: number;
  readonly prevKv?: boolean;
  readonly ignore?: 'put' | 'delete';
  readonly fragment?: boolean;
  readonly progressNotify?: boolean;
}

/** `kv` of a deletion has the key and the `modRevision` only; the rest is 0 and empty. */
export interface WatchEvent {
  readonly type: 'put' | 'delete';
  readonly kv: KeyValue;
  readonly prevKv?: KeyValue;
}

/** What came for one watch, in the order it came. `revision` is the header's. */
export type WatchMessage =
  /** Also sent again, by a client that opens the watch anew beneath. */
  | { readonly type: 'created'; readonly time: number; readonly revision: number }
  /** `isFragment`: more of the same batch follows. */
  | {
      readonly type: 'events';
      readonly time: number;
      readonly revision: number;
      readonly events: readonly WatchEvent[];
      readonly isFragment?: boolean;
    }
  /** Everything up to `revision` has been told. */
  | { readonly type: 'progress'; readonly time: number; readonly revision: number }
  /** The server ended it. `compactRevision` is set when the history asked for is gone. */
  | {
      readonly type: 'canceled';
      readonly time: number;
      readonly revision: number;
      readonly compactRevision?: number;
      readonly reason?: string;
    }
  /** The stream broke, or the client stopped: nothing is owed from here on. */
  | { readonly type: 'closed'; readonly time: number };

export interface Watch {
  /** Unique in the history. */
  readonly id: number;
  readonly client: number;
  readonly opened: number;
  readonly request: WatchRequest;
  /** The watch that this one continues: what that one was told and this one is told together must have no gap and nothing twice. */
  readonly resumes?: number;
  /**
   * `response`: each `events` message is one message of the wire. `event`: the recorder sits above a client that hands out single events, so
   * nothing can be said about which came together.
   */
  readonly granularity: 'response' | 'event';
  readonly messages: readonly WatchMessage[];
}

/** One holder's time with a lock or leadership. */
export interface Hold {
  readonly name: string;
  readonly holder: string;
  /** The fencing token: a later holder's is higher. */
  readonly token: number;
  /** When the holder asked. */
  readonly asked: number;
  /** When it was told that it holds. */
  readonly from: number;
  /** When it was told that it has lost it, began to give it back, or died. Absent: it still held at the end. */
  readonly until?: number;
}

/** A write that a resource outside accepted under a token: what fencing is for. */
export interface FencedWrite {
  readonly name: string;
  readonly token: number;
  readonly time: number;
}

export interface History {
  readonly operations: readonly Operation[];
  readonly watches: readonly Watch[];
  readonly holds: readonly Hold[];
  readonly fencedWrites: readonly FencedWrite[];
}

/** One line of a written history. Lines of different kinds may come in any order; messages of one watch come in theirs, after its `watch`. */
export type HistoryRecord =
  | ({ readonly kind: 'operation' } & Operation)
  | ({ readonly kind: 'watch' } & Omit<Watch, 'messages'>)
  | { readonly kind: 'watchMessage'; readonly watch: number; readonly message: WatchMessage }
  | ({ readonly kind: 'hold' } & Hold)
  | ({ readonly kind: 'fencedWrite' } & FencedWrite);

/** An operation under way. Settle it once. */
export interface PendingOperation {
  ok(at: number, revision: number, response: Response, member?: string): void;
  failed(at: number, code: string): void;
  unknown(at: number): void;
}

/** An open watch. Give it every message, in order. */
export interface OpenWatch {
  readonly id: number;
  message(message: WatchMessage): void;
}

export interface WatchOpening {
  readonly resumes?: number;
  readonly granularity?: 'response' | 'event';
}

/** In milliseconds. Told apart by a double for 24 days, and shorter than anything that is judged. */
const INSTANT = 2 ** -20;

/**
 * Builds a history while it happens. What it is told of one instant keeps the order in which it was told, as virtual time knows only whole steps and
 * real-time order is what is checked: so tell it of a call before the call is made, and of an answer once it is there. `onRecord` is told of each line as soon as it is complete, for a writer that must survive its process.
 *
 * @example
 * ```ts
 * const recorder = new HistoryRecorder();
 * const pending = recorder.call(client, now(), { type: 'put', key: 'a', value: '1' });
 * pending.ok(now(), 2, { type: 'put' });
 * const history = recorder.finish(now());
 * ```
 */
export class HistoryRecorder {
  readonly #operations: Operation[] = [];
  readonly #watches: (Watch & { readonly messages: WatchMessage[] })[] = [];
  readonly #holds: Hold[] = [];
  readonly #fencedWrites: FencedWrite[] = [];
  readonly #pending = new Set<PendingOperation>();
  readonly #onRecord: ((record: HistoryRecord) => void) | undefined;
  #nextId = 0;
  #now = Number.NEGATIVE_INFINITY;
  #isFinished = false;

  constructor(onRecord?: (record: HistoryRecord) => void) {
    this.#onRecord = onRecord;
  }

  call(client: number, at: number, request: Request): PendingOperation {
    const id = this.#nextId++;
    const call = this.#instant(at);
    const settle = (returned: number, outcome: Outcome): void => {
      if (this.#isFinished) return;
      if (!this.#pending.delete(pending)) throw new Error(`operation ${id} was settled before`);
      const operation = { id, client, call, return: this.#instant(returned), request, outcome };
      this.#operations.push(operation);
      this.#onRecord?.({ kind: 'operation', ...operation });
    };
    const pending: PendingOperation = {
      ok: (returned, revision, response, member) =>
        settle(returned, { status: 'ok', revision, ...(member !== undefined && { member }), response }),
      failed: (returned, code) => settle(returned, { status: 'failed', code }),
      unknown: (returned) => settle(returned, { status: 'unknown' }),
    };
    this.#pending.add(pending);
    return pending;
  }

  watch(client: number, at: number, request: WatchRequest, opening: WatchOpening = {}): OpenWatch {
    const id = this.#nextId++;
    const messages: WatchMessage[] = [];
    const resumes = opening.resumes === undefined ? {} : { resumes: opening.resumes };
    const opened = { id, client, opened: this.#instant(at), request, ...resumes, granularity: opening.granularity ?? 'response' };
    if (!this.#isFinished) {
      this.#watches.push({ ...opened, messages });
      this.#onRecord?.({ kind: 'watch', ...opened });
    }
    return {
      id,
      message: (told) => {
        if (this.#isFinished) return;
        const message = { ...told, time: this.#instant(told.time) };
        messages.push(message);
        this.#onRecord?.({ kind: 'watchMessage', watch: id, message });
      },
    };
  }

  hold(hold: Hold): void {
    if (this.#isFinished) return;
    this.#holds.push(hold);
    this.#onRecord?.({ kind: 'hold', ...hold });
  }

  fencedWrite(write: FencedWrite): void {
    if (this.#isFinished) return;
    this.#fencedWrites.push(write);
    this.#onRecord?.({ kind: 'fencedWrite', ...write });
  }

  /** The history so far. What is still under way is settled as unknown, and what is told later is left out. */
  finish(at: number): History {
    for (const pending of [...this.#pending]) pending.unknown(at);
    this.#isFinished = true;
    return { operations: this.#operations, watches: this.#watches, holds: this.#holds, fencedWrites: this.#fencedWrites };
  }

  #instant(at: number): number {
    this.#now = at > this.#now ? at : this.#now + INSTANT;
    return this.#now;
  }
}

/** One line of JSON per record, without the line ends. */
export function* historyLines(history: History): Generator<string> {
  for (const operation of history.operations) yield recordLine({ kind: 'operation', ...operation });
  for (const { messages, ...opened } of history.watches) {
    yield recordLine({ kind: 'watch', ...opened });
    for (const message of messages) yield recordLine({ kind: 'watchMessage', watch: opened.id, message });
  }
  for (const hold of history.holds) yield recordLine({ kind: 'hold', ...hold });
  for (const write of history.fencedWrites) yield recordLine({ kind: 'fencedWrite', ...write });
}

export function recordLine(record: HistoryRecord): string {
  return JSON.stringify(record);
}

/** Reads what {@link historyLines} or an `onRecord` wrote. Empty lines are left out; a last line that was cut is an error of the caller's. */
export function readHistory(lines: Iterable<string>): History {
  const operations: Operation[] = [];
  const watches = new Map<number, Watch & { readonly messages: WatchMessage[] }>();
  const holds: Hold[] = [];
  const fencedWrites: FencedWrite[] = [];
  for (const line of lines) {
    if (line === '') continue;
    const { kind, ...rest } = JSON.parse(line) as HistoryRecord;
    if (kind === 'operation') operations.push(rest as Operation);
    else if (kind === 'watch') watches.set((rest as Watch).id, { ...(rest as Watch), messages: [] });
    else if (kind === 'hold') holds.push(rest as Hold);
    else if (kind === 'fencedWrite') fencedWrites.push(rest as FencedWrite);
    else {
      const { watch, message } = rest as { watch: number; message: WatchMessage };
      const opened = watches.get(watch);
      if (opened === undefined) throw new Error(`a message for watch ${watch}, which was never opened`);
      opened.messages.push(message);
    }
  }
  return { operations, watches: [...watches.values()], holds, fencedWrites };
}
