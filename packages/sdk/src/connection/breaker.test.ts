import { PutResponse, RangeResponse, WatchRequest } from '@conclave/protocol';
import type { ClientStatus } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const found = RangeResponse.encode({ header: { revision: 7 } });
const written = PutResponse.encode({ header: { revision: 7 } });
const isProbe = ({ request }: ScriptedCall): boolean =>
  request.length < 10 && Buffer.from(request).includes(Buffer.from([0x0a, 0x01, 0x00]));

/** A client of some servers, of which `ill` do not answer, or as told. */
async function servers(endpoints: string) {
  const ill = new Map<string, (call: ScriptedCall) => void>();
  let status: ClientStatus | undefined;
  const scripted: ScriptedClient = await scriptedClient({
    endpoints,
    prepare: (script) => {
      script.onCall = (call) => {
        const answer = ill.get(call.address);
        if (answer === undefined) call.reply(call.path.endsWith('/Put') ? written : found);
        else answer(call);
      };
    },
  });
  await scripted.runtime.advance(10);
  scripted.client.status().subscribe((now) => {
    status = now;
  });
  const asked = (address: string): number => scripted.script.calls.filter((call) => call.address === address && !isProbe(call)).length;
  return { ...scripted, ill, asked, status: () => status as ClientStatus };
}

const silent = (): void => {};
const noLeader = (call: ScriptedCall): void => call.end(14, { message: 'etcdserver: no leader' });

describe('a read that waits for long', () => {
  test('is asked of another endpoint within a second, and the first answer counts', async () => {
    const { runtime, script, client, ill, asked } = await servers('a:1,b:2');
    ill.set('a:1', silent);
    const started = runtime.monotonic();
    await runtime.run(Promise.all([client.get('k'), client.get('k')]));
    expect(runtime.monotonic() - started).toBeLessThanOrEqual(1_000);
    expect([asked('a:1'), asked('b:2')]).toEqual([1, 2]);
    // Nothing of it is left over.
    expect(script.calls.find(({ address }) => address === 'a:1')?.isCancelled).toBe(true);
  });

  test('may as well be answered by the first, and the other is let go', async () => {
    const { runtime, script, client, ill } = await servers('a:1,b:2');
    for (const address of ['a:1', 'b:2']) ill.set(address, silent);
    const read = client.get('k');
    await runtime.runUntil(() => script.calls.length === 2);
    const [first, second] = script.calls as [ScriptedCall, ScriptedCall];
    first.reply(found);
    expect(await runtime.run(read)).toBeUndefined();
    await runtime.advance(0);
    expect(second.isCancelled).toBe(true);
  });

  test('goes on with the second attempt when the first fails, and the other way round', async () => {
    const { runtime, script, client, ill } = await servers('a:1,b:2');
    for (const address of ['a:1', 'b:2']) ill.set(address, silent);
    for (const at of [0, 1]) {
      const before = script.calls.length;
      const read = client.get('k');
      await runtime.runUntil(() => script.calls.length === before + 2);
      const attempts = script.calls.slice(before);
      attempts[at]?.end(14, { message: 'etcdserver: request timed out' });
      await runtime.advance(0);
      attempts[1 - at]?.reply(found);
      expect(await runtime.run(read)).toBeUndefined();
      expect(script.calls).toHaveLength(before + 2);
    }
  });

  test('is asked of a third one when the second is slow, too', async () => {
    const { runtime, client, ill, asked } = await servers('a:1,b:2,c:3');
    for (const address of ['a:1', 'b:2', 'c:3']) ill.set(address, silent);
    const read = client.get('k');
    await runtime.advance(1_000);
    const untouched = ['a:1', 'b:2', 'c:3'].filter((address) => asked(address) === 0);
    expect(untouched).toHaveLength(1);
    ill.delete(untouched[0] ?? '');
    const started = runtime.monotonic();
    await runtime.run(read);
    expect(runtime.monotonic() - started).toBeLessThanOrEqual(1_000);
  });

  test('is left to wait where there is no other, and cancelled as a whole', async () => {
    const alone = await servers('a:1');
    alone.ill.set('a:1', silent);
    const read = alone.client.get('k').catch((error: unknown) => error);
    await alone.runtime.advance(3_000);
    expect(alone.asked('a:1')).toBe(1);
    await alone.client.close();
    await alone.runtime.run(read);
    const { runtime, script, client, ill } = await servers('a:1,b:2');
    for (const address of ['a:1', 'b:2']) ill.set(address, silent);
    const controller = new AbortController();
    const given = client.get('k', { signal: controller.signal });
    await runtime.runUntil(() => script.calls.length === 2);
    controller.abort();
    await expect(runtime.run(given)).rejects.toMatchObject({ code: 'cancelled' });
    await runtime.advance(0);
    expect(script.calls.map(({ isCancelled }) => isCancelled)).toEqual([true, true]);
  });

  test('is not asked twice with all others when all members are slow: a tenth of the calls is, once twenty were', async () => {
    const { runtime, script, client, ill } = await servers('a:1,b:2');
    const late = (call: ScriptedCall): void => void runtime.timer(3_000, () => call.reply(found));
    for (const address of ['a:1', 'b:2']) ill.set(address, late);
    const sent = async (reads: number): Promise<number> => {
      const before = script.calls.length;
      await runtime.run(Promise.all(Array.from({ length: reads }, () => client.get('k'))));
      return script.calls.length - before;
    };
    expect(await sent(100)).toBe(100 + 20);
    expect(await sent(100)).toBe(100 + 10);
    expect(await sent(50)).toBe(50 + 5);
  });

  test('is asked of another as often as that helps', async () => {
    const { runtime, client, ill, asked } = await servers('a:1,b:2');
    ill.set('a:1', silent);
    const started = runtime.monotonic();
    await runtime.run(Promise.all(Array.from({ length: 100 }, () => client.get('k'))));
    expect([asked('a:1'), asked('b:2')]).toEqual([50, 100]);
    // Each that helped lets the next go, so that more than the budget holds need not wait.
    expect(runtime.monotonic() - started).toBeLessThanOrEqual(1_000);
  });

  test('is not kept waiting by many others where one of three members stands still', async () => {
    const { runtime, client, ill, script } = await servers('a:1,b:2,c:3');
    const soon = (call: ScriptedCall): void => void runtime.timer(20, () => call.reply(found));
    for (const address of ['a:1', 'c:3']) ill.set(address, soon);
    ill.set('b:2', silent);
    script.answersPing = (address) => address !== 'b:2';
    let longestMs = 0;
    const read = async (): Promise<void> => {
      while (runtime.monotonic() < 5_000) {
        const started = runtime.monotonic();
        await client.get('k');
        longestMs = Math.max(longestMs, runtime.monotonic() - started);
      }
    };
    await runtime.run(Promise.all(Array.from({ length: 256 }, read)));
    expect(longestMs).toBeLessThan(1_500);
  });

  test('is never a write', async () => {
    const { runtime, script, client, ill } = await servers('a:1,b:2');
    for (const address of ['a:1', 'b:2']) ill.set(address, silent);
    const write = client.put('k', 'v');
    await expect(runtime.run(write)).rejects.toMatchObject({ code: 'deadline-exceeded', outcome: 'unknown' });
    expect(script.calls.filter(({ path }) => path.endsWith('/Put'))).toHaveLength(1);
  });
});

