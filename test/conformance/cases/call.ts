import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { allKeys, Health, PutRequest, PutResponse, RangeResponse, WatchRequest } from '@conclave/protocol';
import { grpcFrame, rawGrpcCall } from '@conclave/testkit';
import type { Case } from '../case.ts';
import { bytes, type Context, methods, op, status } from '../context.ts';

const put = methods.put.path;
const aliveAfter = async (t: Context): Promise<void> => {
  await t.write('alive=1');
  assert.equal((await t.range({ key: bytes('alive') })).count, 1);
};

const metadata: readonly Case[] = [
  {
    name: 'call: hasleader is satisfied where there is a leader',
    async run(t) {
      await t.ok(methods.put, { key: bytes('a') }, { metadata: { hasleader: 'true' } });
      using watch = t.watch({ metadata: { hasleader: 'true' } });
      assert.equal((await watch.create({ key: bytes('a') })).watchId, 0n);
    },
  },
  {
    name: 'call: client-api-version is taken',
    async run(t) {
      await t.ok(methods.put, { key: bytes('a') }, { metadata: { 'client-api-version': '3.5' } });
    },
  },
  {
    name: 'call: unknown metadata is ignored',
    async run(t) {
      await t.ok(methods.put, { key: bytes('a') }, { metadata: { 'x-anything': 'at all' } });
    },
  },
];

const unknown: readonly Case[] = [
  {
    name: 'call: an unknown method is unimplemented',
    async run(t) {
      const { end } = await t.client.unaryBytes('/etcdserverpb.KV/Nothing', new Uint8Array());
      assert.equal(end.code, 12);
    },
  },
  {
    name: 'call: an unknown method says so in words',
    needs: 'socket',
    async run(t) {
      const { end } = await t.client.unaryBytes('/etcdserverpb.KV/Nothing', new Uint8Array());
      assert.equal(status(end), '12 unknown method Nothing for service etcdserverpb.KV');
    },
  },
  {
    name: 'call: an unknown service is unimplemented',
    async run(t) {
      const { end } = await t.client.unaryBytes('/nowhere.Nothing/Nothing', new Uint8Array());
      assert.equal(end.code, 12);
    },
  },
  {
    name: 'call: an unknown service says so in words',
    needs: 'socket',
    async run(t) {
      const { end } = await t.client.unaryBytes('/nowhere.Nothing/Nothing', new Uint8Array());
      assert.equal(status(end), '12 unknown service nowhere.Nothing');
    },
  },
];

/** Bytes that are no message of the method, and the server afterwards. */
const malformed = (name: string, path: string, request: Uint8Array): Case => ({
  name: `call: ${name} is an internal error and harms nothing`,
  async run(t) {
    await t.write('a=1');
    const { end } = await t.client.unaryBytes(path, request);
    assert.equal(end.code, 13, status(end));
    assert.deepEqual(await t.all(), ['a=1 c1 m1 v1']);
    await aliveAfter(t);
  },
});

const valid = PutRequest.encode({ key: bytes('a'), value: bytes('changed'), lease: 0n, prevKv: true });

