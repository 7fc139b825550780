import { once } from 'node:events';
import { createServer, type Server, Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { eventually } from './condition.ts';
import { freePort } from './free-port.ts';
import { PeerLinks } from './net-links.ts';

let links: PeerLinks;
let server: Server;
let port: number;
const accepted: Peer[] = [];
const dialled: Peer[] = [];

/** One end of a connection, and what came to it. */
class Peer {
  received = '';
  isOver = false;
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.received += text;
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isOver = true;
    });
  }
}

/** This process is member `a`, which dials; the server within it stands for `b`, which never does. */
beforeEach(async () => {
  server = createServer((socket) => accepted.push(new Peer(socket)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  port = await freePort();
  links = new PeerLinks();
  const peerPort = typeof address === 'object' && address !== null ? address.port : 0;
  await links.addMember({ name: 'b', peerPort, proxyPort: port, pid: () => 0 });
  await links.addMember({ name: 'a', peerPort: await freePort(), proxyPort: await freePort(), pid: () => process.pid });
});

afterEach(async () => {
  for (const { socket } of [...dialled.splice(0), ...accepted.splice(0)]) socket.destroy();
  await links[Symbol.asyncDispose]();
  server.close();
});

async function dial(): Promise<{ a: Peer; b: Peer }> {
  const count = accepted.length;
  const a = new Peer(new Socket().connect(port, '127.0.0.1'));
  dialled.push(a);
  const b = await eventually('the other side accepts', () => accepted[count]);
  return { a, b };
}

describe('links between members', () => {
  test('carry bytes both ways, and the tap is told who speaks to whom', async () => {
    const heard: string[] = [];
    links.tap((from, to, chunk) => heard.push(`${from}>${to} ${chunk.toString()}`));
    const { a, b } = await dial();
    a.socket.write('hello');
    await eventually('b is told', () => b.received === 'hello');
    b.socket.write('welcome');
    await eventually('a is told', () => a.received === 'welcome');
    expect(heard).toEqual(['a>b hello', 'b>a welcome']);
  });

  test('one way is held while the other passes, and what was held comes late', async () => {
    const { a, b } = await dial();
    links.block(['a'], ['b']);
    a.socket.write('held');
    b.socket.write('free');
    await eventually('the free way passes', () => a.received === 'free');
    expect(b.received).toBe('');
    links.heal();
    await eventually('what was held arrives', () => b.received === 'held');
  });

  test('what was held is lost when that is asked for, with its connection', async () => {
    const { a, b } = await dial();
    links.partition(['a'], ['b']);
    a.socket.write('lost');
    links.heal({ isLost: true });
    await eventually('the connection breaks', () => a.isOver && b.isOver);
    expect(b.received).toBe('');
    const again = await dial();
    again.a.socket.write('new');
    await eventually('a new one works', () => again.b.received === 'new');
  });

  test('the end of a connection is not told while its way is held', async () => {
    const { a, b } = await dial();
    links.block(['a'], ['b']);
    a.socket.end('last words');
    const other = await dial();
    other.b.socket.write('later');
    await eventually('something later has passed', () => other.a.received === 'later');
    expect(b.isOver).toBe(false);
    links.heal();
    await eventually('the end is told, after the last words', () => b.isOver);
    expect(b.received).toBe('last words');
  });

  test('a cut link breaks connections and refuses new ones', async () => {
    const { a, b } = await dial();
    links.partition(['a'], ['b'], 'cut');
    await eventually('both ends are told', () => a.isOver && b.isOver);
    const refused = new Peer(new Socket().connect(port, '127.0.0.1'));
    await eventually('a new one is refused', () => refused.isOver);
    expect(accepted.length).toBe(1);
  });

  test('delays keep the order', async () => {
    const { a, b } = await dial();
    links.setRule('a', 'b', { delayMs: 30, jitterMs: 20 });
    const sentAt = performance.now();
    for (let n = 0; n < 10; n++) {
      a.socket.write(`${n} `);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await eventually('all of it arrives', () => b.received.length === 20);
    expect(b.received).toBe('0 1 2 3 4 5 6 7 8 9 ');
    expect(performance.now() - sentAt).toBeGreaterThanOrEqual(29);
  });
});
