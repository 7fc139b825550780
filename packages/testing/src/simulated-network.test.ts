import type { PeerEvent, PeerPacket, Peers } from '@conclave/server';
import type { CallEnd, Connection, Routes } from '@conclave/wire';
import { describe, expect, test } from 'vitest';
import { Random, VirtualRuntime } from './index.ts';
import { type LinkState, Machine, SimulatedCalls, SimulatedPeers } from './simulation.ts';

const echo: Routes = new Map([['/t/echo', { kind: 'unary', handle: (request, _, reply) => reply.send(request) }]]);

function calls() {
  const time = new VirtualRuntime({ seed: 1 });
  const net = new SimulatedCalls(time);
  const server = new Machine(time, { name: 's' });
  const client = new Machine(time, { name: 'c' });
  const serve = (): void => {
    server.boot();
    net.networkOf(server).serve('s', echo);
  };
  const ends: string[] = [];
  const call = (connection: Connection): void => {
    connection.unary('/t/echo', Buffer.from('x'), { deadline: time.monotonic() + 1_000 }, (end: CallEnd) =>
      ends.push(`${end.code}@${time.monotonic()}`),
    );
  };
  serve();
  client.boot();
  return { time, net, server, client, serve, ends, call, connection: net.transportOf(client)('s') };
}

describe('calls between simulated machines', () => {
  test('take time, and are held back by a partition until it heals', async () => {
    const { time, net, client, server, ends, call, connection } = calls();
    call(connection);
    await time.advance(10);
    expect(ends).toHaveLength(1);
    net.partition(client, server);
    net.partition(client, server);
    call(connection);
    await time.advance(100);
    net.heal(client, server);
    await time.advance(100);
    expect(ends).toHaveLength(1);
    net.heal(client, server);
    await time.advance(10);
    expect(ends[1]).toMatch(/^0@2/);
  });

  test('nothing passes to or from a paused machine', async () => {
    const { time, server, ends, call, connection } = calls();
    server.pause();
    call(connection);
    await time.advance(500);
    expect(ends).toEqual([]);
    server.resume();
    await time.advance(10);
    expect(ends).toEqual([expect.stringMatching(/^0@50/)]);
  });

  test('the connections of a dead server break, and lead to the next process that serves there', async () => {
    const { time, server, serve, ends, call, connection } = calls();
    connection.connect();
    await time.advance(10);
    server.pause();
    call(connection);
    await time.advance(10);
    server.kill();
    await time.advance(10);
    expect(ends).toEqual([expect.stringMatching(/^14@2/)]);
    call(connection);
    await time.advance(10);
    expect(ends[1]).toMatch(/^14/);
    serve();
    call(connection);
    await time.advance(10);
    expect(ends[2]).toMatch(/^0/);
  });

  test('an attempt to connect that was held back fails when the server dies, and the next one succeeds', async () => {
    const { time, server, serve, ends, call, connection } = calls();
    server.pause();
    connection.connect();
    await time.advance(10);
    server.kill();
    await time.advance(10);
    expect(connection.state).toBe('failed');
    serve();
    call(connection);
    await time.advance(10);
    expect(ends).toEqual([expect.stringMatching(/^0/)]);
  });

  test('a dead client reaches nobody any more, over no connection, old or new', async () => {
    const { time, net, client, ends, call, connection } = calls();
    const transport = net.transportOf(client);
    connection.connect();
    await time.advance(10);
    client.kill();
    call(connection);
    call(transport('s'));
    await time.advance(10);
    expect(ends.map((end) => end.slice(0, 2))).toEqual(['14', '14']);
  });
});

const quiet: LinkState = { isCut: false, loss: 0, duplication: 0, delayMs: [1, 1] };

async function peers(link: () => LinkState) {
  const time = new VirtualRuntime({ seed: 1 });
  const net = new SimulatedPeers({ random: new Random(1), link });
  const machines = ['a', 'b'].map((name) => new Machine(time, { name }));
  const got: PeerEvent[] = [];
  const open = async (at: number): Promise<Peers> => {
    const machine = machines[at] as Machine;
    machine.boot();
    return net.networkOf(machine).open({ id: BigInt(at + 1), clusterId: 7n, describe: () => ({ clusterId: 7n, members: [] }) });
  };
  const [a, b] = [await open(0), await open(1)];
  b.listen((event) => got.push(event));
  a.listen((event) => got.push(event));
  const send = (durableIndex: number): void => {
    const packet: PeerPacket = { from: 1n, to: 2n, incarnation: 1, durableIndex, commitIndex: 0, frames: [] };
    a.send(packet);
  };
  const indexes = (): (number | string)[] => got.map((event) => (event.kind === 'packet' ? event.packet.durableIndex : event.kind));
  return { time, machines, send, indexes, open };
}

describe('packets between simulated members', () => {
  test('arrive after their delay, and not over a cut link', async () => {
    let state = quiet;
    const { time, send, indexes } = await peers(() => state);
    send(1);
    await time.advance(0);
    expect(indexes()).toEqual([]);
    await time.advance(1);
    expect(indexes()).toEqual([1]);
    send(2);
    state = { ...quiet, isCut: true };
    await time.advance(5);
    send(3);
    await time.advance(5);
    expect(indexes()).toEqual([1]);
  });

  test('are lost, repeated and reordered as the link says', async () => {
    const { time, send, indexes } = await peers(() => ({ isCut: false, loss: 0.2, duplication: 0.2, delayMs: [1, 20] }));
    const all = Array.from({ length: 100 }, (_, at) => at);
    for (const index of all) send(index);
    await time.advance(30);
    const arrived = indexes().filter((index) => typeof index === 'number');
    const distinct = new Set(arrived);
    expect(distinct.size).toBeGreaterThan(60);
    expect(distinct.size).toBeLessThan(95);
    expect(arrived.length).toBeGreaterThan(distinct.size + 5);
    expect(arrived).not.toEqual(arrived.toSorted((x, y) => x - y));
  });

  test('what was sent to a process does not reach the next one on that machine', async () => {
    const { time, machines, send, indexes, open } = await peers(() => quiet);
    send(1);
    machines[1]?.kill();
    const next = await open(1);
    const got: PeerEvent[] = [];
    next.listen((event) => got.push(event));
    await time.advance(5);
    expect([indexes(), got]).toEqual([[], []]);
  });

  test('a sender is told that nobody listens', async () => {
    const { time, machines, send, indexes } = await peers(() => quiet);
    machines[1]?.kill();
    send(1);
    await time.advance(5);
    expect(indexes()).toEqual(['unreachable']);
  });
});
