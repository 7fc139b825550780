import type { ConnectionState, Runtime, Transport } from '@conclave/wire';
import type { EndpointJournal } from './endpoint-journal.ts';
import type { KeepaliveSettings } from './liveness.ts';
import { type Preferences, turnOf } from './preference.ts';
import { Slot, type SlotListener } from './slot.ts';

/** Which endpoints to use. */
export interface Choice {
  readonly addresses: readonly string[];
  /** Default: all are as good. */
  readonly preferences?: Preferences | undefined;
}

/** Told once that some endpoint is ready. */
export interface Waiter {
  onReady(): void;
}

/** Whoever hears of all endpoints. */
export interface BalancerOwner extends Pick<SlotListener, 'onProbe'> {
  readonly journal: EndpointJournal;
  /** The status is another. */
  onChange(): void;
}

/** The state of one endpoint. */
export interface EndpointStatus {
  readonly address: string;
  readonly state: ConnectionState;
  /**
   * Why there is no connection, or why it is not used although there is one, for people. Absent while all is well, and before the first failure.
   */
  readonly failure?: string;
}

/** For the message of an error: each endpoint, its state, and why. */
export function describeEndpoints(endpoints: readonly EndpointStatus[]): string {
  return endpoints.map(({ address, state, failure }) => `${address} ${state}${failure === undefined ? '' : `: ${failure}`}`).join(', ');
}

/** Spreads calls over the endpoints that are ready, in turn, and keeps those that want one until one is. */
export class Balancer {
  readonly #open: (address: string) => Slot;
  #slots: readonly Slot[] = [];
  #wanted: ReadonlySet<string>;
  /** No longer chosen from: each ends with what is still under way on it. */
  #retired: readonly Slot[] = [];
  readonly #waiters = new Set<Waiter>();
  readonly #owner: BalancerOwner;
  #preferences: Preferences | undefined;
  /** Those to choose from, in turn; one that is to be chosen more often is in it more often. */
  #ready: readonly Slot[] = [];
  #turn = 0;
  #isClosed = false;

  constructor(
    { addresses, preferences }: Choice,
    transport: Transport,
    runtime: Runtime,
    settings: KeepaliveSettings,
    owner: BalancerOwner,
  ) {
    this.#owner = owner;
    this.#preferences = preferences;
    const listener: SlotListener = {
      onChange: (address, state, failure) => owner.journal.change(address, state, failure),
      onState: () => this.#onState(),
      onSuspicion: () => this.#select(),
      onProbe: (slot, done) => owner.onProbe(slot, done),
    };
    this.#open = (address) => new Slot(address, transport, runtime, settings, listener);
    this.#wanted = new Set(addresses);
    this.#slots = addresses.map(this.#open);
    this.#onState();
  }

  /**
   * Goes over to other addresses. Those that are not among them are used until one of the others is ready, for there may be no way to what a
   * member calls its address; and what is under way on them ends in its own time.
   */
  update({ addresses, preferences }: Choice): void {
    if (this.#isClosed) return;
    this.#preferences = preferences;
    this.#owner.journal.replace([...this.#wanted], addresses);
    this.#wanted = new Set(addresses);
    const known = new Set(this.#slots.map(({ address }) => address));
    const added = addresses.filter((address) => !known.has(address)).map(this.#open);
    this.#slots = [...this.#slots, ...added];
    this.#onState();
  }

  /** A ready endpoint, another than `avoid` where there is one. Undefined: none is ready, `wait` for one. */
  pick(avoid?: Slot): Slot | undefined {
    const ready = this.#ready;
    if (ready.length <= 1) return ready[0];
    if (++this.#turn >= ready.length) this.#turn = 0;
    for (let step = 0; step < ready.length; step++) {
      const chosen = ready[(this.#turn + step) % ready.length];
      if (chosen !== avoid) return chosen;
    }
    return avoid;
  }

  /** One that is ready and of which nothing bad is known, and none of these; undefined: there is none. */
  better(than: readonly Slot[]): Slot | undefined {
    const ready = this.#ready;
    // From the next in turn on, so that not all go to the same.
    for (let step = 1; step <= ready.length; step++) {
      const at = (this.#turn + step) % ready.length;
      const slot = ready[at] as Slot;
      if (slot.isSuspect || than.includes(slot)) continue;
      this.#turn = at;
      return slot;
    }
    return undefined;
  }

  /** Whether an endpoint other than `than` is ready. */
  hasOther(than: Slot): boolean {
    return this.#ready.some((slot) => slot !== than);
  }

  wait(waiter: Waiter): void {
    this.#waiters.add(waiter);
    for (const slot of this.#slots) slot.wake();
  }

  forget(waiter: Waiter): void {
    this.#waiters.delete(waiter);
  }

  /** Whether for each endpoint the last attempt to connect failed. */
  get isUnreachable(): boolean {
    return this.#slots.every((slot) => slot.isUnreachable);
  }

  status(): readonly EndpointStatus[] {
    return this.#slots.map(({ address, state, failure }) => ({ address, state, ...(failure !== undefined && { failure }) }));
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#ready = [];
    this.#waiters.clear();
    for (const slot of [...this.#slots, ...this.#retired]) slot.close();
  }

  #onState(): void {
    if (this.#isClosed) return;
    this.#retire();
    this.#select();
    this.#owner.onChange();
    if (this.#ready.length > 0) this.#release();
    else if (this.#waiters.size > 0) for (const slot of this.#slots) slot.wake();
  }

  #retire(): void {
    const isWanted = ({ address }: Slot): boolean => this.#wanted.has(address);
    if (this.#slots.every(isWanted) || !this.#slots.some((slot) => isWanted(slot) && slot.state === 'ready')) return;
    const leaving = this.#slots.filter((slot) => !isWanted(slot));
    this.#slots = this.#slots.filter(isWanted);
    this.#retired = [...this.#retired, ...leaving].filter((slot) => !slot.isClosed);
    for (const slot of leaving) slot.retire();
  }

  /** Those to choose from: the ready ones, and among them, if there are any, those that are not under suspicion. */
  #select(): void {
    const ready = this.#slots.filter((slot) => slot.state === 'ready');
    const trusted = ready.filter((slot) => !slot.isSuspect);
    this.#ready = turnOf(trusted.length > 0 ? trusted : ready, this.#preferences);
  }

  #release(): void {
    const waiting = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiting) waiter.onReady();
  }
}
