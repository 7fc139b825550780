// TLS against real servers: whom to trust, who to be, and certificates that change while a client runs.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Client, connect } from '@conclave/sdk';
import {
  CertificateAuthority,
  type EtcdLine,
  etcdBinary,
  eventually,
  launchEtcd,
  type RunningProcess,
  ScratchDir,
  targetTitle,
} from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const targets: readonly { readonly name: string; readonly line?: EtcdLine; readonly skip?: string | undefined }[] = [
  { name: 'conclave-server', skip: 'it does not speak TLS yet' },
  ...(['3.5', '3.4'] as const).map((line) => ({
    name: `etcd ${line}`,
    line,
    skip: etcdBinary(line, 'etcd') === undefined ? 'ETCD_BIN_DIR does not hold it' : undefined,
  })),
];

describe.each(targets.map((target) => ({ ...target, title: targetTitle(target) })))('against $title', ({ line = '3.5', skip }) => {
  const authority = new CertificateAuthority('the authority');
  let files: ScratchDir;
  const path = (name: string): string => join(files.path, name);

  /** Files of a server and of a client, as a program that renews certificates writes them: in place. */
  function write(issuer: CertificateAuthority, hosts: readonly string[]): void {
    const server = issuer.issue('server', hosts);
    const client = issuer.issue('client');
    const contents = {
      'ca.pem': issuer.pem,
      'server.pem': server.cert,
      'server.key': server.key,
      'client.pem': client.cert,
      'client.key': client.key,
    };
    for (const [name, pem] of Object.entries(contents)) writeFileSync(path(name), pem);
  }

  const serverTls = () => ({ certFile: path('server.pem'), keyFile: path('server.key') });
  const clientTls = () => ({ ca: path('ca.pem'), cert: path('client.pem'), key: path('client.key') });
  const failing = { deadlineMs: 600 };

  let server: RunningProcess;

  beforeAll(async () => {
    files = new ScratchDir('certificates');
    write(authority, ['127.0.0.1', 'localhost', 'etcd.example']);
    if (skip === undefined) server = await launchEtcd({ version: line, tls: serverTls() });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    files[Symbol.dispose]();
  });

  describe.skipIf(skip !== undefined)('a server that shows a certificate', () => {
    test('is trusted by its authority, given as a file, as text or as bytes', async () => {
      for (const ca of [path('ca.pem'), authority.pem, Buffer.from(authority.pem)]) {
        await using client = await connect({ endpoints: server.clientUrl, tls: { ca } });
        await client.put('k', 'v');
        expect((await client.get('k'))?.value).toBe('v');
      }
    });

    test('is known by its name as well as by its address', async () => {
      const port = server.address.split(':')[1];
      await using client = await connect({ endpoints: `https://localhost:${port}`, tls: { ca: authority.pem } });
      await client.put('k', 'v');
    });

    test('speaks TLS to endpoints that do not say so, when tls is given', async () => {
      await using client = await connect({ endpoints: server.address, tls: { ca: authority.pem } });
      await client.put('k', 'v');
    });

    test('is not trusted by anybody else, and the error says why', async () => {
      const stranger = new CertificateAuthority('a stranger').pem;
      for (const tls of [undefined, { ca: stranger }]) {
        const error = await connect({ endpoints: server.clientUrl, tls, ...failing }).catch((reason: unknown) => reason);
        expect(error).toMatchObject({
          code: 'unavailable',
          message: expect.stringMatching(/self-signed certificate|unable to verify|unable to get/),
        });
      }
    });

    test('must be the one it was asked to be', async () => {
      const tls = { ca: authority.pem };
      await using client = await connect({ endpoints: server.clientUrl, tls: { ...tls, servername: 'etcd.example' } });
      await client.put('k', 'v');
      const wrong = connect({ endpoints: server.clientUrl, tls: { ...tls, servername: 'other.example' }, ...failing });
      await expect(wrong).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('other.example') });
    });

    test('cannot be reached without TLS', async () => {
      await expect(connect({ endpoints: server.address, ...failing })).rejects.toMatchObject({ code: 'unavailable' });
    });

    test('waits for a file that is not there yet', async () => {
      const late = path('late.pem');
      const connecting = connect({ endpoints: server.clientUrl, tls: { ca: late } });
      await expect(connect({ endpoints: server.clientUrl, tls: { ca: late }, ...failing })).rejects.toMatchObject({
        message: expect.stringContaining('ENOENT'),
      });
      writeFileSync(late, authority.pem);
      await (await connecting).close();
    });
  });

  describe.skipIf(skip !== undefined)('a server without TLS', () => {
    test('cannot be reached with it, and the error says why', async () => {
      // It hangs up on what it cannot read, and the system tells that in one of several ways.
      await using plain = await launchEtcd({ version: line });
      const error = await connect({ endpoints: `https://${plain.address}`, ...failing }).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'unavailable', message: expect.stringMatching(/TLS|ECONNRESET|EPIPE/) });
    });
  });

  describe.skipIf(skip !== undefined)('a server that asks for certificates', () => {
    test('takes the client that has one, and no other', async () => {
      await using server = await launchEtcd({ version: line, tls: { ...serverTls(), clientCaFile: path('ca.pem') } });
      await using client = await connect({ endpoints: server.clientUrl, tls: clientTls() });
      await client.put('k', 'v');
      const error = await connect({ endpoints: server.clientUrl, tls: { ca: path('ca.pem') }, ...failing }).catch(
        (reason: unknown) => reason,
      );
      expect(error).toMatchObject({ code: 'unavailable', message: expect.stringMatching(/certificate|ECONNRESET|EPIPE/) });
    });

    test('can change its authority and everybody’s certificates under a client that runs', async () => {
      await using server = await launchEtcd({ version: line, tls: { ...serverTls(), clientCaFile: path('ca.pem') } });
      await using client: Client = await connect({ endpoints: server.clientUrl, tls: clientTls() });
      const lease = await client.lease.grant({ ttlSeconds: 30 });
      const observed: string[] = [];
      let isReady = false;
      const subscription = client.watch('k', { notifyCreated: true }).subscribe((event) => {
        if (event.type === 'created') isReady = true;
        else observed.push(event.value);
      });
      await eventually('the watch stands', () => isReady);
      await client.put('k', 'before', { lease });

      write(new CertificateAuthority('the next authority'), ['127.0.0.1']);
      await client.put('k', 'between');
      await server.restart();

      await client.put('k', 'after', { lease, deadlineMs: 10_000 });
      await eventually('all events', () => observed.length === 3).finally(() => subscription.unsubscribe());
      expect(observed).toEqual(['before', 'between', 'after']);
      expect(lease.state).toBe('held');
    });
  });
});
