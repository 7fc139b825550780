import { connect } from 'node:net';
import type { MemberId } from '@conclave/raft';
import type { Runtime, Timer } from '@conclave/wire';
import type { PeerPacket } from '../replica/ports.ts';
import type { PeerAddressParts } from './address.ts';
import { FramedSocket } from './framed-socket.ts';
import { handshakeBytesMax, type Purpose, readWelcome, writeHello } from './handshake.ts';
import type { PeerIdentity } from './network.ts';
import { packetBytes, writePacket } from './peer-codec.ts';

/** How long dialling and the handshake may take. The system repeats a lost SYN after 1, 2 and 4 s: dialling anew is quicker. */
const dialMs = 3_000;
const backoffMinMs = 50;
const backoffMaxMs = 1_000;
/** A connection that lasted this many beats was a good one: the next backoff begins anew. */
const goodBeats = 2;
/** Packets are gathered into writes of about this size, and longer parts are cut; then the rest waits until the socket has room. */
const writeBytes = 256 * 1024;

export interface LaneOptions {
  readonly runtime: Runtime;
  readonly self: PeerIdentity;
  readonly member: MemberId;
  readonly purpose: Exclude<Purpose, 'describe'>;
  /** What may wait in the lane. A packet larger than that is taken when nothing else waits. */
  readonly queueBytesMax: number;
  readonly queuePacketsMax: number;
  /** Of what comes back: a member that knows no way to this one answers on the connection that this one made. */
  readonly frameBytesMax: number;
  readonly onFrame: (body: Uint8Array) => void;
  /** What was sent may be lost. Never called from inside a method of the lane. */
  readonly onLost: () => void;
}

/**
 * One way to one member: a connection dialled by this side, and dialled anew whenever it breaks. Packets leave in the order they were sent, or not at
 * all. While there is no connection and none is being made they are lost at once: what raft has to say is worth nothing later.
 */
export class Lane {
  readonly #options: LaneOptions;
  #addresses: readonly PeerAddressParts[] = [];
  #addressAt = 0;
  /** - `dialling`: until the other side says welcome. - `waiting`: until the next attempt. */
  #state: 'dialling' | 'open' | 'waiting' | 'closed' = 'waiting';
  #openSince = 0;
  #connection: FramedSocket | undefined;
  /** Ends the dialling, or the waiting. */
  #timer: Timer | undefined;
  #backoffMs = backoffMinMs;
  #beats = 0;
  /** Why there is no connection, as it was last logged: the same is not logged at every attempt. */
  #problem: string | undefined;

  #queue: { readonly packet: PeerPacket; readonly bytes: number }[] = [];
  /** The first of the queue that has not left. */
  #queueAt = 0;
  #queueBytes = 0;
  /** Encoded, and not yet taken by the socket. */
  #parts: Uint8Array[] = [];
  #isPumpDue = false;
  /** Something was lost, and nobody was told since. */
  #hasLost = false;
  /** It was told while packets waited, and they still do. */
  #isFullTold = false;

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  /** The instant since which there is a connection; undefined while there is none. */
  get openSince(): number | undefined {
    return this.#state === 'open' ? this.#openSince : undefined;
  }

