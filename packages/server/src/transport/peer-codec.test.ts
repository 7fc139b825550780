import type { Entry, PeerMessage } from '@conclave/raft';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { PeerFrame, PeerMethod, PeerPacket } from '../replica/ports.ts';
import { PeerFormatError } from './binary.ts';
import { decodePacket, encodePacket, packetBytes } from './peer-codec.ts';

// One arbitrary for every type of message, kind of frame and method there is: a new one does not compile until it stands here, and a new field does
// not compile until it is made up here, and does not come back until the codec carries it.

const number = fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 127, 128, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1));
const id = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const bytes = fc.uint8Array({ maxLength: 40 });
const flag = fc.boolean();
const entryType = fc.constantFrom('normal' as const, 'confChange' as const);
const snapshot = fc.record({
  index: number,
  term: number,
  confState: fc.record({ voters: fc.array(id, { maxLength: 4 }), learners: fc.array(id, { maxLength: 4 }) }),
});

const from = 1n;
const to = 2n;
const envelope = { from: fc.constant(from), to: fc.constant(to), term: number };
const vote = { ...envelope, lastLogIndex: number, lastLogTerm: number, leadershipTransfer: flag, commitIndex: number, commitTerm: number };
const voteResponse = { ...envelope, granted: flag, commitIndex: number, commitTerm: number };
const messages: { readonly [T in PeerMessage['type']]: fc.Arbitrary<PeerMessage & { readonly type: T }> } = {
  requestPreVote: fc.record({ type: fc.constant('requestPreVote' as const), ...vote }),
  requestVote: fc.record({ type: fc.constant('requestVote' as const), ...vote }),
  requestPreVoteResponse: fc.record({ type: fc.constant('requestPreVoteResponse' as const), ...voteResponse }),
  requestVoteResponse: fc.record({ type: fc.constant('requestVoteResponse' as const), ...voteResponse }),
  appendEntries: fc
    .record({
      ...envelope,
      type: fc.constant('appendEntries' as const),
      prevLogIndex: fc.nat(),
      prevLogTerm: number,
      leaderCommit: number,
      entries: fc.array(fc.record({ type: entryType, term: number, data: bytes }), { maxLength: 4 }),
    })
    .map((append) => ({ ...append, entries: numbered(append.prevLogIndex, append.entries) })),
  appendEntriesResponse: fc.record({
    ...envelope,
    type: fc.constant('appendEntriesResponse' as const),
    index: number,
    rejected: flag,
    hintIndex: number,
    hintTerm: number,
  }),
  heartbeat: fc.record({ ...envelope, type: fc.constant('heartbeat' as const), leaderCommit: number, round: number }),
  commit: fc.record({ ...envelope, type: fc.constant('commit' as const), leaderCommit: number }),
  heartbeatResponse: fc.record({ ...envelope, type: fc.constant('heartbeatResponse' as const), round: number }),
  installSnapshot: fc.record({ ...envelope, type: fc.constant('installSnapshot' as const), snapshot }),
  timeoutNow: fc.record({ ...envelope, type: fc.constant('timeoutNow' as const) }),
  propose: fc.record({
    ...envelope,
    type: fc.constant('propose' as const),
    incarnation: number,
    sequence: number,
    entries: fc.array(fc.record({ type: entryType, data: bytes }), { maxLength: 4 }),
  }),
  readIndex: fc.record({ ...envelope, type: fc.constant('readIndex' as const), incarnation: number, sequence: number }),
  readIndexResponse: fc.record({
    ...envelope,
    type: fc.constant('readIndexResponse' as const),
    incarnation: number,
    sequence: number,
    index: number,
  }),
};

function numbered(prevLogIndex: number, entries: readonly Omit<Entry, 'index'>[]): Entry[] {
  return entries.map((entry, at) => ({ ...entry, index: prevLogIndex + 1 + at }));
}

const methodSet: Readonly<Record<PeerMethod, true>> = {
  leaseRenew: true,
  leaseTimeToLive: true,
  hashKv: true,
  memberPromote: true,
  moveLeader: true,
};
const method = fc.constantFrom(...(Object.keys(methodSet) as PeerMethod[]));

