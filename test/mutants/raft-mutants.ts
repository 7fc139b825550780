import { type Edit, type Finder, type Mutant, simulated } from './mutant.ts';

const raft = (file: string, find: string, replace: string): Edit => ({ file: `packages/raft/src/${file}.ts`, find, replace });

/** Whole clusters of the core alone, under random faults. */
const clusters = (seeds: number): Finder => ({ file: 'packages/raft/src/cluster.test.ts', test: 'keeps what Raft promises', seeds });

/** Scripts whose every step is known. */
const scenarios: Finder = { file: 'packages/raft/src/scenario.test.ts' };

/** Bugs of the core. */
export const raftMutants: readonly Mutant[] = [
  {
    name: 'leader-counts-itself-early',
    origin: 'etcd #14370: acknowledged before the own fsync',
    edits: [raft('leadership', 'this.#quorumReached(log.durableIndex, ', 'this.#quorumReached(log.lastIndex, ')],
    finders: [clusters(1000)],
  },
  {
    name: 'follower-acknowledges-early',
    origin: 'paper, figure 2: "stable storage before responding"',
    edits: [
      raft(
        'following',
        "    afterDurable.push({ type: 'appendEntriesResponse', ...this.#member.envelope(leader), ...answer });\n  }\n\n  /** With",
        "    this.#member.messages.push({ type: 'appendEntriesResponse', ...this.#member.envelope(leader), ...answer });\n  }\n\n  /** With",
      ),
    ],
    finders: [clusters(1000), simulated(40)],
  },
  {
    name: 'vote-not-durable',
    origin: 'hashicorp/raft #661: a crash between vote and answer gives two votes in a term',
    edits: [
      raft(
        'election',
        'afterDurable.push({ type, from: id, to: request.from',
        'this.#member.messages.push({ type, from: id, to: request.from',
      ),
    ],
    finders: [clusters(2000)],
  },
  {
    name: 'term-and-vote-apart',
    origin: 'hashicorp/raft #661: term and vote in two writes',
    edits: [
      raft(
        'handoff',
        'this.#term = term;\n    this.#vote = vote;\n    return { term, vote,',
        'const written = this.#term === term ? vote : 0n;\n    this.#term = term;\n    this.#vote = written;\n    return { term, vote: written,',
      ),
    ],
    finders: [scenarios],
  },
  {
    name: 'read-confirmed-by-old-round',
    origin: 'etcd #20418, raft PR 397: a read is confirmed by answers that were asked for before it',
    edits: [
      raft(
        'leadership',
        'if (!isSoleVoter) this.#sendHeartbeats(false);\n    this.#reads.begin(this.#round, log.committedIndex);',
        'this.#reads.begin(this.#round, log.committedIndex);\n    if (!isSoleVoter) this.#sendHeartbeats(false);',
      ),
    ],
    finders: [clusters(1000)],
  },
  {
    name: 'read-before-own-term',
    origin: 'thesis 6.4: a new leader answers reads before it has committed an entry of its term',
    edits: [
      raft('leadership', 'if (!this.#reads.hasWaiting || !this.#hasCommittedInTerm) return;', 'if (!this.#reads.hasWaiting) return;'),
      raft('leadership', '(this.#reads.hasWaiting && this.#hasCommittedInTerm)) return true;', 'this.#reads.hasWaiting) return true;'),
    ],
    finders: [clusters(1000)],
  },
  {
    name: 'old-term-committed-by-counting',
    origin: 'paper, figure 8',
    edits: [raft('leadership', 'if (held > log.committedIndex && log.termAt(held) === term) ', 'if (held > log.committedIndex) ')],
    finders: [scenarios],
  },
  {
    name: 'membership-before-own-term',
    origin: 'Ongaro, raft-dev 2015: the bug of single-server changes',
    edits: [raft('leadership', "    if (!this.#hasCommittedInTerm) return 'ownTermNotCommitted';\n", '')],
    finders: [scenarios],
  },
  {
    name: 'two-membership-changes-at-once',
    origin: 'raft #80: a pending change is not waited for',
    edits: [raft('leadership', "return this.#pendingConfIndex > log.appliedIndex ? 'confChangePending' : undefined;", 'return undefined;')],
    finders: [clusters(2000)],
  },
  {
    name: 'learner-counts',
    origin: 'etcd #10998 class: who is no voter is counted to a quorum',
    edits: [raft('leadership', 'if (progress.isVoter) this.#scratch.push(of(progress));', 'this.#scratch.push(of(progress));')],
    finders: [scenarios],
  },
  {
    name: 'pre-vote-granted-beside-a-leader',
    origin: 'etcd #8501, raft-rs #83: a member that cannot hear the leader deposes it',
    edits: [
      raft(
        'raft',
        "if (leadershipTransfer || (type === 'requestVote' && !this.#config.checkQuorum)) return false;",
        "if (leadershipTransfer || type === 'requestPreVote' || !this.#config.checkQuorum) return false;",
      ),
    ],
    finders: [scenarios],
  },
  {
    name: 'append-aba',
    origin: 'etcd raft, async storage writes: the answer to a write that was overwritten vouches for the one that came back',
    edits: [raft('log', '    for (const write of this.#inFlight) write.durableIndex = Math.min(write.durableIndex, index);\n', '')],
    finders: [clusters(2000)],
  },
  {
    name: 'follower-cuts-what-agrees',
    origin: 'paper, section 5.3: an old append takes away what was acknowledged since',
    edits: [
      raft(
        'log',
        '    if (at === entries.length) return;\n    if (entries[at]!',
        '    if (at === entries.length) {\n      if (prev.index + at < this.lastIndex) this.#truncate(prev.index + at + 1);\n      return;\n    }\n    if (entries[at]!',
      ),
    ],
    finders: [clusters(1000), simulated(40)],
  },
  {
    name: 'heartbeat-commits-beyond-match',
    origin: 'etcd raft: a heartbeat commits entries that the member has of another leader',
    edits: [
      raft('progress', 'const leaderCommit = Math.min(commitIndex, this.matchIndex);', 'const leaderCommit = commitIndex;'),
      raft(
        'following',
        'this.#member.log.commitTo(leaderCommit);',
        'this.#member.log.commitTo(Math.min(leaderCommit, this.#member.log.lastIndex));',
      ),
    ],
    finders: [clusters(1000)],
  },
  {
    name: 'append-commits-beyond-itself',
    origin: 'paper, figure 2: commit up to the last new entry, not the last entry',
    edits: [raft('following', 'log.commitTo(Math.min(leaderCommit, agreed));', 'log.commitTo(Math.min(leaderCommit, log.lastIndex));')],
    finders: [scenarios],
  },
  {
    name: 'forwarded-proposal-twice',
    origin: 'etcd #14890 class: a repeated message is a repeated write',
    edits: [
      raft(
        'leadership',
        'if (!this.#find(from)?.arrivals.isNew(incarnation, sequence)) return;',
        'this.#find(from)?.arrivals.isNew(incarnation, sequence);',
      ),
    ],
    finders: [clusters(1000), simulated(40)],
  },
  {
    name: 'campaign-over-unapplied-membership',
    origin: 'etcd raft: who has not applied a committed change of membership counts by the old one',
    edits: [
      raft(
        'election',
        'return isVoter && !log.isRestoring && !log.hasConfChange(log.appliedIndex, log.committedIndex);',
        'return isVoter && !log.isRestoring;',
      ),
    ],
    finders: [scenarios],
  },
];
