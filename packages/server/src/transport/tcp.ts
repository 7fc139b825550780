import { connect } from 'node:net';
import type { MemberId } from '@conclave/raft';
import type { Runtime, Timer } from '@conclave/wire';
import type { PeerAddress, PeerEvent, PeerFrame, PeerPacket, Peers } from '../replica/ports.ts';
import { type PeerAddressParts, parsePeerUrl } from './address.ts';
import { PeerFormatError } from './binary.ts';
import { Door } from './door.ts';
import { beatMs, FramedSocket } from './framed-socket.ts';
import { descriptionBytesMax, handshakeBytesMax, readDescription, readWelcome, writeHello } from './handshake.ts';
import { Lane } from './lane.ts';
import type { ClusterDescription, PeerIdentity, PeerNetwork } from './network.ts';
import { decodePacket, frameBytes, packetBytes } from './peer-codec.ts';

/** Of one frame on the wire: more than the largest record of the log, which bounds the largest entry. */
const wireFrameBytesMax = 80 * 1024 * 1024;
/** Frames from here on travel with the bulk, whatever they are. */
const bulkFrameBytes = 32 * 1024;
const controlQueueBytesMax = 4 * 1024 * 1024;
/** Two of the largest frames. What waits are references to what raft holds anyway, and raft bounds what it has under way to a member. */
const bulkQueueBytesMax: number = 2 * wireFrameBytesMax;
const queuePacketsMax = 4096;
/** What waits when a member stops may leave within this time. */
const closeGraceMs = 1_000;
const describeMs = 3_000;

export interface TcpPeerNetworkOptions {
  readonly runtime: Runtime;
  /** Where this member listens for others: `http://10.0.0.7:2380`, `http://localhost:2380`; port 0 binds any. */
  readonly listen: readonly string[];
}

export interface TcpPeerNetwork extends PeerNetwork {
  open(self: PeerIdentity): Promise<TcpPeers>;
}

export interface TcpPeers extends Peers {
  /** Where it listens, with the ports really bound. */
  readonly urls: readonly string[];
}

/**
 * Members over TCP. Every member dials two connections to every other: one for what must not wait (heartbeats, votes, answers), one for the bulk
 * (entries, snapshots); each carries packets in one direction.
 *
 * Neither encrypted nor authenticated: it belongs in a trusted network. What comes from elsewhere can be refused or end a connection; it cannot stop
 * the member or make it hold much memory.
 *
 * @example
 * const network = tcpPeerNetwork({ runtime, listen: ['http://10.0.0.7:2380'] });
 * const peers = await network.open({ id, clusterId, describe });
 * peers.setMembers([{ id: other, urls: ['http://10.0.0.8:2380'] }]);
 */
export function tcpPeerNetwork({ runtime, listen }: TcpPeerNetworkOptions): TcpPeerNetwork {
  return {
    open: (self) => OpenPeers.open(runtime, self, listen),
    describeCluster: (urls) => describeCluster(runtime, urls),
  };
}

class OpenPeers implements TcpPeers {
  readonly #runtime: Runtime;
  readonly #self: PeerIdentity;
  readonly #members = new Map<MemberId, { readonly control: Lane; readonly bulk: Lane }>();
  #door: Door | undefined;
  #listener: (event: PeerEvent) => void = () => undefined;
  #beat: Timer | undefined;
  #isClosed = false;

  private constructor(runtime: Runtime, self: PeerIdentity) {
    this.#runtime = runtime;
    this.#self = self;
  }

