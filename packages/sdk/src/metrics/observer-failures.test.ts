import { LeaseGrantRequest, LeaseGrantResponse, PutResponse, RangeResponse, WatchRequest, WatchResponse } from '@conclave/protocol';
import type { Metrics } from '@conclave/sdk';
import { type ScriptedTransport, scriptedClient } from '@conclave/testkit';
import type { Logger } from '@conclave/wire';
import { describe, expect, test, vi } from 'vitest';

const mine = new Error('mine');
const fail = (): never => {
  throw mine;
};

function serve(script: ScriptedTransport): void {
  let failures = 1;
  script.onCall = (call) => {
    if (call.path.endsWith('/LeaseGrant')) call.reply(LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(call.request).id, ttl: 3 }));
    else if (call.path.endsWith('/Put')) call.reply(PutResponse.encode({ header: { revision: 7 } }));
    else if (failures-- > 0) call.end(14);
    else call.reply(RangeResponse.encode({ header: { revision: 7 } }));
  };
  script.onStream = (stream) => {
    stream.onWrite = (bytes) => {
      if (!stream.path.endsWith('/Watch')) return;
      const { createRequest } = WatchRequest.decode(bytes);
      if (createRequest === undefined || stream.isEnded) return;
      stream.send(WatchResponse.encode({ watchId: createRequest.watchId, created: true, header: { revision: 7 } }));
      stream.send(
        WatchResponse.encode({
          watchId: createRequest.watchId,
          header: { revision: 7 },
          events: [{ kv: { key: createRequest.key, modRevision: createRequest.startRevision } }],
        }),
      );
    };
  };
}

describe('what a client measures and logs goes on when that fails', () => {
  test('by metrics that throw: the log is told once for each method', async () => {
    const lines: object[] = [];
    const log: Logger = { debug() {}, info() {}, error() {}, warn: (fields, message) => void lines.push({ ...fields, message }) };
    const metrics: Metrics = {
      callEnded: fail,
      callRepeated: fail,
      watchEvents: fail,
      watchesResumed: fail,
      viewResynced: fail,
      leaseRenewed: fail,
      leaseLost: fail,
      endpointChanged: fail,
      observe: () => fail,
    };
    const { runtime, client, script } = await scriptedClient({ metrics, log, prepare: serve });
    expect((await runtime.run(client.put('k', 'v'))).revision).toBe(7n);
    expect(await runtime.run(client.get('k'))).toBeUndefined();
    const revisions: bigint[] = [];
    client.watch('k', { startRevision: 7n }).subscribe(({ revision }) => void revisions.push(revision));
    const lease = await runtime.run(client.lease.grant({ ttlSeconds: 3 }));
    await runtime.advance(10);
    expect(revisions).toEqual([7n]);
    script.cut();
    await runtime.advance(5_000);
    expect(lease.state).toBe('lost');
    expect(revisions).toEqual([7n, 8n]);
    await client.close();
    const failed = ['endpointChanged', 'callEnded', 'callRepeated', 'watchEvents', 'watchesResumed', 'leaseLost', 'observe'];
    const told = lines.filter((line) => 'method' in line);
    expect(told).toHaveLength(failed.length);
    for (const method of failed) expect(told).toContainEqual({ err: mine, method, message: 'metrics failed; what they measure goes on' });
  });

  test('by metrics that do not let themselves be observed', async () => {
    const ignore = (): void => {};
    const metrics: Metrics = {
      callEnded: ignore,
      callRepeated: ignore,
      watchEvents: ignore,
      watchesResumed: ignore,
      viewResynced: ignore,
      leaseRenewed: ignore,
      leaseLost: ignore,
      endpointChanged: ignore,
      observe: fail,
    };
    const { runtime, client } = await scriptedClient({ metrics, prepare: serve });
    await runtime.run(client.put('k', 'v'));
    await client.close();
  });

  test('by metrics that keep what they count in themselves', async () => {
    class Counting implements Metrics {
      calls = 0;
      callEnded(): void {
        this.calls++;
      }
      callRepeated(): void {}
      watchEvents(): void {}
      watchesResumed(): void {}
      viewResynced(): void {}
      leaseRenewed(): void {}
      leaseLost(): void {}
      endpointChanged(): void {}
      observe(): () => void {
        return () => {};
      }
    }
    const metrics = new Counting();
    const { runtime, client } = await scriptedClient({ metrics, prepare: serve });
    await runtime.run(client.put('k', 'v'));
    expect(metrics.calls).toBe(1);
  });

  test('by a log that throws: it is uncaught, once', async () => {
    const { runtime, client, script } = await scriptedClient({
      prepare: serve,
      lazy: true,
      log: { debug: fail, info: fail, warn: fail, error: fail },
    });
    // In virtual time what nobody catches ends whoever drives the time.
    await expect(runtime.advance(10)).rejects.toBe(mine);
    // It is sent again, which is logged.
    expect(await runtime.run(client.get('k'))).toBeUndefined();
    script.cut();
    await runtime.advance(1_000);
    expect((await runtime.run(client.put('k', 'v'))).revision).toBe(7n);
  });

  test('by an observer of the status that throws', async () => {
    const uncaught: unknown[] = [];
    const keep = (error: unknown): void => void uncaught.push(error);
    process.on('uncaughtException', keep);
    try {
      const { runtime, client, script } = await scriptedClient({ prepare: serve });
      const states: string[] = [];
      client.status().subscribe(fail);
      client.status().subscribe(({ state }) => void states.push(state));
      script.cut();
      expect((await runtime.run(client.put('k', 'v'))).revision).toBe(7n);
      expect(new Set(states)).toEqual(new Set(['ready', 'connecting']));
      expect(states.at(-1)).toBe('ready');
      // Each of them, or the rest would be uncaught when nobody looks any more.
      await vi.waitFor(() => expect(uncaught).toHaveLength(states.length));
    } finally {
      process.off('uncaughtException', keep);
    }
    expect(new Set(uncaught)).toEqual(new Set([mine]));
  });
});
