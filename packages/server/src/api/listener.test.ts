import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemRuntime } from '@conclave/wire';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Listener, type ListenerOptions } from './listener.ts';
import { parseListenUrl } from './listener-url.ts';

const runtime = systemRuntime();
const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const open: Listener[] = [];
const sockets: Socket[] = [];
let spoken: { speaker: string; text: string }[] = [];
let folder: string;

beforeEach(() => {
  spoken = [];
  folder = mkdtempSync(join(tmpdir(), 'listener-'));
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const listener of open.splice(0)) await listener.close();
  rmSync(folder, { recursive: true });
});

/** Writes down what it is given to read. */
function speaker(name: string): { accept(socket: Socket): void } {
  return {
    accept(socket) {
      sockets.push(socket);
      const entry = { speaker: name, text: '' };
      spoken.push(entry);
      socket.on('data', (data) => {
        entry.text += data.toString();
      });
    },
  };
}

async function listen(urls: readonly string[], options: Partial<ListenerOptions> = {}): Promise<Listener> {
  const listener = await Listener.open({
    runtime,
    urls: urls.map(parseListenUrl),
    http2: speaker('http2'),
    http1: speaker('http1'),
    ...options,
  });
  open.push(listener);
  return listener;
}

async function dial(listener: Listener): Promise<Socket> {
  const socket = connect({ port: listener.addresses[0]?.port ?? 0, host: '127.0.0.1' });
  sockets.push(socket);
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = runtime.monotonic() + 5000;
  while (!condition()) {
    if (runtime.monotonic() > deadline) throw new Error('never came true');
    await new Promise<void>((resolve) => runtime.timer(2, resolve));
  }
}

test('the first bytes decide who speaks, and none of them is lost', async () => {
  const listener = await listen(['http://127.0.0.1:0']);
  (await dial(listener)).write(`${preface}rest`);
  await until(() => spoken[0]?.text === `${preface}rest`);
  (await dial(listener)).write('GET /health HTTP/1.1\r\n\r\n');
  await until(() => spoken[1]?.text === 'GET /health HTTP/1.1\r\n\r\n');
  (await dial(listener)).write('P');
  (await dial(listener)).write(Buffer.from([0x16, 3, 1]));
  await until(() => spoken.length === 3);
  expect(spoken.map((entry) => entry.speaker)).toEqual(['http2', 'http1', 'http1']);
});

test('a preface that comes byte by byte is put together', async () => {
  const listener = await listen(['http://127.0.0.1:0']);
  const socket = await dial(listener);
  socket.setNoDelay(true);
  for (const byte of preface) {
    socket.write(byte);
    await new Promise<void>((resolve) => runtime.timer(1, resolve));
  }
  await until(() => spoken[0]?.text === preface);
  expect(spoken[0]?.speaker).toBe('http2');
});

test('who says nothing, or half of it, is hung up on', async () => {
  const listener = await listen(['http://127.0.0.1:0'], { firstBytesMs: 50 });
  const silent = await dial(listener);
  const half = await dial(listener);
  half.write('PRI * HT');
  await Promise.all([silent, half].map((socket) => new Promise((resolve) => socket.once('close', resolve))));
  expect(spoken).toEqual([]);
});

test('a connection that is reset or ended before it spoke harms nothing', async () => {
  const listener = await listen(['http://127.0.0.1:0']);
  (await dial(listener)).resetAndDestroy();
  (await dial(listener)).end();
  (await dial(listener)).write('GET');
  await until(() => spoken.length === 1);
});

test('port 0 becomes the port that was bound, and localhost is both loopback addresses on one port', async () => {
  const listener = await listen(['http://localhost:0']);
  const ports = listener.addresses.map((address) => address.port);
  expect(new Set(ports).size).toBe(1);
  expect(listener.addresses[0]?.address).toBe(`127.0.0.1:${ports[0]}`);
  if (listener.addresses.length > 1) expect(listener.addresses[1]?.address).toBe(`[::1]:${ports[0]}`);
});

test('an address that is taken is an error, and what was bound before it is let go', async () => {
  const first = await listen(['http://127.0.0.1:0']);
  const taken = first.addresses[0]?.port ?? 0;
  const path = join(folder, 'a.sock');
  await expect(listen([`unix://${path}`, `http://127.0.0.1:${taken}`])).rejects.toMatchObject({ code: 'EADDRINUSE' });
  expect(existsSync(path)).toBe(false);
});

test('a socket file that nobody listens at is replaced, one in use is not, and it goes with its listener', async () => {
  const path = join(folder, 'b.sock');
  const url = `unix://${path}`;
  const first = await listen([url]);
  expect(first.addresses).toEqual([{ address: `unix:${path}`, port: undefined }]);
  await expect(listen([url])).rejects.toMatchObject({ code: 'EADDRINUSE' });
  await first.close();
  expect(existsSync(path)).toBe(false);

  leaveStaleSocket(path);
  expect(existsSync(path)).toBe(true);
  await listen([url]);
  const socket = connect({ path });
  sockets.push(socket);
  socket.write('GET');
  await until(() => spoken.length === 1);
});

test('a file that is no socket is never removed', async () => {
  const path = join(folder, 'precious');
  writeFileSync(path, 'data');
  await expect(listen([`unix://${path}`])).rejects.toThrow();
  expect(existsSync(path)).toBe(true);
});

/** As a process leaves it that was killed. */
function leaveStaleSocket(path: string): void {
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
}

test('listen URLs are read as etcd writes them', () => {
  expect(parseListenUrl('http://[::1]:2379')).toEqual({ kind: 'tcp', host: '::1', port: 2379 });
  expect(parseListenUrl('http://localhost:0')).toEqual({ kind: 'tcp', host: 'localhost', port: 0 });
  expect(parseListenUrl('unix:///run/c.sock')).toEqual({ kind: 'unix', path: '/run/c.sock' });
  expect(parseListenUrl('unix:/run/c.sock')).toEqual({ kind: 'unix', path: '/run/c.sock' });
  expect(parseListenUrl('unix://c.sock')).toEqual({ kind: 'unix', path: 'c.sock' });
});
