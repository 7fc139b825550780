/**
 * A host of the core, as DESIGN.md wants it, with everything real taken away: a disk that loses what was not flushed, a state machine that
 * keeps a digest, snapshots that are copies. Whoever drives it says when the disk is done, when entries are applied, and when the power goes.
 */
import { decodeConfChange, encodeConfChange } from '../src/conf-change.ts';
import type { RaftConfig } from '../src/config.ts';
import { Raft } from '../src/raft.ts';
import {
  type ConfChange,
  type ConfState,
  type Entry,
  type HardState,
  type MemberId,
  noMember,
  type PeerMessage,
  type Ready,
  type SnapshotMeta,
  type StorageAppend,
} from '../src/types.ts';

export type HostConfig = Omit<RaftConfig, 'initial' | 'incarnation'>;

/** The applied state. It is never changed, only replaced: so a copy of it costs nothing. */
export interface MachineState {
  readonly index: number;
  readonly term: number;
  readonly confState: ConfState;
  /** Ids are not used again. */
  readonly removed: readonly MemberId[];
  /** Of all that was applied: equal states have equal digests. */
  readonly digest: number;
}

export const emptyState: MachineState = { index: 0, term: 0, confState: { voters: [], learners: [] }, removed: [], digest: 0 };

/** What survives a crash. */
export interface Disk {
  hardState: HardState | undefined;
  /** Consecutive, from behind `compacted` on. */
  entries: Entry[];
  compacted: { index: number; term: number };
  /** The state machine's own disk. Behind the marker of a snapshot only until the restart after that. */
  machine: MachineState;
  /** Received snapshots by index: complete and durable. One takes the place of `machine` from the moment the log holds its marker. */
  readonly received: Map<number, MachineState>;
  incarnation: number;
}

/** The disk of a new member. Those who found a cluster stand in the log of each of them; none do for a member that joins. */
export function newDisk(founders: readonly MemberId[]): Disk {
  const entries = founders.map((member, at): Entry => {
    const data = encodeConfChange({ type: 'addVoter', member, context: new Uint8Array(0) });
    return { term: 1, index: at + 1, type: 'confChange', data };
  });
  const hardState = founders.length > 0 ? { term: 1, vote: noMember, commit: founders.length } : undefined;
  return { hardState, entries, compacted: { index: 0, term: 0 }, machine: emptyState, received: new Map(), incarnation: 0 };
}

export interface HostListener {
  applied(host: Host, entry: Entry): void;
  changed(host: Host, change: ConfChange): void;
  /** A snapshot took the place of the applied state. */
  restored(host: Host): void;
  /** Sent at once, or released by the disk. */
  send(host: Host, message: PeerMessage): void;
}

export class Host {
  readonly id: MemberId;
  raft!: Raft;
  machine!: MachineState;
  /** Under way, oldest first. */
  appends: StorageAppend[] = [];
  applies: (readonly Entry[])[] = [];
  /** Terms by index of all that raft has handed out as its log. */
  readonly terms: number[] = [];
  readonly disk: Disk;
  readonly #config: HostConfig;
  readonly #listener: HostListener;

  constructor(config: HostConfig, disk: Disk, listener: HostListener) {
    this.id = config.id;
    this.#config = config;
    this.disk = disk;
    this.#listener = listener;
  }

