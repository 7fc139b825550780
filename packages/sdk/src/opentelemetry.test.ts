import { PutResponse, RangeResponse } from '@conclave/protocol';
import { prefix } from '@conclave/sdk';
import { spans } from '@conclave/sdk/opentelemetry';
import { type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { context, propagation, SpanKind, SpanStatusCode, type TextMapPropagator, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { BasicTracerProvider, InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

const written = PutResponse.encode({ header: { revision: 7 } });
const found = RangeResponse.encode({ header: { revision: 7 } });
const unavailable = 14;

const exporter = new InMemorySpanExporter();
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
const tracer = provider.getTracer('test');

/** Writes what W3C has for the context of a span, under a name with a capital. */
const propagator: TextMapPropagator = {
  inject(inside, carrier, setter) {
    const told = trace.getSpanContext(inside);
    if (told !== undefined) setter.set(carrier, 'Traceparent', `00-${told.traceId}-${told.spanId}-01`);
  },
  extract: (inside) => inside,
  fields: () => ['traceparent'],
};

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(propagator);
});

afterAll(() => {
  context.disable();
  propagation.disable();
  trace.disable();
});

beforeEach(() => exporter.reset());

async function answering(options: Parameters<typeof spans>[0] = { tracer }, endpoints = 'a:1'): Promise<ScriptedClient> {
  const scripted = await scriptedClient({ endpoints, middleware: [spans(options)] });
  scripted.script.onCall = (call) => call.reply(call.path.endsWith('/Range') ? found : written);
  return scripted;
}

const only = (): ReadableSpan => {
  const [span, ...others] = exporter.getFinishedSpans();
  expect(others).toEqual([]);
  return span ?? expect.unreachable('there is no span');
};

describe('a call', () => {
  test('is one span with what the conventions ask for', async () => {
    const { runtime, client } = await answering();
    await runtime.run(client.put('key', 'value'));
    const span = only();
    expect(span.name).toBe('etcdserverpb.KV/Put');
    expect(span.kind).toBe(SpanKind.CLIENT);
    expect(span.attributes).toEqual({
      'rpc.system': 'grpc',
      'rpc.service': 'etcdserverpb.KV',
      'rpc.method': 'Put',
      'rpc.grpc.status_code': 0,
      'server.address': 'a',
      'server.port': 1,
    });
    expect(span.status.code).toBe(SpanStatusCode.UNSET);
  });

  test.each([
    ['[::1]:2379', { 'server.address': '::1', 'server.port': 2379 }],
    ['unix:/run/etcd', { 'server.address': '/run/etcd' }],
    ['memory', { 'server.address': 'memory' }],
  ])('to %s says so', async (endpoints, attributes) => {
    const { runtime, client } = await answering({ tracer }, endpoints);
    await runtime.run(client.put('key', 'value'));
    expect(only().attributes).toMatchObject(attributes);
  });

  test('that fails says how, and what is known of its effect', async () => {
    const { runtime, client, script } = await answering();
    script.onCall = (call) => call.end(unavailable, { message: 'etcdserver: leader changed' });
    await runtime.run(client.put('key', 'value').catch(() => {}));
    const span = only();
    expect(span.attributes).toMatchObject({
      'rpc.grpc.status_code': unavailable,
      'error.type': 'leader-changed',
      'conclave.outcome': 'unknown',
    });
    expect(span.status).toEqual({ code: SpanStatusCode.ERROR, message: 'etcdserver: leader changed' });
  });

  test('that was never sent has a span all the same', async () => {
    const { runtime, client, script } = await answering();
    script.reach = () => false;
    script.cut();
    await runtime.run(client.put('key', 'value', { deadlineMs: 100 }).catch(() => {}));
    const { attributes } = only();
    expect(attributes).toMatchObject({
      'error.type': 'unavailable',
      'conclave.outcome': 'not-applied',
      'rpc.grpc.status_code': unavailable,
    });
    expect(attributes).not.toHaveProperty('server.address');
  });

  test('that is sent again has an event each time', async () => {
    const { runtime, client, script } = await answering();
    let failures = 2;
    script.onCall = (call) => (failures-- > 0 ? call.end(unavailable, { message: 'etcdserver: no leader' }) : call.reply(found));
    await runtime.run(client.get('key'));
    const { events, attributes } = only();
    const why = { 'server.address': 'a', 'server.port': 1, 'rpc.grpc.status_code': unavailable, reason: 'etcdserver: no leader' };
    expect(events.map((event) => [event.name, event.attributes])).toEqual([
      ['retry', { attempt: 2, ...why }],
      ['retry', { attempt: 3, ...why }],
    ]);
    expect(attributes).toMatchObject({ 'rpc.grpc.status_code': 0 });
  });

  test('that is sent again elsewhere was at the endpoint that was asked last', async () => {
    const { runtime, client, script } = await answering({ tracer }, 'a:1,b:2');
    const asked: string[] = [];
    script.onCall = (call) => {
      asked.push(call.address);
      if (asked.length === 1) call.end(unavailable, { message: 'etcdserver: no leader' });
      else call.reply(found);
    };
    await runtime.run(client.get('key'));
    expect(new Set(asked).size).toBe(2);
    const { 'server.address': host, 'server.port': port } = only().attributes;
    expect(`${host}:${port}`).toBe(asked.at(-1));
  });

  test('tells neither keys nor values', async () => {
    const { runtime, client } = await answering();
    await runtime.run(client.put('my-key', 'my-value'));
    const { name, attributes, events, status } = only();
    expect(JSON.stringify({ name, attributes, events, status })).not.toMatch(/my-key|my-value/);
  });
});

describe('the context', () => {
  test('of the caller is the parent, over what it awaits in between', async () => {
    const { runtime, client } = await answering();
    const work = tracer.startActiveSpan('work', async (span) => {
      await client.put('a', '1');
      await Promise.resolve();
      await Promise.all([client.get('a'), client.get('b')]);
      span.end();
    });
    const apart = client.put('elsewhere', '1');
    await runtime.run(Promise.all([work, apart]));
    const finished = exporter.getFinishedSpans();
    const parent = finished.find(({ name }) => name === 'work')?.spanContext();
    const kinship = finished
      .filter(({ name }) => name !== 'work')
      .map(({ name, parentSpanContext }) => `${name} ${parentSpanContext === undefined ? 'alone' : parentSpanContext.spanId}`);
    expect(kinship.sort()).toEqual(
      [
        `etcdserverpb.KV/Put ${parent?.spanId}`,
        'etcdserverpb.KV/Put alone',
        `etcdserverpb.KV/Range ${parent?.spanId}`,
        `etcdserverpb.KV/Range ${parent?.spanId}`,
      ].sort(),
    );
  });

  test('stays here unless it is to be sent', async () => {
    const { runtime, client, script } = await answering();
    await runtime.run(client.put('k', 'v'));
    expect(script.call.options.metadata).toBeUndefined();
  });

  test('is sent along if it is to be', async () => {
    const { runtime, client, script } = await answering({ tracer, propagate: true });
    await runtime.run(client.put('k', 'v'));
    const { traceId, spanId } = only().spanContext();
    expect(script.call.options.metadata).toEqual({ traceparent: `00-${traceId}-${spanId}-01` });
  });
});

describe('a stream', () => {
  test('that all share has no span; one that reads a range has', async () => {
    const { client, runtime, script } = await answering();
    script.onStream = (stream) => {
      if (stream.path.endsWith('/RangeStream')) stream.end(12, { message: 'unknown method' });
    };
    const page = RangeResponse.encode({ header: { revision: 7 }, kvs: [{ key: Buffer.from('k') }], more: true, count: 1 });
    script.onCall = (call) => call.reply(script.calls.length === 1 ? page : found);
    const subscription = client.watch('k', { startRevision: 5n }).subscribe();
    const scan = async (): Promise<void> => {
      for await (const { key } of client.scan(prefix(''))) expect(key).toBe('k');
    };
    await runtime.run(scan());
    subscription.unsubscribe();
    expect(exporter.getFinishedSpans().map(({ name, attributes }) => [name, attributes['error.type']])).toEqual([
      ['etcdserverpb.KV/Range', undefined],
      ['etcdserverpb.KV/RangeStream', 'unimplemented'],
      ['etcdserverpb.KV/Range', undefined],
    ]);
  });
});

test('the tracer is the global one unless another is given, also when it comes later', async () => {
  const { runtime, client } = await answering({});
  await runtime.run(client.put('k', 'v'));
  expect(exporter.getFinishedSpans()).toEqual([]);
  trace.setGlobalTracerProvider(provider);
  await runtime.run(client.put('k', 'v'));
  expect(only().instrumentationScope.name).toBe('@conclave/sdk');
});
