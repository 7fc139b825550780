import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { etcdApiVersion, KV } from '@conclave/protocol';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { conclaveVersion } from './version.ts';

// What `npm test` has built: an executable is tested as it is run.
const script = fileURLToPath(new URL('../dist/main.js', import.meta.url));
const children: ChildProcess[] = [];
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'main-'));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});

interface Run {
  readonly child: ChildProcess;
  readonly lines: string[];
  readonly out: () => string;
  /** Exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

function run(args: readonly string[], env: Record<string, string> = {}): Run {
  const command = [script, ...args];
  const child = spawn(process.execPath, command, { cwd: folder, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const lines: string[] = [];
  let out = '';
  child.stdout.on('data', (data: Buffer) => {
    out += data.toString();
  });
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(line));
  const ended = once(child, 'close').then(([code, signal]: (number | NodeJS.Signals | null)[]) => code ?? signal ?? -1) as Run['ended'];
  return { child, lines, out: () => out, ended };
}

const anyAddress = 'http://127.0.0.1:0';
const anyPort = ['--listen-client-urls', anyAddress, '--advertise-client-urls', anyAddress, '--listen-peer-urls', anyAddress];

/** The address in the line that says it is ready. */
async function ready({ lines, ended }: Run): Promise<string> {
  const runtime = systemRuntime();
  let exit: number | NodeJS.Signals | undefined;
  void ended.then((code) => {
    exit = code;
  });
  const deadline = runtime.monotonic() + 20_000;
  for (;;) {
    const line = lines.find((each) => each.includes('ready to serve client requests'));
    if (line !== undefined) return (JSON.parse(line) as { address: string }).address;
    if (exit !== undefined || runtime.monotonic() > deadline) throw new Error(`not ready (${exit}):\n${lines.join('\n')}`);
    await new Promise<void>((resolve) => runtime.timer(10, resolve));
  }
}

function put(address: string, value: Uint8Array): Promise<number> {
  const connection = grpcTransport({ runtime: systemRuntime() })(address);
  const request = KV.methods.put.input.encode({ key: new Uint8Array([97]), value });
  return new Promise((resolve) => {
    connection.unary(KV.methods.put.path, request, {}, (end) => {
      connection.close();
      resolve(end.code);
    });
  });
}

test('the version names the API first, then the release', async () => {
  const { ended, out } = run(['--version']);
  expect(await ended).toBe(0);
  expect(out().split('\n').slice(0, 2)).toEqual([`etcd Version: ${etcdApiVersion}`, `Conclave Version: ${conclaveVersion}`]);
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };
  expect(conclaveVersion).toBe(manifest.version);
});

test('a flag that is none ends it with 2, values that do not go together with 1', async () => {
  const unknown = run(['--nope']);
  expect(await unknown.ended).toBe(2);
  expect(unknown.lines[0]).toBe('flag provided but not defined: -nope');
  const contradiction = run(['--election-timeout', '100']);
  expect(await contradiction.ended).toBe(1);
  expect(contradiction.lines[0]).toMatch(/should be at least as 5 times/);
});

test('it serves, drains on SIGTERM, ends by that signal, and starts again on what it kept', async () => {
  const first = run(['--data-dir', join(folder, 'd'), ...anyPort]);
  expect(await put(await ready(first), new Uint8Array([1]))).toBe(0);
  first.child.kill('SIGTERM');
  expect(await first.ended).toBe('SIGTERM');
  for (const line of first.lines)
    expect(JSON.parse(line)).toMatchObject({ level: expect.any(String), ts: expect.any(String), msg: expect.any(String) });

  const second = run(anyPort, { ETCD_DATA_DIR: join(folder, 'd') });
  expect(await put(await ready(second), new Uint8Array([2]))).toBe(0);
  second.child.kill('SIGINT');
  expect(await second.ended).toBe('SIGINT');
});

test('killed without warning it starts again unaided', async () => {
  const dataDir = join(folder, 'd');
  const first = run(['--data-dir', dataDir, ...anyPort]);
  expect(await put(await ready(first), new Uint8Array([1]))).toBe(0);
  first.child.kill('SIGKILL');
  await first.ended;
  const second = run(['--data-dir', dataDir, ...anyPort]);
  expect(await put(await ready(second), new Uint8Array([2]))).toBe(0);
});

test('a second process on the same data dir is refused', async () => {
  const dataDir = join(folder, 'd');
  const first = run(['--data-dir', dataDir, ...anyPort]);
  const address = await ready(first);
  const second = run(['--data-dir', dataDir, ...anyPort]);
  expect(await second.ended).toBe(1);
  expect(second.lines.join('\n')).toContain('is in use by another process');
  expect(await put(address, new Uint8Array([1]))).toBe(0);
});

test('damaged data ends it with 4', async () => {
  const dataDir = join(folder, 'd');
  const first = run(['--data-dir', dataDir, ...anyPort]);
  expect(await put(await ready(first), new Uint8Array([1]))).toBe(0);
  first.child.kill('SIGTERM');
  await first.ended;
  writeFileSync(join(dataDir, 'member', 'state', 'data.mdb'), Buffer.alloc(1 << 16, 0xee));
  const second = run(['--data-dir', dataDir, ...anyPort]);
  expect(await second.ended).toBe(4);
});
