import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { VirtualRuntime } from '@conclave/testing';
import { eventually, TcpProxy, within } from '@conclave/testkit';
import { type Logger, type Runtime, systemRuntime } from '@conclave/wire';
import { afterEach, describe, expect, test } from 'vitest';
import type { PeerEvent, PeerFrame, PeerPacket } from '../replica/ports.ts';
import { BinaryWriter } from './binary.ts';
import { FrameReader, frameParts } from './frame.ts';
import { writeHello, writeWelcome } from './handshake.ts';
import type { ClusterDescription } from './network.ts';
import { decodePacket, writePacket } from './peer-codec.ts';
import { type TcpPeers, tcpPeerNetwork } from './tcp.ts';

const cluster = 0xcafen;
const mib = 2 ** 20;

const open: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

interface TestMember {
  readonly id: bigint;
  readonly peers: TcpPeers;
  readonly url: string;
  readonly packets: PeerPacket[];
  readonly logs: string[];
  /** How often it was told that this member is unreachable. */
  lost(member: bigint): number;
}

interface MemberOptions {
  readonly clusterId?: bigint;
  readonly runtime?: (log: Logger) => Runtime;
  readonly onPacket?: (packet: PeerPacket) => void;
}

async function startMember(id: bigint, options: MemberOptions = {}): Promise<TestMember> {
  const logs: string[] = [];
  const write = (fields: object, message: string): void => void logs.push(`${message} ${JSON.stringify(fields)}`);
  const runtime = (options.runtime ?? systemRuntime)({ debug: () => undefined, info: write, warn: write, error: write });
  const { clusterId = cluster } = options;
  const describe = (): ClusterDescription => ({
    clusterId,
    members: [{ id, name: `m${id}`, peerUrls: ['http://127.0.0.1:1'], clientUrls: [], isLearner: false }],
  });
  const peers = await tcpPeerNetwork({ runtime, listen: ['http://127.0.0.1:0'] }).open({ id, clusterId, describe });
  open.push(() => peers.close());
  const packets: PeerPacket[] = [];
  const events: PeerEvent[] = [];
  peers.listen((event) => {
    events.push(event);
    if (event.kind !== 'packet') return;
    packets.push(event.packet);
    options.onPacket?.(event.packet);
  });
  return {
    id,
    peers,
    url: peers.urls[0] ?? '',
    packets,
    logs,
    lost: (member) => events.filter((event) => event.kind === 'unreachable' && event.member === member).length,
  };
}

function heartbeat(from: bigint, to: bigint, round: number): PeerPacket {
  return packetOf(from, to, { kind: 'raft', message: { type: 'heartbeat', from, to, term: 1, leaderCommit: 0, round } });
}

/** One entry of that many bytes, at an index that tells it from others. */
function append(from: bigint, to: bigint, index: number, bytes: number): PeerPacket {
  return packetOf(from, to, {
    kind: 'raft',
    message: {
      type: 'appendEntries',
      from,
      to,
      term: 1,
      prevLogIndex: index - 1,
      prevLogTerm: 1,
      leaderCommit: 0,
      entries: [{ type: 'normal', index, term: 1, data: new Uint8Array(bytes).fill(index) }],
    },
  });
}

function packetOf(from: bigint, to: bigint, ...frames: PeerFrame[]): PeerPacket {
  return { from, to, incarnation: 1, durableIndex: 0, commitIndex: 0, frames };
}

/** Rounds of the heartbeats, or indexes before the appends, in the order they came. */
function numbersOf(packets: readonly PeerPacket[], type: 'heartbeat' | 'appendEntries'): number[] {
  return packets.flatMap(({ frames }) =>
    frames.flatMap((frame) => {
      if (frame.kind !== 'raft' || frame.message.type !== type) return [];
      return [frame.message.type === 'heartbeat' ? frame.message.round : frame.message.prevLogIndex + 1];
    }),
  );
}

async function pair(): Promise<[TestMember, TestMember]> {
  const a = await startMember(1n);
  const b = await startMember(2n);
  a.peers.setMembers([{ id: 2n, urls: [b.url] }]);
  b.peers.setMembers([{ id: 1n, urls: [a.url] }]);
  return [a, b];
}