  send(packet: PeerPacket): void {
    if (this.#state === 'waiting' || this.#state === 'closed') {
      this.#hasLost = true;
      return;
    }
    const bytes = packetBytes(packet);
    const { queueBytesMax, queuePacketsMax } = this.#options;
    const waiting = this.#queue.length - this.#queueAt;
    if (waiting > 0 && (waiting >= queuePacketsMax || this.#queueBytes + bytes > queueBytesMax)) {
      this.#hasLost = true;
    } else {
      this.#queue.push({ packet, bytes });
      this.#queueBytes += bytes;
    }
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    // Once for all that is sent in this go, and before the loop turns to anything else.
    void Promise.resolve().then(() => {
      this.#isPumpDue = false;
      this.#goOn();
    });
  }

  /** Where the member is, from now on. */
  setAddresses(addresses: readonly PeerAddressParts[]): void {
    const isSame =
      addresses.length === this.#addresses.length &&
      addresses.every(({ host, port }, at) => host === this.#addresses[at]?.host && port === this.#addresses[at].port);
    if (isSame || this.#state === 'closed') return;
    this.#addresses = addresses;
    this.#addressAt = 0;
    this.#backoffMs = backoffMinMs;
    this.#problem = undefined;
    this.#timer?.cancel();
    this.#connection?.abandon();
    this.#clear();
    this.#dial();
  }

  /** The member was heard of: if the next attempt is waited for, it is worth making now. */
  wake(): void {
    if (this.#state !== 'waiting') return;
    this.#timer?.cancel();
    this.#dial();
  }

  /**
   * Called every `beatMs`. Only the other side's pulses tell that it is there: the system goes on accepting bytes for a dead peer for minutes, and
   * repeats them in ever longer intervals, so that a connection would stay unusable long after the network is whole again.
   */
  beat(): void {
    const connection = this.#connection;
    if (this.#state !== 'open' || connection === undefined || !connection.beat()) return;
    this.#beats += 1;
    if (this.#beats === goodBeats) this.#backoffMs = backoffMinMs;
    // Not into the middle of a frame.
    if (this.#parts.length === 0 && !connection.socket.writableNeedDrain) connection.writePulse();
  }

  /** Gives what waits time to leave. Resolves when the connection is gone. */
  async close(graceMs: number): Promise<void> {
    const isOpen = this.#state === 'open';
    if (isOpen) this.#pump(Number.POSITIVE_INFINITY);
    this.#state = 'closed';
    this.#timer?.cancel();
    const socket = this.#connection?.socket;
    if (socket === undefined || socket.destroyed) return;
    const gone = new Promise<void>((resolve) => {
      socket.once('close', () => resolve());
    });
    if (isOpen) socket.end();
    else socket.destroy();
    const timer = this.#options.runtime.timer(graceMs, () => socket.destroy());
    await gone;
    timer.cancel();
  }

  // ---- the connection -----------------------------------------------------------------------------------------------------------------

  #dial(): void {
    const address = this.#addresses[this.#addressAt % this.#addresses.length];
    if (address === undefined) {
      this.#state = 'waiting';
      return;
    }
    this.#addressAt += 1;
    this.#state = 'dialling';
    const { runtime, self, member, purpose } = this.#options;
    const connection: FramedSocket = new FramedSocket({
      socket: connect({ host: address.host, port: address.port, noDelay: true }),
      frameBytesMax: handshakeBytesMax,
      onFrame: (body) => (this.#state === 'dialling' ? this.#welcome(body) : this.#options.onFrame(body)),
      onEnd: (reason) => this.#lose(reason),
    });
    this.#connection = connection;
    this.#timer = runtime.timer(dialMs, () => connection.cut(`no answer within ${dialMs} ms`), { background: true });
    connection.socket.once('connect', () => {
      connection.write((writer) => writeHello(writer, { purpose, clusterId: self.clusterId, from: self.id, to: member }));
    });
    connection.socket.on('drain', () => this.#goOn());
  }

  #welcome(body: Uint8Array): void {
    const connection = this.#connection as FramedSocket;
    const { verdict, clusterId, member } = readWelcome(body);
    if (verdict !== 'welcome') {
      this.#backoffMs = backoffMaxMs;
      connection.cut(`refused (${verdict}): there is member ${member.toString(16)} of cluster ${clusterId.toString(16)}`);
      return;
    }
    this.#timer?.cancel();
    this.#state = 'open';
    this.#openSince = this.#options.runtime.monotonic();
    this.#beats = 0;
    this.#problem = undefined;
    connection.frameBytesMax = this.#options.frameBytesMax;
    this.#log('info', 'connected with a peer');
    this.#isFullTold = false;
    this.#goOn();
  }

  #lose(reason: string): void {
    if (this.#state === 'closed') return;
    this.#timer?.cancel();
    this.#clear();
    this.#state = 'waiting';
    if (reason !== this.#problem) this.#log('warn', 'no connection with a peer', reason);
    this.#problem = reason;
    const { runtime } = this.#options;
    const delay = this.#backoffMs * (0.5 + runtime.random() / 2);
    this.#backoffMs = Math.min(2 * this.#backoffMs, backoffMaxMs);
    this.#timer = runtime.timer(delay, () => this.#dial(), { background: true });
    this.#tellLost();
  }

  #tellLost(): void {
    this.#hasLost = false;
    this.#options.onLost();
  }

  #log(level: 'info' | 'warn', message: string, reason?: string): void {
    const { runtime, member, purpose } = this.#options;
    const address = this.#addresses[(this.#addressAt - 1) % this.#addresses.length];
    const at = `${address?.host}:${address?.port}`;
    runtime.log[level](
      { 'remote-peer-id': member.toString(16), lane: purpose, address: at, ...(reason !== undefined && { reason }) },
      message,
    );
  }

  // ---- what waits ---------------------------------------------------------------------------------------------------------------------

  #clear(): void {
    this.#hasLost ||= this.#queueAt < this.#queue.length || this.#parts.length > 0;
    this.#queue = [];
    this.#queueAt = 0;
    this.#queueBytes = 0;
    this.#parts = [];
  }

  /** A lane that is full loses much: that is told once, and once more when it is empty again. */
  #goOn(): void {
    this.#pump();
    if (!this.#hasLost || this.#isFullTold) return;
    this.#isFullTold = this.#queueAt < this.#queue.length;
    this.#tellLost();
  }

  /** Writes what waits, as far as the socket has room: once it has again, it calls for the rest. */
  #pump(room = writeBytes): void {
    const socket = this.#connection?.socket;
    if (this.#state !== 'open' || socket === undefined) return;
    if (socket.writableNeedDrain && room === writeBytes) return;
    socket.cork();
    for (let left = room; left > 0; ) {
      if (this.#parts.length === 0 && !this.#encode()) break;
      const part = this.#parts[0] as Uint8Array;
      if (part.length > writeBytes) {
        socket.write(part.subarray(0, writeBytes));
        this.#parts[0] = part.subarray(writeBytes);
      } else {
        socket.write(part);
        this.#parts.shift();
      }
      left -= part.length;
    }
    socket.uncork();
  }

  /** Makes parts of the next packets; false when there are none. */
  #encode(): boolean {
    const connection = this.#connection as FramedSocket;
    let encoded = 0;
    while (encoded < writeBytes) {
      const next = this.#queue[this.#queueAt];
      if (next === undefined) break;
      this.#queueAt += 1;
      this.#queueBytes -= next.bytes;
      for (const part of connection.frame((writer) => writePacket(writer, next.packet))) {
        encoded += part.length;
        this.#append(part);
      }
    }
    if (this.#queueAt < this.#queue.length) return true;
    this.#queue = [];
    this.#queueAt = 0;
    this.#isFullTold = false;
    return encoded > 0;
  }

  /** Parts that lie side by side become one: a turn's packets are one buffer, and one write. */
  #append(part: Uint8Array): void {
    const last = this.#parts.at(-1);
    if (last !== undefined && last.buffer === part.buffer && last.byteOffset + last.length === part.byteOffset) {
      this.#parts[this.#parts.length - 1] = new Uint8Array(part.buffer, last.byteOffset, last.length + part.length);
    } else {
      this.#parts.push(part);
    }
  }
}
