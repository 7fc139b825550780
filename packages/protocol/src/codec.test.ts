import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescField, type DescMessage, fromBinary, type Message, ScalarType, toBinary } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as protocol from './index.ts';
import {
  Compare,
  DecodeError,
  HashKVResponse,
  KeyValue,
  LeaseTimeToLiveResponse,
  type MessageType,
  PutRequest,
  PutResponse,
  RangeRequest,
  RequestOp,
  ResponseHeader,
  StatusResponse,
  TxnRequest,
  WatchCreateRequest,
  WatchResponse,
} from './index.ts';

// The oracle is protobuf-es, driven by the descriptors that our code was generated from.
const descriptors = readFileSync(new URL('../testdata/descriptors.bin', import.meta.url));
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const descs: DescMessage[] = [...registry.files].flatMap((file) => file.messages);

type Plain = Record<string, unknown>;

/** A MessageType of whatever message: `Init` cannot say anything useful about a message of unknown properties. */
interface AnyType extends Pick<MessageType<Plain>, 'typeName' | 'decode'> {
  create(init?: Plain): Plain;
  encode(message: Plain): Uint8Array;
}

function isMessageType(value: unknown): value is AnyType {
  return typeof value === 'object' && value !== null && 'decode' in value;
}

const exported: readonly unknown[] = Object.values(protocol);
const types = new Map(exported.filter(isMessageType).map((type) => [type.typeName, type]));

function typeOf(desc: DescMessage): AnyType {
  const type = types.get(desc.typeName);
  if (type === undefined) throw new Error(`${desc.typeName} is not exported`);
  return type;
}

/** Our property names, by position: a message has its properties in the order of its fields. */
function properties(desc: DescMessage): [field: DescField, name: string][] {
  const names = Object.keys(typeOf(desc).create());
  return desc.fields.map((field, at) => [field, names[at] as string]);
}

const is64 = (field: DescField): boolean => field.scalar === ScalarType.INT64 || field.scalar === ScalarType.UINT64;

function isId(field: DescField, name: string): boolean {
  if (!is64(field)) return false;
  return field.oneof === undefined ? typeof typeOf(field.parent).create()[name] === 'bigint' : field.name === 'lease';
}

const maxSafe = BigInt(Number.MAX_SAFE_INTEGER);
const saturate = (value: bigint): number => Number(value > maxSafe ? maxSafe : value < -maxSafe ? -maxSafe : value);

function arbitraryScalar(field: DescField, name: string, wide: boolean): fc.Arbitrary<unknown> {
  if (field.enum !== undefined) return fc.integer();
  switch (field.scalar) {
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 80 });
    case ScalarType.STRING:
      return fc.oneof(fc.string({ unit: 'binary', maxLength: 50 }), fc.string({ maxLength: 50 }));
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.UINT32:
      return fc.nat({ max: 0xffffffff });
    case ScalarType.INT64:
      if (wide || isId(field, name)) return fc.oneof(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), fc.bigInt(-300n, 300n));
      return fc.oneof(fc.maxSafeInteger(), fc.integer(), fc.nat(300));
    case ScalarType.UINT64:
      if (wide || isId(field, name)) return fc.oneof(fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(0n, 300n));
      return fc.oneof(fc.maxSafeNat(), fc.nat(), fc.nat(300));
    default:
      throw new Error(`no arbitrary for ${field.toString()}`);
  }
}

function arbitraryField(field: DescField, name: string, depth: number, wide: boolean): fc.Arbitrary<unknown> {
  const single =
    field.message === undefined
      ? arbitraryScalar(field, name, wide)
      : depth === 0
        ? undefined
        : arbitraryMessage(field.message, depth - 1, wide);
  if (field.fieldKind === 'list') return single === undefined ? fc.constant([]) : fc.array(single, { maxLength: 4 });
  if (field.message !== undefined) return single === undefined ? fc.constant(undefined) : fc.option(single, { nil: undefined });
  return single as fc.Arbitrary<unknown>;
}