/** Sends until one arrives: what is sent while there is no connection is lost. */
async function reaches(from: TestMember, to: TestMember): Promise<void> {
  const before = to.packets.length;
  await eventually(`${from.id} reaches ${to.id}`, () => {
    from.peers.send(heartbeat(from.id, to.id, 1));
    from.peers.send(append(from.id, to.id, 1, 1));
    const since = to.packets.slice(before);
    return numbersOf(since, 'heartbeat').length > 0 && numbersOf(since, 'appendEntries').length > 0;
  });
  // Let what is still on its way come.
  from.peers.send(heartbeat(from.id, to.id, 999));
  from.peers.send(append(from.id, to.id, 999, 1));
  await eventually(
    'the last of it',
    () => numbersOf(to.packets, 'heartbeat').includes(999) && numbersOf(to.packets, 'appendEntries').includes(999),
  );
  to.packets.length = 0;
}

describe('members over TCP', () => {
  test('reach each other from the first packet on, in both directions', async () => {
    const [a, b] = await pair();
    a.peers.send(heartbeat(1n, 2n, 7));
    b.peers.send(append(2n, 1n, 8, 10));
    await eventually('both', () => a.packets.length === 1 && b.packets.length === 1);
    expect(b.packets[0]).toEqual(heartbeat(1n, 2n, 7));
    expect(numbersOf(a.packets, 'appendEntries')).toEqual([8]);
    expect([a.lost(2n), b.lost(1n)]).toEqual([0, 0]);
  });

  test('thousands of packets keep their order within a lane', async () => {
    const [a, b] = await pair();
    const count = 10_000;
    for (let n = 1; n <= count; n += 1) {
      a.peers.send(heartbeat(1n, 2n, n));
      a.peers.send(append(1n, 2n, n, n % 100 === 0 ? 20_000 : 100));
      if (n % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await eventually('all', () => b.packets.length === 2 * count);
    const inOrder = Array.from({ length: count }, (_, at) => at + 1);
    expect(numbersOf(b.packets, 'heartbeat')).toEqual(inOrder);
    expect(numbersOf(b.packets, 'appendEntries')).toEqual(inOrder);
  });

  test('frames of one packet part ways by what they are', async () => {
    const [a, b] = await pair();
    a.peers.send(packetOf(1n, 2n, ...append(1n, 2n, 5, 10).frames, ...heartbeat(1n, 2n, 6).frames));
    await eventually('both', () => b.packets.length === 2);
    expect(numbersOf(b.packets, 'heartbeat')).toEqual([6]);
    expect(numbersOf(b.packets, 'appendEntries')).toEqual([5]);
  });

  test('a packet without frames arrives too: it says how its sender is', async () => {
    const [a, b] = await pair();
    a.peers.send(packetOf(1n, 2n));
    await eventually('it', () => b.packets.length === 1);
    expect(b.packets[0]).toEqual(packetOf(1n, 2n));
  });

  test('60 MiB under way delay no heartbeat', async () => {
    const [a, b] = await pair();
    await reaches(a, b);
    // Heartbeats go to and fro for as long as the entries take.
    await reaches(b, a);
    let isAppended = false;
    let gapMs = 0;
    let last = performance.now();
    let rounds = 0;
    b.peers.listen((event) => {
      if (event.kind !== 'packet') return;
      if (numbersOf([event.packet], 'appendEntries').length > 0) isAppended = true;
      else b.peers.send(heartbeat(2n, 1n, 1));
    });
    a.peers.listen(() => {
      const now = performance.now();
      if (rounds > 0) gapMs = Math.max(gapMs, now - last);
      last = now;
      rounds += 1;
      if (!isAppended) a.peers.send(heartbeat(1n, 2n, rounds));
    });
    a.peers.send(append(1n, 2n, 1, 60 * mib));
    a.peers.send(heartbeat(1n, 2n, 1));
    await eventually('the append', () => isAppended, 20_000);
    // Were they behind it in line, there would be none.
    expect(rounds).toBeGreaterThan(5);
    expect(gapMs).toBeLessThan(1_000);
  });

  test('long frames go with the bulk, whatever they are', async () => {
    const [a, b] = await pair();
    await reaches(a, b);
    a.peers.send(packetOf(1n, 2n, { kind: 'answer', id: 1, error: '', body: new Uint8Array(20 * mib) }));
    a.peers.send(heartbeat(1n, 2n, 1));
    await eventually('both', () => b.packets.length === 2);
    expect(b.packets[1]?.frames[0]?.kind).toBe('answer');
  });

  test('a frame that no member takes is not sent', async () => {
    const [a] = await pair();
    expect(() => a.peers.send(append(1n, 2n, 1, 81 * mib))).toThrow(RangeError);
  });

  test('a packet of many long frames travels in several', async () => {
    const [a, b] = await pair();
    const frames = [1, 2, 3].flatMap((index) => append(1n, 2n, index, 45 * mib).frames);
    a.peers.send(packetOf(1n, 2n, ...frames));
    await eventually('all', () => b.packets.length === 3, 20_000);
    expect(numbersOf(b.packets, 'appendEntries')).toEqual([1, 2, 3]);
  });

  test('what was sent before closing arrives', async () => {
    const [a, b] = await pair();
    await reaches(a, b);
    for (let n = 1; n <= 100; n += 1) a.peers.send(append(1n, 2n, n, 100_000));
    a.peers.send(heartbeat(1n, 2n, 1));
    await a.peers.close();
    await eventually('all', () => b.packets.length === 101);
  });
});

describe('a broken connection', () => {
  test('is told, and made anew', async () => {
    const a = await startMember(1n);
    const b = await startMember(2n);
    await using proxy = await TcpProxy.to(b.url.replace('http://', ''));
    a.peers.setMembers([{ id: 2n, urls: [`http://${proxy.address}`] }]);
    await reaches(a, b);
    for (let round = 1; round <= 3; round += 1) {
      const before = a.lost(2n);
      proxy.cut();
      await eventually('unreachable', () => a.lost(2n) > before);
      await reaches(a, b);
    }
    const since = a.peers.connectedSince?.(2n) ?? Number.POSITIVE_INFINITY;
    expect(since).toBeLessThanOrEqual(performance.now());
    await proxy.refuse();
    await eventually('no connection', () => a.peers.connectedSince?.(2n) === undefined);
    const before = a.lost(2n);
    await eventually('attempts that fail are told', () => a.lost(2n) > before + 4);
    await proxy.accept();
    await reaches(a, b);
  });

  test('that only stands still is cut after some beats, and made anew', async () => {
    const runtimes: VirtualRuntime[] = [];
    const virtual = (log: Logger): Runtime => {
      const runtime = new VirtualRuntime({ log });
      runtimes.push(runtime);
      return runtime;
    };
    const a = await startMember(1n, { runtime: virtual });
    const b = await startMember(2n, { runtime: virtual });
    const beat = async (): Promise<void> => {
      for (const runtime of runtimes) await runtime.advance(500);
      // Pulses are on real sockets: they take a moment.
      await new Promise((resolve) => setTimeout(resolve, 20));
    };
    await using proxy = await TcpProxy.to(b.url.replace('http://', ''));
    a.peers.setMembers([{ id: 2n, urls: [`http://${proxy.address}`] }]);
    await reaches(a, b);
    for (let n = 0; n < 20; n += 1) await beat();
    expect(a.lost(2n), 'an idle connection is a good one').toBe(0);
    expect(proxy.accepted).toBe(2);
    proxy.silence();
    for (let n = 0; n < 5; n += 1) await beat();
    expect(a.lost(2n)).toBeGreaterThan(0);
    expect(a.logs.join('\n')).toContain('the other side is silent');
    await eventually('the other side notices too', async () => {
      await beat();
      return b.logs.join('\n').includes('the other side is silent');
    });
    proxy.heal();
    await eventually('it is there again', async () => {
      await beat();
      a.peers.send(heartbeat(1n, 2n, 1));
      return b.packets.length > 0;
    });
  });

  test('is made anew at once when the other side was heard of', async () => {
    const virtual = new VirtualRuntime();
    const a = await startMember(1n, { runtime: () => virtual });
    const b = await startMember(2n);
    await using proxy = await TcpProxy.to(b.url.replace('http://', ''));
    await proxy.refuse();
    a.peers.setMembers([{ id: 2n, urls: [`http://${proxy.address}`] }]);
    await eventually('both lanes failed', () => a.lost(2n) === 2);
    await proxy.accept();
    // Time stands still for the first member: no attempt of its own is due.
    b.peers.setMembers([{ id: 1n, urls: [a.url] }]);
    await reaches(a, b);
    expect(proxy.accepted).toBe(2);
  });
});

describe('where a member is', () => {
  test('may change: it is dialled at its new address', async () => {
    const [a, b] = await pair();
    await reaches(a, b);
    const moved = await startMember(2n);
    a.peers.setMembers([{ id: 2n, urls: ['http://127.0.0.1:1', moved.url] }]);
    await reaches(a, moved);
    expect(b.packets).toEqual([]);
    await eventually(
      'both lanes to its old address are gone',
      () => b.logs.filter((line) => /a peer has gone.*closed the connection/.test(line)).length === 2,
    );
  });

  test('may be what nobody can dial: it is lost, and nothing else is', async () => {
    const [a, b] = await pair();
    a.peers.setMembers([
      { id: 2n, urls: [b.url] },
      { id: 3n, urls: ['https://127.0.0.1:1', 'http://127.0.0.1:70000', ''] },
      { id: 4n, urls: [] },
    ]);
    for (const id of [3n, 4n]) a.peers.send(heartbeat(1n, id, 1));
    await reaches(a, b);
    expect(a.logs.join('\n')).toContain('members reach each other at http://host:port, not at https://127.0.0.1:1');
  });

  test('may be unknown: it is answered on the connection that it made', async () => {
    const [a, b] = await pair();
    await reaches(b, a);
    a.peers.setMembers([]);
    await eventually('an answer', () => {
      a.peers.send(packetOf(1n, 2n, { kind: 'removed' }));
      return b.packets.length > 0;
    });
    expect(b.packets[0]).toEqual(packetOf(1n, 2n, { kind: 'removed' }));
  });

  test('that stands still takes what fits into its queue, and the rest is lost and told once', async () => {
    const a = await startMember(1n);
    const sloth = await startSloth(2n);
    a.peers.setMembers([{ id: 2n, urls: [sloth.url] }]);
    await eventually('connected', () => sloth.sockets.length === 2);
    for (const socket of sloth.sockets) socket.pause();
    const packets = 300;
    for (let n = 1; n <= packets; n += 1) a.peers.send(append(1n, 2n, n, mib));
    await eventually('told', () => a.lost(2n) === 1);
    // The system's own buffers may still take something, and then there is room for a moment; once they are full too, nothing more is told.
    let told = a.lost(2n);
    for (let [n, unchanged] = [packets + 1, 0]; unchanged < 10 && n < 2 * packets; n += 1) {
      a.peers.send(append(1n, 2n, n, mib));
      await new Promise((resolve) => setImmediate(resolve));
      unchanged = a.lost(2n) === told ? unchanged + 1 : 0;
      told = a.lost(2n);
    }
    expect(told).toBeLessThan(10);
    for (const socket of sloth.sockets) socket.resume();
    await eventually('the rest was told when there was room', () => a.lost(2n) > told);
    a.peers.send(append(1n, 2n, 999, 1));
    await eventually('the last', () => sloth.appended.includes(999));
    expect(sloth.appended.length).toBeGreaterThan(100);
    expect(sloth.appended.length).toBeLessThan(packets - 100);
    expect(sloth.appended).toEqual([...sloth.appended].sort((x, y) => x - y));
  });
});

describe('a hello', () => {
  test('of another cluster is refused, and both sides say so', async () => {
    const a = await startMember(1n, { clusterId: 0xbadn });
    const b = await startMember(2n);
    a.peers.setMembers([{ id: 2n, urls: [b.url] }]);
    await eventually('both lanes refused', () => a.lost(2n) >= 2);
    a.peers.send(heartbeat(1n, 2n, 1));
    expect(a.logs.join('\n')).toContain('refused (anotherCluster): there is member 2 of cluster cafe');
    expect(b.logs.join('\n')).toMatch(/refused a peer.*anotherCluster.*bad/);
    expect(b.packets).toEqual([]);
  });

  test('to another member is refused, and both sides say so', async () => {
    const a = await startMember(1n);
    const b = await startMember(2n);
    a.peers.setMembers([{ id: 3n, urls: [b.url] }]);
    await eventually('both lanes refused', () => a.lost(3n) >= 2);
    expect(a.logs.join('\n')).toContain('refused (anotherMember): there is member 2 of cluster cafe');
    expect(b.logs.join('\n')).toMatch(/refused a peer.*anotherMember/);
  });

  test('takes the place of an earlier one of the same member', async () => {
    const b = await startMember(2n);
    const first = await greet(b, 1n);
    const second = await greet(b, 1n);
    await within('the first ends', first.closed);
    second.socket.write(packetFrame(heartbeat(1n, 2n, 3)));
    await eventually('the second serves', () => b.packets.length === 1);
  });

  test('has a deadline', async () => {
    const runtime = new VirtualRuntime();
    const b = await startMember(2n, { runtime: () => runtime });
    const silent = dial(b);
    const slow = dial(b);
    await once(slow.socket, 'connect');
    slow.socket.write(helloFrame(1n, 2n).subarray(0, 20));
    await eventually('both accepted', () => runtime.pendingTimers >= 3);
    await runtime.advance(10_000);
    await within('both end', Promise.all([silent.closed, slow.closed]));
  });

  test('gets through when many others have said none', async () => {
    const b = await startMember(2n);
    const silent = Array.from({ length: 200 }, () => dial(b));
    await Promise.all(silent.map(({ socket }) => once(socket, 'connect')));
    const { socket } = await greet(b, 1n);
    socket.write(packetFrame(heartbeat(1n, 2n, 3)));
    await eventually('the packet', () => b.packets.length === 1);
    expect(silent.filter(({ socket: one }) => !one.destroyed).length).toBeLessThanOrEqual(64);
  });
});

describe('whoever sends what no member sends', () => {
  const garbage: readonly [string, () => Uint8Array][] = [
    ['HTTP', () => Buffer.from('GET /members HTTP/1.1\r\nhost: x\r\n\r\n')],
    ['TLS', () => Buffer.from('16030100c8010000c40303', 'hex')],
    ['zeros', () => Buffer.alloc(1_000)],
    ['noise', () => Buffer.from(Array.from({ length: 5_000 }, (_, at) => (at * 7_919) % 251))],
    ['a frame that is no hello', () => Buffer.concat(frameParts(new BinaryWriter(), (writer) => writer.text('hello')))],
    ['a hello with its checksum wrong', () => helloFrame(1n, 2n).map((byte, at) => (at === 20 ? byte ^ 1 : byte))],
  ];
  test.each(garbage)('is cut off: %s instead of a hello', async (_what, bytes) => {
    const b = await startMember(2n);
    const { socket, closed } = dial(b);
    socket.write(bytes());
    // Zeros are pulses, and harmless until the deadline.
    if (_what !== 'zeros') await within('the end', closed);
    await servesStill(b);
  });

  const later: readonly [string, () => Uint8Array][] = [
    ['noise', () => Buffer.alloc(100, 0x5a)],
    ['a frame that is no packet', () => Buffer.concat(frameParts(new BinaryWriter(), (writer) => writer.text('packet')))],
    ['a packet with its checksum wrong', () => packetFrame(heartbeat(1n, 2n, 1)).map((byte, at) => (at === 20 ? byte ^ 1 : byte))],
    ['a packet of another member', () => packetFrame(heartbeat(5n, 2n, 1))],
    ['a packet to another member', () => packetFrame(heartbeat(1n, 5n, 1))],
    ['a frame without end', () => Buffer.from('ffffffff00000000', 'hex')],
  ];
  test.each(later)('is cut off: %s after a hello', async (_what, bytes) => {
    const b = await startMember(2n);
    const { socket, closed } = await greet(b, 1n);
    socket.write(bytes());
    await within('the end', closed);
    expect(b.packets).toEqual([]);
    await servesStill(b);
  });

  test('is not heard after it was refused', async () => {
    const b = await startMember(2n);
    const { socket, closed } = dial(b);
    socket.write(Buffer.concat([helloFrame(1n, 2n, 0xbadn), packetFrame(heartbeat(1n, 2n, 1))]));
    await within('the end', closed);
    expect(b.packets).toEqual([]);
  });

  test('harms no member that dialled it', async () => {
    const a = await startMember(1n);
    const babbler = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.write('220 mail.example ESMTP ready\r\n');
    });
    const url = await listening(babbler);
    a.peers.setMembers([{ id: 2n, urls: [url] }]);
    await eventually('attempts', () => a.lost(2n) > 3);
    await servesStill(a);
  });
});

