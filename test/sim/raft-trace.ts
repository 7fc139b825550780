import { crc32 } from 'node:zlib';
import type { PeerPacket } from '@conclave/server';
import type { Findings } from './findings.ts';

interface Seen {
  readonly digest: number;
  readonly by: string;
}

/**
 * Election safety and log matching, from what members say to each other: one leader a term, and one entry, with one before it, for each term and index.
 * And nobody forgets a commit it told of, while it lives.
 */
export class RaftTrace {
  readonly #findings: Findings;
  readonly #leaders = new Map<number, string>();
  readonly #entries = new Map<string, Seen>();
  readonly #committed = new Map<number, { readonly term: number; readonly by: string }>();
  #highestCommit = 0;

  constructor(findings: Findings) {
    this.#findings = findings;
  }

  get highestCommit(): number {
    return this.#highestCommit;
  }

  get terms(): number {
    return this.#leaders.size;
  }

  packet(packet: PeerPacket, from: string): void {
    this.#highestCommit = Math.max(this.#highestCommit, packet.commitIndex);
    for (const frame of packet.frames) {
      if (frame.kind !== 'raft') continue;
      const { message } = frame;
      if (message.type === 'heartbeat') this.#leads(message.term, from);
      if (message.type !== 'appendEntries') continue;
      this.#leads(message.term, from);
      let previousTerm = message.prevLogTerm;
      for (const { term, index, data } of message.entries) {
        this.entry(term, index, previousTerm, data, from);
        if (index <= packet.commitIndex) this.committed(index, term, from);
        previousTerm = term;
      }
    }
  }

  entry(term: number, index: number, previousTerm: number, data: Uint8Array, by: string): void {
    const place = `${term}/${index}`;
    const digest = crc32(data, previousTerm);
    const known = this.#entries.get(place);
    if (known === undefined) this.#entries.set(place, { digest, by });
    else if (known.digest !== digest)
      this.#findings.add('log-matching', `${known.by} and ${by} have different entries, or different terms before it, at ${place}`);
  }

  committed(index: number, term: number, by: string): void {
    const known = this.#committed.get(index);
    if (known === undefined) this.#committed.set(index, { term, by });
    else if (known.term !== term) {
      this.#findings.add(
        'committed-overwritten',
        `index ${index} was committed in term ${known.term} (${known.by}), and in term ${term} (${by})`,
      );
    }
  }

  /** Entries of a member's log at the end: no committed one may be missing or another. */
  log(entries: readonly { readonly term: number; readonly index: number; readonly data: Uint8Array }[], by: string): void {
    for (const [at, { term, index, data }] of entries.entries()) {
      const before = entries[at - 1];
      if (before !== undefined) this.entry(term, index, before.term, data, by);
      const committed = this.#committed.get(index);
      if (committed !== undefined && committed.term !== term) {
        this.#findings.add(
          'committed-overwritten',
          `the log of ${by} has term ${term} at index ${index}, where ${committed.by} committed term ${committed.term}`,
        );
      }
    }
  }

  #leads(term: number, from: string): void {
    const known = this.#leaders.get(term);
    if (known === undefined) this.#leaders.set(term, from);
    else if (known !== from) this.#findings.add('election-safety', `term ${term} has two leaders: ${known} and ${from}`);
  }
}
