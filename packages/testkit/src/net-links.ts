import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer, type Server, Socket } from 'node:net';

/**
 * What happens to bytes on their way from one member to another. `held`: they wait, and so does the sender once the buffers between are full, as
 * with a cable that was pulled. `cut`: connections break, and new ones are refused.
 */
export interface LinkRule {
  readonly passage: 'open' | 'held' | 'cut';
  /** Every chunk is this much later, in order. */
  readonly delayMs: number;
  /** And up to this much more, in order. */
  readonly jitterMs: number;
}

/** Tells of every chunk before anything is done to it. `connection` counts from 1 and is one TCP connection's. */
export type LinkTap = (from: string, to: string, chunk: Buffer, connection: number) => void;

const open: LinkRule = { passage: 'open', delayMs: 0, jitterMs: 0 };

export interface LinkedMember {
  readonly name: string;
  /** Where it listens to the others. */
  readonly peerPort: number;
  /** Where the others think that it listens. */
  readonly proxyPort: number;
  /** The process that speaks for it; 0: none does now. */
  readonly pid: () => number;
}

interface Endpoint {
  readonly name: string;
  readonly server: Server;
  readonly pid: () => number;
}

/**
 * The wires between the members of a cluster of processes on this machine. Every member is reached through a TCP proxy in front of its peer port.
 * Who connects is found out by the socket's owner in `/proc`, so that each direction between two members has a rule of its own although
 * all members use the same address for one member. Needs no rights.
 */
export class PeerLinks implements AsyncDisposable {
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #rules = new Map<string, LinkRule>();
  readonly #connections = new Set<Connection>();
  #tap: LinkTap | undefined;
  #accepted = 0;

