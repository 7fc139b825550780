import type {
  Call,
  CallEnd,
  CallOptions,
  ClientStream,
  Connection,
  ConnectionState,
  Runtime,
  StreamReceiver,
  Timer,
  Transport,
} from '@conclave/wire';

/** How a scripted call ends badly. */
export interface ScriptedFailure {
  readonly message?: string;
  readonly trailers?: Readonly<Record<string, string>>;
  readonly notProcessed?: boolean;
}

const CANCELLED = 1;
const DEADLINE_EXCEEDED = 4;
const UNAVAILABLE = 14;

/**
 * A transport whose every move is the test's: which addresses can be reached, and what becomes of each call. It keeps to the call contract:
 * nothing is called back from within the call that asked for it.
 */
export class ScriptedTransport {
  /** Every connection ever made, in order. */
  readonly connections: ScriptedConnection[] = [];
  /** Every unary call ever made, in order. */
  readonly calls: ScriptedCall[] = [];
  /** Every stream ever opened, in order. */
  readonly streams: ScriptedStream[] = [];
  readonly runtime: Runtime;
  /** What to do with a unary call. Default: leave it to the test. */
  onCall: (call: ScriptedCall) => void = () => {};
  /** What to do with a new stream. Default: leave it to the test. */
  onStream: (stream: ScriptedStream) => void = () => {};
  /** Whether a connection attempt succeeds. Default: yes; `silent`: neither. */
  reach: (address: string) => boolean | 'silent' = () => true;
  /** Whether a ping is answered. Default: yes. */
  answersPing: (address: string) => boolean = () => true;
  /** When each ping was sent. */
  readonly pings: { readonly address: string; readonly at: number }[] = [];

  constructor(runtime: Runtime) {
    this.runtime = runtime;
  }

  readonly transport: Transport = (address) => {
    const connection = new ScriptedConnection(this, address);
    this.connections.push(connection);
    return connection;
  };

  /** The live connections to an address. */
  to(address: string): ScriptedConnection[] {
    return this.connections.filter((connection) => connection.address === address && connection.state !== 'closed');
  }

  /** Breaks every connection. */
  cut(): void {
    for (const connection of this.connections) connection.break();
  }

  /** The latest stream. */
  get stream(): ScriptedStream {
    const stream = this.streams.at(-1);
    if (stream === undefined) throw new Error('no stream was opened');
    return stream;
  }

  /** The latest call. */
  get call(): ScriptedCall {
    const call = this.calls.at(-1);
    if (call === undefined) throw new Error('no call was made');
    return call;
  }
}

export class ScriptedConnection implements Connection {
  readonly address: string;
  readonly #script: ScriptedTransport;
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  readonly #open = new Set<{ end(code: number, failure?: ScriptedFailure): void }>();
  #state: ConnectionState = 'idle';

