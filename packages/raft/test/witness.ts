/** Sees all that happens in a cluster, and throws at the first thing that Raft promises will not (paper, figure 3). */
import type { ConfState, Entry, MemberId, PeerMessage } from '../src/types.ts';
import type { Host } from './host.ts';

export class Witness {
  readonly counts = { leaders: 0, applied: 0, reads: 0, confChanges: 0, snapshots: 0, transfers: 0 };
  #confState: ConfState = { voters: [], learners: [] };
  /** Who ever was a member. */
  readonly #members: Set<MemberId> = new Set();
  readonly #leaderOf: Map<number, MemberId> = new Map();
  /** By voter and term. */
  readonly #votes: Map<string, MemberId> = new Map();
  /** By "term/index": what the entry is, and the term of the one before it. */
  readonly #entries: Map<string, string> = new Map();
  /** By index: what was applied, by whoever was first. */
  readonly #applied: string[] = [];
  readonly #digests: number[] = [];
  /** The term in which it was known to be committed. */
  readonly #knownInTerm: number[] = [];
  /** Indexes by what a client proposed. */
  readonly #proposals: Map<string, number> = new Map();
  readonly #questions: Map<string, number> = new Map();

  /** Election safety, and leader completeness: it holds all that anybody has applied in an earlier term. */
  leads(host: Host): void {
    const { term } = host.raft;
    const before = this.#leaderOf.get(term);
    if (before !== undefined && before !== host.id) throw new Error(`${before} and ${host.id} both lead in term ${term}`);
    if (before === undefined) this.counts.leaders += 1;
    this.#leaderOf.set(term, host.id);
    for (let index = host.raft.compactedIndex + 1; index < this.#applied.length; index++) {
      const held = host.terms[index];
      // A paused member learns late that it was elected.
      if (this.#knownInTerm[index]! >= term) continue;
      if (held === undefined || !this.#applied[index]!.startsWith(`${held} `)) {
        throw new Error(`${host.id} leads in term ${term} without entry ${index}, which is applied: ${held} for ${this.#applied[index]}`);
      }
    }
  }

  /** Log matching: an index and a term name one entry, and one before it. */
  appended(entries: readonly Entry[], terms: readonly number[]): void {
    for (const { term, index, type, data } of entries) {
      const what = `${type} ${data.join()} after ${terms[index - 1] ?? 0}`;
      const key = `${term}/${index}`;
      const known = this.#entries.get(key) ?? what;
      if (known !== what) throw new Error(`entry ${key} is ${what} here and ${known} elsewhere`);
      this.#entries.set(key, what);
    }
  }

  /** State machine safety, and at most once. @returns whether nobody had applied it before. */
  applied(host: Host, { term, index, type, data }: Entry): boolean {
    const { digest } = host.machine;
    const what = `${term} ${type} ${data.join()}`;
    const known = this.#applied[index] ?? what;
    if (known !== what) throw new Error(`${host.id} applies ${what} at ${index}, where ${known} was applied`);
    if ((this.#digests[index] ?? digest) !== digest) throw new Error(`${host.id} has another state before ${index} than others had`);
    if (host.raft.durableIndex < index) throw new Error(`${host.id} applies ${index} before it is durable`);
    if (this.#applied[index] !== undefined) return false;
    this.#applied[index] = what;
    this.#digests[index] = digest;
    this.#knownInTerm[index] = host.raft.term;
    this.counts.applied += 1;
    if (type === 'confChange') this.#changed(host.raft.confState);
    if (type !== 'normal' || data.length === 0) return true;
    const proposal = data.join();
    if (this.#proposals.has(proposal)) throw new Error(`${data.join()} is applied at ${this.#proposals.get(proposal)} and at ${index}`);
    this.#proposals.set(proposal, index);
    return true;
  }

  #changed(confState: ConfState): void {
    this.counts.confChanges += 1;
    this.#confState = confState;
    for (const member of [...confState.voters, ...confState.learners]) this.#members.add(member);
  }

  /** Removed for ever: ids are not used again. */
  isRemoved(member: MemberId): boolean {
    return this.#members.has(member) && !this.#confState.voters.includes(member) && !this.#confState.learners.includes(member);
  }

  restored({ machine }: Host): void {
    this.counts.snapshots += 1;
    const next = this.#digests[machine.index + 1];
    if (next !== undefined && next !== machine.digest) throw new Error(`the snapshot at ${machine.index} is another state than was there`);
  }

  get lastApplied(): number {
    return this.#applied.length - 1;
  }

  /** Linearizable reads: what anybody knew to be committed before the question is seen by the answer. */
  asked(host: Host, context: Uint8Array, atLeast: number): void {
    this.#questions.set(`${host.id} ${context.join()}`, atLeast);
  }

  answered(host: Host, context: Uint8Array, index: number): void {
    const key = `${host.id} ${context.join()}`;
    const atLeast = this.#questions.get(key);
    if (atLeast === undefined) throw new Error(`${host.id} is given an answer that it did not ask for, or for the second time`);
    this.#questions.delete(key);
    if (index < atLeast) throw new Error(`${host.id} may read at ${index}, and ${atLeast} was committed before it asked`);
    this.counts.reads += 1;
  }

  /** One vote a term; and who knows that it is no voter asks for none. */
  sent(host: Host, message: PeerMessage): void {
    const { type, from, to, term } = message;
    if (type === 'requestVoteResponse' && message.granted) {
      const key = `${from} ${term}`;
      const before = this.#votes.get(key) ?? to;
      if (before !== to) throw new Error(`${from} votes for ${before} and for ${to} in term ${term}`);
      this.#votes.set(key, to);
    }
    if (type === 'timeoutNow') this.counts.transfers += 1;
    if (type !== 'requestVote' && type !== 'requestPreVote') return;
    if (!host.machine.confState.voters.includes(host.id)) throw new Error(`${host.id} is no voter and asks for votes`);
  }
}
