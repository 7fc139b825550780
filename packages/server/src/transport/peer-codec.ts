/**
 * Peer packets as bytes. Numbers are varints, ids eight bytes little endian, byte strings and lists have their length before them.
 *
 * ```
 * u8      format version, 1
 * id id   from, to
 * number  incarnation, durableIndex, commitIndex
 * list    of frames: u8 kind, then its fields in the order of their declaration
 * ```
 *
 * A raft message in a frame is u8 type, its term, and its other fields in the order of their declaration. Nobody speaks for another member, so its
 * `from` and `to` are the packet's, and the index of an entry in an append follows from `prevLogIndex`.
 *
 * Numbers of kinds, types and methods are never reused. What a receiver does not know it refuses: a member sends new ones only once the cluster
 * version says that all understand them.
 */
import type { AppendEntries, ConfState, Entry, EntryType, MemberId, PeerMessage, SnapshotMeta } from '@conclave/raft';
import type { PeerFrame, PeerMethod, PeerPacket } from '../replica/ports.ts';
import { BinaryReader, BinaryWriter, PeerFormatError } from './binary.ts';

const formatVersion = 1;

const frameKinds = { raft: 1, snapshotChunk: 2, snapshotAck: 3, call: 4, answer: 5, removed: 6 } as const satisfies Record<
  PeerFrame['kind'],
  number
>;

const messageTypes = {
  requestPreVote: 1,
  requestPreVoteResponse: 2,
  requestVote: 3,
  requestVoteResponse: 4,
  appendEntries: 5,
  appendEntriesResponse: 6,
  heartbeat: 7,
  heartbeatResponse: 8,
  installSnapshot: 9,
  timeoutNow: 10,
  propose: 11,
  readIndex: 12,
  readIndexResponse: 13,
  commit: 14,
} as const satisfies Record<PeerMessage['type'], number>;

const entryTypes = { normal: 0, confChange: 1 } as const satisfies Record<EntryType, number>;

const methods = { leaseRenew: 1, leaseTimeToLive: 2, hashKv: 3, memberPromote: 4, moveLeader: 5 } as const satisfies Record<
  PeerMethod,
  number
>;

const kindOf = namesOf(frameKinds);
const messageTypeOf = namesOf(messageTypes);
const entryTypeOf = namesOf(entryTypes);
const methodOf = namesOf(methods);

/** Objects are larger than the bytes they come from: a packet is refused before it becomes many times its size. */
const entriesMax = 2 ** 18;
const framesMax = 2 ** 16;
const membersMax = 2 ** 10;

/** The packet in one piece. It may share its buffer with other packets'. @throws RangeError for what no packet can carry */
export function encodePacket(packet: PeerPacket): Uint8Array {
  try {
    writePacket(writer, packet);
  } catch (error) {
    writer.take();
    throw error;
  }
  const parts = writer.take();
  return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
}

const writer: BinaryWriter = new BinaryWriter();

/** The data of entries, and all other byte strings, are views of `bytes`. @throws PeerFormatError for anything but a packet */
export function decodePacket(bytes: Uint8Array): PeerPacket {
  const reader = new BinaryReader(bytes);
  const version = reader.byte();
  if (version !== formatVersion) throw new PeerFormatError(`a packet has format version ${version}, this program knows ${formatVersion}`);
  const from = reader.id();
  const to = reader.id();
  const packet: PeerPacket = {
    from,
    to,
    incarnation: reader.number(),
    durableIndex: reader.number(),
    commitIndex: reader.number(),
    frames: reader.list(framesMax, () => readFrame(reader, from, to)),
  };
  reader.end();
  return packet;
}

/** As {@link encodePacket}, in place. */
export function writePacket(writer: BinaryWriter, packet: PeerPacket): void {
  const { from, to, frames } = packet;
  writer.byte(formatVersion);
  writer.id(from);
  writer.id(to);
  writer.number(packet.incarnation);
  writer.number(packet.durableIndex);
  writer.number(packet.commitIndex);
  writer.count(framesMax, frames.length);
  for (const frame of frames) writeFrame(writer, frame, from, to);
}

/** The most that a packet takes, encoded: near the truth, and cheap to know. */
export function packetBytes(packet: PeerPacket): number {
  let bytes = packetOverhead;
  for (const frame of packet.frames) bytes += frameBytes(frame);
  return bytes;
}

/** As {@link packetBytes}, of a frame alone. */
export function frameBytes(frame: PeerFrame): number {
  switch (frame.kind) {
    case 'raft':
      return frameOverhead + messageBytes(frame.message);
    case 'snapshotChunk':
      return frameOverhead + snapshotBytes(frame.snapshot) + frame.bytes.length;
    case 'call':
      return frameOverhead + frame.body.length;
    case 'answer':
      return frameOverhead + 3 * frame.error.length + frame.body.length;
    case 'snapshotAck':
    case 'removed':
      return frameOverhead;
  }
}

