import { PutResponse, RangeResponse } from '@conclave/protocol';
import { type ConnectOptions, isConclaveError, key, list, put } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const written = PutResponse.encode({ header: { revision: 7 } });
const found = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('k'), value: Buffer.from('v') }], count: 1 });
const unavailable = 14;

type Step = (call: ScriptedCall) => void;

/** A client whose calls meet these answers, one after the other. */
async function answering(steps: readonly Step[], options: Partial<ConnectOptions> = {}): Promise<ScriptedClient> {
  const scripted = await scriptedClient(options);
  let next = 0;
  scripted.script.onCall = (call) => steps[next++]?.(call);
  return scripted;
}

const reply =
  (bytes: Uint8Array): Step =>
  (call) =>
    call.reply(bytes);
const fail =
  (code: number, message = '', notProcessed = false): Step =>
  (call) =>
    call.end(code, { message, notProcessed });
const silence: Step = () => {};

/** What the promise rejects with. */
async function rejection(scripted: ScriptedClient, promise: Promise<unknown>): Promise<unknown> {
  return scripted.runtime.run(
    promise.then(
      () => expect.unreachable('it resolved'),
      (error: unknown) => error,
    ),
  );
}

describe('a read', () => {
  test('is repeated until it is answered', async () => {
    const scripted = await answering([fail(unavailable, 'etcdserver: no leader'), fail(13, 'RST_STREAM'), fail(unavailable), reply(found)]);
    expect((await scripted.runtime.run(scripted.client.get('k')))?.value).toBe('v');
    expect(scripted.script.calls).toHaveLength(4);
  });

  test('pauses between attempts, ever longer', async () => {
    const scripted = await answering([fail(unavailable), fail(unavailable), fail(unavailable), fail(unavailable), reply(found)]);
    await scripted.runtime.run(scripted.client.get('k'));
    const at = scripted.script.calls.map((call) => call.at);
    const gaps = at.slice(1).map((time, index) => time - (at[index] as number));
    expect(gaps[0]).toBeGreaterThanOrEqual(10);
    expect(gaps[3]).toBeGreaterThanOrEqual(80);
  });

  test('that is refused is not repeated', async () => {
    const scripted = await answering([fail(11, 'etcdserver: mvcc: required revision has been compacted')]);
    expect(await rejection(scripted, scripted.client.get('k', { revision: 3n }))).toMatchObject({
      code: 'compacted',
      outcome: 'not-applied',
    });
    expect(scripted.script.calls).toHaveLength(1);
  });

  test('gives up when the next pause would end past its deadline, with the last failure', async () => {
    const scripted = await answering(Array.from({ length: 100 }, () => fail(unavailable, 'etcdserver: no leader')));
    const error = await rejection(scripted, scripted.client.get('k', { deadlineMs: 300 }));
    expect(error).toMatchObject({ code: 'no-leader', outcome: 'not-applied' });
    expect(scripted.runtime.monotonic()).toBeLessThanOrEqual(300);
    expect(scripted.script.calls.length).toBeGreaterThan(3);
  });

  test('goes to another endpoint after one fails', async () => {
    const scripted = await answering([fail(unavailable), reply(found)], { endpoints: 'a:1,b:2' });
    await scripted.runtime.advance(10);
    await scripted.runtime.run(scripted.client.get('k'));
    const [first, second] = scripted.script.calls.map((call) => call.address);
    expect(first).not.toBe(second);
  });

  test('that runs out of time says so, and leaves no doubt', async () => {
    const scripted = await answering([silence]);
    const error = await rejection(scripted, scripted.client.get('k', { deadlineMs: 200 }));
    expect(error).toMatchObject({ code: 'deadline-exceeded', outcome: 'not-applied' });
    expect(scripted.runtime.monotonic()).toBe(200);
  });

  test('as a transaction is repeated too', async () => {
    const scripted = await answering([fail(unavailable), fail(12, 'stop here')]);
    const error = await rejection(scripted, scripted.client.txn().if(key('a').exists()).then(list('k')).commit());
    expect(error).toMatchObject({ code: 'unimplemented', outcome: 'not-applied' });
    expect(scripted.script.calls).toHaveLength(2);
  });
});

