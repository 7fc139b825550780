import {
  Channel,
  type ChannelCredentials,
  type ChannelOptions,
  connectivityState,
  credentials,
  Metadata as GrpcMetadata,
  type InterceptingListener,
  type StatusObject,
} from '@grpc/grpc-js';
import type { Call, CallEnd, CallOptions, ClientStream, Connection, ConnectionState, Metadata, StreamReceiver, Transport } from './call.ts';
import { TlsCredentials, type TlsOptions } from './grpc-tls.ts';
import { patientTimer } from './patient-timer.ts';
import type { Runtime, Timer } from './runtime.ts';

/**
 * The calling end of gRPC on grpc-js, stripped to what {@link Connection} promises: one connection to one address. Balancing, retries, service
 * config, proxies, reconnecting and keepalive are switched off; they belong to the engine above.
 *
 * Calls go to the channel directly, below grpc-js's `Client`: its per-call emitters, Node streams and stack traces cost more than the call itself,
 * and only here is it the reader who asks for every single message, which makes `pause` exact.
 */
export interface GrpcTransportOptions {
  readonly runtime: Runtime;
  /** Milliseconds an attempt to connect may take, name resolution and HTTP/2 handshake included. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Largest message taken or sent, in bytes. Default 2^31-1, the most that grpc-js can frame. */
  readonly maxMessageBytes?: number;
  /** Speak TLS. Default: plain TCP. */
  readonly tls?: TlsOptions | undefined;
}

export type { Pem, TlsOptions } from './grpc-tls.ts';

/**
 * Makes gRPC connections over TCP, with TLS or without, or over unix sockets.
 *
 * Addresses: `host:port`, `[v6]:port`, `unix:path`. A host name that resolves to several addresses (`localhost`) is connected through the first that answers.
 *
 * @example
 * const connection = grpcTransport({ runtime: systemRuntime() })('127.0.0.1:2379');
 * connection.unary('/etcdserverpb.Maintenance/Status', new Uint8Array(), {}, (end, response) => { … });
 */
export function grpcTransport(options: GrpcTransportOptions): Transport {
  const settings: Settings = {
    runtime: options.runtime,
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
    tls: options.tls,
    channel: channelOptions(options),
  };
  return (address) => new GrpcConnection(address, settings);
}

interface Settings {
  readonly runtime: Runtime;
  readonly connectTimeoutMs: number;
  readonly tls: TlsOptions | undefined;
  readonly channel: ChannelOptions;
}

const maxInt32 = 2 ** 31 - 1;

function channelOptions(options: GrpcTransportOptions): ChannelOptions {
  const maxMessageBytes = options.maxMessageBytes ?? maxInt32;
  return {
    'grpc.enable_retries': 0,
    // With nothing to keep for a retry, a write's callback tells when HTTP/2 took the bytes instead of when they were copied aside.
    'grpc.per_rpc_retry_buffer_size': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_channelz': 0,
    'grpc.client_idle_timeout_ms': maxInt32,
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
  };
}

/** grpc-js's name for a connection. Host names and IP literals are the same scheme to it. */
function targetOf(address: string): string {
  return address.startsWith('unix:') ? address : `dns:${address}`;
}

const healthCheck = '/grpc.health.v1.Health/Check';
const nothing = new Uint8Array();

const INTERNAL = 13;
const UNAVAILABLE = 14;
const CANCELLED = 1;
const DEADLINE_EXCEEDED = 4;

/**
 * One grpc-js channel is one attempt to connect and the connection that came of it. When it breaks the channel is let go, because a channel left
 * alone would reconnect by itself; the next attempt gets a new one.
 */
class GrpcConnection implements Connection {
  readonly address: string;
  readonly #settings: Settings;
  readonly #target: string;
  readonly #credentials: ChannelCredentials;
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  readonly #calls = new Set<OpenCall>();
  #state: ConnectionState = 'idle';
  #failure: string | undefined;
  #channel: Channel | undefined;
  #connectTimer: Timer | undefined;

  constructor(address: string, settings: Settings) {
    this.address = address;
    this.#settings = settings;
    this.#target = targetOf(address);
    this.#credentials = settings.tls === undefined ? credentials.createInsecure() : new TlsCredentials(address, settings.tls);
  }