/** Numbers take 8 bytes at most. */
const packetOverhead = 48;
const frameOverhead = 64;
const entryOverhead = 17;

function messageBytes(message: PeerMessage): number {
  switch (message.type) {
    case 'appendEntries':
    case 'propose': {
      let bytes = 0;
      for (const { data } of message.entries) bytes += entryOverhead + data.length;
      return bytes;
    }
    case 'installSnapshot':
      return snapshotBytes(message.snapshot);
    default:
      return 0;
  }
}

function snapshotBytes({ confState }: SnapshotMeta): number {
  return 32 + 8 * (confState.voters.length + confState.learners.length);
}

// ---- frames ---------------------------------------------------------------------------------------------------------------------------

function writeFrame(writer: BinaryWriter, frame: PeerFrame, from: MemberId, to: MemberId): void {
  writer.byte(frameKinds[frame.kind]);
  switch (frame.kind) {
    case 'raft':
      if (frame.message.from !== from || frame.message.to !== to)
        throw new RangeError(`a ${frame.message.type} in another member's packet`);
      writeMessage(writer, frame.message);
      return;
    case 'snapshotChunk':
      writer.number(frame.term);
      writeSnapshot(writer, frame.snapshot);
      writer.number(frame.id);
      writer.number(frame.sequence);
      writer.flag(frame.isLast);
      writer.data(frame.bytes);
      return;
    case 'snapshotAck':
      writer.number(frame.term);
      writer.number(frame.id);
      writer.number(frame.next);
      writer.flag(frame.isRefused);
      return;
    case 'call':
      writer.number(frame.id);
      writer.byte(methods[frame.method]);
      writer.data(frame.body);
      return;
    case 'answer':
      writer.number(frame.id);
      writer.text(frame.error);
      writer.data(frame.body);
      return;
    case 'removed':
      return;
    default:
      frame satisfies never;
  }
}

function readFrame(reader: BinaryReader, from: MemberId, to: MemberId): PeerFrame {
  const kind = nameOf(kindOf, reader.byte(), 'frame kind');
  switch (kind) {
    case 'raft':
      return { kind, message: readMessage(reader, from, to) };
    case 'snapshotChunk':
      return {
        kind,
        term: reader.number(),
        snapshot: readSnapshot(reader),
        id: reader.number(),
        sequence: reader.number(),
        isLast: reader.flag(),
        bytes: reader.data(),
      };
    case 'snapshotAck':
      return { kind, term: reader.number(), id: reader.number(), next: reader.number(), isRefused: reader.flag() };
    case 'call':
      return { kind, id: reader.number(), method: nameOf(methodOf, reader.byte(), 'method'), body: reader.data() };
    case 'answer':
      return { kind, id: reader.number(), error: reader.text(), body: reader.data() };
    case 'removed':
      return { kind };
  }
}

// ---- raft messages --------------------------------------------------------------------------------------------------------------------

function writeMessage(writer: BinaryWriter, message: PeerMessage): void {
  writer.byte(messageTypes[message.type]);
  writer.number(message.term);
  switch (message.type) {
    case 'requestPreVote':
    case 'requestVote':
      writer.number(message.lastLogIndex);
      writer.number(message.lastLogTerm);
      writer.flag(message.leadershipTransfer);
      writer.number(message.commitIndex);
      writer.number(message.commitTerm);
      return;
    case 'requestPreVoteResponse':
    case 'requestVoteResponse':
      writer.flag(message.granted);
      writer.number(message.commitIndex);
      writer.number(message.commitTerm);
      return;
    case 'appendEntries':
      writeAppend(writer, message);
      return;
    case 'appendEntriesResponse':
      writer.number(message.index);
      writer.flag(message.rejected);
      writer.number(message.hintIndex);
      writer.number(message.hintTerm);
      return;
    case 'heartbeat':
      writer.number(message.leaderCommit);
      writer.number(message.round);
      return;
    case 'heartbeatResponse':
      writer.number(message.round);
      return;
    case 'commit':
      writer.number(message.leaderCommit);
      return;
    case 'installSnapshot':
      writeSnapshot(writer, message.snapshot);
      return;
    case 'timeoutNow':
      return;
    case 'propose':
      writer.number(message.incarnation);
      writer.number(message.sequence);
      writer.count(entriesMax, message.entries.length);
      for (const { type, data } of message.entries) {
        writer.byte(entryTypes[type]);
        writer.data(data);
      }
      return;
    case 'readIndex':
      writer.number(message.incarnation);
      writer.number(message.sequence);
      return;
    case 'readIndexResponse':
      writer.number(message.incarnation);
      writer.number(message.sequence);
      writer.number(message.index);
      return;
    default:
      message satisfies never;
  }
}

