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

/** How long an awaited answer may be silent before the peer is asked whether it lives. */
const awaitedSilenceMs = 500;
/** A call that was there for so many looks has waited between half a second and one. */
const slowTicks = 2;
/** Between two pings without word from the server in between: servers count closer ones as abuse from 5 s down and hang up. */
const pingFloorMs = 6_000;
const reconnectInitialMs = 50;
const reconnectMaxMs = 1_000;
/** A fresh attempt beats the growing pauses of the kernel's own. */
const connectTimeoutMs = 5_000;

export interface KeepaliveSettings {
  /** Silence after which a connection with only streams on it is asked for a sign of life. */
  readonly keepaliveMs: number;
  /** How long the sign may take. */
  readonly keepaliveTimeoutMs: number;
}

/** Raises what servers would punish and what would be no use. */
export function clampKeepalive(keepaliveMs = 10_000, keepaliveTimeoutMs = 2_000): KeepaliveSettings {
  return { keepaliveMs: Math.max(pingFloorMs, keepaliveMs), keepaliveTimeoutMs: Math.max(100, keepaliveTimeoutMs) };
}

export interface SlotListener {
  /** What becomes of the connection, for the record. */
  onChange(address: string, state: ConnectionState, failure: string | undefined): void;
  onState(): void;
  /** `isSuspect` changed. */
  onSuspicion(): void;
  /** Ask the endpoint something that only a sound one can answer. */
  onProbe(slot: Slot, done: (isWell: boolean) => void): void;
}

/** A call whose answer is awaited. */
export interface AwaitedCall {
  /** It has waited for long, half a second or more. Told again and again. */
  onSlow(): void;
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
export class Slot {
  readonly address: string;
  readonly #transport: Transport;
  readonly #runtime: Runtime;
  readonly #settings: KeepaliveSettings;
  readonly #listener: SlotListener;
  readonly #backoff: Backoff;
  readonly #breaker: Breaker;
  /** And at which tick each began. */
  readonly #calls = new Map<AwaitedCall, number>();
  readonly #streams = new Set<MovableStream>();
  /** How many ticks there were. */
  #ticks = 0;
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

  // Liveness. `inFlight` counts calls and streams, `awaiting` only those that owe an answer.
  #inFlight = 0;
  #awaiting = 0;
  #heard = false;
  #silentMs = 0;
  #tickTimer: Timer | undefined;
  #tickMs = 0;
  #isPinging = false;
  #lastPingAt = Number.NEGATIVE_INFINITY;
  #heardSincePing = true;

  constructor(address: string, transport: Transport, runtime: Runtime, settings: KeepaliveSettings, listener: SlotListener) {
    this.address = address;
    this.#transport = transport;
    this.#runtime = runtime;
    this.#settings = settings;
    this.#listener = listener;
    this.#backoff = new Backoff(runtime, reconnectInitialMs, reconnectMaxMs);
    const onProbe = (done: (isWell: boolean) => void): void => listener.onProbe(this, done);
    this.#breaker = new Breaker(runtime, onProbe, () => this.#onBreaker());
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
    return this.#isPinging || this.#breaker.reason !== undefined;
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
    if (call !== undefined) this.#calls.set(call, this.#ticks);
    if (this.#inFlight++ === 0) this.#heard = true;
    if (!isAwaited) {
      if (this.#tickTimer === undefined) this.#setTick();
      return;
    }
    this.#awaiting++;
    // The timer outlives the call, so that it is not set anew for each of many.
    if (this.#tickTimer === undefined || this.#tickMs > awaitedSilenceMs) {
      this.#heard = true;
      this.#setTick();
    }
  }

  /** It ended. Calls for each `begin` once, on the slot as it is then: a replaced connection ends its calls first. */
  end(wasAwaited: boolean, heard: boolean, call?: AwaitedCall): void {
    if (call !== undefined) this.#calls.delete(call);
    this.#inFlight--;
    if (wasAwaited) this.#awaiting--;
    if (heard) this.#heard = true;
    if (this.#isRetired && this.#inFlight === 0) this.close();
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
    this.#heard = true;
  }

  /** Something that should have come has not: ask the peer for a sign of life as soon as the server tolerates it. */
  suspect(): void {
    this.#ping();
  }

  /** Nothing new starts here. Closes with the last call or stream, or with the connection. */
  retire(): void {
    this.#isRetired = true;
    if (this.#inFlight === 0 || this.state !== 'ready') this.close();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unsubscribe();
    this.#breaker.reset();
    for (const timer of [this.#retryTimer, this.#connectTimer, this.#tickTimer]) timer?.cancel();
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
      this.#silentMs = 0;
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

  /** Sets when to look again: soon while answers are awaited, seldom while there are only streams. */
  #setTick(): void {
    this.#tickTimer?.cancel();
    this.#tickMs = this.#awaiting > 0 ? awaitedSilenceMs : this.#settings.keepaliveMs / 2;
    this.#tickTimer = this.#runtime.timer(this.#tickMs, () => this.#tick(), { background: true });
  }

  #tick(): void {
    this.#tickTimer = undefined;
    // With nothing under way silence says nothing, and pings would be counted against us.
    if (this.#inFlight === 0) return;
    this.#ticks++;
    // In the order in which they began.
    for (const [call, beganAt] of this.#calls) {
      if (this.#ticks - beganAt < slowTicks) break;
      call.onSlow();
    }
    const elapsedMs = this.#tickMs;
    this.#setTick();
    if (this.#heard) {
      this.#heard = false;
      this.#heardSincePing = true;
      this.#silentMs = 0;
      return;
    }
    this.#silentMs += elapsedMs;
    if (this.#silentMs >= (this.#awaiting > 0 ? awaitedSilenceMs : this.#settings.keepaliveMs)) this.#ping();
  }

  #onBreaker(): void {
    this.#listener.onState();
    if (this.#breaker.reason !== undefined) for (const stream of [...this.#streams]) stream.onShunned();
  }

  #ping(): void {
    if (this.#isPinging || this.#isClosed || this.state !== 'ready') return;
    const now = this.#runtime.monotonic();
    if (!this.#heardSincePing && now - this.#lastPingAt < pingFloorMs) return;
    this.#isPinging = true;
    this.#lastPingAt = now;
    this.#heardSincePing = false;
    const asked = this.#connection;
    this.#listener.onSuspicion();
    asked.ping(this.#settings.keepaliveTimeoutMs, (isAlive) => this.#onPong(asked, isAlive));
  }

  #onPong(asked: Connection, isAlive: boolean): void {
    // A connection that was replaced meanwhile has no say any more.
    if (asked !== this.#connection || this.#isClosed) return;
    this.#isPinging = false;
    if (isAlive) this.#silentMs = 0;
    if (this.#isRetired && !isAlive) this.close();
    else if (isAlive || this.state !== 'ready') this.#listener.onSuspicion();
    else this.#replace('no answer to a ping');
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
    this.#isPinging = false;
    this.#connection = this.#open();
    // The listener must know before the old calls end, or it would send their repeats to where they came from.
    this.#listener.onState();
    old.close();
  }
}
