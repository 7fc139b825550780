import {
  type ClusterDescription,
  decodePacket,
  encodePacket,
  type PeerEvent,
  type PeerIdentity,
  type PeerNetwork,
  type PeerPacket,
  type Peers,
} from '@conclave/server';
import type { Machine } from './machine.ts';
import type { Random } from './random.ts';

/** What the way from one machine to another does to packets. Both directions have one of their own. */
export interface LinkState {
  /** Nothing gets through, and the sender is not told. */
  readonly isCut: boolean;
  /** Probability, 0 to 1, that a packet is lost; and that one arrives twice. */
  readonly loss: number;
  readonly duplication: number;
  /** Milliseconds a packet takes: drawn for each, which reorders them when the range is wide. */
  readonly delayMs: readonly [least: number, most: number];
}

export interface SimulatedPeersOptions {
  readonly random: Random;
  /** The state of the link now. Asked for every packet. */
  readonly link: (from: Machine, to: Machine) => LinkState;
  /** Delays are whole multiples of this many milliseconds. Default 1. */
  readonly quantumMs?: number;
  /** Told of every packet that is sent, and of every one that arrives, with its bytes. */
  readonly onSend?: (packet: PeerPacket, from: Machine) => void;
  readonly onArrival?: (bytes: Uint8Array, from: Machine, to: Machine) => void;
}

/**
 * The network between simulated members: packets travel encoded, and are lost, repeated, held up and reordered as their link says.
 *
 * @example
 * const peers = new SimulatedPeers({ random, link: () => ({ isCut: false, loss: 0.01, duplication: 0, delayMs: [1, 3] }) });
 * await startServer({ runtime: machine.boot(), peerNetwork: peers.networkOf(machine) });
 */
export class SimulatedPeers {
  readonly #options: SimulatedPeersOptions;
  /** The side of each machine's process, by machine. A dead one's stays until the next opens. */
  readonly #sides = new Map<Machine, Side>();

  constructor(options: SimulatedPeersOptions) {
    this.#options = options;
  }

  /** The network as the process sees it that runs on this machine. */
  networkOf(machine: Machine): PeerNetwork {
    return {
      open: (self) => {
        const side = new Side(this, machine, self);
        this.#sides.set(machine, side);
        return Promise.resolve(side);
      },
      describeCluster: (peerUrls) => this.#describe(machine, peerUrls),
    };
  }

  /** @internal */
  carry(from: Side, packet: PeerPacket): void {
    const { random, link, onSend } = this.#options;
    if (!from.isOpen) return;
    onSend?.(packet, from.machine);
    const to = this.#sideOf(packet.to, from.self.clusterId);
    // Nobody listens there: a connection is refused, which the sender hears of.
    if (to === undefined) {
      this.#tellUnreachable(from, packet, random.below(3));
      return;
    }
    const state = link(from.machine, to.machine);
    if (state.isCut) return;
    if (random.chance(state.loss)) {
      if (random.chance(0.2)) this.#tellUnreachable(from, packet, this.#delay(state));
      return;
    }
    const bytes = encodePacket(packet);
    this.#deliver(from, to, bytes, this.#delay(state));
    if (random.chance(state.duplication)) this.#deliver(from, to, bytes, this.#delay(state));
  }

  #deliver(from: Side, to: Side, bytes: Uint8Array, delayMs: number): void {
    const { link, onArrival } = this.#options;
    to.machine.arrive(delayMs, () => {
      // A cut loses what is on its way, too.
      if (!to.isOpen || link(from.machine, to.machine).isCut) return;
      onArrival?.(bytes, from.machine, to.machine);
      to.tell({ kind: 'packet', packet: decodePacket(bytes) });
    });
  }

  #tellUnreachable(from: Side, { to }: PeerPacket, delayMs: number): void {
    from.machine.arrive(delayMs, () => {
      if (from.isOpen) from.tell({ kind: 'unreachable', member: to });
    });
  }

  #delay({ delayMs: [least, most] }: LinkState): number {
    const { random, quantumMs = 1 } = this.#options;
    const drawn = least + random.next() * (most - least);
    return Math.round(drawn / quantumMs) * quantumMs;
  }

  #sideOf(member: bigint, clusterId: bigint): Side | undefined {
    for (const side of this.#sides.values()) {
      if (side.isOpen && side.self.id === member && side.self.clusterId === clusterId) return side;
    }
    return undefined;
  }

  #describe(asking: Machine, peerUrls: readonly string[]): Promise<ClusterDescription> {
    const { link } = this.#options;
    return new Promise((resolve, reject) => {
      asking.arrive(this.#options.quantumMs ?? 1, () => {
        for (const side of this.#sides.values()) {
          const isReachable = side.isOpen && !side.machine.isPaused && side.machine !== asking;
          if (!isReachable || link(asking, side.machine).isCut || link(side.machine, asking).isCut) continue;
          const description = side.self.describe();
          const own = description.members.find(({ id }) => id === side.self.id);
          if (own?.peerUrls.some((url) => peerUrls.includes(url))) return resolve(description);
        }
        return reject(Object.assign(new Error(`no member answers at ${peerUrls.join()}`), { code: 'ECONNREFUSED' }));
      });
    });
  }
}

class Side implements Peers {
  readonly machine: Machine;
  readonly self: PeerIdentity;
  readonly #network: SimulatedPeers;
  readonly #process: unknown;
  #listener: ((event: PeerEvent) => void) | undefined;
  #isClosed = false;

  constructor(network: SimulatedPeers, machine: Machine, self: PeerIdentity) {
    this.#network = network;
    this.machine = machine;
    this.self = self;
    this.#process = machine.process;
  }

  get isOpen(): boolean {
    return !this.#isClosed && this.#process === this.machine.process;
  }

  tell(event: PeerEvent): void {
    this.#listener?.(event);
  }

  send(packet: PeerPacket): void {
    this.#network.carry(this, packet);
  }

  listen(listener: (event: PeerEvent) => void): void {
    this.#listener = listener;
  }

  setMembers(): void {
    // Who is who stands in the packets.
  }

  close(): Promise<void> {
    this.#isClosed = true;
    return Promise.resolve();
  }
}
