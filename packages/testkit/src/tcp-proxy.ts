import { once } from 'node:events';
import { createServer, type Server, Socket } from 'node:net';

/** Seen from the client. */
export type Direction = 'toServer' | 'toClient';

/** What the wrong thing does when it happens, and when. */
interface Fault {
  readonly direction: Direction;
  /** How much of the chunk may pass before the connection is cut; undefined: all of it, and no cut. */
  passes(chunk: Buffer, link: Link): number | undefined;
}

/**
 * A TCP proxy on a port of 127.0.0.1 that can go wrong on demand: cut connections at an exact byte, lose the k-th response, fall silent, refuse.
 *
 * @example
 * await using proxy = await TcpProxy.to(server.address);
 * proxy.loseResponse(1); // the server does what the next call asks for; the client never learns it
 */
export class TcpProxy implements AsyncDisposable {
  readonly #target: { readonly host: string; readonly port: number };
  readonly #links = new Set<Link>();
  #server: Server | undefined;
  #port = 0;
  #fault: Fault | undefined;
  #isSilent = false;
  #cuts = 0;
  #accepted = 0;

  private constructor(host: string, port: number) {
    this.#target = { host, port };
  }

  /** Listens, and forwards to `target`, a `host:port`. */
  static async to(target: string): Promise<TcpProxy> {
    const colon = target.lastIndexOf(':');
    const proxy = new TcpProxy(target.slice(0, colon), Number(target.slice(colon + 1)));
    await proxy.accept();
    return proxy;
  }

  /** `host:port` to connect to. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** How many connections it has cut. */
  get cuts(): number {
    return this.#cuts;
  }

  /** How many connections it has taken. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Cuts the connection whenever as many further bytes have passed in that direction as `budget` says, asked anew after each cut. */
  cutEvery(budget: () => number, direction: Direction = 'toClient'): void {
    let left = budget();
    this.#fault = {
      direction,
      passes: (chunk) => {
        if (chunk.length < left) {
          left -= chunk.length;
          return undefined;
        }
        const passing = left;
        left = budget();
        return passing;
      },
    };
  }

  /**
   * Cuts the connection instead of forwarding the `nth` response (HTTP/2 DATA frame) from now on, and whatever is in flight with it. By then the
   * server has done what it was asked.
   */
  loseResponse(nth = 1): void {
    let left = nth;
    const fault: Fault = {
      direction: 'toClient',
      passes: (chunk, link) => {
        for (const frame of link.frames.read(chunk)) {
          if (frame.type !== dataFrame || --left > 0) continue;
          if (this.#fault === fault) this.#fault = undefined;
          return Math.max(0, frame.offset);
        }
        return undefined;
      },
    };
    this.#fault = fault;
  }

  /** Ends what {@link cutEvery} or {@link loseResponse} began. */
  behave(): void {
    this.#fault = undefined;
  }

  /** Cuts every connection now. */
  cut(): void {
    for (const link of [...this.#links]) this.#cutLink(link);
  }

  /** Passes nothing on in either direction; new connections are taken and stay silent. Nothing is lost: {@link heal} passes it all on. */
  silence(): void {
    this.#isSilent = true;
    for (const link of this.#links) link.pause();
  }

  heal(): void {
    this.#isSilent = false;
    for (const link of this.#links) link.resume();
  }

  /** Cuts every connection and refuses new ones, until {@link accept}. */
  async refuse(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = once(server, 'close');
    server.close();
    this.cut();
    await closed;
  }

  /** Listens again, on the same port. */
  async accept(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer({ noDelay: true }, (client) => this.#link(client));
    this.#server = server;
    server.listen(this.#port, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (typeof address === 'object' && address !== null) this.#port = address.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.refuse();
  }

  #link(client: Socket): void {
    this.#accepted++;
    const link = new Link(client, this.#target.host, this.#target.port);
    this.#links.add(link);
    link.onEnd(() => this.#links.delete(link));
    link.onData((direction, chunk, forward) => this.#onData(link, direction, chunk, forward));
    if (this.#isSilent) link.pause();
  }

  #onData(link: Link, direction: Direction, chunk: Buffer, forward: (chunk: Buffer) => void): void {
    const passing = this.#fault?.direction === direction ? this.#fault.passes(chunk, link) : undefined;
    if (direction === 'toClient' && this.#fault?.direction !== direction) for (const _ of link.frames.read(chunk));
    if (passing === undefined) {
      forward(chunk);
      return;
    }
    if (passing > 0) forward(chunk.subarray(0, passing));
    this.#cutLink(link);
  }

  #cutLink(link: Link): void {
    if (!this.#links.delete(link)) return;
    this.#cuts++;
    link.destroy();
  }
}

const dataFrame = 0;
const frameHeader = 9;

interface Frame {
  readonly type: number;
  /** Where it begins in the chunk; negative if in an earlier one. */
  readonly offset: number;
}

/** Follows the HTTP/2 frames of what a server sends. */
class FrameReader {
  #header: number[] = [];
  #payloadLeft = 0;

  /** The frames whose header ends in this chunk. Must be read to the end, unless the connection is cut there. */
  *read(chunk: Buffer): Generator<Frame> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payloadLeft > 0) {
        const step = Math.min(this.#payloadLeft, chunk.length - at);
        this.#payloadLeft -= step;
        at += step;
        continue;
      }
      this.#header.push(chunk[at++] as number);
      if (this.#header.length < frameHeader) continue;
      const [high = 0, middle = 0, low = 0, type = 0] = this.#header;
      this.#payloadLeft = high * 65_536 + middle * 256 + low;
      this.#header = [];
      yield { type, offset: at - frameHeader };
    }
  }
}

/** The two sockets of one connection. */
class Link {
  readonly frames = new FrameReader();
  readonly #client: Socket;
  readonly #server: Socket;
  #onEnd: () => void = () => {};

  constructor(client: Socket, host: string, port: number) {
    this.#client = client;
    this.#server = new Socket().setNoDelay(true);
    this.#server.connect(port, host);
    for (const socket of [client, this.#server]) {
      // An error is followed by close, and a proxy passes on only that it is over.
      socket.on('error', () => {});
      socket.on('close', () => this.destroy());
    }
  }

  onEnd(listener: () => void): void {
    this.#onEnd = listener;
  }

  onData(listener: (direction: Direction, chunk: Buffer, forward: (chunk: Buffer) => void) => void): void {
    const pipe = (direction: Direction, from: Socket, to: Socket): void => {
      from.on('data', (chunk: Buffer) => {
        listener(direction, chunk, (passing) => {
          if (to.write(passing)) return;
          from.pause();
          to.once('drain', () => from.resume());
        });
      });
    };
    pipe('toServer', this.#client, this.#server);
    pipe('toClient', this.#server, this.#client);
  }

  pause(): void {
    this.#client.pause();
    this.#server.pause();
  }

  resume(): void {
    this.#client.resume();
    this.#server.resume();
  }

  destroy(): void {
    // What was forwarded just before a cut still has to get out: end flushes, destroy would drop it.
    this.#client.destroySoon();
    this.#server.destroy();
    this.#onEnd();
  }
}
