import { KV, RangeRequest, RangeResponse, StatusCode, TxnRequest, TxnResponse } from '@conclave/protocol';
import { key, type StmOptions, type StmTransaction } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { beforeEach, expect, test } from 'vitest';

let scripted: ScriptedClient;
let onTxn: (call: ScriptedCall) => void;

beforeEach(async () => {
  scripted = await scriptedClient();
  onTxn = (call) => call.reply(TxnResponse.encode({ header: { revision: 10 }, succeeded: true }));
  scripted.script.onCall = (call) => {
    if (call.path === KV.methods.txn.path) return onTxn(call);
    const { key } = RangeRequest.decode(call.request);
    call.reply(RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key, value: Buffer.from('v'), modRevision: 3 }] }));
  };
});

const stm = <T>(body: (tx: StmTransaction) => T | Promise<T>, options?: StmOptions): Promise<T> =>
  scripted.runtime.run(scripted.client.stm(body, options));
const calls = (path: string) => scripted.script.calls.filter((call) => call.path === path);
const ranges = (): RangeRequest[] => calls(KV.methods.range.path).map(({ request }) => RangeRequest.decode(request));
const txns = (): TxnRequest[] => calls(KV.methods.txn.path).map(({ request }) => TxnRequest.decode(request));
const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString();
const conflict = (call: ScriptedCall): void => {
  const kvs = [{ key: Buffer.from('a'), value: Buffer.from('w'), modRevision: 9 }];
  call.reply(
    TxnResponse.encode({
      header: { revision: 9 },
      responses: [{ responseTxn: { succeeded: true } }, { responseRange: { kvs } }, { responseRange: {} }],
    }),
  );
};

test('reads at once wait for the first of them, and are of its revision; each key is asked for once', async () => {
  await stm((tx) => Promise.all([tx.get('a'), tx.get('b'), tx.get('a'), tx.modRevision('b'), tx.get('c')]));
  expect(ranges().map(({ key, revision }) => [text(key), revision])).toEqual([
    ['a', 0],
    ['b', 7],
    ['c', 7],
  ]);
  expect(txns()).toHaveLength(0);
});

test.each([
  ['serializableSnapshot', 0],
  ['serializable', 0],
  ['repeatableReads', 1],
  ['readCommitted', 0],
] as const)('with %s a body that only reads several keys costs %i transactions', async (isolation, count) => {
  await stm((tx) => Promise.all([tx.get('a'), tx.get('b')]), { isolation });
  expect(txns()).toHaveLength(count);
  await stm((tx) => tx.get('a'), { isolation });
  expect(txns()).toHaveLength(count);
});

test('after a conflict the body is given what was found instead, without asking again', async () => {
  let runs = 0;
  onTxn = (call) => (++runs === 1 ? conflict(call) : call.reply(TxnResponse.encode({ header: { revision: 10 }, succeeded: true })));
  const seen: unknown[] = [];
  await stm(async (tx) => {
    seen.push([await tx.get('a'), await tx.get('b')]);
    tx.put('c', 'new');
  });
  expect(seen).toEqual([
    ['v', 'v'],
    ['w', undefined],
  ]);
  expect(ranges()).toHaveLength(2);
  expect(txns()[1]?.compare.map(({ key, modRevision, result }) => [text(key), modRevision, result])).toEqual([
    ['a', 9, 0],
    ['b', 0, 0],
    ['c', 10, 2],
  ]);
});

test('others may be in the way so often, and the pauses grow', async () => {
  onTxn = conflict;
  const body = async (tx: StmTransaction): Promise<void> => tx.put('a', `${await tx.get('a')}${await tx.get('b')}`);
  await expect(stm(body, { attemptsMax: 5, deadlineMs: Number.POSITIVE_INFINITY })).rejects.toMatchObject({
    code: 'conflict',
    outcome: 'not-applied',
  });
  expect(txns()).toHaveLength(5);
  expect(scripted.runtime.monotonic()).toBeGreaterThanOrEqual(15);
});

test('the time and the signal are for all attempts', async () => {
  onTxn = conflict;
  const body = async (tx: StmTransaction): Promise<void> => tx.put('a', `${await tx.get('a')}`);
  await expect(stm(body, { deadlineMs: 200 })).rejects.toMatchObject({ code: 'deadline-exceeded', outcome: 'not-applied' });
  expect(scripted.runtime.monotonic()).toBe(200);
  const controller = new AbortController();
  scripted.runtime.timer(100, () => controller.abort());
  await expect(stm(body, { signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled', outcome: 'not-applied' });
  expect(scripted.runtime.monotonic()).toBe(300);
});

test('an abort while the body runs keeps it from writing', async () => {
  const controller = new AbortController();
  const writing = stm(
    (tx) => {
      controller.abort();
      tx.put('a', '1');
    },
    { signal: controller.signal },
  );
  await expect(writing).rejects.toMatchObject({ code: 'cancelled', outcome: 'not-applied' });
  expect(txns()).toHaveLength(0);
});

test('a guard is a condition of the writes, and is looked at when there are none', async () => {
  const guards = [key('lock').createRevision.equals(4)];
  await stm(async (tx) => tx.put('b', (await tx.get('a')) ?? ''), { guards });
  await stm((tx) => tx.get('a'), { guards });
  const conditions = txns().map(({ compare }) => compare.map((one) => [text(one.key), one.createRevision || one.modRevision]));
  expect(conditions).toEqual([
    [
      ['lock', 4],
      ['a', 3],
      ['b', 8],
    ],
    [
      ['lock', 4],
      ['a', 3],
    ],
  ]);
});

test('an answer that is lost ends it in doubt, and the body does not run again', async () => {
  let runs = 0;
  onTxn = (call) => call.end(StatusCode.UNAVAILABLE, { message: 'connection lost' });
  const writing = stm((tx) => {
    runs++;
    tx.put('a', '1');
  });
  await expect(writing).rejects.toMatchObject({ outcome: 'unknown' });
  expect(runs).toBe(1);
});

test('what the body does after it returned is refused', async () => {
  let late: StmTransaction | undefined;
  await stm((tx) => {
    late = tx;
  });
  expect(() => late?.put('a', '1')).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
});

test.each([{ isolation: 'snapshot' as never }, { attemptsMax: 0 }])('%o is refused', async (options) => {
  await expect(stm(() => {}, options)).rejects.toMatchObject({ code: 'invalid-argument' });
});
