import type { MemberId } from '@conclave/raft';
import type { PeerFrame, PeerPacket, Peers } from './ports.ts';

/** What a packet says of its sender. */
type Vitals = Pick<PeerPacket, 'from' | 'incarnation' | 'durableIndex' | 'commitIndex'>;

export interface OutboxOptions {
  readonly peers: Pick<Peers, 'send'>;
  readonly vitals: () => Vitals;
  /** Whether nothing may be said to this member. */
  readonly isRefused: (member: MemberId) => boolean;
}

/** What waits to be sent, in one packet for each member. */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #frames: Map<MemberId, PeerFrame[]> = new Map();

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  add(to: MemberId, frame: PeerFrame): void {
    const frames = this.#frames.get(to);
    if (frames === undefined) this.#frames.set(to, [frame]);
    else frames.push(frame);
  }

  /** A packet for this member, though there is nothing to say but how the sender is. */
  greet(to: MemberId): void {
    if (!this.#frames.has(to)) this.#frames.set(to, []);
  }

  flush(): void {
    if (this.#frames.size === 0) return;
    const { peers, vitals, isRefused } = this.#options;
    const { from, incarnation, durableIndex, commitIndex } = vitals();
    for (const [to, all] of this.#frames) {
      const refused = isRefused(to);
      // That it was removed is for every member to know.
      const frames = refused ? all.filter(({ kind }) => kind === 'removed') : all;
      if (frames.length > 0 || !refused) peers.send({ from, to, incarnation, durableIndex, commitIndex, frames });
    }
    this.#frames.clear();
  }
}
