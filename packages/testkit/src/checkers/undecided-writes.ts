import type { Operation, Request } from '../history.ts';
import type { Evidence } from './evidence.ts';

/** Operations of unknown outcome that would write, found by what they would write. Each may have been done once. */
export class UndecidedWrites {
  readonly #all: readonly Operation[];
  /** By a key and value that it may put. */
  readonly #byPut = new Map<string, Operation[]>();
  /** Those that may put a value which is not in the request. */
  readonly #keepingValue: readonly Operation[];
  /** By the one key that it deletes. */
  readonly #byDelete = new Map<string, Operation[]>();
  /** Those that may delete keys which are not named in the request. */
  readonly #deletingMore: readonly Operation[];
  readonly #used = new Set<Operation>();

  constructor(unknown: readonly Operation[]) {
    this.#all = unknown.filter(({ request }) => mayWrite(request)).toSorted((a, b) => a.call - b.call);
    this.#deletingMore = this.#all
      .filter(({ request }) => request.type !== 'deleteRange' || request.end !== undefined)
      .filter(({ request }) => mayDelete(request));
    this.#keepingValue = this.#all.filter(({ request }) => [...putsOf(request)].some((put) => put.ignoreValue === true));
    for (const operation of this.#all) {
      const { request } = operation;
      for (const { key, value } of putsOf(request)) file(this.#byPut, `${key}\0${value}`, operation);
      if (request.type === 'deleteRange' && request.end === undefined) file(this.#byDelete, request.key, operation);
    }
  }

  *matching(evidence: Evidence): Generator<Operation> {
    for (const operation of this.#narrowed(evidence)) if (!this.#used.has(operation)) yield operation;
  }

  use(operation: Operation): void {
    this.#used.add(operation);
  }

  free(operation: Operation): void {
    this.#used.delete(operation);
  }

  #narrowed(evidence: Evidence): Iterable<Operation> {
    const kv = evidence.written[0] ?? evidence.events.find((event) => event.type === 'put')?.kv;
    if (kv !== undefined) return new Set([...(this.#byPut.get(`${kv.key}\0${kv.value}`) ?? []), ...this.#keepingValue]);
    const gone = evidence.events[0]?.kv.key;
    return gone === undefined ? this.#all : [...(this.#byDelete.get(gone) ?? []), ...this.#deletingMore];
  }
}

function file(index: Map<string, Operation[]>, place: string, operation: Operation): void {
  const same = index.get(place);
  if (same === undefined) index.set(place, [operation]);
  else if (same.at(-1) !== operation) same.push(operation);
}

function* putsOf(request: Request): Generator<Extract<Request, { type: 'put' }>> {
  if (request.type === 'put') yield request;
  if (request.type === 'txn') for (const inner of [...request.success, ...request.failure]) yield* putsOf(inner);
}

function mayDelete(request: Request): boolean {
  if (request.type === 'txn') return [...request.success, ...request.failure].some(mayDelete);
  return request.type === 'deleteRange' || request.type === 'leaseRevoke';
}

const mayWrite = (request: Request): boolean => mayDelete(request) || !putsOf(request).next().done;
