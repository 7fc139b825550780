import { LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, RangeResponse } from '@conclave/protocol';
import { promMetrics } from '@conclave/sdk/prom-client';
import { type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';

const found = RangeResponse.encode({ header: { revision: 7 } });
const unavailable = 14;

/** The samples of a metric, without its name's prefix and with the labels in one text. */
async function samples(register: Registry, name: string): Promise<Record<string, number>> {
  const lines = (await register.metrics()).split('\n').filter((line) => line.startsWith(`conclave_client_${name}`));
  return Object.fromEntries(
    lines.map((line) => {
      const cut = line.lastIndexOf(' ');
      return [line.slice('conclave_client_'.length, cut), Number(line.slice(cut + 1))];
    }),
  );
}

async function measured(register: Registry, client?: string): Promise<ScriptedClient> {
  const scripted = await scriptedClient({ metrics: promMetrics({ register, client }) });
  scripted.script.onCall = (call) => call.reply(found);
  return scripted;
}

describe('calls', () => {
  test('are counted by method and code, with the time they took', async () => {
    const register = new Registry();
    const { runtime, client, script } = await measured(register);
    script.onCall = (call) => runtime.timer(30, () => call.reply(found));
    await runtime.run(client.get('k'));
    script.onCall = (call) => call.end(3, { message: 'etcdserver: request is too large' });
    await runtime.run(client.put('k', 'v').catch(() => {}));
    expect(await samples(register, 'rpc_duration_seconds_count')).toEqual({
      'rpc_duration_seconds_count{client="default",method="Range",code="ok"}': 1,
      'rpc_duration_seconds_count{client="default",method="Put",code="request-too-large"}': 1,
    });
    expect(await samples(register, 'rpc_duration_seconds_sum')).toMatchObject({
      'rpc_duration_seconds_sum{client="default",method="Range",code="ok"}': 0.03,
    });
  });

  test('that are sent again are counted as such', async () => {
    const register = new Registry();
    const { runtime, client, script } = await measured(register);
    let failures = 2;
    script.onCall = (call) => (failures-- > 0 ? call.end(unavailable) : call.reply(found));
    await runtime.run(client.get('k'));
    expect(await samples(register, 'rpc_repeats')).toEqual({ 'rpc_repeats_total{client="default",method="Range"}': 2 });
  });

  test('are in flight from their beginning to their end, and one that cannot begin is not', async () => {
    const register = new Registry();
    const { runtime, client, script } = await measured(register);
    script.onCall = () => {};
    const inFlight = async () => (await samples(register, 'rpc_in_flight'))['rpc_in_flight{client="default"}'];
    const calls = [client.get('k'), client.get('l')];
    await client.get('m', { signal: AbortSignal.abort() }).catch(() => {});
    expect(await inFlight()).toBe(2);
    for (const call of script.calls) call.reply(found);
    await runtime.run(Promise.all(calls));
    expect(await inFlight()).toBe(0);
    expect(Object.keys(await samples(register, 'rpc_duration_seconds_count'))).toHaveLength(1);
  });
});

test('endpoints are counted by the states they go into', async () => {
  const register = new Registry();
  const { runtime, script } = await measured(register);
  script.cut();
  await runtime.runUntil(() => script.to('a:1')[0]?.state === 'ready');
  expect(await samples(register, 'endpoint_changes')).toEqual({
    'endpoint_changes_total{client="default",endpoint="a:1",state="connecting"}': 2,
    'endpoint_changes_total{client="default",endpoint="a:1",state="ready"}': 2,
    'endpoint_changes_total{client="default",endpoint="a:1",state="failed"}': 1,
  });
});

describe('leases', () => {
  /** Grants and renews leases, until it falls silent. */
  function serve({ script, runtime }: ScriptedClient): { isSilent: boolean } {
    const server = { isSilent: false };
    script.onCall = (call) => {
      const { id, ttl } = LeaseGrantRequest.decode(call.request);
      call.reply(LeaseGrantResponse.encode({ id, ttl }));
    };
    script.onStream = (stream) => {
      stream.onWrite = (bytes) => {
        const { id } = LeaseKeepAliveRequest.decode(bytes);
        runtime.timer(20, () => {
          if (!server.isSilent && !stream.isEnded) stream.send(LeaseKeepAliveResponse.encode({ id, ttl: 10 }));
        });
      };
    };
    return server;
  }

  const slack = async (register: Registry): Promise<number | undefined> =>
    (await samples(register, 'lease_slack'))['lease_slack_milliseconds{client="default"}'];

  test('have no slack where there are none, and that of the one that is worst off', async () => {
    const register = new Registry();
    const scripted = await measured(register);
    serve(scripted);
    const { runtime, client } = scripted;
    expect(await slack(register)).toBeUndefined();
    const long = await runtime.run(client.lease.grant({ ttlSeconds: 60 }));
    expect(await slack(register)).toBe(59_000);
    await runtime.run(client.lease.grant({ ttlSeconds: 10 }));
    expect(await slack(register)).toBe(9_450);
    await runtime.advance(3_000);
    expect(await slack(register)).toBe(6_450);
    await runtime.advance(1_000);
    // Renewed after a third of its time, and judged from when that was sent.
    expect(await slack(register)).toBeCloseTo(9_450 - 4_000 + 10_000 / 3, 0);
    expect(await samples(register, 'lease_renewal_seconds_')).toMatchObject({
      'lease_renewal_seconds_count{client="default"}': 1,
      'lease_renewal_seconds_sum{client="default"}': expect.closeTo(0.02),
    });
    expect(long.state).toBe('held');
  });

  test('in trouble run out of slack, and are counted when they are lost', async () => {
    const register = new Registry();
    const scripted = await measured(register);
    const server = serve(scripted);
    const { runtime, client } = scripted;
    const lease = await runtime.run(client.lease.grant({ ttlSeconds: 10 }));
    server.isSilent = true;
    await runtime.advance(9_000);
    expect(await slack(register)).toBe(450);
    expect(await samples(register, 'leases_lost')).toEqual({});
    await runtime.advance(1_000);
    expect(lease.state).toBe('lost');
    expect(await slack(register)).toBeUndefined();
    expect(await samples(register, 'leases_lost')).toEqual({ 'leases_lost_total{client="default"}': 1 });
  });

  test('that are given back, or end with the client, are not lost', async () => {
    const register = new Registry();
    const scripted = await measured(register);
    serve(scripted);
    const { runtime, client } = scripted;
    const lease = await runtime.run(client.lease.grant({ ttlSeconds: 10 }));
    await runtime.run(lease.revoke());
    await runtime.run(client.lease.grant({ ttlSeconds: 10 }));
    await client.close();
    expect(await samples(register, 'leases_lost')).toEqual({});
  });
});

describe('one registry', () => {
  test('takes several clients, by name; of one name they count together', async () => {
    const register = new Registry();
    for (const name of ['a', 'a', 'b']) {
      const { client, runtime, script } = await measured(register, name);
      await runtime.run(client.get('k'));
      script.onCall = () => {};
      void client.get('l').catch(() => {});
    }
    expect(await samples(register, 'rpc_in_flight')).toEqual({
      'rpc_in_flight{client="a"}': 2,
      'rpc_in_flight{client="b"}': 1,
    });
    expect(await samples(register, 'rpc_duration_seconds_count')).toMatchObject({
      'rpc_duration_seconds_count{client="a",method="Range",code="ok"}': 2,
      'rpc_duration_seconds_count{client="b",method="Range",code="ok"}': 1,
    });
  });

  test('tells of clients of one name what the worst of them has, and all that is in flight', async () => {
    const register = new Registry();
    const metrics = promMetrics({ register });
    const [, forget] = [
      metrics.observe({ callsInFlight: 1, watchLagRevisions: 5, leaseSlackMs: 900 }),
      metrics.observe({ callsInFlight: 2, watchLagRevisions: 7, leaseSlackMs: 300 }),
      metrics.observe({ callsInFlight: 0, watchLagRevisions: 0, leaseSlackMs: undefined }),
    ];
    const all = async (): Promise<Record<string, number>> => ({
      ...(await samples(register, 'rpc_in_flight')),
      ...(await samples(register, 'watch_lag_revisions')),
      ...(await samples(register, 'lease_slack_milliseconds')),
    });
    const [inFlight, lag, slack] = ['rpc_in_flight', 'watch_lag_revisions', 'lease_slack_milliseconds'].map(
      (name) => `${name}{client="default"}`,
    );
    expect(await all()).toEqual({ [inFlight ?? '']: 3, [lag ?? '']: 7, [slack ?? '']: 300 });
    forget?.();
    expect(await all()).toEqual({ [inFlight ?? '']: 1, [lag ?? '']: 5, [slack ?? '']: 900 });
  });

  test('has no present values of a client that was closed, or could not connect', async () => {
    const register = new Registry();
    const { client } = await measured(register);
    expect(await samples(register, 'watch_lag')).toEqual({ 'watch_lag_revisions{client="default"}': 0 });
    await client.close();
    expect(await samples(register, 'watch_lag')).toEqual({});
    const prepare = (script: ScriptedClient['script']): void => {
      script.reach = () => false;
    };
    await expect(scriptedClient({ metrics: promMetrics({ register }), prepare, deadlineMs: 100 })).rejects.toMatchObject({
      code: 'unavailable',
    });
    expect(await samples(register, 'watch_lag')).toEqual({});
  });

  test('that was cleared is filled anew by the next client', async () => {
    const register = new Registry();
    await measured(register);
    register.clear();
    const { client, runtime } = await measured(register);
    await runtime.run(client.get('k'));
    expect(Object.keys(await samples(register, 'rpc_duration_seconds_count'))).toHaveLength(1);
    expect(Object.keys(await samples(register, 'rpc_in_flight'))).toHaveLength(1);
  });
});
