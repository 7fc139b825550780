import { KV, LeaseGrantRequest, LeaseGrantResponse, Lease as LeaseService, StatusCode, TxnRequest, TxnResponse } from '@conclave/protocol';
import { get, put } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { beforeEach, expect, test } from 'vitest';

let scripted: ScriptedClient;
/** Every transaction that arrived. */
let sent: TxnRequest[];
let onTxn: (call: ScriptedCall, nth: number) => void;
let grants: LeaseGrantRequest[];
let onGrant: (call: ScriptedCall, ttl: number) => void;

beforeEach(async () => {
  scripted = await scriptedClient();
  sent = [];
  grants = [];
  onGrant = (call, ttl) => call.reply(LeaseGrantResponse.encode({ id: BigInt(grants.length), ttl }));
  scripted.script.onCall = (call) => {
    if (call.path === LeaseService.methods.leaseGrant.path) {
      const request = LeaseGrantRequest.decode(call.request);
      grants.push(request);
      onGrant(call, request.ttl);
    } else if (call.path === KV.methods.txn.path) onTxn(call, sent.push(TxnRequest.decode(call.request)));
  };
});

const done = (call: ScriptedCall): void => {
  const header = { revision: 9 };
  const first = { succeeded: true, responses: [{ responsePut: { header } }, { responsePut: { header } }] };
  call.reply(TxnResponse.encode({ header, succeeded: true, responses: [{ responseTxn: first }] }));
};
const lost = (call: ScriptedCall): void => call.end(StatusCode.UNAVAILABLE, { message: 'connection lost' });
const commit = (options?: Parameters<ReturnType<typeof scripted.client.txn>['commit']>[0], ttlSeconds?: number) =>
  scripted.client.txn().then(put('k', 'v')).once('id', { ttlSeconds }).commit(options);
const mark = (request: TxnRequest | undefined): string => Buffer.from(request?.compare[0]?.key ?? []).toString();

test('what was lost is sent again under the same mark, until there is an answer', async () => {
  onTxn = (call, nth) => (nth < 4 ? lost(call) : done(call));
  const result = await scripted.runtime.run(commit());
  expect(result.succeeded).toBe(true);
  expect(result.responses).toHaveLength(1);
  expect(sent.map(mark)).toEqual(Array.from({ length: 4 }, () => 'conclave/once/txn/id'));
  expect(grants).toHaveLength(1);
});

test('without an answer in time the outcome is unknown', async () => {
  onTxn = lost;
  await expect(scripted.runtime.run(commit({ deadlineMs: 500 }))).rejects.toMatchObject({ outcome: 'unknown' });
  expect(sent.length).toBeGreaterThan(2);
  expect(scripted.runtime.monotonic()).toBeLessThanOrEqual(500);
});

test('a refusal after a lost answer leaves the outcome unknown', async () => {
  onTxn = (call, nth) => (nth === 1 ? lost(call) : call.end(StatusCode.PERMISSION_DENIED, { message: 'etcdserver: permission denied' }));
  await expect(scripted.runtime.run(commit())).rejects.toMatchObject({ code: 'permission-denied', outcome: 'unknown' });
});

const leaseGone = (call: ScriptedCall): void => call.end(StatusCode.NOT_FOUND, { message: 'etcdserver: requested lease not found' });

test('when the lease of the marks is gone another is granted, but not once a sending may have been done: its mark went with the lease', async () => {
  onTxn = (call, nth) => (nth === 1 ? leaseGone(call) : done(call));
  expect((await scripted.runtime.run(commit())).succeeded).toBe(true);
  expect(grants).toHaveLength(2);
  sent = [];
  onTxn = (call, nth) => (nth === 1 ? lost(call) : nth === 2 ? leaseGone(call) : done(call));
  await expect(scripted.runtime.run(commit())).rejects.toMatchObject({ code: 'lease-not-found', outcome: 'unknown' });
  expect(sent).toHaveLength(2);
});

test('a commit in doubt stays with its lease, whatever lease others were given since', async () => {
  onTxn = (call, nth) => {
    if (nth === 1) lost(call);
    else if (nth === 2) leaseGone(call);
    else done(call);
  };
  const first = commit();
  // Finds the lease of both gone while the first waits to be sent again.
  scripted.runtime.timer(1, () => other());
  let second: Promise<unknown> | undefined;
  const other = (): void => {
    second = scripted.client.txn().then(put('k', 'w')).once('other').commit();
  };
  await scripted.runtime.run(first);
  await scripted.runtime.run(second ?? Promise.reject(new Error('the second was not begun')));
  expect(grants).toHaveLength(2);
  const leaseOf = (name: string): unknown[] =>
    sent
      .filter((request) => mark(request).endsWith(name))
      .map((request) => request.success[0]?.requestTxn?.success.map(({ requestPut }) => requestPut?.lease).find((lease) => lease !== 0n));
  expect(leaseOf('/id')).toEqual([1n, 1n]);
  expect(leaseOf('/other')).toEqual([1n, 2n]);
});