describe('an endpoint that keeps failing', () => {
  test('is left alone, which the status says, and used again when it answers', async () => {
    const { runtime, client, ill, asked, status } = await servers('a:1,b:2');
    ill.set('a:1', noLeader);
    for (let n = 0; n < 10; n++) await runtime.run(client.get('k'));
    expect(asked('a:1')).toBe(3);
    expect(status()).toMatchObject({
      state: 'degraded',
      reason: expect.stringContaining('a:1 ready: left alone, as calls fail: etcdserver: no leader'),
    });
    await runtime.advance(5_000);
    for (let n = 0; n < 10; n++) await runtime.run(client.get('k'));
    expect(asked('a:1')).toBe(3);
    ill.delete('a:1');
    await runtime.runUntil(() => status().state === 'ready');
    for (let n = 0; n < 10; n++) await runtime.run(client.get('k'));
    expect(asked('a:1')).toBe(8);
    await client.close();
    expect(runtime.pendingTimers).toBe(0);
  });

  test('is asked by a call of our own, ever more seldom', async () => {
    const { runtime, script, client, ill } = await servers('a:1,b:2');
    ill.set('a:1', noLeader);
    for (let n = 0; n < 10; n++) await runtime.run(client.get('k'));
    const probes = (): number => script.calls.filter((call) => call.address === 'a:1' && isProbe(call)).length;
    await runtime.advance(10_000);
    const early = probes();
    expect(early).toBeGreaterThan(1);
    await runtime.advance(120_000);
    expect(probes() - early).toBeLessThan(10);
  });

  test('is left alone also when it just does not answer, reads or writes', async () => {
    const { runtime, client, ill, asked } = await servers('a:1,b:2');
    ill.set('a:1', silent);
    for (let n = 0; n < 8; n++) await runtime.run(client.put('k', 'v', { deadlineMs: 2_000 }).catch(() => {}));
    const before = asked('a:1');
    expect(before).toBeLessThanOrEqual(4);
    for (let n = 0; n < 8; n++) await runtime.run(client.put('k', 'v'));
    expect(asked('a:1')).toBe(before);
  });

  test('is not one whose calls had little time, or were refused', async () => {
    const { runtime, client, ill, asked } = await servers('a:1,b:2');
    ill.set('a:1', silent);
    for (let n = 0; n < 20; n++) await runtime.run(client.get('k', { deadlineMs: 20 }).catch(() => {}));
    expect(asked('a:1')).toBe(10);
    ill.set('a:1', (call) => call.end(7, { message: 'etcdserver: permission denied' }));
    for (let n = 0; n < 20; n++) await runtime.run(client.get('k').catch(() => {}));
    expect(asked('a:1')).toBe(20);
  });

  test('is used all the same when it is the only one', async () => {
    const { runtime, client, ill, asked, status } = await servers('a:1');
    ill.set('a:1', noLeader);
    for (let n = 0; n < 5; n++) await runtime.run(client.put('k', 'v').catch(() => {}));
    expect(asked('a:1')).toBe(5);
    expect(status().state).toBe('degraded');
    ill.delete('a:1');
    await runtime.run(client.put('k', 'v'));
    expect(status().state).toBe('ready');
  });

  test('loses its streams to the others, which go on where they were', async () => {
    const { runtime, script, client, ill } = await servers('a:1,b:2');
    client.watch('k', { startRevision: 5 }).subscribe();
    await runtime.runUntil(() => (script.streams[0]?.written.length ?? 0) > 0);
    const [stream] = script.streams;
    const from = stream?.address ?? '';
    ill.set(from, noLeader);
    for (let n = 0; n < 10; n++) await runtime.run(client.get('k'));
    await runtime.runUntil(() => (script.streams[1]?.written.length ?? 0) > 0);
    expect([stream?.isCancelled, script.streams[1]?.address === from]).toEqual([true, false]);
    const { createRequest } = WatchRequest.decode(script.streams[1]?.written[0] ?? new Uint8Array());
    expect(createRequest?.startRevision).toBe(5);
  });
});
