import {
  Compare_CompareTarget as CompareTarget,
  KV,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseRevokeRequest,
  Lease as LeaseService,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  TxnRequest,
  TxnResponse,
  Watch,
} from '@conclave/protocol';
import type { Session, SessionState } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

/** A server that keeps leases, and says yes to every transaction. */
class YesServer {
  /** When it expires each lease, by its own reckoning. */
  readonly expiresAt = new Map<bigint, number>();
  readonly grants: number[] = [];
  /** The keys that were put, in order. */
  readonly puts: string[] = [];
  isSilent = false;
  refusesGrants: { readonly code: number; readonly message: string } | undefined;
  readonly #scripted: ScriptedClient;
  readonly #ttl = new Map<bigint, number>();

  constructor(scripted: ScriptedClient) {
    this.#scripted = scripted;
    scripted.script.onCall = (call) => this.#onCall(call);
    scripted.script.onStream = (stream) => {
      if (stream.path === Watch.methods.watch.path) return;
      stream.onWrite = (bytes) => this.#onKeepAlive(stream, LeaseKeepAliveRequest.decode(bytes).id);
    };
  }

  /** Does as a link does that swallows everything. */
  blackHole(): void {
    this.isSilent = true;
    this.#scripted.script.answersPing = () => false;
    this.#scripted.script.reach = () => 'silent';
  }

  heal(): void {
    this.isSilent = false;
    this.#scripted.script.answersPing = () => true;
    this.#scripted.script.reach = () => true;
  }

