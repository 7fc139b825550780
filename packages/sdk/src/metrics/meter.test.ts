import { RangeResponse, WatchRequest, WatchResponse } from '@conclave/protocol';
import type { ClientGauges, Metrics } from '@conclave/sdk';
import { type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const at = (revision: number): Uint8Array => RangeResponse.encode({ header: { revision } });

interface Counts {
  events: number;
  resumed: number;
  resynced: number;
}

interface Measured extends ScriptedClient {
  readonly gauges: ClientGauges;
  readonly counts: Counts;
}

/** A client and what it measures; its watches are taken up by a server that then says what the test does. */
async function measured(): Promise<Measured> {
  const counts: Counts = { events: 0, resumed: 0, resynced: 0 };
  const add =
    (name: keyof Counts) =>
    (count = 1): void => {
      counts[name] += count;
    };
  let gauges: ClientGauges | undefined;
  const metrics: Metrics = {
    callEnded() {},
    callRepeated() {},
    watchEvents: add('events'),
    watchesResumed: add('resumed'),
    viewResynced: add('resynced'),
    leaseRenewed() {},
    leaseLost() {},
    endpointChanged() {},
    observe: (observed) => {
      gauges = observed;
      return () => {
        gauges = undefined;
      };
    },
  };
  const scripted = await scriptedClient({ metrics });
  scripted.script.onStream = (stream) => {
    stream.onWrite = (bytes) => {
      const { createRequest } = WatchRequest.decode(bytes);
      if (createRequest === undefined || stream.isEnded) return;
      stream.send(WatchResponse.encode({ watchId: createRequest.watchId, created: true, header: { revision: 1_000 } }));
    };
  };
  if (gauges === undefined) return expect.unreachable('nobody was given the gauges');
  return { ...scripted, gauges, counts };
}

const events = (revision: number, header: number, more: Partial<{ fragment: boolean }> = {}): Uint8Array =>
  WatchResponse.encode({
    watchId: 1n,
    header: { revision: header },
    events: [{ kv: { key: Buffer.from('k'), modRevision: revision, version: 2 } }],
    ...more,
  });
const asksForProgress = (stream: ScriptedStream): number =>
  stream.written.filter((bytes) => WatchRequest.decode(bytes).progressRequest !== undefined).length;

describe('the lag of a watch', () => {
  test('is what the server has beyond the last event, until it says that there is no more', async () => {
    const { runtime, client, script, gauges, counts } = await measured();
    client.watch('k', { startRevision: 5n }).subscribe();
    await runtime.advance(10);
    // What the server says when it begins says nothing of the keys that are watched.
    expect(gauges.watchLagRevisions).toBe(0);
    script.stream.send(events(10, 100));
    await runtime.advance(10);
    expect(gauges.watchLagRevisions).toBe(90);
    expect(asksForProgress(script.stream)).toBe(1);
    script.stream.send(events(60, 100));
    await runtime.advance(10);
    expect(gauges.watchLagRevisions).toBe(40);
    script.stream.send(WatchResponse.encode({ watchId: -1n, header: { revision: 100 } }));
    await runtime.advance(10);
    expect(gauges.watchLagRevisions).toBe(0);
    script.stream.send(events(101, 101));
    await runtime.advance(10);
    expect(gauges.watchLagRevisions).toBe(0);
    expect(asksForProgress(script.stream)).toBe(2);
    expect(counts).toMatchObject({ events: 3 });
    await client.close();
  });

  test('is not asked about between the fragments of a batch, nor by a client that does not measure', async () => {
    const { runtime, client, script } = await measured();
    client.watch('k', { startRevision: 5n }).subscribe();
    await runtime.advance(10);
    script.stream.send(events(10, 100, { fragment: true }));
    await runtime.advance(10);
    expect(asksForProgress(script.stream)).toBe(0);
    await client.close();
    const plain = await scriptedClient();
    plain.client.watch('k', { startRevision: 5n }).subscribe();
    await plain.runtime.advance(10);
    plain.script.stream.send(WatchResponse.encode({ watchId: 1n, created: true }));
    plain.script.stream.send(events(10, 100));
    await plain.runtime.advance(10);
    expect(asksForProgress(plain.script.stream)).toBe(0);
    await plain.client.close();
  });

  test('without a stream is how far the client has seen the store since', async () => {
    const { runtime, client, script, gauges, counts } = await measured();
    script.onCall = (call) => call.reply(at(50));
    client.watch('k', { startRevision: 21n }).subscribe();
    await runtime.advance(10);
    await runtime.run(client.get('k'));
    expect(gauges.watchLagRevisions).toBe(0);
    script.onStream = () => {};
    script.reach = () => false;
    script.cut();
    await runtime.advance(10);
    // The server's `created` told of a store at 1000.
    expect(gauges.watchLagRevisions).toBe(980);
    script.reach = () => true;
    await runtime.runUntil(() => counts.resumed === 1);
    expect(gauges.watchLagRevisions).toBe(0);
    await client.close();
  });

  test('ends with the watch', async () => {
    const { runtime, client, script, gauges } = await measured();
    const subscription = client.watch('k', { startRevision: 5n }).subscribe();
    await runtime.advance(10);
    script.stream.send(events(10, 100));
    await runtime.advance(10);
    expect(gauges.watchLagRevisions).toBe(90);
    subscription.unsubscribe();
    expect(gauges.watchLagRevisions).toBe(0);
  });
});

test('a view that missed history counts as read anew', async () => {
  const { runtime, client, script, counts } = await measured();
  script.onCall = (call) => call.reply(at(7));
  const view = await runtime.run(client.view('k'));
  expect(counts).toMatchObject({ resynced: 0 });
  script.stream.send(WatchResponse.encode({ watchId: 1n, canceled: true, compactRevision: 20 }));
  await runtime.advance(100);
  expect(counts).toMatchObject({ resynced: 1 });
  await view.close();
});

test('a call that is repeated is in flight once', async () => {
  const { runtime, client, script, gauges } = await measured();
  let failures = 2;
  const seen: number[] = [];
  script.onCall = (call) => {
    seen.push(gauges.callsInFlight);
    if (failures-- > 0) call.end(14);
    else call.reply(at(7));
  };
  await runtime.run(client.get('k'));
  expect([...seen, gauges.callsInFlight]).toEqual([1, 1, 1, 0]);
});
