import { createServer, type Server, type Socket } from 'node:net';
import type { MemberId } from '@conclave/raft';
import type { Runtime, Timer } from '@conclave/wire';
import type { PeerPacket } from '../replica/ports.ts';
import { parsePeerUrl } from './address.ts';
import { FramedSocket } from './framed-socket.ts';
import { type Hello, handshakeBytesMax, readHello, verdictOn, writeDescription, writeWelcome } from './handshake.ts';
import type { PeerIdentity } from './network.ts';
import { writePacket } from './peer-codec.ts';

/** How long a connection may take to say hello, or to fetch its description. */
const greetingMs = 10_000;
/** Connections that have not said hello. Further ones take the place of the oldest, so that silent ones cannot keep members out. */
const greetingsMax = 64;
/** Connections from members. */
const lanesMax = 256;

export interface DoorOptions {
  readonly runtime: Runtime;
  readonly self: PeerIdentity;
  readonly frameBytesMax: number;
  /** What a member sent. A PeerFormatError thrown here ends the connection. */
  readonly onFrame: (from: MemberId, body: Uint8Array) => void;
  /** This member has made a connection: it is there. */
  readonly onHello: (from: MemberId) => void;
}

/** Where the other members' lanes end. A member that is not known here may come too: it may have joined in an entry that this one has yet to see. */
export class Door {
  readonly #options: DoorOptions;
  readonly #servers: Server[] = [];
  readonly #greetings = new Set<FramedSocket>();
  /** By member and lane: a new connection takes the place of the one before it. */
  readonly #lanes = new Map<string, FramedSocket>();
  #mayWarn = true;
  #isClosed = false;

  private constructor(options: DoorOptions) {
    this.#options = options;
  }

  /**
   * Listens at every URL, or none. `localhost` means 127.0.0.1 and ::1, on the same port; a machine without IPv6 has only the first.
   *
   * @throws the system's error, with its `code` (EADDRINUSE, EACCES, ...)
   */
  static async open(options: DoorOptions, urls: readonly string[]): Promise<Door> {
    const door = new Door(options);
    try {
      for (const { host, port } of urls.map(parsePeerUrl)) {
        if (host === 'localhost') await door.#listenAtLocalhost(port);
        else await door.#listen(host, port);
      }
    } catch (error) {
      await door.close();
      throw error;
    }
    return door;
  }

  /** Where it listens, with the ports really bound. */
  get urls(): readonly string[] {
    return this.#servers.map((server) => {
      const address = server.address();
      if (address === null || typeof address === 'string') throw new Error('a socket that listens has an address');
      return address.family === 'IPv6' ? `http://[${address.address}]:${address.port}` : `http://${address.address}:${address.port}`;
    });
  }

  /** To a member on the connection that it made; false when there is none. */
  answer(packet: PeerPacket): boolean {
    const lane = this.#lanes.get(laneKey(packet.to, 'control'));
    if (lane === undefined || lane.socket.writableNeedDrain) return false;
    lane.write((writer) => writePacket(writer, packet));
    return true;
  }

  /** Called every `beatMs`. */
  beat(): void {
    this.#mayWarn = true;
    for (const lane of [...this.#lanes.values()]) {
      const { isHeard } = lane;
      if (lane.beat() && isHeard && !lane.socket.writableNeedDrain) lane.writePulse();
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const connection of [...this.#greetings, ...this.#lanes.values()]) connection.abandon();
    await Promise.all(this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  }

  async #listenAtLocalhost(port: number): Promise<void> {
    const bound = await this.#listen('127.0.0.1', port);
    try {
      await this.#listen('::1', bound);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && (error.code === 'EADDRNOTAVAIL' || error.code === 'EAFNOSUPPORT'))) throw error;
      this.#options.runtime.log.debug({ port: bound }, 'this machine has no IPv6: localhost is 127.0.0.1 alone');
    }
  }

  async #listen(host: string, port: number): Promise<number> {
    const server = createServer({ noDelay: true }, (socket) => this.#greet(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, () => {
        server.off('error', reject);
        resolve();
      });
    });
    server.on('error', (error) => this.#options.runtime.log.error({ error: error.message }, 'accepting a connection of a peer failed'));
    this.#servers.push(server);
    const address = server.address();
    return address !== null && typeof address === 'object' ? address.port : port;
  }

  #greet(socket: Socket): void {
    if (this.#isClosed) {
      socket.destroy();
      return;
    }
    const remote = socket.remoteAddress ?? '';
    let hello: Hello | undefined;
    let isLane = false;
    let deadline: Timer | undefined;
    const connection: FramedSocket = new FramedSocket({
      socket,
      frameBytesMax: handshakeBytesMax,
      onFrame: (body) => {
        if (hello === undefined) {
          hello = readHello(body);
          isLane = this.#admit(connection, hello, remote);
          if (isLane) deadline?.cancel();
        } else if (isLane) {
          this.#options.onFrame(hello.from, body);
        }
      },
      onEnd: (reason) => {
        deadline?.cancel();
        this.#greetings.delete(connection);
        if (hello === undefined) this.#warn({ remote, reason }, 'a connection to the peer port ended without a hello');
        else this.#leave(connection, hello, reason);
      },
    });
    deadline = this.#options.runtime.timer(greetingMs, () => connection.cut(`no hello within ${greetingMs} ms`), { background: true });
    this.#greetings.add(connection);
    const [oldest] = this.#greetings;
    if (this.#greetings.size > greetingsMax) oldest?.cut('too many connections without a hello');
  }

  /** True when it is a lane from now on; otherwise it ends. */
  #admit(connection: FramedSocket, hello: Hello, remote: string): boolean {
    const { self, frameBytesMax, onHello } = this.#options;
    const key = laneKey(hello.from, hello.purpose);
    let verdict = verdictOn(hello, self.id, self.clusterId);
    if (verdict === 'welcome' && !this.#lanes.has(key) && this.#lanes.size >= lanesMax) verdict = 'full';
    connection.write((writer) => writeWelcome(writer, { verdict, clusterId: self.clusterId, member: self.id }));
    if (verdict !== 'welcome' || hello.purpose === 'describe') {
      if (verdict === 'welcome') connection.write((writer) => writeDescription(writer, self.describe()));
      else
        this.#warn(
          { remote, verdict, from: hello.from.toString(16), to: hello.to.toString(16), cluster: hello.clusterId.toString(16) },
          'refused a peer',
        );
      // Until it has read its answer; the deadline still holds.
      connection.socket.end();
      return false;
    }
    this.#greetings.delete(connection);
    this.#lanes.get(key)?.abandon();
    this.#lanes.set(key, connection);
    connection.frameBytesMax = frameBytesMax;
    onHello(hello.from);
    return true;
  }

  #leave(connection: FramedSocket, hello: Hello, reason: string): void {
    const key = laneKey(hello.from, hello.purpose);
    if (this.#lanes.get(key) !== connection) return;
    this.#lanes.delete(key);
    this.#options.runtime.log.info({ 'remote-peer-id': hello.from.toString(16), lane: hello.purpose, reason }, 'a peer has gone');
  }

  /** At most one line a beat: whoever knocks cannot fill the log. */
  #warn(fields: object, message: string): void {
    if (!this.#mayWarn) return;
    this.#mayWarn = false;
    this.#options.runtime.log.warn(fields, message);
  }
}

function laneKey(member: MemberId, purpose: Hello['purpose']): string {
  return `${member.toString(16)} ${purpose}`;
}
