import { RangeResponse, WatchRequest, WatchResponse } from '@conclave/protocol';
import { type ClientGauges, type ConnectOptions, type Metrics, type Middleware, prefix, put } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
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

interface Counting {
  readonly metrics: Metrics;
  readonly counts: Counts;
  /** Undefined: nobody is observed. */
  readonly gauges: () => ClientGauges | undefined;
}

function counting(): Counting {
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
  return { metrics, counts, gauges: () => gauges };
}

/** A client and what it measures; its watches are taken up by a server that then says what the test does. */
async function measured(options: Pick<ConnectOptions, 'middleware'> = {}): Promise<Measured> {
  const { metrics, counts, gauges } = counting();
  const scripted = await scriptedClient({ metrics, ...options });
  scripted.script.onStream = (stream) => {
    stream.onWrite = (bytes) => {
      const { createRequest } = WatchRequest.decode(bytes);
      if (createRequest === undefined || stream.isEnded) return;
      stream.send(WatchResponse.encode({ watchId: createRequest.watchId, created: true, header: { revision: 1_000 } }));
    };
  };
  return { ...scripted, gauges: gauges() ?? expect.unreachable('nobody was given the gauges'), counts };
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
  test('does not end while it reads what there is in place of compacted history, or is held back in telling it', async () => {
    const { runtime, client, script, gauges } = await measured();
    script.onCall = (call) =>
      call.reply(RangeResponse.encode({ header: { revision: 100 }, kvs: [{ key: Buffer.from('k'), modRevision: 90 }] }));
    const watch = client.watch('k', { startRevision: 11n, onCompacted: 'relist' });
    watch.subscribe(() => watch.pause());
    await runtime.runUntil(() => script.streams.length === 1);
    script.onCall = () => {};
    script.stream.send(WatchResponse.encode({ watchId: 1n, canceled: true, compactRevision: 80, header: { revision: 100 } }));
    await runtime.advance(0);
    expect(gauges.watchLagRevisions).toBe(1_000 - 10);
    script.call.reply(RangeResponse.encode({ header: { revision: 1_000 }, kvs: [{ key: Buffer.from('k'), modRevision: 900 }] }));
    await runtime.advance(0);
    expect(gauges.watchLagRevisions).toBe(1_000 - 10);
    watch.resume();
    watch.resume();
    await runtime.runUntil(() => script.streams.length === 2);
    watch.resume();
    expect(gauges.watchLagRevisions).toBe(0);
  });

  test('counts of a batch only what is new in it', async () => {
    const { runtime, client, script, counts } = await measured();
    client.watch('k', { startRevision: 5n }).subscribe();
    await runtime.runUntil(() => script.streams.length === 1);
    script.stream.send(events(5, 6));
    await runtime.advance(0);
    const kvs = [5, 6].map((modRevision) => ({ kv: { key: Buffer.from('k'), modRevision, version: 2 } }));
    script.stream.send(WatchResponse.encode({ watchId: 1n, header: { revision: 6 }, events: kvs }));
    await runtime.advance(0);
    expect(counts.events).toBe(2);
  });

  test('counts what is synthesised as told', async () => {
    const { runtime, client, script, counts } = await measured();
    client.watch('k', { startRevision: 1n, onCompacted: 'relist' }).subscribe();
    await runtime.runUntil(() => script.streams.length === 1);
    script.stream.send(WatchResponse.encode({ watchId: 1n, canceled: true, compactRevision: 80, header: { revision: 100 } }));
    await runtime.advance(0);
    const kvs = [90, 95].map((modRevision) => ({ key: Buffer.from(`k${modRevision}`), modRevision }));
    script.call.reply(RangeResponse.encode({ header: { revision: 100 }, kvs }));
    await runtime.advance(0);
    expect(counts.events).toBe(2);
  });

  test('ends with a watch that ends while it reads', async () => {
    const { runtime, client, script, gauges } = await measured();
    const subscription = client.watch('k', { startRevision: 1n, onCompacted: 'relist' }).subscribe();
    await runtime.runUntil(() => script.streams.length === 1);
    script.stream.send(WatchResponse.encode({ watchId: 1n, canceled: true, compactRevision: 80, header: { revision: 100 } }));
    await runtime.advance(0);
    expect(gauges.watchLagRevisions).toBeGreaterThan(0);
    subscription.unsubscribe();
    expect(gauges.watchLagRevisions).toBe(0);
  });

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

test('events that a server sends anew after a reconnect are counted once', async () => {
  const { runtime, client, script, counts } = await measured();
  script.onCall = (call) => call.reply(at(7));
  const view = await runtime.run(client.view('k'));
  script.stream.send(events(10, 10));
  // Of this batch a part is missing: it is not told yet.
  script.stream.send(events(12, 12, { fragment: true }));
  await runtime.advance(10);
  expect(counts.events).toBe(1);
  const before = script.streams.length;
  script.cut();
  await runtime.runUntil(() => script.streams.length > before);
  await runtime.advance(10);
  for (const revision of [10, 12]) script.stream.send(events(revision, 12));
  await runtime.advance(10);
  expect(counts.events).toBe(2);
  await view.close();
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

describe('calls in flight are none', () => {
  test('after whatever became of them', async () => {
    const { runtime, client, script, gauges } = await measured();
    const ends: ((call: ScriptedCall) => void)[] = [
      (call) => call.reply(at(7)),
      (call) => call.end(14),
      (call) => call.end(13),
      (call) => call.end(14, { notProcessed: true }),
      (call) => call.reply(Buffer.from([0xff])),
      () => script.cut(),
      () => undefined,
    ];
    for (const end of ends) {
      for (const give of ['nothing', 'abort', 'abort at once'] as const) {
        script.onCall = end;
        const controller = new AbortController();
        if (give === 'abort at once') controller.abort();
        const options = { deadlineMs: 300, signal: controller.signal };
        const calls = Promise.allSettled([client.put('k', 'v', options), client.get('k', options)]);
        expect(gauges.callsInFlight).toBe(give === 'abort at once' ? 0 : 2);
        if (give === 'abort') {
          await runtime.advance(1);
          controller.abort();
        }
        await runtime.run(calls);
        expect(gauges.callsInFlight).toBe(0);
      }
    }
  });

  test('after the client is closed, whether they were sent, waited, or were held back', async () => {
    const { runtime, client, script, gauges } = await measured({ middleware: [({ method }, next) => void (method !== 'Txn' && next())] });
    const sent = Promise.allSettled([client.put('k', 'v'), client.txn().then(put('k', 'v')).commit()]);
    await runtime.advance(1);
    script.reach = () => false;
    script.cut();
    const waiting = Promise.allSettled([client.get('k')]);
    await runtime.advance(1);
    expect(gauges.callsInFlight).toBeGreaterThan(0);
    await client.close();
    await runtime.run(Promise.all([sent, waiting]));
    expect(gauges.callsInFlight).toBe(0);
  });
});

test('a question to one member that is refused, or held back for too long, is in flight no more', async () => {
  for (const refuse of [true, false]) {
    const asked: string[] = [];
    const middleware: Middleware = ({ method }, next) => {
      if (method !== 'Status') return next();
      asked.push(method);
      if (refuse) throw new Error('no such questions');
    };
    const { runtime, client, script, gauges } = await measured({ middleware: [middleware] });
    script.onCall = (call) => call.reply(at(7));
    const view = await runtime.run(client.view(prefix('a/')));
    void view.reach({ maxStaleMs: 0 }).catch(() => undefined);
    await runtime.advance(10_000);
    expect(asked.length).toBeGreaterThan(0);
    await view.close();
    await runtime.advance(10_000);
    expect(gauges.callsInFlight).toBe(0);
    await client.close();
  }
});

test('whoever could not connect is not observed any longer', async () => {
  const { metrics, gauges } = counting();
  const scripted = scriptedClient({ metrics, deadlineMs: 100, prepare: (script) => (script.reach = () => false) });
  await expect(scripted).rejects.toMatchObject({ code: 'unavailable' });
  expect(gauges()).toBeUndefined();
});
