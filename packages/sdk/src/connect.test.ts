import { connect, type Logger, type Metrics, type Middleware, preload } from '@conclave/sdk';
import { VirtualRuntime } from '@conclave/testing';
import { ScriptedTransport, scriptedClient } from '@conclave/testkit';
import { expect, test } from 'vitest';

async function unreachable(): Promise<{ runtime: VirtualRuntime; script: ScriptedTransport }> {
  await preload();
  const runtime = new VirtualRuntime();
  const script = new ScriptedTransport(runtime);
  script.reach = () => false;
  return { runtime, script };
}

test('connecting to nothing rejects after the deadline, and lets go of everything', async () => {
  const { runtime, script } = await unreachable();
  const promise = connect({ endpoints: 'a:1,b:2', runtime, transport: script.transport, deadlineMs: 800 });
  await expect(runtime.run(promise)).rejects.toMatchObject({ code: 'unavailable', outcome: 'not-applied' });
  expect(runtime.monotonic()).toBe(800);
  expect(script.connections.every(({ state }) => state === 'closed')).toBe(true);
  expect(runtime.pendingTimers).toBe(0);
});

test('connecting waits for a server that comes up late', async () => {
  const { runtime, script } = await unreachable();
  runtime.timer(2_000, () => {
    script.reach = () => true;
  });
  const client = await runtime.run(connect({ endpoints: 'a:1', runtime, transport: script.transport }));
  await client.close();
});

test('one reachable endpoint is enough', async () => {
  const { runtime, script } = await unreachable();
  script.reach = (address) => address === 'c:3';
  await runtime.run(connect({ endpoints: ['a:1', 'b:2', 'c:3'], runtime, transport: script.transport }));
  expect(runtime.monotonic()).toBe(0);
});

test('connecting waits as long as it is told to', async () => {
  const { runtime, script } = await unreachable();
  runtime.timer(3_600_000, () => {
    script.reach = () => true;
  });
  const promise = connect({ endpoints: 'a:1', runtime, transport: script.transport, deadlineMs: Number.POSITIVE_INFINITY });
  await (await runtime.run(promise, { deadlineMs: 4_000_000 })).close();
});

test('a lazy client waits for nothing', async () => {
  const { runtime, script } = await unreachable();
  const client = await runtime.run(connect({ endpoints: 'a:1', runtime, transport: script.transport, lazy: true }));
  expect(script.to('a:1')[0]?.state).not.toBe('ready');
  await client.close();
});

test('connecting can be given up', async () => {
  const { runtime, script } = await unreachable();
  const controller = new AbortController();
  const promise = connect({ endpoints: 'a:1', runtime, transport: script.transport, signal: controller.signal });
  runtime.timer(300, () => controller.abort('enough'));
  await expect(runtime.run(promise)).rejects.toMatchObject({ code: 'cancelled', cause: 'enough' });
  expect(script.connections.every(({ state }) => state === 'closed')).toBe(true);
});

test.each([
  { endpoints: [] },
  { endpoints: 'a:1', deadlineMs: 0 },
  { endpoints: 'http://a:1,https://b:1' },
  { endpoints: 'http://a:1', tls: {} },
  { endpoints: 'https://a:1', tls: { cert: 'client.pem' } },
  ...[null, 5, {}, { info: () => {} }].map((log) => ({ endpoints: 'a:1', log: log as unknown as Logger })),
  ...[null, 5, {}, { callEnded: () => {} }].map((metrics) => ({ endpoints: 'a:1', metrics: metrics as unknown as Metrics })),
  ...[null, 5, {}, () => {}, [undefined]].map((middleware) => ({ endpoints: 'a:1', middleware: middleware as unknown as Middleware[] })),
  { endpoints: 'https://a:1', transport: new ScriptedTransport(new VirtualRuntime()).transport },
])('%o is refused', async (options) => {
  await expect(connect(options)).rejects.toMatchObject({ code: 'invalid-argument' });
});

test('a client in a scope is closed at its end', async () => {
  const { client, script, runtime } = await scriptedClient();
  {
    await using held = client;
    expect(held.runtime).toBe(runtime);
  }
  expect(script.connections[0]?.state).toBe('closed');
  expect(runtime.pendingTimers).toBe(0);
});