  #onCall(call: ScriptedCall): void {
    if (this.isSilent) return;
    if (call.path === LeaseService.methods.leaseGrant.path) {
      if (this.refusesGrants !== undefined) {
        call.end(this.refusesGrants.code, { message: this.refusesGrants.message });
        return;
      }
      const { id, ttl } = LeaseGrantRequest.decode(call.request);
      this.grants.push(this.#scripted.runtime.monotonic());
      this.#ttl.set(id, ttl);
      this.#prolong(id);
      call.reply(LeaseGrantResponse.encode({ id, ttl }));
    } else if (call.path === KV.methods.txn.path) {
      const header = { revision: 2 };
      const responses = TxnRequest.decode(call.request).success.map(({ requestPut }) => {
        if (requestPut === undefined) return { responseDeleteRange: { header } };
        this.puts.push(Buffer.from(requestPut.key).toString());
        return { responsePut: { header } };
      });
      call.reply(TxnResponse.encode({ header, succeeded: true, responses }));
    } else if (call.path === LeaseService.methods.leaseTimeToLive.path) {
      const { id } = LeaseTimeToLiveRequest.decode(call.request);
      const ttl = Math.floor(((this.expiresAt.get(id) ?? 0) - this.#scripted.runtime.monotonic()) / 1_000);
      call.reply(LeaseTimeToLiveResponse.encode({ id, ttl, grantedTtl: this.#ttl.get(id) }));
    } else if (call.path === LeaseService.methods.leaseRevoke.path) call.reply(new Uint8Array());
  }

  #onKeepAlive(stream: ScriptedStream, id: bigint): void {
    if (this.isSilent) return;
    const isAlive = (this.expiresAt.get(id) ?? 0) > this.#scripted.runtime.monotonic();
    if (isAlive) this.#prolong(id);
    stream.send(LeaseKeepAliveResponse.encode({ id, ttl: isAlive ? this.#ttl.get(id) : 0 }));
  }

  #prolong(id: bigint): void {
    this.expiresAt.set(id, this.#scripted.runtime.monotonic() + (this.#ttl.get(id) ?? 0) * 1_000);
  }
}

interface Opened extends ScriptedClient {
  readonly server: YesServer;
  readonly session: Session;
  /** What was told, and when. */
  readonly told: { readonly state: SessionState['state']; readonly at: number }[];
}

async function opened(ttlSeconds: number, seed = 1): Promise<Opened> {
  const scripted = await scriptedClient({ seed });
  const server = new YesServer(scripted);
  const session = await scripted.runtime.run(scripted.client.session({ ttlSeconds }));
  const told: Opened['told'] = [];
  session.status().subscribe(({ state }) => told.push({ state, at: scripted.runtime.monotonic() }));
  return { ...scripted, server, session, told };
}

const timeOf = (told: Opened['told'], state: SessionState['state']): number | undefined => told.find((one) => one.state === state)?.at;

describe('behind a link that swallows everything', () => {
  test.each([2, 5, 10])(
    'a loss is told before a server lets a lease of %i s go, whatever the moment, in 100 of 100 runs',
    async (ttlSeconds) => {
      let early = 0;
      for (let nth = 0; nth < 100; nth++) {
        const { runtime, server, session, told } = await opened(ttlSeconds, nth + 1);
        await runtime.advance(ttlSeconds * 1_000 + (ttlSeconds * 1_000 * nth) / 100);
        const { signal } = session;
        const { id } = session.lease;
        server.blackHole();
        await runtime.runUntil(() => signal.aborted);
        const expiresAt = server.expiresAt.get(id) ?? 0;
        const lostAt = timeOf(told, 'lost') ?? Number.POSITIVE_INFINITY;
        const riskAt = timeOf(told, 'at-risk') ?? Number.POSITIVE_INFINITY;
        if (runtime.monotonic() < expiresAt && lostAt < expiresAt && riskAt < lostAt) early++;
        await session.close();
      }
      expect(early).toBe(100);
    },
  );

  test('it is told in this order: at risk, lost, recovered, live', async () => {
    const { runtime, server, session, told } = await opened(10);
    await runtime.advance(7_000);
    server.blackHole();
    await runtime.advance(20_000);
    expect(session.state).toMatchObject({ state: 'lost', error: { code: 'lease-lost' } });
    server.heal();
    const healedAt = runtime.monotonic();
    await runtime.runUntil(() => session.state.state === 'live');
    expect(told.map(({ state }) => state)).toEqual(['live', 'at-risk', 'lost', 'recovered', 'live']);
    expect(session.state).toMatchObject({ incarnation: 2 });
    // A connection that was swallowed is given up after a while; a refused one is much sooner tried again.
    expect(runtime.monotonic() - healedAt).toBeLessThan(6_500);
  });

  test('a short one puts it at risk, and then it is live again under the same lease', async () => {
    const { runtime, server, session, told } = await opened(10);
    const { id } = session.lease;
    server.blackHole();
    await runtime.runUntil(() => session.state.state === 'at-risk');
    expect(session.slackMs).toBeLessThanOrEqual(10_000 / 3);
    expect(session.slackMs).toBeGreaterThan(0);
    server.heal();
    await runtime.runUntil(() => session.state.state === 'live');
    expect(told.map(({ state }) => state)).toEqual(['live', 'at-risk', 'live']);
    expect(session.lease.id).toBe(id);
    expect(session.takeLowestSlackMs()).toBeLessThanOrEqual(10_000 / 3);
  });
});

describe('a process that stood still for longer than the lease', () => {
  test.each([
    ['signal', (session: Session) => expect(session.signal.aborted).toBe(true)],
    ['slackMs', (session: Session) => expect(session.slackMs).toBe(0)],
    ['takeLowestSlackMs', (session: Session) => expect(session.takeLowestSlackMs()).toBe(0)],
    ['guard', (session: Session) => expect(() => session.guard).toThrow(expect.objectContaining({ code: 'lease-lost' }))],
    ['lease', (session: Session) => expect(() => session.lease).toThrow(expect.objectContaining({ code: 'lease-lost' }))],
    ['state', (session: Session) => expect(session.state.state).toBe('lost')],
  ])('is told by reading %s, before any timer', async (_, reads) => {
    const { runtime, session, told } = await opened(5);
    await runtime.advance(4_000);
    const { signal } = session;
    runtime.suspend(6_000);
    expect(told.map(({ state }) => state)).toEqual(['live']);
    reads(session);
    expect(told.map(({ state }) => state)).toEqual(['live', 'lost']);
    expect(signal.aborted).toBe(true);
  });

  test('and is not told of a step of the wall clock', async () => {
    const { runtime, session, told } = await opened(5);
    runtime.stepWall(3_600_000);
    await runtime.advance(20_000);
    runtime.stepWall(-7_200_000);
    await runtime.advance(20_000);
    expect(session.state.state).toBe('live');
    expect(told).toHaveLength(1);
  });
});

test('the slack falls to two thirds of the time to live between renewals, and is told once', async () => {
  const { runtime, session } = await opened(9);
  await runtime.advance(30_000);
  const lowest = session.takeLowestSlackMs();
  expect(lowest).toBeGreaterThan(5_000);
  expect(lowest).toBeLessThanOrEqual(6_000);
  await runtime.advance(100);
  expect(session.takeLowestSlackMs()).toBe(session.slackMs);
});

test('a fleet that lost its leases together does not come back together', async () => {
  const fleet = await Promise.all(Array.from({ length: 40 }, (_, nth) => opened(5, nth + 1)));
  const times: number[] = [];
  for (const { runtime, session, server } of fleet) {
    await runtime.advance(1_000);
    // Nothing but the lease is lost: the server is there, and could be asked at once.
    runtime.suspend(6_000);
    expect(session.state.state).toBe('lost');
    await runtime.advance(2_000);
    expect(session.state.state).toBe('live');
    times.push((server.grants[1] ?? 0) - 1_000);
  }
  expect(Math.max(...times)).toBeLessThan(600);
  const slots = new Set(times.map((time) => Math.floor(time / 50)));
  expect(slots.size).toBeGreaterThan(6);
});

test('after an outage of a minute it is live within 2 s, whenever the cluster comes back', async () => {
  const tookMs: number[] = [];
  for (let nth = 0; nth < 50; nth++) {
    const { runtime, script, server, session } = await opened(5, nth + 1);
    script.reach = () => false;
    script.cut();
    await runtime.advance(60_000 + nth * 37);
    expect(session.state.state).toBe('lost');
    script.reach = () => true;
    const backAt = runtime.monotonic();
    await runtime.runUntil(() => session.state.state === 'live');
    tookMs.push(runtime.monotonic() - backAt);
    expect(server.grants).toHaveLength(2);
  }
  expect(Math.max(...tookMs)).toBeLessThan(2_000);
  // Not all at once.
  expect(Math.max(...tookMs) - Math.min(...tookMs)).toBeGreaterThan(300);
});

test('a refusal is tried again ever more slowly, and not forgotten', async () => {
  const { runtime, server, session } = await opened(5);
  server.refusesGrants = { code: 8, message: 'etcdserver: mvcc: database space exceeded' };
  await runtime.advance(1_000);
  runtime.suspend(6_000);
  await runtime.advance(60_000);
  expect(session.state).toMatchObject({ state: 'lost' });
  expect(() => session.guard).toThrow(expect.objectContaining({ cause: expect.objectContaining({ code: 'no-space' }) }));
  const asked = runtime.monotonic();
  server.refusesGrants = undefined;
  await runtime.runUntil(() => session.state.state === 'live');
  expect(runtime.monotonic() - asked).toBeLessThanOrEqual(1_100);
});

test('opening one rejects at once with what no time will cure, and leaves nothing behind', async () => {
  const scripted = await scriptedClient();
  const server = new YesServer(scripted);
  server.refusesGrants = { code: 7, message: 'etcdserver: permission denied' };
  await expect(scripted.runtime.run(scripted.client.session())).rejects.toMatchObject({ code: 'permission-denied' });
  await scripted.client.close();
  await scripted.runtime.advance(1);
  expect(scripted.runtime.pendingTimers).toBe(0);
});

test('what it holds is put on the condition that the session is its own, so that nothing can land after a hand-over', async () => {
  const { runtime, script, session } = await opened(10);
  const held = session.hold('k', 'v');
  await runtime.run(held.placed());
  await runtime.run(held.release());
  const mark = `conclave/session/${session.lease.id.toString(16)}`;
  const requests = script.calls.filter(({ path }) => path === KV.methods.txn.path).map(({ request }) => TxnRequest.decode(request));
  const ofKey = requests.filter(({ success }) =>
    success.some(({ requestPut, requestDeleteRange }) => Buffer.from((requestPut ?? requestDeleteRange)?.key ?? []).toString() === 'k'),
  );
  expect(ofKey).toHaveLength(2);
  // Not a later key of the same name.
  expect(ofKey[1]?.compare).toContainEqual(
    expect.objectContaining({ key: Buffer.from('k'), target: CompareTarget.CREATE, createRevision: 2 }),
  );
  for (const { compare } of ofKey) {
    const guard = compare.find(({ key }) => Buffer.from(key).toString() === mark);
    expect(Buffer.from(guard?.value ?? []).toString()).toMatch(/^held\/[0-9a-f]{32}$/);
  }
});

test('what it puts over its own of before stands on the same condition, and on what was found', async () => {
  const { runtime, script, session } = await opened(10);
  const { onCall } = script;
  const { id } = session.lease;
  const ofKey: TxnRequest[] = [];
  script.onCall = (call) => {
    ofKey.push(TxnRequest.decode(call.request));
    if (ofKey.length > 1) return onCall(call);
    const kvs = [{ key: Buffer.from('k'), value: Buffer.from('old'), lease: id, createRevision: 7, modRevision: 9 }];
    call.reply(TxnResponse.encode({ header: { revision: 9 }, succeeded: false, responses: [{ responseRange: { kvs } }] }));
  };
  await runtime.run(session.hold('k', 'new').placed());
  expect(ofKey).toHaveLength(2);
  const conditions = ofKey[1]?.compare.map(({ key, target, modRevision }) => [Buffer.from(key).toString(), target, modRevision]);
  expect(conditions).toEqual([
    [`conclave/session/${id.toString(16)}`, CompareTarget.VALUE, undefined],
    ['k', CompareTarget.MOD, 9],
  ]);
});

test('it ends here before the store is told that it is offered, and nothing is renewed any more', async () => {
  const { runtime, script, server, session } = await opened(10);
  const { signal, lease } = session;
  const { onCall } = script;
  let wasAborted: boolean | undefined;
  script.onCall = (call) => {
    wasAborted ??= signal.aborted;
    onCall(call);
  };
  const token = await runtime.run(session.handOver());
  expect(wasAborted).toBe(true);
  expect(token).toMatchObject({ lease: lease.id.toString(16), ttlSeconds: 10, keys: [] });
  const expiresAt = server.expiresAt.get(lease.id) ?? 0;
  await runtime.advance(60_000);
  expect(server.expiresAt.get(lease.id)).toBe(expiresAt);
  expect(session.state.state).toBe('handed-over');
  expect(server.grants).toHaveLength(1);
});

test('taken over late, it is judged by what the server says is left, and renewed at once', async () => {
  const { runtime, script, client, server, session } = await opened(10);
  const { id } = session.lease;
  const token = await runtime.run(session.handOver());
  await runtime.advance(6_000);
  const leftMs = (server.expiresAt.get(id) ?? 0) - runtime.monotonic();
  const { onStream } = script;
  // Until it is renewed nobody knows more than that.
  let heard = 0;
  script.onStream = (stream) => {
    onStream(stream);
    const { onWrite } = stream;
    stream.onWrite = (bytes) => {
      if (stream.path === LeaseService.methods.leaseKeepAlive.path && heard++ === 0) return;
      onWrite(bytes);
    };
  };
  const successor = await runtime.run(client.session({ from: token }));
  expect(successor.slackMs).toBeLessThan(leftMs - 500);
  expect(successor.slackMs).toBeGreaterThan(leftMs - 1_600);
  expect(heard).toBe(1);
  await runtime.runUntil(() => successor.slackMs > 9_000);
  expect(heard).toBe(2);
  expect(successor.lease).toMatchObject({ id, isTakenOver: true, ttlSeconds: 10 });
});

test('that cannot be taken over does not go on under another lease while it is given back', async () => {
  const { runtime, script, client, server, session } = await opened(10);
  const token = await runtime.run(session.handOver());
  const { onCall } = script;
  let nth = 0;
  script.onCall = (call) => {
    if (call.path === KV.methods.txn.path) nth++;
    // The claim is the first, its own key the second; that it is given back stays unanswered.
    if (nth === 2) call.end(7, { message: 'etcdserver: permission denied' });
    else if (nth < 2 || call.path !== KV.methods.txn.path) onCall(call);
  };
  await expect(runtime.run(client.session({ from: token }))).rejects.toMatchObject({ code: 'permission-denied' });
  await runtime.advance(5_000);
  expect(nth).toBe(3);
  expect(server.grants).toHaveLength(1);
});

test('taken over late by a client that renews other leases already, it is renewed at once, too', async () => {
  const { runtime, client, session } = await opened(10);
  await runtime.run(client.lease.grant({ ttlSeconds: 60 }));
  const token = await runtime.run(session.handOver());
  await runtime.advance(6_000);
  const successor = await runtime.run(client.session({ from: token }));
  await runtime.advance(100);
  expect(successor.slackMs).toBeGreaterThan(9_000);
});

test('closed while its lease is asked for, it gives the lease back', async () => {
  const scripted = await scriptedClient();
  const server = new YesServer(scripted);
  server.isSilent = true;
  const session = await scripted.runtime.run(scripted.client.session({ lazy: true }));
  await scripted.runtime.advance(10);
  const grant = scripted.script.calls.find(({ path }) => path === LeaseService.methods.leaseGrant.path);
  server.isSilent = false;
  await scripted.runtime.run(session.close());
  grant?.reply(LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(grant.request).id, ttl: 10 }));
  await scripted.runtime.advance(10);
  expect(scripted.script.calls.at(-1)?.path).toBe(LeaseService.methods.leaseRevoke.path);
  expect(server.puts).toEqual([]);
});

test('closed while it is taken back, it gives the lease back', async () => {
  const { runtime, script, server, session } = await opened(10);
  const { id } = session.lease;
  await runtime.run(session.handOver());
  const { onCall } = script;
  let asked: ScriptedCall | undefined;
  script.onCall = (call) => {
    if (call.path === LeaseService.methods.leaseTimeToLive.path) asked = call;
    else onCall(call);
  };
  const takenBack = expect(session.takeBack()).rejects.toMatchObject({ code: 'session-closed' });
  await runtime.runUntil(() => asked !== undefined);
  await runtime.run(session.close());
  if (asked !== undefined) onCall(asked);
  await runtime.advance(1_000);
  await takenBack;
  const revoked = script.calls.filter(({ path }) => path === LeaseService.methods.leaseRevoke.path);
  expect(revoked.map(({ request }) => LeaseRevokeRequest.decode(request).id)).toEqual([id]);
  const expiresAt = server.expiresAt.get(id);
  await runtime.advance(60_000);
  expect(server.expiresAt.get(id)).toBe(expiresAt);
});

test('taken back twice at once, it has one lease', async () => {
  const { runtime, server, session, told } = await opened(10);
  const { id } = session.lease;
  await runtime.run(session.handOver());
  await runtime.run(Promise.all([session.takeBack(), session.takeBack()]));
  await runtime.advance(60_000);
  expect(session.lease.id).toBe(id);
  expect(server.grants).toHaveLength(1);
  expect(told.map(({ state }) => state)).toEqual(['live', 'handed-over', 'recovered', 'live']);
});

test('handed over when it is told that it has recovered, it is not live any more', async () => {
  const { runtime, server, session, told } = await opened(5);
  session.status().subscribe(({ state }) => {
    if (state === 'recovered') session.handOver().catch(() => {});
  });
  await runtime.advance(1_000);
  runtime.suspend(6_000);
  await runtime.advance(20_000);
  expect(session.state.state).toBe('handed-over');
  expect(told.map(({ state }) => state)).toEqual(['live', 'lost', 'recovered', 'handed-over']);
  expect(server.grants).toHaveLength(2);
});

test('whoever is told last is told the last state, whatever those before did with what they were told', async () => {
  const { runtime, server, session } = await opened(10);
  session.status().subscribe(({ state }) => {
    if (state === 'at-risk') session.handOver().catch(() => {});
  });
  const later: SessionState['state'][] = [];
  session.status().subscribe(({ state }) => later.push(state));
  server.blackHole();
  await runtime.runUntil(() => session.state.state !== 'live');
  expect(later).toEqual(['live', 'handed-over']);
});

test('a lease that was handed over is not revoked by whoever still has it', async () => {
  const { runtime, script, session } = await opened(10);
  const { lease } = session;
  await runtime.run(session.handOver());
  await runtime.run(lease.revoke());
  await runtime.run(lease[Symbol.asyncDispose]());
  expect(lease.state).toBe('handed-over');
  expect(script.calls.filter(({ path }) => path === LeaseService.methods.leaseRevoke.path)).toEqual([]);
});

test('that waiting for a value was given up says nothing of the value', async () => {
  const { runtime, script, session } = await opened(10);
  const held = session.hold('k', 'one');
  await runtime.run(held.placed());
  const controller = new AbortController();
  const given = expect(held.update('two', { signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled', outcome: 'unknown' });
  await expect(held.update('three', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'cancelled', outcome: 'unknown' });
  controller.abort();
  await given;
  await runtime.advance(100);
  const values = script.calls
    .filter(({ path }) => path === KV.methods.txn.path)
    .flatMap(({ request }) => TxnRequest.decode(request).success.map(({ requestPut }) => Buffer.from(requestPut?.value ?? []).toString()));
  expect(values.at(-1)).toBe('three');
});

test('after a process stood still, placed looks at the clock', async () => {
  const { runtime, server, session } = await opened(5);
  const held = session.hold('k', 'v');
  await runtime.run(held.placed());
  const puts = server.puts.length;
  runtime.suspend(6_000);
  await runtime.run(held.placed());
  expect(server.puts.slice(puts)).toContain('k');
});

test('released while its function is at it, what comes of it is taken away', async () => {
  const { runtime, session } = await opened(10);
  let finish: (() => void) | undefined;
  const taken: string[] = [];
  const held = session.hold(async () => {
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    return async () => void taken.push('away');
  });
  await runtime.runUntil(() => finish !== undefined);
  await runtime.run(held.release());
  expect(taken).toEqual([]);
  finish?.();
  await runtime.advance(1);
  expect(taken).toEqual(['away']);
  // And only once.
  const other = session.hold(async () => async () => void taken.push('other'));
  await runtime.run(other.placed());
  await runtime.run(other.release());
  expect(taken).toEqual(['away', 'other']);
});
