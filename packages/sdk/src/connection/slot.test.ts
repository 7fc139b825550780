import { RangeResponse } from '@conclave/protocol';
import { connect, preload } from '@conclave/sdk';
import { VirtualRuntime } from '@conclave/testing';
import { Machine } from '@conclave/testing/simulation';
import { type ScriptedClient, ScriptedTransport, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { clampKeepalive } from './liveness.ts';

const found = RangeResponse.encode({ header: { revision: 7 } });

test.each([
  [undefined, undefined, 10_000, 2_000],
  [1_000, 1, 6_000, 100],
  [30_000, 5_000, 30_000, 5_000],
])('asking every %s ms, waiting %s ms, becomes %i and %i', (keepaliveMs, keepaliveTimeoutMs, clamped, clampedTimeout) => {
  expect(clampKeepalive(keepaliveMs, keepaliveTimeoutMs)).toEqual({ keepaliveMs: clamped, keepaliveTimeoutMs: clampedTimeout });
});

describe('a lost connection', () => {
  test('is made again', async () => {
    const { runtime, script } = await scriptedClient();
    script.cut();
    await runtime.runUntil(() => script.to('a:1')[0]?.state === 'ready');
    expect(runtime.monotonic()).toBeLessThanOrEqual(50);
  });

  test('is tried again with growing pauses, a second at most', async () => {
    const { runtime, script } = await scriptedClient();
    const attempts: number[] = [];
    script.reach = () => {
      attempts.push(runtime.monotonic());
      return false;
    };
    script.cut();
    await runtime.advance(30_000);
    const gaps = attempts.slice(1).map((at, index) => at - (attempts[index] as number));
    expect(gaps.at(-1)).toBeGreaterThanOrEqual(500);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(1_000);
  });

  test('whose attempts stay unanswered is begun anew', async () => {
    const { runtime, script } = await scriptedClient();
    script.reach = () => 'silent';
    script.cut();
    await runtime.advance(12_000);
    expect(script.connections.length).toBeGreaterThanOrEqual(3);
    expect(script.to('a:1')).toHaveLength(1);
  });
});

test('an attempt to connect is not given up for a time in which the process stood still', async () => {
  await preload();
  const time = new VirtualRuntime();
  const machine = new Machine(time, { name: 'app' });
  const script = new ScriptedTransport(time);
  script.reach = () => 'silent';
  const client = await connect({ endpoints: 'a:1', runtime: machine.boot(), transport: script.transport, lazy: true });
  await time.advance(2_500);
  machine.pause();
  await time.advance(10_000);
  machine.resume();
  await time.advance(2_000);
  expect(script.connections).toHaveLength(1);
  await time.advance(1_000);
  expect(script.connections).toHaveLength(2);
  await client.close();
});

describe('calls over several endpoints', () => {
  async function three(): Promise<ScriptedClient> {
    const scripted = await scriptedClient({ endpoints: 'a:1,b:2,c:3' });
    await scripted.runtime.advance(10);
    scripted.script.onCall = (call) => call.reply(found);
    return scripted;
  }

  test('are spread in turn', async () => {
    const { runtime, script, client } = await three();
    for (let n = 0; n < 6; n++) await runtime.run(client.get('k'));
    expect(script.calls.map((call) => call.address).sort()).toEqual(['a:1', 'a:1', 'b:2', 'b:2', 'c:3', 'c:3']);
  });

  test('avoid the one that is gone', async () => {
    const { runtime, script, client } = await three();
    script.reach = (address) => address !== 'b:2';
    for (const connection of script.to('b:2')) connection.break();
    for (let n = 0; n < 6; n++) await runtime.run(client.get('k'));
    expect(new Set(script.calls.map((call) => call.address))).toEqual(new Set(['a:1', 'c:3']));
  });

  test('return to it when it is back', async () => {
    const { runtime, script, client } = await three();
    script.cut();
    await runtime.advance(1_000);
    for (let n = 0; n < 3; n++) await runtime.run(client.get('k'));
    expect(new Set(script.calls.map((call) => call.address)).size).toBe(3);
  });

  test('keep away from a member while it owes a sign of life', async () => {
    const { runtime, script, client } = await three();
    script.onCall = (call) => {
      if (call.address !== 'b:2') call.reply(found);
    };
    script.answersPing = (address) => address !== 'b:2';
    const stuck = Promise.allSettled(Array.from({ length: 3 }, () => client.get('k')));
    await runtime.runUntil(() => script.pings.length > 0);
    const before = script.calls.length;
    for (let n = 0; n < 6; n++) await runtime.run(client.get('k'));
    expect(script.calls.slice(before).map((call) => call.address)).not.toContain('b:2');
    await runtime.run(stuck);
  });

  test('do not fail when one member falls silent', async () => {
    const { runtime, script, client } = await three();
    script.onCall = (call) => {
      if (call.address !== 'b:2') call.reply(found);
    };
    script.answersPing = (address) => address !== 'b:2';
    const started = runtime.monotonic();
    await runtime.run(Promise.all(Array.from({ length: 9 }, () => client.get('k'))));
    // A second or two until the silence is noticed, the time to answer a ping, and the repeat.
    expect(runtime.monotonic() - started).toBeLessThan(3_500);
  });
});

describe('asking whether the peer lives', () => {
  /** What happens to a client with one open stream and nothing else. */
  async function watching(keepaliveMs?: number): Promise<ScriptedClient> {
    const scripted = await scriptedClient(keepaliveMs === undefined ? {} : { keepaliveMs });
    scripted.client.watch('k', { startRevision: 5 }).subscribe();
    await scripted.runtime.runUntil(() => scripted.script.streams.length === 1);
    return scripted;
  }

  test('is not done while nothing is under way', async () => {
    const { runtime, script } = await scriptedClient();
    await runtime.advance(60_000);
    expect(script.pings).toEqual([]);
  });

  test('is not done after calls that are over, however they ended', async () => {
    const { runtime, script, client } = await scriptedClient();
    const codes = [0, 3, 14, 4];
    script.onCall = (call) => {
      const code = codes.shift() ?? 0;
      if (code === 0) call.reply(found);
      else call.end(code);
    };
    await runtime.run(Promise.allSettled([client.get('k'), client.put('k', 'v'), client.put('k', 'v'), client.put('k', 'v')]));
    client.watch('k', { startRevision: 5 }).subscribe().unsubscribe();
    await runtime.advance(60_000);
    expect(script.pings).toEqual([]);
    expect(runtime.pendingTimers).toBe(0);
  });

  test('is done on a silent stream, every ten seconds', async () => {
    const { runtime, script } = await watching();
    await runtime.advance(60_000);
    expect(script.pings.length).toBeGreaterThanOrEqual(4);
    expect(script.pings.length).toBeLessThanOrEqual(6);
  });

  test('is never done more often than servers tolerate, whatever is asked for', async () => {
    const { runtime, script, client } = await watching(1);
    void client.get('k', { deadlineMs: 50_000 }).catch(() => {});
    await runtime.advance(50_000);
    const times = script.pings.map(({ at }) => at);
    expect(times.length).toBeGreaterThan(3);
    const gaps = times.slice(1).map((at, index) => at - (times[index] as number));
    expect(Math.min(...gaps)).toBeGreaterThan(5_000);
  });

  test('ends in a new connection when there is no answer', async () => {
    const { runtime, script } = await watching();
    script.answersPing = () => false;
    const [silent] = script.connections;
    await runtime.runUntil(() => script.streams.length === 2);
    expect(silent?.state).toBe('closed');
    expect(script.to('a:1')).toHaveLength(1);
    expect(runtime.monotonic()).toBeLessThan(18_000);
  });

  test.each([0, 5_000])(
    'is done, and the connection replaced, where every call has less time than that takes, %i ms between two',
    async (pauseMs) => {
      const { runtime, script, client } = await scriptedClient();
      script.answersPing = () => false;
      const [silent] = script.connections;
      const read = async (): Promise<void> => {
        while (silent?.state !== 'closed') {
          await client.get('k', { deadlineMs: 300 }).catch(() => {});
          await new Promise<void>((resolve) => void runtime.timer(pauseMs, resolve));
        }
      };
      await runtime.run(read(), { deadlineMs: 20_000 });
    },
  );

  test('is not done for calls that were not answered before one that was', async () => {
    const { runtime, script, client } = await scriptedClient();
    await runtime.run(client.get('k', { deadlineMs: 300 }).catch(() => {}));
    script.onCall = (call) => call.reply(found);
    await runtime.run(client.get('k'));
    await runtime.advance(10_000);
    await runtime.run(client.get('k'));
    expect(script.pings).toEqual([]);
  });

  test('is done at most every six seconds for calls that are given up', async () => {
    const { runtime, script, client } = await scriptedClient();
    for (let n = 0; n < 30; n++) {
      await runtime.run(client.get('k', { deadlineMs: 20 }).catch(() => {}));
      await runtime.advance(600);
    }
    expect(script.pings.length).toBeGreaterThan(0);
    expect(script.pings.length).toBeLessThanOrEqual(4);
  });

  test('is done within two seconds when a call is not answered', async () => {
    const { runtime, script, client } = await scriptedClient();
    void client.get('k').catch(() => {});
    await runtime.runUntil(() => script.pings.length > 0, { deadlineMs: 2_000 });
  });
});

describe('the status', () => {
  test('is told at once and with each change, and ends with the client', async () => {
    const { runtime, script, client } = await scriptedClient();
    const states: string[] = [];
    let isComplete = false;
    client.status().subscribe({
      next: ({ state }) => void (states.at(-1) === state || states.push(state)),
      complete: () => {
        isComplete = true;
      },
    });
    script.cut();
    await runtime.advance(100);
    await client.close();
    expect(states).toEqual(['ready', 'connecting', 'ready', 'closed']);
    expect(isComplete).toBe(true);
  });

  test('tells the endpoints apart', async () => {
    const { runtime, client } = await scriptedClient({
      endpoints: 'a:1,b:2',
      prepare: (script) => {
        script.reach = (address) => address === 'a:1';
      },
    });
    await runtime.advance(10);
    let seen: unknown;
    client.status().subscribe((status) => {
      seen = status.endpoints;
    });
    expect(seen).toEqual([
      { address: 'a:1', state: 'ready' },
      { address: 'b:2', state: expect.stringMatching(/failed|connecting/), failure: 'the connection failed' },
    ]);
  });

  /** What a client with these endpoints says, one line a change. */
  async function told(options: {
    endpoints: string;
    reach: (address: string) => boolean | 'silent';
  }): Promise<ScriptedClient & { readonly lines: string[] }> {
    const scripted = await scriptedClient({
      endpoints: options.endpoints,
      lazy: true,
      prepare: (script) => {
        script.reach = options.reach;
      },
    });
    const lines: string[] = [];
    scripted.client.status().subscribe(({ state, reason }) => {
      const line = reason === undefined ? state : `${state} (${reason})`;
      if (lines.at(-1) !== line) lines.push(line);
    });
    return { ...scripted, lines };
  }

  test('is connecting until an attempt to connect has ended', async () => {
    const { runtime, lines } = await told({ endpoints: 'a:1', reach: () => 'silent' });
    await runtime.advance(4_900);
    expect(lines).toEqual(['connecting']);
    await runtime.advance(200);
    expect(lines.at(-1)).toBe('failed (a:1 connecting: no connection within 5000 ms)');
  });

  test('is degraded while an endpoint is out of reach, and says why', async () => {
    let isBack = false;
    const { runtime, lines } = await told({ endpoints: 'a:1,b:2', reach: (address) => address === 'a:1' || isBack });
    await runtime.advance(5_000);
    isBack = true;
    await runtime.advance(5_000);
    expect(lines.slice(0, -1).every((line) => /^(ready|degraded \(b:2 (failed|connecting): the connection failed\))$/.test(line))).toBe(
      true,
    );
    expect(lines.at(-2)).toMatch(/^degraded/);
    expect(lines.at(-1)).toBe('ready');
  });

  test('is failed once an attempt to connect has failed, until one succeeds', async () => {
    let isThere = false;
    const { runtime, lines, script } = await told({ endpoints: 'a:1', reach: () => isThere });
    await runtime.advance(3_000);
    expect(lines.at(-1)).toMatch(/^failed \(a:1 (failed|connecting): the connection failed\)$/);
    isThere = true;
    await runtime.advance(3_000);
    expect(lines.at(-1)).toBe('ready');
    lines.length = 0;
    isThere = false;
    script.cut();
    await runtime.advance(3_000);
    expect(lines[0]).toBe('connecting (a:1 failed: the connection failed)');
    expect(lines.at(-1)).toMatch(/^failed/);
  });

  test('names an endpoint that does not answer attempts to connect', async () => {
    const { runtime, client } = await scriptedClient({
      endpoints: 'a:1,b:2',
      prepare: (script) => {
        script.reach = (address) => (address === 'a:1' ? true : 'silent');
      },
    });
    await runtime.advance(6_000);
    let reason: string | undefined;
    client.status().subscribe((status) => {
      reason = status.reason;
    });
    expect(reason).toBe('b:2 connecting: no connection within 5000 ms');
  });
});
