/**
 * What a member of a test cluster keeps, and loses when its power goes: a log, the applied state, received snapshots, and what it remembers of its
 * peers. Nothing here is real but the contracts of `replica/ports.ts`.
 */
import { LeaseGrantRequest, LeaseRevokeRequest } from '@conclave/protocol';
import {
  type ConfChange,
  type ConfState,
  type Entry,
  encodeConfChange,
  type HardState,
  type MemberId,
  type SnapshotMeta,
} from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import { encodeEntry, type LoggedRequest } from '../src/apply/entry.ts';
import type {
  LeaseListener,
  LeaseTable,
  LocalMemory,
  Log,
  LogBatch,
  PeerMark,
  RecoveredLog,
  SnapshotReader,
  Snapshots,
  SnapshotWriter,
  StateMachine,
} from '../src/replica/ports.ts';

/** The applied state. Replaced, never changed: a copy of it costs nothing. */
export interface State {
  readonly index: number;
  readonly term: number;
  readonly confState: ConfState;
  readonly removed: readonly MemberId[];
  /** Bodies of the puts, in their order. */
  readonly puts: readonly string[];
  readonly leases: ReadonlyMap<bigint, number>;
  /** Those that are gone included. */
  readonly everGranted: ReadonlySet<bigint>;
}

const emptyState: State = {
  index: 0,
  term: 0,
  confState: { voters: [], learners: [] },
  removed: [],
  puts: [],
  leases: new Map(),
  everGranted: new Set(),
};

/** What survives a loss of power. */
export interface DiskImage {
  readonly hardState: HardState | undefined;
  readonly entries: readonly Entry[];
  /** The snapshot that the log begins behind, where its state is still to be put in place. */
  readonly marker: { readonly index: number; readonly term: number } | undefined;
  readonly state: State;
  readonly received: ReadonlyMap<number, State>;
  readonly incarnation: number;
  readonly marks: ReadonlyMap<MemberId, PeerMark>;
}

export const emptyDisk: DiskImage = {
  hardState: undefined,
  entries: [],
  marker: undefined,
  state: emptyState,
  received: new Map(),
  incarnation: 0,
  marks: new Map(),
};

/** A founder's: the members stand in its log. */
export function foundingDisk(founders: readonly MemberId[]): DiskImage {
  const entries = founders.map((member, at): Entry => {
    const request = {
      kind: 'memberAdd',
      member: 0n,
      epoch: 0,
      counter: 0,
      term: 1,
      user: '',
      authRevision: 0,
      body: new Uint8Array(0),
    } as const;
    const data = encodeConfChange({ type: 'addVoter', member, context: encodeEntry(request) });
    return { term: 1, index: at + 1, type: 'confChange', data };
  });
  return { ...emptyDisk, entries, hardState: { term: 1, vote: 0n, commit: entries.length } };
}

/** Milliseconds that a write takes. */
const writeMs = 2;
/** How long applied state waits before it is written. */
const stateMs = 50;

/** The disk of a running member. */
export class ReplicaDisk implements Log, LocalMemory {
  image: DiskImage;
  /** Writes wait until the test says that the disk works again. */
  isStuck = false;
  /** Damages every chunk of a snapshot that comes in. */
  isRotten = false;
  readonly #runtime: Runtime;
  readonly #waiting: (() => void)[] = [];
  #isOff = false;

  constructor(runtime: Runtime, image: DiskImage) {
    this.#runtime = runtime;
    this.image = finishRestoring({ ...image, incarnation: image.incarnation + 1 });
  }

  get recovered(): RecoveredLog {
    const { hardState, entries } = this.image;
    return { hardState, entries };
  }