/** Whole messages in our shape. With `wide`, every 64-bit field is a bigint of any size, which only the oracle accepts. */
function arbitraryMessage(desc: DescMessage, depth: number, wide = false): fc.Arbitrary<Plain> {
  const fields = properties(desc);
  const values = fc.record(Object.fromEntries(fields.map(([field, name]) => [name, arbitraryField(field, name, depth, wide)])));
  return fc.tuple(values, fc.nat()).map(([message, pick]) => {
    for (const oneof of desc.oneofs) {
      const chosen = pick % (oneof.fields.length + 1);
      for (const [field, name] of fields) if (field.oneof === oneof && oneof.fields.indexOf(field) !== chosen) message[name] = undefined;
    }
    return message;
  });
}

function toOracle(desc: DescMessage, message: Plain): ReflectMessage {
  const target = reflect(desc);
  for (const [field, name] of properties(desc)) {
    const value = message[name];
    if (value === undefined) continue;
    if (field.fieldKind === 'list') {
      const list = target.get(field);
      for (const each of value as unknown[]) {
        list.add(field.listKind === 'message' ? toOracle(field.message, each as Plain) : each);
      }
    } else if (field.message !== undefined) {
      target.set(field, toOracle(field.message, value as Plain));
    } else {
      target.set(field, is64(field) ? BigInt(value as number) : value);
    }
  }
  return target;
}

function fromOracle(desc: DescMessage, source: ReflectMessage): Plain {
  const message: Plain = {};
  for (const [field, name] of properties(desc)) {
    if (field.fieldKind === 'list') {
      message[name] = [...source.get(field)].map((each) =>
        field.listKind === 'message' ? fromOracle(field.message, each as ReflectMessage) : each,
      );
    } else if ((field.message !== undefined || field.oneof !== undefined) && !source.isSet(field)) {
      message[name] = undefined;
    } else if (field.message !== undefined) {
      message[name] = fromOracle(field.message, source.get(field) as ReflectMessage);
    } else {
      const value = source.get(field);
      message[name] = is64(field) && !isId(field, name) ? saturate(value as bigint) : value;
    }
  }
  return message;
}

const oracleDecode = (desc: DescMessage, bytes: Uint8Array): Plain => fromOracle(desc, reflect(desc, fromBinary(desc, bytes) as Message));
const oracleEncode = (desc: DescMessage, message: Plain): Uint8Array => toBinary(desc, toOracle(desc, message).message);

/** Decoding may refuse bytes in one way only. */
function decodesOrRefuses(type: AnyType, bytes: Uint8Array): void {
  try {
    type.decode(bytes);
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
  }
}

const bytesOf = (...bytes: number[]): Uint8Array => new Uint8Array(bytes);
const concat = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
const malformed = expect.objectContaining({ code: 'malformed-message' });

describe.each(descs.map((desc) => [desc.typeName, desc] as const))('%s', (_name, desc) => {
  const type = typeOf(desc);

  test('is encoded byte for byte as protobuf-es encodes it, and read back', () => {
    fc.assert(
      fc.property(arbitraryMessage(desc, 3), (message) => {
        const bytes = type.encode(message);
        expect(bytes).toEqual(oracleEncode(desc, message));
        expect(oracleDecode(desc, bytes)).toEqual(message);
        expect(type.decode(bytes)).toEqual(message);
        expect(type.create(message)).toEqual(message);
      }),
      { numRuns: 60 },
    );
  });

  test('is decoded as protobuf-es decodes it, with counters saturated', () => {
    fc.assert(
      fc.property(arbitraryMessage(desc, 3, true), (message) => {
        const bytes = oracleEncode(desc, message);
        expect(type.decode(bytes)).toEqual(oracleDecode(desc, bytes));
      }),
      { numRuns: 60 },
    );
  });

  test('has every property, in one order, whatever is on the wire', () => {
    fc.assert(
      fc.property(arbitraryMessage(desc, 1), (message) => {
        const names = Object.keys(type.create());
        expect(Object.keys(type.decode(type.encode(message)))).toEqual(names);
        expect(Object.keys(type.create(message))).toEqual(names);
      }),
      { numRuns: 10 },
    );
  });

  test('is read or refused, cut off at any byte and with any byte changed', () => {
    fc.assert(
      fc.property(arbitraryMessage(desc, 2), fc.nat(255), (message, noise) => {
        const bytes = type.encode(message).slice(0, 2000);
        for (let length = 0; length < bytes.length; length++) {
          decodesOrRefuses(type, bytes.subarray(0, length));
          const changed = bytes.slice();
          changed[length] = noise;
          decodesOrRefuses(type, changed);
        }
      }),
      { numRuns: 10 },
    );
  });

  test('is read or refused from random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => decodesOrRefuses(type, bytes)),
      { numRuns: 200 },
    );
  });

  test('is read past fields it does not know', () => {
    const unknown = concat(
      bytesOf(0xc0, 0x3e, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
      bytesOf(0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8),
      bytesOf(0xc2, 0x3e, 3, 1, 2, 3),
      bytesOf(0xc5, 0x3e, 1, 2, 3, 4),
    );
    fc.assert(
      fc.property(arbitraryMessage(desc, 2), (message) => {
        const known = type.encode(message);
        expect(type.decode(concat(unknown, known))).toEqual(message);
        expect(type.decode(concat(known, unknown))).toEqual(message);
      }),
      { numRuns: 10 },
    );
  });
});

