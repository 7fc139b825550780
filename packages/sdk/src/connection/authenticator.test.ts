import {
  AuthenticateRequest,
  AuthenticateResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  PutResponse,
  RangeResponse,
  WatchRequest,
  WatchResponse,
} from '@conclave/protocol';
import type { ConnectOptions } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const credentials = { username: 'user', password: 'secret' };
const invalidToken = { code: 16, message: 'etcdserver: invalid auth token' };
const oldRevision = { code: 3, message: 'etcdserver: revision of auth store is old' };
const noName = { code: 3, message: 'etcdserver: user name is empty' };
const wrongPassword = { code: 3, message: 'etcdserver: authentication failed, invalid user ID or password' };
const notEnabled = { code: 9, message: 'etcdserver: authentication is not enabled' };

type Refusal = typeof invalidToken;

/** A server that takes the token it gave out last, until it takes it no longer. */
class AuthServer {
  readonly logins: ScriptedCall[] = [];
  readonly calls: ScriptedCall[] = [];
  token = 0;
  refusal: Refusal = invalidToken;
  loginMs = 100;
  /** What it answers to a login; undefined: with a token. */
  loginFailure: Refusal | undefined;
  takesNone = false;
  readonly #scripted: { runtime: ScriptedClient['runtime'] };

  constructor(runtime: ScriptedClient['runtime']) {
    this.#scripted = { runtime };
  }

  revoke(): void {
    this.token++;
  }

  takes(exchange: ScriptedCall | ScriptedStream): boolean {
    return !this.takesNone && (this.loginFailure === notEnabled || exchange.options.metadata?.['token'] === `t${this.token}`);
  }

  onCall(call: ScriptedCall): void {
    if (call.path.endsWith('/Authenticate')) {
      this.logins.push(call);
      this.#scripted.runtime.timer(this.loginMs, () => {
        if (this.loginFailure !== undefined) call.end(this.loginFailure.code, this.loginFailure);
        else call.reply(AuthenticateResponse.encode({ token: `t${++this.token}` }));
      });
      return;
    }
    this.calls.push(call);
    if (!this.takes(call)) call.end(this.refusal.code, this.refusal);
    else if (call.path.endsWith('/LeaseGrant')) call.reply(LeaseGrantResponse.encode(LeaseGrantRequest.decode(call.request)));
    else if (call.path.endsWith('/Range')) call.reply(RangeResponse.encode({ header: { revision: 7 }, count: 3 }));
    else call.reply(PutResponse.encode({ header: { revision: 7 } }));
  }
}

async function authenticated(
  options: Partial<ConnectOptions> = {},
  change: (server: AuthServer) => void = () => {},
): Promise<ScriptedClient & { readonly server: AuthServer }> {
  let server: AuthServer | undefined;
  const scripted = await scriptedClient({
    credentials,
    ...options,
    prepare: (script) => {
      const made = new AuthServer(script.runtime as ScriptedClient['runtime']);
      server = made;
      change(made);
      script.onCall = (call) => made.onCall(call);
    },
  });
  return { ...scripted, server: server as AuthServer };
}

async function rejection({ runtime }: ScriptedClient, promise: Promise<unknown>): Promise<unknown> {
  return runtime.run(promise.then(() => expect.unreachable('it resolved')).catch((error: unknown) => error));
}