describe('the description of a cluster', () => {
  test('is told to whoever asks, at the first URL that answers', async () => {
    const a = await startMember(1n);
    const network = tcpPeerNetwork({ runtime: systemRuntime(), listen: [] });
    const description = await network.describeCluster(['http://127.0.0.1:1', 'ftp://x', a.url]);
    expect(description).toEqual({
      clusterId: cluster,
      members: [{ id: 1n, name: 'm1', peerUrls: ['http://127.0.0.1:1'], clientUrls: [], isLearner: false }],
    });
  });

  test('is missing when nobody answers, and every reason is given', async () => {
    const network = tcpPeerNetwork({ runtime: systemRuntime(), listen: [] });
    const asked = network.describeCluster(['http://127.0.0.1:1', 'ftp://x']);
    await expect(asked).rejects.toThrow(/http:\/\/127.0.0.1:1: .*ECONNREFUSED.*; ftp:\/\/x: members reach each other at/);
  });

  test('is not waited for longer than a few seconds', async () => {
    const runtime = new VirtualRuntime();
    const mute = createServer((socket) => {
      socket.on('error', () => undefined);
    });
    const url = await listening(mute);
    const asked = tcpPeerNetwork({ runtime, listen: [] }).describeCluster([url]);
    const refused = expect(asked).rejects.toThrow('no answer within 3000 ms');
    await runtime.advance(3_000);
    await refused;
  });
});