const frames: { readonly [K in PeerFrame['kind']]: fc.Arbitrary<PeerFrame & { readonly kind: K }> } = {
  raft: fc.record({ kind: fc.constant('raft' as const), message: fc.oneof<fc.Arbitrary<PeerMessage>[]>(...Object.values(messages)) }),
  snapshotChunk: fc.record({
    kind: fc.constant('snapshotChunk' as const),
    term: number,
    snapshot,
    id: number,
    sequence: number,
    isLast: flag,
    bytes,
  }),
  snapshotAck: fc.record({ kind: fc.constant('snapshotAck' as const), term: number, id: number, next: number, isRefused: flag }),
  call: fc.record({ kind: fc.constant('call' as const), id: number, method, body: bytes }),
  answer: fc.record({ kind: fc.constant('answer' as const), id: number, error: fc.string({ unit: 'grapheme' }), body: bytes }),
  removed: fc.constant({ kind: 'removed' as const }),
};

const packet: fc.Arbitrary<PeerPacket> = fc.record({
  from: fc.constant(from),
  to: fc.constant(to),
  incarnation: number,
  durableIndex: number,
  commitIndex: number,
  frames: fc.array(fc.oneof<fc.Arbitrary<PeerFrame>[]>(...Object.values(frames)), { maxLength: 5 }),
});

/** Views and buffers as plain arrays of bytes. */
function plain(value: PeerPacket): unknown {
  return JSON.parse(
    JSON.stringify(value, (_key, field: unknown) => {
      if (typeof field === 'bigint') return `${field}n`;
      return ArrayBuffer.isView(field) ? [...(field as Uint8Array)] : field;
    }),
  );
}

function packetOf(...list: PeerFrame[]): PeerPacket {
  return { from, to, incarnation: 3, durableIndex: 4, commitIndex: 5, frames: list };
}

function appendOf(entries: readonly Entry[], prevLogIndex: number): PeerFrame {
  return { kind: 'raft', message: { type: 'appendEntries', from, to, term: 7, prevLogIndex, prevLogTerm: 6, leaderCommit: 5, entries } };
}

function comesBack(sent: PeerPacket): void {
  expect(encodePacket(sent).length).toBeLessThanOrEqual(packetBytes(sent));
  expect(plain(decodePacket(encodePacket(sent)))).toEqual(plain(sent));
}

