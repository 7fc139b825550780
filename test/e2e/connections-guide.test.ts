// The programs of the guide, one after the other, against an etcd as the guide has it: with TLS, client certificates, passwords, and found by DNS.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Auth, Permission_Type } from '@conclave/protocol';
import { CertificateAuthority, etcdBinary, launchEtcd, RawClient, ScratchDir } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { expect, test } from 'vitest';
import { DnsServer } from './dns-server.ts';

const isThere = etcdBinary('3.5', 'etcd') !== undefined;

test.skipIf(!isThere)(
  `the guide of connections runs as it stands${isThere ? '' : ' (skipped: ETCD_BIN_DIR does not hold etcd 3.5)'}`,
  async () => {
    using files = new ScratchDir('guide');
    const path = (name: string): string => join(files.path, name);
    const authority = new CertificateAuthority('authority');
    const server = authority.issue('server', ['127.0.0.1', 'localhost']);
    const client = authority.issue('client');
    const contents = { 'ca.pem': authority.pem, 'server.pem': server.cert, 'server.key': server.key };
    for (const [name, text] of Object.entries({ ...contents, 'client.pem': client.cert, 'client.key': client.key, password: 'secret\n' })) {
      writeFileSync(path(name), text);
    }
    const tls = { certFile: path('server.pem'), keyFile: path('server.key'), clientCaFile: path('ca.pem') };
    await using etcd = await launchEtcd({ version: '3.5', tls });

    const connection = grpcTransport({ runtime: systemRuntime(), tls: { ca: authority.pem, ...client } })(etcd.address);
    const raw = new RawClient(connection);
    for (const name of ['root', 'app']) {
      await raw.unary(Auth.methods.userAdd, { name, password: 'secret' });
      await raw.unary(Auth.methods.roleAdd, { name });
      await raw.unary(Auth.methods.userGrantRole, { user: name, role: name });
    }
    const perm = { permType: Permission_Type.READWRITE, key: Buffer.from('app/'), rangeEnd: Buffer.from('app0') };
    await raw.unary(Auth.methods.roleGrantPermission, { name: 'app', perm });
    expect((await raw.unary(Auth.methods.authEnable, {})).message).toBe('');
    const login = await raw.unary(Auth.methods.authenticate, { name: 'app', password: 'secret' });
    writeFileSync(path('token'), login.response?.token ?? '');
    connection.close();
    await using dns = await DnsServer.listen();
    const port = Number(etcd.address.split(':').at(-1));
    dns.records.set('_etcd-client-ssl._tcp.example.com', [{ name: 'localhost', port, priority: 0, weight: 0 }]);

    const page = readFileSync('docs/guides/connections.md', 'utf8');
    const program = [...page.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1] ?? '').join('\n');
    const here = program
      .replaceAll(/etcd-\d\.example:2379/g, etcd.address)
      .replaceAll('/etc/app', files.path)
      .replaceAll('10.0.0.53', dns.address);
    // Below the checkout, so that the packages are found as in a program of its own.
    const scratch = join('.cache', 'guides');
    mkdirSync(scratch, { recursive: true });
    const dir = mkdtempSync(join(scratch, 'run-'));
    try {
      const file = join(dir, 'connections.ts');
      writeFileSync(file, here);
      const args = ['--conditions=@conclave/source', '--import', 'tsx', file];
      // Not waited for in this turn of the loop, as DNS answers from it.
      const result = await promisify(execFile)(process.execPath, args, { encoding: 'utf8', timeout: 25_000 });
      // No warning either: Node has one for addresses that are sent as names.
      expect(result.stderr).toBe('');
      expect(result.stdout.split('\n')).toEqual(
        expect.arrayContaining(['ready ', 'hello', 'not ours to write', 'found hello', 'identified hello']),
      );
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  },
);
