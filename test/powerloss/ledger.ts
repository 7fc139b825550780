import { Event_EventType as EventType, KV, Watch } from '@conclave/protocol';
import { eventually, type RawClient } from '@conclave/testkit';
import {
  type Acknowledgement,
  acknowledged,
  answered,
  bytes,
  LeaseWriter,
  prefixOf,
  TwinWriter,
  text,
  told,
  type Writer,
} from './writers.ts';

/** What must and what may be found on a disk whose power was cut between two instants. */
export interface Bounds {
  /** Steps acknowledged before the first instant, by writer. */
  readonly acknowledged: readonly number[];
  /** Steps begun before the second. */
  readonly begun: readonly number[];
  /** How many of {@link Ledger.history} came before the first instant. */
  readonly history: number;
  /** The highest revision anybody was told. */
  readonly revision: number;
  /** Compactions acknowledged, and begun: highest revision. */
  readonly compacted: number;
  readonly compacting: number;
}

const historyKept = 150;
const compactEvery = 200;
const failuresMax = 400;

/** The writers of a store that loses its power again and again, and what they were told. */
export class Ledger {
  readonly #writers: readonly Writer[];
  #acknowledged: number[];
  #begun: number[];
  #history: Acknowledgement[] = [];
  #revision = 0;
  #compacted = 0;
  #compacting = 0;
  #total = 0;
  #onStep: (() => void) | undefined;
  #isStopping = false;