  constructor(script: ScriptedTransport, address: string) {
    this.#script = script;
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
    this.#set('connecting');
    const isReached = this.#script.reach(this.address);
    if (isReached === 'silent') return;
    this.#script.runtime.endOfTurn(() => {
      if (this.#state === 'connecting') this.#set(isReached ? 'ready' : 'failed');
    });
  }

  /** The connection breaks, and every call on it. */
  break(): void {
    if (this.#state === 'closed' || this.#state === 'failed') return;
    this.#set('failed');
    this.#endAll('connection lost');
  }

  unary(path: string, request: Uint8Array, options: CallOptions, done: (end: CallEnd, response: Uint8Array | undefined) => void): Call {
    const call = new ScriptedCall(this.#script, this.address, path, request, options, done);
    this.#track(call);
    this.#script.calls.push(call);
    this.#script.runtime.endOfTurn(() => this.#script.onCall(call));
    return call;
  }

  stream(path: string, options: CallOptions, receiver: StreamReceiver): ClientStream {
    const stream = new ScriptedStream(this.#script, this.address, path, options, receiver);
    this.#track(stream);
    this.#script.streams.push(stream);
    this.#script.runtime.endOfTurn(() => this.#script.onStream(stream));
    return stream;
  }

  ping(timeoutMs: number, done: (alive: boolean) => void): void {
    this.#script.pings.push({ address: this.address, at: this.#script.runtime.monotonic() });
    const answers = this.#script.answersPing(this.address);
    this.#script.runtime.timer(answers ? 1 : timeoutMs, () => done(answers));
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#set('closed');
    this.#endAll('connection closed');
  }

  #track(call: ScriptedCall | ScriptedStream): void {
    this.#open.add(call);
    call.onSettled = () => this.#open.delete(call);
  }

  #endAll(message: string): void {
    for (const call of [...this.#open]) call.end(UNAVAILABLE, { message });
  }

  #set(state: ConnectionState): void {
    this.#state = state;
    for (const listener of [...this.#listeners]) listener(state);
  }
}

abstract class ScriptedExchange {
  readonly address: string;
  readonly path: string;
  readonly options: CallOptions;
  /** When it was made. */
  readonly at: number;
  onSettled: () => void = () => {};
  isEnded = false;
  isCancelled = false;
  readonly #runtime: Runtime;
  readonly #deadline: Timer | undefined;

  constructor(script: ScriptedTransport, address: string, path: string, options: CallOptions) {
    this.address = address;
    this.path = path;
    this.options = options;
    this.#runtime = script.runtime;
    this.at = script.runtime.monotonic();
    if (options.deadline === undefined) return;
    this.#deadline = script.runtime.timer(options.deadline - this.at, () => this.end(DEADLINE_EXCEEDED, { message: 'deadline exceeded' }));
  }

  cancel(): void {
    this.isCancelled = true;
    this.end(CANCELLED, { message: 'cancelled' });
  }

  end(code: number, failure: ScriptedFailure = {}): void {
    if (this.isEnded) return;
    this.settle();
    const end = endOf(code, failure);
    this.#runtime.endOfTurn(() => this.tellEnd(end));
  }

  protected settle(): void {
    this.isEnded = true;
    this.#deadline?.cancel();
    this.onSettled();
  }

  protected abstract tellEnd(end: CallEnd): void;

  protected later(step: () => void): void {
    this.#runtime.endOfTurn(step);
  }
}

export class ScriptedCall extends ScriptedExchange implements Call {
  readonly request: Uint8Array;
  readonly #done: (end: CallEnd, response: Uint8Array | undefined) => void;

  constructor(
    script: ScriptedTransport,
    address: string,
    path: string,
    request: Uint8Array,
    options: CallOptions,
    done: (end: CallEnd, response: Uint8Array | undefined) => void,
  ) {
    super(script, address, path, options);
    this.request = request;
    this.#done = done;
  }

  reply(response: Uint8Array): void {
    if (this.isEnded) return;
    this.settle();
    this.later(() => this.#done(endOf(0, {}), response));
  }

  protected tellEnd(end: CallEnd): void {
    this.#done(end, undefined);
  }
}

export class ScriptedStream extends ScriptedExchange implements ClientStream {
  /** What the client wrote, in order. */
  readonly written: Uint8Array[] = [];
  isPaused = false;
  isHalfClosed = false;
  /** Called with each message the client writes. */
  onWrite: (bytes: Uint8Array) => void = () => {};
  readonly #receiver: StreamReceiver;
  #held: Uint8Array[] = [];
  #hasTold = false;

  constructor(script: ScriptedTransport, address: string, path: string, options: CallOptions, receiver: StreamReceiver) {
    super(script, address, path, options);
    this.#receiver = receiver;
  }

  /** Sends a message to the client; held back while it pauses. */
  send(bytes: Uint8Array): void {
    if (this.isEnded) throw new Error('the stream has ended');
    if (this.isPaused) this.#held.push(bytes);
    else this.later(() => this.#deliver(bytes));
  }

  write(bytes: Uint8Array): boolean {
    if (this.isEnded) return true;
    this.written.push(bytes);
    this.later(() => this.onWrite(bytes));
    return true;
  }

  halfClose(): void {
    this.isHalfClosed = true;
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    const held = this.#held;
    this.#held = [];
    for (const bytes of held) this.later(() => this.#deliver(bytes));
  }

  protected tellEnd(end: CallEnd): void {
    this.#hasTold = true;
    this.#receiver.onEnd(end);
  }

  #deliver(bytes: Uint8Array): void {
    // What was sent before the end arrives before it.
    if (!this.#hasTold) this.#receiver.onMessage(bytes);
  }
}

function endOf(code: number, failure: ScriptedFailure): CallEnd {
  return {
    code,
    message: failure.message ?? '',
    trailer: (name) => failure.trailers?.[name],
    notProcessed: failure.notProcessed ?? false,
  };
}