describe('a packet', () => {
  test.each(Object.entries<fc.Arbitrary<PeerFrame>>(frames))('with a frame %s comes back as it went', (_kind, frame) => {
    fc.assert(fc.property(frame, (one) => comesBack(packetOf(one))));
  });

  test.each(Object.entries<fc.Arbitrary<PeerMessage>>(messages))('with a message %s comes back as it went', (_type, message) => {
    fc.assert(fc.property(message, (one) => comesBack(packetOf({ kind: 'raft', message: one }))));
  });

  test('with many frames comes back as it went', () => {
    fc.assert(fc.property(packet, comesBack));
  });

  test('comes back with ids of any 64 bits', () => {
    fc.assert(fc.property(id, id, (a, b) => comesBack({ ...packetOf({ kind: 'removed' }), from: a, to: b })));
  });

  test('is small: a heartbeat takes 40 bytes', () => {
    const sent = packetOf({
      kind: 'raft',
      message: { type: 'heartbeat', from, to, term: 7, leaderCommit: 1_000_000, round: 1_000_000 },
    });
    expect(encodePacket({ ...sent, durableIndex: 1_000_000, commitIndex: 1_000_000 }).length).toBeLessThanOrEqual(40);
  });

  test('gives views of its bytes, not copies', () => {
    const sent = packetOf(appendOf([{ type: 'normal', index: 11, term: 7, data: new Uint8Array(100_000).fill(9) }], 10));
    const encoded = encodePacket(sent);
    const frame = decodePacket(encoded).frames[0];
    if (frame?.kind !== 'raft' || frame.message.type !== 'appendEntries') throw new Error('an append was expected');
    const data = frame.message.entries[0]?.data;
    expect(data?.buffer).toBe(encoded.buffer);
    expect(data).toHaveLength(100_000);
  });

  test('keeps its bytes while later ones are written', () => {
    fc.assert(
      fc.property(fc.array(packet, { minLength: 2, maxLength: 20 }), (packets) => {
        const encoded = packets.map((one) => encodePacket(one));
        expect(encoded.map((one) => plain(decodePacket(one)))).toEqual(packets.map(plain));
      }),
      { numRuns: 50 },
    );
  });

  test('cut anywhere is refused', () => {
    fc.assert(
      fc.property(packet, (sent) => {
        const encoded = encodePacket(sent);
        for (let length = 0; length < encoded.length; length += 1) {
          expect(() => decodePacket(encoded.subarray(0, length))).toThrow(PeerFormatError);
        }
      }),
      { numRuns: 50 },
    );
  });

  test('with something behind it is refused', () => {
    expect(() => decodePacket(Buffer.concat([encodePacket(packetOf({ kind: 'removed' })), Buffer.of(0)]))).toThrow(PeerFormatError);
  });

  test('with any bit flipped is a packet or refused, and nothing else', () => {
    fc.assert(
      fc.property(packet, (sent) => {
        const encoded = encodePacket(sent);
        for (let bit = 0; bit < encoded.length * 8; bit += 1) {
          const damaged = Uint8Array.from(encoded);
          damaged[bit >> 3]! ^= 1 << (bit & 7);
          packetOrRefused(damaged);
        }
      }),
      { numRuns: 30 },
    );
  });

  test('of any bytes behind its head is a packet or refused, and nothing else', () => {
    const head = encodePacket(packetOf()).subarray(0, -1);
    const tail = fc.tuple(fc.nat({ max: 8 }), fc.nat({ max: 8 }), fc.nat({ max: 14 }), fc.uint8Array({ maxLength: 60 }));
    const build = ([count, kind, type, rest]: [number, number, number, Uint8Array]): void =>
      packetOrRefused(Buffer.concat([head, Buffer.of(count, kind, type), rest]));
    fc.assert(fc.property(tail, build), { numRuns: 3_000 });
  });

  test('of another version is refused', () => {
    const encoded = Uint8Array.from(encodePacket(packetOf()));
    encoded[0] = 2;
    expect(() => decodePacket(encoded)).toThrow('format version 2');
  });

  test('whose number exceeds 2^53-1 is refused', () => {
    const encoded = encodePacket({ ...packetOf(), incarnation: 2 ** 53 - 1 });
    const damaged = Uint8Array.from(encoded);
    expect(damaged[17 + 7]).toBe(0x0f);
    damaged[17 + 7] = 0x10;
    expect(() => decodePacket(damaged)).toThrow('a number exceeds 2^53-1');
    damaged.fill(0xff, 17);
    expect(() => decodePacket(damaged)).toThrow('a number exceeds 2^53-1');
  });

  test('whose entries pass index 2^53-1 is refused', () => {
    const last = 2 ** 53 - 1;
    const encoded = encodePacket(packetOf(appendOf([{ type: 'normal', index: last, term: 7, data: new Uint8Array() }], last - 1)));
    const damaged = Uint8Array.from(encoded);
    const at = damaged.indexOf(0xfe);
    damaged[at] = 0xff;
    expect(() => decodePacket(damaged)).toThrow('an index exceeds 2^53-1');
  });

  test('that promises more entries than any packet has is refused before room is made for them', () => {
    const head = encodePacket(packetOf(appendOf([], 10)));
    const count = [0xff, 0xff, 0x7f];
    expect(() => decodePacket(Buffer.concat([head.subarray(0, -1), Buffer.from(count), Buffer.alloc(3 * 2 ** 21)]))).toThrow(
      'is longer than',
    );
  });
});

describe('a packet that cannot be', () => {
  test('is not sent: entries with a gap, a message of somebody else, numbers that are none', () => {
    const gap = [{ type: 'normal', index: 12, term: 1, data: new Uint8Array() }] as const;
    expect(() => encodePacket(packetOf(appendOf(gap, 10)))).toThrow(RangeError);
    expect(() => encodePacket({ ...packetOf(appendOf([], 10)), from: 3n })).toThrow(RangeError);
    for (const incarnation of [-1, 0.5, 2 ** 53, Number.NaN])
      expect(() => encodePacket({ ...packetOf(), incarnation })).toThrow(RangeError);
  });

  test('leaves nothing behind in the next one', () => {
    expect(() => encodePacket({ ...packetOf(), commitIndex: -1 })).toThrow(RangeError);
    expect(plain(decodePacket(encodePacket(packetOf())))).toEqual(plain(packetOf()));
  });
});

function packetOrRefused(any: Uint8Array): void {
  try {
    decodePacket(any);
  } catch (error) {
    expect(error).toBeInstanceOf(PeerFormatError);
  }
}