  /** `fillers` write big values, so that the log comes to its largest segments and uses them again. */
  constructor(fillers: number) {
    this.#writers = [
      ...[10, 300, 1000, 5000].map((padding, at) => new TwinWriter(`${told}twins${at}`, padding)),
      new LeaseWriter(`${told}leases0`, 1_000_000n),
      new LeaseWriter(`${told}leases1`, 9_000_000n),
      ...Array.from({ length: fillers }, (_, at) => new TwinWriter(`filler${at}`, 300_000 + at * 150_000)),
    ];
    this.#acknowledged = this.#writers.map(() => 0);
    this.#begun = this.#writers.map(() => 0);
  }

  /** Acknowledged steps of all lives. */
  get total(): number {
    return this.#total;
  }

  /**
   * Lets all writers write, each over a client of its own choice, until {@link stop}. Rejects when a step cannot be done before that.
   */
  async write(clients: readonly RawClient[]): Promise<void> {
    this.#isStopping = false;
    const loops = this.#writers.map((writer, at) => this.#loop(writer, at, clients));
    await Promise.all(loops);
  }

  /** Steps that fail from now on fail because the power is gone. */
  stop(): void {
    this.#isStopping = true;
  }

  /** Resolves within the acknowledgement of the `count`th step from now. */
  steps(count: number): Promise<void> {
    const until = this.#total + count;
    return new Promise((resolve) => {
      this.#onStep = () => {
        if (this.#total >= until) resolve();
      };
    });
  }

  /** What holds now. For the bounds of a cut, taken before and completed after it. */
  get now(): Bounds {
    return {
      acknowledged: [...this.#acknowledged],
      begun: [...this.#begun],
      history: this.#history.length,
      revision: this.#revision,
      compacted: this.#compacted,
      compacting: this.#compacting,
    };
  }

  /**
   * Reads everything back and compares; returns the bounds as narrow as what was found: from now on this has been seen, and must stay.
   *
   * @throws when something is missing, or there that cannot be
   */
  async check(client: RawClient, bounds: Bounds): Promise<Bounds> {
    const steps = await Promise.all(this.#writers.map((writer, at) => this.#stepsFound(writer, at, client, bounds)));
    const marker = await acknowledged(answered(() => client.unary(KV.methods.put, { key: bytes(`${told}marker`), value: bytes('-') })));
    const revision = marker.header?.revision ?? 0;
    if (revision <= bounds.revision) throw new Error(`the next revision is ${revision}, but ${bounds.revision} was acknowledged`);
    await this.#checkHistory(client, bounds, revision);
    await checkCompaction(client, bounds);
    return { ...bounds, acknowledged: steps, begun: steps, revision };
  }

  /** Goes on from what was found on a disk; what came after is forgotten. */
  goOnFrom(found: Bounds): void {
    this.#acknowledged = [...found.acknowledged];
    this.#begun = [...found.begun];
    this.#history = this.#history.slice(0, found.history);
    this.#revision = found.revision;
    // Perhaps it happened, perhaps not: nothing may be said about older history.
    this.#compacted = found.compacted;
    this.#compacting = found.compacting;
  }

  async #loop(writer: Writer, first: number, clients: readonly RawClient[]): Promise<void> {
    for (let turn = first, failures = 0; !this.#isStopping; ) {
      const client = clients[turn % clients.length] as RawClient;
      const n = (this.#acknowledged[first] ?? 0) + 1;
      this.#begun[first] = n;
      try {
        const acknowledgement = await writer.step(n, client, failures > 0);
        this.#acknowledged[first] = n;
        this.#total++;
        // Of a step that was tried before nobody knows which revision did what.
        if (acknowledgement !== undefined && failures === 0) this.#remember(writer, acknowledgement);
        failures = 0;
        this.#onStep?.();
        if (first === 0 && n % compactEvery === 0) await this.#compact(client);
      } catch (error) {
        if (this.#isStopping) return;
        // A member may be gone for a while, and the others without a leader; one that is alone may have a slow disk.
        if (++failures > failuresMax) throw error;
        turn++;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  #remember(writer: Writer, acknowledgement: Acknowledgement): void {
    this.#revision = Math.max(this.#revision, acknowledgement.revision);
    if (writer.name.startsWith(told)) this.#history.push(acknowledgement);
  }

  async #compact(client: RawClient): Promise<void> {
    const revision = this.#revision - historyKept;
    if (revision <= this.#compacting) return;
    this.#compacting = revision;
    const { code } = await client.unary(KV.methods.compact, { revision });
    if (code === 0) this.#compacted = revision;
  }

  async #stepsFound(writer: Writer, at: number, client: RawClient, bounds: Bounds): Promise<number> {
    const [low, high] = [bounds.acknowledged[at] ?? 0, bounds.begun[at] ?? 0];
    let found = '';
    try {
      // A follower asks the leader for the keys of a lease, who may have applied less than itself.
      const steps = await eventually(
        'the steps are found',
        async () => {
          found = await writer.found(client);
          // The latest first: a state that two steps lead to is taken for the later one, which the next step must not repeat.
          for (let n = high; n >= low; n--) if (writer.expected(n) === found) return { n };
          return undefined;
        },
        5000,
      );
      return steps.n;
    } catch (error) {
      const what = `${writer.name}: found ${found}; step ${low} was acknowledged (${writer.expected(low)}), step ${high} begun`;
      throw new Error(what, { cause: error });
    }
  }

  /** Every acknowledged change that was not compacted away is told, as it was, under the revision that was acknowledged. */
  async #checkHistory(client: RawClient, bounds: Bounds, until: number): Promise<void> {
    const from = bounds.compacting + 1;
    const events = await eventsByRevision(client, from, until);
    for (const { revision, events: wanted } of this.#history.slice(0, bounds.history)) {
      if (revision < from) continue;
      const was = events.get(revision) ?? 'nothing';
      if (was !== wanted) throw new Error(`revision ${revision}: acknowledged was ${wanted}; told is ${was}`);
    }
  }
}

async function eventsByRevision(client: RawClient, from: number, until: number): Promise<ReadonlyMap<number, string>> {
  const events = new Map<number, string>();
  using stream = client.stream(Watch.methods.watch);
  stream.send({ createRequest: { ...prefixOf(told), startRevision: from } });
  for (;;) {
    const message = await stream.next();
    if (message.canceled) throw new Error(`the history from ${from} on is gone: ${message.cancelReason} ${message.compactRevision}`);
    for (const { type, kv } of message.events) {
      const revision = kv?.modRevision ?? 0;
      if (revision >= until) return events;
      const key = text(kv?.key ?? new Uint8Array());
      const shown = type === EventType.DELETE ? `delete ${key}` : `put ${key} ${Number.parseInt(text(kv?.value ?? new Uint8Array()), 10)}`;
      const before = events.get(revision);
      events.set(revision, before === undefined ? shown : `${before}, ${shown}`);
    }
  }
}

async function checkCompaction(client: RawClient, { compacted, compacting }: Bounds): Promise<void> {
  const read = (revision: number): Promise<{ readonly code: number; readonly message: string }> =>
    answered(() => client.unary(KV.methods.range, { key: bytes(`${told}marker`), revision }));
  if (compacted > 1 && (await read(compacted - 1)).code === 0) throw new Error(`compaction at ${compacted} was acknowledged and is undone`);
  const after = await read(Math.max(compacting, 1));
  if (after.code !== 0) throw new Error(`only ${compacting} was ever to be compacted, but it cannot be read at that: ${after.message}`);
}
