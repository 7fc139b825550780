// Passwords and tokens against real servers: tokens that run out or grow old under calls, watches and leases that go on.
import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Auth, type Init, type MethodDescriptor, Permission_Type } from '@conclave/protocol';
import { type ConnectOptions, connect, prefix } from '@conclave/sdk';
import {
  type EtcdLine,
  etcdBinary,
  eventually,
  launchEtcd,
  RawClient,
  type RunningProcess,
  ScratchDir,
  TcpProxy,
  targetTitle,
} from '@conclave/testkit';
import { systemRuntime, type Transport } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const tokenTtlSeconds = 1;
/** After it every token that nobody used is over: simple ones are looked at once a second. */
const tokensOverMs = tokenTtlSeconds * 1_000 + 1_500;

interface Target {
  readonly name: string;
  readonly line: EtcdLine;
  readonly tokens: 'simple' | 'jwt';
  readonly skip: string | undefined;
}

const targets: readonly Target[] = [
  { name: 'conclave-server', line: '3.5', tokens: 'simple', skip: 'it has no users yet' },
  ...(['3.5', '3.4'] as const).flatMap((line) => {
    const skip = etcdBinary(line, 'etcd') === undefined ? 'ETCD_BIN_DIR does not hold it' : undefined;
    return (['simple', 'jwt'] as const).map((tokens) => ({ name: `etcd ${line} with ${tokens} tokens`, line, tokens, skip }));
  }),
];

const root = { username: 'root', password: 'of all evil' };
const user = { username: 'app', password: 'secret' };

/** Changes users, as an administrator with a token of the moment. */
class Administrator implements Disposable {
  readonly #raw: RawClient;

  constructor(address: string) {
    this.#raw = new RawClient(grpcTransport({ runtime: systemRuntime() })(address));
  }

  async do<I, O>(method: MethodDescriptor<I, O, false, false>, request: Init<I>): Promise<void> {
    const attempt = async () => {
      const login = await this.#raw.unary(Auth.methods.authenticate, { name: root.username, password: root.password });
      const token = login.response?.token;
      return this.#raw.unary(method, request, token === undefined ? {} : { metadata: { token } });
    };
    let answer = await attempt();
    // A token of one second, counted in whole ones, may be over before it arrives.
    for (let n = 0; n < 20 && answer.message === 'etcdserver: invalid auth token'; n++) answer = await attempt();
    if (answer.code !== 0) throw new Error(`${method.path}: ${answer.message}`);
  }

  /** A user who may write below `app/`, and one who may do everything. */
  async setUp(): Promise<void> {
    await this.do(Auth.methods.userAdd, { name: root.username, password: root.password });
    await this.do(Auth.methods.roleAdd, { name: 'root' });
    await this.do(Auth.methods.userGrantRole, { user: root.username, role: 'root' });
    await this.do(Auth.methods.userAdd, { name: user.username, password: user.password });
    await this.do(Auth.methods.roleAdd, { name: 'app' });
    const perm = { permType: Permission_Type.READWRITE, key: Buffer.from('app/'), rangeEnd: Buffer.from('app0') };
    await this.do(Auth.methods.roleGrantPermission, { name: 'app', perm });
    await this.do(Auth.methods.userGrantRole, { user: user.username, role: 'app' });
    await this.enable();
  }

  enable(): Promise<void> {
    return this.do(Auth.methods.authEnable, {});
  }

  disable(): Promise<void> {
    return this.do(Auth.methods.authDisable, {});
  }

  [Symbol.dispose](): void {
    this.#raw.connection.close();
  }
}

/** Counts what a client asks for by path. */
function counting(): { readonly transport: Transport; count(method: string): number } {
  const inner = grpcTransport({ runtime: systemRuntime() });
  const paths: string[] = [];
  return {
    count: (method) => paths.filter((path) => path.endsWith(`/${method}`)).length,
    transport: (address) => {
      const connection = inner(address);
      const { unary, stream } = connection;
      return Object.assign(connection, {
        unary: (...call: Parameters<typeof unary>) => {
          paths.push(call[0]);
          return unary.apply(connection, call);
        },
        stream: (...call: Parameters<typeof stream>) => {
          paths.push(call[0]);
          return stream.apply(connection, call);
        },
      });
    },
  };
}

