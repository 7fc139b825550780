import type { MemberId } from './types.ts';

/** A linearizable read that a leader was asked for, by its own host (with the host's context) or by another member (with its numbers). */
export type Read = { readonly context: Uint8Array } | { readonly from: MemberId; readonly incarnation: number; readonly sequence: number };

/** A read, and the index it must see. */
export interface IndexedRead {
  readonly read: Read;
  readonly index: number;
}

/** What came in before one round of heartbeats. */
interface Round {
  readonly round: number;
  readonly index: number;
  readonly reads: readonly Read[];
}

/** More are not taken while these wait: who asked is not answered, and asks again. */
const maxReads = 10_000;

/**
 * The reads of a leader (thesis section 6.4). A read is answered when a quorum has answered a heartbeat that was sent after the read came in: then
 * there was no newer leader at that moment, and no commit that this one does not know. Rounds are numbered; an answer to a later one is as good.
 */
export class ReadRounds {
  #waiting: Read[] = [];
  /** By ascending round. */
  #asked: Round[] = [];
  #count = 0;

  /** Reads that no round was begun for. */
  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }
  get hasAsked(): boolean {
    return this.#asked.length > 0;
  }

  add(read: Read): void {
    if (this.#count >= maxReads) return;
    this.#count += 1;
    this.#waiting.push(read);
  }

  /** All that wait are asked for by this round, sent now. @param index the leader's commit index, in its own term. */
  begin(round: number, index: number): void {
    this.#asked.push({ round, index, reads: this.#waiting });
    this.#waiting = [];
  }

  /** A quorum answered a round up to this one. @returns the reads that may go ahead. */
  confirm(round: number): readonly IndexedRead[] {
    const confirmed: IndexedRead[] = [];
    let count = 0;
    for (; count < this.#asked.length && this.#asked[count]!.round <= round; count++) {
      const { index, reads } = this.#asked[count]!;
      for (const read of reads) confirmed.push({ read, index });
    }
    this.#asked.splice(0, count);
    this.#count -= confirmed.length;
    return confirmed;
  }
}