  get failure(): string | undefined {
    return this.#failure;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  onState(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  connect(): void {
    if (this.#state !== 'closed') this.#open();
  }

  unary(path: string, request: Uint8Array, options: CallOptions, done: (end: CallEnd, response: Uint8Array | undefined) => void): Call {
    const call = new UnaryCall(this.#settings.runtime, this.#calls, done);
    this.#begin(call, path, options);
    call.send(request);
    return call;
  }

  stream(path: string, options: CallOptions, receiver: StreamReceiver): ClientStream {
    const stream = new GrpcStream(this.#settings.runtime, this.#calls, receiver);
    this.#begin(stream, path, options);
    return stream;
  }

  ping(timeoutMs: number, done: (alive: boolean) => void): void {
    const { runtime } = this.#settings;
    const call = new UnaryCall(runtime, this.#calls, () => {
      timer.cancel();
      done(call.answered);
    });
    // Not a deadline of the call: grpc-js would end it as soon as a loop that was blocked goes on, before it reads what has come meanwhile.
    const timer = patientTimer(runtime, timeoutMs, () => call.end(DEADLINE_EXCEEDED, 'no answer in time'), { background: true });
    this.#begin(call, healthCheck, {});
    call.send(nothing);
  }

  close(): void {
    if (this.#state === 'closed') return;
    const channel = this.#channel;
    this.#forget();
    for (const call of this.#calls) call.end(UNAVAILABLE, 'connection closed');
    this.#settings.runtime.endOfTurn(() => channel?.close());
    this.#setState('closed');
  }

  #begin(call: OpenCall, path: string, options: CallOptions): void {
    if (this.#state === 'closed') {
      call.refuse(UNAVAILABLE, 'connection closed');
      return;
    }
    const { runtime } = this.#settings;
    const left = options.deadline === undefined ? Number.POSITIVE_INFINITY : options.deadline - runtime.monotonic();
    // Given one that is past, grpc-js reports the end and sends the request all the same.
    if (left <= 0) {
      call.refuse(DEADLINE_EXCEEDED, 'context deadline exceeded');
      return;
    }
    try {
      const metadata = metadataOf(options.metadata);
      call.start(this.#open().createCall(path, runtime.wall() + left, null, null, undefined), metadata, this.#target);
    } catch (error) {
      call.refuse(INTERNAL, error instanceof Error ? error.message : String(error));
    }
  }

  /** The channel of the present attempt or connection; a new attempt if there is none. */
  #open(): Channel {
    if (this.#channel !== undefined) return this.#channel;
    const channel = new Channel(this.#target, this.#credentials, this.#settings.channel);
    this.#channel = channel;
    this.#watch(channel);
    const { runtime, connectTimeoutMs } = this.#settings;
    const giveUp = (): void => this.#fail(channel, `no connection within ${connectTimeoutMs} ms`);
    this.#connectTimer = patientTimer(runtime, connectTimeoutMs, giveUp, { background: true });
    channel.getConnectivityState(true);
    this.#setState('connecting');
    return channel;
  }

  #watch(channel: Channel): void {
    channel.watchConnectivityState(channel.getConnectivityState(false), Number.POSITIVE_INFINITY, () => this.#onChange(channel));
  }

  #onChange(channel: Channel): void {
    if (channel !== this.#channel) return;
    const state = channel.getConnectivityState(false);
    if (state === connectivityState.READY || state === connectivityState.CONNECTING) this.#watch(channel);
    else if (state === connectivityState.TRANSIENT_FAILURE) this.#learnWhy(channel);
    else this.#fail(channel, 'connection lost');
    if (state !== connectivityState.READY) return;
    this.#connectTimer?.cancel();
    this.#setState('ready');
  }

  /** Why an attempt failed grpc-js tells only to calls: one that has no connection to go out on asks. */
  #learnWhy(channel: Channel): void {
    const question = channel.createCall(healthCheck, Number.POSITIVE_INFINITY, null, null, undefined);
    question.start(noMetadata, {
      onReceiveMetadata: () => undefined,
      onReceiveMessage: () => undefined,
      onReceiveStatus: ({ details }) => {
        if (channel === this.#channel)
          this.#fail(channel, /Last error: (?:Error: )?(.*?)(?: \([^()]*Z\))?\. Resolution note/.exec(details)?.[1] ?? details);
      },
    });
  }

  /**
   * Lets the channel go. Calls with a stream of their own end by themselves: with the connection, or, after a GOAWAY, with their answer. Those still
   * waiting for a connection are ended by grpc-js, with the reason if the channel lives until it has told them.
   */
  #fail(channel: Channel, why: string): void {
    this.#failure = why;
    this.#forget();
    this.#settings.runtime.endOfTurn(() => channel.close());
    this.#setState('failed');
  }

  #forget(): void {
    this.#channel = undefined;
    this.#connectTimer?.cancel();
    this.#connectTimer = undefined;
  }

  #setState(state: ConnectionState): void {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    for (const listener of [...this.#listeners]) listener(state);
  }
}

type GrpcCall = ReturnType<Channel['createCall']>;

/** What every kind of call shares: its beginning, its one end, and its place among the connection's open calls. */
abstract class OpenCall implements Call, InterceptingListener {
  readonly #runtime: Runtime;
  readonly #open: Set<OpenCall>;
  protected call: GrpcCall | undefined;
  protected ended = false;
  #target = '';
  #headers = false;
  #trailers = false;

  constructor(runtime: Runtime, open: Set<OpenCall>) {
    this.#runtime = runtime;
    this.#open = open;
  }

  /** True once the peer itself said something. */
  get answered(): boolean {
    return this.#headers || this.#trailers;
  }

  start(call: GrpcCall, metadata: GrpcMetadata, target: string): void {
    this.call = call;
    this.#target = target;
    this.#open.add(this);
    call.start(metadata, this);
    call.startRead();
  }

  /** Ends a call that never began, after the caller has got hold of it. */
  refuse(code: number, message: string): void {
    this.#runtime.endOfTurn(() => this.#finish(new GrpcEnd(code, message, noMetadata, true)));
  }

  cancel(): void {
    this.end(CANCELLED, 'call cancelled');
  }

  /**
   * Ends the call from this side, once all that was promised before has settled. In the midst of a turn a call may be between two steps of
   * grpc-js's start: ended there, it would report that nothing was sent, and then be sent.
   */
  end(code: number, message: string): void {
    this.#runtime.endOfTurn(() => {
      if (!this.ended) this.call?.cancelWithStatus(code, message);
    });
  }

