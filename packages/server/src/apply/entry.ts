/**
 * What a normal log entry holds, and the context of one that changes the members: one request, as every member will apply it (docs/decisions: one
 * request, one entry).
 *
 * Layout, all integers big endian, no padding:
 *
 * ```
 *  0  u8   format version, 1
 *  1  u8   kind
 *  2  u16  reserved, 0
 *  4  u32  length of the user name in bytes
 *  8  u64  member that received the request; its waiter answers the client
 * 16  u64  epoch: drawn at random each time that member starts
 * 24  u64  counter within the epoch
 * 32  u64  raft term the member was in when it proposed
 * 40  u64  auth revision the permission was checked at
 * 48  ..   user name, UTF-8; empty without authentication
 *     ..   the request as received, an etcdserverpb message, or what a server has to say, a conclavepb message; its type follows from the kind
 * ```
 *
 * (member, epoch, counter) is the request id. A member that restarts replays entries of its own earlier life: another epoch keeps them from
 * answering requests of this one. There is no field for the proposing member: followers forward entries as encoded, so it is `member`.
 *
 * The log outlives the program. A version or kind that is unknown here was written by a newer one, and skipping it would make this member
 * compute another state than its peers: {@link EntryFormatError} halts the member.
 */

/**
 * The kinds of request that go through the log: their numbers in the format, from 1 on, without a gap, never reused, and the entry version that
 * brought each. A cluster gets no entry of a version that one of its members does not know.
 */
const kinds = {
  put: { number: 1, since: 1 },
  deleteRange: { number: 2, since: 1 },
  txn: { number: 3, since: 1 },
  compaction: { number: 4, since: 1 },
  leaseGrant: { number: 5, since: 1 },
  leaseRevoke: { number: 6, since: 1 },
  memberAdd: { number: 7, since: 1 },
  memberPromote: { number: 8, since: 1 },
  memberRemove: { number: 9, since: 1 },
  memberUpdate: { number: 10, since: 1 },
  memberPublish: { number: 11, since: 1 },
  clusterVersion: { number: 12, since: 1 },
  alarm: { number: 13, since: 2 },
} as const;

/**
 * The request message follows from it: `put` carries a PutRequest, and so on. `memberAdd` carries a MemberAddition, as the member that was asked has
 * chosen an id; `memberPublish` a MemberPublication.
 */
export type RequestKind = keyof typeof kinds;

/** Those that change who the members are. They travel as the context of a confChange entry, the others as normal entries. */
export type MembershipKind = 'memberAdd' | 'memberPromote' | 'memberRemove' | 'memberUpdate';

/** The entry version of this program: it can apply every kind up to it. */
export const entryVersion = 2;

/** What may be proposed before the members have agreed on more. */
export const firstEntryVersion = 1;

/** The entry version that brought a kind: below it nobody can apply it. */
export function versionOf(kind: RequestKind): number {
  return kinds[kind].since;
}

/** By number. */
const kindNames: readonly (RequestKind | undefined)[] = [undefined, ...(Object.keys(kinds) as RequestKind[])];

/** A client's request on its way through the log. */
export interface LoggedRequest {
  readonly kind: RequestKind;
  /** The member that received the request. */
  readonly member: bigint;
  /** 0 to 2^53-1. */
  readonly epoch: number;
  /** 0 to 2^53-1. */
  readonly counter: number;
  /** Raft term of the member when it proposed. A lease revoke that is applied in a later term fails. */
  readonly term: number;
  /** Who asks; empty without authentication. */
  readonly user: string;
  /** Auth revision at which the permission was checked. */
  readonly authRevision: number;
  /** The request message, encoded. After decoding it is a view of the entry: valid as long as that is not changed. */
  readonly body: Uint8Array;
}

/** An entry that this program cannot apply. Fatal for the member. */
export class EntryFormatError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'EntryFormatError';
  }
}

const formatVersion = 1;
const headerBytes = 48;
const twoTo32 = 2 ** 32;

const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const noUser = new Uint8Array(0);

