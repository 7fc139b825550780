import assert from 'node:assert/strict';
import { AlarmRequest_AlarmAction, AlarmType, Health, HealthCheckResponse_ServingStatus } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, methods, op, status } from '../context.ts';

const { GET, ACTIVATE, DEACTIVATE } = AlarmRequest_AlarmAction;
const { NONE, NOSPACE, CORRUPT } = AlarmType;

const statuses: readonly Case[] = [
  {
    name: 'status: tells version, sizes, leader and the raft positions, and no error',
    async run(t) {
      await t.write('a=1');
      const answer = await t.ok(methods.status, {});
      assert.match(answer.version, /^\d+\.\d+\.\d+/);
      assert.ok(answer.dbSize > 0 && answer.dbSizeInUse > 0 && answer.dbSizeInUse <= answer.dbSize);
      assert.equal(answer.leader, answer.header?.memberId);
      assert.equal(answer.raftTerm, answer.header?.raftTerm);
      assert.ok(answer.raftAppliedIndex > 0 && answer.raftAppliedIndex <= answer.raftIndex);
      assert.deepEqual(answer.errors, []);
      assert.equal(answer.isLearner, false);
    },
  },
  {
    name: 'status: the applied index grows with every write',
    async run(t) {
      const before = (await t.ok(methods.status, {})).raftAppliedIndex;
      await t.write('a=1', 'a=2');
      assert.ok((await t.ok(methods.status, {})).raftAppliedIndex >= before + 2);
    },
  },
  {
    name: 'status: tells the storage version, and that no downgrade is under way',
    since: '3.6',
    async run(t) {
      const { storageVersion, downgradeInfo } = await t.ok(methods.status, {});
      assert.match(storageVersion, /^\d+\.\d+\.\d+/);
      assert.equal(downgradeInfo?.enabled ?? false, false);
    },
  },
  {
    name: 'status: tells the quota',
    since: '3.6',
    async run(t) {
      assert.equal((await t.ok(methods.status, {})).dbSizeQuota, 2 * 1024 ** 3);
    },
  },
];

const alarms: readonly Case[] = [
  {
    name: 'alarm: a healthy server has none',
    async run(t) {
      assert.deepEqual((await t.ok(methods.alarm, { action: GET, alarm: NONE })).alarms, []);
      assert.deepEqual((await t.ok(methods.alarm, { action: GET, alarm: NOSPACE })).alarms, []);
    },
  },
  {
    name: 'alarm: disarming what is not armed answers nothing',
    async run(t) {
      const { header } = await t.ok(methods.status, {});
      const { alarms: disarmed } = await t.ok(methods.alarm, { action: DEACTIVATE, alarm: NOSPACE, memberId: header?.memberId ?? 0n });
      assert.deepEqual(disarmed, []);
    },
  },
  {
    name: 'alarm: an activated alarm is listed until it is disarmed',
    fresh: true,
    async run(t) {
      const memberId = (await t.ok(methods.status, {})).header?.memberId ?? 0n;
      const armed = { memberId, alarm: NOSPACE };
      assert.deepEqual((await t.ok(methods.alarm, { action: ACTIVATE, ...armed })).alarms, [armed]);
      assert.deepEqual((await t.ok(methods.alarm, { action: GET })).alarms, [armed]);
      assert.deepEqual((await t.ok(methods.alarm, { action: GET, alarm: CORRUPT })).alarms, []);
      assert.deepEqual((await t.ok(methods.status, {})).errors.length, 1);
      assert.deepEqual((await t.ok(methods.alarm, { action: DEACTIVATE, ...armed })).alarms, [armed]);
      assert.deepEqual((await t.ok(methods.alarm, { action: GET })).alarms, []);
    },
  },
  {
    name: 'alarm: NOSPACE refuses what takes space and lets the rest pass',
    fresh: true,
    async run(t) {
      await t.write('a=1', 'b=1');
      const id = await t.grant();
      const memberId = (await t.ok(methods.status, {})).header?.memberId ?? 0n;
      await t.ok(methods.alarm, { action: ACTIVATE, alarm: NOSPACE, memberId });
      await t.fails(methods.put, { key: bytes('c'), value: bytes('1') }, 'no-space');
      await t.fails(methods.txn, { success: [op.put('c', '1')] }, 'no-space');
      await t.fails(methods.leaseGrant, { ttl: 60 }, 'no-space');
      await t.ok(methods.txn, { success: [op.del('a'), op.get('b')] });
      await t.ok(methods.deleteRange, { key: bytes('b') });
      await t.ok(methods.compact, { revision: t.base + 2 });
      await t.ok(methods.leaseRevoke, { id });
      assert.deepEqual(await t.all(), []);
      await t.ok(methods.alarm, { action: DEACTIVATE, alarm: NOSPACE, memberId });
      await t.write('c=1');
    },
  },
];