  onReceiveMetadata(_metadata: GrpcMetadata): void {
    this.#headers = true;
  }

  abstract onReceiveMessage(message: Buffer): void;

  onReceiveStatus(status: StatusObject): void {
    // For its own ends grpc-js makes an empty object; a peer's status without headers before it has at least the content-type.
    this.#trailers = status.code === 0 || Object.keys(status.metadata.getMap()).length > 0;
    this.#finish(new GrpcEnd(status.code, status.details, status.metadata, status.code !== 0 && this.#neverSeen(status)));
  }

  /**
   * Proof that no handler saw the call. Relies on two facts of grpc-js 1.14, each held by a test:
   * 1. A call that has no HTTP/2 stream reports the channel's target as its peer, one that has (or had) reports the socket's address. Between
   *    two turns of the loop, which is when calls are ended, one without a stream is not about to get one.
   * 2. Only RST_STREAM(REFUSED_STREAM), which HTTP/2 reserves for streams that were not processed, or a GOAWAY with a lower last stream id, which
   *    nghttp2 turns into the same, gives this text; a peer's own status would come with headers or trailers.
   */
  #neverSeen(status: StatusObject): boolean {
    if (this.answered) return false;
    if (this.call?.getPeer() === this.#target) return true;
    return status.code === UNAVAILABLE && status.details === 'Stream refused by server';
  }

  #finish(end: CallEnd): void {
    if (this.ended) return;
    this.ended = true;
    this.#open.delete(this);
    this.finished(end);
  }

  protected abstract finished(end: CallEnd): void;
}

const plainWrite = {};

class UnaryCall extends OpenCall {
  readonly #done: (end: CallEnd, response: Uint8Array | undefined) => void;
  #response: Buffer | undefined;

  constructor(runtime: Runtime, open: Set<OpenCall>, done: (end: CallEnd, response: Uint8Array | undefined) => void) {
    super(runtime, open);
    this.#done = done;
  }

