import {
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseRevokeRequest,
  LeaseTimeToLiveResponse,
  PutRequest,
  PutResponse,
} from '@conclave/protocol';
import type { ConnectOptions, Lease } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { marginMs } from './lease.ts';

const method = (call: { path: string }): string => call.path.split('/').at(-1) ?? '';
const granted = (call: ScriptedCall): Uint8Array =>
  LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(call.request).id, ttl: LeaseGrantRequest.decode(call.request).ttl });

/** A server that keeps leases, as the test wants it to. */
class LeaseServer {
  /** When it expires each lease, by its own reckoning. */
  readonly expiresAt = new Map<bigint, number>();
  readonly renewals: { readonly id: bigint; readonly at: number }[] = [];
  readonly revoked: bigint[] = [];
  /** How long a renewal takes to get here, and its answer to get back. */
  delayMs = 0;
  isSilent = false;
  readonly #scripted: ScriptedClient;
  readonly #ttl = new Map<bigint, number>();

  constructor(scripted: ScriptedClient) {
    this.#scripted = scripted;
    scripted.script.onCall = (call) => this.onCall(call);
    scripted.script.onStream = (stream) => {
      stream.onWrite = (bytes) => this.#later(() => this.#onKeepAlive(stream, LeaseKeepAliveRequest.decode(bytes).id));
    };
  }

  onCall(call: ScriptedCall): void {
    if (this.isSilent) return;
    if (method(call) === 'LeaseGrant') {
      const { id, ttl } = LeaseGrantRequest.decode(call.request);
      this.#ttl.set(id, ttl);
      this.#prolong(id);
      call.reply(granted(call));
    }
    if (method(call) === 'LeaseRevoke') {
      this.revoked.push(LeaseRevokeRequest.decode(call.request).id);
      call.reply(new Uint8Array());
    }
    if (method(call) === 'Put') call.reply(PutResponse.encode({ header: { revision: 3 } }));
  }

  #onKeepAlive(stream: ScriptedStream, id: bigint): void {
    if (this.isSilent) return;
    const now = this.#scripted.runtime.monotonic();
    this.renewals.push({ id, at: now });
    const isAlive = (this.expiresAt.get(id) ?? 0) > now;
    if (isAlive) this.#prolong(id);
    this.#later(() => {
      if (!stream.isEnded && !this.isSilent) stream.send(LeaseKeepAliveResponse.encode({ id, ttl: isAlive ? this.#ttl.get(id) : 0 }));
    });
  }

  #prolong(id: bigint): void {
    this.expiresAt.set(id, this.#scripted.runtime.monotonic() + (this.#ttl.get(id) ?? 0) * 1_000);
  }

  #later(step: () => void): void {
    if (this.delayMs === 0) step();
    else this.#scripted.runtime.timer(this.delayMs, step);
  }
}

async function holding(
  ttlSeconds: number,
  options: Partial<ConnectOptions> = {},
): Promise<ScriptedClient & { server: LeaseServer; lease: Lease }> {
  const scripted = await scriptedClient(options);
  const server = new LeaseServer(scripted);
  const lease = await scripted.runtime.run(scripted.client.lease.grant({ ttlSeconds }));
  return { ...scripted, server, lease };
}