const hashes: readonly Case[] = [
  {
    name: 'hashkv: is the same for the same revision, whatever was written since',
    async run(t) {
      await t.write('a=1', 'b=1');
      const then = await t.ok(methods.hashKv, { revision: t.base + 2 });
      await t.write('c=1');
      assert.equal((await t.ok(methods.hashKv, { revision: t.base + 2 })).hash, then.hash);
      assert.notEqual((await t.ok(methods.hashKv, {})).hash, then.hash);
    },
  },
  {
    name: 'hashkv: revision 0 hashes the current revision',
    async run(t) {
      await t.write('a=1');
      const { hash } = await t.ok(methods.hashKv, {});
      assert.equal((await t.ok(methods.hashKv, { revision: t.base + 1 })).hash, hash);
    },
  },
  {
    name: 'hashkv: tells the revision it hashed',
    since: '3.6',
    async run(t) {
      await t.write('a=1', 'a=2');
      assert.equal(t.relative((await t.ok(methods.hashKv, { revision: t.base + 1 })).hashRevision), 1);
      assert.equal(t.relative((await t.ok(methods.hashKv, {})).hashRevision), 2);
    },
  },
  {
    name: 'hashkv: a future revision is refused',
    async run(t) {
      await t.fails(methods.hashKv, { revision: t.base + 1 }, 'future-revision');
    },
  },
];

const auth: readonly Case[] = [
  {
    name: 'auth: is disabled on a store where nothing was configured, at revision 1',
    since: '3.5',
    async run(t) {
      const { enabled, authRevision } = await t.ok(methods.authStatus, {});
      assert.deepEqual([enabled, authRevision], [false, 1]);
    },
  },
  {
    name: 'auth: there are no users and no roles',
    async run(t) {
      assert.deepEqual((await t.ok(methods.userList, {})).users, []);
      assert.deepEqual((await t.ok(methods.roleList, {})).roles, []);
    },
  },
  {
    name: 'auth: a token is not looked at while auth is disabled',
    since: '3.5',
    async run(t) {
      await t.ok(methods.put, { key: bytes('a') }, { metadata: { token: 'nonsense' } });
      await t.ok(methods.range, { key: bytes('a') }, { metadata: { authorization: 'Bearer nonsense' } });
    },
  },
];

const health: readonly Case[] = [
  {
    name: 'health: the service with the empty name serves',
    async run(t) {
      assert.equal((await t.ok(Health.methods.check, {})).status, HealthCheckResponse_ServingStatus.SERVING);
    },
  },
  {
    name: 'health: an unknown service is not found',
    async run(t) {
      assert.equal(status(await t.call(Health.methods.check, { service: 'nothing' })), '5 unknown service');
    },
  },
  {
    name: 'health: watching tells the state at once',
    async run(t) {
      using stream = t.client.stream(Health.methods.watch);
      stream.send({});
      stream.halfClose();
      assert.equal((await stream.next()).status, HealthCheckResponse_ServingStatus.SERVING);
    },
  },
];

interface HttpAnswer {
  readonly status: number;
  readonly type: string | null;
  readonly body: string;
}