describe('numbers', () => {
  const header = (revision: bigint): Uint8Array => {
    const desc = registry.getMessage('etcdserverpb.ResponseHeader') as DescMessage;
    return oracleEncode(desc, { revision });
  };

  test.each([
    ['0', 0n, 0],
    ['-1', -1n, -1],
    ['the largest safe integer', maxSafe, Number.MAX_SAFE_INTEGER],
    ['one above it', maxSafe + 1n, Number.MAX_SAFE_INTEGER],
    ['the largest int64', 2n ** 63n - 1n, Number.MAX_SAFE_INTEGER],
    ['the smallest safe integer', -maxSafe, -Number.MAX_SAFE_INTEGER],
    ['one below it', -maxSafe - 1n, -Number.MAX_SAFE_INTEGER],
    ['the smallest int64', -(2n ** 63n), -Number.MAX_SAFE_INTEGER],
    ['2^31', 2n ** 31n, 2 ** 31],
    ['2^32', 2n ** 32n, 2 ** 32],
  ])('an int64 counter of %s is a number, saturated where it must', (_name, sent, read) => {
    expect(ResponseHeader.decode(header(sent)).revision).toBe(read);
  });

  test('a uint64 counter saturates', () => {
    expect(ResponseHeader.decode(bytesOf(0x20, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)).raftTerm).toBe(Number.MAX_SAFE_INTEGER);
  });

  test('ids keep all 64 bits, with the sign of their type', () => {
    const member = ResponseHeader.decode(ResponseHeader.encode({ memberId: 2n ** 64n - 1n }));
    expect(member.memberId).toBe(2n ** 64n - 1n);
    expect(WatchResponse.decode(WatchResponse.encode({ watchId: -1n })).watchId).toBe(-1n);
    expect(KeyValue.decode(KeyValue.encode({ lease: 2n ** 63n - 1n })).lease).toBe(2n ** 63n - 1n);
  });

  test('a negative counter takes ten bytes', () => {
    const bytes = LeaseTimeToLiveResponse.encode({ ttl: -1 });
    expect(bytes).toEqual(bytesOf(0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1));
    expect(LeaseTimeToLiveResponse.decode(bytes).ttl).toBe(-1);
  });

  test.each([
    ['a fraction', () => RangeRequest.encode({ limit: 0.5 })],
    ['NaN', () => RangeRequest.encode({ limit: Number.NaN })],
    ['an unsafe integer', () => RangeRequest.encode({ limit: 2 ** 53 })],
    ['a negative unsigned counter', () => ResponseHeader.encode({ raftTerm: -1 })],
    ['a negative uint32', () => HashKVResponse.encode({ hash: -1 })],
    ['a uint32 too large', () => HashKVResponse.encode({ hash: 2 ** 32 })],
    ['an enum beyond 32 bits', () => RangeRequest.encode({ sortOrder: 2 ** 31 })],
    ['a lease beyond int64', () => PutRequest.encode({ lease: 2n ** 63n })],
    ['a negative member id', () => ResponseHeader.encode({ memberId: -1n })],
  ])('%s is refused when encoding', (_name, encode) => {
    expect(encode).toThrow(RangeError);
  });

  test('a refused message does not spoil the next one', () => {
    expect(() => PutRequest.encode({ key: bytesOf(1, 2, 3), lease: 2n ** 63n })).toThrow(RangeError);
    expect(PutRequest.encode({ key: bytesOf(1) })).toEqual(bytesOf(10, 1, 1));
  });
});

