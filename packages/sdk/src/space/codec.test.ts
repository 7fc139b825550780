import { KeyValue as WireKeyValue } from '@conclave/protocol';
import { bytes, type Codec, json, message, type StandardSchemaV1, text } from '@conclave/sdk';
import { describe, expect, test } from 'vitest';
import { issuesOf } from './codec.ts';

const raw = (data: unknown): Uint8Array => (typeof data === 'string' ? new Uint8Array(Buffer.from(data)) : (data as Uint8Array));

async function roundTrip<In, Out>(codec: Codec<In, Out>, value: In): Promise<Out> {
  return await codec.decode(raw(await codec.encode(value)));
}

async function issues(attempt: () => unknown): Promise<unknown> {
  try {
    await attempt();
  } catch (error) {
    return issuesOf(error);
  }
  return undefined;
}

/** A count, given as digits, read as a number; `slow` answers later. */
const digits = (kind: 'prompt' | 'slow'): StandardSchemaV1<string, number> => ({
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value) => {
      const result = typeof value === 'string' && /^\d+$/.test(value) ? { value: Number(value) } : { issues: [{ message: 'no digits' }] };
      return kind === 'slow' ? Promise.resolve(result) : result;
    },
  },
});

describe('json', () => {
  test('keeps what JSON can say', async () => {
    const value = { name: 'Ada', tags: ['a', null, true], nested: { n: 1.5 } };
    expect(await roundTrip(json(), value)).toEqual(value);
  });

  test('has no word for undefined, and none for a bigint', async () => {
    expect(await issues(() => json().encode(undefined as never))).toEqual([{ message: 'JSON has no word for undefined' }]);
    expect(await issues(() => json().encode(1n as never))).toEqual([{ message: expect.stringContaining('BigInt') }]);
  });

  test('refuses what is no JSON', async () => {
    expect(await issues(() => json().decode(raw('{')))).toHaveLength(1);
  });

  test.each(['prompt', 'slow'] as const)('with a schema that is %s stores what goes in and gives what comes out', async (kind) => {
    const codec = json(digits(kind));
    expect(await codec.encode('42')).toBe('"42"');
    expect(await roundTrip(codec, '42')).toBe(42);
    expect(await issues(() => codec.encode('x'))).toEqual([{ message: 'no digits' }]);
    expect(await issues(() => codec.decode(raw('"x"')))).toEqual([{ message: 'no digits' }]);
  });

  test('validates what will be read, not what was given', async () => {
    const date: StandardSchemaV1<Date> = {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: (value) => (value instanceof Date ? { value } : { issues: [{ message: 'no date', path: ['at'] }] }),
      },
    };
    expect(await issues(() => json(date).encode(new Date(0)))).toEqual([{ message: 'no date', path: ['at'] }]);
  });
});

test('text is UTF-8, or refused', async () => {
  expect(await roundTrip(text(), 'grüße\uFEFF')).toBe('grüße\uFEFF');
  expect(await roundTrip(text(), '\uFEFFx')).toBe('\uFEFFx');
  expect(await issues(() => text().decode(new Uint8Array([0xff])))).toHaveLength(1);
});

test('bytes are what they are', async () => {
  const data = new Uint8Array([0, 255]);
  expect(await roundTrip(bytes(), data)).toEqual(data);
});

test('a message is encoded and decoded by its type, at once or by a writer', async () => {
  expect(await roundTrip(message(WireKeyValue), { version: 7 })).toMatchObject({ version: 7, lease: 0n });
  const writer = message<string, string>({ encode: (value) => ({ finish: () => raw(value) }), decode: (data) => String(data.length) });
  expect(await roundTrip(writer, 'four')).toBe('4');
  expect(await issues(() => message(WireKeyValue).decode(new Uint8Array([0xff])))).toHaveLength(1);
});