async function http(address: string | undefined, path: string, method = 'GET'): Promise<HttpAnswer> {
  const answer = await fetch(`http://${address}${path}`, { method, signal: AbortSignal.timeout(10_000) });
  return { status: answer.status, type: answer.headers.get('content-type'), body: await answer.text() };
}

const httpCase = (
  name: string,
  run: (get: (path: string, method?: string) => Promise<HttpAnswer>) => Promise<void>,
  since?: string,
): Case => ({
  name: `http: ${name}`,
  needs: 'socket',
  ...(since === undefined ? {} : { since }),
  run: (t) => run((path, method) => http(t.server.address, path, method)),
});

const doors: readonly Case[] = [
  httpCase('/health is true on the port of the gRPC door', async (get) => {
    const { status: code, body } = await get('/health');
    assert.deepEqual([code, (JSON.parse(body) as { health: string }).health], [200, 'true']);
  }),
  httpCase(
    '/health tells an empty reason',
    async (get) => {
      assert.equal((await get('/health')).body.trim(), '{"health":"true","reason":""}');
      assert.equal((await get('/health?serializable=true&exclude=NOSPACE')).body.trim(), '{"health":"true","reason":""}');
    },
    '3.5',
  ),
  httpCase('/health takes GET only', async (get) => {
    assert.equal((await get('/health', 'POST')).status, 405);
  }),
  httpCase('/version tells the server and the cluster version', async (get) => {
    const { status: code, body } = await get('/version');
    const versions = JSON.parse(body) as Record<string, string>;
    assert.equal(code, 200);
    assert.match(versions['etcdserver'] ?? '', /^\d+\.\d+\.\d+$/);
    assert.match(versions['etcdcluster'] ?? '', /^\d+\.\d+\.\d+$/);
  }),
  httpCase(
    '/livez and /readyz answer ok',
    async (get) => {
      for (const path of ['/livez', '/readyz']) {
        const { status: code, body } = await get(path);
        assert.deepEqual([code, body], [200, 'ok\n'], path);
      }
    },
    '3.5.11',
  ),
  httpCase(
    '/livez?verbose and /readyz?verbose list their checks',
    async (get) => {
      const livez = (await get('/livez?verbose')).body;
      assert.ok(livez.includes('[+]serializable_read ok'), livez);
      const readyz = (await get('/readyz?verbose')).body;
      for (const check of ['data_corruption', 'serializable_read', 'linearizable_read'])
        assert.ok(readyz.includes(`[+]${check} ok`), readyz);
    },
    '3.5.11',
  ),
  httpCase(
    'a single check of /readyz may be asked for',
    async (get) => {
      assert.deepEqual(await get('/readyz/linearizable_read').then(({ status: code, body }) => [code, body]), [200, 'ok\n']);
      assert.equal((await get('/livez/serializable_read')).status, 200);
      assert.equal((await get('/livez/no_such_check')).status, 404);
    },
    '3.5.11',
  ),
  httpCase(
    'a check of /readyz may be left out',
    async (get) => {
      const { status: code, body } = await get('/readyz?verbose&exclude=linearizable_read');
      assert.equal(code, 200);
      assert.ok(!body.includes('[+]linearizable_read'), body);
    },
    '3.5.11',
  ),
  httpCase('an unknown path is not found', async (get) => {
    assert.equal((await get('/no/such/path')).status, 404);
  }),
  {
    name: 'http: /health tells an alarm, unless it is left out',
    needs: 'socket',
    fresh: true,
    since: '3.5',
    async run(t) {
      const memberId = (await t.ok(methods.status, {})).header?.memberId ?? 0n;
      await t.ok(methods.alarm, { action: ACTIVATE, alarm: NOSPACE, memberId });
      const { status: code, body } = await http(t.server.address, '/health');
      assert.deepEqual([code, body.trim()], [503, '{"health":"false","reason":"ALARM NOSPACE"}']);
      assert.equal((await http(t.server.address, '/health?exclude=NOSPACE')).status, 200);
    },
  },
];

export const maintenanceCases: readonly Case[] = [...statuses, ...alarms, ...hashes, ...auth, ...health, ...doors];