describe('decoding', () => {
  test('an empty input is the message of all defaults', () => {
    expect(PutRequest.decode(bytesOf())).toEqual(PutRequest.create());
    expect(PutRequest.decode(bytesOf()).key).toBe(KeyValue.decode(bytesOf()).value);
  });

  test('bytes are plain views of the input', () => {
    const input = Buffer.from(PutRequest.encode({ key: bytesOf(1, 2, 3) }));
    const { key } = PutRequest.decode(input);
    expect(key.constructor).toBe(Uint8Array);
    input[3] = 9;
    expect(key).toEqual(bytesOf(1, 9, 3));
  });

  test('a message field sent twice is merged', () => {
    const bytes = concat(PutResponse.encode({ header: { revision: 7, raftTerm: 2 } }), PutResponse.encode({ header: { revision: 8 } }));
    expect(PutResponse.decode(bytes).header).toEqual(ResponseHeader.create({ revision: 8, raftTerm: 2 }));
  });

  test('the last member of a oneof wins and clears the others', () => {
    const first = Compare.encode({ version: 1 });
    const second = Compare.encode({ value: bytesOf(5) });
    expect(Compare.decode(concat(first, second))).toEqual(Compare.create({ value: bytesOf(5) }));
    expect(Compare.decode(concat(second, first))).toEqual(Compare.create({ version: 1 }));
    const range = RequestOp.encode({ requestRange: { limit: 3 } });
    const put = RequestOp.encode({ requestPut: { prevKv: true } });
    expect(RequestOp.decode(concat(range, put))).toEqual(RequestOp.create({ requestPut: { prevKv: true } }));
    const again = RequestOp.encode({ requestRange: { revision: 4 } });
    expect(RequestOp.decode(concat(range, again))).toEqual(RequestOp.create({ requestRange: { limit: 3, revision: 4 } }));
  });

  test('a default value in a oneof is present', () => {
    const bytes = Compare.encode({ version: 0 });
    expect(bytes).toEqual(bytesOf(0x20, 0));
    expect(Compare.decode(bytes).version).toBe(0);
    expect(Compare.decode(bytesOf()).version).toBeUndefined();
  });

  test('repeated enums may come packed or not, and leave packed', () => {
    expect(WatchCreateRequest.decode(bytesOf(0x28, 1, 0x2a, 2, 0, 1, 0x28, 0)).filters).toEqual([1, 0, 1, 0]);
    expect(WatchCreateRequest.encode({ filters: [0, 1] })).toEqual(bytesOf(0x2a, 2, 0, 1));
  });

  test('an unknown enum value survives', () => {
    expect(RangeRequest.decode(RangeRequest.encode({ sortTarget: 77 })).sortTarget).toBe(77);
  });

  test('a bool is true for any varint but 0', () => {
    expect(PutRequest.decode(bytesOf(0x20, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01)).prevKv).toBe(true);
    expect(PutRequest.decode(bytesOf(0x20, 0x80, 0x00)).prevKv).toBe(false);
  });

  const nested = (levels: number): Uint8Array => {
    let bytes = bytesOf();
    for (let level = 0; level < levels; level++) {
      const length = bytes.length < 128 ? bytesOf(bytes.length) : bytesOf((bytes.length & 0x7f) | 0x80, bytes.length >> 7);
      // TxnRequest.success holds RequestOps (tag 0x12), RequestOp.request_txn holds TxnRequests (tag 0x22).
      bytes = concat(bytesOf(level % 2 === 0 ? 0x22 : 0x12), length, bytes);
    }
    return bytes;
  };

  test('messages may be nested 300 deep and no deeper', () => {
    expect(() => TxnRequest.decode(nested(300))).not.toThrow();
    expect(() => RequestOp.decode(nested(301))).toThrow(malformed);
  });

  test.each([
    ['field number 0', bytesOf(0x00, 0x00)],
    ['field number 0 in a long tag', bytesOf(0x82, 0x00, 0x00)],
    ['a field number beyond 29 bits', bytesOf(0x80, 0x80, 0x80, 0x80, 0x10, 0x00)],
    ['a varint of eleven bytes', bytesOf(0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)],
    ['a varint of more than 64 bits', bytesOf(0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2)],
    ['a varint cut off', bytesOf(0x18, 0x80)],
    ['a group', bytesOf(0xc3, 0x3e, 0xc4, 0x3e)],
    ['the end of a group', bytesOf(0xc4, 0x3e)],
    ['wire type 6', bytesOf(0xc6, 0x3e)],
    ['wire type 7', bytesOf(0xc7, 0x3e)],
    ['a known field with another wire type', bytesOf(0x08, 0x01)],
    ['a length beyond the end', bytesOf(0x0a, 0x02, 0x00)],
    ['a length beyond 32 bits', bytesOf(0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)],
    ['a length just below 4 GiB', bytesOf(0x0a, 255, 255, 255, 255, 15)],
    ['an unknown fixed64 cut off', bytesOf(0xc1, 0x3e, 1, 2, 3)],
  ])('%s is refused', (_name, bytes) => {
    expect(() => PutRequest.decode(bytes)).toThrow(malformed);
  });

  test('a nested message cannot reach into what follows it', () => {
    // The header claims two bytes, of which the second starts a varint that would end in the next field.
    expect(() => PutResponse.decode(bytesOf(0x0a, 0x02, 0x18, 0x80, 0x01))).toThrow(malformed);
  });

  test.each([
    ['a lone continuation byte', bytesOf(0x12, 1, 0x80)],
    ['an overlong form', bytesOf(0x12, 2, 0xc0, 0x80)],
    ['a surrogate', bytesOf(0x12, 3, 0xed, 0xa0, 0x80)],
    ['a sequence cut off', bytesOf(0x12, 1, 0xe2)],
    ['a bad byte far behind', concat(bytesOf(0x12, 65), new Uint8Array(64).fill(0x61), bytesOf(0xff))],
  ])('%s in a string is refused', (_name, bytes) => {
    expect(() => StatusResponse.decode(bytes)).toThrow(malformed);
  });

  test('a byte order mark in a string is kept', () => {
    expect(StatusResponse.decode(bytesOf(0x12, 4, 0xef, 0xbb, 0xbf, 0x61)).version).toBe('\ufeffa');
  });
});

