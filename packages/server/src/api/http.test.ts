import { connect } from 'node:net';
import { AlarmRequest, AlarmRequest_AlarmAction, AlarmType } from '@conclave/protocol';
import { StatusError, systemRuntime } from '@conclave/wire';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AlarmTable } from '../apply/alarm-table.ts';
import { BufferedStore } from '../storage/backend/buffered-store.ts';
import { MemoryBackend } from '../storage/backend/memory.ts';
import { HttpDoor, type HttpMember } from './http.ts';
import { Listener } from './listener.ts';

const runtime = systemRuntime();
const fatal = (cause: Error): never => {
  throw cause;
};
const alarms = new AlarmTable(new BufferedStore({ backend: new MemoryBackend(), runtime, fatal }));
let leader = 1n;
let isLearner = false;
let barrierError: StatusError | undefined;
let readError: Error | undefined;
let listener: Listener;
let door: HttpDoor;
let base: string;

const member: HttpMember = {
  runtime,
  replica: {
    get leader() {
      return leader;
    },
    get isLearner() {
      return isLearner;
    },
    readBarrier: (done) => done(barrierError),
  },
  applier: { alarms },
  mvcc: {
    range() {
      if (readError !== undefined) throw readError;
      return { kvs: [], count: 0, more: false };
    },
  },
};

beforeEach(async () => {
  leader = 1n;
  isLearner = false;
  barrierError = undefined;
  readError = undefined;
  door = new HttpDoor(member);
  const refuse = { accept: () => undefined };
  listener = await Listener.open({ runtime, urls: [{ kind: 'tcp', host: '127.0.0.1', port: 0 }], http1: door, http2: refuse });
  base = listener.addresses[0]?.address ?? '';
});
afterEach(async () => {
  door.close();
  await listener.close();
});

async function get(path: string, method = 'GET'): Promise<[number, string]> {
  const response = await fetch(`http://${base}${path}`, { method });
  return [response.status, await response.text()];
}

// Bodies and codes were read from a stock etcd.
test('health, as etcd words it', async () => {
  const healthy: [number, string] = [200, '{"health":"true","reason":""}'];
  expect(await get('/health')).toEqual(healthy);
  expect(await get('/health?serializable=true')).toEqual(healthy);
  expect(await get('/health?exclude=NOSPACE&exclude=FOO')).toEqual(healthy);
  leader = 0n;
  expect(await get('/health')).toEqual([503, '{"health":"false","reason":"RAFT NO LEADER"}']);
  expect(await get('/health?serializable=true')).toEqual(healthy);
  leader = 1n;
  barrierError = new StatusError(14, 'etcdserver: request timed out');
  expect(await get('/health')).toEqual([503, '{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}']);
});

test('livez and readyz list their checks, leave out what is excluded, and are one check by its path', async () => {
  expect(await get('/livez')).toEqual([200, 'ok\n']);
  expect(await get('/livez?verbose')).toEqual([200, '[+]serializable_read ok\nok\n']);
  expect(await get('/livez?verbose=false')).toEqual([200, '[+]serializable_read ok\nok\n']);
  expect(await get('/livez?exclude=serializable_read&verbose')).toEqual([200, 'ok\n']);
  expect(await get('/livez?exclude=foo&verbose')).toEqual([200, '[+]serializable_read ok\nok\n']);
  expect(await get('/livez/serializable_read?verbose')).toEqual([200, '[+]serializable_read ok\nok\n']);
  expect(await get('/readyz')).toEqual([200, 'ok\n']);
  const all = '[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n';
  expect(await get('/readyz?verbose')).toEqual([200, all]);
  expect(await get('/readyz/linearizable_read')).toEqual([200, 'ok\n']);
});

test('a check that fails is told, asked for or not', async () => {
  barrierError = new StatusError(14, 'etcdserver: no leader');
  expect(await get('/livez')).toEqual([200, 'ok\n']);
  const [status, body] = await get('/readyz');
  expect(status).toBe(503);
  expect(body).toContain('[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: no leader\n');
  readError = new Error('disk on fire');
  expect((await get('/livez'))[0]).toBe(503);
  expect(await get('/readyz?exclude=serializable_read&exclude=linearizable_read')).toEqual([200, 'ok\n']);
});

test('the version is that of the API', async () => {
  expect(await get('/version')).toEqual([200, '{"etcdserver":"3.7.0","etcdcluster":"3.7.0","storage":"3.7.0"}']);
});

test('other paths are not found, other methods not allowed', async () => {
  for (const path of ['/', '/nope', '/health/', '/livez/', '/livez/nope', '/livez/serializable_read/x', '/version/', '//health', '/%2e']) {
    expect([path, ...(await get(path))]).toEqual([path, 404, '404 page not found\n']);
  }
  for (const path of ['/health', '/livez', '/readyz', '/version']) {
    const response = await fetch(`http://${base}${path}`, { method: 'POST', body: 'x' });
    expect([response.status, response.headers.get('allow'), await response.text()]).toEqual([405, 'GET', 'Method Not Allowed\n']);
  }
  expect((await get('/nope', 'POST'))[0]).toBe(404);
});

test('garbage gets an error or a closed connection, and the door goes on', async () => {
  for (const garbage of [
    '\0\0\0\0garbage\r\n\r\n',
    'GET\r\n\r\n',
    'GET http://%%% HTTP/1.1\r\nhost: x\r\n\r\n',
    `GET /${'x'.repeat(40_000)} HTTP/1.1\r\n\r\n`,
  ]) {
    const [host = '', port = ''] = base.split(':');
    const socket = connect({ host, port: Number(port) });
    socket.on('error', () => undefined);
    socket.end(garbage);
    socket.resume();
    await new Promise((resolve) => socket.once('close', resolve));
  }
  expect((await get('/health'))[0]).toBe(200);
});

test('alarms make it unhealthy, unless they are left out; a learner is not ready', async () => {
  const { ACTIVATE, DEACTIVATE } = AlarmRequest_AlarmAction;
  const set = (action: number, alarm: number) => alarms.apply(AlarmRequest.create({ action, alarm, memberId: 1n }));
  set(ACTIVATE, AlarmType.NOSPACE);
  expect(await get('/health')).toEqual([503, '{"health":"false","reason":"ALARM NOSPACE"}']);
  expect(await get('/health?serializable=true')).toEqual([503, '{"health":"false","reason":"ALARM NOSPACE"}']);
  expect((await get('/health?exclude=NOSPACE'))[0]).toBe(200);
  expect((await get('/readyz'))[0]).toBe(200);
  set(ACTIVATE, AlarmType.CORRUPT);
  expect(await get('/health?exclude=NOSPACE')).toEqual([503, '{"health":"false","reason":"ALARM CORRUPT"}']);
  expect((await get('/health?exclude=NOSPACE&exclude=CORRUPT'))[0]).toBe(200);
  expect((await get('/readyz'))[1]).toContain('[-]data_corruption failed: alarm activated: CORRUPT');
  set(DEACTIVATE, AlarmType.NOSPACE);
  set(DEACTIVATE, AlarmType.CORRUPT);
  isLearner = true;
  expect(await get('/readyz/non_learner')).toEqual([503, '[-]non_learner failed: the member is a learner\n\n']);
});
