import type { Member } from './member.ts';
import type { Entry, ReadIndexResponse } from './types.ts';

/** Questions that are kept for their answers. Older ones are forgotten: their answers were lost, and the host has asked again. */
const maxAsked = 1000;

/** What a member asks of its leader. What comes in between two Readys goes out as one message. */
export class Forwarding {
  readonly #member: Member;
  #sequence = 0;
  /** The message that is being filled. */
  #proposals: Pick<Entry, 'type' | 'data'>[] | undefined;
  #bytes = 0;
  #reads: Uint8Array[] | undefined;
  /** Contexts of the reads that each question stands for. */
  readonly #asked: Map<number, readonly Uint8Array[]> = new Map();

  constructor(member: Member) {
    this.#member = member;
  }

  propose(type: Entry['type'], data: Uint8Array): void {
    const { messages, config, leader } = this.#member;
    if (!this.#proposals || this.#bytes + data.length > config.maxEntriesPerAppendBytes) {
      this.#proposals = [];
      this.#bytes = 0;
      messages.push({ type: 'propose', ...this.#member.envelope(leader), ...this.#number(), entries: this.#proposals });
    }
    this.#proposals.push({ type, data });
    this.#bytes += data.length;
  }

  read(context: Uint8Array): void {
    const { messages, leader } = this.#member;
    if (!this.#reads) {
      this.#reads = [];
      const numbers = this.#number();
      this.#asked.set(numbers.sequence, this.#reads);
      if (this.#asked.size > maxAsked) this.#asked.delete(this.#asked.keys().next().value!);
      messages.push({ type: 'readIndex', ...this.#member.envelope(leader), ...numbers });
    }
    this.#reads.push(context);
  }

  #number(): { readonly incarnation: number; readonly sequence: number } {
    this.#sequence += 1;
    return { incarnation: this.#member.config.incarnation, sequence: this.#sequence };
  }

  /** An answer to a question of an earlier life, or a repeated one, finds nothing that waits for it. */
  answered({ incarnation, sequence, index }: ReadIndexResponse): void {
    if (incarnation !== this.#member.config.incarnation) return;
    for (const context of this.#asked.get(sequence) ?? []) this.#member.readStates.push({ index, context });
    this.#asked.delete(sequence);
  }

  /** The messages go out: what comes from now on is not in them. */
  close(): void {
    this.#proposals = undefined;
    this.#reads = undefined;
  }

  /** Another leader, or none. */
  forget(): void {
    this.close();
    this.#asked.clear();
  }
}
