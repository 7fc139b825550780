import { Random } from '@conclave/testing';
import {
  type History,
  HistoryRecorder,
  type LeaseId,
  type OpenWatch,
  type PendingOperation,
  type Request,
  type TxnOperation,
  type WatchEvent,
  type WatchRequest,
} from '../history.ts';
import { EtcdModel, type Evaluation, isInside } from './model.ts';

/** How the clients of a lawful history behave. */
export interface LawfulOptions {
  readonly operations: number;
  readonly clients?: number;
  readonly keys?: number;
  /** Of all writes, how many lose their answer. Default: 0.05. */
  readonly unknown?: number;
  readonly watches?: number;
  /** One more watch, over every key and from the beginning. Default: true. */
  readonly hasWitness?: boolean;
  /** Puts, gets and deletes of single keys only, and all answered by the present state. */
  readonly isPlain?: boolean;
  /** Done once, somewhere: the history is not lawful then. */
  readonly crime?: Crime;
}

/** A history, and what is true of it. */
export interface LawfulHistory {
  readonly history: History;
  readonly model: EtcdModel;
  /** The crime asked for was committed. */
  readonly isBroken: boolean;
}

/** What the cluster can do wrong, once, when it is asked to. */
export const crimes = [
  'acknowledges a write and does not do it',
  'acknowledges a write and forgets it later',
  'does a write twice',
  'does a write of unknown outcome twice',
  'does half of a transaction',
  'calls a write failed and does it',
  'gives a revision to nothing',
  'lets a lease run out before its time',
  'renews a lease that is gone',
  'leaves a key of a revoked lease',
  'answers from a compacted revision',
  'calls a revision compacted that is not',
] as const;

type Crime = (typeof crimes)[number];

/**
 * What clients could have seen of a correct cluster, from a seed: operations overlap, answers are lost and lost writes may still be done much later, members
 * lag, leases run out, watches lag, break and go on. The checkers must find nothing in it; broken variants of it are what they must find.
 */
export function lawfulHistory(seed: number, options: LawfulOptions): LawfulHistory {
  return new LawfulWorld(seed, options).run();
}

interface Delivery {
  readonly open: OpenWatch;
  readonly request: WatchRequest;
  /** The first revision still to be told. */
  next: number;
}

/** By then whoever asked has the answer, and what was asked before has been done. */
const KNOWN_AFTER = 60;

class LawfulWorld {
  readonly #random: Random;
  readonly #options: Required<Omit<LawfulOptions, 'crime'>>;
  readonly #crime: Crime | undefined;
  /** How many more opportunities are let pass. */
  #patience: number;
  readonly #model = new EtcdModel({ leases: 'tracked' });
  readonly #recorder = new HistoryRecorder();
  /** What is still to happen, unordered: there is never much of it. */
  #agenda: { readonly at: number; readonly run: () => void }[] = [];
  readonly #leases = new Map<LeaseId, number>();
  readonly #watches: Delivery[] = [];
  #now = 0;
  #values = 0;
  #leaseIds = 0;
  /** That was ever asked for. */
  #highestCompaction = 0;
  #knownCompaction = 0;
  readonly #knownRevoked = new Set<LeaseId>();
  #left: number;

  constructor(seed: number, options: LawfulOptions) {
    this.#random = new Random(seed);
    this.#crime = options.crime;
    this.#patience = this.#random.below(4);
    this.#options = { clients: 5, keys: 8, unknown: 0.05, watches: 4, hasWitness: true, isPlain: false, ...options };
    this.#left = this.#options.operations;
  }

