/**
 * What a normal log entry holds: one client request, as every member will apply it (docs/decisions: one request, one entry).
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
 *     ..   the request as received, an etcdserverpb message; its type follows from the kind
 * ```
 *
 * (member, epoch, counter) is the request id. A member that restarts replays entries of its own earlier life: another epoch keeps them from
 * answering requests of this one. There is no field for the proposing member: followers forward entries as encoded, so it is `member`.
 *
 * The log outlives the program. A version or kind that is unknown here was written by a newer one, and skipping it would make this member
 * compute another state than its peers: {@link EntryFormatError} halts the member.
 */

/** The kinds of request that go through the log, by their number in the format. Numbers are never reused. */
const kindNumbers = { put: 1, deleteRange: 2, txn: 3, compaction: 4, leaseGrant: 5, leaseRevoke: 6 } as const;

/** The request message follows from it: `put` carries a PutRequest, and so on. */
export type RequestKind = keyof typeof kindNumbers;

const kindNames: ReadonlyMap<number, RequestKind> = new Map(
  Object.entries(kindNumbers).map(([name, number]) => [number, name as RequestKind] as const),
);

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

/** The entry's bytes. @throws RangeError for a number outside 0 to 2^53-1. */
export function encodeEntry(request: LoggedRequest): Uint8Array {
  const user = request.user === '' ? noUser : textEncoder.encode(request.user);
  const bytes = new Uint8Array(headerBytes + user.length + request.body.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, formatVersion);
  view.setUint8(1, kindNumbers[request.kind]);
  view.setUint32(4, user.length);
  view.setBigUint64(8, request.member);
  writeNumber(view, 16, request.epoch);
  writeNumber(view, 24, request.counter);
  writeNumber(view, 32, request.term);
  writeNumber(view, 40, request.authRevision);
  bytes.set(user, headerBytes);
  bytes.set(request.body, headerBytes + user.length);
  return bytes;
}

/** @throws EntryFormatError when this program cannot know what the entry means. */
export function decodeEntry(bytes: Uint8Array): LoggedRequest {
  if (bytes.length < headerBytes) throw new EntryFormatError(`entry of ${bytes.length} bytes is shorter than its header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint8(0);
  if (version !== formatVersion) throw new EntryFormatError(`entry has format version ${version}, this program knows ${formatVersion}`);
  const kind = kindNames.get(view.getUint8(1));
  if (kind === undefined) throw new EntryFormatError(`entry has kind ${view.getUint8(1)}, which this program does not know`);
  if (view.getUint16(2) !== 0) throw new EntryFormatError(`entry has reserved bits set: ${view.getUint16(2)}`);
  const bodyStart = headerBytes + view.getUint32(4);
  if (bodyStart > bytes.length) throw new EntryFormatError(`entry of ${bytes.length} bytes ends inside its user name`);
  return {
    kind,
    member: view.getBigUint64(8),
    epoch: readNumber(view, 16, 'epoch'),
    counter: readNumber(view, 24, 'counter'),
    term: readNumber(view, 32, 'term'),
    user: readUser(bytes, bodyStart),
    authRevision: readNumber(view, 40, 'auth revision'),
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

function writeNumber(view: DataView, offset: number, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} does not fit an entry's 53-bit field`);
  view.setUint32(offset, Math.floor(value / twoTo32));
  view.setUint32(offset + 4, value % twoTo32);
}

function readNumber(view: DataView, offset: number, name: string): number {
  const value = view.getUint32(offset) * twoTo32 + view.getUint32(offset + 4);
  if (value > Number.MAX_SAFE_INTEGER) throw new EntryFormatError(`${name} of the entry exceeds 2^53-1`);
  return value;
}
