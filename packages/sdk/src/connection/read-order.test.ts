import { KV, PutResponse, RangeRequest, RangeResponse, TxnResponse, WatchRequest, WatchResponse } from '@conclave/protocol';
import { get } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

/** How far each member is. */
let revisions: Record<string, number>;

function answer(call: ScriptedCall): void {
  const header = { revision: revisions[call.address] ?? 0 };
  if (call.path === KV.methods.put.path) call.reply(PutResponse.encode({ header }));
  else if (call.path === KV.methods.txn.path)
    call.reply(TxnResponse.encode({ header, succeeded: true, responses: [{ responseRange: { header } }] }));
  else call.reply(RangeResponse.encode({ header }));
}

async function client(options: { readonly ordered?: boolean; readonly endpoints?: string } = {}): Promise<ScriptedClient> {
  const scripted = await scriptedClient({ endpoints: 'a:1,b:2', ordered: true, ...options });
  scripted.script.onCall = answer;
  return scripted;
}

const listed = async ({ client, runtime }: ScriptedClient): Promise<number> =>
  Number((await runtime.run(client.list('k', { serializable: true, deadlineMs: 1_000 }))).revision);

describe('a client that is ordered', () => {
  test('asks another member at once when one is behind what it has seen', async () => {
    revisions = { 'a:1': 5, 'b:2': 9 };
    const scripted = await client();
    const seen: number[] = [];
    for (let n = 0; n < 6; n++) seen.push(await listed(scripted));
    expect(seen).toEqual([...seen].sort((one, other) => one - other));
    expect(seen.at(-1)).toBe(9);
    expect(scripted.runtime.monotonic()).toBe(0);
  });

  test('waits for the only member there is to catch up', async () => {
    revisions = { 'a:1': 9 };
    const scripted = await client({ endpoints: 'a:1' });
    await listed(scripted);
    revisions = { 'a:1': 8 };
    scripted.runtime.timer(300, () => {
      revisions = { 'a:1': 10 };
    });
    expect(await listed(scripted)).toBe(10);
    expect(scripted.runtime.monotonic()).toBeGreaterThanOrEqual(300);
  });

  test('rather fails than goes back', async () => {
    revisions = { 'a:1': 9, 'b:2': 9 };
    const scripted = await client();
    await listed(scripted);
    revisions = { 'a:1': 8, 'b:2': 7 };
    await expect(listed(scripted)).rejects.toMatchObject({ code: 'stale', outcome: 'not-applied' });
    expect(scripted.runtime.monotonic()).toBeLessThanOrEqual(1_000);
    const controller = new AbortController();
    scripted.runtime.timer(50, () => controller.abort());
    await expect(scripted.runtime.run(scripted.client.get('k', { signal: controller.signal }))).rejects.toMatchObject({
      code: 'cancelled',
    });
  });

  test.each(['put', 'txn', 'watch'] as const)('has seen what a %s of its own told', async (kind) => {
    revisions = { 'a:1': 9, 'b:2': 9 };
    const scripted = await client();
    const { runtime, script } = scripted;
    if (kind === 'put') await runtime.run(scripted.client.put('k', ''));
    if (kind === 'txn') await runtime.run(scripted.client.txn().then(get('k')).commit());
    if (kind === 'watch') {
      script.onStream = (stream) => {
        stream.onWrite = (bytes) => {
          if (WatchRequest.decode(bytes).createRequest === undefined) return;
          const header = { revision: 9 };
          stream.send(WatchResponse.encode({ header, created: true, watchId: 1n }));
          stream.send(WatchResponse.encode({ header, watchId: 1n, events: [{ kv: { key: Buffer.from('k'), modRevision: 9 } }] }));
        };
      };
      const events = scripted.client.watch('k', { startRevision: 9 })[Symbol.asyncIterator]();
      await runtime.run(events.next());
      await runtime.run(Promise.resolve(events.return?.()));
    }
    revisions = { 'a:1': 8, 'b:2': 8 };
    await expect(listed(scripted)).rejects.toMatchObject({ code: 'stale' });
  });

  test('does not hold a read to what came after it was asked', async () => {
    revisions = { 'a:1': 5, 'b:2': 5 };
    const scripted = await client();
    const { runtime, script } = scripted;
    const pending: ScriptedCall[] = [];
    script.onCall = (call) => pending.push(call);
    const reading = scripted.client.list('k');
    const writing = scripted.client.put('k', '');
    await runtime.advance(0);
    revisions = { 'a:1': 6, 'b:2': 6 };
    answer(pending[1] as ScriptedCall);
    await runtime.run(writing);
    revisions = { 'a:1': 5, 'b:2': 5 };
    answer(pending[0] as ScriptedCall);
    expect((await runtime.run(reading)).revision).toBe(5n);
  });

  test('takes the answer of a write as it comes', async () => {
    revisions = { 'a:1': 9, 'b:2': 9 };
    const scripted = await client();
    await listed(scripted);
    revisions = { 'a:1': 8, 'b:2': 8 };
    expect((await scripted.runtime.run(scripted.client.put('k', ''))).revision).toBe(8n);
  });
});

test('a client that is not takes what it is given', async () => {
  revisions = { 'a:1': 5, 'b:2': 9 };
  const scripted = await client({ ordered: false });
  const seen = [await listed(scripted), await listed(scripted), await listed(scripted)];
  expect(new Set(seen)).toEqual(new Set([5, 9]));
  expect(scripted.script.calls.every(({ request }) => RangeRequest.decode(request).serializable)).toBe(true);
});