  start(): void {
    const { disk } = this;
    disk.incarnation += 1;
    if (disk.machine.index < disk.compacted.index) disk.machine = disk.received.get(disk.compacted.index)!;
    this.machine = disk.machine;
    this.appends = [];
    this.applies = [];
    this.terms.length = 0;
    this.terms[disk.compacted.index] = disk.compacted.term;
    for (const { index, term } of disk.entries) this.terms[index] = term;
    const { hardState, compacted, machine } = disk;
    const initial = { hardState, confState: machine.confState, compacted, entries: disk.entries, appliedIndex: machine.index };
    this.raft = new Raft({ ...this.#config, incarnation: disk.incarnation, initial });
  }

  /** Takes the next Ready and puts it under way. Messages are sent. */
  ready(): Ready {
    const ready = this.raft.ready();
    const { append, apply, messages } = ready;
    for (const message of messages) this.#listener.send(this, message);
    if (append) {
      this.appends.push(append);
      if (append.snapshot) this.terms[append.snapshot.index] = append.snapshot.term;
      for (const { index, term } of append.entries) this.terms[index] = term;
      const end = append.entries.at(-1) ?? append.snapshot;
      if (end) this.terms.length = end.index + 1;
    }
    if (apply) this.applies.push(apply.entries);
    return ready;
  }

  // ---- disk ----

  /** The oldest append is durable, with its snapshot in place. */
  flush(): void {
    const append = this.appends.shift();
    if (!append) return;
    this.#write(append);
    this.release(append);
  }

  #write({ snapshot, entries, hardState }: StorageAppend): void {
    const { disk } = this;
    if (snapshot) this.#restore(snapshot);
    const first = entries[0];
    if (first) disk.entries.length = first.index - disk.compacted.index - 1;
    disk.entries.push(...entries);
    disk.hardState = hardState ?? disk.hardState;
  }

  #restore({ index, term }: SnapshotMeta): void {
    const { disk } = this;
    const state = disk.received.get(index);
    if (state?.term !== term) throw new Error(`a snapshot at ${term}/${index} is to be put in place, and is not here`);
    disk.entries = [];
    disk.compacted = { index, term };
    disk.machine = state;
    this.machine = state;
    // Applies that were handed out before it are overtaken.
    this.applies = [];
    this.#listener.restored(this);
  }

  release({ responses }: StorageAppend): void {
    for (const response of responses) {
      if ('to' in response && response.to !== this.id) this.#listener.send(this, response);
      else this.raft.step(response);
    }
  }

  /**
   * The power goes. @param kept how many of the appends under way were on disk by chance; of the next, this part of its entries without the rest:
   * a write is torn anywhere.
   */
  crash(kept: number, tornPart: number): void {
    for (const append of this.appends.slice(0, kept)) this.#write(append);
    const torn = this.appends[kept];
    if (torn && !torn.snapshot) {
      const entries = torn.entries.slice(0, Math.floor(torn.entries.length * tornPart));
      this.#write({ snapshot: undefined, entries, hardState: undefined, responses: [] });
    }
    this.appends = [];
    this.applies = [];
  }

  // ---- state machine ----

  /** Applies the oldest batch of entries. */
  apply(): void {
    for (const entry of this.applies.shift() ?? []) this.#apply(entry);
  }

  #apply(entry: Entry): void {
    const { index, term, type, data } = entry;
    if (index !== this.machine.index + 1) throw new Error(`entry ${index} is applied to a state at ${this.machine.index}`);
    let { confState, removed, digest } = this.machine;
    for (const byte of [term, data.length, ...data]) digest = Math.imul(digest ^ byte, 0x01000193) >>> 0;
    const change = type === 'confChange' ? decodeConfChange(data) : undefined;
    const isAccepted = change !== undefined && this.#accepts(change);
    if (isAccepted) confState = this.raft.applyConfChange(change);
    if (isAccepted && change.type === 'remove') removed = [...removed, change.member];
    this.#listener.applied(this, entry);
    this.machine = { index, term, confState, removed, digest };
    this.raft.step({ type: 'storageApplyResponse', index });
    if (isAccepted) this.#listener.changed(this, change);
  }

  /** Proposals are checked here once more, and not only where they were made: two that each were right may not be right together. */
  #accepts({ type, member }: ConfChange): boolean {
    const { confState, removed } = this.machine;
    return type === 'remove' ? confState.voters.some((voter) => voter !== member) : !removed.includes(member);
  }

  /** The applied state is on the state machine's own disk. */
  save(): void {
    this.disk.machine = this.machine;
  }

  /** Drops what is not needed any more, on disk and in memory: what is saved, but for the newest so many entries. */
  compact(keepEntries: number, keepBytes: number): void {
    const { disk, raft } = this;
    const index = Math.min(raft.catchUpIndex(keepEntries, keepBytes), disk.machine.index);
    raft.compact(index);
    const known = index - disk.compacted.index;
    if (known <= 0) return;
    disk.compacted = { index, term: disk.entries[known - 1]!.term };
    disk.entries.splice(0, known);
  }
}
