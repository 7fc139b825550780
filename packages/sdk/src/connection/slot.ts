import { StatusCode } from '@conclave/protocol';
import {
  type CallEnd,
  type Connection,
  type ConnectionState,
  patientTimer,
  type Runtime,
  type Timer,
  type Transport,
} from '@conclave/wire';
import { isAnswer, isMemberAtFault } from '../errors/from-call-end.ts';
import { Backoff } from './backoff.ts';
import { Breaker } from './breaker.ts';
import { type AwaitedCall, type KeepaliveSettings, Liveness, type Peer } from './liveness.ts';

const reconnectInitialMs = 50;
const reconnectMaxMs = 1_000;
/** A fresh attempt beats the growing pauses of the kernel's own. */
const connectTimeoutMs = 5_000;

export interface SlotListener {
  /** What becomes of the connection, for the record. */
  onChange(address: string, state: ConnectionState, failure: string | undefined): void;
  onState(): void;
  /** `isSuspect` changed. */
  onSuspicion(): void;
  /** Ask the endpoint something that only a sound one can answer. */
  onProbe(slot: Slot, done: (isWell: boolean) => void): void;
}

/** A stream that can go on elsewhere. */
export interface MovableStream {
  /** The endpoint is left alone from now on. */
  onShunned(): void;
}

/**
 * One endpoint and the connection to it: reconnects with backoff, and replaces a connection whose peer no longer answers, which a TCP
 * connection alone would notice only after many minutes.
 */
export class Slot implements Peer {
  readonly address: string;
  readonly #transport: Transport;
  readonly #runtime: Runtime;
  readonly #listener: SlotListener;
  readonly #backoff: Backoff;
  readonly #breaker: Breaker;
  readonly #liveness: Liveness;
  readonly #streams = new Set<MovableStream>();
  #connection: Connection;
  #unsubscribe: () => void = () => {};
  #isClosed = false;
  #isRetired = false;
  #failure: string | undefined;
  /** Whether what fails next is an attempt to connect, not a connection. */
  #isAttempt = true;
  #isUnreachable = false;

  #retryTimer: Timer | undefined;
  #retryAt = 0;
  #isRetryInBackground = true;
  #connectTimer: Timer | undefined;

  constructor(address: string, transport: Transport, runtime: Runtime, settings: KeepaliveSettings, listener: SlotListener) {
    this.address = address;
    this.#transport = transport;
    this.#runtime = runtime;
    this.#listener = listener;
    this.#backoff = new Backoff(runtime, reconnectInitialMs, reconnectMaxMs);
    const onProbe = (done: (isWell: boolean) => void): void => listener.onProbe(this, done);
    this.#breaker = new Breaker(runtime, onProbe, () => this.#onBreaker());
    this.#liveness = new Liveness(this, runtime, settings);
    this.#connection = this.#open();
  }

  get connection(): Connection {
    return this.#connection;
  }