  static async open(runtime: Runtime, self: PeerIdentity, listen: readonly string[]): Promise<TcpPeers> {
    const peers = new OpenPeers(runtime, self);
    peers.#door = await Door.open(
      {
        runtime,
        self,
        frameBytesMax: wireFrameBytesMax,
        onFrame: (from, body) => peers.#receive(from, body),
        onHello: (from) => {
          const lanes = peers.#members.get(from);
          lanes?.control.wake();
          lanes?.bulk.wake();
        },
      },
      listen,
    );
    peers.#scheduleBeat();
    return peers;
  }

  get urls(): readonly string[] {
    return this.#door?.urls ?? [];
  }

  send(packet: PeerPacket): void {
    if (this.#isClosed) return;
    const lanes = this.#members.get(packet.to);
    if (lanes === undefined) {
      this.#door?.answer(packet);
      return;
    }
    const bulk = packet.frames.filter(isBulk);
    // A packet without frames says how its sender is.
    if (bulk.length < packet.frames.length || packet.frames.length === 0) {
      sendOn(lanes.control, bulk.length === 0 ? packet : { ...packet, frames: packet.frames.filter((frame) => !isBulk(frame)) });
    }
    if (bulk.length > 0) sendOn(lanes.bulk, bulk.length === packet.frames.length ? packet : { ...packet, frames: bulk });
  }

  listen(listener: (event: PeerEvent) => void): void {
    this.#listener = listener;
  }

  setMembers(members: readonly PeerAddress[]): void {
    if (this.#isClosed) return;
    const others = members.filter((member) => member.id !== this.#self.id);
    for (const [id, { control, bulk }] of this.#members) {
      if (others.some((member) => member.id === id)) continue;
      this.#members.delete(id);
      for (const lane of [control, bulk]) void lane.close(closeGraceMs);
    }
    for (const { id, urls } of others) {
      const lanes = this.#members.get(id) ?? this.#openLanes(id);
      const addresses = this.#addressesOf(urls);
      for (const lane of [lanes.control, lanes.bulk]) lane.setAddresses(addresses);
    }
  }

  connectedSince(member: MemberId): number | undefined {
    return this.#members.get(member)?.control.openSince;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#beat?.cancel();
    const lanes = [...this.#members.values()].flatMap(({ control, bulk }) => [control, bulk]);
    await Promise.all([...lanes.map((lane) => lane.close(closeGraceMs)), this.#door?.close()]);
  }

  #openLanes(member: MemberId): { readonly control: Lane; readonly bulk: Lane } {
    const open = (purpose: 'control' | 'bulk', queueBytesMax: number): Lane =>
      new Lane({
        runtime: this.#runtime,
        self: this.#self,
        member,
        purpose,
        queueBytesMax,
        queuePacketsMax,
        frameBytesMax: wireFrameBytesMax,
        onFrame: (body) => this.#receive(member, body),
        onLost: () => this.#emit({ kind: 'unreachable', member }),
      });
    const lanes = { control: open('control', controlQueueBytesMax), bulk: open('bulk', bulkQueueBytesMax) };
    this.#members.set(member, lanes);
    return lanes;
  }

  /** A URL comes through the log from whoever may change the membership: one that cannot be dialled must not stop the member. */
  #addressesOf(urls: readonly string[]): readonly PeerAddressParts[] {
    return urls.flatMap((url) => {
      try {
        return [parsePeerUrl(url)];
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        this.#runtime.log.warn({ url, reason: error.message }, 'cannot dial a peer URL');
        return [];
      }
    });
  }

  #receive(from: MemberId, body: Uint8Array): void {
    const packet = decodePacket(body);
    if (packet.from !== from || packet.to !== this.#self.id) {
      throw new PeerFormatError(
        `a packet from ${packet.from.toString(16)} to ${packet.to.toString(16)} on a connection of ${from.toString(16)}`,
      );
    }
    this.#emit({ kind: 'packet', packet });
  }

  #emit(event: PeerEvent): void {
    if (!this.#isClosed) this.#listener(event);
  }

  #scheduleBeat(): void {
    const beat = (): void => {
      this.#scheduleBeat();
      for (const { control, bulk } of this.#members.values()) {
        control.beat();
        bulk.beat();
      }
      this.#door?.beat();
    };
    this.#beat = this.#runtime.timer(beatMs, beat, { background: true });
  }
}

function isBulk(frame: PeerFrame): boolean {
  if (frame.kind === 'snapshotChunk') return true;
  if (frame.kind === 'raft') {
    const { type } = frame.message;
    // Empty appends too: one that overtook those before it would be rejected. And proposals: a follower may have many.
    if (type === 'appendEntries' || type === 'propose') return true;
  }
  return frameBytes(frame) >= bulkFrameBytes;
}

/** In as many packets as the wire needs. @throws RangeError for a frame that no member takes */
function sendOn(lane: Lane, packet: PeerPacket): void {
  if (packetBytes(packet) <= wireFrameBytesMax) {
    lane.send(packet);
    return;
  }
  if (packet.frames.length === 1) throw new RangeError(`a frame of ${packetBytes(packet)} bytes is more than any member takes`);
  for (const frame of packet.frames) sendOn(lane, { ...packet, frames: [frame] });
}

async function describeCluster(runtime: Runtime, urls: readonly string[]): Promise<ClusterDescription> {
  const failures: string[] = [];
  for (const url of urls) {
    try {
      return await describeAt(runtime, parsePeerUrl(url));
    } catch (error) {
      failures.push(`${url}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Error(`no member answers at the peer URLs given: ${failures.join('; ')}`);
}

async function describeAt(runtime: Runtime, { host, port }: PeerAddressParts): Promise<ClusterDescription> {
  let answered: (description: ClusterDescription) => void = () => undefined;
  let failed: (error: Error) => void = () => undefined;
  const answer = new Promise<ClusterDescription>((resolve, reject) => {
    answered = resolve;
    failed = reject;
  });
  let isWelcome = false;
  const connection: FramedSocket = new FramedSocket({
    socket: connect({ host, port, noDelay: true }),
    frameBytesMax: handshakeBytesMax,
    onFrame: (body) => {
      if (isWelcome) {
        answered(readDescription(body));
        connection.abandon();
        return;
      }
      const { verdict } = readWelcome(body);
      if (verdict !== 'welcome') throw new PeerFormatError(`refused (${verdict})`);
      isWelcome = true;
      connection.frameBytesMax = descriptionBytesMax;
    },
    onEnd: (reason) => failed(new Error(reason)),
  });
  connection.write((writer) => writeHello(writer, { purpose: 'describe', clusterId: 0n, from: 0n, to: 0n }));
  const timer = runtime.timer(describeMs, () => connection.cut(`no answer within ${describeMs} ms`));
  try {
    return await answer;
  } finally {
    timer.cancel();
  }
}
