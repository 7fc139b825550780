import type { Connection, ConnectionState, Runtime, Timer } from '@conclave/wire';

/** How long an awaited answer may be silent before the peer is asked whether it lives. */
const awaitedSilenceMs = 500;
/** A call that was there for so many looks has waited between half a second and one. */
const slowTicks = 2;
/** Between two pings without word from the server in between: servers count closer ones as abuse from 5 s down and hang up. */
const pingFloorMs = 6_000;

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

/** A call whose answer is awaited. */
export interface AwaitedCall {
  /** It has waited for long, half a second or more. Told again and again. */
  onSlow(): void;
}

/** Whose life is looked after. */
export interface Peer {
  readonly connection: Connection;
  readonly state: ConnectionState;
  readonly isClosed: boolean;
  /** The question whether it lives was asked. */
  onDoubt(): void;
  /** It was answered, or not in time. Not told of a connection that was replaced meanwhile. */
  onAnswer(isAlive: boolean): void;
}

/**
 * Looks again and again whether the peer speaks while something is under way, and asks it for a sign of life when it does not. The looks tell calls
 * that they are slow, too.
 */
export class Liveness {
  readonly #peer: Peer;
  readonly #runtime: Runtime;
  readonly #settings: KeepaliveSettings;
  /** And at which tick each began. */
  readonly #calls = new Map<AwaitedCall, number>();
  /** How many ticks there were. */
  #ticks = 0;
  /** Calls and streams. */
  #inFlight = 0;
  /** Only those that owe an answer. */
  #awaiting = 0;
  #heard = false;
  /** When the first call ended that was not answered, of those since the peer spoke last. */
  #unansweredAt: number | undefined;
  #silentMs = 0;
  #tickTimer: Timer | undefined;
  #tickMs = 0;
  #isPinging = false;
  #lastPingAt = Number.NEGATIVE_INFINITY;
  #heardSincePing = true;

  constructor(peer: Peer, runtime: Runtime, settings: KeepaliveSettings) {
    this.#peer = peer;
    this.#runtime = runtime;
    this.#settings = settings;
  }

  /** Nothing is under way. */
  get isIdle(): boolean {
    return this.#inFlight === 0;
  }

  /** Whether the peer owes a sign of life. */
  get isInDoubt(): boolean {
    return this.#isPinging;
  }

  /** A call or stream starts; `call` is told if it waits for long. */
  begin(isAwaited: boolean, call: AwaitedCall | undefined): void {
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
    // Each of many calls may have less time than it takes to notice the silence, and then nothing be under way.
    if (this.#unansweredAt !== undefined && this.#runtime.monotonic() - this.#unansweredAt >= awaitedSilenceMs) this.ask();
  }

  end(wasAwaited: boolean, heard: boolean, call: AwaitedCall | undefined): void {
    if (call !== undefined) this.#calls.delete(call);
    this.#inFlight--;
    if (wasAwaited) this.#awaiting--;
    if (heard) this.hear();
    else if (wasAwaited) this.#unansweredAt ??= this.#runtime.monotonic();
  }

  /** The peer spoke. */
  hear(): void {
    this.#heard = true;
    this.#unansweredAt = undefined;
  }

  /** The connection stands, or the peer gave a sign of life when it was asked for one. */
  renew(): void {
    this.#silentMs = 0;
    this.#unansweredAt = undefined;
  }

  /** What was asked of a connection that is replaced is of no account. */
  forget(): void {
    this.#isPinging = false;
  }

  close(): void {
    this.#tickTimer?.cancel();
  }

  /** Asks for a sign of life, as soon as the server tolerates it. */
  ask(): void {
    if (this.#isPinging || this.#peer.isClosed || this.#peer.state !== 'ready') return;
    const now = this.#runtime.monotonic();
    if (!this.#heardSincePing && now - this.#lastPingAt < pingFloorMs) return;
    this.#isPinging = true;
    this.#lastPingAt = now;
    this.#heardSincePing = false;
    const asked = this.#peer.connection;
    this.#peer.onDoubt();
    asked.ping(this.#settings.keepaliveTimeoutMs, (isAlive) => this.#onPong(asked, isAlive));
  }

  #onPong(asked: Connection, isAlive: boolean): void {
    // A connection that was replaced meanwhile has no say any more.
    if (asked !== this.#peer.connection || this.#peer.isClosed) return;
    this.#isPinging = false;
    if (isAlive) this.renew();
    this.#peer.onAnswer(isAlive);
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
    if (this.#silentMs >= (this.#awaiting > 0 ? awaitedSilenceMs : this.#settings.keepaliveMs)) this.ask();
  }
}