describe('connecting', () => {
  test('tells the server who this is, without a token, and calls carry the one it gives', async () => {
    const { runtime, client, server } = await authenticated();
    expect(server.logins).toHaveLength(1);
    expect(AuthenticateRequest.decode(server.logins[0]?.request ?? new Uint8Array())).toMatchObject({ name: 'user', password: 'secret' });
    expect(server.logins[0]?.options.metadata).toBeUndefined();
    await runtime.run(client.put('k', 'v'));
    expect(server.calls.map((call) => call.options.metadata)).toEqual([{ token: 't1' }]);
    await client.close();
    expect(runtime.pendingTimers).toBe(0);
  });

  test('fails at once when the password is wrong', async () => {
    const promise = authenticated({}, (server) => {
      server.loginFailure = wrongPassword;
    });
    await expect(promise).rejects.toMatchObject({ code: 'authentication-failed', outcome: 'not-applied' });
  });

  test('fails in time when there is no answer', async () => {
    const promise = authenticated({ deadlineMs: 400 }, (server) => {
      server.loginMs = 3_600_000;
    });
    await expect(promise).rejects.toMatchObject({ code: 'deadline-exceeded', message: expect.stringContaining('authenticated') });
  });

  test('to a server that asks nobody who they are goes without a token, until it does', async () => {
    const { runtime, client, server } = await authenticated({}, (it) => {
      it.loginFailure = notEnabled;
    });
    await runtime.run(client.put('k', 'v'));
    expect(server.calls[0]?.options.metadata).toEqual({});
    server.loginFailure = undefined;
    server.refusal = noName;
    await runtime.run(client.put('k', 'v'));
    expect(server.calls.at(-1)?.options.metadata).toEqual({ token: 't1' });
  });

  test.each([{ username: '', password: 'x' }, { token: '' }])('as nobody is refused (%o)', async (nobody) => {
    await expect(scriptedClient({ credentials: nobody })).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

describe('a token of the caller', () => {
  test('goes out as it is, and is asked for again when the server takes it no longer', async () => {
    let asked = 0;
    const { runtime, client, server } = await authenticated({ credentials: { token: () => `t${asked++}` } });
    await runtime.run(client.put('k', 'v'));
    server.revoke();
    await runtime.run(Promise.all([client.put('k', 'v'), client.put('k', 'v')]));
    expect(server.calls.map((call) => call.options.metadata?.['token'])).toEqual(['t0', 't0', 't0', 't1', 't1']);
    expect([asked, server.logins]).toEqual([2, []]);
  });

  test('that is a text is not tried twice', async () => {
    const scripted = await authenticated({ credentials: { token: 't0' } });
    await scripted.runtime.run(scripted.client.put('k', 'v'));
    scripted.server.revoke();
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({
      code: 'authentication-failed',
      outcome: 'not-applied',
    });
    expect(scripted.server.calls).toHaveLength(2);
  });

  const broken = new Error('no issuer');
  test.each([
    [
      'is thrown',
      () => {
        throw broken;
      },
      broken,
    ],
    ['is rejected', () => Promise.reject(broken), broken],
    ['is empty', () => '', undefined],
  ])('that %s is told', async (_how, token, cause) => {
    await expect(authenticated({ credentials: { token } })).rejects.toMatchObject({
      code: 'authentication-failed',
      outcome: 'not-applied',
      cause,
    });
  });

  test('that never comes is waited for as long as a call may take', async () => {
    const scripted = await authenticated({ lazy: true, credentials: { token: () => new Promise<string>(() => {}) } });
    expect(await rejection(scripted, scripted.client.get('k'))).toMatchObject({ code: 'deadline-exceeded' });
  });
});

describe('calls', () => {
  test.each([
    ['whose token is over', invalidToken],
    ['whose token is older than the users', oldRevision],
  ])('%s go out again, writes too, after one request for a token', async (_name, refusal) => {
    const { runtime, client, server } = await authenticated();
    server.refusal = refusal;
    server.revoke();
    const before = runtime.monotonic();
    const results = await runtime.run(
      Promise.all([client.put('a', '1'), client.get('b'), client.put('c', '1'), client.lease.list().catch(() => [])]),
    );
    expect(results).toHaveLength(4);
    expect(server.logins).toHaveLength(2);
    expect(runtime.monotonic() - before).toBeLessThan(2 * server.loginMs);
  });

  test('made while there is no token wait for it', async () => {
    const { runtime, client, server } = await authenticated({ lazy: true });
    await runtime.run(Promise.all([client.put('a', '1'), client.put('b', '1')]));
    expect(server.logins).toHaveLength(1);
    expect(server.calls.every((call) => call.options.metadata?.['token'] === 't1')).toBe(true);
  });

  test('fail when fresh tokens are refused again and again', async () => {
    const scripted = await authenticated();
    scripted.server.takesNone = true;
    const error = await rejection(scripted, scripted.client.put('k', 'v', { deadlineMs: Number.POSITIVE_INFINITY }));
    expect(error).toMatchObject({ code: 'invalid-auth-token', outcome: 'not-applied' });
    expect(scripted.server.logins).toHaveLength(6);
  });

  test('fail when the password is taken no longer, as the status says, and the next one asks again', async () => {
    const scripted = await authenticated();
    const states: string[] = [];
    scripted.client.status().subscribe(({ state, reason }) => states.push(`${state}: ${reason}`));
    scripted.server.revoke();
    scripted.server.loginFailure = wrongPassword;
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({
      code: 'authentication-failed',
      outcome: 'not-applied',
    });
    expect(scripted.server.logins).toHaveLength(2);
    expect(states.at(-1)).toBe(`failed: ${wrongPassword.message}`);
    scripted.server.loginFailure = undefined;
    await scripted.runtime.run(scripted.client.put('k', 'v'));
    expect(scripted.server.logins).toHaveLength(3);
    expect(states).toEqual(['ready: undefined', `failed: ${wrongPassword.message}`, 'ready: undefined']);
  });

  test('wait for a token no longer than they may, nor than they want', async () => {
    const scripted = await authenticated();
    scripted.server.revoke();
    scripted.server.loginMs = 60_000;
    const controller = new AbortController();
    scripted.runtime.timer(300, () => controller.abort());
    const aborted = rejection(scripted, scripted.client.put('k', 'v', { signal: controller.signal }));
    expect(await aborted).toMatchObject({ code: 'cancelled', outcome: 'not-applied' });
    // Nobody waits for the answer any more.
    expect(scripted.server.logins.at(-1)?.isCancelled).toBe(true);
    const late = await rejection(scripted, scripted.client.put('k', 'v', { deadlineMs: 500 }));
    expect(late).toMatchObject({ code: 'deadline-exceeded', outcome: 'not-applied' });
  });

  test('that wait for a token end with the client', async () => {
    const scripted = await authenticated();
    scripted.server.revoke();
    scripted.runtime.timer(50, () => void scripted.client.close());
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({ code: 'client-closed' });
    expect(scripted.runtime.pendingTimers).toBeLessThanOrEqual(1);
  });

  test('of a client without credentials fail as the server says', async () => {
    const scripted = await authenticated({ credentials: undefined });
    expect(await rejection(scripted, scripted.client.put('k', 'v'))).toMatchObject({ code: 'invalid-auth-token' });
    expect(scripted.server.logins).toHaveLength(0);
  });
});

describe('a watch', () => {
  /** Answers each creation as the token of the stream deserves. */
  function serve({ script, server }: { script: ScriptedClient['script']; server: AuthServer }): void {
    script.onStream = (stream) => {
      stream.onWrite = (bytes) => {
        const create = WatchRequest.decode(bytes).createRequest;
        if (create === undefined) return;
        const refused = `rpc error: code = Unauthenticated desc = ${server.refusal.message}`;
        const answer = server.takes(stream)
          ? { header: { revision: 100 }, watchId: create.watchId, created: true }
          : { watchId: -1n, created: true, canceled: true, cancelReason: refused };
        stream.send(WatchResponse.encode(answer));
      };
    };
  }

  test('on a stream whose token is over moves with all others to one with another token, each where it was', async () => {
    const scripted = await authenticated();
    const { runtime, script, server, client } = scripted;
    serve(scripted);
    const seen: unknown[] = [];
    const failures: unknown[] = [];
    const observer = { next: (event: unknown) => seen.push(event), error: (error: unknown) => failures.push(error) };
    client.watch('a', { startRevision: 5, notifyCreated: true }).subscribe(observer);
    await runtime.advance(10);
    expect(script.streams[0]?.options.metadata).toEqual({ hasleader: 'true', token: 't1' });
    server.revoke();
    client.watch('b', { startRevision: 9, notifyCreated: true }).subscribe(observer);
    await runtime.advance(1_000);
    expect(failures).toEqual([]);
    expect(script.streams).toHaveLength(2);
    expect(script.stream.options.metadata).toEqual({ hasleader: 'true', token: 't3' });
    const created = script.stream.written.map((bytes) => WatchRequest.decode(bytes).createRequest?.startRevision);
    expect(created).toEqual([5, 9]);
    expect(seen).toHaveLength(2);
  });

  test('whose stream is ended for its token goes on with another', async () => {
    const scripted = await authenticated();
    serve(scripted);
    scripted.client.watch('a', { startRevision: 5 }).subscribe({ error: expect.unreachable });
    await scripted.runtime.advance(10);
    scripted.server.revoke();
    scripted.script.stream.end(oldRevision.code, oldRevision);
    await scripted.runtime.advance(1_000);
    expect(scripted.script.streams).toHaveLength(2);
    expect(scripted.script.stream.options.metadata?.['token']).toBe('t3');
  });

  test('fails when the credentials are taken no longer', async () => {
    const scripted = await authenticated();
    serve(scripted);
    scripted.server.revoke();
    scripted.server.loginFailure = wrongPassword;
    let failure: unknown;
    scripted.client.watch('a', { startRevision: 5 }).subscribe({
      error: (error: unknown) => {
        failure = error;
      },
    });
    await scripted.runtime.advance(5_000);
    expect(failure).toMatchObject({ code: 'authentication-failed' });
    expect(scripted.server.logins).toHaveLength(2);
  });

  test.each(['creation', 'stream'])('fails when fresh tokens are refused again and again, each %s', async (what) => {
    const scripted = await authenticated();
    scripted.server.takesNone = true;
    if (what === 'creation') serve(scripted);
    else scripted.script.onStream = (stream) => stream.end(invalidToken.code, invalidToken);
    let failure: unknown;
    scripted.client.watch('a', { startRevision: 5 }).subscribe({
      error: (error: unknown) => {
        failure = error;
      },
    });
    await scripted.runtime.advance(10_000);
    expect(failure).toMatchObject({ code: 'invalid-auth-token' });
    expect(scripted.server.logins).toHaveLength(6);
  });
});

describe('a lease', () => {
  /** Renews on a stream with the right token, and ends every other. */
  function serve({ script, server }: { script: ScriptedClient['script']; server: AuthServer }): void {
    script.onStream = (stream) => {
      stream.onWrite = (bytes) => {
        const { id } = LeaseKeepAliveRequest.decode(bytes);
        if (server.takes(stream)) stream.send(LeaseKeepAliveResponse.encode({ id, ttl: 9 }));
        else stream.end(server.refusal.code, server.refusal);
      };
    };
  }

  test('is renewed with another token when its own is over', async () => {
    const scripted = await authenticated();
    serve(scripted);
    const lease = await scripted.runtime.run(scripted.client.lease.grant({ ttlSeconds: 9 }));
    for (let n = 0; n < 10; n++) {
      scripted.server.revoke();
      await scripted.runtime.advance(4_000);
      expect(lease.remaining()).toBeGreaterThan(4_000);
    }
    expect(scripted.server.logins).toHaveLength(11);
  });

  test('whose client is known no longer is tried until its time is over, and comes back if that changes', async () => {
    const scripted = await authenticated();
    serve(scripted);
    const { server, runtime } = scripted;
    const lease = await runtime.run(scripted.client.lease.grant({ ttlSeconds: 9 }));
    server.revoke();
    server.loginFailure = wrongPassword;
    await runtime.advance(6_000);
    server.loginFailure = undefined;
    await runtime.advance(2_000);
    expect(lease.remaining()).toBeGreaterThan(6_000);
    server.revoke();
    server.loginFailure = wrongPassword;
    await runtime.advance(9_000);
    expect(lease.state).toBe('lost');
    const asked = server.logins.length;
    await runtime.advance(60_000);
    expect(server.logins).toHaveLength(asked);
  });
});