  send(request: Uint8Array): void {
    this.call?.sendMessageWithContext(plainWrite, bufferOf(request));
    this.call?.halfClose();
  }

  onReceiveMessage(message: Buffer): void {
    if (this.#response !== undefined) this.end(INTERNAL, 'more than one response to a unary call');
    this.#response = message;
    this.call?.startRead();
  }

  protected finished(end: CallEnd): void {
    if (end.code !== 0) this.#done(end, undefined);
    else if (this.#response === undefined) this.#done(new GrpcEnd(INTERNAL, 'no response to a unary call', noMetadata, false), undefined);
    else this.#done(end, this.#response);
  }
}

/** Bytes a stream takes before it asks the writer to wait. */
const highWaterMark = 64 * 1024;

class GrpcStream extends OpenCall implements ClientStream {
  readonly #receiver: StreamReceiver;
  /** Not yet given to grpc-js, which holds no more than one message at a time. */
  readonly #queue: Buffer[] = [];
  readonly #context: { callback: () => void } = { callback: () => this.#written() };
  #bufferedBytes = 0;
  #inFlight: Buffer | undefined;
  #wantsDrain = false;
  #halfClosed = false;
  #paused = false;
  #readOwed = false;

  constructor(runtime: Runtime, open: Set<OpenCall>, receiver: StreamReceiver) {
    super(runtime, open);
    this.#receiver = receiver;
  }

  write(bytes: Uint8Array): boolean {
    if (this.ended || this.#halfClosed) return false;
    const message = bufferOf(bytes);
    this.#bufferedBytes += message.length;
    if (this.#inFlight === undefined) this.#send(message);
    else this.#queue.push(message);
    this.#wantsDrain ||= this.#bufferedBytes >= highWaterMark;
    return !this.#wantsDrain;
  }

  halfClose(): void {
    if (this.#halfClosed) return;
    this.#halfClosed = true;
    if (this.#queue.length === 0) this.call?.halfClose();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (!this.#readOwed) return;
    this.#readOwed = false;
    this.call?.startRead();
  }

  override onReceiveMetadata(metadata: GrpcMetadata): void {
    super.onReceiveMetadata(metadata);
    if (!this.ended) this.#receiver.onOpen?.();
  }

  onReceiveMessage(message: Buffer): void {
    if (this.ended) return;
    this.#receiver.onMessage(message);
    if (this.#paused) this.#readOwed = true;
    else this.call?.startRead();
  }

  protected finished(end: CallEnd): void {
    this.#receiver.onEnd(end);
  }

  #send(message: Buffer): void {
    this.#inFlight = message;
    this.call?.sendMessageWithContext(this.#context, message);
  }

  #written(): void {
    this.#bufferedBytes -= this.#inFlight?.length ?? 0;
    this.#inFlight = undefined;
    if (this.ended) return;
    const next = this.#queue.shift();
    if (next !== undefined) {
      this.#send(next);
      if (this.#halfClosed && this.#queue.length === 0) this.call?.halfClose();
    }
    if (!this.#wantsDrain || this.#bufferedBytes >= highWaterMark) return;
    this.#wantsDrain = false;
    this.#receiver.onDrain?.();
  }
}

class GrpcEnd implements CallEnd {
  readonly code: number;
  readonly message: string;
  readonly notProcessed: boolean;
  readonly #metadata: GrpcMetadata;

  constructor(code: number, message: string, metadata: GrpcMetadata, notProcessed: boolean) {
    this.code = code;
    this.message = message;
    this.#metadata = metadata;
    this.notProcessed = notProcessed;
  }

  trailer(name: string): string | undefined {
    return this.#metadata.get(name)[0]?.toString();
  }
}

const noMetadata = new GrpcMetadata();
const builtMetadata = new WeakMap<Metadata, GrpcMetadata>();

/** An engine sends the same few records again and again: each is turned into grpc-js's shape once. Throws on names or values HTTP/2 cannot carry. */
function metadataOf(record: Metadata | undefined): GrpcMetadata {
  if (record === undefined) return noMetadata;
  let metadata = builtMetadata.get(record);
  if (metadata === undefined) {
    metadata = new GrpcMetadata();
    for (const [name, value] of Object.entries(record)) metadata.set(name, value);
    builtMetadata.set(record, metadata);
  }
  return metadata;
}

function bufferOf(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