/** The entry's bytes. They may share their buffer with other entries'. @throws RangeError for a number outside 0 to 2^53-1. */
export function encodeEntry(request: LoggedRequest): Uint8Array {
  const user = request.user === '' ? noUser : textEncoder.encode(request.user);
  const bytes = allocate(headerBytes + user.length + request.body.length);
  const { high, low } = wordsOf(request.member);
  bytes[0] = formatVersion;
  bytes[1] = kinds[request.kind].number;
  writeWord(bytes, 4, user.length);
  writeWord(bytes, 8, high);
  writeWord(bytes, 12, low);
  writeNumber(bytes, 16, request.epoch);
  writeNumber(bytes, 24, request.counter);
  writeNumber(bytes, 32, request.term);
  writeNumber(bytes, 40, request.authRevision);
  bytes.set(user, headerBytes);
  bytes.set(request.body, headerBytes + user.length);
  return bytes;
}

/** @throws EntryFormatError when this program cannot know what the entry means. */
export function decodeEntry(bytes: Uint8Array): LoggedRequest {
  if (bytes.length < headerBytes) throw new EntryFormatError(`entry of ${bytes.length} bytes is shorter than its header`);
  if (bytes[0] !== formatVersion) throw new EntryFormatError(`entry has format version ${bytes[0]}, this program knows ${formatVersion}`);
  const kind = kindNames[bytes[1]!];
  if (kind === undefined) throw new EntryFormatError(`entry has kind ${bytes[1]}, which this program does not know`);
  if (bytes[2] !== 0 || bytes[3] !== 0) throw new EntryFormatError(`entry has reserved bits set: ${bytes[2]} ${bytes[3]}`);
  const bodyStart = headerBytes + readWord(bytes, 4);
  if (bodyStart > bytes.length) throw new EntryFormatError(`entry of ${bytes.length} bytes ends inside its user name`);
  return {
    kind,
    member: memberOf(readWord(bytes, 8), readWord(bytes, 12)),
    epoch: readNumber(bytes, 16, 'epoch'),
    counter: readNumber(bytes, 24, 'counter'),
    term: readNumber(bytes, 32, 'term'),
    user: readUser(bytes, bodyStart),
    authRevision: readNumber(bytes, 40, 'auth revision'),
    body: bytes.subarray(bodyStart),
  };
}

function readUser(bytes: Uint8Array, end: number): string {
  if (end === headerBytes) return '';
  try {
    return textDecoder.decode(bytes.subarray(headerBytes, end));
  } catch (cause) {
    throw new EntryFormatError(`user name of the entry is not UTF-8: ${String(cause)}`);
  }
}

function writeNumber(bytes: Uint8Array, offset: number, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} does not fit an entry's 53-bit field`);
  writeWord(bytes, offset, Math.floor(value / twoTo32));
  writeWord(bytes, offset + 4, value);
}

function readNumber(bytes: Uint8Array, offset: number, name: string): number {
  const value = readWord(bytes, offset) * twoTo32 + readWord(bytes, offset + 4);
  if (value > Number.MAX_SAFE_INTEGER) throw new EntryFormatError(`${name} of the entry exceeds 2^53-1`);
  return value;
}

// Bytes one by one, and ids by the last one seen: a DataView and a bigint made for every entry cost more than all the rest of the header.

/** The low 32 bits of a whole number. */
function writeWord(bytes: Uint8Array, offset: number, value: number): void {
  const word = (value % twoTo32) | 0;
  bytes[offset] = word >>> 24;
  bytes[offset + 1] = word >>> 16;
  bytes[offset + 2] = word >>> 8;
  bytes[offset + 3] = word;
}

function readWord(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0;
}

let lastMember = { id: 0n, high: 0, low: 0 };

function wordsOf(id: bigint): { readonly high: number; readonly low: number } {
  if (lastMember.id !== id) lastMember = { id, high: Number(id >> 32n), low: Number(id & 0xffffffffn) };
  return lastMember;
}

function memberOf(high: number, low: number): bigint {
  if (lastMember.high !== high || lastMember.low !== low) lastMember = { id: (BigInt(high) << 32n) | BigInt(low), high, low };
  return lastMember.id;
}

/** Small entries are cut from a common buffer, which is zero and never used twice: a buffer of its own for each costs more than its encoding. */
const slabBytes = 64 * 1024;
const maxSharedBytes = 4 * 1024;
let slab = new Uint8Array(0);
let slabUsed = 0;

function allocate(length: number): Uint8Array {
  if (length > maxSharedBytes) return new Uint8Array(length);
  if (slabUsed + length > slab.length) {
    slab = new Uint8Array(slabBytes);
    slabUsed = 0;
  }
  slabUsed += length;
  return slab.subarray(slabUsed - length, slabUsed);
}