describe('listening', () => {
  test('at an address in use fails, and leaves nothing open', async () => {
    const a = await startMember(1n);
    const network = tcpPeerNetwork({ runtime: systemRuntime(), listen: ['http://127.0.0.1:0', a.url] });
    await expect(network.open({ id: 2n, clusterId: cluster, describe: () => ({ clusterId: cluster, members: [] }) })).rejects.toMatchObject(
      {
        code: 'EADDRINUSE',
      },
    );
  });

  test('at localhost is listening at both loopback addresses', async () => {
    const network = tcpPeerNetwork({ runtime: systemRuntime(), listen: ['http://localhost:0'] });
    const peers = await network.open({ id: 2n, clusterId: cluster, describe: () => ({ clusterId: cluster, members: [] }) });
    open.push(() => peers.close());
    const ports = new Set(peers.urls.map((url) => new URL(url).port));
    expect(ports.size).toBe(1);
    expect(peers.urls[0]).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  });
});

// ---- sockets without a member behind them -----------------------------------------------------------------------------------------------

interface Dialled {
  readonly socket: Socket;
  readonly closed: Promise<void>;
}

function dial(member: TestMember): Dialled {
  const { hostname, port } = new URL(member.url);
  const socket = connect({ host: hostname, port: Number(port) });
  open.push(async () => socket.destroy());
  socket.on('error', () => undefined);
  socket.resume();
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => resolve());
  });
  return { socket, closed };
}

