import type {
  Call,
  CallEnd,
  CallOptions,
  ClientStream,
  Connection,
  ConnectionState,
  Metadata,
  Routes,
  ServerStream,
  StreamReceiver,
  Transport,
} from './call.ts';
import { dispatch } from './dispatch.ts';
import type { Runtime, Timer } from './runtime.ts';

/**
 * A network inside the process: connections and servers that exchange encoded bytes, copied at every hop, without sockets. It touches the world
 * only through {@link Runtime}, so it runs in virtual time, and equal calls are delivered in equal order. Nothing is delivered before the
 * code that sent it has returned to the event loop.
 *
 * @example
 * const net = loopback({ runtime });
 * net.serve('member-1', routes);
 * net.transport('member-1').unary('/etcdserverpb.KV/Range', request, {}, (end, response) => { … });
 */
export interface Loopback {
  /** Addresses are the names given to `serve`. Connecting to a name nobody serves fails. */
  readonly transport: Transport;
  /** Throws if the name is taken. */
  serve(address: string, routes: Routes): LoopbackServer;
}

export interface LoopbackServer {
  readonly address: string;
  /**
   * Takes no new call, ends streams with UNAVAILABLE (14) and `reason`, lets unary calls finish for at most `graceMs` milliseconds, then closes
   * the connections. The name is free again at once.
   */
  close(graceMs: number, reason: string): Promise<void>;
  /** Breaks every connection at once. What is on its way in either direction is lost. The server keeps accepting new ones. */
  cut(): void;
  /** Holds back everything in both directions, connection attempts included, until `heal`: a peer that is there but silent. */
  partition(): void;
  heal(): void;
}

export interface LoopbackOptions {
  readonly runtime: Runtime;
  /** Bytes a stream buffers in one direction before the writer is asked to wait. Default 16 KiB: small, so that backpressure is met early. */
  readonly highWaterMark?: number;
}

export function loopback(options: LoopbackOptions): Loopback {
  const net = new Net(options.runtime, options.highWaterMark ?? 16 * 1024);
  return {
    transport: (address) => new LoopbackConnection(net, address),
    serve: (address, routes) => new Server(net, address, routes),
  };
}

const CANCELLED = 1;
const DEADLINE_EXCEEDED = 4;
const UNAVAILABLE = 14;
const INTERNAL = 13;

/** The servers by name and the one queue everything passes. */
class Net {
  readonly runtime: Runtime;
  readonly highWaterMark: number;
  readonly servers = new Map<string, Server>();
  #queue: (() => void)[] = [];

  constructor(runtime: Runtime, highWaterMark: number) {
    this.runtime = runtime;
    this.highWaterMark = highWaterMark;
  }

  /** Runs `step` after this turn of the loop, in order of posting. What a step posts runs a turn later: the event loop is never starved. */
  post(step: () => void): void {
    this.#queue.push(step);
    if (this.#queue.length === 1) this.runtime.endOfTurn(() => this.#flush());
  }

  #flush(): void {
    const steps = this.#queue;
    this.#queue = [];
    let next = 0;
    try {
      while (next < steps.length) steps[next++]?.();
    } finally {
      // A callback threw: that is its owner's business, but the others are not to be forgotten for it.
      for (; next < steps.length; next++) this.post(steps[next]!);
    }
  }
}

class Server implements LoopbackServer {
  readonly address: string;
  readonly net: Net;
  readonly #routes: Routes;
  readonly #connections = new Set<LoopbackConnection>();
  readonly #calls = new Set<LoopbackCall>();
  #held: (() => void)[] | undefined;
  #closing: { readonly reason: string; readonly drained: () => void } | undefined;
  #closed: Promise<void> | undefined;

  constructor(net: Net, address: string, routes: Routes) {
    if (net.servers.has(address)) throw new Error(`loopback address ${address} is taken`);
    net.servers.set(address, this);
    this.net = net;
    this.address = address;
    this.#routes = routes;
  }

