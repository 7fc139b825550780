import { connect, preload, type SrvRecord } from '@conclave/sdk';
import { VirtualRuntime } from '@conclave/testing';
import { ScriptedTransport, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { SrvDiscovery } from './srv-discovery.ts';

const record = (name: string, port: number, priority = 0, weight = 0): SrvRecord => ({ name, port, priority, weight });

function failing(code: string): Error {
  return Object.assign(new Error(`querySrv ${code}`), { code });
}

/** DNS as the test says. */
function dns(zones: Record<string, readonly SrvRecord[] | Error>) {
  const asked: string[] = [];
  return {
    zones,
    asked,
    resolveSrv: async (name: string): Promise<readonly SrvRecord[]> => {
      asked.push(name);
      const answer = zones[name] ?? failing('ENOTFOUND');
      if (answer instanceof Error) throw answer;
      return answer;
    },
  };
}

const plain = '_etcd-client._tcp.example.com';
const secure = '_etcd-client-ssl._tcp.example.com';

describe('what is asked', () => {
  test('records for TLS come first, and are all that counts if there are any', async () => {
    const { resolveSrv, asked } = dns({ [secure]: [record('one.example.com', 2379, 1, 2)], [plain]: [record('two.example.com', 2379)] });
    const discovery = new SrvDiscovery({ srv: 'example.com', resolveSrv }, undefined, true);
    const { addresses, preferences } = await discovery.look();
    expect([addresses, preferences.get('one.example.com:2379')]).toEqual([['one.example.com:2379'], { priority: 1, weight: 2 }]);
    expect([discovery.isSecure, asked]).toEqual([true, [secure]]);
  });

  test('without any the others are asked for, then and from then on', async () => {
    const { resolveSrv, asked, zones } = dns({ [plain]: [record('two.example.com.', 2379)] });
    const discovery = new SrvDiscovery({ srv: 'example.com.', resolveSrv }, undefined, true);
    expect((await discovery.look()).addresses).toEqual(['two.example.com:2379']);
    zones[secure] = [record('one.example.com', 2379)];
    await discovery.look();
    expect([discovery.isSecure, asked]).toEqual([false, [secure, plain, plain]]);
  });

  test('a client with `tls` is content with nothing else', async () => {
    const { resolveSrv, asked } = dns({ [plain]: [record('two.example.com', 2379)] });
    const discovery = new SrvDiscovery({ srv: 'example.com', resolveSrv }, true, false);
    await expect(discovery.look()).rejects.toMatchObject({
      code: 'unavailable',
      message: `no endpoints from ${secure}: there are no records`,
    });
    expect(asked).toEqual([secure]);
  });

  test('a question that fails is not taken for one without an answer', async () => {
    const { resolveSrv } = dns({ [secure]: failing('ESERVFAIL'), [plain]: [record('two.example.com', 2379)] });
    const discovery = new SrvDiscovery({ srv: 'example.com', resolveSrv }, undefined, true);
    await expect(discovery.look()).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('ESERVFAIL') });
  });

  test('several clusters of a domain are told apart by a name', async () => {
    const { resolveSrv, asked } = dns({ '_etcd-client-blue._tcp.example.com': [record('two.example.com', 2379)] });
    await new SrvDiscovery({ srv: 'example.com', name: 'blue', resolveSrv }, undefined, true).look();
    expect(asked).toEqual(['_etcd-client-ssl-blue._tcp.example.com', '_etcd-client-blue._tcp.example.com']);
  });

  test('where any authority is trusted, hosts out of the domain are not', async () => {
    const zones = { [secure]: [record('one.example.com', 1), record('evil.com', 2), record('evilexample.com', 3)] };
    const strict = new SrvDiscovery(
      {
        srv: 'Example.com',
        resolveSrv: dns(Object.fromEntries(Object.entries(zones).map(([name, answer]) => [name.replace('example', 'Example'), answer])))
          .resolveSrv,
      },
      undefined,
      true,
    );
    expect((await strict.look()).addresses).toEqual(['one.example.com:1']);
    const known = new SrvDiscovery({ srv: 'example.com', resolveSrv: dns(zones).resolveSrv }, undefined, false);
    expect((await known.look()).addresses).toHaveLength(3);
  });

  test.each([{ srv: '' }, { srv: 'a b' }, { srv: 'example.com', name: '' }, { srv: 'example..com' }])('%o is refused', (options) => {
    expect(() => new SrvDiscovery(options, undefined, true)).toThrow(/is no name of DNS/);
  });
});

