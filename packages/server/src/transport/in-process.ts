import type { MemberId } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { PeerEvent, PeerPacket, Peers } from '../replica/ports.ts';
import type { PeerIdentity, PeerNetwork } from './network.ts';
import { decodePacket, encodePacket } from './peer-codec.ts';

/**
 * Members of one process, without sockets. Packets travel encoded, as on a wire: nobody shares an object with a peer. A packet is delivered at
 * the end of the turn it was sent in, or lost when its receiver is gone.
 */
export function inProcessPeers(runtime: Runtime): PeerNetwork {
  const present = new Map<MemberId, InProcessPeers>();
  return {
    open(self) {
      const peers: InProcessPeers = new InProcessPeers(self, runtime, present);
      present.set(self.id, peers);
      return Promise.resolve(peers);
    },
    describeCluster(peerUrls) {
      for (const { self } of present.values()) {
        const description = self.describe();
        if (description.members.some((member) => member.peerUrls.some((url) => peerUrls.includes(url))))
          return Promise.resolve(description);
      }
      return Promise.reject(new Error(`no member of this process has any of these peer URLs: ${peerUrls.join()}`));
    },
  };
}

class InProcessPeers implements Peers {
  readonly self: PeerIdentity;
  readonly #runtime: Runtime;
  readonly #present: Map<MemberId, InProcessPeers>;
  readonly #outbox: { readonly to: MemberId; readonly bytes: Uint8Array }[] = [];
  #listener: ((event: PeerEvent) => void) | undefined;
  #isClosed = false;

  constructor(self: PeerIdentity, runtime: Runtime, present: Map<MemberId, InProcessPeers>) {
    this.self = self;
    this.#runtime = runtime;
    this.#present = present;
  }

  send(packet: PeerPacket): void {
    if (this.#isClosed) return;
    if (this.#outbox.length === 0) this.#runtime.endOfTurn(() => this.#deliver());
    this.#outbox.push({ to: packet.to, bytes: encodePacket(packet) });
  }

  #deliver(): void {
    for (const { to, bytes } of this.#outbox.splice(0)) {
      if (this.#isClosed) return;
      const receiver = this.#present.get(to);
      if (receiver === undefined || receiver.self.clusterId !== this.self.clusterId) this.#listener?.({ kind: 'unreachable', member: to });
      else receiver.#listener?.({ kind: 'packet', packet: decodePacket(bytes) });
    }
  }

  listen(listener: (event: PeerEvent) => void): void {
    this.#listener = listener;
  }

  setMembers(): void {
    // Everybody who is present can be reached.
  }

  connectedSince(member: MemberId): number | undefined {
    return this.#present.has(member) ? Number.NEGATIVE_INFINITY : undefined;
  }

  close(): Promise<void> {
    this.#isClosed = true;
    if (this.#present.get(this.self.id) === this) this.#present.delete(this.self.id);
    return Promise.resolve();
  }
}