  /** Everything between the two ends goes through here. */
  carry(step: () => void): void {
    if (this.#held === undefined) this.net.post(step);
    else this.#held.push(step);
  }

  attach(connection: LoopbackConnection): void {
    this.#connections.add(connection);
  }

  detach(connection: LoopbackConnection): void {
    this.#connections.delete(connection);
  }

  open(call: LoopbackCall, stream: ServerSide): void {
    if (this.#closing !== undefined) {
      call.refuse(UNAVAILABLE, this.#closing.reason);
      return;
    }
    this.#calls.add(call);
    dispatch(this.#routes, stream);
  }

  ended(call: LoopbackCall): void {
    this.#calls.delete(call);
    if (this.#calls.size === 0) this.#closing?.drained();
  }

  close(graceMs: number, reason: string): Promise<void> {
    this.#closed ??= this.#drain(graceMs, reason);
    return this.#closed;
  }

  #drain(graceMs: number, reason: string): Promise<void> {
    this.net.servers.delete(this.address);
    return new Promise((resolve) => {
      const timer = this.net.runtime.timer(graceMs, () => this.#closing?.drained());
      const drained = (): void => {
        timer.cancel();
        this.cut();
        this.net.post(resolve);
      };
      this.#closing = { reason, drained };
      for (const call of [...this.#calls]) if (this.#routes.get(call.path)?.kind === 'stream') call.server.end(UNAVAILABLE, reason);
      if (this.#calls.size === 0) drained();
    });
  }

  cut(): void {
    for (const connection of [...this.#connections]) connection.breakOff();
  }

  partition(): void {
    this.#held ??= [];
  }

  heal(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const step of held) this.net.post(step);
  }
}

class LoopbackConnection implements Connection {
  readonly address: string;
  readonly #net: Net;
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  readonly #calls = new Set<LoopbackCall>();
  #state: ConnectionState = 'idle';
  #server: Server | undefined;

  constructor(net: Net, address: string) {
    this.#net = net;
    this.address = address;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  onState(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  connect(): void {
    if (this.#state !== 'idle' && this.#state !== 'failed') return;
    this.#setState('connecting');
    const server = this.#net.servers.get(this.address);
    if (server === undefined) this.#net.post(() => this.#fail(`nobody serves ${this.address}`));
    else server.carry(() => this.#connected(server));
  }

  unary(path: string, request: Uint8Array, options: CallOptions, done: (end: CallEnd, response: Uint8Array | undefined) => void): Call {
    const stream = this.stream(path, options, new UnaryReceiver(done));
    stream.write(request);
    stream.halfClose();
    return stream;
  }

  stream(path: string, options: CallOptions, receiver: StreamReceiver): ClientStream {
    const call = new LoopbackCall(this.#net, path, options, receiver, (ended) => this.#calls.delete(ended));
    this.#calls.add(call);
    this.connect();
    if (this.#state === 'closed') call.refuse(UNAVAILABLE, 'connection closed');
    if (this.#server !== undefined) call.begin(this.#server);
    return call;
  }

  ping(timeoutMs: number, done: (alive: boolean) => void): void {
    let timer: Timer | undefined;
    const answer = (alive: boolean): void => {
      timer?.cancel();
      if (timer !== undefined) done(alive);
      timer = undefined;
    };
    timer = this.#net.runtime.timer(timeoutMs, () => answer(false));
    this.connect();
    const server = this.#server ?? this.#net.servers.get(this.address);
    if (server === undefined || this.#state === 'closed') this.#net.post(() => answer(false));
    else server.carry(() => server.carry(() => answer(this.#server === server)));
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#release('connection closed');
    this.#setState('closed');
  }

  breakOff(): void {
    this.#fail('connection reset');
  }

  #connected(server: Server): void {
    if (this.#state !== 'connecting') return;
    if (this.#net.servers.get(this.address) !== server) {
      this.#fail(`nobody serves ${this.address}`);
      return;
    }
    this.#server = server;
    server.attach(this);
    this.#setState('ready');
    for (const call of [...this.#calls]) call.begin(server);
  }

  #fail(reason: string): void {
    if (this.#state !== 'connecting' && this.#state !== 'ready') return;
    this.#release(reason);
    this.#setState('failed');
  }

  #release(reason: string): void {
    this.#server?.detach(this);
    this.#server = undefined;
    for (const call of [...this.#calls]) call.lose(reason);
  }

  #setState(state: ConnectionState): void {
    this.#state = state;
    for (const listener of [...this.#listeners]) listener(state);
  }
}

class UnaryReceiver implements StreamReceiver {
  readonly #done: (end: CallEnd, response: Uint8Array | undefined) => void;
  #response: Uint8Array | undefined;

  constructor(done: (end: CallEnd, response: Uint8Array | undefined) => void) {
    this.#done = done;
  }

  onMessage(bytes: Uint8Array): void {
    this.#response ??= bytes;
  }

  onEnd(end: CallEnd): void {
    if (end.code !== 0) this.#done(end, undefined);
    else if (this.#response === undefined)
      this.#done(new LoopbackEnd(INTERNAL, 'no response to a unary call', noTrailers, false), undefined);
    else this.#done(end, this.#response);
  }
}

/** A call seen from its calling end, and the owner of both directions. */
class LoopbackCall implements ClientStream {
  readonly path: string;
  readonly server: ServerSide;
  readonly up: Pipe;
  readonly down: Pipe;
  readonly #net: Net;
  readonly #receiver: StreamReceiver;
  readonly #forget: (call: LoopbackCall) => void;
  readonly #deadline: Timer | undefined;
  #peer: Server | undefined;
  #delivered = false;
  #opened = false;
  /** Nothing more may happen on either side; the end is on its way. */
  #aborted = false;
  #ended = false;

  constructor(net: Net, path: string, options: CallOptions, receiver: StreamReceiver, forget: (call: LoopbackCall) => void) {
    this.path = path;
    this.#net = net;
    this.#receiver = receiver;
    this.#forget = forget;
    this.up = new Pipe(net.highWaterMark, () => receiver.onDrain?.());
    this.down = new Pipe(net.highWaterMark, () => this.server.drained());
    this.down.onMessage = (bytes) => this.#receive(bytes);
    const deadline = options.deadline ?? Number.POSITIVE_INFINITY;
    this.server = new ServerSide(this, options.metadata, deadline);
    if (deadline !== Number.POSITIVE_INFINITY) {
      const left = deadline - net.runtime.monotonic();
      const expire = (): void => this.#abort(DEADLINE_EXCEEDED, 'context deadline exceeded');
      if (left <= 0) expire();
      else this.#deadline = net.runtime.timer(left, expire);
    }
  }

  write(bytes: Uint8Array): boolean {
    return this.up.write(bytes);
  }

  halfClose(): void {
    this.up.finish(() => this.server.halfClosed());
  }

  pause(): void {
    this.down.pause();
  }

  resume(): void {
    this.down.resume();
  }

  cancel(): void {
    this.#abort(CANCELLED, 'call cancelled');
  }

  /** The connection is there: the call sets out. */
  begin(peer: Server): void {
    if (this.#aborted || this.#peer !== undefined) return;
    this.#peer = peer;
    peer.carry(() => this.#arrive(peer));
  }

  #arrive(peer: Server): void {
    if (this.#aborted) return;
    this.#delivered = true;
    peer.open(this, this.server);
    const carry = (step: () => void): void => peer.carry(step);
    this.down.open(carry);
    this.up.open(carry);
  }

  /** As in gRPC, response headers come with the first message. */
  #receive(bytes: Uint8Array): void {
    if (!this.#opened) this.#receiver.onOpen?.();
    this.#opened = true;
    this.#receiver.onMessage(bytes);
  }

  /** Ends a call that no handler has seen. */
  refuse(code: number, message: string): void {
    this.#delivered = false;
    this.#abort(code, message);
  }

  /** The connection broke under the call. */
  lose(reason: string): void {
    this.#abort(UNAVAILABLE, reason);
  }

  /** The server's end, behind everything it wrote. */
  finish(end: CallEnd): void {
    this.up.stop();
    this.down.finish(() => this.#close(end));
  }

  #abort(code: number, message: string): void {
    if (this.#aborted || this.#ended) return;
    this.#aborted = true;
    this.up.stop();
    this.down.stop();
    const end = new LoopbackEnd(code, message, noTrailers, !this.#delivered);
    this.#net.post(() => this.#close(end));
    if (this.#delivered) this.#peer?.carry(() => this.server.cancelled());
  }

  #close(end: CallEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deadline?.cancel();
    this.#forget(this);
    this.#peer?.ended(this);
    this.#receiver.onEnd(end);
  }
}

class ServerSide implements ServerStream {
  readonly peer = 'loopback';
  readonly deadline: number;
  readonly #call: LoopbackCall;
  readonly #metadata: Metadata;
  readonly #cancelListeners: (() => void)[] = [];
  readonly #trailers = new Map<string, string>();
  #drainListener: (() => void) | undefined;
  #halfCloseListener: (() => void) | undefined;
  #controller: AbortController | undefined;
  #cancelled = false;
  #ended = false;

  constructor(call: LoopbackCall, metadata: Metadata = {}, deadline: number) {
    this.#call = call;
    this.#metadata = metadata;
    this.deadline = deadline;
  }

  get path(): string {
    return this.#call.path;
  }

  get isCancelled(): boolean {
    return this.#cancelled;
  }

  get bufferedBytes(): number {
    return this.#call.down.bufferedBytes;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController();
      this.#controller = controller;
      if (this.#cancelled) controller.abort();
      else this.onCancel(() => controller.abort());
    }
    return this.#controller.signal;
  }

  metadata(name: string): string | undefined {
    return Object.hasOwn(this.#metadata, name) ? this.#metadata[name] : undefined;
  }

  onCancel(listener: () => void): void {
    this.#cancelListeners.push(listener);
  }

  setTrailer(name: string, value: string): void {
    this.#trailers.set(name, value);
  }

  onMessage(listener: (bytes: Uint8Array) => void): void {
    this.#call.up.onMessage = listener;
  }

  onHalfClose(listener: () => void): void {
    this.#halfCloseListener = listener;
  }

  write(bytes: Uint8Array): boolean {
    return !this.#ended && !this.#cancelled && this.#call.down.write(bytes);
  }

  onDrain(listener: () => void): void {
    this.#drainListener = listener;
  }

  end(code: number, message: string): void {
    if (this.#ended || this.#cancelled) return;
    this.#ended = true;
    this.#call.finish(new LoopbackEnd(code, message, this.#trailers, false));
  }

  pause(): void {
    this.#call.up.pause();
  }

  resume(): void {
    this.#call.up.resume();
  }

  drained(): void {
    if (!this.#ended && !this.#cancelled) this.#drainListener?.();
  }

  halfClosed(): void {
    if (!this.#ended && !this.#cancelled) this.#halfCloseListener?.();
  }

  cancelled(): void {
    if (this.#ended || this.#cancelled) return;
    this.#cancelled = true;
    for (const listener of this.#cancelListeners) listener();
  }
}

/** One direction of a call. Delivers in order, never from within `write` or `resume`, and nothing while paused, not yet open, or stopped. */
class Pipe {
  onMessage: (bytes: Uint8Array) => void = () => undefined;
  readonly #highWaterMark: number;
  readonly #onDrain: () => void;
  readonly #queue: Uint8Array[] = [];
  #carry: ((step: () => void) => void) | undefined;
  #onFinish: (() => void) | undefined;
  #bufferedBytes = 0;
  #wantsDrain = false;
  #paused = false;
  #scheduled = false;
  #stopped = false;

  constructor(highWaterMark: number, onDrain: () => void) {
    this.#highWaterMark = highWaterMark;
    this.#onDrain = onDrain;
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  open(carry: (step: () => void) => void): void {
    this.#carry = carry;
    this.#schedule();
  }

  write(bytes: Uint8Array): boolean {
    if (this.#stopped || this.#onFinish !== undefined) return false;
    this.#queue.push(new Uint8Array(bytes));
    this.#bufferedBytes += bytes.length;
    this.#wantsDrain ||= this.#bufferedBytes >= this.#highWaterMark;
    this.#schedule();
    return !this.#wantsDrain;
  }

  finish(onFinish: () => void): void {
    this.#onFinish ??= onFinish;
    this.#schedule();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#schedule();
  }

  stop(): void {
    this.#stopped = true;
    this.#queue.length = 0;
    this.#bufferedBytes = 0;
  }

  #schedule(): void {
    if (this.#scheduled || this.#carry === undefined) return;
    this.#scheduled = true;
    this.#carry(() => this.#deliver());
  }

  #deliver(): void {
    this.#scheduled = false;
    while (!this.#stopped && !this.#paused && this.#queue.length > 0) {
      const bytes = this.#queue.shift()!;
      this.#bufferedBytes -= bytes.length;
      this.onMessage(bytes);
    }
    if (this.#stopped || this.#paused) return;
    if (this.#wantsDrain) {
      this.#wantsDrain = false;
      this.#onDrain();
    }
    // A drain may have led to more writes: the end comes behind them, in the delivery they scheduled.
    if (this.#queue.length > 0 || this.#onFinish === undefined) return;
    this.#stopped = true;
    this.#onFinish();
  }
}

class LoopbackEnd implements CallEnd {
  readonly code: number;
  readonly message: string;
  readonly notProcessed: boolean;
  readonly #trailers: ReadonlyMap<string, string>;

  constructor(code: number, message: string, trailers: ReadonlyMap<string, string>, notProcessed: boolean) {
    this.code = code;
    this.message = message;
    this.#trailers = trailers;
    this.notProcessed = notProcessed;
  }

  trailer(name: string): string | undefined {
    return this.#trailers.get(name);
  }
}

const noTrailers: ReadonlyMap<string, string> = new Map();
