/** A sequential machine. */
export interface SequentialModel<S, C> {
  readonly initial: S;
  /** The state after the call; undefined when the call cannot have been answered as it was. */
  step(state: S, call: C): S | undefined;
  /** Equal for equal states, and for those only. */
  keyOf(state: S): string;
}

/** One call, its answer inside. */
export interface TimedCall<C> {
  readonly call: number;
  readonly return: number;
  /** It may take effect at any time after it was made, or never. */
  readonly isUnknown: boolean;
  readonly what: C;
}

export type Verdict<C> =
  | { readonly status: 'linearizable' }
  /** `longest`: an order that goes as far as any. `stuckAt`: those that could have come next, and none of them fits. */
  | { readonly status: 'illegal'; readonly longest: readonly TimedCall<C>[]; readonly stuckAt: readonly TimedCall<C>[] }
  /** The search would take too long. */
  | { readonly status: 'undecided' };

const STEPS_MAX = 5_000_000;

/**
 * Looks for an order of the calls that respects real time and that the model could have answered so: Wing and Gong's search over who comes next, with
 * Lowe's memory of (set of calls done, state) that led nowhere. Of that set only what lies beyond the prefix in which all calls are done is kept.
 *
 * The search is exponential in how many calls overlap, and easiest where values are unique. Where the model allows, search each key on its own.
 */
export function checkLinearizable<S, C>(
  model: SequentialModel<S, C>,
  calls: readonly TimedCall<C>[],
  stepsMax: number = STEPS_MAX,
): Verdict<C> {
  return new Search(model, calls, stepsMax).run();
}

/** A call that was taken as the next, and what was so before. */
interface Move<S> {
  readonly at: number;
  readonly state: S;
  readonly prefix: number;
  readonly firstReturn: number;
}

class Search<S, C> {
  readonly #model: SequentialModel<S, C>;
  /** In the order they were made. */
  readonly #calls: readonly TimedCall<C>[];
  readonly #stepsMax: number;
  /** Those that must come: places in the order of their return. */
  readonly #byReturn: readonly number[];
  /** Those that may: places in the order they were made. */
  readonly #unknown: readonly number[];
  readonly #isDone: Uint8Array;
  readonly #unknownDone = new Set<number>();
  /** Where the search has been: by the calls done of those that must come, and the state, the sets of unknown calls that were done as well. */
  readonly #visited = new Map<string, ReadonlySet<number>[]>();
  readonly #moves: Move<S>[] = [];
  /** Every call before this is done or unknown. */
  #prefix = 0;
  /** Of `#byReturn`: the first that is not done. What was called after its return cannot come before it. */
  #firstReturn = 0;
  #longest: readonly number[] = [];
  #stuckAt: readonly number[] = [];

  constructor(model: SequentialModel<S, C>, calls: readonly TimedCall<C>[], stepsMax: number) {
    this.#model = model;
    this.#calls = calls.toSorted((a, b) => a.call - b.call);
    this.#stepsMax = stepsMax;
    this.#isDone = new Uint8Array(calls.length);
    const places = this.#calls.map((_, at) => at);
    this.#unknown = places.filter((at) => this.#call(at).isUnknown);
    this.#byReturn = places.filter((at) => !this.#call(at).isUnknown).sort((a, b) => this.#call(a).return - this.#call(b).return);
    this.#advance();
  }