  run(): LawfulHistory {
    if (this.#options.hasWitness) this.#openWatch({ key: '\0', end: '\0', startRevision: 2, prevKv: true });
    for (let client = 0; client < this.#options.clients; client++) this.#later(this.#random.below(5), () => this.#act(client));
    if (!this.#options.isPlain)
      for (let at = 0; at < this.#options.watches; at++) this.#later(this.#random.below(500), () => this.#openWatch());
    for (let step = this.#nextStep(); step !== undefined; step = this.#nextStep()) step();
    for (const delivery of [...this.#watches]) this.#deliver(delivery, Number.POSITIVE_INFINITY);
    return { history: this.#recorder.finish(this.#now + 1), model: this.#model, isBroken: this.#crime !== undefined && this.#patience < 0 };
  }

  #later(delay: number, run: () => void): void {
    this.#agenda.push({ at: this.#now + delay, run });
  }

  #nextStep(): (() => void) | undefined {
    let first = 0;
    for (let at = 1; at < this.#agenda.length; at++) if ((this.#agenda[at]?.at ?? 0) < (this.#agenda[first]?.at ?? 0)) first = at;
    const step = this.#agenda[first];
    if (step === undefined) return undefined;
    this.#agenda[first] = this.#agenda.at(-1) as typeof step;
    this.#agenda.pop();
    this.#now = step.at;
    this.#expire();
    return step.run;
  }

  /** Whether the crime is to be committed here: asked at every opportunity, and done at one. */
  #commits(crime: Crime): boolean {
    return crime === this.#crime && this.#patience >= 0 && --this.#patience < 0;
  }

  /** Some time after it could, and not at once. */
  #expire(): void {
    for (const [id, deadline] of this.#leases) {
      // A lease without keys leaves no trace, and one that has almost run out may have.
      const canBeEarly = this.#now < deadline - 500 && this.#model.keysOfLease(id).size > 0;
      const isEarly = canBeEarly && this.#random.chance(0.1) && this.#commits('lets a lease run out before its time');
      if (!isEarly && (this.#now <= deadline || this.#random.chance(0.9))) continue;
      this.#leases.delete(id);
      this.#model.apply({ type: 'leaseRevoke', id });
      this.#told();
    }
  }

  #act(client: number): void {
    if (this.#left-- <= 0) return;
    const request = this.#options.isPlain ? this.#plainRequest() : this.#request();
    const pending = this.#recorder.call(client, this.#now, request);
    const isLost = this.#random.chance(this.#options.unknown);
    const [reaches, returns] = [1 + this.#random.below(20), 1 + this.#random.below(20)];
    if (isLost) {
      // Never done, or done now, or done after the client went on.
      const fate = this.#random.below(3);
      if (fate > 0) this.#later(fate === 1 ? reaches : reaches + this.#random.below(300), () => this.#doUnseen(request));
      this.#later(reaches + returns, () => {
        pending.unknown(this.#now);
        this.#next(client);
      });
      return;
    }
    this.#later(reaches, () => {
      const settle = this.#settle(request, pending);
      this.#later(returns, () => {
        settle();
        this.#next(client);
      });
    });
  }

  #next(client: number): void {
    this.#later(this.#random.below(30), () => this.#act(client));
  }

  /** Does the request now; the answer is given when the result is called. */
  #settle(request: Request, pending: PendingOperation): () => void {
    if (request.type === 'range' && request.serializable === true) {
      const seen = Math.max(1, this.#model.revision - this.#random.below(4));
      if ((request.revision ?? 0) > seen) return () => pending.failed(this.#now, 'future-revision');
      const revision = request.revision ?? seen;
      const response = this.#model.range({ ...request, revision });
      if (revision < this.#model.compactRevision) return () => pending.failed(this.#now, 'compacted');
      return () => pending.ok(this.#now, seen, response);
    }
    const evaluation = this.#offend(request) ?? this.#do(request);
    const { revision } = this.#model;
    if (evaluation.status === 'failed') return () => pending.failed(this.#now, evaluation.code);
    return () => pending.ok(this.#now, revision, evaluation.response);
  }

  #doUnseen(request: Request): void {
    const { revision } = this.#model;
    this.#do(request);
    // What writes no value of its own could have been somebody else's doing.
    if (
      request.type === 'put' &&
      request.value !== '' &&
      this.#model.revision > revision &&
      this.#commits('does a write of unknown outcome twice')
    ) {
      this.#do(request);
    }
  }

  /** The answer to a request that is done wrongly; undefined where it is not. */
  #offend(request: Request): Evaluation | undefined {
    const evaluation = this.#model.evaluate(request);
    if (evaluation.status === 'failed') {
      if (request.type !== 'range' || request.revision === undefined || evaluation.code !== 'compacted') return undefined;
      if (request.revision >= this.#knownCompaction || !this.#commits('answers from a compacted revision')) return undefined;
      return { status: 'ok', response: this.#model.range(request), changes: [] };
    }
    const { response, changes } = evaluation;
    const first = changes[0];
    if (response.type === 'leaseKeepAlive' && this.#knownRevoked.has((request as { readonly id: LeaseId }).id)) {
      return this.#commits('renews a lease that is gone') ? { ...evaluation, response: { ...response, ttl: 2 } } : undefined;
    }
    if (request.type === 'range' && request.revision !== undefined && request.revision >= this.#model.compactRevision) {
      return this.#highestCompaction <= request.revision && this.#commits('calls a revision compacted that is not')
        ? { status: 'failed', code: 'compacted' }
        : undefined;
    }
    if (response.type === 'deleteRange' && first === undefined && this.#commits('gives a revision to nothing'))
      return this.#does(evaluation, []);
    if (first === undefined) return undefined;
    if (response.type === 'leaseRevoke' && this.#commits('leaves a key of a revoked lease'))
      return this.#does(evaluation, changes.slice(1));
    if (response.type === 'txn' && changes.length > 1 && this.#commits('does half of a transaction'))
      return this.#does(evaluation, [first]);
    if (response.type !== 'put') return undefined;
    if (this.#commits('acknowledges a write and does not do it')) return this.#does(evaluation, []);
    if (this.#commits('calls a write failed and does it'))
      return { ...this.#does(evaluation, changes), status: 'failed', code: 'no-space' };
    if (this.#commits('does a write twice')) {
      this.#do(request);
      return this.#do(request);
    }
    if (!this.#commits('acknowledges a write and forgets it later')) return undefined;
    this.#later(50, () => this.#forget(first.kv.key));
    return undefined;
  }

  /** Makes the next revision of these changes, whatever was asked for. */
  #does(evaluation: Evaluation, changes: readonly WatchEvent[]): Evaluation {
    this.#model.commit(changes);
    this.#told();
    return evaluation;
  }

  /** The key is as if it had never been written, and nothing tells. */
  #forget(key: string): void {
    const known = this.#model.get(key);
    if (known === undefined || known.lease !== undefined) {
      this.#patience = 0;
      return;
    }
    const kv = { key, value: '', createRevision: 0, modRevision: this.#model.revision + 1, version: 0 };
    this.#does({ status: 'failed', code: '' }, [{ type: 'delete', kv }]);
  }

  #do(request: Request): Evaluation {
    const evaluation = this.#model.apply(request);
    if (evaluation.status === 'ok') {
      if (request.type === 'leaseGrant') this.#leases.set(request.id as LeaseId, this.#now + request.ttl * 1000);
      if (request.type === 'leaseKeepAlive') {
        const ttl = (evaluation.response as { readonly ttl: number }).ttl;
        if (ttl > 0) this.#leases.set(request.id, this.#now + ttl * 1000);
      }
      if (request.type === 'leaseRevoke') {
        this.#leases.delete(request.id);
        this.#later(KNOWN_AFTER, () => this.#knownRevoked.add(request.id));
      }
      if (request.type === 'compact')
        this.#later(KNOWN_AFTER, () => (this.#knownCompaction = Math.max(this.#knownCompaction, request.revision)));
    }
    this.#told();
    return evaluation;
  }

  // ---- Requests

  #plainRequest(): Request {
    const key = this.#key();
    const face = this.#random.below(10);
    if (face < 5) return { type: 'put', key, value: this.#value() };
    return face < 9 ? { type: 'range', key } : { type: 'deleteRange', key };
  }

  #request(): Request {
    const face = this.#random.below(100);
    if (face < 60) return this.#operation(false);
    if (face < 75) return this.#txn(0);
    if (face < 78) {
      const revision = Math.max(1, this.#model.revision - this.#random.below(60) + 5);
      this.#highestCompaction = Math.max(this.#highestCompaction, revision);
      return { type: 'compact', revision };
    }
    if (face < 84) return { type: 'leaseGrant', id: String(++this.#leaseIds), ttl: 1 + this.#random.below(3) };
    const id = (this.#random.chance(0.8) ? this.#lease() : undefined) ?? String(1 + this.#random.below(this.#leaseIds + 1));
    if (face < 88) return { type: 'leaseRevoke', id };
    if (face < 96) return { type: 'leaseKeepAlive', id };
    return { type: 'leaseTimeToLive', id };
  }

  #operation(isInTxn: boolean): Exclude<TxnOperation, { type: 'txn' }> {
    const face = this.#random.below(10);
    const chance = (probability: number): boolean => this.#random.chance(probability);
    const key = this.#key();
    if (face < 5) {
      const lease = chance(0.3) ? this.#lease() : undefined;
      if (chance(0.05)) return { type: 'put', key, value: '', ignoreValue: true };
      return { type: 'put', key, value: this.#value(), ...(lease !== undefined && { lease }), ...(chance(0.3) && { prevKv: true }) };
    }
    const span = chance(0.3) ? { key, end: chance(0.5) ? '\0' : `${key}~` } : { key };
    if (face < 7) return { type: 'deleteRange', ...(chance(0.9) ? { key } : span), ...(chance(0.3) && { prevKv: true }) };
    return {
      type: 'range',
      ...span,
      ...(chance(0.2) && { revision: Math.max(1, this.#model.revision - this.#random.below(40)) }),
      ...(chance(0.2) && { limit: 1 + this.#random.below(4) }),
      ...(chance(0.1) && { countOnly: true }),
      ...(chance(0.1) && { keysOnly: true }),
      ...(chance(0.2) && { sort: { by: this.#random.pick(['key', 'version', 'mod'] as const), order: 'descend' as const } }),
      ...(!isInTxn && chance(0.2) && { serializable: true }),
    };
  }

  #txn(depth: number): TxnOperation {
    const key = this.#key();
    const known = this.#model.get(key);
    const target = this.#random.pick(['value', 'version', 'create', 'mod', 'lease'] as const);
    const actual = {
      value: known?.value ?? '',
      version: known?.version ?? 0,
      create: known?.createRevision ?? 0,
      mod: known?.modRevision ?? 0,
    };
    const operand = target === 'lease' ? (known?.lease ?? '0') : actual[target];
    const is = this.#random.pick(['=', '=', '=', '!=', '<', '>'] as const);
    return { type: 'txn', compares: [{ key, target, is, operand }], success: this.#branch(depth), failure: this.#branch(depth) };
  }

  /** A key is put at most once in a branch and not deleted beside: anything else is refused before it gets anywhere. */
  #branch(depth: number): TxnOperation[] {
    const written = new Set<string>();
    const branch: TxnOperation[] = [];
    for (let at = this.#random.below(4); at > 0; at--) {
      if (depth === 0 && this.#random.chance(0.1)) {
        branch.push({ type: 'txn', compares: [], success: [{ type: 'range', key: this.#key() }], failure: [] });
        continue;
      }
      const operation = this.#operation(true);
      if (operation.type !== 'range' && (('end' in operation && operation.end !== undefined) || written.has(operation.key))) continue;
      if (operation.type !== 'range') written.add(operation.key);
      branch.push(operation);
    }
    return branch;
  }

  #key(): string {
    return `k${this.#random.below(this.#options.keys)}`;
  }

  #value(): string {
    return `v${++this.#values}`;
  }

  #lease(): LeaseId | undefined {
    const ids = [...this.#leases.keys()];
    return ids.length === 0 ? undefined : this.#random.pick(ids);
  }

  // ---- Watches

  #openWatch(fixed?: WatchRequest, resumes?: number): void {
    const chance = (probability: number): boolean => this.#random.chance(probability);
    const key = this.#key();
    const request: WatchRequest = fixed ?? {
      ...(chance(0.5) ? { key: 'k', end: 'l' } : { key }),
      ...(chance(0.6) && { startRevision: Math.max(1, this.#model.revision - 30 + this.#random.below(60)) }),
      ...(chance(0.5) && { prevKv: true }),
      ...(chance(0.3) && { ignore: chance(0.5) ? ('put' as const) : ('delete' as const) }),
      ...(chance(0.5) && { fragment: true }),
    };
    const open = this.#recorder.watch(100 + this.#watches.length, this.#now, request, resumes === undefined ? {} : { resumes });
    const { revision } = this.#model;
    open.message({ type: 'created', time: this.#now, revision });
    const delivery = { open, request, next: request.startRevision ?? revision + 1 };
    if (delivery.next < this.#model.compactRevision) this.#cancel(delivery);
    else this.#watches.push(delivery);
  }

  #cancel({ open }: Delivery): void {
    open.message({ type: 'canceled', time: this.#now, revision: 0, compactRevision: this.#model.compactRevision });
  }

  /** Something may have changed: some watches hear of it now, some later. */
  #told(): void {
    for (const delivery of [...this.#watches]) {
      if (this.#random.chance(0.3)) this.#deliver(delivery, this.#random.below(5));
      // The witness stays: it is what tells who made what.
      const mayBreak = delivery.request.end !== '\0' && this.#watches.includes(delivery);
      if (mayBreak && this.#random.chance(0.003)) this.#breakOff(delivery);
    }
  }

  #breakOff(delivery: Delivery): void {
    this.#watches.splice(this.#watches.indexOf(delivery), 1);
    delivery.open.message({ type: 'closed', time: this.#now });
    this.#later(this.#random.below(100), () => this.#openWatch({ ...delivery.request, startRevision: delivery.next }, delivery.open.id));
  }

  #deliver(delivery: Delivery, revisionsMax: number): void {
    const { open, request } = delivery;
    if (delivery.next < this.#model.compactRevision && this.#model.revision > delivery.next && request.end !== '\0') {
      this.#watches.splice(this.#watches.indexOf(delivery), 1);
      this.#cancel(delivery);
      return;
    }
    const last = Math.min(this.#model.revision, delivery.next + revisionsMax);
    const events = [];
    for (let revision = delivery.next; revision <= last; revision++) {
      for (const event of this.#model.changesAt(revision)) {
        if (event.type === request.ignore || !isInside(request, event.kv.key)) continue;
        const { prevKv, ...bare } = event;
        const isShown = request.prevKv === true && revision - 1 >= this.#model.compactRevision;
        events.push({ ...bare, ...(isShown && prevKv !== undefined && { prevKv }) });
      }
    }
    if (last < delivery.next) return;
    delivery.next = last + 1;
    const cut = request.fragment === true && events.length > 1 ? 1 + this.#random.below(events.length - 1) : events.length;
    const message = { type: 'events', time: this.#now, revision: this.#model.revision } as const;
    if (cut < events.length) open.message({ ...message, events: events.splice(0, cut), isFragment: true });
    if (events.length > 0) open.message({ ...message, events });
    if (last === this.#model.revision && this.#random.chance(0.2)) open.message({ type: 'progress', time: this.#now, revision: last });
  }
}
