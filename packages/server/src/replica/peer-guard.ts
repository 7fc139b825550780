import type { MemberId } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { LocalMemory, PeerMark, PeerPacket } from './ports.ts';

export interface PeerGuardOptions {
  readonly runtime: Runtime;
  readonly memory: LocalMemory | undefined;
  /**
   * A packet is taken for a late one if the member that sent it has shown more within so many ticks. Ticks, because what arrived while this member stood
   * still is as late as if no time had passed.
   */
  readonly lateTicks: number;
}

/** How often marks that have risen are written down, in ticks. */
const saveTicks = 10;

interface Peer {
  /** The most it has shown. */
  incarnation: number;
  index: number;
  /** As written down. */
  savedIndex: number;
  /** The tick at which it last showed no less than that; undefined: not in this life of ours. */
  lawfulAt: number | undefined;
  isRefused: boolean;
  /** The life of it that was refused: what an earlier one sent is void. */
  refusedIncarnation: number;
}

/**
 * Finds out a member whose disk was put back to an earlier state: a restored machine image, a lost volume, a wiped data dir under the old id. It may
 * have promised entries that it no longer has and votes that it no longer knows of, so it gets no append, and no vote or acknowledgement of it is
 * counted: its packets are ignored, and none are sent to it. It is to be removed, and to join again as a new member.
 *
 * A member counts its starts (its incarnation), and every packet says how far its log is durable and how much of that it knows to be committed. The
 * lower of the two never falls while its disk keeps what it took, whatever leaders come and go. The highest it has shown is its mark, and no lawful
 * start of it comes with a lower incarnation, or with a log that ends before the mark.
 *
 * A network that reorders delivers old packets too: within `lateTicks` of a lawful one they are only old. Of another incarnation they are dropped;
 * of the same one they are as good as any.
 *
 * What this cannot find:
 * - a member that was put back to a state at or above its mark. The mark knows nothing of entries that were acknowledged and not yet known to be
 *   committed at the member, and nothing of votes: a member put back by some milliseconds may lose both and pass, if its count of starts passes.
 * - what this member has forgotten itself. Marks are durable some time after they rise (within a second or two); a majority that loses its power
 *   just after a rise may not remember it. A member that never met the other has no mark of it.
 * - acknowledgements that were counted before the disk was put back. Where the entries they stand for were on no other member of a majority, they
 *   are lost; with fewer disks put back than a minority, they are not.
 * - a member that is put back and started again, with the same count of starts, within `lateTicks`, until they have passed.
 */
export class PeerGuard {
  readonly #options: PeerGuardOptions;
  readonly #peers: Map<MemberId, Peer> = new Map();
  #ticks = 0;

  constructor(options: PeerGuardOptions) {
    this.#options = options;
  }

  /** Nothing is sent to this member. */
  isRefused(member: MemberId): boolean {
    return this.#peers.get(member)?.isRefused ?? false;
  }

  /** Notes what the sender shows. @returns whether its packet may be looked at. */
  admits({ from, incarnation, durableIndex, commitIndex }: PeerPacket): boolean {
    const peer = this.#peers.get(from) ?? this.#recall(from);
    if (incarnation < peer.refusedIncarnation) return false;
    if (incarnation >= peer.incarnation && durableIndex >= peer.index) {
      this.#raise(from, peer, incarnation, Math.min(durableIndex, commitIndex));
      peer.lawfulAt = this.#ticks;
      peer.isRefused = false;
      return true;
    }
    const isLate = incarnation <= peer.incarnation && peer.lawfulAt !== undefined && this.#ticks - peer.lawfulAt < this.#options.lateTicks;
    if (isLate) return incarnation === peer.incarnation;
    this.#refuse(from, peer, incarnation, durableIndex);
    return false;
  }

  /** Writes down what has risen, now and then: it rises with every entry. */
  tick(): void {
    this.#ticks += 1;
    if (this.#ticks % saveTicks !== 0) return;
    for (const [member, peer] of this.#peers) if (peer.index > peer.savedIndex) this.#save(member, peer);
  }

  #recall(member: MemberId): Peer {
    const { incarnation, index } = this.#options.memory?.peer(member) ?? unknown;
    const peer = {
      incarnation,
      index,
      savedIndex: index,
      lawfulAt: undefined,
      isRefused: false,
      refusedIncarnation: 0,
    };
    this.#peers.set(member, peer);
    return peer;
  }

  #raise(member: MemberId, peer: Peer, incarnation: number, index: number): void {
    if (index > peer.index) peer.index = index;
    if (incarnation === peer.incarnation) return;
    peer.incarnation = incarnation;
    this.#save(member, peer);
  }

  #save(member: MemberId, peer: Peer): void {
    const { incarnation, index } = peer;
    this.#options.memory?.notePeer(member, { incarnation, index });
    peer.savedIndex = index;
  }

  #refuse(member: MemberId, peer: Peer, incarnation: number, durableIndex: number): void {
    peer.refusedIncarnation = incarnation;
    if (peer.isRefused) return;
    peer.isRefused = true;
    const { incarnation: seenIncarnation, index: seenIndex } = peer;
    this.#options.runtime.log.error(
      { member: member.toString(16), incarnation, durableIndex, seenIncarnation, seenIndex },
      'a member came back with less than it had: its disk was put back to an earlier state. It is ignored until it is removed',
    );
  }
}

const unknown: PeerMark = { incarnation: 0, index: 0 };