function helloFrame(from: bigint, to: bigint, clusterId: bigint = cluster): Buffer {
  const parts = frameParts(new BinaryWriter(), (writer) => writeHello(writer, { purpose: 'control', clusterId, from, to }));
  return Buffer.concat(parts);
}

function packetFrame(packet: PeerPacket): Buffer {
  return Buffer.concat(frameParts(new BinaryWriter(), (writer) => writePacket(writer, packet)));
}

/** A connection of a member that is only played. */
async function greet(member: TestMember, from: bigint): Promise<Dialled> {
  const dialled = dial(member);
  dialled.socket.write(helloFrame(from, member.id));
  await within('a welcome', once(dialled.socket, 'data'));
  return dialled;
}

async function servesStill(member: TestMember): Promise<void> {
  const probe = await startMember(77n);
  probe.peers.setMembers([{ id: member.id, urls: [member.url] }]);
  await reaches(probe, member);
}

async function listening(server: Server): Promise<string> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  open.push(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return `http://127.0.0.1:${address.port}`;
}

interface Sloth {
  readonly url: string;
  readonly sockets: Socket[];
  /** Indexes of the entries it has read. */
  readonly appended: number[];
}

/** Welcomes everybody; its sockets can be paused. */
async function startSloth(id: bigint): Promise<Sloth> {
  const sloth: Sloth & { url: string } = { url: '', sockets: [], appended: [] };
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    let isGreeted = false;
    const reader = new FrameReader(80 * mib, (body) => {
      if (body.length === 0) return;
      if (isGreeted) {
        sloth.appended.push(...numbersOf([decodePacket(body)], 'appendEntries'));
        return;
      }
      isGreeted = true;
      sloth.sockets.push(socket);
      const welcome = { verdict: 'welcome', clusterId: cluster, member: id } as const;
      for (const part of frameParts(new BinaryWriter(), (writer) => writeWelcome(writer, welcome))) socket.write(part);
    });
    socket.on('data', (chunk) => reader.feed(chunk));
  });
  sloth.url = await listening(server);
  return sloth;
}
