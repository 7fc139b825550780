import { ClusterVersion, MemberRecord } from '@conclave/protocol';
import type { ConfState, MemberId } from '@conclave/raft';
import type { Row } from '../storage/backend/backend.ts';
import type { Store } from '../storage/backend/store.ts';

/** A member of the cluster. */
export interface ClusterMember {
  readonly id: MemberId;
  /** Empty until the member has published it; a founder's is known from the start. A member with a name counts as started. */
  readonly name: string;
  /** Ascending. */
  readonly peerUrls: readonly string[];
  readonly clientUrls: readonly string[];
  readonly isLearner: boolean;
  /** The highest entry version its program can apply; 0 until it has published it. */
  readonly entryVersion: number;
  /** Its program's release; empty until published. */
  readonly serverVersion: string;
}

/**
 * Who the members are: a replicated table, the same on every member, and the only place where it is kept. Raft's configuration is read from here
 * (etcd issue 20967: where two stores of it drift apart, removed members come back). A removed member's id stays in the table for ever, so that
 * it is never used again.
 *
 * Tables: `members` (id → MemberRecord) and, in `meta`, the cluster version.
 */
export class MemberTable {
  readonly #store: Store;
  #members: Map<MemberId, ClusterMember> = new Map();
  #list: readonly ClusterMember[] = [];
  #removed: Set<MemberId> = new Set();
  #clusterVersion: ClusterVersion | undefined;
  readonly #listeners: (() => void)[] = [];

  /** Reads what the store holds: a cluster has few members, so all of them are kept in memory. */
  constructor(store: Store) {
    this.#store = store;
    this.#read();
  }

  /** By ascending id. The same array until something changes. */
  list(): readonly ClusterMember[] {
    return this.#list;
  }

  get(id: MemberId): ClusterMember | undefined {
    return this.#members.get(id);
  }

  /** True for a member that was and can never be again. */
  isRemoved(id: MemberId): boolean {
    return this.#removed.has(id);
  }

  get confState(): ConfState {
    return confStateOf(this.#list);
  }

  /** What all members can do; undefined until they have said so. */
  get clusterVersion(): ClusterVersion | undefined {
    return this.#clusterVersion;
  }

  /** Calls back with every change, from inside the apply that made it, and after {@link reload}. The listener must not write. */
  listen(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** The store was replaced beneath. */
  reload(): void {
    this.#read();
    this.#tell();
  }

  // ---- writes: apply only -----------------------------------------------------------------------------------------------------------

  /** Adds a member whose id was never used. */
  add(member: ClusterMember): void {
    if (this.#members.has(member.id) || this.#removed.has(member.id))
      throw new Error(`member id ${member.id.toString(16)} was used before`);
    this.#put(member);
  }

  /** Changes a member there is. */
  change(id: MemberId, changes: Partial<Omit<ClusterMember, 'id'>>): void {
    const member = this.#members.get(id);
    if (member === undefined) throw new Error(`there is no member ${id.toString(16)}`);
    this.#put({ ...member, ...changes });
  }

  /** For ever. */
  remove(id: MemberId): void {
    if (!this.#members.has(id)) throw new Error(`there is no member ${id.toString(16)}`);
    this.#store.put('members', idBytes(id), MemberRecord.encode({ id, isRemoved: true }));
    this.#members.delete(id);
    this.#removed.add(id);
    this.#changed();
  }

  setClusterVersion(version: ClusterVersion): void {
    this.#store.put('meta', clusterVersionRow, ClusterVersion.encode(version));
    this.#clusterVersion = version;
    this.#tell();
  }

  #put(member: ClusterMember): void {
    this.#store.put('members', idBytes(member.id), MemberRecord.encode(recordOf(member)));
    this.#members.set(member.id, member);
    this.#changed();
  }

  #changed(): void {
    this.#list = [...this.#members.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    this.#tell();
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }

  #read(): void {
    const records = Array.from(this.#store.scan('members', lowestId, undefined), decodeRow);
    const members = records.filter((record) => !record.isRemoved);
    this.#list = members;
    this.#members = new Map(members.map((member) => [member.id, member]));
    this.#removed = new Set(records.filter((record) => record.isRemoved).map(({ id }) => id));
    const version = this.#store.get('meta', clusterVersionRow);
    this.#clusterVersion = version === undefined ? undefined : ClusterVersion.decode(new Uint8Array(version));
  }
}

/** Voters and learners by ascending id, from the rows of the table `members` in the order of their keys. */
export function confStateFrom(rows: Iterable<Row>): ConfState {
  return confStateOf(Array.from(rows, decodeRow).filter(({ isRemoved }) => !isRemoved));
}

/** Where the rows of the table begin, for {@link confStateFrom}. */
export const lowestId: Uint8Array = new Uint8Array(8);

/** What the table holds for a member. */
export function recordOf(member: ClusterMember): MemberRecord {
  const { peerUrls, clientUrls } = member;
  return MemberRecord.create({ ...member, peerUrls: [...peerUrls], clientUrls: [...clientUrls] });
}

function confStateOf(members: readonly ClusterMember[]): ConfState {
  return {
    voters: members.filter(({ isLearner }) => !isLearner).map(({ id }) => id),
    learners: members.filter(({ isLearner }) => isLearner).map(({ id }) => id),
  };
}

function decodeRow({ value }: Row): MemberRecord {
  return MemberRecord.decode(new Uint8Array(value));
}

const clusterVersionRow = new TextEncoder().encode('clusterVersion');

function idBytes(id: MemberId): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, id);
  return bytes;
}