function readMessage(reader: BinaryReader, from: MemberId, to: MemberId): PeerMessage {
  const type = nameOf(messageTypeOf, reader.byte(), 'message type');
  const term = reader.number();
  switch (type) {
    case 'requestPreVote':
    case 'requestVote':
      return {
        type,
        from,
        to,
        term,
        lastLogIndex: reader.number(),
        lastLogTerm: reader.number(),
        leadershipTransfer: reader.flag(),
        commitIndex: reader.number(),
        commitTerm: reader.number(),
      };
    case 'requestPreVoteResponse':
    case 'requestVoteResponse':
      return { type, from, to, term, granted: reader.flag(), commitIndex: reader.number(), commitTerm: reader.number() };
    case 'appendEntries':
      return readAppend(reader, { type, from, to, term });
    case 'appendEntriesResponse':
      return {
        type,
        from,
        to,
        term,
        index: reader.number(),
        rejected: reader.flag(),
        hintIndex: reader.number(),
        hintTerm: reader.number(),
      };
    case 'heartbeat':
      return { type, from, to, term, leaderCommit: reader.number(), round: reader.number() };
    case 'commit':
      return { type, from, to, term, leaderCommit: reader.number() };
    case 'heartbeatResponse':
      return { type, from, to, term, round: reader.number() };
    case 'installSnapshot':
      return { type, from, to, term, snapshot: readSnapshot(reader) };
    case 'timeoutNow':
      return { type, from, to, term };
    case 'propose':
      return {
        type,
        from,
        to,
        term,
        incarnation: reader.number(),
        sequence: reader.number(),
        entries: reader.list(entriesMax, () => ({ type: nameOf(entryTypeOf, reader.byte(), 'entry type'), data: reader.data() })),
      };
    case 'readIndex':
      return { type, from, to, term, incarnation: reader.number(), sequence: reader.number() };
    case 'readIndexResponse':
      return { type, from, to, term, incarnation: reader.number(), sequence: reader.number(), index: reader.number() };
  }
}

function writeAppend(writer: BinaryWriter, message: AppendEntries): void {
  const { prevLogIndex, entries } = message;
  writer.number(prevLogIndex);
  writer.number(message.prevLogTerm);
  writer.number(message.leaderCommit);
  writer.count(entriesMax, entries.length);
  let index = prevLogIndex;
  for (const entry of entries) {
    index += 1;
    if (entry.index !== index) throw new RangeError(`entry ${entry.index} stands where ${index} must be`);
    writer.byte(entryTypes[entry.type]);
    writer.number(entry.term);
    writer.data(entry.data);
  }
}

function readAppend(reader: BinaryReader, head: Pick<AppendEntries, 'type' | 'from' | 'to' | 'term'>): AppendEntries {
  const prevLogIndex = reader.number();
  const prevLogTerm = reader.number();
  const leaderCommit = reader.number();
  let index = prevLogIndex;
  const entries = reader.list(entriesMax, (): Entry => {
    index += 1;
    if (index > Number.MAX_SAFE_INTEGER) throw new PeerFormatError('an index exceeds 2^53-1');
    const type = nameOf(entryTypeOf, reader.byte(), 'entry type');
    return { type, index, term: reader.number(), data: reader.data() };
  });
  return { ...head, prevLogIndex, prevLogTerm, entries, leaderCommit };
}

function writeSnapshot(writer: BinaryWriter, { index, term, confState }: SnapshotMeta): void {
  writer.number(index);
  writer.number(term);
  for (const members of [confState.voters, confState.learners]) {
    writer.count(membersMax, members.length);
    for (const member of members) writer.id(member);
  }
}

function readSnapshot(reader: BinaryReader): SnapshotMeta {
  const index = reader.number();
  const term = reader.number();
  const readMembers = (): MemberId[] => reader.list(membersMax, () => reader.id());
  const confState: ConfState = { voters: readMembers(), learners: readMembers() };
  return { index, term, confState };
}

// ---- names and their numbers ----------------------------------------------------------------------------------------------------------

function namesOf<T extends string>(numbers: Readonly<Record<T, number>>): readonly (T | undefined)[] {
  const names: (T | undefined)[] = [];
  for (const name of Object.keys(numbers) as T[]) names[numbers[name]] = name;
  return names;
}

function nameOf<T extends string>(names: readonly (T | undefined)[], number: number, what: string): T {
  const name = names[number];
  if (name === undefined) throw new PeerFormatError(`a packet has ${what} ${number}, which this program does not know`);
  return name;
}