  get state(): ConnectionState {
    return this.#connection.state;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Why there is no connection, once there was a failure, or why the one there is should not be used. */
  get failure(): string | undefined {
    return this.#failure ?? this.#breaker.reason;
  }

  /** Whether the last attempt to connect failed. A connection that is lost is only the beginning of the next attempt. */
  get isUnreachable(): boolean {
    return this.#isUnreachable;
  }

  /** Whether the peer owes a sign of life, or keeps failing. What can go elsewhere should. */
  get isSuspect(): boolean {
    return this.#liveness.isInDoubt || this.#breaker.reason !== undefined;
  }

  /** Connects unless it is connected, connecting, or pausing after a failure. A pause counts from now on as work that keeps the process up. */
  wake(): void {
    if (this.#retryTimer !== undefined) {
      if (!this.#isRetryInBackground) return;
      this.#retryTimer.cancel();
      this.#setRetryTimer(Math.max(0, this.#retryAt - this.#runtime.monotonic()), false);
    } else if (this.state === 'idle' || this.state === 'failed') {
      this.#connection.connect();
    }
  }

  /** A call or stream starts here; `call` is told if it waits for long. */
  begin(isAwaited: boolean, call?: AwaitedCall): void {
    this.#liveness.begin(isAwaited, call);
  }

  /** It ended. Calls for each `begin` once, on the slot as it is then: a replaced connection ends its calls first. */
  end(wasAwaited: boolean, heard: boolean, call?: AwaitedCall): void {
    this.#liveness.end(wasAwaited, heard, call);
    if (this.#isRetired && this.#liveness.isIdle) this.close();
  }

  /** A stream is open here that can go on elsewhere. */
  carry(stream: MovableStream): void {
    this.#streams.add(stream);
  }

  drop(stream: MovableStream): void {
    this.#streams.delete(stream);
  }

  /** What the end of a call says of the endpoint. A time that was up says something only of a call that was slow. */
  judge(end: CallEnd, isSlow: boolean): void {
    if (end.code === 0) this.#breaker.succeed();
    else if (!isMemberAtFault(end)) {
      if (isAnswer(end) && end.code !== StatusCode.CANCELLED) this.#breaker.succeed();
    } else if (isSlow || end.code !== StatusCode.DEADLINE_EXCEEDED) this.fail(end.message);
  }

  /** It did not answer as it should, though it was there. */
  fail(why: string): void {
    if (this.state === 'ready' && !this.#isClosed) this.#breaker.fail(why);
  }

  /** The peer spoke. */
  hear(): void {
    this.#liveness.hear();
  }

  /** Something that should have come has not: ask the peer for a sign of life as soon as the server tolerates it. */
  suspect(): void {
    this.#liveness.ask();
  }

  /** The question whether the peer lives was asked, or taken back. */
  onDoubt(): void {
    this.#listener.onSuspicion();
  }

  /** It was answered, or not in time. */
  onAnswer(isAlive: boolean): void {
    if (this.#isRetired && !isAlive) this.close();
    else if (isAlive || this.state !== 'ready') this.#listener.onSuspicion();
    else this.#replace('no answer to a ping');
  }

  /** Nothing new starts here. Closes with the last call or stream, or with the connection. */
  retire(): void {
    this.#isRetired = true;
    if (this.#liveness.isIdle || this.state !== 'ready') this.close();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unsubscribe();
    this.#breaker.reset();
    this.#liveness.close();
    for (const timer of [this.#retryTimer, this.#connectTimer]) timer?.cancel();
    this.#connection.close();
  }

  #open(): Connection {
    const connection = this.#transport(this.address);
    this.#unsubscribe = connection.onState((state) => this.#onState(state));
    this.#setConnectTimer();
    connection.connect();
    return connection;
  }

  #onState(state: ConnectionState): void {
    if (this.#isClosed) return;
    if (state === 'connecting') this.#setConnectTimer();
    else this.#clearConnectTimer();
    if (state === 'ready') {
      this.#backoff.reset();
      this.#liveness.renew();
      this.#failure = undefined;
      this.#isUnreachable = false;
      this.#isAttempt = false;
      this.#breaker.reset();
    }
    if (state === 'failed') this.#failure = this.#connection.failure ?? 'the connection failed';
    this.#listener.onChange(this.address, state, this.#failure);
    if (state === 'failed' && this.#isRetired) {
      this.close();
      return;
    }
    if (state === 'failed') {
      this.#isUnreachable = this.#isAttempt;
      this.#isAttempt = true;
      this.#setRetryTimer(this.#backoff.next(), true);
    }
    this.#listener.onState();
  }

  #setRetryTimer(delayMs: number, isBackground: boolean): void {
    this.#retryTimer?.cancel();
    this.#retryAt = this.#runtime.monotonic() + delayMs;
    this.#isRetryInBackground = isBackground;
    this.#retryTimer = this.#runtime.timer(
      delayMs,
      () => {
        this.#retryTimer = undefined;
        this.#connection.connect();
      },
      { background: isBackground },
    );
  }

  #setConnectTimer(): void {
    this.#clearConnectTimer();
    const giveUp = (): void => this.#replace(`no connection within ${connectTimeoutMs} ms`);
    this.#connectTimer = patientTimer(this.#runtime, connectTimeoutMs, giveUp, { background: true });
  }

  #clearConnectTimer(): void {
    this.#connectTimer?.cancel();
    this.#connectTimer = undefined;
  }

  #onBreaker(): void {
    this.#listener.onState();
    if (this.#breaker.reason !== undefined) for (const stream of [...this.#streams]) stream.onShunned();
  }

  #replace(why: string): void {
    if (this.#isClosed) return;
    this.#failure = why;
    this.#isUnreachable = this.#isAttempt;
    this.#isAttempt = true;
    const old = this.#connection;
    this.#listener.onChange(this.address, 'failed', why);
    this.#unsubscribe();
    this.#clearConnectTimer();
    this.#liveness.forget();
    this.#connection = this.#open();
    // The listener must know before the old calls end, or it would send their repeats to where they came from.
    this.#listener.onState();
    old.close();
  }
}
