import type { Duplex } from 'node:stream';
import { Metadata, Server, ServerCredentials, ServerInterceptingCall } from '@grpc/grpc-js';
import type { Routes, ServerStream } from './call.ts';
import { dispatch } from './dispatch.ts';
import { clearOverflownDeadline, encodingOf, handleEveryPath, useDecoder } from './grpc-js-internals.ts';
import { MessageAssembler, prefixLength } from './message-assembler.ts';
import type { Runtime } from './runtime.ts';

export interface GrpcServerOptions {
  readonly runtime: Runtime;
  readonly routes: Routes;
  /** Longest request message in bytes; a longer one is answered RESOURCE_EXHAUSTED (8) without being taken in. It binds compressed and decompressed. */
  readonly maxReceiveBytes: number;
  /** Calls open at a time on one connection. Default 4,096; a client that wants more waits. */
  readonly maxConcurrentStreams?: number;
}

/**
 * The answering end of gRPC on grpc-js. It listens to nothing: whoever owns the sockets gives them over, so that one port can serve more than
 * gRPC and connections can be counted and bounded where they arrive.
 *
 * Pings of clients are answered however often they come (nghttp2 ends a flood); silent clients are pinged every two hours and given 20 s.
 */
export interface GrpcServer {
  /** Speaks HTTP/2 on a connected socket. Bytes already read from it must have been put back with `unshift`. */
  accept(socket: Duplex): void;
  /**
   * Takes no new connection and call, ends streams with UNAVAILABLE (14) and `reason`, lets unary calls finish for at most `graceMs` milliseconds,
   * then breaks what is left. Idempotent.
   */
  close(graceMs: number, reason: string): Promise<void>;
  /** Breaks every connection at once: nothing more is answered. */
  destroy(): void;
}

export function grpcServer(options: GrpcServerOptions): GrpcServer {
  return new GrpcJsServer(options);
}

const UNAVAILABLE = 14;
const UNKNOWN = 2;
const INTERNAL = 13;

class GrpcJsServer implements GrpcServer {
  readonly runtime: Runtime;
  readonly maxReceiveBytes: number;
  readonly #routes: Routes;
  readonly #server: Server;
  readonly #accept: (socket: Duplex) => void;
  readonly #sockets = new Set<Duplex>();
  readonly #calls = new Set<GrpcServerStream>();
  #closingReason: string | undefined;
  #closed: Promise<void> | undefined;