  run(): Verdict<C> {
    let state = this.#model.initial;
    let after = -1;
    for (let steps = 0; steps < this.#stepsMax; steps++) {
      if (this.#firstReturn === this.#byReturn.length) return { status: 'linearizable' };
      const next = this.#take(state, after);
      if (next !== undefined) {
        state = next;
        after = -1;
        continue;
      }
      if (this.#stuckAt.length === 0 || this.#moves.length > this.#longest.length) this.#noteStuck();
      const move = this.#moves.pop();
      if (move === undefined) {
        const callsAt = (places: readonly number[]): TimedCall<C>[] => places.map((at) => this.#call(at));
        return { status: 'illegal', longest: callsAt(this.#longest), stuckAt: callsAt(this.#stuckAt) };
      }
      this.#undo(move);
      state = move.state;
      after = move.at;
    }
    return { status: 'undecided' };
  }

  /** Does the first call behind `after` that fits and leads to somewhere new; undefined when there is none. */
  #take(state: S, after: number): S | undefined {
    for (const at of this.#candidates(after)) {
      const next = this.#model.step(state, this.#call(at).what);
      if (next === undefined) continue;
      const move = { at, state, prefix: this.#prefix, firstReturn: this.#firstReturn };
      this.#do(at);
      if (this.#isNew(`${this.#doneKey()}|${this.#model.keyOf(next)}`)) {
        this.#moves.push(move);
        return next;
      }
      this.#undo(move);
    }
    return undefined;
  }

  /** Not so if the search was here before, having used no unknown calls but some of those it has used now: it could do more then, and that failed. */
  #isNew(place: string): boolean {
    const before = this.#visited.get(place);
    if (before?.some((used) => isSubset(used, this.#unknownDone)) === true) return false;
    const used = new Set(this.#unknownDone);
    if (before === undefined) this.#visited.set(place, [used]);
    else before.push(used);
    return true;
  }

  /** Who may come next: first those that must come some time, then those of unknown outcome. */
  *#candidates(after: number): Generator<number> {
    const bound = this.#bound();
    const wasUnknown = after >= 0 && this.#call(after).isUnknown;
    if (!wasUnknown) {
      for (let at = Math.max(after + 1, this.#prefix); at < this.#calls.length && this.#call(at).call <= bound; at++) {
        if (this.#isDone[at] === 0 && !this.#call(at).isUnknown) yield at;
      }
    }
    for (const at of this.#unknown) {
      if (this.#call(at).call > bound) return;
      if (this.#isDone[at] === 0 && (!wasUnknown || at > after)) yield at;
    }
  }

  #do(at: number): void {
    this.#isDone[at] = 1;
    if (this.#call(at).isUnknown) this.#unknownDone.add(at);
    this.#advance();
  }

  #undo({ at, prefix, firstReturn }: Move<S>): void {
    this.#isDone[at] = 0;
    this.#unknownDone.delete(at);
    this.#prefix = prefix;
    this.#firstReturn = firstReturn;
  }

  #advance(): void {
    while (this.#prefix < this.#calls.length && (this.#isDone[this.#prefix] === 1 || this.#call(this.#prefix).isUnknown)) this.#prefix++;
    while (this.#firstReturn < this.#byReturn.length && this.#isDone[this.#byReturn[this.#firstReturn] as number] === 1)
      this.#firstReturn++;
  }

  /** Names the set of calls that are done, of those that must be. */
  #doneKey(): string {
    const bound = this.#bound();
    let key = `${this.#prefix}`;
    for (let at = this.#prefix; at < this.#calls.length && this.#call(at).call <= bound; at++) {
      if (this.#isDone[at] === 1 && !this.#call(at).isUnknown) key += `,${at - this.#prefix}`;
    }
    return key;
  }

  /** Nothing that was called after this can come before everything that must. */
  #bound(): number {
    const first = this.#byReturn[this.#firstReturn];
    return first === undefined ? Number.POSITIVE_INFINITY : this.#call(first).return;
  }

  #noteStuck(): void {
    this.#longest = this.#moves.map((move) => move.at);
    this.#stuckAt = [...this.#candidates(-1)].filter((at) => !this.#call(at).isUnknown);
  }

  #call(at: number): TimedCall<C> {
    return this.#calls[at] as TimedCall<C>;
  }
}

function isSubset(small: ReadonlySet<number>, large: ReadonlySet<number>): boolean {
  if (small.size > large.size) return false;
  for (const item of small) if (!large.has(item)) return false;
  return true;
}
