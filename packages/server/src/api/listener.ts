import { rm, stat } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Runtime } from '@conclave/wire';
import type { ListenUrl } from './listener-url.ts';

/** What takes a connection over once it is clear what it speaks. */
export interface Speaker {
  accept(socket: Socket): void;
}

export interface ListenerOptions {
  readonly runtime: Runtime;
  readonly urls: readonly ListenUrl[];
  /** Speaks HTTP/2, which here means gRPC. */
  readonly http2: Speaker;
  /** Speaks HTTP/1. */
  readonly http1: Speaker;
  /** How long a new connection may take to say what it speaks. Milliseconds, default 10,000. */
  readonly firstBytesMs?: number;
}

/** One address at which this member listens. */
export interface BoundAddress {
  /** As a client dials it: `127.0.0.1:2379`, `[::1]:2379`, `unix:/run/etcd.sock`. */
  readonly address: string;
  /** Undefined for a socket file. */
  readonly port: number | undefined;
}

const firstBytesMsDefault = 10_000;
/** What every HTTP/2 connection begins with (RFC 9113, section 3.4). No HTTP/1 method begins so. */
const preface: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/**
 * The sockets of the client door. One port speaks both HTTP/2 and HTTP/1: the first bytes decide. A connection that says nothing, or stops in
 * the middle of the preface, is closed; whatever one connection sends never harms another.
 */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #servers: Server[] = [];
  readonly #addresses: BoundAddress[] = [];
  /** Connections that have not yet said what they speak. */
  readonly #silent = new Set<Socket>();

  private constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /**
   * Binds every URL, or none. `localhost` means 127.0.0.1 and ::1, on the same port; a machine without IPv6 has only the first. A socket file
   * that nobody listens at any more is replaced.
   *
   * @throws the system's error, with its `code` (EADDRINUSE, EACCES, ...)
   */
  static async open(options: ListenerOptions): Promise<Listener> {
    const listener = new Listener(options);
    try {
      for (const url of options.urls) await listener.#bind(url);
    } catch (error) {
      await listener.close();
      throw error;
    }
    return listener;
  }

  get addresses(): readonly BoundAddress[] {
    return this.#addresses;
  }

  /** Accepts nothing more. Resolves when every connection that was accepted is gone: their speakers end them. */
  async close(): Promise<void> {
    for (const socket of this.#silent) socket.destroy();
    await Promise.all(this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  }

  async #bind(url: ListenUrl): Promise<void> {
    if (url.kind === 'unix') {
      await removeStaleSocket(url.path);
      await this.#listen({ path: url.path });
      this.#addresses.push({ address: `unix:${url.path}`, port: undefined });
    } else if (url.host === 'localhost') {
      await this.#bindLocalhost(url.port);
    } else {
      await this.#bindTcp(url.host, url.port);
    }
  }

  async #bindTcp(host: string, port: number): Promise<number> {
    const server = await this.#listen({ host, port });
    const address = server.address();
    const bound = address !== null && typeof address === 'object' ? address.port : port;
    this.#addresses.push({ address: host.includes(':') ? `[${host}]:${bound}` : `${host}:${bound}`, port: bound });
    return bound;
  }

  async #bindLocalhost(port: number): Promise<void> {
    const bound = await this.#bindTcp('127.0.0.1', port);
    try {
      await this.#bindTcp('::1', bound);
    } catch (error) {
      if (!hasCode(error, 'EADDRNOTAVAIL', 'EAFNOSUPPORT')) throw error;
      this.#options.runtime.log.debug({ port: bound }, 'this machine has no IPv6: localhost is 127.0.0.1 alone');
    }
  }

  #listen(where: { host: string; port: number } | { path: string }): Promise<Server> {
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, () => {
        server.off('error', reject);
        server.on('error', (error) => this.#options.runtime.log.error({ error: error.message }, 'accepting a connection failed'));
        this.#servers.push(server);
        resolve(server);
      });
    });
  }

  #accept(socket: Socket): void {
    const { runtime, firstBytesMs = firstBytesMsDefault } = this.#options;
    const log = (error: Error): void => runtime.log.debug({ peer: socket.remoteAddress, error: error.message }, 'a connection failed');
    // For as long as the socket lives: an error without a listener would end the process.
    socket.on('error', log);
    this.#silent.add(socket);
    const timer = runtime.timer(firstBytesMs, () => socket.destroy(), { background: true });
    const decided = (): void => {
      timer.cancel();
      this.#silent.delete(socket);
    };
    socket.once('close', decided);
    this.#sniff(socket, (speaker) => {
      decided();
      socket.off('close', decided);
      speaker.accept(socket);
    });
  }

  /** Reads until the first bytes tell HTTP/2 from the rest, puts them back, and names the speaker. */
  #sniff(socket: Socket, decide: (speaker: Speaker) => void): void {
    let seen = Buffer.alloc(0);
    const onReadable = (): void => {
      const chunk: Buffer | null = socket.read();
      if (chunk === null) return;
      seen = Buffer.concat([seen, chunk]);
      const length = Math.min(seen.length, preface.length);
      const isHttp2 = seen.compare(preface, 0, length, 0, length) === 0;
      if (isHttp2 && length < preface.length) return;
      socket.off('readable', onReadable);
      socket.off('end', onEnd);
      socket.unshift(seen);
      decide(isHttp2 ? this.#options.http2 : this.#options.http1);
    };
    const onEnd = (): void => void socket.destroy();
    socket.on('readable', onReadable);
    socket.once('end', onEnd);
  }
}

/** A socket file outlives its process. It is removed only when it is one, and nobody answers at it. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await stat(path).catch((error: unknown) => {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  });
  if (found === undefined || !found.isSocket() || (await isListenedAt(path))) return;
  await rm(path, { force: true });
}

function isListenedAt(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => resolve(!hasCode(error, 'ECONNREFUSED', 'ENOENT')));
  });
}

function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}
