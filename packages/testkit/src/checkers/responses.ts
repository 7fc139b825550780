import type { KeyValue, RangeRequest, Request, Response, TxnRequest, TxnResponse } from '../history.ts';
import { sortValue } from './model.ts';

/** Whether answering this way means that something was written. What a revoke wrote does not show in its answer: undefined. */
export function wrote(response: Response): boolean | undefined {
  switch (response.type) {
    case 'put':
      return true;
    case 'deleteRange':
      return response.deleted > 0;
    case 'txn':
      return response.responses.some((inner) => wrote(inner) === true);
    case 'leaseRevoke':
      return undefined;
    default:
      return false;
  }
}

/** Whether a member may answer from what it has, old as it may be. */
export function mayBeStale(request: Request): boolean {
  if (request.type === 'range') return request.serializable === true;
  // The header of these is taken by whoever was asked, before and apart from the answer of the one who keeps the leases.
  if (request.type === 'leaseKeepAlive' || request.type === 'leaseTimeToLive') return true;
  // etcd reads for a transaction that has no other operations than serializable ranges without asking anybody; none at all counts as such.
  return request.type === 'txn' && [...request.success, ...request.failure].every((inner) => inner.type === 'range' && mayBeStale(inner));
}

/** Ranges at a given revision, anywhere in the request. */
export function* datedRanges(request: Request): Generator<RangeRequest & { readonly revision: number }> {
  if (request.type === 'range' && request.revision !== undefined) yield request as RangeRequest & { readonly revision: number };
  if (request.type === 'txn') for (const inner of [...request.success, ...request.failure]) yield* datedRanges(inner);
}

/** Leases that keys are attached to by the writes that this response reports. */
export function* leasesPut(request: Request, response: Response): Generator<string> {
  if (request.type === 'put') {
    if (request.lease !== undefined) yield request.lease;
  } else if (request.type === 'txn' && response.type === 'txn') {
    const branch = response.succeeded ? request.success : request.failure;
    for (const [at, inner] of branch.entries()) {
      const answer = response.responses[at];
      if (answer !== undefined) yield* leasesPut(inner, answer);
    }
  }
}

/** Every key-value a response shows in full. */
export function* shownKeyValues(request: Request, response: Response): Generator<KeyValue> {
  if (response.type === 'range') {
    if ((request as RangeRequest).keysOnly !== true) yield* response.kvs;
  } else if (response.type === 'put') {
    if (response.prevKv !== undefined) yield response.prevKv;
  } else if (response.type === 'deleteRange') {
    yield* response.prevKvs;
  } else if (response.type === 'txn' && request.type === 'txn') {
    const branch = response.succeeded ? request.success : request.failure;
    for (const [at, inner] of response.responses.entries()) {
      const operation = branch[at];
      if (operation !== undefined) yield* shownKeyValues(operation, inner);
    }
  }
}

/** What is different, or undefined. Exact but for what the protocol leaves open: the order of equals in a sorted range, the lease of keys alone. */
export function difference(request: Request, expected: Response, actual: Response): string | undefined {
  if (expected.type !== actual.type) return `answers a ${expected.type} with a ${actual.type}`;
  switch (expected.type) {
    case 'put':
      return keyValueDifference('the key before', expected.prevKv, (actual as typeof expected).prevKv);
    case 'deleteRange': {
      const { deleted, prevKvs } = actual as typeof expected;
      if (deleted !== expected.deleted) return `deleted ${deleted}, not ${expected.deleted}`;
      return listDifference(expected.prevKvs, prevKvs);
    }
    case 'range':
      return rangeDifference(request as RangeRequest, expected, actual as typeof expected);
    case 'txn':
      return txnDifference(request as TxnRequest, expected, actual as typeof expected);
    default:
      return undefined;
  }
}

export function sameKeyValue(a: KeyValue, b: KeyValue): boolean {
  return (
    a.key === b.key &&
    a.value === b.value &&
    a.modRevision === b.modRevision &&
    a.createRevision === b.createRevision &&
    a.version === b.version &&
    a.lease === b.lease
  );
}

function txnDifference(request: TxnRequest, expected: TxnResponse, actual: TxnResponse): string | undefined {
  if (actual.succeeded !== expected.succeeded) return `the compares came out ${actual.succeeded}, not ${expected.succeeded}`;
  if (actual.responses.length !== expected.responses.length) {
    return `${actual.responses.length} responses for ${expected.responses.length} operations`;
  }
  const branch = expected.succeeded ? request.success : request.failure;
  for (const [at, inner] of branch.entries()) {
    const found = difference(inner, expected.responses[at] as Response, actual.responses[at] as Response);
    if (found !== undefined) return `operation ${at}: ${found}`;
  }
  return undefined;
}

type RangeAnswer = Extract<Response, { type: 'range' }>;

function rangeDifference(request: RangeRequest, expected: RangeAnswer, actual: RangeAnswer): string | undefined {
  if (actual.count !== expected.count) return `count ${actual.count}, not ${expected.count}`;
  if (actual.more !== expected.more) return `more is ${actual.more}, not ${expected.more}`;
  if (request.keysOnly === true) {
    const bare = ({ lease: _lease, ...rest }: KeyValue): KeyValue => ({ ...rest, value: '' });
    return listDifference(expected.kvs.map(bare), actual.kvs.map(bare));
  }
  const by = request.sort?.by ?? 'key';
  if (by === 'key') return listDifference(expected.kvs, actual.kvs);
  // Equals may come in any order, and at the limit any of them may be cut off.
  const wanted = expected.kvs.map((kv) => sortValue(by, kv));
  if (actual.kvs.length !== wanted.length || actual.kvs.some((kv, at) => sortValue(by, kv) !== wanted[at])) return 'not sorted as asked';
  const last = expected.more ? wanted.at(-1) : undefined;
  const certain = (kvs: readonly KeyValue[]): KeyValue[] =>
    kvs.filter((kv) => sortValue(by, kv) !== last).toSorted((a, b) => (a.key < b.key ? -1 : 1));
  return listDifference(certain(expected.kvs), certain(actual.kvs));
}

function listDifference(expected: readonly KeyValue[], actual: readonly KeyValue[]): string | undefined {
  const length = Math.max(expected.length, actual.length);
  for (let at = 0; at < length; at++) {
    const found = keyValueDifference(`key ${at}`, expected[at], actual[at]);
    if (found !== undefined) return found;
  }
  return undefined;
}

function keyValueDifference(name: string, expected: KeyValue | undefined, actual: KeyValue | undefined): string | undefined {
  if (expected === undefined || actual === undefined) {
    if (expected === actual) return undefined;
    return `${name} is ${JSON.stringify(actual) ?? 'missing'}, not ${JSON.stringify(expected) ?? 'missing'}`;
  }
  return sameKeyValue(expected, actual) ? undefined : `${name} is ${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`;
}