describe('a grant', () => {
  test('chooses a positive id of up to 63 bits', async () => {
    const { lease, server } = await holding(10);
    expect(lease.id).toBeGreaterThan(0n);
    expect(lease.id).toBeLessThan(2n ** 63n);
    expect([...server.expiresAt.keys()]).toEqual([lease.id]);
  });

  test('takes the time to live that the server says', async () => {
    const scripted = await scriptedClient();
    scripted.script.onCall = (call) => call.reply(LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(call.request).id, ttl: 2 }));
    const lease = await scripted.runtime.run(scripted.client.lease.grant({ ttlSeconds: 1 }));
    expect(lease.ttlSeconds).toBe(2);
  });

  test('whose answer is lost is repeated with the same id, and recognised as its own', async () => {
    const scripted = await scriptedClient();
    const ids: bigint[] = [];
    scripted.script.onCall = (call) => {
      if (method(call) === 'LeaseTimeToLive') return call.reply(LeaseTimeToLiveResponse.encode({ id: ids[0], ttl: 9, grantedTtl: 10 }));
      ids.push(LeaseGrantRequest.decode(call.request).id);
      if (ids.length === 1) scripted.runtime.timer(400, () => call.end(14, { message: 'connection lost' }));
      else call.end(9, { message: 'etcdserver: lease already exists' });
    };
    const lease = await scripted.runtime.run(scripted.client.lease.grant({ ttlSeconds: 10 }));
    expect(ids).toEqual([lease.id, lease.id]);
    expect(lease.ttlSeconds).toBe(10);
    // Judged from the first sending: the lease may be that old.
    expect(lease.remaining()).toBeLessThanOrEqual(10_000 - marginMs(10) - 400);
  });

  test('that is given up leaves no orphan: it is let through, and revoked', async () => {
    const scripted = await scriptedClient();
    const controller = new AbortController();
    scripted.script.onCall = (call) => {
      if (method(call) !== 'LeaseGrant') return;
      controller.abort('enough');
      scripted.runtime.timer(300, () => call.reply(granted(call)));
    };
    const grant = scripted.client.lease.grant({ ttlSeconds: 10, signal: controller.signal });
    await expect(scripted.runtime.run(grant)).rejects.toMatchObject({ code: 'cancelled', outcome: 'unknown', cause: 'enough' });
    expect(scripted.runtime.monotonic()).toBe(0);
    await scripted.runtime.advance(301);
    expect(scripted.script.calls.map(method)).toEqual(['LeaseGrant', 'LeaseRevoke']);
  });

  test('that runs out of time is revoked, in case it got through', async () => {
    const scripted = await scriptedClient();
    const grant = scripted.client.lease.grant({ ttlSeconds: 10, deadlineMs: 500 });
    await expect(scripted.runtime.run(grant)).rejects.toMatchObject({ code: 'deadline-exceeded' });
    await scripted.runtime.advance(1);
    const [first, second] = scripted.script.calls;
    expect(second && method(second)).toBe('LeaseRevoke');
    expect(LeaseRevokeRequest.decode(second?.request ?? new Uint8Array()).id).toBe(
      LeaseGrantRequest.decode(first?.request ?? new Uint8Array()).id,
    );
  });

  test('is judged from its sending, not from its answer', async () => {
    const scripted = await scriptedClient();
    scripted.script.onCall = (call) => void scripted.runtime.timer(700, () => call.reply(granted(call)));
    const lease = await scripted.runtime.run(scripted.client.lease.grant({ ttlSeconds: 10 }));
    expect(lease.remaining()).toBe(10_000 - marginMs(10) - 700);
  });

  test('that waited long for an endpoint is not old for that', async () => {
    const scripted = await scriptedClient();
    new LeaseServer(scripted);
    scripted.script.reach = () => false;
    scripted.script.cut();
    scripted.runtime.timer(3_000, () => {
      scripted.script.reach = () => true;
    });
    const lease = await scripted.runtime.run(scripted.client.lease.grant({ ttlSeconds: 2 }));
    expect(lease.state).toBe('held');
  });
});

describe('keeping', () => {
  test('renews every third of the time to live, on one stream for all leases', async () => {
    const { runtime, script, client, server, lease } = await holding(9);
    await runtime.run(client.lease.grant({ ttlSeconds: 30 }));
    await runtime.advance(27_500);
    expect(script.streams).toHaveLength(1);
    const times = server.renewals.filter(({ id }) => id === lease.id).map(({ at }) => at);
    expect(times).toEqual([3_000, 6_000, 9_000, 12_000, 15_000, 18_000, 21_000, 24_000, 27_000]);
    expect(server.renewals.filter(({ id }) => id !== lease.id)).toHaveLength(2);
    expect(lease.state).toBe('held');
  });

  test('goes on for as long as the client lives', async () => {
    const { runtime, lease, server } = await holding(2);
    await runtime.advance(600_000);
    expect(lease.state).toBe('held');
    expect(server.renewals.length).toBeGreaterThan(890);
  });

  test('survives a lost connection', async () => {
    const { runtime, script, lease } = await holding(3);
    for (let round = 0; round < 20; round++) {
      await runtime.advance(700);
      script.cut();
    }
    await runtime.advance(100);
    expect(lease.state).toBe('held');
  });

  test('survives a member that falls silent, on another one', async () => {
    const { runtime, script, lease, server } = await holding(6, { endpoints: 'a:1,b:2' });
    const silent = script.stream.address;
    script.stream.onWrite = () => {};
    script.onCall = (call) => (call.address === silent ? undefined : server.onCall(call));
    script.answersPing = (address) => address !== silent;
    await runtime.advance(30_000);
    expect(lease.state).toBe('held');
  });

  test('of a lease for centuries does not wear out its timers', async () => {
    const { runtime, lease, server } = await holding(9_000_000_000);
    let timers = 0;
    const timer = runtime.timer.bind(runtime);
    runtime.timer = (delayMs, callback) => {
      timers++;
      expect(delayMs).toBeLessThan(2 ** 31);
      return timer(delayMs, callback);
    };
    await runtime.advance(3 * 24 * 3_600_000);
    expect(lease.state).toBe('held');
    expect(server.renewals).toHaveLength(3);
    expect(timers).toBeLessThan(100_000);
  });

  test('stops with the last lease', async () => {
    const { runtime, script, lease } = await holding(6);
    await runtime.run(lease.revoke());
    expect(script.stream.isCancelled).toBe(true);
    await runtime.advance(2_000);
    expect(runtime.pendingTimers).toBe(0);
  });
});

