// What recipes do when things go wrong around them, found by trying to break them. In process: no server needs to be built.
import { campaign, type Leader, lead, lock, observe, tryLock } from '@conclave/recipes';
import { type Client, ConclaveError, connect, prefix } from '@conclave/sdk';
import { type ConclaveServer, startServer } from '@conclave/server';
import { eventually, TcpProxy, within } from '@conclave/testkit';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';

let server: ConclaveServer;
let address = '';
let client: Client;
let names = 0;
let mine = '';

beforeAll(async () => {
  server = await startServer({ listen: '127.0.0.1:0' });
  address = server.endpoints[0] ?? '';
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
});
beforeEach(async () => {
  mine = `trouble/${++names}`;
  client = await connect({ endpoints: address });
});
afterEach(async () => {
  await client.close();
});

const keys = async (): Promise<number> => (await client.list(prefix(`${mine}/`))).count;

test.each([0, 1, 2, 5])('a second attempt on the same lease that is given up after %i turns leaves the first its lock', async (turns) => {
  await using lease = await client.lease.grant({ ttlSeconds: 30 });
  const held = await lock(client, mine, { lease });
  const controller = new AbortController();
  const second = lock(client, mine, { lease, signal: controller.signal });
  const ended = expect(second).rejects.toBeDefined();
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  await ended;
  expect((await client.get(held.key))?.createRevision).toBe(held.token);
  expect(held.isHeld).toBe(true);
});

test('on a lease of the caller the place of one who gave up is taken back, however long the server is away', async () => {
  await using lease = await client.lease.grant({ ttlSeconds: 60 });
  await using held = await lock(client, mine);
  await using proxy = await TcpProxy.to(address);
  await using far = await connect({ endpoints: proxy.address, deadlineMs: 200 });
  await far.get('warm-up');
  const controller = new AbortController();
  proxy.loseResponse();
  const waiter = lock(far, mine, { lease, signal: controller.signal });
  const ended = expect(waiter).rejects.toMatchObject({ code: 'cancelled' });
  await eventually('the answer is lost', () => proxy.cuts === 1);
  await proxy.refuse();
  controller.abort();
  await ended;
  expect(await keys()).toBe(2);
  await proxy.accept();
  await eventually('its place is taken back', async () => (await keys()) === 1);
  expect(held.isHeld && lease.state === 'held').toBe(true);
});

test('a waiter on a lease of another client rejects when its own client closes', async () => {
  await using held = await lock(client, mine);
  const lease = await client.lease.grant({ ttlSeconds: 30 });
  const other = await connect({ endpoints: address });
  const waiter = lock(other, mine, { lease });
  const ended = expect(within('the end', waiter, 5_000)).rejects.toMatchObject({ code: 'client-closed' });
  await eventually('it waits', async () => (await keys()) === 2);
  await other.close();
  await ended;
  expect(held.isHeld).toBe(true);
});

test.each(['unavailable', 'leadership-lost'])('lead() ends with the error of its body even if that is a ConclaveError %s', async (code) => {
  let terms = 0;
  const leading = lead(client, mine, async () => {
    terms += 1;
    if (terms > 1) throw new Error('once was enough');
    throw new ConclaveError({ code, message: 'of the body', outcome: 'unknown' });
  });
  await expect(leading).rejects.toThrow('of the body');
  expect(terms).toBe(1);
});

test('lead() campaigns on when the cluster has no leader', async () => {
  const stop = new AbortController();
  const noLeader = new ConclaveError({ code: 'no-leader', message: 'etcdserver: no leader', outcome: 'not-applied', grpcCode: 14 });
  const grant = vi.spyOn(client.lease, 'grant').mockRejectedValueOnce(noLeader);
  let terms = 0;
  await lead(
    client,
    mine,
    async () => {
      terms += 1;
      stop.abort();
    },
    { signal: stop.signal },
  );
  expect(terms).toBe(1);
  expect(grant).toHaveBeenCalledTimes(2);
});

test('tryLock() says that the lock is taken even if its traces cannot be removed', async () => {
  await using held = await lock(client, mine);
  const lease = await client.lease.grant({ ttlSeconds: 5 });
  const lost = new ConclaveError({ code: 'unavailable', message: 'the connection broke', outcome: 'not-applied' });
  vi.spyOn(lease, 'revoke').mockRejectedValue(lost);
  vi.spyOn(client.lease, 'grant').mockResolvedValueOnce(lease);
  expect(await tryLock(client, mine)).toBeUndefined();
  expect(held.isHeld).toBe(true);
});

test.each([Number.NaN, -1])('a timeout of %s is refused', async (timeoutMs) => {
  await expect(lock(client, mine, { timeoutMs })).rejects.toMatchObject({ code: 'invalid-argument' });
  expect(await keys()).toBe(0);
});

test('observe() does not repeat a leader after its history was compacted', async () => {
  await using leadership = await campaign(client, mine, { value: 'one' });
  await using proxy = await TcpProxy.to(address);
  await using far = await connect({ endpoints: proxy.address });
  const list = vi.spyOn(far, 'list');
  const seen: (string | undefined)[] = [];
  const subscription = observe(far, mine).subscribe((now: Leader | undefined) => seen.push(now?.value));
  await eventually('the leader', () => seen.length === 1);
  await proxy.refuse();
  for (let at = 0; at < 10; at++) await client.put('noise', String(at));
  await client.compact((await client.list('noise')).revision);
  await proxy.accept();
  // Nothing is proclaimed before it has read the candidates anew, or there would be nothing to repeat.
  await eventually('it reads the candidates again', () => list.mock.settledResults.filter(({ type }) => type === 'fulfilled').length === 2);
  await leadership.proclaim('two');
  await eventually('it watches again', () => seen.includes('two'));
  expect(seen.filter((value) => value === 'one')).toEqual(['one']);
  subscription.unsubscribe();
});

test('many may listen to the signal of a lock', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning);
  process.on('warning', onWarning);
  await using held = await lock(client, mine);
  for (let at = 0; at < 20; at++) held.signal.addEventListener('abort', () => undefined);
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', onWarning);
  expect(warnings).toEqual([]);
});
