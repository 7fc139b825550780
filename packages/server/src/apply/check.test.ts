import { DeleteRangeRequest, type Init, PutRequest, RangeRequest, type RequestOp, TxnRequest } from '@conclave/protocol';
import { StatusError } from '@conclave/wire';
import { describe, expect, it } from 'vitest';
import { checkDeleteRange, checkPut, checkRange, checkTxn } from './check.ts';

const bytes = (characters: string): Uint8Array => new Uint8Array(Buffer.from(characters, 'latin1'));
const key = bytes('k');
const empty = 'etcdserver: key is not provided';
const notFound = 'etcdserver: key not found';
const duplicate = 'etcdserver: duplicate key given in txn request';
const tooMany = 'etcdserver: too many operations in txn request';

/** The message of the refusal; undefined for what passes. Every refusal of this file is INVALID_ARGUMENT. */
function refusal(check: () => void): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    expect(error.code).toBe(3);
    return error.message;
  }
}

const put = (name: string): Init<RequestOp> => ({ requestPut: { key: bytes(name) } });
const remove = (name: string, end = ''): Init<RequestOp> => ({ requestDeleteRange: { key: bytes(name), rangeEnd: bytes(end) } });
const range = (name: string, end = ''): Init<RequestOp> => ({ requestRange: { key: bytes(name), rangeEnd: bytes(end) } });
const nested = (success: Init<RequestOp>[], failure: Init<RequestOp>[] = []): Init<RequestOp> => ({ requestTxn: { success, failure } });
const ofTxn = (init: Init<TxnRequest>, maxTxnOps = 128): string | undefined => refusal(() => checkTxn(TxnRequest.create(init), maxTxnOps));
const ofBranch = (...success: Init<RequestOp>[]): string | undefined => {
  const message = ofTxn({ success });
  expect(ofTxn({ failure: success })).toBe(message);
  return message;
};

describe('a range request', () => {
  const of = (init: Init<RangeRequest>): string | undefined => refusal(() => checkRange(RangeRequest.create(init)));

  it('needs a key and known sort options, in this order', () => {
    expect(of({ key })).toBeUndefined();
    expect(of({ key, sortOrder: 2, sortTarget: 4 })).toBeUndefined();
    expect(of({ sortTarget: 9 })).toBe(empty);
    for (const init of [{ sortOrder: 3 }, { sortOrder: -1 }, { sortTarget: 5 }]) {
      expect(of({ key, ...init })).toBe('etcdserver: invalid sort option');
    }
  });
});

describe('a put request', () => {
  const of = (init: Init<PutRequest>): string | undefined => refusal(() => checkPut(PutRequest.create(init)));

  it('needs a key, and gives no value or lease that it says to ignore', () => {
    expect(of({ key })).toBeUndefined();
    expect(of({ key, ignoreValue: true, ignoreLease: true })).toBeUndefined();
    expect(of({ ignoreValue: true, value: key })).toBe(empty);
    expect(of({ key, ignoreValue: true, value: key, ignoreLease: true, lease: 1n })).toBe('etcdserver: value is provided');
    expect(of({ key, ignoreLease: true, lease: 1n })).toBe('etcdserver: lease is provided');
  });
});

describe('a delete request', () => {
  it('needs a key', () => {
    expect(refusal(() => checkDeleteRange(DeleteRangeRequest.create({ key })))).toBeUndefined();
    expect(refusal(() => checkDeleteRange(DeleteRangeRequest.create({ rangeEnd: key })))).toBe(empty);
  });
});

describe('a txn request', () => {
  const many = (count: number): Init<RequestOp>[] => Array.from({ length: count }, (_, at) => put(`k${at}`));

  it('has no more operations in a branch, and no more compares, than allowed', () => {
    expect(ofTxn({ success: many(128), failure: many(128) })).toBeUndefined();
    expect(ofTxn({ success: many(129) })).toBe(tooMany);
    expect(ofTxn({ failure: many(129) })).toBe(tooMany);
    expect(ofTxn({ compare: Array.from({ length: 129 }, () => ({ key })) })).toBe(tooMany);
    expect(ofTxn({ success: many(3) }, 2)).toBe(tooMany);
  });

  it('leaves to nested txns what its longest list leaves', () => {
    expect(ofBranch(nested(many(127)))).toBeUndefined();
    expect(ofBranch(nested(many(128)))).toBe(tooMany);
    expect(ofTxn({ compare: [{ key }, { key }], success: [nested(many(127))] })).toBe(tooMany);
    expect(ofBranch(nested([nested(many(126))]))).toBeUndefined();
    expect(ofBranch(nested([nested(many(127))]))).toBe(tooMany);
  });

  it('is judged by count, then compares, then operations in order, then duplicates', () => {
    expect(ofTxn({ compare: [{}], success: [{}] })).toBe(empty);
    expect(ofTxn({ compare: [{}], success: many(129) })).toBe(tooMany);
    expect(ofBranch({})).toBe(notFound);
    expect(ofBranch(put('a'), put('a'), {})).toBe(notFound);
    expect(ofBranch(put(''), {})).toBe(empty);
    expect(ofBranch(nested([{}]))).toBe(notFound);
    expect(ofBranch(nested([put('a'), put('a')]), remove(''))).toBe(empty);
  });

  it('puts a key once, and not where it deletes', () => {
    expect(ofBranch(put('a'), put('b'), range('a', 'z'), range('a'))).toBeUndefined();
    expect(ofBranch(put('a'), put('a'))).toBe(duplicate);
    expect(ofBranch(remove('a'), put('a'))).toBe(duplicate);
    expect(ofBranch(put('b'), remove('a', 'c'))).toBe(duplicate);
    expect(ofBranch(put('c'), remove('a', 'c'))).toBeUndefined();
    expect(ofBranch(put('a\0'), remove('a'))).toBeUndefined();
    expect(ofBranch(put('\xff'), remove('a', '\xff\xff'))).toBe(duplicate);
    expect(ofBranch(remove('a', 'c'), remove('b', 'd'), remove('b'))).toBeUndefined();
  });

  it('may put what a deletion without an end, or a reversed one, covers', () => {
    expect(ofBranch(remove('a', '\0'), put('b'))).toBeUndefined();
    expect(ofBranch(put('b'), remove('\0', '\0'))).toBeUndefined();
    expect(ofBranch(remove('z', 'a'), put('m'))).toBeUndefined();
    expect(ofBranch(nested([remove('a', '\0')]), nested([put('b')]))).toBeUndefined();
  });

  it('counts both branches of a nested txn against everything beside it, but not against each other', () => {
    expect(ofBranch(nested([put('a')], [put('a')]))).toBeUndefined();
    expect(ofBranch(nested([put('a')], [remove('a')]))).toBeUndefined();
    expect(ofBranch(put('a'), nested([], [put('a')]))).toBe(duplicate);
    expect(ofBranch(put('a'), nested([remove('a')]))).toBe(duplicate);
    expect(ofBranch(nested([put('a')]), remove('a'))).toBe(duplicate);
    expect(ofBranch(nested([], [put('a')]), nested([put('a')]))).toBe(duplicate);
  });

  it('compares nested txns in their order: a put may precede the delete of a sibling, not follow it', () => {
    expect(ofBranch(nested([put('a')]), nested([remove('a')]))).toBeUndefined();
    expect(ofBranch(nested([remove('a')]), nested([put('a')]))).toBe(duplicate);
    expect(ofBranch(nested([], [remove('a')]), nested([nested([put('a')])]))).toBe(duplicate);
  });
});