describe('losing a lease', () => {
  test.each([2, 5, 10, 60])('of %i s is told before the server lets it go, when the peer falls silent', async (ttlSeconds) => {
    const { runtime, server, lease, script } = await holding(ttlSeconds);
    for (let offset = 0; offset < 10; offset++) await runtime.advance(ttlSeconds * 130);
    expect(lease.state).toBe('held');
    server.isSilent = true;
    script.answersPing = () => false;
    script.reach = () => 'silent';
    let lostAt: number | undefined;
    lease.signal.addEventListener('abort', () => {
      lostAt = runtime.monotonic();
    });
    await runtime.advance(ttlSeconds * 1_100);
    expect(lostAt).toBeLessThan(server.expiresAt.get(lease.id) as number);
    expect(lostAt).toBeGreaterThan((server.expiresAt.get(lease.id) as number) - ttlSeconds * 1_000);
    expect(lease.signal.reason).toMatchObject({ code: 'lease-lost', outcome: 'not-applied' });
    expect(lease.remaining()).toBe(0);
  });

  test('is told in time with slow answers, too', async () => {
    const { runtime, server, lease } = await holding(5);
    server.delayMs = 600;
    await runtime.advance(20_000);
    expect(lease.state).toBe('held');
    server.isSilent = true;
    await runtime.runUntil(() => lease.signal.aborted);
    expect(runtime.monotonic()).toBeLessThan(server.expiresAt.get(lease.id) as number);
  });

  test('is noticed on use after the machine slept, before any timer fires', async () => {
    const { runtime, lease, server } = await holding(5);
    await runtime.advance(1_000);
    expect(lease.remaining()).toBeGreaterThan(0);
    runtime.suspend(6_000);
    expect(lease.state).toBe('lost');
    expect(lease.signal.aborted).toBe(true);
    expect(server.renewals).toHaveLength(0);
  });

  test('is not caused by a step of the wall clock', async () => {
    const { runtime, lease } = await holding(5);
    runtime.stepWall(3_600_000);
    expect(lease.state).toBe('held');
    runtime.stepWall(-7_200_000);
    await runtime.advance(20_000);
    expect(lease.state).toBe('held');
  });

  test('is final: a lease past its time is not renewed when the machine wakes', async () => {
    const { runtime, lease, server } = await holding(5);
    runtime.suspend(60_000);
    await runtime.advance(10_000);
    expect(lease.state).toBe('lost');
    expect(server.renewals).toHaveLength(0);
  });

  test('is told at once when the server says that the lease is gone', async () => {
    const { runtime, lease, server } = await holding(9);
    server.expiresAt.set(lease.id, 0);
    await runtime.runUntil(() => lease.signal.aborted);
    expect(runtime.monotonic()).toBe(3_000);
    expect(lease.signal.reason).toMatchObject({ code: 'lease-lost' });
  });

  test('stops writes under the lease before they are sent', async () => {
    const { runtime, client, lease, script } = await holding(5);
    await runtime.run(client.put('k', 'v', { lease }));
    expect(PutRequest.decode(script.call.request).lease).toBe(lease.id);
    runtime.suspend(6_000);
    const sent = script.calls.length;
    await expect(client.put('k', 'v', { lease })).rejects.toMatchObject({ code: 'lease-lost', outcome: 'not-applied' });
    expect(script.calls.slice(sent).map(method)).not.toContain('Put');
  });

  test('happens when the client closes', async () => {
    const { runtime, client, lease } = await holding(5);
    await client.close();
    expect(lease.state).toBe('lost');
    expect(runtime.pendingTimers).toBe(0);
  });
});

describe('giving back', () => {
  test('revokes at the server, and ends the lease here at once', async () => {
    const { runtime, script, lease, server } = await holding(5);
    const promise = lease.revoke();
    expect(lease.state).toBe('revoked');
    expect(lease.signal.reason).toMatchObject({ code: 'lease-revoked' });
    await runtime.run(promise);
    expect(method(script.call)).toBe('LeaseRevoke');
    expect(server.revoked).toEqual([lease.id]);
  });

  test('of a lease that is gone is no error', async () => {
    const { runtime, script, lease } = await holding(5);
    script.onCall = (call) => call.end(5, { message: 'etcdserver: requested lease not found' });
    await runtime.run(lease.revoke());
  });

  test('is repeated when its answer is lost', async () => {
    const { runtime, script, lease } = await holding(5);
    let attempts = 0;
    script.onCall = (call) => (++attempts === 1 ? call.end(14) : call.end(5, { message: 'etcdserver: requested lease not found' }));
    await runtime.run(lease.revoke());
    expect(attempts).toBe(2);
  });

  test('at the end of a scope does not fail it', async () => {
    const { runtime, script, lease } = await holding(5);
    script.onCall = (call) => call.end(7, { message: 'etcdserver: permission denied' });
    const scope = (async () => {
      await using held = lease;
      return held.id;
    })();
    expect(await runtime.run(scope)).toBe(lease.id);
    expect(lease.state).toBe('revoked');
  });
});

test('the margin grows with the time to live, up to a second', () => {
  expect([1, 2, 5, 10, 60, 3_600].map(marginMs)).toEqual([100, 150, 300, 550, 1_000, 1_000]);
});