describe('a client', () => {
  test('uses those of the best priority, as their weights say, and the others when these are gone', async () => {
    const { resolveSrv } = dns({ [plain]: [record('a', 1, 10, 3), record('b', 1, 10, 1), record('c', 1, 20, 1)] });
    const { runtime, script, client } = await scriptedClient({ discovery: { srv: 'example.com', resolveSrv } });
    await runtime.advance(10);
    const asked = async (count: number): Promise<Record<string, number>> => {
      const before = script.calls.length;
      for (let n = 0; n < count; n++) void client.get('k').catch(() => {});
      await runtime.advance(0);
      const counts: Record<string, number> = {};
      for (const { address } of script.calls.slice(before)) counts[address] = (counts[address] ?? 0) + 1;
      return counts;
    };
    expect(await asked(8)).toEqual({ 'a:1': 6, 'b:1': 2 });
    script.reach = (address) => address === 'c:1';
    for (const connection of script.connections) if (connection.address !== 'c:1') connection.break();
    await runtime.advance(10);
    expect(await asked(2)).toMatchObject({ 'c:1': expect.any(Number) });
    await client.close();
  });

  test('asks again when none can be reached, and goes where they are then', async () => {
    const { resolveSrv, zones, asked } = dns({ [plain]: [record('a', 1)] });
    const { runtime, script, client } = await scriptedClient({ discovery: { srv: 'example.com', resolveSrv } });
    await runtime.advance(60_000);
    expect(asked).toHaveLength(1);
    zones[plain] = [record('b', 2)];
    script.reach = (address) => address === 'b:2';
    script.cut();
    await runtime.runUntil(() => script.connections.some(({ address, state }) => address === 'b:2' && state === 'ready'));
    await runtime.advance(60_000);
    expect(asked).toHaveLength(2);
    expect(script.connections.filter(({ state }) => state !== 'closed').map(({ address }) => address)).toEqual(['b:2']);
    await client.close();
    expect(runtime.pendingTimers).toBe(0);
  });

  test('asks as often as `sync` says, and goes on as it is when DNS fails', async () => {
    const { resolveSrv, zones, asked } = dns({ [plain]: [record('a', 1)] });
    const options = { discovery: { srv: 'example.com', resolveSrv }, sync: { intervalMs: 10_000 } };
    const { runtime, script, client } = await scriptedClient(options);
    zones[plain] = [record('a', 1), record('b', 2)];
    await runtime.advance(10_100);
    const open = (): string[] => script.connections.filter(({ state }) => state !== 'closed').map(({ address }) => address);
    expect(open()).toEqual(['a:1', 'b:2']);
    zones[plain] = failing('ETIMEOUT');
    await runtime.advance(30_000);
    expect(open()).toEqual(['a:1', 'b:2']);
    expect(asked.length).toBeGreaterThan(4);
    zones[plain] = [record('b', 2)];
    expect(await runtime.run(client.sync())).toEqual(['b:2']);
    await client.close();
    expect(runtime.pendingTimers).toBe(0);
  });

  test('waits for DNS as it waits for an endpoint', async () => {
    await preload();
    const runtime = new VirtualRuntime({ seed: 1 });
    const script = new ScriptedTransport(runtime);
    const { resolveSrv, zones } = dns({});
    const options = { runtime, transport: script.transport, discovery: { srv: 'example.com', resolveSrv } };
    await expect(runtime.run(connect(options))).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('no records'),
    });
    expect(runtime.monotonic()).toBeLessThanOrEqual(5_000);
    const connecting = connect(options);
    await runtime.advance(1_000);
    zones[plain] = [record('a', 1)];
    await (await runtime.run(connecting)).close();
    const hanging = connect({ ...options, discovery: { srv: 'example.com', resolveSrv: () => new Promise(() => {}) } });
    await expect(runtime.run(hanging)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('no answer in time'),
    });
    const controller = new AbortController();
    const given = connect({
      ...options,
      signal: controller.signal,
      discovery: { srv: 'example.com', resolveSrv: () => new Promise(() => {}) },
    });
    controller.abort('enough');
    await expect(runtime.run(given)).rejects.toMatchObject({ code: 'cancelled', cause: 'enough' });
  });

  test.each([{}, { endpoints: 'a:1', discovery: { srv: 'example.com' } }])('%o is refused', async (options) => {
    await expect(connect(options)).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});
