// Clients that find their servers in DNS: a small one of the test's own, asked through Node's own resolver.

import { Resolver } from 'node:dns/promises';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type SrvRecord } from '@conclave/sdk';
import { CertificateAuthority, etcdBinary, eventually, launchEtcd, ScratchDir, TcpProxy, testTargets } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { DnsServer } from './dns-server.ts';

const plain = '_etcd-client._tcp.example.test';
const secure = '_etcd-client-ssl._tcp.example.test';

const at = (address: string, priority = 0, weight = 0, name = 'localhost'): SrvRecord => ({
  name,
  port: Number(address.split(':').at(-1)),
  priority,
  weight,
});

function resolverOf(dns: DnsServer): (name: string) => Promise<readonly SrvRecord[]> {
  const resolver = new Resolver({ timeout: 500, tries: 2 });
  resolver.setServers([dns.address]);
  return (name) => resolver.resolveSrv(name);
}

describe.each(testTargets())('against $title', ({ start, skip }) => {
  test.skipIf(skip !== undefined)('a client finds its servers, prefers some of them, and follows them when all are gone', async () => {
    await using server = await start();
    await using dns = await DnsServer.listen();
    await using first = await TcpProxy.to(server.address);
    await using second = await TcpProxy.to(server.address);
    await using later = await TcpProxy.to(server.address);
    dns.records.set(plain, [at(first.address, 10), at(second.address, 20)]);
    await using client = await connect({ discovery: { srv: 'example.test', resolveSrv: resolverOf(dns) } });
    await eventually('both are connected to', () => first.accepted > 0 && second.accepted > 0);
    await client.put('k', 'v');
    await second.refuse();
    for (let n = 0; n < 10; n++) expect((await client.get('k'))?.value).toBe('v');
    await second.accept();
    await first.refuse();
    for (let n = 0; n < 10; n++) expect((await client.get('k'))?.value).toBe('v');
    dns.records.set(plain, [at(later.address)]);
    await second.refuse();
    expect((await client.get('k', { deadlineMs: 20_000 }))?.value).toBe('v');
    expect(later.accepted).toBeGreaterThan(0);
  });
});

const isThere = etcdBinary('3.5', 'etcd') !== undefined;

test.skipIf(!isThere)(
  `records for TLS lead to servers with TLS, which are those they say they are${isThere ? '' : ' (skipped: ETCD_BIN_DIR does not hold etcd 3.5)'}`,
  async () => {
    using files = new ScratchDir('discovery');
    const authority = new CertificateAuthority('authority');
    const { cert, key } = authority.issue('server', ['localhost']);
    for (const [name, text] of [
      ['server.pem', cert],
      ['server.key', key],
    ] as const)
      writeFileSync(join(files.path, name), text);
    await using etcd = await launchEtcd({
      version: '3.5',
      tls: { certFile: join(files.path, 'server.pem'), keyFile: join(files.path, 'server.key') },
    });
    await using dns = await DnsServer.listen();
    const discovery = { srv: 'example.test', resolveSrv: resolverOf(dns) };
    dns.records.set(secure, [at(etcd.address)]);
    dns.records.set(plain, [at('127.0.0.1:1')]);
    await using client = await connect({ discovery, tls: { ca: authority.pem } });
    await client.put('k', 'v');
    expect((await client.get('k'))?.value).toBe('v');
    // Without a word on whom to trust, hosts of other domains are not.
    await expect(connect({ discovery, deadlineMs: 500 })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('point out of the domain'),
    });
    dns.records.set(secure, [at(etcd.address, 0, 0, '127.0.0.1')]);
    await expect(connect({ discovery, tls: { ca: authority.pem }, deadlineMs: 1_000 })).rejects.toMatchObject({ code: 'unavailable' });
  },
);

test('DNS that does not answer, or has no such records, is told', async () => {
  const dns = await DnsServer.listen();
  const discovery = { srv: 'example.test', resolveSrv: resolverOf(dns) };
  await expect(connect({ discovery, deadlineMs: 300 })).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringContaining('there are no records'),
  });
  await dns[Symbol.asyncDispose]();
  await expect(connect({ discovery, deadlineMs: 3_000 })).rejects.toMatchObject({ code: 'unavailable', outcome: 'not-applied' });
});