  /** Runs `work` when a write would be done. Not at all when the power goes before. */
  later(ms: number, work: () => void): void {
    this.#runtime.timer(ms, () => {
      if (this.#isOff) return;
      if (this.isStuck) this.#waiting.push(work);
      else work();
    });
  }

  unstick(): void {
    this.isStuck = false;
    for (const work of this.#waiting.splice(0)) work();
  }

  cutPower(): void {
    this.#isOff = true;
  }

  // ---- log ----

  append({ entries, hardState, snapshot }: LogBatch, durable: () => void): void {
    this.later(writeMs, () => {
      const first = entries[0]?.index ?? Number.POSITIVE_INFINITY;
      const kept = snapshot === undefined ? this.image.entries.filter((entry) => entry.index < first) : [];
      this.image = {
        ...this.image,
        entries: [...kept, ...entries],
        hardState: hardState ?? this.image.hardState,
        marker: snapshot ?? this.image.marker,
      };
      durable();
    });
  }

  /** Some of what may be dropped is kept, as a log does that drops whole files. */
  release(index: number): void {
    this.image = { ...this.image, entries: this.image.entries.filter((entry) => entry.index > index - 3) };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  // ---- memory ----

  get incarnation(): number {
    return this.image.incarnation;
  }

  peer(id: MemberId): PeerMark | undefined {
    return this.image.marks.get(id);
  }

  notePeer(id: MemberId, mark: PeerMark): void {
    this.image = { ...this.image, marks: new Map([...this.image.marks, [id, mark]]) };
  }
}

/** A crash between the marker and the state that belongs to it is finished at the next start. */
function finishRestoring(image: DiskImage): DiskImage {
  const { marker, state, received } = image;
  if (marker === undefined || marker.index <= state.index) return image;
  return { ...image, state: received.get(marker.index)! };
}

/** Keeps puts in their order, and leases. */
export class Machine implements StateMachine<string>, LeaseTable {
  isFull = false;
  state: State;
  readonly #disk: ReplicaDisk;
  #listener: LeaseListener | undefined;
  #onRoom = (): void => {};
  #isSaving = false;

  constructor(disk: ReplicaDisk) {
    this.#disk = disk;
    this.state = disk.image.state;
  }

  get appliedIndex(): number {
    return this.state.index;
  }
  get appliedTerm(): number {
    return this.state.term;
  }
  get durableIndex(): number {
    return this.#disk.image.state.index;
  }
  get confState(): ConfState {
    return this.state.confState;
  }

  apply(index: number, term: number, { kind, body, term: proposedIn }: LoggedRequest): string {
    this.#move(index, term, {});
    const { puts, leases } = this.state;
    if (kind === 'put') {
      this.state = { ...this.state, puts: [...puts, Buffer.from(body).toString()] };
    } else if (kind === 'leaseGrant') {
      const { id, ttl } = LeaseGrantRequest.decode(body);
      this.state = { ...this.state, leases: new Map([...leases, [id, ttl]]), everGranted: new Set([...this.state.everGranted, id]) };
      this.#listener?.granted(id, ttl);
    } else if (kind === 'leaseRevoke') {
      const { id } = LeaseRevokeRequest.decode(body);
      if (proposedIn < term) return 'leader changed';
      this.state = { ...this.state, leases: new Map([...leases].filter(([lease]) => lease !== id)) };
      this.#listener?.revoked(id);
    }
    return `${kind}#${index}`;
  }

  applyEmpty(index: number, term: number): void {
    this.#move(index, term, {});
  }

  applyMembership(index: number, term: number, { type, member }: ConfChange): { readonly result: string; readonly isAccepted: boolean } {
    const { confState, removed } = this.state;
    const isMember = confState.voters.includes(member) || confState.learners.includes(member);
    const isAccepted = !removed.includes(member) && (type === 'addLearner' ? !isMember : type === 'remove' ? isMember : true);
    const without = (members: readonly MemberId[]): MemberId[] => members.filter((other) => other !== member);
    const rest = { voters: without(confState.voters), learners: without(confState.learners) };
    if (!isAccepted || type === 'update') this.#move(index, term, {});
    else if (type === 'remove') this.#move(index, term, { confState: rest, removed: [...removed, member] });
    else if (type === 'addLearner') this.#move(index, term, { confState: { ...rest, learners: [...rest.learners, member] } });
    else this.#move(index, term, { confState: { ...rest, voters: [...rest.voters, member] } });
    return { result: isAccepted ? `${type}#${index}` : 'refused', isAccepted };
  }

  #move(index: number, term: number, changes: Partial<State>): void {
    if (index !== this.state.index + 1) throw new Error(`entry ${index} after ${this.state.index}`);
    this.state = { ...this.state, ...changes, index, term };
    if (this.#isSaving) return;
    this.#isSaving = true;
    this.#disk.later(stateMs, () => {
      this.#isSaving = false;
      this.save();
    });
  }

  /** What is applied is durable. */
  save(): void {
    if (this.state.index > this.#disk.image.state.index) this.#disk.image = { ...this.#disk.image, state: this.state };
  }

  reload(): void {
    this.state = this.#disk.image.state;
  }

  onRoom(listener: () => void): void {
    this.#onRoom = listener;
  }

  makeRoom(): void {
    this.isFull = false;
    this.#onRoom();
  }

  forEach(visit: (id: bigint, ttlSeconds: number) => void): void {
    for (const [id, ttl] of this.state.leases) visit(id, ttl);
  }

  listen(listener: LeaseListener): void {
    this.#listener = listener;
  }
}