test('a mark that was found says that it was done, even when the rest cannot be read', async () => {
  // As it was going to be written.
  const value = (): Uint8Array | undefined => sent[0]?.success[0]?.requestTxn?.success.at(-1)?.requestPut?.value;
  const kv = { key: Buffer.from('conclave/once/txn/id'), createRevision: 7 };
  onTxn = (call) =>
    call.reply(TxnResponse.encode({ header: { revision: 9 }, responses: [{ responseRange: { kvs: [{ ...kv, value: value() }] } }] }));
  const commit = scripted.client.txn().then(get('k')).once('id').commit({ deadlineMs: 100 });
  await expect(scripted.runtime.run(commit)).rejects.toMatchObject({ code: 'deadline-exceeded', outcome: 'applied' });
});

test('a refusal at once is what it says', async () => {
  onTxn = (call) => call.end(StatusCode.PERMISSION_DENIED, { message: 'etcdserver: permission denied' });
  await expect(scripted.runtime.run(commit())).rejects.toMatchObject({ code: 'permission-denied', outcome: 'not-applied' });
  expect(sent).toHaveLength(1);
});

test('it is not sent again beyond the life of its mark', async () => {
  onTxn = lost;
  await expect(scripted.runtime.run(commit({ deadlineMs: Number.POSITIVE_INFINITY }, 2))).rejects.toMatchObject({ outcome: 'unknown' });
  expect(scripted.runtime.monotonic()).toBeLessThanOrEqual(2_000);
});

test('an abort ends it between two sendings, in doubt', async () => {
  const controller = new AbortController();
  onTxn = (call) => {
    lost(call);
    scripted.runtime.timer(1, () => controller.abort());
  };
  await expect(scripted.runtime.run(commit({ signal: controller.signal }))).rejects.toMatchObject({
    code: 'cancelled',
    outcome: 'unknown',
  });
  expect(sent).toHaveLength(1);
  await scripted.client.close();
  expect(scripted.runtime.pendingTimers).toBe(0);
});

test('an abort or the deadline ends the wait for a lease, and nothing was sent', async () => {
  onGrant = () => {};
  const controller = new AbortController();
  scripted.runtime.timer(10, () => controller.abort());
  await expect(scripted.runtime.run(commit({ signal: controller.signal }))).rejects.toMatchObject({
    code: 'cancelled',
    outcome: 'not-applied',
  });
  await expect(scripted.runtime.run(commit({ deadlineMs: 100 }))).rejects.toMatchObject({
    code: 'deadline-exceeded',
    outcome: 'not-applied',
  });
  await expect(scripted.runtime.run(commit({ signal: AbortSignal.abort() }))).rejects.toMatchObject({ code: 'cancelled' });
  expect(sent).toHaveLength(0);
});

test('commits share a lease that outlives each by the time to live', async () => {
  onTxn = done;
  await scripted.runtime.run(Promise.all([commit(), commit(), commit()]));
  await scripted.runtime.advance(299_000);
  await scripted.runtime.run(commit());
  expect(grants.map(({ ttl, id }) => [ttl, id])).toEqual([[600, 0n]]);
  await scripted.runtime.advance(2_000);
  await scripted.runtime.run(commit());
  await scripted.runtime.run(commit({}, 7));
  expect(grants.map(({ ttl }) => ttl)).toEqual([600, 600, 14]);
});

test('a lease that could not be had is asked for again', async () => {
  onTxn = done;
  onGrant = (call) => call.end(StatusCode.RESOURCE_EXHAUSTED, { message: 'etcdserver: mvcc: database space exceeded' });
  await expect(scripted.runtime.run(commit())).rejects.toMatchObject({ code: 'no-space', outcome: 'not-applied' });
  onGrant = (call, ttl) => call.reply(LeaseGrantResponse.encode({ id: 5n, ttl }));
  expect((await scripted.runtime.run(commit())).succeeded).toBe(true);
});

test.each([
  ['', {}],
  ['id', { ttlSeconds: 0 }],
  ['id', { ttlSeconds: 1.5 }],
])('the id %o with %o is refused', (id, options) => {
  expect(() => scripted.client.txn().once(id, options)).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
});
