import {
  DeleteRangeRequest,
  DeleteRangeResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  TxnRequest,
  TxnResponse,
} from '@conclave/protocol';
import { allKeys, del, fromKey, get, key, list, type Namespace, prefix, put, range, type Target, txn } from '@conclave/sdk';
import { type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { beforeEach, describe, expect, test } from 'vitest';

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
const text = (data: Uint8Array | undefined): string => Buffer.from(data ?? []).toString('latin1');
const header = { revision: 9 };

let scripted: ScriptedClient;
let app: Namespace;

beforeEach(async () => {
  scripted = await scriptedClient();
  app = scripted.client.namespace('app/');
});

/** Runs a call, answers it, and returns what was sent and what came back. */
async function exchange<T>(promise: Promise<T>, response: Uint8Array): Promise<{ request: Uint8Array; result: T }> {
  scripted.script.onCall = (call) => call.reply(response);
  const result = await scripted.runtime.run(promise);
  return { request: scripted.script.call.request, result };
}

describe('a range', () => {
  const cases: readonly [string, Target, { key: string; end: string }, { key: string; end: string }][] = [
    ['one key', 'k', { key: 'k', end: '' }, { key: 'app/k', end: '' }],
    ['one key of bytes', new Uint8Array([0xff]), { key: '\xff', end: '' }, { key: 'app/\xff', end: '' }],
    ['a prefix', prefix('p/'), { key: 'p/', end: 'p0' }, { key: 'app/p/', end: 'app/p0' }],
    ['a prefix of 0xff', prefix(new Uint8Array([0xff])), { key: '\xff', end: '\0' }, { key: 'app/\xff', end: 'app0' }],
    ['a prefix in a Buffer', prefix(Buffer.from('p/')), { key: 'p/', end: 'p0' }, { key: 'app/p/', end: 'app/p0' }],
    ['the empty prefix', prefix(''), { key: '\0', end: '\0' }, { key: 'app/', end: 'app0' }],
    ['a range', range('a', 'c'), { key: 'a', end: 'c' }, { key: 'app/a', end: 'app/c' }],
    ['a key and all after', fromKey('m'), { key: 'm', end: '\0' }, { key: 'app/m', end: 'app0' }],
    ['all keys', allKeys(), { key: '\0', end: '\0' }, { key: 'app/', end: 'app0' }],
  ];

  test.each(cases)('%s goes out right, and within a namespace too', async (_name, target, whole, inside) => {
    const response = RangeResponse.encode({ header });
    for (const [space, wire] of [
      [scripted.client, whole],
      [app, inside],
    ] as const) {
      const { request } = await exchange(space.list(target), response);
      const { key: start, rangeEnd } = RangeRequest.decode(request);
      expect({ key: text(start), end: text(rangeEnd) }).toEqual(wire);
    }
  });

  test('cannot end nowhere', () => {
    expect(() => range('a', '')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    expect(() => range('a', '\0')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });

  test('leaves the bytes it was made of alone', () => {
    const buffer = Buffer.from('p/');
    prefix(buffer);
    expect(buffer.toString()).toBe('p/');
  });
});

describe('put', () => {
  test('sends what it is given', async () => {
    const options = { lease: 77n, prevKv: true, ignoreLease: false };
    const { request } = await exchange(scripted.client.put('k', 'v', options), PutResponse.encode({ header }));
    expect(PutRequest.decode(request)).toMatchObject({ key: bytes('k'), value: bytes('v'), lease: 77n, prevKv: true, ignoreLease: false });
  });

  test('returns the revision and what was there before, in the words of the namespace', async () => {
    const response = PutResponse.encode({
      header,
      prevKv: { key: bytes('app/k'), value: bytes('old'), modRevision: 4, version: 2, lease: -5n },
    });
    const { result } = await exchange(app.put('k', 'v', { prevKv: true }), response);
    expect(result.revision).toBe(9n);
    expect(result.prevKv).toMatchObject({ key: 'k', value: 'old', modRevision: 4n, version: 2n, lease: -5n });
  });
});

describe('get and list', () => {
  test('get returns undefined for a key that is not there', async () => {
    expect((await exchange(scripted.client.get('k'), RangeResponse.encode({ header }))).result).toBeUndefined();
  });

  test('a value reads as text and as bytes', async () => {
    const value = new Uint8Array([0xe2, 0x82, 0xac, 0xff]);
    const response = RangeResponse.encode({ header, kvs: [{ key: bytes('k'), value }] });
    const { result } = await exchange(scripted.client.get('k'), response);
    expect(result?.value).toBe('€\ufffd');
    expect(result?.valueBytes).toEqual(value);
    expect(result?.keyBytes).toEqual(bytes('k'));
  });

  test('every option is sent', async () => {
    const options = {
      revision: 5n,
      limit: 10,
      serializable: true,
      keysOnly: true,
      countOnly: true,
      minModRevision: 1n,
      maxModRevision: 2n,
      minCreateRevision: 3n,
      maxCreateRevision: 4,
    };
    const { request } = await exchange(scripted.client.list(prefix('p'), options), RangeResponse.encode({ header }));
    expect(RangeRequest.decode(request)).toMatchObject({
      ...options,
      revision: 5,
      minModRevision: 1,
      maxModRevision: 2,
      minCreateRevision: 3,
    });
  });

  test.each([
    [{ by: 'key' }, 0, 0],
    [{ by: 'key', order: 'ascend' }, 0, 0],
    [{ by: 'key', order: 'descend' }, 0, 2],
    [{ by: 'version' }, 1, 1],
    [{ by: 'createRevision', order: 'ascend' }, 2, 1],
    [{ by: 'modRevision', order: 'descend' }, 3, 2],
    [{ by: 'value', order: 'ascend' }, 4, 1],
  ] as const)('sorting %o is target %i, order %i', async (sort, sortTarget, sortOrder) => {
    const { request } = await exchange(scripted.client.list(prefix('p'), { sort }), RangeResponse.encode({ header }));
    expect(RangeRequest.decode(request)).toMatchObject({ sortTarget, sortOrder });
  });

  test('list returns keys, count, more and the revision', async () => {
    const response = RangeResponse.encode({ header, kvs: [{ key: bytes('app/a') }, { key: bytes('app/b') }], count: 5, more: true });
    const { result } = await exchange(app.list(prefix('')), response);
    expect(result).toMatchObject({ count: 5, more: true, revision: 9n });
    expect(result.kvs.map((kv) => kv.key)).toEqual(['a', 'b']);
  });

  test('a key shows itself in logs', async () => {
    const response = RangeResponse.encode({ header, kvs: [{ key: bytes('k'), value: bytes('v'), modRevision: 3 }] });
    const { result } = await exchange(scripted.client.get('k'), response);
    expect(JSON.parse(JSON.stringify(result))).toMatchObject({ key: 'k', value: 'v', modRevision: '3' });
  });
});

test('delete sends the range and returns what it deleted', async () => {
  const response = DeleteRangeResponse.encode({ header, deleted: 2, prevKvs: [{ key: bytes('app/p/1') }, { key: bytes('app/p/2') }] });
  const { request, result } = await exchange(app.delete(prefix('p/'), { prevKv: true }), response);
  expect(DeleteRangeRequest.decode(request)).toMatchObject({ key: bytes('app/p/'), rangeEnd: bytes('app/p0'), prevKv: true });
  expect(result).toMatchObject({ deleted: 2, revision: 9n });
  expect(result.prevKvs.map((kv) => kv.key)).toEqual(['p/1', 'p/2']);
});

describe('a transaction', () => {
  const nothing = TxnResponse.encode({ header, succeeded: true });

  test.each([
    ['value', key('k').value.equals('v'), { target: 3, result: 0, value: bytes('v') }],
    ['version', key('k').version.greaterThan(1n), { target: 0, result: 1, version: 1 }],
    ['createRevision', key('k').createRevision.lessThan(2), { target: 1, result: 2, createRevision: 2 }],
    ['modRevision', key('k').modRevision.notEquals(3n), { target: 2, result: 3, modRevision: 3 }],
    ['lease', key('k').lease.equals(4n), { target: 4, result: 0, lease: 4n }],
    ['existence', key('k').exists(), { target: 0, result: 1, version: 0 }],
    ['absence', key('k').missing(), { target: 0, result: 0, version: 0 }],
    ['a range', key(prefix('k')).modRevision.lessThan(5n), { target: 2, result: 2, modRevision: 5, rangeEnd: bytes('app/l') }],
  ] as const)('compares %s', async (_name, comparison, wire) => {
    const { request } = await exchange(app.txn().if(comparison).commit(), nothing);
    expect(TxnRequest.decode(request).compare).toMatchObject([{ key: bytes('app/k'), ...wire }]);
  });

  test('sends every kind of operation, nested ones too, with the prefix of its namespace', async () => {
    const inner = txn().if(key('c').exists()).then(put('d', '1')).else(del('e'));
    const begun = app.txn().if(key('a').exists(), key('b').missing());
    const { request } = await exchange(
      begun
        .then(put('p', 'v', { lease: 3n }), get('g', { revision: 2n }), list(prefix('l'), { limit: 1 }), del('x', { prevKv: true }), inner)
        .commit(),
      TxnResponse.encode({ header, succeeded: false }),
    );
    expect(TxnRequest.decode(request)).toMatchObject({
      compare: [{ key: bytes('app/a') }, { key: bytes('app/b') }],
      success: [
        { requestPut: { key: bytes('app/p'), value: bytes('v'), lease: 3n } },
        { requestRange: { key: bytes('app/g'), revision: 2 } },
        { requestRange: { key: bytes('app/l'), rangeEnd: bytes('app/m'), limit: 1 } },
        { requestDeleteRange: { key: bytes('app/x'), prevKv: true } },
        {
          requestTxn: {
            compare: [{ key: bytes('app/c') }],
            success: [{ requestPut: { key: bytes('app/d') } }],
            failure: [{ requestDeleteRange: { key: bytes('app/e') } }],
          },
        },
      ],
    });
  });

  test('returns what each operation returned, and is a list with properties', async () => {
    const response = TxnResponse.encode({
      header,
      succeeded: true,
      responses: [
        { responsePut: { header } },
        { responseRange: { header, kvs: [{ key: bytes('app/g'), value: bytes('1') }] } },
        { responseRange: { header, count: 4 } },
        { responseDeleteRange: { header, deleted: 2 } },
        { responseTxn: { succeeded: false, responses: [{ responsePut: { header } }] } },
      ],
    });
    const operations = [put('p', ''), get('g'), list('l'), del('x'), txn().else(put('q', ''))] as const;
    const { result } = await exchange(
      app
        .txn()
        .then(...operations)
        .commit(),
      response,
    );
    expect(result).toMatchObject({ succeeded: true, revision: 9n, length: 5 });
    if (!result.succeeded) expect.unreachable();
    const [written, read, listed, deleted, nested] = result;
    expect(written.revision).toBe(9n);
    expect(read?.key).toBe('g');
    expect(listed.count).toBe(4);
    expect(deleted.deleted).toBe(2);
    // A nested response has an empty header on the wire.
    expect(nested).toMatchObject({ succeeded: false, revision: 9n });
    expect(result.responses).toHaveLength(5);
    expect([...result]).toEqual([...result.responses]);
  });

  test('whose conditions do not hold is no error: the other branch answers', async () => {
    const response = TxnResponse.encode({
      header,
      succeeded: false,
      responses: [{ responseRange: { header, kvs: [{ key: bytes('k') }] } }],
    });
    const { result } = await exchange(
      scripted.client.txn().if(key('k').missing()).then(put('a', ''), put('b', '')).else(get('k')).commit(),
      response,
    );
    const [first, second] = result;
    expect(result.succeeded).toBe(false);
    expect(first).toMatchObject({ key: 'k' });
    expect(second).toBeUndefined();
  });

  test('an answer that does not fit is an error, and the transaction was applied', async () => {
    const response = TxnResponse.encode({ header, succeeded: true, responses: [] });
    await expect(exchange(scripted.client.txn().then(put('a', '')).commit(), response)).rejects.toMatchObject({ outcome: 'applied' });
  });

  test('begun once can be finished in two ways', async () => {
    const begun = scripted.client.txn().if(key('k').exists());
    const { request: one } = await exchange(begun.then(get('a')).commit(), TxnResponse.encode({ header, succeeded: false }));
    const { request: two } = await exchange(begun.commit(), nothing);
    expect(TxnRequest.decode(one).success).toHaveLength(1);
    expect(TxnRequest.decode(two).success).toHaveLength(0);
  });

  test('that is awaited without commit rejects and says so', async () => {
    // To the compiler this is an error already; here its type is hidden.
    const begun: object = scripted.client.txn().if(key('k').exists());
    await expect(Promise.resolve(begun)).rejects.toMatchObject({ code: 'invalid-argument', message: expect.stringContaining('commit()') });
  });
});

test('namespaces nest', async () => {
  const { request } = await exchange(app.namespace('cart/').put('k', 'v'), PutResponse.encode({ header }));
  expect(text(PutRequest.decode(request).key)).toBe('app/cart/k');
});

test('a client can be connected into a namespace', async () => {
  scripted = await scriptedClient({ namespace: 'root/' });
  const { request } = await exchange(scripted.client.namespace('a/').put('k', 'v'), PutResponse.encode({ header }));
  expect(text(PutRequest.decode(request).key)).toBe('root/a/k');
});