/** A state in chunks of a few puts each; every chunk begins with its number and ends with a sum of its bytes. */
export class StateSnapshots implements Snapshots {
  readonly #runtime: Runtime;
  readonly #disk: ReplicaDisk;
  readonly #machine: Machine;
  #part: { readonly name: string; readonly writer: SnapshotWriter } | undefined;
  readonly log: string[] = [];

  constructor(runtime: Runtime, disk: ReplicaDisk, machine: Machine) {
    this.#runtime = runtime;
    this.#disk = disk;
    this.#machine = machine;
  }

  async open(): Promise<SnapshotReader> {
    await this.#sleep(writeMs);
    this.#machine.save();
    const { state } = this.#machine;
    const { index, term, confState } = state;
    const id = Math.floor(this.#runtime.random() * 2 ** 32);
    const chunks = [header(state), ...state.puts.map((put) => put)].map(chunkOf);
    let next = 0;
    this.log.push(`open ${index}`);
    return {
      snapshot: { index, term, confState },
      id,
      next: async () => {
        await this.#sleep(0);
        return chunks[next++];
      },
      close: () => this.log.push(`close ${index}`),
    };
  }

  async receive({ index, term }: SnapshotMeta, id: number): Promise<SnapshotWriter> {
    await this.#sleep(writeMs);
    const name = `${index}-${term}-${id}`;
    if (this.#part?.name !== name) this.#part = { name, writer: this.#writer(index) };
    return this.#part.writer;
  }

  #writer(index: number): SnapshotWriter {
    const rows: string[] = [];
    const refuse = (reason: string): never => {
      throw Object.assign(new Error(reason), { code: 'snapshot-corrupt' });
    };
    return {
      get next() {
        return rows.length;
      },
      write: async (chunk) => {
        if (this.#disk.isRotten) refuse('rot');
        rows.push(rowOf(chunk, rows.length) ?? refuse(`chunk ${rows.length} is damaged`));
        await this.#sleep(writeMs);
      },
      finish: async () => {
        await this.#sleep(writeMs);
        const state = stateOf(rows);
        if (state.index !== index) refuse('another index');
        this.#part = undefined;
        this.#disk.image = { ...this.#disk.image, received: new Map([...this.#disk.image.received, [index, state]]) };
        this.log.push(`received ${index}`);
      },
      abandon: async () => {
        await this.#sleep(writeMs);
        this.#part = undefined;
        this.log.push(`abandoned ${index}`);
      },
    };
  }

  async restore({ index }: { readonly index: number }): Promise<void> {
    await this.#sleep(5 * writeMs);
    const state = this.#disk.image.received.get(index);
    if (state === undefined) throw new Error(`there is no snapshot of ${index}`);
    this.#disk.image = { ...this.#disk.image, state };
    this.log.push(`restored ${index}`);
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#disk.later(ms, resolve));
  }
}

interface Header {
  readonly index: number;
  readonly term: number;
  readonly voters: readonly string[];
  readonly learners: readonly string[];
  readonly removed: readonly string[];
  readonly leases: readonly (readonly [string, number])[];
  readonly everGranted: readonly string[];
}

function header({ index, term, confState, removed, leases, everGranted }: State): string {
  const hex = (ids: readonly bigint[]): string[] => ids.map((id) => id.toString(16));
  const conf = { voters: hex(confState.voters), learners: hex(confState.learners) };
  const granted = { leases: [...leases].map(([id, ttl]) => [id.toString(16), ttl] as const), everGranted: hex([...everGranted]) };
  const head: Header = { index, term, ...conf, removed: hex(removed), ...granted };
  return JSON.stringify(head);
}

function stateOf([head, ...puts]: readonly string[]): State {
  const { index, term, voters, learners, removed, leases, everGranted } = JSON.parse(head!) as Header;
  const ids = (hex: readonly string[]): bigint[] => hex.map((text) => BigInt(`0x${text}`));
  const pairs = leases.map(([id, ttl]) => [BigInt(`0x${id}`), ttl] as const);
  const confState = { voters: ids(voters), learners: ids(learners) };
  return { index, term, confState, removed: ids(removed), puts, leases: new Map(pairs), everGranted: new Set(ids(everGranted)) };
}

function chunkOf(row: string, sequence: number): Uint8Array {
  const text = `${sequence}:${row}`;
  return Buffer.from(`${text}:${sumOf(text)}`);
}

function rowOf(chunk: Uint8Array, sequence: number): string | undefined {
  const [, text, number, row, sum] = /^((\d+):(.*)):(\d+)$/s.exec(Buffer.from(chunk).toString()) ?? [];
  return text !== undefined && Number(number) === sequence && sumOf(text) === Number(sum) ? row : undefined;
}

function sumOf(text: string): number {
  let sum = 7;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)!) % 1_000_003;
  return sum;
}