/** Only time makes a token too old. */
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe.each(targets.map((target) => ({ ...target, title: targetTitle(target) })))('against $title', ({ line, tokens, skip }) => {
  let files: ScratchDir;
  let server: RunningProcess;
  let administrator: Administrator;

  /** Flags under which tokens run out soon, and passwords are cheap to check. */
  function flags(): readonly string[] {
    const ttl = ['--auth-token-ttl', `${tokenTtlSeconds}`];
    if (tokens === 'simple') return ['--bcrypt-cost', '4', ...ttl];
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const [privateFile, publicFile] = [join(files.path, 'jwt.key'), join(files.path, 'jwt.pub')];
    writeFileSync(privateFile, privateKey.export({ type: 'pkcs1', format: 'pem' }));
    writeFileSync(publicFile, publicKey.export({ type: 'spki', format: 'pem' }));
    const kind = `jwt,pub-key=${publicFile},priv-key=${privateFile},sign-method=RS256,ttl=${tokenTtlSeconds}s`;
    return ['--bcrypt-cost', '4', '--auth-token', kind];
  }

  const connectAs = (credentials: ConnectOptions['credentials'], options: Partial<ConnectOptions> = {}) =>
    connect({ endpoints: server.address, credentials, ...options });

  beforeAll(async () => {
    files = new ScratchDir('tokens');
    if (skip !== undefined) return;
    server = await launchEtcd({ version: line, flags: flags() });
    administrator = new Administrator(server.address);
    await administrator.setUp();
  });
  afterAll(async () => {
    administrator?.[Symbol.dispose]();
    await server?.[Symbol.asyncDispose]();
    files[Symbol.dispose]();
  });

  describe.skipIf(skip !== undefined)('a client with a password', () => {
    test('may do what its user may, and no more', async () => {
      await using client = await connectAs(user);
      await client.put('app/k', 'v');
      expect((await client.get('app/k'))?.value).toBe('v');
      await expect(client.put('other', 'v')).rejects.toMatchObject({ code: 'permission-denied', outcome: 'not-applied' });
      const watching = (async () => {
        for await (const _ of client.watch('other')) expect.unreachable('an event');
      })();
      await expect(watching).rejects.toMatchObject({ code: 'permission-denied' });
    });

    test('is told at once that it is wrong', async () => {
      const started = performance.now();
      await expect(connectAs({ ...user, password: 'wrong' })).rejects.toMatchObject({ code: 'authentication-failed' });
      expect(performance.now() - started).toBeLessThan(4_000);
    });

    test('is told so even when it went without asking', async () => {
      await using client = await connectAs({ ...user, password: 'wrong' }, { lazy: true });
      await expect(client.put('app/k', 'v')).rejects.toMatchObject({ code: 'authentication-failed', outcome: 'not-applied' });
    });

    test('and one without', async () => {
      await using client = await connectAs(undefined);
      await expect(client.put('app/k', 'v')).rejects.toMatchObject({ code: 'user-empty', outcome: 'not-applied' });
    });

    test('says who it is on snapshots, scans and views too, with a token that has run out', async () => {
      await using client = await connectAs(root);
      for (let n = 0; n < 20; n++) await client.put(`app/scanned/${n}`, 'v');
      await using view = await client.view(prefix('app/scanned/'));
      const stored = await view.get('app/scanned/20', { atLeast: (await client.put('app/scanned/20', 'v')).revision });
      expect(stored?.value).toBe('v');
      await pause(tokensOverMs);
      let bytes = 0;
      for await (const part of client.maintenance.at(server.address).snapshot()) bytes += part.length;
      expect(bytes).toBeGreaterThan(1_000);
      await pause(tokensOverMs);
      let count = 0;
      for await (const _ of client.scan(prefix('app/scanned/'), { pageSize: 5 })) count += 1;
      expect(count).toBe(21);
      const { revision } = await client.put('app/scanned/21', 'v');
      await view.reach({ atLeast: revision });
      expect(view.size).toBe(22);
    });

    test('asks for a token once, however many calls find theirs too old', async () => {
      const counted = counting();
      await using client = await connectAs(user, { transport: counted.transport });
      await pause(tokensOverMs);
      await Promise.all(Array.from({ length: 50 }, (_, n) => client.put(`app/many/${n}`, 'v')));
      expect(counted.count('Authenticate')).toBe(2);
      expect((await client.list(prefix('app/many/'))).kvs.map(({ version }) => version)).toEqual(Array.from({ length: 50 }, () => 1n));
    });
  });

  describe.skipIf(skip !== undefined)('a client with a token from elsewhere', () => {
    /** As whoever gives out tokens would. */
    async function issue(): Promise<string> {
      const raw = new RawClient(grpcTransport({ runtime: systemRuntime() })(server.address));
      const answer = await raw.unary(Auth.methods.authenticate, { name: user.username, password: user.password });
      raw.connection.close();
      return answer.response?.token ?? '';
    }

    test('is who the token says, and asks for another when the server takes it no longer', async () => {
      const counted = counting();
      let asked = 0;
      const token = (): Promise<string> => {
        asked++;
        return issue();
      };
      await using client = await connectAs({ token }, { transport: counted.transport });
      await client.put('app/k', 'v');
      await expect(client.put('other', 'v')).rejects.toMatchObject({ code: 'permission-denied' });
      const seen: string[] = [];
      client.watch('app/k').subscribe(({ value }) => seen.push(value));
      await pause(tokensOverMs);
      await client.put('app/k', 'later');
      await eventually('the event', () => seen.at(-1) === 'later');
      expect(asked).toBeGreaterThan(1);
      expect(counted.count('Authenticate')).toBe(0);
    });

    test('that is a text is told when it is over', async () => {
      await using client = await connectAs({ token: await issue() });
      await client.put('app/k', 'v');
      await pause(tokensOverMs);
      await expect(client.put('app/k', 'v')).rejects.toMatchObject({ code: 'authentication-failed', outcome: 'not-applied' });
    });

    test('that is none is told', async () => {
      await expect(connectAs({ token: 'nonsense' }).then((client) => client.put('app/k', 'v'))).rejects.toMatchObject({
        code: 'authentication-failed',
        outcome: 'not-applied',
      });
    });
  });

  test.skipIf(skip !== undefined)(
    'watches lose no event and leases stay while tokens run out, users change and connections break',
    async () => {
      await using proxy = await TcpProxy.to(server.address);
      const counted = counting();
      await using client = await connectAs(user, { endpoints: proxy.address, transport: counted.transport });
      await using writer = await connectAs(root);
      // Renewed every three seconds, and all but the first time with a token that has run out.
      const lease = await client.lease.grant({ ttlSeconds: 9 });
      await client.put('app/leased', 'v', { lease });
      // And one that does nothing else.
      const countedIdle = counting();
      await using idle = await connectAs(user, { transport: countedIdle.transport });
      const idleLease = await idle.lease.grant({ ttlSeconds: 9 });

      const { revision } = await writer.put('app/e/first', '');
      const watches: { readonly from: bigint; readonly seen: bigint[]; failure?: unknown; end(): void }[] = [];
      /** Each next one is created on a stream that was opened with a token of before. */
      const watch = (from: bigint): void => {
        const record: (typeof watches)[number] = { from, seen: [], end: () => subscription.unsubscribe() };
        watches.push(record);
        const subscription = client.watch(prefix('app/e/'), { startRevision: from }).subscribe({
          next: (event) => record.seen.push(event.revision),
          error: (error: unknown) => {
            record.failure = error;
          },
        });
      };
      watch(revision + 1n);

      const written: bigint[] = [];
      let isOver = false;
      const writing = (async () => {
        for (let n = 0; !isOver; n++) {
          written.push((await writer.put(`app/e/${n % 7}`, `${n}`)).revision);
          await pause(5);
        }
      })();
      for (let round = 0; round < 3; round++) {
        await pause(tokensOverMs);
        watch(written.at(-1) ?? 0n);
        await pause(200);
        await administrator.do(Auth.methods.userAdd, { name: `somebody ${line} ${round}`, password: 'p' });
        watch(written.at(-1) ?? 0n);
        await pause(200);
        await client.put(`app/mine/${round}`, 'v');
        if (round === 1) proxy.cut();
        await client.get(`app/mine/${round}`);
      }
      isOver = true;
      await writing;
      const last = written.at(-1) ?? 0n;
      await eventually('the last event of each', () => watches.every(({ seen }) => seen.at(-1) === last)).finally(() => {
        expect(watches.map(({ failure }) => failure)).toEqual(watches.map(() => undefined));
      });
      for (const { from, seen } of watches) expect(seen).toEqual(written.filter((at) => at >= from));
      for (const { end } of watches) end();

      for (const { id, state } of [lease, idleLease]) {
        expect(state).toBe('held');
        expect((await writer.lease.timeToLive(id))?.ttlSeconds).toBeGreaterThan(0);
      }
      expect((await client.get('app/leased'))?.lease).toBe(lease.id);
      // Tokens did run out, again and again.
      expect(counted.count('Authenticate')).toBeGreaterThanOrEqual(3);
      // Etcd 3.4 asks nobody who renews a lease.
      if (line === '3.5') expect(countedIdle.count('LeaseKeepAlive')).toBeGreaterThanOrEqual(3);
    },
    60_000,
  );

  test.skipIf(skip !== undefined)('a client follows a server that begins to ask for passwords, and one that ceases to', async () => {
    await using open = await launchEtcd({ version: line, flags: flags() });
    using its = new Administrator(open.address);
    await using client = await connect({ endpoints: open.address, credentials: user });
    const lease = await client.lease.grant({ ttlSeconds: 3 });
    const seen: string[] = [];
    const subscription = client.watch(prefix('app/')).subscribe((event) => seen.push(event.value));
    await client.put('app/k', 'open', { lease });
    await its.setUp();
    await client.put('app/k', 'guarded');
    await pause(1_500);
    await its.disable();
    await client.put('app/k', 'open again');
    await pause(1_500);
    await its.enable();
    await client.put('app/k', 'guarded again');
    await eventually('all events', () => seen.at(-1) === 'guarded again').finally(() => subscription.unsubscribe());
    expect(seen.filter((value) => value !== 'open')).toEqual(['guarded', 'open again', 'guarded again']);
    expect(lease.state).toBe('held');
  });

  test.skipIf(skip !== undefined)('a watch is read anew with another token, as long as its user may read', async () => {
    await using own = await launchEtcd({ version: line, flags: flags() });
    await using proxy = await TcpProxy.to(own.address);
    using its = new Administrator(own.address);
    await its.setUp();
    await using writer = await connect({ endpoints: own.address, credentials: root });
    await using client = await connect({ endpoints: proxy.address, credentials: user });
    await writer.put('app/gone', 'v');
    const seen: string[] = [];
    let failure: unknown;
    client.watch(prefix('app/'), { onCompacted: 'relist', notifyCreated: true }).subscribe({
      next: (emitted) => seen.push('kv' in emitted ? `${emitted.type} ${emitted.key} ${emitted.isSynthesised}` : emitted.type),
      error: (error: unknown) => {
        failure = error;
      },
    });
    await eventually('it stands', () => seen.length === 1);
    await proxy.refuse();
    await writer.delete('app/gone');
    await writer.compact((await writer.put('app/new', 'v')).revision);
    await pause(tokensOverMs);
    await proxy.accept();
    await eventually('it is told', () => seen.length === 4);
    expect(seen).toEqual(['created', 'resync', 'put app/new true', 'delete app/gone true']);

    await proxy.refuse();
    await its.do(Auth.methods.roleRevokePermission, { role: 'app', key: Buffer.from('app/'), rangeEnd: Buffer.from('app0') });
    await writer.compact((await writer.put('app/new', 'w')).revision);
    await proxy.accept();
    await eventually('it ends', () => failure !== undefined);
    expect(failure).toMatchObject({ code: 'permission-denied' });
    expect(seen).toHaveLength(4);
  });

  test.skipIf(skip !== undefined)('a changed password is told when the next token is asked for, by watches too', async () => {
    await administrator.do(Auth.methods.userAdd, { name: 'fickle', password: 'one' });
    await administrator.do(Auth.methods.userGrantRole, { user: 'fickle', role: 'app' });
    const counted = counting();
    await using client = await connectAs({ username: 'fickle', password: 'one' }, { transport: counted.transport });
    await client.put('app/k', 'v');
    await administrator.do(Auth.methods.userChangePassword, { name: 'fickle', password: 'two' });
    await pause(tokensOverMs);
    await expect(client.put('app/k', 'v')).rejects.toMatchObject({ code: 'authentication-failed', outcome: 'not-applied' });
    const watching = (async () => {
      for await (const _ of client.watch('app/k', { startRevision: 1n })) expect.unreachable('an event');
    })();
    await expect(watching).rejects.toMatchObject({ code: 'authentication-failed' });
    const asked = counted.count('Authenticate');
    await pause(500);
    expect(counted.count('Authenticate')).toBe(asked);
    await administrator.do(Auth.methods.userChangePassword, { name: 'fickle', password: 'one' });
    await client.put('app/k', 'v');
  });
});
