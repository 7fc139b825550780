/**
 * How a connection between members begins. The side that dialled says hello, and what the connection is for; the other side says welcome, or why
 * not, and ends it. Both are bodies of frames. What somebody else may have sent (HTTP, TLS, anything) is no frame of this size.
 *
 * There is no encryption and no proof of who is there: the network between the members is trusted. The ids in a hello protect from mistakes
 * (a member of another cluster, an address given to somebody else), not from intruders.
 */
import type { MemberId } from '@conclave/raft';
import { BinaryReader, type BinaryWriter, PeerFormatError } from './binary.ts';
import type { ClusterDescription, MemberDescription } from './network.ts';

/**
 * Raised when frames change. Kinds and types within packets are gated by the cluster version instead. Hello and welcome may grow at their end, and
 * keep what they have: two versions understand each other well enough to part with a reason.
 */
const protocolVersion = 1;
const magic = 0x636e_636c_7665_7072n;

/** No hello and no welcome is longer. */
export const handshakeBytesMax = 64;
/** A description of a cluster is not longer. */
export const descriptionBytesMax: number = 1024 * 1024;
const membersMax = 1024;
const urlsMax = 64;

const purposes = ['control', 'bulk', 'describe'] as const;
/** A lane for packets, or the question to which cluster the member belongs. */
export type Purpose = (typeof purposes)[number];

const verdicts = ['welcome', 'anotherVersion', 'anotherCluster', 'anotherMember', 'full'] as const;
export type Verdict = (typeof verdicts)[number];

export interface Hello {
  readonly version: number;
  readonly purpose: Purpose;
  /** 0, as the ids, where the purpose is `describe`. */
  readonly clusterId: bigint;
  readonly from: MemberId;
  /** Whom the dialler means to reach. */
  readonly to: MemberId;
}

export interface Welcome {
  readonly version: number;
  readonly verdict: Verdict;
  /** Of the side that was dialled. */
  readonly clusterId: bigint;
  readonly member: MemberId;
}

export function writeHello(writer: BinaryWriter, hello: Omit<Hello, 'version'>): void {
  writer.id(magic);
  writer.byte(protocolVersion);
  writer.byte(purposes.indexOf(hello.purpose));
  writer.id(hello.clusterId);
  writer.id(hello.from);
  writer.id(hello.to);
}

/** @throws PeerFormatError */
export function readHello(body: Uint8Array): Hello {
  const reader = opened(body);
  const hello: Hello = {
    version: reader.byte(),
    purpose: named(purposes, reader.byte()),
    clusterId: reader.id(),
    from: reader.id(),
    to: reader.id(),
  };
  return hello;
}

export function writeWelcome(writer: BinaryWriter, welcome: Omit<Welcome, 'version'>): void {
  writer.id(magic);
  writer.byte(protocolVersion);
  writer.byte(verdicts.indexOf(welcome.verdict));
  writer.id(welcome.clusterId);
  writer.id(welcome.member);
}

/** @throws PeerFormatError */
export function readWelcome(body: Uint8Array): Welcome {
  const reader = opened(body);
  const welcome: Welcome = {
    version: reader.byte(),
    verdict: named(verdicts, reader.byte()),
    clusterId: reader.id(),
    member: reader.id(),
  };
  return welcome;
}

/** What the member `self` of the cluster answers to a hello. */
export function verdictOn(hello: Hello, self: MemberId, clusterId: bigint): Verdict {
  if (hello.version !== protocolVersion) return 'anotherVersion';
  if (hello.purpose === 'describe') return 'welcome';
  if (hello.clusterId !== clusterId) return 'anotherCluster';
  return hello.to === self && hello.from !== self ? 'welcome' : 'anotherMember';
}

function opened(body: Uint8Array): BinaryReader {
  const reader = new BinaryReader(body);
  if (reader.id() !== magic) throw new PeerFormatError('this is not spoken between members');
  return reader;
}

function named<T>(names: readonly T[], at: number): T {
  const name = names[at];
  if (name === undefined) throw new PeerFormatError(`a handshake has ${at} where this program knows less than ${names.length}`);
  return name;
}

export function writeDescription(writer: BinaryWriter, { clusterId, members }: ClusterDescription): void {
  writer.id(clusterId);
  writer.count(membersMax, members.length);
  for (const { id, name, peerUrls, clientUrls, isLearner } of members) {
    writer.id(id);
    writer.text(name);
    for (const urls of [peerUrls, clientUrls]) {
      writer.count(urlsMax, urls.length);
      for (const url of urls) writer.text(url);
    }
    writer.flag(isLearner);
  }
}

/** @throws PeerFormatError */
export function readDescription(body: Uint8Array): ClusterDescription {
  const reader = new BinaryReader(body);
  const readUrls = (): string[] => reader.list(urlsMax, () => reader.text());
  const readMember = (): MemberDescription => ({
    id: reader.id(),
    name: reader.text(),
    peerUrls: readUrls(),
    clientUrls: readUrls(),
    isLearner: reader.flag(),
  });
  const description: ClusterDescription = { clusterId: reader.id(), members: reader.list(membersMax, readMember) };
  reader.end();
  return description;
}