describe('encoding', () => {
  test('headroom leaves zero bytes in front', () => {
    const message = { key: bytesOf(1) };
    expect(PutRequest.encode(message, 5)).toEqual(bytesOf(0, 0, 0, 0, 0, 10, 1, 1));
    const large = PutRequest.encode({ value: new Uint8Array(5000).fill(1) }, 5);
    expect(large.subarray(0, 8)).toEqual(bytesOf(0, 0, 0, 0, 0, 0x12, 0x88, 0x27));
  });

  test('results stay as they are while more is encoded', () => {
    const first = PutRequest.encode({ key: new Uint8Array(100).fill(1) });
    const copy = first.slice();
    for (let at = 0; at < 1000; at++) PutRequest.encode({ key: new Uint8Array(100).fill(2) });
    expect(first).toEqual(copy);
  });

  test('a getter may encode another message', () => {
    const outer = {
      key: bytesOf(1),
      get value() {
        return PutRequest.encode({ key: bytesOf(2) });
      },
    };
    expect(PutRequest.encode(outer)).toEqual(bytesOf(10, 1, 1, 0x12, 3, 10, 1, 2));
  });

  test('undefined is the default', () => {
    expect(PutRequest.encode({ key: undefined, lease: undefined, prevKv: undefined })).toEqual(bytesOf());
    expect(PutRequest.create({ key: undefined })).toEqual(PutRequest.create());
  });

  test('of several members of a oneof the last is written', () => {
    expect(Compare.encode({ version: 1, value: bytesOf(5) })).toEqual(Compare.encode({ value: bytesOf(5) }));
  });

  test('a lone surrogate is replaced', () => {
    const bytes = StatusResponse.encode({ version: 'a\ud800' });
    expect(StatusResponse.decode(bytes).version).toBe('a\ufffd');
  });

  test('a large message is written whole', () => {
    const value = new Uint8Array(3_000_000).map((_, at) => at);
    // Comparing 3 MB element by element through `expect` would take longer than everything else here.
    expect(Buffer.compare(PutRequest.decode(PutRequest.encode({ value })).value, value)).toBe(0);
  });
});
