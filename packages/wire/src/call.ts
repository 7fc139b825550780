/**
 * The call contract: what an engine (the SDK) and a handler (the server) may assume of whatever carries their calls. A transport is an
 * implementation of {@link Transport} at one end and a host of {@link Routes} at the other: grpc-js, an in-memory loopback, later our own
 * HTTP/2. Bytes cross it, never objects. This module imports nothing, and knows no service.
 */

/** Request metadata as sent: lower-case ASCII names, ASCII values. */
export type Metadata = Readonly<Record<string, string>>;

/** How a call ended. Made once per call, at its end. */
export interface CallEnd {
  /** gRPC status code; 0 is success. */
  readonly code: number;
  /** The status text exactly as sent; empty on success. */
  readonly message: string;
  /** Reads a trailer by lower-case name. */
  trailer(name: string): string | undefined;
  /**
   * True only when the transport can prove that no handler saw this call: the connection was never made, the stream was refused, or the
   * peer's GOAWAY excluded it. Only then may a mutation be sent again. False when in doubt.
   */
  readonly notProcessed: boolean;
}

// ---- the calling end ----------------------------------------------------------------------------------------------------------------

export interface CallOptions {
  readonly metadata?: Metadata;
  /** Instant on `runtime.monotonic()` after which the call ends with DEADLINE_EXCEEDED (4). Absent: never. */
  readonly deadline?: number;
}

export interface Call {
  /** Ends the call with CANCELLED (1) unless it has ended. Idempotent. `done`/`onEnd` still fires, once. */
  cancel(): void;
}

/** Receives a stream at the calling end. No method is called after `onEnd`, and none before `Connection.stream` has returned. */
export interface StreamReceiver {
  /** One whole message. The bytes are the receiver's to keep. */
  onMessage(bytes: Uint8Array): void;
  /** After a `write` returned false: room again. */
  onDrain?(): void;
  /** The peer accepted the stream (response headers arrived). */
  onOpen?(): void;
  /** Exactly once, last. */
  onEnd(end: CallEnd): void;
}

export interface ClientStream extends Call {
  /** Sends one message. False: the transport's buffer is full, wait for `onDrain` before the next. Nothing is ever dropped silently. */
  write(bytes: Uint8Array): boolean;
  /** No more writes; the peer may still send. */
  halfClose(): void;
  /** Stops asking the transport for messages; flow control holds the peer back. At most a few already received messages still arrive. */
  pause(): void;
  resume(): void;
}

export type ConnectionState = 'idle' | 'connecting' | 'ready' | 'failed' | 'closed';

/**
 * One connection to one address. It never chooses, balances or retries: that is the engine's work above it. A broken connection goes to
 * `failed`, ends its calls with UNAVAILABLE (14) and makes a new attempt only when `connect` is called or a new call is made.
 */
export interface Connection {
  readonly address: string;
  readonly state: ConnectionState;
  /** Why it last went to `failed`, for people; absent where the transport cannot tell. */
  readonly failure?: string | undefined;
  /** Tells every change of `state`. Returns the unsubscribe function. */
  onState(listener: (state: ConnectionState) => void): () => void;
  /** Begins connecting if idle or failed. */
  connect(): void;
  /** Sends one request and gives one response. `done` is called exactly once, never before `unary` has returned. `response` is given iff `end.code` is 0. */
  unary(path: string, request: Uint8Array, options: CallOptions, done: (end: CallEnd, response: Uint8Array | undefined) => void): Call;
  /** Opens a stream of any kind (client, server or both sides streaming). */
  stream(path: string, options: CallOptions, receiver: StreamReceiver): ClientStream;
  /** A round trip to the peer. `done(true)` iff it answered within `timeoutMs`, or before a loop that was blocked came to look. */
  ping(timeoutMs: number, done: (alive: boolean) => void): void;
  /** Ends every call with UNAVAILABLE and the state with `closed`. Idempotent. */
  close(): void;
}

/** Makes connections. `address` is `host:port`, `[v6]:port`, `unix:path` or what a transport of its own kind documents. */
export type Transport = (address: string) => Connection;

// ---- the answering end --------------------------------------------------------------------------------------------------------------

/** What a handler may know of a call. Everything that costs something is computed when asked for. */
export interface CallContext {
  readonly path: string;
  /** Who calls, for logs: an address, or `loopback`. */
  readonly peer: string;
  /** A request header by lower-case name. */
  metadata(name: string): string | undefined;
  /** Instant on `runtime.monotonic()` at which the caller stops waiting; `Infinity` when it never does. */
  readonly deadline: number;
  /** True once the caller is gone: it cancelled, its deadline passed or its connection died. */
  readonly isCancelled: boolean;
  /** Calls back once when `isCancelled` becomes true; never after the call has ended otherwise. */
  onCancel(listener: () => void): void;
  /** The same as an AbortSignal, made on first use: it costs more than a call. */
  readonly signal: AbortSignal;
  /** Adds a trailer; ignored once the call has ended. */
  setTrailer(name: string, value: string): void;
}

/** Ends a unary call, once; what comes later is ignored. */
export interface UnaryReply {
  send(response: Uint8Array): void;
  fail(code: number, message: string): void;
}

export type UnaryRoute = (request: Uint8Array, call: CallContext, reply: UnaryReply) => void;

/** The answering end of a stream: a push sink with a drain signal. */
export interface ServerStream extends CallContext {
  /** Must be set synchronously when the stream is opened. Messages arrive whole and in order. */
  onMessage(listener: (bytes: Uint8Array) => void): void;
  /** The caller will send no more. */
  onHalfClose(listener: () => void): void;
  /** Sends one message. False: buffered beyond the high-water mark, wait for `onDrain`. Ignored once ended or cancelled. */
  write(bytes: Uint8Array): boolean;
  onDrain(listener: () => void): void;
  /** Bytes accepted by `write` and not yet taken by the peer, as far as the transport knows. */
  readonly bufferedBytes: number;
  /** Ends the stream after what was written. Code 0 is success. Idempotent. */
  end(code: number, message: string): void;
  /** Holds the caller back by flow control. */
  pause(): void;
  resume(): void;
}

export type StreamRoute = (stream: ServerStream) => void;

export type Route = { readonly kind: 'unary'; readonly handle: UnaryRoute } | { readonly kind: 'stream'; readonly handle: StreamRoute };

/** Handlers by gRPC path (`/package.Service/Method`). A path that is missing answers UNIMPLEMENTED (12). */
export type Routes = ReadonlyMap<string, Route>;