  constructor(options: GrpcServerOptions) {
    this.runtime = options.runtime;
    this.maxReceiveBytes = options.maxReceiveBytes;
    this.#routes = options.routes;
    this.#server = new Server({
      'grpc.max_receive_message_length': options.maxReceiveBytes,
      'grpc.max_send_message_length': -1,
      'grpc.max_concurrent_streams': options.maxConcurrentStreams ?? 4096,
      'grpc.keepalive_time_ms': 2 * 60 * 60 * 1000,
      'grpc.keepalive_timeout_ms': 20_000,
      'grpc.enable_channelz': 0,
      interceptors: [(method, call) => new RoutedCall(this, method.path, call)],
    });
    handleEveryPath(this.#server);
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#accept = (socket) => injector.injectConnection(socket);
  }

  accept(socket: Duplex): void {
    if (this.#closingReason !== undefined) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    this.#accept(socket);
  }

  close(graceMs: number, reason: string): Promise<void> {
    this.#closed ??= this.#shutDown(graceMs, reason);
    return this.#closed;
  }

  destroy(): void {
    this.#closingReason ??= 'server stopped';
    // grpc-js's own forceShutdown forgets the sessions of a server without channelz.
    for (const socket of this.#sockets) socket.destroy();
    this.#server.forceShutdown();
  }

  opened(stream: GrpcServerStream): void {
    if (this.#closingReason !== undefined) {
      stream.end(UNAVAILABLE, this.#closingReason);
      return;
    }
    this.#calls.add(stream);
    dispatch(this.#routes, stream);
  }

  ended(stream: GrpcServerStream): void {
    this.#calls.delete(stream);
  }

  #shutDown(graceMs: number, reason: string): Promise<void> {
    this.#closingReason = reason;
    return new Promise((resolve) => {
      const timer = this.runtime.timer(graceMs, () => {
        this.destroy();
        resolve();
      });
      for (const call of [...this.#calls]) if (this.#routes.get(call.path)?.kind === 'stream') call.end(UNAVAILABLE, reason);
      this.#server.tryShutdown(() => {
        timer.cancel();
        resolve();
      });
    });
  }
}

type BaseCall = ConstructorParameters<typeof ServerInterceptingCall>[0];
type Listener = Parameters<BaseCall['start']>[0];

/**
 * Where grpc-js would start its own handler, ours is started on the call below it: there messages are read one by one on demand, and a write's
 * callback tells when HTTP/2 took the bytes.
 */
class RoutedCall extends ServerInterceptingCall {
  readonly #server: GrpcJsServer;
  readonly #path: string;
  readonly #call: BaseCall;

  constructor(server: GrpcJsServer, path: string, call: BaseCall) {
    super(call);
    this.#server = server;
    this.#path = path;
    this.#call = call;
  }

  override start(): void {
    this.#call.start(new CallListener(new GrpcServerStream(this.#server, this.#path, this.#call)));
  }
}

/** grpc-js's events of one call. Apart from the stream, because `onCancel` means something else there. */
class CallListener implements Listener {
  readonly #stream: GrpcServerStream;

  constructor(stream: GrpcServerStream) {
    this.#stream = stream;
  }

  onReceiveMetadata(metadata: Metadata): void {
    this.#stream.begin(metadata);
  }

  onReceiveMessage(message: Buffer): void {
    this.#stream.receive(message);
  }

  onReceiveHalfClose(): void {
    this.#stream.halfClosed();
  }

  onCancel(): void {
    this.#stream.over();
  }
}

/** Bytes a stream takes before it asks the writer to wait. */
const highWaterMark = 64 * 1024;

class GrpcServerStream implements ServerStream {
  readonly path: string;
  readonly #server: GrpcJsServer;
  readonly #call: BaseCall;
  readonly #assembler: MessageAssembler;
  readonly #hasDeadline: boolean;
  readonly #cancelListeners: (() => void)[] = [];
  #metadata: Metadata | undefined;
  #trailers: Metadata | undefined;
  #messageListener: ((bytes: Uint8Array) => void) | undefined;
  #halfCloseListener: (() => void) | undefined;
  #drainListener: (() => void) | undefined;
  #controller: AbortController | undefined;
  #bufferedBytes = 0;
  #wantsDrain = false;
  #cancelled = false;
  #ended = false;
  #paused = false;
  #readOwed = false;
  #reading = false;
  #readAgain = false;

  constructor(server: GrpcJsServer, path: string, call: BaseCall) {
    this.path = path;
    this.#server = server;
    this.#call = call;
    this.#assembler = new MessageAssembler(server.maxReceiveBytes);
    useDecoder(call, { write: (data) => this.#assemble(data) });
    const deadline = call.getDeadline();
    this.#hasDeadline = deadline !== Number.POSITIVE_INFINITY && !clearOverflownDeadline(call, server.runtime.wall());
  }

  get peer(): string {
    return this.#call.getPeer();
  }

  get deadline(): number {
    if (!this.#hasDeadline) return Number.POSITIVE_INFINITY;
    const { runtime } = this.#server;
    return Number(this.#call.getDeadline()) - runtime.wall() + runtime.monotonic();
  }

  get isCancelled(): boolean {
    return this.#cancelled;
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
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
    return this.#metadata?.get(name)[0]?.toString();
  }

  onCancel(listener: () => void): void {
    this.#cancelListeners.push(listener);
  }

  setTrailer(name: string, value: string): void {
    this.#trailers ??= new Metadata();
    this.#trailers.set(name, value);
  }

  onMessage(listener: (bytes: Uint8Array) => void): void {
    this.#messageListener = listener;
  }

  onHalfClose(listener: () => void): void {
    this.#halfCloseListener = listener;
  }

  onDrain(listener: () => void): void {
    this.#drainListener = listener;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#ended || this.#cancelled) return false;
    const length = bytes.length + prefixLength;
    this.#bufferedBytes += length;
    this.#wantsDrain ||= this.#bufferedBytes >= highWaterMark;
    this.#call.sendMessage(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), () => this.#written(length));
    return !this.#wantsDrain;
  }

  end(code: number, message: string): void {
    if (this.#ended || this.#cancelled) return;
    this.#ended = true;
    this.#server.ended(this);
    this.#call.sendStatus({ code, details: wellFormed(message), metadata: this.#trailers ?? null });
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (!this.#readOwed) return;
    this.#readOwed = false;
    this.#read();
  }

  begin(metadata: Metadata): void {
    this.#metadata = metadata;
    this.#server.opened(this);
    this.#read();
  }

  receive(message: Buffer): void {
    if (this.#ended || this.#cancelled) return;
    this.#messageListener?.(message);
    if (this.#paused) this.#readOwed = true;
    else this.#read();
  }

  halfClosed(): void {
    if (this.#ended || this.#cancelled) return;
    if (this.#assembler.isPartial) this.end(UNKNOWN, 'unexpected EOF');
    else this.#halfCloseListener?.();
  }

  /** grpc-js says this after every call; only before our own end does it mean that the caller is gone. */
  over(): void {
    if (this.#ended || this.#cancelled) return;
    this.#cancelled = true;
    this.#server.ended(this);
    for (const listener of this.#cancelListeners) listener();
  }

  /** Cuts what came into messages. grpc-js would take one whose flag cannot be for uncompressed, and so a damaged request for a good one. */
  #assemble(data: Buffer): Buffer[] {
    const messages = this.#assembler.write(data);
    for (const message of messages) {
      const flag = message[0]!;
      if (flag === 0 || (flag === 1 && encodingOf(this.#call) !== 'identity')) continue;
      this.end(
        INTERNAL,
        flag === 1 ? 'grpc: compressed flag set with identity or empty encoding' : `grpc: received unexpected payload format ${flag}`,
      );
      return [];
    }
    return messages;
  }

  /** Messages that wait decoded are handed over from within `startRead`: asked for in a loop, a long row of them does not nest. */
  #read(): void {
    this.#readAgain = true;
    if (this.#reading) return;
    this.#reading = true;
    while (this.#readAgain) {
      this.#readAgain = false;
      this.#call.startRead();
    }
    this.#reading = false;
  }

  #written(length: number): void {
    this.#bufferedBytes -= length;
    if (!this.#wantsDrain || this.#bufferedBytes >= highWaterMark || this.#ended || this.#cancelled) return;
    this.#wantsDrain = false;
    this.#drainListener?.();
  }
}

/** A lone surrogate cannot be percent-encoded. */
function wellFormed(text: string): string {
  return /[\ud800-\udfff]/.test(text) ? Buffer.from(text).toString() : text;
}