const broken: readonly Case[] = [
  malformed('a message cut off in the middle of a field', put, valid.slice(0, 6)),
  malformed('a message cut off after a tag', put, new Uint8Array([0x0a])),
  malformed('a length beyond the end of the message', put, new Uint8Array([0x0a, 0xff, 0x01, 0x61])),
  // etcd 3.4 dies of it.
  { ...malformed('a length of 2^63', put, new Uint8Array([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])), since: '3.5' },
  malformed('a varint without an end', put, new Uint8Array([0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])),
  malformed('a field number of 0', put, new Uint8Array([0x02, 0x00])),
  malformed('a wire type that does not exist', put, new Uint8Array([0x0f])),
  malformed('the wrong wire type for a known field', put, new Uint8Array([0x08, 0x01])),
  malformed('a group without an end', put, new Uint8Array([0x0b, 0x08, 0x01])),
  malformed('a nested message cut off', methods.txn.path, new Uint8Array([0x0a, 0x05, 0x12, 0x7f, 0x01, 0x02, 0x03])),
  malformed('noise', methods.range.path, new Uint8Array([0xde, 0xad, 0xbe, 0xef, 0x99, 0x12])),
  {
    name: 'call: unknown fields are stepped over',
    async run(t) {
      const extra = new Uint8Array([0xf8, 0x3f, 0x01, 0xfa, 0x3f, 0x03, 1, 2, 3]);
      const { end, response } = await t.client.unaryBytes(put, Buffer.concat([PutRequest.encode({ key: bytes('a') }), extra]));
      assert.equal(status(end), '0 ');
      assert.equal(t.relative(PutResponse.decode(response ?? new Uint8Array()).header?.revision), 1);
    },
  },
  {
    name: 'call: the last of a repeated single field wins',
    async run(t) {
      await t.client.unaryBytes(
        put,
        Buffer.concat([PutRequest.encode({ key: bytes('a'), value: bytes('1') }), PutRequest.encode({ key: bytes('b') })]),
      );
      assert.deepEqual(await t.all(), ['b=1 c1 m1 v1']);
    },
  },
  {
    name: 'call: an empty message is a request with defaults',
    async run(t) {
      const { end } = await t.client.unaryBytes(put, new Uint8Array());
      assert.equal(status(end), '3 etcdserver: key is not provided');
    },
  },
  {
    name: 'call: a malformed message on a watch ends that stream and no other',
    async run(t) {
      using other = t.watch();
      await other.create({ key: bytes('a') });
      using watch = t.watch();
      await watch.create({ key: bytes('a') });
      watch.raw.sendBytes(new Uint8Array([0x0a, 0x7f, 0x01]));
      const { code } = await watch.raw.ended;
      assert.equal(code, 13);
      await t.write('a=1');
      assert.deepEqual(await other.events(1), ['PUT a=1 c1 m1 v1']);
    },
  },
  {
    name: 'call: a malformed message on a keepalive ends that stream and keeps the lease',
    async run(t) {
      const id = await t.grant();
      using stream = t.client.stream(methods.leaseKeepAlive);
      stream.sendBytes(new Uint8Array([0x08, 0xff]));
      assert.equal((await stream.ended).code, 13);
      assert.equal((await t.ok(methods.leaseTimeToLive, { id })).grantedTtl, 60);
    },
  },
];

const mib = 1024 * 1024;

