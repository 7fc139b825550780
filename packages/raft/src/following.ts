import { invariant } from './invariant.ts';
import type { Member } from './member.ts';
import type { AppendEntries, Commit, Heartbeat, InstallSnapshot, MemberId } from './types.ts';

/** What a member does for its leader: takes in entries and snapshots, and answers. */
export class Following {
  readonly #member: Member;

  constructor(member: Member) {
    this.#member = member;
  }

  append(message: AppendEntries): void {
    const { from, leaderCommit } = message;
    const { log } = this.#member;
    const { prev, entries } = this.#beyondCommit(message);
    if (log.termAt(prev.index) !== prev.term) {
      this.reject(from, prev.index, prev.term);
      return;
    }
    log.merge(prev, entries);
    const agreed = prev.index + entries.length;
    // What lies behind the message may be another leader's, whatever is committed elsewhere.
    log.commitTo(Math.min(leaderCommit, agreed));
    this.#accept(from, agreed);
  }

  /** Committed entries agree by Raft's safety, also where they are compacted and cannot be compared: only what follows them is looked at. */
  #beyondCommit({ prevLogIndex, prevLogTerm, entries }: AppendEntries): {
    readonly prev: { readonly index: number; readonly term: number };
    readonly entries: AppendEntries['entries'];
  } {
    const { log } = this.#member;
    const known = log.committedIndex - prevLogIndex;
    if (known <= 0) return { prev: { index: prevLogIndex, term: prevLogTerm }, entries };
    const prev = { index: log.committedIndex, term: log.termAt(log.committedIndex)! };
    const there = entries[known - 1];
    invariant(
      there === undefined || there.term === prev.term,
      () => `entry ${prev.index} is committed with term ${prev.term}, and a leader has it with term ${there?.term}`,
    );
    return { prev, entries: entries.slice(known) };
  }

  heartbeat(heartbeat: Heartbeat): void {
    this.commit(heartbeat);
    const { from, round } = heartbeat;
    this.#member.messages.push({ type: 'heartbeatResponse', ...this.#member.envelope(from), round });
  }

  /** As far as the leader knows that the logs agree: there is nothing to look at. */
  commit({ leaderCommit }: Commit | Heartbeat): void {
    this.#member.log.commitTo(leaderCommit);
  }

  snapshot({ from, snapshot }: InstallSnapshot): void {
    const { log } = this.#member;
    const { index, term } = snapshot;
    // What is known to be committed is here, or on the way from here to the state machine.
    if (index > log.committedIndex) {
      if (log.termAt(index) === term) log.commitTo(index);
      else if (this.#concerns(snapshot)) log.restore(snapshot);
    }
    this.#accept(from, log.committedIndex);
  }

  /** Who joins is not in the configuration yet. Who is in it was not removed before it could learn so: that state is not for this member. */
  #concerns({ confState: { voters, learners } }: InstallSnapshot['snapshot']): boolean {
    const { id, conf } = this.#member;
    const isIn = (members: readonly MemberId[]): boolean => members.includes(id);
    return isIn(voters) || isIn(learners) || !(isIn(conf.voters) || isIn(conf.learners));
  }

  /** This log agrees with the leader's up to `index`. Goes out when all that was written until now is durable. */
  #accept(leader: MemberId, index: number): void {
    const { afterDurable, term } = this.#member;
    const last = afterDurable.at(-1);
    // One answer for all that goes to disk together.
    if (last?.type === 'appendEntriesResponse' && !last.rejected && last.to === leader && last.term === term) {
      if (last.index >= index) return;
      afterDurable.pop();
    }
    const answer = { index, rejected: false, hintIndex: 0, hintTerm: 0 };
    afterDurable.push({ type: 'appendEntriesResponse', ...this.#member.envelope(leader), ...answer });
  }

  /** With the highest place at which the logs can still agree: what was rejected is of `prevLogTerm`, and no later term can come before it. */
  reject(leader: MemberId, prevLogIndex: number, prevLogTerm: number): void {
    const { log, afterDurable } = this.#member;
    const possible = log.lastIndexUpToTerm(Math.min(prevLogIndex, log.lastIndex), prevLogTerm);
    const hintIndex = Math.max(possible, log.committedIndex);
    const answer = { index: prevLogIndex, rejected: true, hintIndex, hintTerm: log.termAt(hintIndex)! };
    afterDurable.push({ type: 'appendEntriesResponse', ...this.#member.envelope(leader), ...answer });
  }
}