describe('a write', () => {
  const doubtful = [
    [unavailable, 'etcdserver: no leader'],
    [unavailable, 'connection lost'],
    [13, 'RST_STREAM'],
    [2, 'no status'],
    [1, 'cancelled'],
    [4, 'context deadline exceeded'],
    [8, 'message larger than max'],
    [8, 'etcdserver: mvcc: database space exceeded'],
  ] as const;

  test.each(doubtful)('that ends with status %i, %s, is sent once and its outcome is unknown', async (code, message) => {
    const scripted = await answering([fail(code, message), reply(written)]);
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({ outcome: 'unknown', grpcCode: code });
    expect(scripted.script.calls).toHaveLength(1);
  });

  test.each([
    ['delete', (scripted: ScriptedClient) => scripted.client.delete('k')],
    ['compact', (scripted: ScriptedClient) => scripted.client.compact(3n)],
    ['txn', (scripted: ScriptedClient) => scripted.client.txn().then(put('k', 'v')).commit()],
    [
      'txn with a write in the other branch',
      (scripted: ScriptedClient) => scripted.client.txn().then(list('k')).else(put('k', 'v')).commit(),
    ],
  ] as const)('by %s is sent once', async (_name, act) => {
    const scripted = await answering([fail(unavailable), reply(written)]);
    expect(await rejection(scripted, act(scripted))).toMatchObject({ outcome: 'unknown' });
    expect(scripted.script.calls).toHaveLength(1);
  });

  test('is sent again when no server can have seen it', async () => {
    const scripted = await answering([fail(unavailable, 'refused', true), fail(unavailable, 'refused', true), reply(written)]);
    expect(await scripted.runtime.run(scripted.client.put('k', 'v'))).toEqual({ revision: 7n, prevKv: undefined });
    expect(scripted.script.calls).toHaveLength(3);
  });

  test('is not sent again once one server may have seen it', async () => {
    const scripted = await answering([fail(unavailable, 'refused', true), fail(unavailable, 'lost'), reply(written)]);
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({ outcome: 'unknown' });
    expect(scripted.script.calls).toHaveLength(2);
  });

  test('that the server refused is known not to be applied', async () => {
    const scripted = await answering([fail(3, 'etcdserver: request is too large')]);
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({ code: 'request-too-large', outcome: 'not-applied' });
  });

  test('takes the word of a server that knows the outcome', async () => {
    const scripted = await answering([
      (call) => call.end(unavailable, { message: 'etcdserver: leader changed', trailers: { 'conclave-outcome': 'not-applied' } }),
      reply(written),
    ]);
    expect(await scripted.runtime.run(scripted.client.put('k', 'v'))).toEqual({ revision: 7n, prevKv: undefined });
    expect(scripted.script.calls).toHaveLength(2);
  });

  test('whose answer cannot be read was applied', async () => {
    const scripted = await answering([reply(new Uint8Array([0xff]))]);
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({ code: 'internal', outcome: 'applied' });
  });
});

describe('a call with no endpoint to go to', () => {
  test('waits for one', async () => {
    let isUp = false;
    const scripted = await answering([reply(written)], { lazy: true });
    scripted.script.reach = () => isUp;
    scripted.script.cut();
    const promise = scripted.client.put('k', 'v');
    await scripted.runtime.advance(1_500);
    expect(scripted.script.calls).toHaveLength(0);
    isUp = true;
    expect((await scripted.runtime.run(promise)).revision).toBe(7n);
  });

  test('rejects at its deadline, never sent', async () => {
    const scripted = await answering([]);
    scripted.script.reach = () => false;
    scripted.script.cut();
    const error = await rejection(scripted, scripted.client.put('k', 'v', { deadlineMs: 700 }));
    expect(error).toMatchObject({ code: 'unavailable', outcome: 'not-applied' });
    expect(scripted.runtime.monotonic()).toBe(700);
    expect((error as Error).message).toContain('a:1 failed');
  });
});