const sizes: readonly Case[] = [
  {
    name: 'call: a put of a megabyte is stored and read back',
    async run(t) {
      const value = new Uint8Array(mib).fill(7);
      await t.ok(methods.put, { key: bytes('a'), value });
      const { kvs } = await t.ok(methods.range, { key: bytes('a') });
      assert.ok(Buffer.from(kvs[0]?.value ?? []).equals(Buffer.from(value)));
    },
  },
  {
    name: 'call: a request beyond 1.5 MiB is too large',
    async run(t) {
      await t.fails(methods.put, { key: bytes('a'), value: new Uint8Array(1.5 * mib + 1) }, 'request-too-large');
      await t.fails(
        methods.txn,
        { success: [op.put('a', ''), { requestPut: { key: bytes('b'), value: new Uint8Array(1.6 * mib) } }] },
        'request-too-large',
      );
      assert.deepEqual(await t.all(), []);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: a request just below 1.5 MiB is taken',
    async run(t) {
      await t.ok(methods.put, { key: bytes('a'), value: new Uint8Array(1.5 * mib - 512) });
      assert.equal((await t.range({ key: bytes('a') })).count, 1);
    },
  },
  {
    name: 'call: a message beyond 2 MiB is refused by the transport and harms nothing',
    needs: 'socket',
    async run(t) {
      const { code, message } = await t.call(methods.put, { key: bytes('a'), value: new Uint8Array(2 * mib + 1) });
      assert.equal(code, 8);
      assert.match(message, /received message larger than max \(\d+ vs\. 2097152\)/);
      assert.deepEqual(await t.all(), []);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: a message far beyond the limit is refused as well',
    needs: 'socket',
    async run(t) {
      const { code } = await t.call(methods.put, { key: bytes('a'), value: new Uint8Array(20 * mib) });
      assert.equal(code, 8);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: an oversized message on a watch ends that stream only',
    needs: 'socket',
    async run(t) {
      using other = t.watch();
      await other.create({ key: bytes('a') });
      using watch = t.watch();
      watch.raw.sendBytes(WatchRequest.encode({ createRequest: { key: new Uint8Array(3 * mib) } }));
      assert.equal((await watch.raw.ended).code, 8);
      await t.write('a=1');
      assert.deepEqual(await other.events(1), ['PUT a=1 c1 m1 v1']);
    },
  },
  {
    name: 'call: max-request-bytes moves both limits',
    settings: { maxRequestBytes: 4096 },
    async run(t) {
      await t.ok(methods.put, { key: bytes('a'), value: new Uint8Array(3000) });
      await t.fails(methods.put, { key: bytes('a'), value: new Uint8Array(5000) }, 'request-too-large');
    },
  },
  {
    name: 'call: an answer far beyond the request limit comes whole',
    async run(t) {
      for (let at = 0; at < 12; at++) await t.ok(methods.put, { key: bytes(`k${at}`), value: new Uint8Array(mib) });
      const { kvs } = await t.ok(methods.range, allKeys());
      assert.equal(kvs.length, 12);
      assert.ok(kvs.every(({ value }) => value.length === mib));
    },
  },
];

const raw: readonly Case[] = [
  {
    name: 'call: a gzip message is taken',
    since: '3.5',
    needs: 'socket',
    async run(t) {
      const body = grpcFrame(gzipSync(PutRequest.encode({ key: bytes('a'), value: bytes('x'.repeat(1000)) })), 1);
      const { grpcStatus, grpcMessage } = await rawGrpcCall(t.server.address ?? '', {
        path: put,
        headers: { 'grpc-encoding': 'gzip' },
        body,
      });
      assert.deepEqual([grpcStatus, grpcMessage], [0, '']);
      assert.equal((await t.range({ key: bytes('a') })).count, 1);
    },
  },
  {
    name: 'call: an unknown encoding is unimplemented',
    needs: 'socket',
    async run(t) {
      const body = grpcFrame(PutRequest.encode({ key: bytes('a') }), 1);
      const { grpcStatus } = await rawGrpcCall(t.server.address ?? '', { path: put, headers: { 'grpc-encoding': 'snappy' }, body });
      assert.equal(grpcStatus, 12);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: a message that claims to be gzip and is not fails and harms nothing',
    since: '3.5',
    needs: 'socket',
    async run(t) {
      const body = grpcFrame(new Uint8Array([1, 2, 3, 4]), 1);
      const { grpcStatus } = await rawGrpcCall(t.server.address ?? '', { path: put, headers: { 'grpc-encoding': 'gzip' }, body });
      assert.equal(grpcStatus, 13);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: a gzip message that unpacks beyond the limit is refused',
    since: '3.5',
    needs: 'socket',
    async run(t) {
      const body = grpcFrame(gzipSync(PutRequest.encode({ key: bytes('a'), value: new Uint8Array(40 * mib) })), 1);
      assert.ok(body.length < mib);
      const { grpcStatus } = await rawGrpcCall(t.server.address ?? '', { path: put, headers: { 'grpc-encoding': 'gzip' }, body });
      assert.equal(grpcStatus, 8);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: a frame that ends early fails and harms nothing',
    needs: 'socket',
    async run(t) {
      const body = grpcFrame(PutRequest.encode({ key: bytes('a'), value: new Uint8Array(100) })).slice(0, 40);
      const { grpcStatus } = await rawGrpcCall(t.server.address ?? '', { path: put, body });
      assert.notEqual(grpcStatus, 0);
      assert.deepEqual(await t.all(), []);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: a request without any frame fails and harms nothing',
    needs: 'socket',
    async run(t) {
      const { grpcStatus } = await rawGrpcCall(t.server.address ?? '', { path: put, body: new Uint8Array() });
      assert.notEqual(grpcStatus, 0);
      await aliveAfter(t);
    },
  },
  {
    name: 'call: two messages to a unary method are one too many, or the second is not looked at',
    needs: 'socket',
    async run(t) {
      const body = Buffer.concat([grpcFrame(PutRequest.encode({ key: bytes('a') })), grpcFrame(PutRequest.encode({ key: bytes('b') }))]);
      await rawGrpcCall(t.server.address ?? '', { path: put, body });
      const { kvs } = await t.range(allKeys());
      assert.ok(kvs.every((kv) => kv.startsWith('a=')));
      await aliveAfter(t);
    },
  },
  {
    // In 3.4 the handler of the watch sometimes ends before the transport does, and its answer is then UNKNOWN (2) rather than the deadline's.
    name: 'call: grpc-timeout is honoured by a request that waits',
    since: '3.5',
    needs: 'socket',
    async run(t) {
      const began = performance.now();
      const body = grpcFrame(WatchRequest.encode({ createRequest: { key: bytes('a') } }));
      const { grpcStatus, resetCode } = await rawGrpcCall(t.server.address ?? '', {
        path: methods.watch.path,
        headers: { 'grpc-timeout': '300m' },
        body,
        end: false,
      });
      const took = performance.now() - began;
      // grpc-go resets the stream with CANCEL: a client whose deadline it is knows why.
      assert.ok(grpcStatus === 4 || resetCode === 8, `status ${grpcStatus}, reset ${resetCode}`);
      assert.ok(took >= 250 && took < 5000, `${took.toFixed(0)} ms`);
    },
  },
  {
    name: 'call: another content type is no gRPC call',
    since: '3.5',
    needs: 'socket',
    async run(t) {
      const { status: code, grpcStatus } = await rawGrpcCall(t.server.address ?? '', {
        path: put,
        headers: { 'content-type': 'text/plain' },
        body: grpcFrame(PutRequest.encode({ key: bytes('a') })),
      });
      assert.ok(code === 415 || grpcStatus > 0, `HTTP ${code}, gRPC ${grpcStatus}`);
      assert.deepEqual(await t.all(), []);
    },
  },
  {
    name: 'call: answers carry the content type of gRPC',
    needs: 'socket',
    async run(t) {
      const {
        headers,
        status: code,
        body,
        grpcStatus,
      } = await rawGrpcCall(t.server.address ?? '', { path: methods.range.path, body: grpcFrame(PutRequest.encode({ key: bytes('a') })) });
      assert.deepEqual([code, grpcStatus], [200, 0]);
      assert.match(String(headers['content-type']), /^application\/grpc/);
      assert.equal(RangeResponse.decode(body.subarray(5)).count, 0);
    },
  },
  {
    name: 'call: a deadline that has passed ends the call and the connection goes on',
    async run(t) {
      const { code } = await t.call(methods.range, { key: bytes('a') }, { timeoutMs: -1 });
      assert.equal(code, 4);
      await t.ok(Health.methods.check, {});
    },
  },
  {
    name: 'call: a thousand calls at once on one connection all end well',
    async run(t) {
      const answers = await Promise.all(
        Array.from({ length: 1000 }, (_none, at) => t.call(methods.range, { key: bytes(`k${at}`), serializable: at % 2 === 0 })),
      );
      assert.ok(answers.every(({ code }) => code === 0));
    },
  },
  {
    name: 'call: two hundred watches on one stream each get the event',
    async run(t) {
      using watch = t.watch();
      for (let at = 0; at < 200; at++) await watch.create({ key: bytes('a') });
      await t.write('a=1');
      const ids = new Set<bigint>();
      while (ids.size < 200) ids.add((await watch.next()).watchId);
    },
  },
  {
    name: 'call: a stream that is canceled is let go',
    async run(t) {
      for (let round = 0; round < 20; round++) {
        const watch = t.watch();
        await watch.create({ key: bytes('a') });
        watch.raw.cancel();
        assert.equal((await watch.raw.ended).code, 1);
      }
      await aliveAfter(t);
    },
  },
];

export const callCases: readonly Case[] = [...metadata, ...unknown, ...broken, ...sizes, ...raw];
