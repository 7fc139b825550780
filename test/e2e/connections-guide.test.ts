// The program of the guide, against an etcd as the guide has it: with TLS, client certificates and passwords.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Auth, Permission_Type } from '@conclave/protocol';
import { CertificateAuthority, etcdBinary, launchEtcd, RawClient, ScratchDir } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { expect, test } from 'vitest';

const isThere = etcdBinary('3.5', 'etcd') !== undefined;

test.skipIf(!isThere)(
  `the guide of connections runs as it stands${isThere ? '' : ' (skipped: ETCD_BIN_DIR does not hold etcd 3.5)'}`,
  async () => {
    using files = new ScratchDir('guide');
    const path = (name: string): string => join(files.path, name);
    const authority = new CertificateAuthority('authority');
    const server = authority.issue('server', ['127.0.0.1']);
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
    connection.close();

    const [program = ''] = /(?<=```ts\n)[\s\S]*?(?=```)/.exec(readFileSync('docs/guides/connections.md', 'utf8')) ?? [];
    const here = program.replaceAll(/etcd-\d\.example:2379/g, etcd.address).replaceAll('/etc/app', files.path);
    // Below the checkout, so that the packages are found as in a program of its own.
    const scratch = join('.cache', 'guides');
    mkdirSync(scratch, { recursive: true });
    const dir = mkdtempSync(join(scratch, 'run-'));
    try {
      const file = join(dir, 'connections.ts');
      writeFileSync(file, here);
      const args = ['--conditions=@conclave/source', '--import', 'tsx', file];
      const result = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 25_000 });
      // No warning either: Node has one for addresses that are sent as names.
      expect(result.stderr).toBe('');
      expect(result.stdout.split('\n')).toEqual(expect.arrayContaining(['ready ', 'hello', 'not ours to write']));
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  },
);