  /** Puts a proxy on `proxyPort` in front of a member's peer port. */
  async addMember({ name, peerPort, proxyPort, pid }: LinkedMember): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => this.#onConnection(name, peerPort, socket));
    this.#endpoints.set(name, { name, server, pid });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(proxyPort, '127.0.0.1', () => resolve());
    });
  }

  async removeMember(name: string): Promise<void> {
    const endpoint = this.#endpoints.get(name);
    this.#endpoints.delete(name);
    for (const connection of this.#connections) if (connection.from === name || connection.to === name) connection.destroy();
    await new Promise<void>((resolve) => (endpoint === undefined ? resolve() : endpoint.server.close(() => resolve())));
  }

  /** From now on, for connections there are as for new ones. */
  setRule(from: string, to: string, rule: Partial<LinkRule>): void {
    this.#rules.set(`${from}>${to}`, { ...open, ...rule });
    for (const connection of this.#connections) if (connection.joins(from, to)) connection.onRules();
  }

  /** Nothing passes from any of `from` to any of `to`; the other way is left as it is. */
  block(from: readonly string[], to: readonly string[], passage: 'held' | 'cut' = 'held'): void {
    for (const a of from) for (const b of to) if (a !== b) this.setRule(a, b, { passage });
  }

  /** Nothing passes between the two sides. */
  partition(side: readonly string[], other: readonly string[], passage: 'held' | 'cut' = 'held'): void {
    this.block(side, other, passage);
    this.block(other, side, passage);
  }

  /** Everything passes again at once. What was held is passed on late, unless `isLost`: then the connections it was held on break. */
  heal({ isLost = false }: { readonly isLost?: boolean } = {}): void {
    const held = isLost ? [...this.#connections].filter((connection) => connection.isHeld) : [];
    this.#rules.clear();
    for (const connection of held) connection.destroy();
    for (const connection of this.#connections) connection.onRules();
  }

  /** At most one tap. */
  tap(listener: LinkTap | undefined): void {
    this.#tap = listener;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#endpoints.keys()].map((name) => this.removeMember(name)));
    for (const connection of this.#connections) connection.destroy();
  }

  #onConnection(to: string, port: number, socket: Socket): void {
    socket.on('error', () => {});
    const from = this.#ownerOf(socket);
    // No member: a person or a test that looks at the port. It is let through.
    const ruleOf = (a: string | undefined, b: string | undefined): LinkRule => this.#rules.get(`${a}>${b}`) ?? open;
    if (ruleOf(from, to).passage === 'cut' || ruleOf(to, from).passage === 'cut') {
      socket.destroy();
      return;
    }
    const number = ++this.#accepted;
    const connection: Connection = new Connection(socket, port, {
      from,
      to,
      rules: () => ({ toServer: ruleOf(from, to), toClient: ruleOf(to, from) }),
      onChunk: (a, b, chunk) => this.#tap?.(a ?? '', b ?? '', chunk, number),
      onEnd: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
  }

  #ownerOf(socket: Socket): string | undefined {
    const inode = inodeOf(socket.remotePort ?? 0, socket.localPort ?? 0);
    if (inode === undefined) return undefined;
    for (const { name, pid } of this.#endpoints.values()) if (holdsSocket(pid(), inode)) return name;
    return undefined;
  }
}

interface ConnectionOptions {
  readonly from: string | undefined;
  readonly to: string;
  readonly rules: () => { readonly toServer: LinkRule; readonly toClient: LinkRule };
  readonly onChunk: (from: string | undefined, to: string | undefined, chunk: Buffer) => void;
  readonly onEnd: () => void;
}

class Connection {
  readonly from: string | undefined;
  readonly to: string;
  readonly #options: ConnectionOptions;
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #ways: readonly Way[];
  #closed = 0;

  constructor(client: Socket, port: number, options: ConnectionOptions) {
    this.from = options.from;
    this.to = options.to;
    this.#options = options;
    this.#client = client;
    this.#server = new Socket().setNoDelay(true);
    this.#server.connect(port, '127.0.0.1');
    const { rules, onChunk, from, to } = options;
    this.#ways = [
      new Way(
        client,
        this.#server,
        () => rules().toServer,
        (chunk) => onChunk(from, to, chunk),
      ),
      new Way(
        this.#server,
        client,
        () => rules().toClient,
        (chunk) => onChunk(to, from, chunk),
      ),
    ];
    for (const socket of [client, this.#server]) {
      // An error is followed by close.
      socket.on('error', () => {});
      socket.on('close', () => this.#onClose());
    }
  }

  get isHeld(): boolean {
    return this.#ways.some((way) => way.isHeld);
  }

  joins(a: string, b: string): boolean {
    return (this.from === a && this.to === b) || (this.from === b && this.to === a);
  }

  onRules(): void {
    const { toServer, toClient } = this.#options.rules();
    if (toServer.passage === 'cut' || toClient.passage === 'cut') this.destroy();
    else for (const way of this.#ways) way.onRule();
  }

  destroy(): void {
    for (const socket of [this.#client, this.#server]) socket.destroy();
  }

  /** The end of one side is told to the other in its turn: not while what was sent before is held. */
  #onClose(): void {
    this.#closed++;
    if (this.#closed === 2) this.#options.onEnd();
    else for (const way of this.#ways) way.finish();
  }
}

/** One direction of one connection. */
class Way {
  readonly #source: Socket;
  readonly #sink: Socket;
  readonly #rule: () => LinkRule;
  /** Read and not yet passed on, with the instant before which it may not be. */
  readonly #queue: { readonly chunk: Buffer; readonly due: number }[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isFull = false;
  #isFinishing = false;

  constructor(source: Socket, sink: Socket, rule: () => LinkRule, onChunk: (chunk: Buffer) => void) {
    this.#source = source;
    this.#sink = sink;
    this.#rule = rule;
    source.on('data', (chunk: Buffer) => {
      onChunk(chunk);
      const { delayMs, jitterMs } = rule();
      const due = Math.max(performance.now() + delayMs + Math.random() * jitterMs, this.#queue.at(-1)?.due ?? 0);
      this.#queue.push({ chunk, due });
      this.#pass();
    });
    sink.on('drain', () => {
      this.#isFull = false;
      this.#pass();
    });
    this.onRule();
  }

  get isHeld(): boolean {
    return this.#rule().passage === 'held';
  }

  onRule(): void {
    this.#pass();
  }

  finish(): void {
    this.#isFinishing = true;
    this.#pass();
  }

  #pass(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (!this.isHeld && !this.#isFull) {
      const next = this.#queue[0];
      if (next === undefined) break;
      const wait = next.due - performance.now();
      if (wait > 0) {
        this.#timer = setTimeout(() => this.#pass(), wait);
        break;
      }
      this.#queue.shift();
      if (!this.#sink.destroyed) this.#isFull = !this.#sink.write(next.chunk);
    }
    if (this.isHeld || this.#isFull || this.#queue.length > chunksReadAhead) this.#source.pause();
    else this.#source.resume();
    if (this.#isFinishing && this.#queue.length === 0) this.#sink.destroySoon();
  }
}

const chunksReadAhead = 1000;

/** The inode of the TCP socket of this machine that is bound to `local` and connected to `remote`. */
function inodeOf(local: number, remote: number): string | undefined {
  const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, '0');
  const ends = `0100007F:${hex(local)} 0100007F:${hex(remote)}`;
  const line = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .find((row) => row.includes(ends));
  return line?.trim().split(/\s+/)[9];
}

function holdsSocket(pid: number, inode: string): boolean {
  if (pid === 0) return false;
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => linkOf(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`);
  } catch {
    // The process has ended meanwhile.
    return false;
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // Closed between the listing and now.
    return undefined;
  }
}
