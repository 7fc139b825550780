import { crc32 } from 'node:zlib';
import type { PeerPacket } from '@conclave/server';
import { RaftSafety } from '@conclave/testkit';
import type { Findings } from './findings.ts';

/** Raft's safety, from what members say to each other: who leads, which entries there are, and what is committed. */
export class RaftTrace {
  readonly #safety: RaftSafety;

  constructor(findings: Findings) {
    this.#safety = new RaftSafety(({ rule, what, context }) => findings.add(rule, what, context));
  }

  get terms(): number {
    return this.#safety.terms;
  }

  packet(packet: PeerPacket, from: string): void {
    for (const frame of packet.frames) {
      if (frame.kind !== 'raft') continue;
      const { message } = frame;
      if (message.type === 'heartbeat') this.#safety.leads(from, message.term);
      if (message.type !== 'appendEntries') continue;
      this.#safety.leads(from, message.term);
      let previousTerm = message.prevLogTerm;
      for (const { term, index, data } of message.entries) {
        const digest = crc32(data);
        this.#safety.holds(from, { term, index, digest }, previousTerm);
        if (index <= packet.commitIndex) this.#safety.commits(from, index, term, digest);
        previousTerm = term;
      }
    }
  }

  /** Entries of a member's log at the end: no committed one may be missing or another. */
  log(entries: readonly { readonly term: number; readonly index: number; readonly data: Uint8Array }[], by: string): void {
    for (const [at, { term, index, data }] of entries.entries()) {
      const entry = { term, index, digest: crc32(data) };
      this.#safety.holds(by, entry, entries[at - 1]?.term ?? -1);
      this.#safety.keeps(by, entry);
    }
  }
}
