import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ConclaveServer, startServer } from './embed.ts';

/** The stock command line against our doors: every verb an operator starts the day with. */

const binaries = process.env['ETCD_BIN_DIR'];

interface Output {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

describe.each(['3.5', '3.4'])('etcdctl %s', (line) => {
  const binary = join(binaries ?? '', line, 'etcdctl');
  const missing = binaries === undefined || !existsSync(binary);
  if (missing) {
    test.skip('skipped: ETCD_BIN_DIR does not name a folder that holds it');
    return;
  }

  let folder: string;
  let server: ConclaveServer;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'etcdctl-'));
    server = await startServer({ dataDir: join(folder, 'data'), listen: '127.0.0.1:0' });
  });
  afterAll(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });

  const environment = (): NodeJS.ProcessEnv => ({ ...process.env, ETCDCTL_API: '3', ETCDCTL_ENDPOINTS: server.endpoints[0] });

  function etcdctl(args: readonly string[], input = ''): Promise<Output> {
    return new Promise((resolve) => {
      const child = execFile(binary, [...args], { env: environment(), timeout: 20_000 }, (error, out, err) =>
        resolve({ code: error === null ? 0 : Number(error.code ?? 1), out, err }),
      );
      child.stdin?.end(input);
    });
  }

  async function ok(...args: readonly string[]): Promise<string> {
    const { code, out, err } = await etcdctl(args);
    expect([args, code, err]).toEqual([args, 0, expect.any(String)]);
    return out;
  }

  test('put, get and del, with what they print', async () => {
    expect(await ok('put', 'a/1', 'one')).toBe('OK\n');
    expect(await ok('put', 'a/2', 'two')).toBe('OK\n');
    expect(await ok('put', 'a/2', '--prev-kv', 'zwei')).toBe('OK\na/2\ntwo\n');
    expect(await ok('get', 'a/', '--prefix', '--order', 'DESCEND')).toBe('a/2\nzwei\na/1\none\n');
    expect(await ok('get', 'a/', '--prefix', '--keys-only', '--limit', '1')).toBe('a/1\n\n');
    expect(await ok('get', 'a/2', '--rev', '3')).toBe('a/2\ntwo\n');
    expect(await ok('del', 'a/1', '--prev-kv')).toBe('1\na/1\none\n');
    expect(await ok('del', 'nothing')).toBe('0\n');
  });

  test('txn takes both branches', async () => {
    await ok('put', 't', 'yes');
    const txn = 'value("t") = "yes"\n\nput u 1\nget t\n\nget u\n\n';
    const taken = await etcdctl(['txn'], txn);
    expect([taken.code, taken.out]).toEqual([0, 'SUCCESS\n\nOK\n\nt\nyes\n']);
    const other = await etcdctl(['txn'], txn.replace('"yes"', '"no"'));
    expect([other.code, other.out]).toEqual([0, 'FAILURE\n\nu\n1\n']);
  });

  test('watch shows what happens, from the past on', async () => {
    const { header } = JSON.parse(await ok('put', 'w', '0', '-w', 'json')) as { header: { revision: number } };
    const child = spawn(binary, ['watch', 'w', '--rev', `${header.revision}`], {
      env: environment(),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines: string[] = [];
    const enough = new Promise<void>((resolve) => {
      createInterface({ input: child.stdout }).on('line', (text) => {
        lines.push(text);
        if (lines.length === 9) resolve();
      });
    });
    await ok('put', 'w', '1');
    await ok('del', 'w');
    await enough;
    child.kill();
    expect(lines).toEqual(['PUT', 'w', '0', 'PUT', 'w', '1', 'DELETE', 'w', '']);
  });

  test('leases are granted, attached, renewed, listed and revoked', async () => {
    const id = /lease ([0-9a-f]+) granted with TTL\(60s\)/.exec(await ok('lease', 'grant', '60'))?.[1] ?? '';
    await ok('put', '--lease', id, 'leased', 'v');
    expect(await ok('lease', 'timetolive', id, '--keys')).toMatch(
      /granted with TTL\(60s\), remaining\(\d+s\), attached keys\(\[leased\]\)/,
    );
    expect(await ok('lease', 'list')).toContain(id);
    expect(await ok('lease', 'keep-alive', '--once', id)).toBe(`lease ${id} keepalived with TTL(60)\n`);
    expect(await ok('lease', 'revoke', id)).toBe(`lease ${id} revoked\n`);
    expect(await ok('get', 'leased')).toBe('');
    expect((await etcdctl(['lease', 'revoke', id])).err).toContain('etcdserver: requested lease not found');
  });

  test('the cluster is healthy and has one member, which leads', async () => {
    const { err, out } = await etcdctl(['endpoint', 'health']);
    expect(err + out).toContain('is healthy: successfully committed proposal');
    const [status] = JSON.parse(await ok('endpoint', 'status', '-w', 'json')) as {
      Status: { version: string; leader: number; header: { member_id: number } };
    }[];
    expect(status?.Status.version).toBe('3.7.0');
    expect(status?.Status.leader).toBe(status?.Status.header.member_id);
    expect(await ok('member', 'list')).toBe(
      `8e9e05c52164694d, started, default, http://localhost:2380, http://${server.endpoints[0]}, false\n`,
    );
    expect(await ok('alarm', 'list')).toBe('');
    expect(await ok('user', 'list')).toBe('');
  });

  test('compaction forgets, and says so afterwards', async () => {
    await ok('put', 'c', '1');
    const { header } = JSON.parse(await ok('put', 'c', '2', '-w', 'json')) as { header: { revision: number } };
    expect(await ok('compaction', `${header.revision}`)).toBe(`compacted revision ${header.revision}\n`);
    expect((await etcdctl(['get', 'c', '--rev', '2'])).err).toContain('etcdserver: mvcc: required revision has been compacted');
  });

  test('lock runs a command under a lock, elect wins an election', async () => {
    expect(await ok('lock', 'l', 'echo', 'locked')).toBe('locked\n');
    const child = spawn(binary, ['elect', 'e', 'candidate'], { env: environment(), stdio: ['ignore', 'pipe', 'inherit'] });
    const leader = new Promise<string[]>((resolve) => {
      const lines: string[] = [];
      createInterface({ input: child.stdout }).on('line', (text) => {
        lines.push(text);
        if (lines.length === 2) resolve(lines);
      });
    });
    expect((await leader)[1]).toBe('candidate');
    child.kill('SIGKILL');
  });
});
