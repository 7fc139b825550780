import { Writable } from 'node:stream';
import {
  AuthenticateResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  MemberListResponse,
  PutResponse,
  RangeResponse,
  WatchRequest,
  WatchResponse,
} from '@conclave/protocol';
import { prefix, put } from '@conclave/sdk';
import { type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { type Level, pino } from 'pino';
import { describe, expect, test } from 'vitest';

const unavailable = 14;
const written = PutResponse.encode({ header: { revision: 7 } });
const found = RangeResponse.encode({ header: { revision: 7 } });

interface Line {
  readonly level: Level;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** A client that logs with pino, and the lines of it. */
async function logging(
  options: Parameters<typeof scriptedClient>[0] = {},
): Promise<ScriptedClient & { readonly text: () => string; readonly lines: (level?: Level) => Line[] }> {
  const written: string[] = [];
  const stream = new Writable({
    write(chunk, _encoding, done) {
      written.push(String(chunk));
      done();
    },
  });
  const formatters = { level: (level: string) => ({ level }) };
  const log = pino({ level: 'debug', base: null, timestamp: false, formatters }, stream);
  const scripted = await scriptedClient({ log, ...options });
  const lines = (level?: Level): Line[] =>
    written.map((line) => JSON.parse(line) as Line).filter((line) => level === undefined || line.level === level);
  return { ...scripted, text: () => written.join(''), lines };
}

describe('the log tells', () => {
  test('when an endpoint is ready, and when it is lost, and why; not each attempt', async () => {
    const { runtime, script, lines } = await logging();
    expect(lines()).toEqual([{ level: 'info', endpoint: 'a:1', msg: 'an endpoint is ready' }]);
    let isUp = false;
    script.reach = () => isUp;
    script.cut();
    await runtime.advance(10_000);
    expect(lines('warn')).toEqual([{ level: 'warn', endpoint: 'a:1', reason: 'the connection failed', msg: 'an endpoint was lost' }]);
    expect(lines('debug').length).toBeGreaterThan(5);
    isUp = true;
    await runtime.advance(2_000);
    expect(lines().at(-1)).toEqual({ level: 'info', endpoint: 'a:1', msg: 'an endpoint is ready' });
  });

  test('when the endpoints are others, and nothing when they are the same', async () => {
    const { runtime, client, script, lines } = await logging();
    const members = [{ name: 'one', clientUrls: ['http://b:2'] }];
    script.onCall = (call) => call.reply(MemberListResponse.encode({ members }));
    await runtime.run(client.sync());
    await runtime.run(client.sync());
    await runtime.advance(10);
    expect(lines('info').slice(1)).toEqual([
      { level: 'info', added: ['b:2'], removed: ['a:1'], msg: 'the endpoints are others now' },
      { level: 'info', endpoint: 'b:2', msg: 'an endpoint is ready' },
    ]);
  });

  test('once when an endpoint cannot be reached from the beginning', async () => {
    const { runtime, lines } = await logging({
      endpoints: 'a:1,b:2',
      prepare: (script) => {
        script.reach = (address) => address === 'a:1';
      },
    });
    await runtime.advance(5_000);
    expect(lines('warn')).toEqual([
      { level: 'warn', endpoint: 'b:2', reason: 'the connection failed', msg: 'an endpoint cannot be reached' },
    ]);
  });

  test('that a silent endpoint was given up', async () => {
    const { runtime, client, script, lines } = await logging();
    script.answersPing = () => false;
    script.onCall = () => {};
    await runtime.run(client.get('k').catch(() => {}));
    expect(lines('warn')).toMatchObject([{ endpoint: 'a:1', reason: 'no answer to a ping', msg: 'an endpoint was lost' }]);
  });

  test('of calls that are sent again, to those who look closely', async () => {
    const { runtime, client, script, lines } = await logging();
    let failures = 1;
    script.onCall = (call) => (failures-- > 0 ? call.end(unavailable, { message: 'etcdserver: no leader' }) : call.reply(found));
    await runtime.run(client.get('k'));
    expect(lines('debug')).toEqual([
      {
        level: 'debug',
        path: '/etcdserverpb.KV/Range',
        endpoint: 'a:1',
        grpcCode: unavailable,
        reason: 'etcdserver: no leader',
        msg: 'a call is sent once more',
      },
    ]);
  });

  test('of tokens, and once that the credentials are not accepted', async () => {
    const { runtime, client, script, lines } = await logging({ credentials: { username: 'ann', password: 'pa55' }, lazy: true });
    let isAccepted = false;
    script.onCall = (call) => {
      if (!call.path.endsWith('/Authenticate')) call.reply(found);
      else if (isAccepted) call.reply(AuthenticateResponse.encode({ token: 'tok3n' }));
      else call.end(3, { message: 'etcdserver: authentication failed, invalid user ID or password' });
    };
    for (let attempt = 0; attempt < 3; attempt++) await runtime.run(client.get('k').catch(() => {}));
    expect(lines('warn')).toMatchObject([
      { err: { code: 'authentication-failed', outcome: 'not-applied' }, msg: 'the server does not accept the credentials' },
    ]);
    isAccepted = true;
    await runtime.run(client.get('k'));
    expect(lines('info').slice(1)).toEqual([{ level: 'info', user: 'ann', msg: 'a token was obtained' }]);
  });

  test('that watches lost their stream, and where they went on', async () => {
    const { runtime, client, script, lines } = await logging({ endpoints: 'a:1,b:2' });
    serveWatches(script);
    await runtime.advance(10);
    client.watch('k', { startRevision: 5n }).subscribe();
    client.watch('l', { startRevision: 5n }).subscribe();
    await runtime.advance(10);
    const before = script.stream.address;
    script.stream.end(unavailable, { message: 'connection lost' });
    await runtime.advance(100);
    const after = script.stream.address;
    expect(after).not.toBe(before);
    expect(lines().slice(2)).toEqual([
      { level: 'info', watches: 2, reason: 'connection lost', msg: 'watches lost their stream' },
      { level: 'info', watches: 2, endpoint: after, msg: 'watches go on where they were' },
    ]);
    await client.close();
  });

  test('when a view had to be read anew', async () => {
    const { runtime, client, script, lines } = await logging();
    serveWatches(script);
    script.onCall = (call) => call.reply(found);
    const view = await runtime.run(client.view('k'));
    script.stream.send(WatchResponse.encode({ watchId: 1n, canceled: true, compactRevision: 20 }));
    await runtime.advance(100);
    expect(lines('warn')).toMatchObject([{ revision: 7, msg: 'a view missed history that was compacted away, and reads everything anew' }]);
    await view.close();
  });

  test('when a watch had to be read anew', async () => {
    const { runtime, client, script, lines } = await logging();
    serveWatches(script);
    script.onCall = (call) => call.reply(found);
    const subscription = client.watch('k', { onCompacted: 'relist' }).subscribe();
    await runtime.advance(100);
    script.stream.send(WatchResponse.encode({ watchId: 1n, canceled: true, compactRevision: 7 }));
    await runtime.advance(100);
    expect(lines('warn')).toMatchObject([{ revision: 7, msg: 'a watch missed history that was compacted away, and reads its range anew' }]);
    subscription.unsubscribe();
  });

  test('when a lease is at risk, and when it is lost', async () => {
    const { runtime, client, script, lines } = await logging();
    script.onCall = (call) => call.reply(LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(call.request).id, ttl: 9 }));
    const lease = await runtime.run(client.lease.grant({ ttlSeconds: 9 }));
    await runtime.advance(9_000);
    const id = lease.id.toString(16);
    expect(lines('warn')).toEqual([
      { level: 'warn', lease: id, slackMs: 2_500, reason: 'no answer to a renewal', msg: 'a lease is at risk' },
      { level: 'warn', lease: id, reason: 'no renewal got through in time', msg: 'a lease was lost' },
    ]);
  });

  test('that a lease is at risk when there is no way to a server', async () => {
    const { runtime, client, script, lines } = await logging();
    script.onCall = (call) => call.reply(LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(call.request).id, ttl: 9 }));
    const lease = await runtime.run(client.lease.grant({ ttlSeconds: 9 }));
    script.reach = () => false;
    script.cut();
    await runtime.advance(4_000);
    const reason = 'no endpoint can be reached';
    expect(lines('warn').slice(1)).toEqual([
      { level: 'warn', lease: lease.id.toString(16), slackMs: 5_500, reason, msg: 'a lease is at risk' },
    ]);
  });

  test('nothing of a lease that ends with the client', async () => {
    const { runtime, client, script, lines } = await logging();
    script.onCall = (call) => call.reply(LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(call.request).id, ttl: 9 }));
    await runtime.run(client.lease.grant({ ttlSeconds: 9 }));
    await client.close();
    expect(lines('warn')).toEqual([]);
  });
});