describe('a signal', () => {
  test('that was aborted before stops the call from being sent', async () => {
    const scripted = await answering([reply(written)]);
    const cause = new Error('no longer wanted');
    const error = await rejection(scripted, scripted.client.put('k', 'v', { signal: AbortSignal.abort(cause) }));
    expect(error).toMatchObject({ code: 'cancelled', outcome: 'not-applied', cause });
    expect(scripted.script.calls).toHaveLength(0);
  });

  test('cancels a call under way, whose outcome is unknown if it writes', async () => {
    const scripted = await answering([silence, silence]);
    for (const [call, outcome] of [
      [(signal: AbortSignal) => scripted.client.put('k', 'v', { signal }), 'unknown'],
      [(signal: AbortSignal) => scripted.client.get('k', { signal }), 'not-applied'],
    ] as const) {
      const controller = new AbortController();
      const promise = call(controller.signal);
      await Promise.resolve();
      controller.abort();
      expect(await rejection(scripted, promise)).toMatchObject({ code: 'cancelled', outcome });
      expect(scripted.script.call.isCancelled).toBe(true);
    }
  });

  test('cancels a call that waits for an endpoint or for its next attempt', async () => {
    const scripted = await answering([fail(unavailable), fail(unavailable)]);
    const controller = new AbortController();
    const promise = scripted.client.get('k', { signal: controller.signal });
    await scripted.runtime.runUntil(() => scripted.script.calls.length === 1);
    scripted.script.reach = () => false;
    scripted.script.cut();
    await scripted.runtime.advance(100);
    controller.abort();
    expect(await rejection(scripted, promise)).toMatchObject({ code: 'cancelled', outcome: 'not-applied' });
  });

  test('that comes after the answer changes nothing', async () => {
    const controller = new AbortController();
    const scripted = await answering([
      (call) => {
        call.reply(written);
        controller.abort();
      },
    ]);
    expect((await scripted.runtime.run(scripted.client.put('k', 'v', { signal: controller.signal }))).revision).toBe(7n);
  });

  test('may be shared by any number of calls and watches', async () => {
    const warnings: Error[] = [];
    const keep = (warning: Error): void => void warnings.push(warning);
    process.on('warning', keep);
    const scripted = await answering(Array.from({ length: 200 }, () => silence));
    const controller = new AbortController();
    const { signal } = controller;
    const calls = Promise.allSettled(Array.from({ length: 100 }, () => scripted.client.get('k', { signal })));
    let ended = 0;
    for (let n = 0; n < 100; n++) scripted.client.watch('k', { startRevision: 5, signal }).subscribe({ error: () => ended++ });
    await scripted.runtime.advance(10);
    controller.abort();
    const results = await scripted.runtime.run(calls);
    expect(results.every((result) => result.status === 'rejected' && isConclaveError(result.reason, 'cancelled'))).toBe(true);
    expect(ended).toBe(100);
    process.off('warning', keep);
    expect(warnings).toEqual([]);
  });
});

describe('closing the client', () => {
  test('rejects calls under way, and says what is known of them', async () => {
    const scripted = await answering([silence, silence]);
    const calls = [scripted.client.put('k', 'v'), scripted.client.get('k')];
    const errors = Promise.allSettled(calls);
    await scripted.client.close();
    expect(await scripted.runtime.run(errors)).toMatchObject([
      { reason: { code: 'client-closed', outcome: 'unknown' } },
      { reason: { code: 'client-closed', outcome: 'not-applied' } },
    ]);
  });

  test('rejects calls that wait, and those that come later', async () => {
    const scripted = await answering([]);
    scripted.script.reach = () => false;
    scripted.script.cut();
    const waiting = Promise.allSettled([scripted.client.put('k', 'v')]);
    await scripted.client.close();
    expect(await scripted.runtime.run(waiting)).toMatchObject([{ reason: { code: 'client-closed', outcome: 'not-applied' } }]);
    expect(await rejection(scripted, scripted.client.get('k'))).toMatchObject({ code: 'client-closed' });
  });

  test('leaves no timer behind', async () => {
    const scripted = await answering([silence, fail(unavailable)]);
    const calls = Promise.allSettled([scripted.client.put('k', 'v', { deadlineMs: Number.POSITIVE_INFINITY }), scripted.client.get('k')]);
    await scripted.runtime.advance(10);
    await scripted.client.close();
    await scripted.runtime.run(calls);
    expect(scripted.runtime.pendingTimers).toBe(0);
  });
});

describe('an argument that cannot be sent', () => {
  test.each([
    ['an empty key', (scripted: ScriptedClient) => scripted.client.put('', 'v')],
    ['a negative revision', (scripted: ScriptedClient) => scripted.client.get('k', { revision: -1n })],
    ['a revision beyond 2^53', (scripted: ScriptedClient) => scripted.client.get('k', { revision: 2n ** 60n })],
    ['a lease beyond 64 bits', (scripted: ScriptedClient) => scripted.client.put('k', 'v', { lease: 2n ** 64n })],
    ['a deadline that is no number', (scripted: ScriptedClient) => scripted.client.put('k', 'v', { deadlineMs: Number.NaN })],
    ['half a second of lease', (scripted: ScriptedClient) => scripted.client.lease.grant({ ttlSeconds: 0.5 })],
  ] as const)('rejects: %s', async (_name, act) => {
    const scripted = await answering([]);
    const error = await rejection(scripted, act(scripted));
    expect(isConclaveError(error, 'invalid-argument')).toBe(true);
    expect(scripted.script.calls).toHaveLength(0);
  });
});
