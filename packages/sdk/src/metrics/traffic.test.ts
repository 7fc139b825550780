// Middleware, metrics and spans with real servers behind them.

import { type CallReport, type Client, type ConnectOptions, connect, type InterceptedCall, type Middleware, prefix } from '@conclave/sdk';
import { spans } from '@conclave/sdk/opentelemetry';
import { promMetrics } from '@conclave/sdk/prom-client';
import { eventually, type RunningProcess, TcpProxy, testTargets } from '@conclave/testkit';
import { context, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const targets = testTargets();

/** The value of a sample, by what its line begins with. */
async function sample(register: Registry, name: string, labels = ''): Promise<number | undefined> {
  const begin = `conclave_client_${name}{client="default"${labels}} `;
  const line = (await register.metrics()).split('\n').find((candidate) => candidate.startsWith(begin));
  return line === undefined ? undefined : Number(line.slice(begin.length));
}

describe.each(targets)('against $title', ({ start, skip, name }) => {
  let server: RunningProcess;
  let root: Client;
  let space = 0;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    root = await connect({ endpoints: server.address });
  });

  afterAll(async () => {
    await root?.close();
    await server?.[Symbol.asyncDispose]();
  });

  const connected = (options: Partial<ConnectOptions>): Promise<Client> => connect({ endpoints: server.address, ...options });
  const fresh = (): string => `${name}/${++space}/`;

  describe.skipIf(skip !== undefined)('middleware', () => {
    test('sees calls and streams, with metadata that the server takes, in namespaces and views as well', async () => {
      const seen: [InterceptedCall, CallReport][] = [];
      const watching: Middleware = (call, next) => {
        call.setMetadata('x-team', 'coordination');
        call.onEnd((report) => seen.push([call, report]));
        next();
      };
      {
        await using client = await connected({ middleware: [watching] });
        const app = client.namespace(fresh());
        await app.put('k', 'v');
        await app.get('k');
        await using lease = await app.lease.grant({ ttlSeconds: 10 });
        await app.put('l', 'v', { lease });
        await using view = await app.view(prefix(''));
        expect(view.get('k')?.value).toBe('v');
        for await (const event of app.watch('k', { startRevision: 1n })) {
          expect(event.key).toBe('k');
          break;
        }
        for await (const { key } of app.scan(prefix(''), { pageSize: 1 })) expect(key).toMatch(/k|l/);
      }
      const methods = new Set(seen.map(([{ kind, method }]) => `${kind} ${method}`));
      for (const expected of [
        'unary Put',
        'unary Range',
        'unary LeaseGrant',
        'unary LeaseRevoke',
        'unary Status',
        'stream LeaseKeepAlive',
        'stream Watch',
        'stream RangeStream',
      ]) {
        expect([...methods]).toContain(expected);
      }
      const ends = seen.filter(([{ method }]) => method !== 'RangeStream').map(([, { code, endpoint }]) => `${code} ${endpoint}`);
      expect(new Set(ends)).toEqual(new Set([`ok ${server.address}`]));
      expect(
        seen
          .filter(([{ method }]) => method === 'Put')
          .map(([{ key }]) =>
            Buffer.from(key ?? [])
              .toString()
              .at(-1),
          ),
      ).toEqual(['k', 'l']);
    });

    test('that refuses a write has it not written', async () => {
      const key = fresh();
      await using client = await connected({
        middleware: [
          ({ method }, next) => {
            if (method === 'Put') throw new Error('read only');
            next();
          },
        ],
      });
      await expect(client.put(key, 'v')).rejects.toMatchObject({ code: 'refused', outcome: 'not-applied' });
      expect(await client.get(key)).toBeUndefined();
    });

    test('cannot make a write look done that is in doubt, or the other way round', async () => {
      await using proxy = await TcpProxy.to(server.address);
      const reports: CallReport[] = [];
      await using client = await connected({
        endpoints: proxy.address,
        middleware: [
          (call, next) => {
            call.onEnd((report) => {
              if (call.method === 'Put') reports.push(report);
              throw new Error('it went well, believe me');
            });
            next();
          },
        ],
      });
      const key = fresh();
      proxy.loseResponse(1);
      const error: unknown = await client.put(key, 'v').catch((caught: unknown) => caught);
      proxy.behave();
      expect(error).toMatchObject({ outcome: 'unknown' });
      expect(reports).toMatchObject([{ error, outcome: 'unknown', attempts: 1 }]);
      expect((await root.get(key))?.version).toBe(1n);
    });
  });

  describe.skipIf(skip !== undefined)('metrics', () => {
    test('of real traffic', async () => {
      const register = new Registry();
      await using client = await connected({ metrics: promMetrics({ register }) });
      const app = client.namespace(fresh());
      const { revision } = await app.put('k', '0');
      let told = 0;
      using subscription = disposable(app.watch(prefix(''), { startRevision: revision }).subscribe(() => told++));
      for (let i = 1; i < 50; i++) await app.put('k', String(i));
      await expect(app.get('k', { revision: revision + 1_000_000n })).rejects.toMatchObject({ code: 'future-revision' });
      await eventually('all events', () => told === 50);
      expect(await sample(register, 'rpc_duration_seconds_count', ',method="Put",code="ok"')).toBe(50);
      expect(await sample(register, 'rpc_duration_seconds_count', ',method="Range",code="future-revision"')).toBe(1);
      const seconds = (await sample(register, 'rpc_duration_seconds_sum', ',method="Put",code="ok"')) ?? 0;
      expect(seconds / 50).toBeGreaterThan(0.00005);
      expect(seconds / 50).toBeLessThan(1);
      expect(await sample(register, 'watch_events_total')).toBe(50);
      expect(await sample(register, 'rpc_in_flight')).toBe(0);
      expect(await sample(register, 'watch_lag_revisions')).toBe(0);
      expect(await sample(register, 'endpoint_changes_total', `,endpoint="${server.address}",state="ready"`)).toBe(1);
      void subscription;
    });

    test('tell the lag of a watch that is held back, until it has caught up', async () => {
      const register = new Registry();
      await using client = await connected({ metrics: promMetrics({ register }) });
      const app = client.namespace(fresh());
      const { revision } = await app.put('k', '');
      const events = app.watch(prefix(''), { startRevision: revision, bufferedEventsMax: 1 })[Symbol.asyncIterator]();
      await events.next();
      const value = 'x'.repeat(64 << 10);
      for (let i = 0; i < 100; i++) await app.put('k', value);
      const lag = await eventually('a lag', async () => {
        const told = await sample(register, 'watch_lag_revisions');
        return told !== undefined && told > 10 && told;
      });
      expect(lag).toBeLessThanOrEqual(100);
      for (let i = 0; i < 100; i++) await events.next();
      await eventually('no lag', async () => (await sample(register, 'watch_lag_revisions')) === 0);
      await events.return?.();
    });

    test('tell no lag of a watch that has caught up, however long its keys have not changed', async () => {
      const register = new Registry();
      await using client = await connected({ metrics: promMetrics({ register }) });
      const app = client.namespace(fresh());
      const { revision } = await app.put('quiet', '');
      for (let i = 0; i < 20; i++) await app.put('busy', '');
      const told: string[] = [];
      using subscription = disposable(app.watch('quiet', { startRevision: revision }).subscribe(({ key }) => told.push(key)));
      await eventually('its only event', () => told.length === 1);
      await eventually('no lag', async () => (await sample(register, 'watch_lag_revisions')) === 0);
      await app.put('busy', '');
      expect(await sample(register, 'watch_lag_revisions')).toBe(0);
      void subscription;
    });

    test('tell of watches that went on after a break, and of what was missed meanwhile', async () => {
      const register = new Registry();
      await using proxy = await TcpProxy.to(server.address);
      await using client = await connected({ endpoints: proxy.address, metrics: promMetrics({ register }) });
      const app = client.namespace(fresh());
      const { revision } = await app.put('k', '');
      let told = 0;
      const subscriptions = ['k', 'l'].map((key) => disposable(app.watch(key, { startRevision: revision }).subscribe(() => told++)));
      await eventually('the first event', () => told === 1);
      proxy.cut();
      await app.put('k', 'again').catch(() => app.put('k', 'again'));
      await eventually('the next event', () => told >= 2);
      expect(await sample(register, 'watch_resumes_total')).toBeGreaterThanOrEqual(2);
      expect(await sample(register, 'endpoint_changes_total', `,endpoint="${proxy.address}",state="failed"`)).toBeGreaterThanOrEqual(1);
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
    });

    test('tell of a lease in trouble before it is lost, and then that it is', async () => {
      const register = new Registry();
      await using proxy = await TcpProxy.to(server.address);
      await using client = await connected({ endpoints: proxy.address, metrics: promMetrics({ register }) });
      const lease = await client.lease.grant({ ttlSeconds: 3 });
      const full = await sample(register, 'lease_slack_milliseconds');
      expect(full).toBeGreaterThan(2_500);
      await eventually('a renewal', async () => ((await sample(register, 'lease_renewal_seconds_count')) ?? 0) >= 1);
      expect(await sample(register, 'lease_slack_milliseconds')).toBeGreaterThan(1_500);
      proxy.silence();
      await eventually('little slack', async () => ((await sample(register, 'lease_slack_milliseconds')) ?? 0) < 1_000);
      expect(lease.state).toBe('held');
      expect(await sample(register, 'leases_lost_total')).toBeUndefined();
      await eventually('the loss', async () => (await sample(register, 'leases_lost_total')) === 1);
      expect(await sample(register, 'lease_slack_milliseconds')).toBeUndefined();
      expect(lease.state).toBe('lost');
    });
  });

  test.skipIf(skip !== undefined)('spans stand below the one of the work they are part of', async () => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    try {
      const exporter = new InMemorySpanExporter();
      const tracer = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).getTracer('test');
      await using client = await connected({ middleware: [spans({ tracer })] });
      const key = fresh();
      await tracer.startActiveSpan('work', async (work) => {
        await client.put(key, 'v');
        await Promise.all([client.get(key), client.get(key)]);
        await client.stm(async (tx) => tx.put(key, `${await tx.get(key)}!`));
        work.end();
      });
      const finished = exporter.getFinishedSpans();
      const work = finished.find((span) => span.name === 'work')?.spanContext();
      const children = finished.filter((span) => span.parentSpanContext?.spanId === work?.spanId);
      expect(children.map((span) => span.attributes['rpc.method'])).toEqual(['Put', 'Range', 'Range', 'Range', 'Txn']);
      const [host, port] = server.address.split(':');
      for (const { attributes } of children) {
        expect(attributes).toMatchObject({ 'server.address': host, 'server.port': Number(port), 'rpc.grpc.status_code': 0 });
      }
    } finally {
      context.disable();
      trace.disable();
    }
  });
});

/** A subscription that ends with its block. */
function disposable(subscription: { unsubscribe(): void }): Disposable {
  return { [Symbol.dispose]: () => subscription.unsubscribe() };
}