test('the log never holds a value, a password, a token or a request', async () => {
  const secrets = ['s3cret-value', 'pa55word', 'tok3n'];
  const [value, password, token] = secrets as [string, string, string];
  const { runtime, client, script, text, lines } = await logging({ credentials: { username: 'ann', password }, lazy: true });
  serveWatches(script);
  const failures = [
    [unavailable, 'etcdserver: no leader'],
    [16, 'etcdserver: invalid auth token'],
    [13, 'RST_STREAM'],
  ] as const;
  let at = 0;
  script.onCall = (call) => {
    if (call.path.endsWith('/Authenticate')) return call.reply(AuthenticateResponse.encode({ token }));
    const failure = failures[at++ % 5];
    if (failure !== undefined) return call.end(failure[0], { message: failure[1] });
    const kvs = [{ key: Buffer.from('k'), value: Buffer.from(value) }];
    if (call.path.endsWith('/Range')) return call.reply(RangeResponse.encode({ header: { revision: 7 }, kvs }));
    if (call.path.endsWith('/LeaseGrant'))
      return call.reply(LeaseGrantResponse.encode({ id: LeaseGrantRequest.decode(call.request).id, ttl: 3 }));
    call.reply(written);
  };
  client.watch('k', { startRevision: 5n }).subscribe();
  const ignore = (): void => {};
  for (let round = 0; round < 5; round++) {
    await runtime.run(client.get('k').catch(ignore));
    await runtime.run(client.put('k', value).catch(ignore));
    await runtime.run(client.list(prefix('k')).catch(ignore));
    await runtime.run(client.txn().then(put('k', value)).commit().then(ignore, ignore));
    await runtime.run(client.users.changePassword('ann', password).catch(ignore));
    await runtime.run(client.lease.grant({ ttlSeconds: 3 }).then(ignore, ignore));
    script.cut();
    await runtime.advance(4_000);
  }
  expect(new Set(lines().map(({ msg }) => msg)).size).toBeGreaterThan(5);
  for (const secret of secrets) {
    expect(text()).not.toContain(secret);
    expect(text()).not.toContain(JSON.stringify([...Buffer.from(secret)]).slice(1, -1));
    expect(text()).not.toContain(Buffer.from(secret).toString('base64'));
  }
});

test('without a logger nothing is written anywhere', async () => {
  const original = process.stdout.write;
  const writes: unknown[] = [];
  process.stdout.write = (chunk: unknown) => writes.push(chunk) > 0;
  try {
    const { script, runtime } = await scriptedClient();
    script.cut();
    await runtime.advance(1_000);
  } finally {
    process.stdout.write = original;
  }
  expect(writes).toEqual([]);
});

function serveWatches(script: ScriptedClient['script']): void {
  script.onStream = (stream) => {
    stream.onWrite = (bytes) => {
      if (!stream.path.endsWith('/Watch')) return;
      const { createRequest } = WatchRequest.decode(bytes);
      if (createRequest === undefined || stream.isEnded) return;
      stream.send(WatchResponse.encode({ watchId: createRequest.watchId, created: true, header: { revision: 7 } }));
    };
  };
}
